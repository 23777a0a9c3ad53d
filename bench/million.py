"""`python -m bench.million`: what each query of the log costs with a million records, compared with a thousand.

The records are written through the store, two transactions per incident. The long log continues the short one for
nearly a year: a quiet first month with a thousand records, then three thousand records a day. The tables are in SQLite
(`tables`), so read units are computed by AWS's rules and not measured, and times are those of this program and a
B-tree, without a network.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.tables import Tables
from chalicelib.auditlog import history, views
from chalicelib.auditlog.draft import Draft
from chalicelib.auditlog.filters import Filter
from chalicelib.auditlog.summary import summarize
from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.logreads import LogStore
from chalicelib.aws.tables import AUDIT_TABLE, TARGETS_TABLE
from chalicelib.domain.incidents import exposure, remember
from chalicelib.domain.model import Actor, EncryptionStatus, EncryptionType, Setting, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Problem, Violation
from chalicelib.domain.stored import GUARD_CHAIN, Action, Cause, GuardState, Incident, Phase, TargetState

START = datetime(2025, 11, 1, tzinfo=UTC)
QUIET, BUSY = timedelta(minutes=45), timedelta(seconds=30)
"""The time between two records: for the first thousand, and for the others."""

MONTH = timedelta(days=29)
BUSIER = "figures of the last, busier month"
"""Reported, but not required to be flat: its days have ninety times the records, so their histograms use more buckets.
The growth ends when all buckets are used."""

ACCOUNTS, REGIONS, ACTORS = 4, 3, 40
"""Few enough targets that even in the short log each one fills a page."""

SHORT, LONG = 1_000, 1_000_000
FLAT = 1.5
"""If a cost grows no more than this while the log grows a thousandfold, it depends on the page and not on the log."""


class _Same(Clients):
    def __init__(self, tables: Tables) -> None:
        super().__init__(session=object())
        self._tables = tables

    def reading(self, service: str, region: str) -> Any:
        return self._tables


@dataclass(frozen=True)
class Log:
    """A log, its number of records, and the time after its last record."""

    tables: Tables
    store: LogStore
    records: int
    now: datetime


def written(records: int, path: Path | str, seed: int = 1) -> Log:
    """Write a log with that many records. With the same seed, a shorter log is a prefix of a longer one."""
    tables = Tables(path)
    store = LogStore(_Same(tables), "us-east-1", AwsClock(), AUDIT_TABLE, TARGETS_TABLE)
    luck = random.Random(seed)
    states: dict[str, TargetState] = {}
    beginning = Draft(GuardState())
    beginning.add(START, Outcome.IGNORED, Trigger(TriggerKind.SWEEP), reason="SWEEP")
    beginning.set(version=1)
    store.commit(beginning.before, beginning.after, beginning.records)
    at, count = START, 1
    began = time.monotonic()
    while count < records:
        target = f"{100000000000 + luck.randrange(ACCOUNTS)}/eu-west-{luck.randrange(REGIONS)}"
        state = states.get(target, TargetState(target))
        for step in (_found, _ended):
            at += QUIET if count < SHORT else BUSY
            draft = step(state, at, luck)
            draft.set(version=draft.before.version + 1)
            trigger = draft.records[-1][0].trigger
            store.commit(draft.before, draft.after, draft.records, trigger.event_id if step is _found else None)
            state = draft.after
            count += len(draft.records)
        states[target] = state
        if count % 100_000 < 2:
            print(f"  {count} records, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return Log(tables, store, count, at + timedelta(seconds=1))


def _found(state: TargetState, at: datetime, luck: random.Random) -> Draft[TargetState]:
    """Draft the discovery of a drift and the start of its remediation."""
    draft = Draft(state)
    actor = Actor(f"arn:aws:iam::111122223333:role/team-{int(luck.paretovariate(1)) % ACTORS}", "AssumedRole", "jdoe")
    event_id = f"{luck.getrandbits(128):032x}"
    trigger = Trigger(
        TriggerKind.CHANGE, event_id, "PutEncryptionConfig", at - timedelta(seconds=luck.randrange(2, 400)),
        f"{luck.getrandbits(64):016x}", actor, "203.0.113.7", "aws-cli/2.31.0 md/awscrt",
    )  # fmt: skip
    assert trigger.event_time is not None
    cause = Cause(event_id, trigger.event_time, actor)
    before = Setting(EncryptionType.NONE, None, EncryptionStatus.ACTIVE)
    violations = (Violation.NOT_KMS,)
    incident = Incident(draft.next_id(), at, before, Phase.ACTING, violations, attempt=1, cause=cause, mutated=True)
    draft.add(
        at, Outcome.REMEDIATING, trigger, incident_id=incident.id, attempt=1, rule="baseline", policy_digest="d" * 64,
        violations=violations, before=before, cause=cause, detail={"plan": ["PutEncryptionConfig"]},
    )  # fmt: skip
    draft.set(incident=incident, outcome=Outcome.REMEDIATING, first_seen=state.first_seen or at, rule="baseline")
    return draft


def _ended(state: TargetState, at: datetime, luck: random.Random) -> Draft[TargetState]:
    """Draft the end of the remediation; one in a hundred fails."""
    draft = Draft(state)
    incident = state.incident
    assert incident is not None
    key = f"arn:aws:kms:us-east-1:{state.target[:12]}:key/12345678-1234-1234-1234-123456789012"
    after = Setting(EncryptionType.KMS, key, EncryptionStatus.ACTIVE)
    failed = luck.random() < 0.01
    error = Problem("ThrottlingException", "kms:DescribeKey: Rate exceeded") if failed else None
    outcome = Outcome.FAILED if failed else Outcome.REMEDIATED
    draft.add(
        at, outcome, Trigger(TriggerKind.CHANGE), incident_id=incident.id, attempt=1, rule="baseline",
        policy_digest="d" * 64, violations=incident.violations, before=incident.before, after=None if failed else after,
        cause=incident.cause, error=error, reason=error.code if error else None,
        actions=(Action("PutEncryptionConfig", at, key, "NONE", key, f"{luck.getrandbits(64):016x}"),),
        exposure_seconds=None if failed else exposure(incident, at),
    )  # fmt: skip
    draft.set(incident=None, past=remember(state, incident, at), outcome=outcome, setting=after, managed_key=key)
    return draft


def queries_of(log: Log) -> dict[str, Callable[[], Any]]:
    """Return each kind of query that the faces make, by name."""
    store, now = log.store, log.now
    target = f"{100000000000}/eu-west-0"
    middle = START + (now - START) / 2
    page = history.records(store, Filter(), now, 50)
    # The first record of an incident; any other of its records leads to the same incident.
    old = next(iter(store.oldest(target, 1, 1).rows)).sk.removeprefix("r#")

    def records(limit: int = 50, cursor: str | None = None, **wanted: Any) -> Callable[[], Any]:
        return lambda: history.records(store, Filter(**wanted), now, limit, cursor)

    return {
        "records, newest 50": records(),
        "records, the next 50": records(cursor=page.cursor),
        "records of a target": records(target=target),
        "records of an account": records(account="100000000000"),
        "records, one outcome in two hundred": records(outcomes=(Outcome.FAILED,)),
        "records of an actor who never was": records(actor="nobody"),
        "records of the last two days": records(since=now - timedelta(days=2)),
        "records before the middle": records(until=middle),
        "incidents, last 20": lambda: history.incidents(store, Filter(), now, 20),
        "incidents of a target": lambda: history.incidents(store, Filter(target=target), now, 20),
        "the oldest incident of a target": lambda: history.incident(store, f"{target}#{int(old)}"),
        "one target's state": lambda: views.target_view(store.load(target).state, GuardState(), now),
        "every target's state": lambda: history.targets(store.states(), GuardState(), now),
        "figures of the first month": lambda: summarize(store, START.date(), START.date() + MONTH),
        BUSIER: lambda: summarize(store, now.date() - MONTH, now.date()),
        "targets due": lambda: store.due(now, 200),
        "the guard's own chain, newest 50": records(target=GUARD_CHAIN),
    }


@dataclass(frozen=True)
class Cost:
    """The cost of one query: read units, requests, and the median time in seconds."""

    units: float
    requests: int
    seconds: float


def costs(logs: tuple[Log, Log], rounds: int) -> dict[str, tuple[Cost, Cost]]:
    """Run every query on both logs, alternating, and return the costs."""
    queries = [queries_of(log) for log in logs]
    found = {}
    for name in queries[0]:
        spent: tuple[list[float], list[float]] = ([], [])
        counted = []
        for log, each in zip(logs, queries, strict=True):
            log.tables.read_units, log.tables.requests = 0.0, 0
            each[name]()
            counted.append((log.tables.read_units, log.tables.requests))
        for _ in range(rounds):
            for number, each in enumerate(queries):
                began = time.perf_counter()
                each[name]()
                spent[number].append(time.perf_counter() - began)
        short, long = (
            Cost(units, requests, statistics.median(seconds))
            for (units, requests), seconds in zip(counted, spent, strict=True)
        )
        found[name] = (short, long)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Return 1 if a cost is not flat, else 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.million", description=__doc__)
    parser.add_argument("--short", type=int, default=SHORT)
    parser.add_argument("--long", type=int, default=LONG)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="xray-guard-bench-") as folder:
        logs = tuple(written(count, Path(folder, f"{count}.db")) for count in (options.short, options.long))
        found = costs((logs[0], logs[1]), options.rounds)
    print(f"{logs[0].records} records against {logs[1].records}; median of {options.rounds}\n")
    print(f"{'query':<40}{'read units':>18}{'ratio':>8}{'requests':>12}{'ms':>16}{'ratio':>8}")
    flat = True
    for name, (short, long) in found.items():
        units, seconds = long.units / short.units, long.seconds / short.seconds
        flat = flat and (name == BUSIER or (units <= FLAT and seconds <= FLAT))
        print(
            f"{name:<40}{short.units:>8.1f} →{long.units:>8.1f}{units:>8.2f}{short.requests:>5} →{long.requests:>5}"
            f"{short.seconds * 1000:>7.1f} →{long.seconds * 1000:>7.1f}{seconds:>8.2f}"
        )
    print("\nflat" if flat else f"\nNOT flat: a ratio is above {FLAT}")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
