"""What happened and what is: one layer of questions to the log, under the command line, the API and the console alike.

Answers come newest first, in pages. A page costs what it reads: `MOST_ITEMS` items and `MOST_QUERIES` queries at most,
whatever is asked for, so it may hold fewer than the limit and still have a cursor. Of one target the chain itself is
read; across targets the time index, its shards merged month by month, back to the month before the guard's own first
record (the first run of all writes one).

A cursor names the place in that order where the last page ended. New records come before that place, so that what was
there when the first page was read is answered once, and nothing twice. Records of before the last five minutes may
still arrive a little late, when a clock or the index lags: who follows the log looks back over the last two minutes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec

from chalicelib.auditlog import chain
from chalicelib.auditlog.ledger import CLOCK_SKEW
from chalicelib.domain.model import Actor, Setting, Target
from chalicelib.domain.policy import glob_matches
from chalicelib.domain.reasons import NOT_JUDGED, Outcome, Problem, Reason, Violation
from chalicelib.domain.stored import GUARD_CHAIN, Cause, Incident, Record, Suppression, TargetState

MOST_ITEMS = 1000
LEAST_ITEMS = 12
"""A page that may read fewer items than this might read none of every shard, and lead back to where it began."""

MOST_QUERIES = 200
LARGEST_PAGE = 500
RECORDS_OF_AN_INCIDENT = 24
"""As many records after an incident's first are read for one line of a list; `incident` reads on."""

LONGEST_CURSOR = 4096
CURSOR_VERSION = 1
HORIZON = timedelta(days=400)
"""How far back is looked where not even the guard's own chain tells when it began."""

SLACK = 2 * CLOCK_SKEW
"""By how much the times within a chain may be out of order."""

RECENT = timedelta(days=62)
"""So little is walked back without asking whether the log is that old."""

MARGIN = timedelta(days=31)
"""How much older than the guard's own first record any record might be."""


class BadCursor(ValueError):
    """The cursor is none of ours, or was given for another question."""


class Reads(Protocol):
    """The reads of the store that this module makes."""

    def oldest(self, target: str, limit: int, first: int = 1) -> chain.Slice:
        """Records of a chain in order."""

    def newest(self, target: str, limit: int, before: int | None = None) -> chain.Slice:
        """Records of a chain, newest first."""

    def in_month(self, month_shard: str, after: str, before: str, limit: int) -> chain.Slice:
        """Records of a shard of the time index, newest first."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What is asked for; None asks for anything.

    `target` may be `guard`. `actor` is part of the actor's ARN, session or service, case aside, or a glob of a whole
    one. `since` <= at < `until`, both aware; of incidents it is the time they were opened.
    """

    target: str | None = None
    account: str | None = None
    region: str | None = None
    outcomes: tuple[Outcome, ...] = ()
    actor: str | None = None
    rule: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def chain(self) -> str | None:
        """The one chain that can hold what is asked for, if there is only one."""
        if self.target is not None:
            return self.target
        return f"{self.account}/{self.region}" if self.account and self.region else None

    def takes(self, record: Record) -> bool:
        """Whether the record is asked for."""
        return (
            self._takes_place(record.target)
            and (not self.outcomes or record.outcome in self.outcomes)
            and (self.rule is None or record.rule == self.rule)
            and (self.since is None or record.at >= self.since)
            and (self.until is None or record.at < self.until)
            and (self.actor is None or any(_is_actor(self.actor, each) for each in _actors(record)))
        )

    def _takes_place(self, target: str) -> bool:
        account, _, region = target.partition("/")
        return (
            (self.target is None or target == self.target)
            and (self.account is None or account == self.account)
            and (self.region is None or region == self.region)
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A record, and the hash that it is stored under."""

    record: Record
    hash: str

    @property
    def actor(self) -> Actor | None:
        """Who caused what the record is about, as far as it knew; else who set off the run."""
        return self.record.cause.actor if self.record.cause else self.record.trigger.actor

    def to_json(self) -> dict[str, Any]:
        """The record's fields as they were hashed, and beside them `hash`, `actor`, `account` and `region`."""
        account, _, region = self.record.target.partition("/")
        told: dict[str, Any] = _plain(self.record)
        return {
            **told,
            "hash": self.hash,
            "actor": _plain(self.actor),
            "account": account if region else None,
            "region": region or None,
        }


@dataclass(frozen=True, slots=True)
class IncidentView:
    """An incident as its records tell it.

    `outcome` and `reason` are the last record's that says how it stands; `exposure_seconds` is known from its end on.
    `exposed_since` is when the change was made, or else when it was found. `complete`: all its records were read.
    """

    id: str
    target: str
    open: bool
    outcome: Outcome
    opened_at: datetime
    exposed_since: datetime
    closed_at: datetime | None = None
    reason: str | None = None
    rule: str | None = None
    violations: tuple[Violation, ...] = ()
    before: Setting | None = None
    after: Setting | None = None
    actor: Actor | None = None
    cause: Cause | None = None
    exposure_seconds: float | None = None
    attempts: int = 0
    actions: tuple[str, ...] = ()
    suppression: Suppression | None = None
    error: Problem | None = None
    complete: bool = True
    entries: tuple[Entry, ...] = ()

    def to_json(self, *, timeline: bool = False) -> dict[str, Any]:
        """The fields by their names; `timeline` adds the incident's records, oldest first."""
        told = _shallow(self, without=("entries",))
        account, _, region = self.target.partition("/")
        told |= {"account": account, "region": region}
        return {**told, "records": [entry.to_json() for entry in self.entries]} if timeline else told


@dataclass(frozen=True, slots=True)
class TargetView:
    """The present of a target."""

    target: str
    account: str
    region: str
    outcome: Outcome | None
    reason: str | None
    violations: tuple[Violation, ...]
    setting: Setting | None
    rule: str | None
    policy_digest: str | None
    first_seen: datetime | None
    checked_at: datetime | None
    good_at: datetime | None
    incident: Incident | None
    exposed_since: datetime | None
    managed_key: str | None
    orphan_keys: tuple[str, ...]
    suppressions: tuple[Suppression, ...]
    due: datetime | None
    records: int

    @property
    def compliant(self) -> bool:
        """Whether the setting was as the rule asks when it was last looked at."""
        return self.outcome in (Outcome.COMPLIANT, Outcome.REMEDIATED) and self.incident is None

    def to_json(self) -> dict[str, Any]:
        """The fields by their names."""
        return {**_shallow(self), "compliant": self.compliant}


@dataclass(frozen=True, slots=True)
class Page:
    """Records newest first. `cursor` leads on, None at the end; `unreadable` counts rows that hold no record."""

    entries: tuple[Entry, ...]
    cursor: str | None
    items_read: int
    unreadable: int = 0

    def to_json(self) -> dict[str, Any]:
        """What the API answers."""
        return {"records": [entry.to_json() for entry in self.entries], "next_token": self.cursor}


@dataclass(frozen=True, slots=True)
class IncidentPage:
    """Incidents, the last opened first."""

    incidents: tuple[IncidentView, ...]
    cursor: str | None
    items_read: int
    unreadable: int = 0

    def to_json(self) -> dict[str, Any]:
        """What the API answers."""
        return {"incidents": [incident.to_json() for incident in self.incidents], "next_token": self.cursor}


# --- the questions ---------------------------------------------------------------------------------------------------


def records(
    store: Reads,
    wanted: Filter,
    now: datetime,
    limit: int = 50,
    cursor: str | None = None,
    *,
    most_items: int = MOST_ITEMS,
) -> Page:
    """One page of the records that are asked for, newest first.

    `now` is AWS's time, aware. A page's cursor carries the time range that the first page had. Raises BadCursor.
    """
    wanted, position = _opened(cursor, "records", wanted)
    budget = _Budget(most_items, MOST_QUERIES)
    walk = _walk(store, wanted, now, position, budget, limit)
    found: list[Entry] = []
    unreadable = 0
    last: str | None = None
    for place, row in walk:
        entry = _entry(row)
        unreadable += entry is None
        if entry is not None and wanted.takes(entry.record):
            found.append(entry)
        last = place
        if len(found) == min(limit, LARGEST_PAGE):
            break
    else:
        last = walk.rest
    return Page(tuple(found), _cursor("records", wanted, last), budget.items_read, unreadable)


def incidents(
    store: Reads,
    wanted: Filter,
    now: datetime,
    limit: int = 20,
    cursor: str | None = None,
    *,
    most_items: int = MOST_ITEMS,
) -> IncidentPage:
    """One page of the incidents that are asked for, the last opened first; `outcomes` is how each of them stands now.

    Raises BadCursor.
    """
    wanted, position = _opened(cursor, "incidents", wanted)
    budget = _Budget(most_items, MOST_QUERIES)
    # What is asked of the whole incident cannot be asked of its first record.
    opening = replace(wanted, outcomes=(), actor=None)
    walk = _walk(store, wanted, now, position, budget, limit)
    found: list[IncidentView] = []
    unreadable = 0
    last = position
    for place, row in walk:
        entry = _entry(row)
        unreadable += entry is None
        if entry is not None and _opens(entry.record) and opening.takes(entry.record):
            if last != position and not budget.allows(RECORDS_OF_AN_INCIDENT + 1):
                break
            view = _incident_from(store, entry, budget, RECORDS_OF_AN_INCIDENT)
            if _takes_incident(wanted, view):
                found.append(view)
        last = place
        if len(found) == min(limit, LARGEST_PAGE):
            break
    else:
        last = walk.rest
    return IncidentPage(tuple(found), _cursor("incidents", wanted, last), budget.items_read, unreadable)


def incident(store: Reads, incident_id: str) -> IncidentView | None:
    """One incident with its records, oldest first; None where there is no such incident.

    Takes the id of one of its records, too. Raises ValueError where the text is no id.
    """
    target, seq = _read_id(incident_id)
    slice_ = store.oldest(target, 1, seq)
    first = _entry(slice_.rows[0]) if slice_.rows else None
    if first is None or first.record.seq != seq or first.record.incident_id is None:
        return None
    if not _opens(first.record):
        target, seq = _read_id(first.record.incident_id)
        first = next(filter(None, map(_entry, store.oldest(target, 1, seq).rows)), None)
        if first is None or not _opens(first.record) or first.record.seq != seq:
            return None
    return _incident_from(store, first, _Budget(MOST_ITEMS, MOST_QUERIES), MOST_ITEMS)


def targets(states: Iterable[TargetState], wanted: Filter | None = None) -> list[TargetView]:
    """The present state of every target, by account and Region; of the filter, the place, rule and outcome count."""
    views = []
    for state in states:
        view = target_view(state)
        if wanted is None or (
            wanted._takes_place(view.target)
            and (wanted.rule is None or view.rule == wanted.rule)
            and (not wanted.outcomes or view.outcome in wanted.outcomes)
        ):
            views.append(view)
    return sorted(views, key=lambda view: (view.account, view.region))


def target_view(state: TargetState) -> TargetView:
    """What a target's state says to people."""
    account, _, region = state.target.partition("/")
    kept = {state.managed_key, *state.keys_retired}
    return TargetView(
        target=state.target,
        account=account,
        region=region,
        outcome=state.outcome,
        reason=state.reason,
        violations=state.violations,
        setting=state.setting,
        rule=state.rule,
        policy_digest=state.policy_digest,
        first_seen=state.first_seen,
        checked_at=state.checked_at,
        good_at=state.good_at,
        incident=state.incident,
        exposed_since=_exposed_since(state.incident) if state.incident else None,
        managed_key=state.managed_key,
        orphan_keys=tuple(arn for arn in state.keys_made if arn not in kept),
        suppressions=tuple(one for one in state.suppressions if one.closed is None and one.refused is None),
        due=state.due,
        records=state.seq,
    )


class Follower:
    """What is new among records that are read again and again over an overlap, so that nothing is told twice."""

    OVERLAP = timedelta(minutes=2)

    def __init__(self) -> None:
        self._told: dict[str, datetime] = {}

    def since(self, now: datetime) -> datetime:
        """From when on to read this time: whatever clocks and indexes may have held back."""
        return now - self.OVERLAP - timedelta(seconds=1)

    def fresh(self, entries: Iterable[Entry], now: datetime) -> list[Entry]:
        """Those that were not told before, oldest first."""
        new = sorted(
            (entry for entry in entries if entry.record.record_id not in self._told),
            key=lambda entry: (entry.record.at, entry.record.target, entry.record.seq),
        )
        self._told |= {entry.record.record_id: entry.record.at for entry in new}
        oldest = self.since(now) - SLACK
        self._told = {name: at for name, at in self._told.items() if at >= oldest}
        return new


def _takes_incident(wanted: Filter, view: IncidentView) -> bool:
    if wanted.outcomes and view.outcome not in wanted.outcomes:
        return False
    if wanted.actor is None:
        return True
    return any(_is_actor(wanted.actor, actor) for entry in view.entries for actor in _actors(entry.record))


# --- incidents out of records ----------------------------------------------------------------------------------------


def _opens(record: Record) -> bool:
    return record.incident_id is not None and record.incident_id == record.record_id


def _incident_from(store: Reads, first: Entry, budget: _Budget, most: int) -> IncidentView:
    """The incident whose first record is `first`, out of up to `most` records after that."""
    target = first.record.target
    own, closed_at, others = [first], _closing(first.record), 0
    seq, left, complete = first.record.seq + 1, most, False
    while left > 0 and budget.allows(1):
        slice_ = store.oldest(target, budget.take(min(left, 100)), seq)
        budget.count(len(slice_.rows))
        left -= len(slice_.rows)
        for row in slice_.rows:
            entry = _entry(row)
            if entry is None:
                continue
            record = entry.record
            seq = record.seq + 1
            if record.incident_id == first.record.incident_id:
                own.append(entry)
                closed_at = closed_at or _closing(record)
            else:
                ends = _opens(record) or (record.outcome is Outcome.IGNORED and record.reason in NOT_JUDGED)
                closed_at = closed_at or (record.at if ends else None)
                others += _opens(record)
        # A change that is heard of late is joined to one of the last eight incidents; after those nothing can come.
        if not slice_.more or others > 8:
            complete = True
            break
    return _view(tuple(own), closed_at, complete=complete)


def _closing(record: Record) -> datetime | None:
    if record.outcome is Outcome.REMEDIATED:
        return record.at
    return record.at if record.outcome is Outcome.COMPLIANT and record.reason != Reason.UPDATING else None


def _view(entries: tuple[Entry, ...], closed_at: datetime | None, *, complete: bool) -> IncidentView:
    own = [entry.record for entry in entries]
    first = own[0]
    telling = [record for record in own if record.reason not in (Reason.IN_PROGRESS, Reason.UPDATING)]
    until_end = [record for record in telling if closed_at is None or record.at <= closed_at] or telling
    last = until_end[-1]
    cause = next((record.cause for record in reversed(own) if record.cause), None)
    exposures = [record.exposure_seconds for record in own if record.exposure_seconds is not None]
    return IncidentView(
        id=first.record_id,
        target=first.target,
        open=closed_at is None,
        outcome=last.outcome,
        opened_at=first.at,
        exposed_since=cause.at if cause else first.at,
        closed_at=closed_at,
        reason=last.reason,
        rule=last.rule,
        violations=next((record.violations for record in own if record.violations), ()),
        before=next((record.before for record in own if record.before), None),
        after=next((record.after for record in reversed(own) if record.after), None),
        actor=cause.actor if cause else None,
        cause=cause,
        exposure_seconds=exposures[-1] if exposures else None,
        attempts=sum(record.outcome is Outcome.REMEDIATING for record in own),
        actions=tuple(action.name for record in own for action in record.actions if action.error is None),
        suppression=next((record.suppression for record in reversed(own) if record.suppression), None),
        error=last.error,
        complete=complete,
        entries=entries,
    )


def _exposed_since(open_incident: Incident) -> datetime:
    return open_incident.cause.at if open_incident.cause else open_incident.opened_at


def _read_id(text: str) -> tuple[str, int]:
    """An id as it is, or with dots for `/` and `#`, which the path of a URL carries safely."""
    dotted = text.split(".")
    target, _, seq = (f"{dotted[0]}/{dotted[1]}#{dotted[2]}" if len(dotted) == 3 else text).rpartition("#")
    if not (seq.isascii() and seq.isdigit() and 0 < len(seq) <= 12 and int(seq) > 0):
        raise ValueError(f"{text!r} is not an incident: write it as 111122223333/us-east-1#7")
    if target != GUARD_CHAIN:
        Target.parse(target)
    return target, int(seq)


def _actors(record: Record) -> Iterator[Actor]:
    if record.trigger.actor:
        yield record.trigger.actor
    if record.cause:
        yield record.cause.actor
    if record.suppression and record.suppression.opened_by:
        yield record.suppression.opened_by


def _is_actor(wanted: str, actor: Actor) -> bool:
    texts = [text for text in (actor.arn, actor.session, actor.via, actor.issued_by) if text]
    if "*" in wanted or "?" in wanted:
        return any(glob_matches(wanted, text) for text in texts)
    return any(wanted.casefold() in text.casefold() for text in texts)


def _entry(row: chain.StoredRow) -> Entry | None:
    try:
        return Entry(chain.unseal(row.body), row.hash)
    except ValueError:
        return None


def _plain(value: object) -> Any:
    """As JSON has it: times as RFC 3339, lists, null."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _shallow(view: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    return {each.name: _plain(getattr(view, each.name)) for each in fields(view) if each.name not in without}


# --- walking back ----------------------------------------------------------------------------------------------------


class _Budget:
    """What a page may still read."""

    def __init__(self, items: int, queries: int) -> None:
        if items < LEAST_ITEMS:
            raise ValueError(f"a page reads {LEAST_ITEMS} items at least, not {items}")
        self.items = items
        self._queries = queries
        self.items_read = 0

    def allows(self, items: int) -> bool:
        """Whether as many items may still be read, and one more query made."""
        return self.items - self.items_read >= items and self._queries > 0

    def take(self, items: int) -> int:
        """One query, for as many of the items as there is budget for."""
        self._queries -= 1
        return max(1, min(items, self.items - self.items_read))

    def count(self, items: int) -> None:
        """What the query answered with."""
        self.items_read += items


class _Walk(Protocol):
    """Rows newest first, each with its place. `rest`, when all are read or the budget is spent: where to go on."""

    rest: str | None

    def __iter__(self) -> Iterator[tuple[str, chain.StoredRow]]: ...


def _walk(store: Reads, wanted: Filter, now: datetime, position: str | None, budget: _Budget, limit: int) -> _Walk:
    chunk = max(8, min(limit, 100))
    if wanted.chain is not None:
        return _ChainWalk(store, wanted.chain, wanted, position, budget, chunk)
    return _TimeWalk(store, wanted, now, position, budget, chunk)


class _ChainWalk:
    """Back along one chain. A place is a seq: what is older than that record is still to come."""

    def __init__(
        self, store: Reads, target: str, wanted: Filter, position: str | None, budget: _Budget, chunk: int
    ) -> None:
        self._store = store
        self._target = target
        self._wanted = wanted
        self._budget = budget
        self._chunk = chunk
        self.rest = position
        if position is not None and not position.isdigit():
            raise BadCursor("the cursor was given for another question")

    def __iter__(self) -> Iterator[tuple[str, chain.StoredRow]]:
        before = int(self.rest) if self.rest is not None else self._first_place()
        while before is None or before > 1:
            if not self._budget.allows(1):
                return
            slice_ = self._store.newest(self._target, self._budget.take(self._chunk), before)
            self._budget.count(len(slice_.rows))
            for row in slice_.rows:
                if self._is_too_old(row):
                    self.rest = None
                    return
                before = _seq_of(row)
                yield str(before), row
                self.rest = str(before)
            if not slice_.more:
                break
            self._chunk = min(self._chunk * 2, 250)
        self.rest = None

    def _is_too_old(self, row: chain.StoredRow) -> bool:
        since, at = self._wanted.since, _at_of(row)
        return since is not None and at is not None and since - at > SLACK

    def _first_place(self) -> int | None:
        """Where to begin: at the newest record, or by halving at the first of after `until`; a chain is nearly in
        the order of its times."""
        until = self._wanted.until
        if until is None:
            return None
        newest = self._probe(None)
        low, high = 1, (_seq_of(newest) + 1 if newest else 1)
        # Half of the budget stays for what is looked for; `high` is a place to begin at however far the search came.
        while high - low > 1 and self._budget.allows(self._budget.items // 2):
            middle = (low + high) // 2
            row = self._probe(middle + 1)
            at = _at_of(row) if row else None
            if row is None or at is None or at - until < SLACK:
                low = middle
            else:
                high = middle
        return high

    def _probe(self, before: int | None) -> chain.StoredRow | None:
        rows = self._store.newest(self._target, self._budget.take(1), before).rows
        self._budget.count(len(rows))
        return rows[0] if rows else None


class _TimeWalk:
    """Back along the time index, its shards merged. A place is an `at_key`: what is below it is still to come."""

    def __init__(
        self, store: Reads, wanted: Filter, now: datetime, position: str | None, budget: _Budget, chunk: int
    ) -> None:
        self._store = store
        self._budget = budget
        # The first read of every shard takes half of the budget at most: a page that cannot merge them gets nowhere.
        self._chunk = min(max(4, chunk // chain.TIME_SHARDS), max(2, budget.items // (2 * chain.TIME_SHARDS)))
        self._since = wanted.since
        newest = min(wanted.until or now + CLOCK_SKEW, now + CLOCK_SKEW)
        self.rest: str | None = position if position is not None else _stamp(newest)
        self._now = now
        if position is not None and _month_of(position) is None:
            raise BadCursor("the cursor was given for another question")

    def __iter__(self) -> Iterator[tuple[str, chain.StoredRow]]:
        floor = self._floor()
        month = _month_of(self.rest or "")
        if month is not None and self.rest == _first_of(month):
            month = _month_before(month)
        while month is not None and month >= (floor.year, floor.month):
            for place, row in self._month(month, _stamp(floor)):
                yield place, row
                self.rest = place
            if self.rest is None or self._spent:
                return
            self.rest = _first_of(month)
            month = _month_before(month)
            if not self._budget.allows(1):
                return
        self.rest = None

    _spent = False

    def _month(self, month: tuple[int, int], after: str) -> Iterator[tuple[str, chain.StoredRow]]:
        start = self.rest or ""
        shards = [
            _Shard(self._store, name, after, start, self._budget, self._chunk) for name in chain.month_shards(*month)
        ]
        while True:
            if not all(shard.fill() for shard in shards):
                self._spent = True
                return
            ahead = [shard for shard in shards if shard.rows]
            if not ahead:
                return
            shard = max(ahead, key=lambda each: _at_key(each.rows[0]))
            row = shard.rows.pop(0)
            yield _at_key(row), row

    def _floor(self) -> datetime:
        """A time before which nothing is asked for, or else there is nothing: the guard's first record tells."""
        if self._since is not None and self._now - self._since < RECENT:
            return self._since
        rows = self._store.oldest(GUARD_CHAIN, self._budget.take(1)).rows
        self._budget.count(len(rows))
        at = _at_of(rows[0]) if rows else None
        if at is None:
            return self._since or self._now - HORIZON
        beginning = at - MARGIN
        return max(self._since, beginning) if self._since else beginning


class _Shard:
    """One shard of a month, read in growing pieces."""

    def __init__(self, store: Reads, name: str, after: str, before: str, budget: _Budget, chunk: int) -> None:
        self._store = store
        self._name = name
        self._after = after
        self._before = before
        self._budget = budget
        self._chunk = chunk
        self._more = True
        self.rows: list[chain.StoredRow] = []

    def fill(self) -> bool:
        """Have a row at hand if there is one; False where the budget does not allow to look."""
        while not self.rows and self._more:
            if not self._budget.allows(2):
                return False
            # The index answers with the place itself, too, which was told before.
            most = max(1, self._budget.take(self._chunk) - 1)
            slice_ = self._store.in_month(self._name, self._after, self._before, most)
            self._budget.count(len(slice_.rows) + 1)
            self._chunk = min(self._chunk * 2, 200)
            self.rows, self._more = slice_.rows, slice_.more
            if self.rows:
                self._before = _at_key(self.rows[-1])
            else:
                self._more = False
        return True


def _at_key(row: chain.StoredRow) -> str:
    return str(row.index.get("at_key", ""))


def _at_of(row: chain.StoredRow) -> datetime | None:
    """When the record was written, by the index beside it: good enough for finding a place."""
    try:
        return datetime.fromisoformat(_at_key(row).partition("#")[0])
    except ValueError:
        return None


def _seq_of(row: chain.StoredRow) -> int:
    return int(row.sk.removeprefix("r#"))


def _stamp(at: datetime) -> str:
    """How `at_key` begins for that moment: everything before it is smaller."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _month_of(place: str) -> tuple[int, int] | None:
    year, month = place[:4], place[5:7]
    known = year.isdigit() and month.isdigit() and place[4:5] == "-" and 1 <= int(month) <= 12 and int(year) >= 1
    return (int(year), int(month)) if known else None


def _first_of(month: tuple[int, int]) -> str:
    return _stamp(datetime(*month, 1, tzinfo=UTC))


def _month_before(month: tuple[int, int]) -> tuple[int, int]:
    year, number = month
    return (year, number - 1) if number > 1 else (year - 1, 12)


# --- cursors ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cursor:
    version: int
    question: str
    asked: str
    place: str
    since: datetime | None
    until: datetime | None


def _cursor(question: str, wanted: Filter, place: str | None) -> str | None:
    if place is None:
        return None
    body = _Cursor(CURSOR_VERSION, question, _asked(wanted), place, wanted.since, wanted.until)
    return base64.urlsafe_b64encode(msgspec.json.encode(body)).decode().rstrip("=")


def _opened(cursor: str | None, question: str, wanted: Filter) -> tuple[Filter, str | None]:
    """The filter with the time range of the first page, and the place where the last page ended."""
    if cursor is None:
        return wanted, None
    if len(cursor) > LONGEST_CURSOR:
        raise BadCursor("the cursor is longer than any that was given out")
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        body = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=_Cursor)
    except (ValueError, binascii.Error, RecursionError) as error:
        raise BadCursor("the cursor cannot be read: take it as it was given, or begin without one") from error
    if body.version != CURSOR_VERSION:
        raise BadCursor("the cursor is of another version: begin without one")
    if body.question != question or body.asked != _asked(wanted):
        raise BadCursor("the cursor was given for another question: repeat the filters it came with, or begin without")
    for at in (body.since, body.until):
        if at is not None and at.tzinfo is None:
            raise BadCursor("the cursor cannot be read: a time in it has no zone")
    return replace(wanted, since=body.since, until=body.until), body.place


def _asked(wanted: Filter) -> str:
    """What of a filter must be the same from page to page: all but the time range, which the cursor carries."""
    text = msgspec.json.encode(replace(wanted, since=None, until=None))
    return hashlib.sha256(text).hexdigest()[:16]
