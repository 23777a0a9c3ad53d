"""Tallies in the tables: what is only counted, by the store's requests and by whole runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import botocore.session
import pytest
from msgspec.structs import replace

from chalicelib.auditlog.draft import Draft
from chalicelib.auditlog.hashchain import unseal
from chalicelib.auditlog.verify import verify
from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.logreads import LogStore
from chalicelib.domain.errors import Conflict
from chalicelib.domain.floods import MOST_IN_FULL
from chalicelib.domain.model import Actor, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import COUNTING_TIME, Record, Tally
from chalicelib.loop.tick import tick
from chalicelib.wiring import make_log_store
from tests.component import operated
from tests.component.operated import ACCOUNT, HERE, REGION

MALLORY = "arn:aws:iam::123456789012:role/Mallory"


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An account with the guard's tables, and nothing else."""
    for name, value in operated.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with operated.world():
        yield


@pytest.fixture
def store() -> LogStore:
    return make_log_store(Clients(operated.with_models(botocore.session.Session())), REGION, AwsClock())


@pytest.fixture
def now() -> datetime:
    return AwsClock().now()


@pytest.fixture
def one(now: datetime) -> Tally:
    return Tally(HERE, MALLORY, now, seen=1, refused=1)


def stored(store: LogStore, tally: Tally) -> Tally | None:
    return store.load(HERE, None, tally).tally


def record_in_full(store: LogStore, event_id: str, tally: Tally) -> None:
    before = store.load(HERE).state
    draft = Draft(before)
    draft.add(AwsClock().now(), Outcome.IGNORED, Trigger(TriggerKind.CHANGE, event_id=event_id), reason="AccessDenied")
    draft.set(version=before.version + 1)
    store.commit(draft.before, draft.after, draft.records, event_id, replace(tally, refused=0))


def test_a_new_tally_is_loaded_as_it_is(store: LogStore, now: datetime) -> None:
    empty = Tally(HERE, MALLORY, now)
    assert stored(store, empty) == empty


def test_calls_add_up_and_the_first_one_sets_the_time(store: LogStore, one: Tally) -> None:
    record_in_full(store, "event-1", one)
    store.count("event-2", replace(one, since=one.since + timedelta(minutes=5)))
    store.count("event-3", replace(one, since=one.since + timedelta(minutes=9), refused=0, tag_changes=1))
    assert stored(store, one) == Tally(HERE, MALLORY, one.since, seen=3, refused=1, tag_changes=1)


def test_p5_an_event_is_counted_once_and_never_beside_its_record(store: LogStore, one: Tally) -> None:
    record_in_full(store, "event-1", one)
    store.count("event-2", one)
    for event_id in ("event-1", "event-2"):
        assert store.load(HERE, event_id).audited
        with pytest.raises(Conflict):
            store.count(event_id, one)
    with pytest.raises(Conflict):
        record_in_full(store, "event-2", one)
    assert stored(store, one) == replace(one, seen=2)


def test_a_counted_call_leaves_the_state_and_the_chain_as_they_are(store: LogStore, one: Tally) -> None:
    record_in_full(store, "event-1", one)
    before = store.load(HERE).state
    store.count("event-2", one)
    assert store.load(HERE).state == before
    report = verify(store)
    assert (report.findings, report.records, report.markers) == ((), 1, 1)


def test_a_tally_is_over_an_hour_after_its_first_call(store: LogStore, one: Tally) -> None:
    store.count("event-1", one)
    assert store.over(one.closes_at - timedelta(seconds=1), 10) == []
    assert store.over(one.closes_at, 10) == [one]
    assert (store.due(one.closes_at, 10), store.pending(10)) == ([], [])
    assert (list(store.states()), list(store.heads())) == ([], [])


def test_an_emptied_tally_is_over_no_more_and_begins_anew(store: LogStore, one: Tally) -> None:
    store.count("event-1", one)
    store.forget(one)
    assert store.over(one.closes_at, 10) == []
    later = replace(one, since=one.since + 2 * COUNTING_TIME)
    store.count("event-2", later)
    assert store.over(later.closes_at, 10) == [later]


def test_p5_a_call_that_comes_between_is_not_forgotten(store: LogStore, one: Tally) -> None:
    store.count("event-1", one)
    store.count("event-2", one)
    store.forget(one)
    assert stored(store, one) == replace(one, seen=2, refused=2)
    before = store.load(HERE).state
    draft = Draft(before)
    draft.add(AwsClock().now(), Outcome.IGNORED, Trigger(TriggerKind.TICK), reason=Reason.CALLS_COUNTED)
    draft.set(version=before.version + 1)
    store.commit(draft.before, draft.after, draft.records, None, None, one)
    assert stored(store, one) == replace(one, since=one.closes_at)
    assert store.over(one.closes_at, 10) == []


def test_p5_of_two_ticks_one_closes_a_tally(store: LogStore, one: Tally) -> None:
    store.count("event-1", one)
    for closed_before in (False, True):
        before = store.load(HERE).state
        draft = Draft(before)
        draft.add(AwsClock().now(), Outcome.IGNORED, Trigger(TriggerKind.TICK), reason=Reason.CALLS_COUNTED)
        draft.set(version=before.version + 1)
        if closed_before:
            with pytest.raises(Conflict):
                store.commit(draft.before, draft.after, draft.records, None, None, one)
        else:
            store.commit(draft.before, draft.after, draft.records, None, None, one)
    assert store.load(HERE).state.seq == 1
    assert stored(store, one) == Tally(HERE, MALLORY, one.closes_at)


class AnHourLater:
    """AWS's time after every tally of this test is over."""

    def now(self) -> datetime:
        return AwsClock().now() + COUNTING_TIME


def records(store: LogStore) -> list[Record]:
    return [unseal(row.body) for row in store.rows(HERE)]


def refused(number: int) -> dict[str, Any]:
    event = operated.event()
    detail = {**event["detail"], "eventID": f"refused-{number}", "errorCode": "AccessDenied", "errorMessage": "no"}
    return {**event, "detail": {**detail, "responseElements": None}}


def test_p5_runs_record_ten_refused_calls_count_the_others_and_a_tick_records_the_number(store: LogStore) -> None:
    for number in range(MOST_IN_FULL + 7):
        operated.delivered(refused(number))
    operated.delivered(refused(MOST_IN_FULL + 6))
    assert store.load(HERE).state.seq == MOST_IN_FULL
    tick(replace(operated.guard(), clock=AnHourLater()), lambda: 1000.0)
    report = verify(store)
    in_guard_chain = 1  # POLICY_IN_FORCE
    assert (report.findings, report.records) == ((), MOST_IN_FULL + 1 + in_guard_chain)
    assert report.markers == MOST_IN_FULL
    assert store.over(AnHourLater().now(), 10) == []
    (count,) = (record for record in records(store) if record.reason == Reason.CALLS_COUNTED)
    assert (count.detail["refused_calls"], count.trigger.actor) == (7, Actor(f"arn:aws:iam::{ACCOUNT}:root"))


def test_the_command_line_shows_what_was_counted_and_by_whom(store: LogStore, now: datetime) -> None:
    root = f"arn:aws:iam::{ACCOUNT}:root"
    store.count("earlier", Tally(HERE, root, now - 2 * COUNTING_TIME, seen=MOST_IN_FULL, refused=3))
    operated.delivered(refused(1))
    explained = operated.typed("explain", "-", "--output", "json", stdin=json.dumps(refused(2)))
    assert (explained.code, json.loads(explained.out)["reason"]) == (0, "CALLS_COUNTED")
    assert "recorded or counted this event before" in operated.typed("explain", "-", stdin=json.dumps(refused(1))).out
    tick(operated.guard(), lambda: 1000.0)
    listed = operated.typed("history", "--actor", root)
    assert (listed.code, listed.out.count("CALLS_COUNTED")) == (0, 1)
    (line,) = operated.typed("history", "--actor", root, "--output", "jsonl").out.splitlines()
    assert f"4 more refused calls by {root} since" in json.loads(line)["detail"]["message"]
