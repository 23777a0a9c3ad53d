"""Questions to the log: what is answered, in which order, at what cost, and through which pages."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from chalicelib.auditlog import hashchain, history, views, walks
from chalicelib.auditlog.cursors import BadCursor
from chalicelib.auditlog.filters import Filter
from chalicelib.auditlog.views import Entry
from chalicelib.domain.errors import FormatTooNew
from chalicelib.domain.model import Actor, EncryptionStatus, EncryptionType, Setting, Trigger, TriggerKind
from chalicelib.domain.ports import Loaded
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.stored import Action, Cause, GuardState, Incident, Phase, TargetState
from tests.unit.logbook import Logbook

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOW = datetime(2026, 11, 21, tzinfo=UTC)
HERE = "111122223333/us-east-1"
THERE = "111122223333/eu-west-1"
ELSEWHERE = "444455556666/us-east-1"
ALICE = Actor("arn:aws:iam::111122223333:user/Alice")
ADMIN = Actor("arn:aws:iam::111122223333:role/Admin", session="jdoe")
NONE = Setting(EncryptionType.NONE)
KEY = Setting(EncryptionType.KMS, "arn:aws:kms:us-east-1:111122223333:key/k1", EncryptionStatus.ACTIVE)


def change(event_id: str, actor: Actor, at: datetime) -> Trigger:
    return Trigger(TriggerKind.CHANGE, event_id, "PutEncryptionConfig", at, actor=actor)


def every(log: Logbook, wanted: Filter, now: datetime = NOW, limit: int = 7, **more: Any) -> list[str]:
    """The ids of all pages."""
    return [entry.record.record_id for page in pages(log, wanted, now, limit, **more) for entry in page.entries]


def pages(log: Logbook, wanted: Filter, now: datetime = NOW, limit: int = 7, **more: Any) -> Iterator[views.Page]:
    cursor = None
    while True:
        page = history.records(log, wanted, now, limit, cursor, **more)
        yield page
        cursor = page.cursor
        if cursor is None:
            return


@pytest.fixture
def log() -> Logbook:
    """Three targets over three months, an incident in each."""
    book = Logbook()
    book.add("guard", T0 - timedelta(days=70), reason="POLICY_IN_FORCE")
    for number, (target, actor) in enumerate([(HERE, ALICE), (THERE, ADMIN), (ELSEWHERE, ALICE)] * 4):
        at = T0 - timedelta(days=60) + timedelta(days=5 * number)
        trigger = change(f"e{number}", actor, at)
        cause = Cause(f"e{number}", at, actor)
        seq = book.ends.get(target, (0, ""))[0] + 1
        about = {"incident_id": f"{target}#{seq}", "rule": "baseline", "cause": cause, "before": NONE}
        violations = (Violation.NOT_KMS,)
        book.add(target, at, Outcome.REMEDIATING, trigger, violations=violations, **about)
        actions = (Action("PutEncryptionConfig", at, KEY.key_arn),)
        later = at + timedelta(seconds=8)
        book.add(target, later, Outcome.REMEDIATED, trigger, after=KEY, exposure_seconds=8.0, actions=actions, **about)
    return book


class TestRecords:
    def test_come_newest_first_whatever_target_and_month_they_are_of(self, log: Logbook) -> None:
        times = [entry.record.at for page in pages(log, Filter()) for entry in page.entries]
        assert len(times) == 25
        assert times == sorted(times, reverse=True)

    @pytest.mark.parametrize(
        ("wanted", "count"),
        [
            (Filter(target=HERE), 8),
            (Filter(target="guard"), 1),
            (Filter(account="111122223333"), 16),
            (Filter(region="us-east-1"), 16),
            (Filter(account="444455556666", region="us-east-1"), 8),
            (Filter(account="444455556666", region="eu-west-1"), 0),
            (Filter(outcomes=(Outcome.REMEDIATED,)), 12),
            (Filter(outcomes=(Outcome.REMEDIATED, Outcome.IGNORED)), 13),
            (Filter(actor="alice"), 16),
            (Filter(actor="jdoe"), 8),
            (Filter(actor="arn:aws:iam::*:role/*"), 8),
            (Filter(actor="arn:aws:iam::*:role"), 0),
            (Filter(rule="baseline"), 24),
            (Filter(rule="other"), 0),
            (Filter(since=T0 - timedelta(days=10)), 4),
            (Filter(until=T0 - timedelta(days=10)), 21),
            (Filter(target=HERE, since=T0 - timedelta(days=46), until=T0 - timedelta(days=15)), 4),
            (Filter(target=HERE, until=T0 - timedelta(days=44)), 4),
        ],
    )
    @pytest.mark.parametrize("limit", [1, 7, 500])
    def test_are_filtered_by_everything_that_can_be_asked(
        self, log: Logbook, wanted: Filter, count: int, limit: int
    ) -> None:
        found = [log_record(log, name) for name in every(log, wanted, limit=limit)]
        assert len(found) == count
        assert all(wanted.matches(record) for record in found)

    def test_of_the_very_moment_of_since_are_answered_and_those_of_until_are_not(self, log: Logbook) -> None:
        at = T0 - timedelta(days=5)
        assert every(log, Filter(since=at, until=at + timedelta(seconds=1))) == [f"{ELSEWHERE}#7"]
        assert every(log, Filter(since=at - timedelta(seconds=1), until=at)) == []

    def test_that_cannot_be_read_are_counted_and_do_not_hide_the_others(self, log: Logbook) -> None:
        row = log.stored[(HERE, hashchain.sort_key(3))]
        log.put(replace(row, body=b"{}"))
        all_pages = list(pages(log, Filter()))
        assert sum(page.unreadable for page in all_pages) == 1
        assert sum(len(page.entries) for page in all_pages) == 24

    def test_have_the_fields_of_the_record_and_null_for_what_is_not_known(self, log: Logbook) -> None:
        shown = history.records(log, Filter(target=HERE), NOW, 1).entries[0].to_json()
        assert shown["at"] == "2026-11-05T12:00:08Z"
        assert shown["actor"]["arn"] == ALICE.arn
        assert (shown["account"], shown["region"]) == ("111122223333", "us-east-1")
        assert (shown["before"]["type"], shown["after"]["key_arn"]) == ("NONE", KEY.key_arn)
        assert shown["exposure_seconds"] == 8.0
        assert shown["suppression"] is None
        assert shown["hash"] == log.ends[HERE][1]
        assert json.loads(json.dumps(shown)) == shown


def log_record(log: Logbook, record_id: str) -> Any:
    target, _, seq = record_id.rpartition("#")
    return hashchain.unseal(log.stored[(target, hashchain.sort_key(int(seq)))].body)


class TestCost:
    def test_a_page_reads_at_most_a_thousand_items_and_leads_on_where_nothing_fits(self) -> None:
        log = Logbook()
        for number in range(2500):
            log.add(THERE, T0 + timedelta(seconds=number))
        log.add(HERE, T0 - timedelta(days=3), Outcome.FAILED)
        wanted = Filter(outcomes=(Outcome.FAILED,))
        counts: list[int] = []
        found: list[Entry] = []
        cursor = None
        while True:
            log.items_read = 0
            page = history.records(log, wanted, NOW, 50, cursor)
            counts.append(log.items_read)
            assert page.items_read >= log.items_read
            found += page.entries
            cursor = page.cursor
            if cursor is None:
                break
        assert max(counts) <= walks.MOST_ITEMS
        assert len(counts) >= 3
        assert [entry.record.target for entry in found] == [HERE]

    @pytest.mark.parametrize(
        "wanted", [Filter(), Filter(target=HERE), Filter(target=HERE, until=T0 + timedelta(seconds=19_000))], ids=str
    )
    def test_a_page_costs_the_same_however_long_the_log_is(self, wanted: Filter) -> None:
        costs = []
        for size in (3000, 6000):
            log = Logbook()
            for number in range(size):
                log.add(
                    HERE if number % 3 else THERE, T0 + timedelta(seconds=20_000) - timedelta(seconds=size - number)
                )
            log.items_read = 0
            assert len(history.records(log, wanted, NOW, 20).entries) == 20
            costs.append(log.items_read)
        small, large = costs
        assert large <= small + 14  # a few more halvings to find a place in a longer chain

    def test_the_walk_back_ends_at_the_first_record_of_the_guard(self, log: Logbook) -> None:
        list(pages(log, Filter(rule="no such rule")))
        assert log.queries < 40

    def test_a_log_without_a_guard_chain_is_walked_back_to_the_horizon_and_no_further(self) -> None:
        log = Logbook()
        log.add(HERE, T0 - timedelta(days=300))
        assert len(every(log, Filter())) == 1
        assert log.queries < 200

    def test_a_query_that_answers_with_less_than_was_asked_for_loses_nothing(self, log: Logbook) -> None:
        log.most_per_query = 2
        assert len(every(log, Filter(), limit=5)) == 25
        assert len(every(log, Filter(target=HERE), limit=5)) == 8

    @pytest.mark.parametrize("most_items", range(walks.LEAST_ITEMS, 40))
    @pytest.mark.parametrize(
        "wanted",
        [
            Filter(),
            Filter(target=HERE),
            Filter(target=HERE, until=T0 - timedelta(days=20)),
            Filter(since=T0 - timedelta(days=22)),
        ],
        ids=str,
    )
    def test_every_page_leads_on_however_little_it_may_read(self, most_items: int, wanted: Filter) -> None:
        log = Logbook()
        for number in range(300):
            # Two months, the second of which begins in the middle.
            log.add((HERE, THERE, ELSEWHERE, "guard")[number % 4], T0 - timedelta(days=20, hours=120 - number))
        there = [row for row in log.stored.values() if wanted.matches(hashchain.unseal(row.body))]
        cursors: list[str | None] = []
        shown = 0
        for page in pages(log, wanted, most_items=most_items):
            assert page.cursor not in cursors, f"page {len(cursors)} leads back to where it began"
            assert page.items_read <= most_items + 4
            cursors.append(page.cursor)
            shown += len(page.entries)
        assert shown == len(there)

    def test_a_page_that_could_not_lead_on_is_refused(self, log: Logbook) -> None:
        with pytest.raises(ValueError, match="at least 12 items"):
            history.records(log, Filter(), NOW, most_items=walks.LEAST_ITEMS - 1)
        with pytest.raises(ValueError, match="at least 12 items"):
            history.incidents(log, Filter(), NOW, most_items=walks.LEAST_ITEMS - 1)


class TestCursors:
    @pytest.mark.parametrize(
        "cursor",
        ["", "x", "é", "AAAA", "bm90IGpzb24", "A" * 5000, base64.urlsafe_b64encode(b"[" * 2000).decode()],
    )
    def test_that_are_none_of_ours_are_refused(self, log: Logbook, cursor: str) -> None:
        with pytest.raises(BadCursor):
            history.records(log, Filter(), NOW, 5, cursor)

    def test_of_another_question_are_refused(self, log: Logbook) -> None:
        cursor = history.records(log, Filter(), NOW, 5).cursor
        with pytest.raises(BadCursor, match="belongs to other filters"):
            history.records(log, Filter(rule="baseline"), NOW, 5, cursor)
        with pytest.raises(BadCursor, match="belongs to other filters"):
            history.incidents(log, Filter(), NOW, 5, cursor)

    def test_that_were_tampered_with_are_refused_or_answer_like_any_question(self, log: Logbook) -> None:
        cursor = history.records(log, Filter(), NOW, 5).cursor or ""
        body = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        for place in ("", "9999", "2026-13-01", "2026-11-20T", "x" * 40, "0000-00"):
            forged = base64.urlsafe_b64encode(json.dumps({**body, "place": place}).encode()).decode()
            try:
                page = history.records(log, Filter(), NOW, 5, forged)
            except BadCursor:
                continue
            assert len(page.entries) <= 5

    def test_keep_the_time_range_that_the_first_page_had(self, log: Logbook) -> None:
        first = history.records(log, Filter(since=T0 - timedelta(days=31)), NOW, 2)
        # A day later "31 days ago" is another moment, and the question is the same.
        rest = history.records(log, Filter(since=T0 - timedelta(days=29)), NOW, 500, first.cursor)
        assert len(first.entries) + len(rest.entries) == 12


TARGETS = (HERE, THERE, ELSEWHERE, "guard")
EVENTS = st.lists(st.tuples(st.sampled_from(TARGETS), st.integers(0, 200_000)), max_size=60)


@settings(deadline=None, max_examples=60)
@given(
    before=EVENTS,
    meanwhile=st.lists(EVENTS, max_size=6),
    limit=st.integers(1, 9),
    most_items=st.integers(walks.LEAST_ITEMS, 60),
    wanted=st.sampled_from(
        [Filter(), Filter(target=HERE), Filter(account="111122223333"), Filter(since=NOW - timedelta(days=20))]
    ),
)
def test_pages_hold_nothing_twice_and_miss_nothing_that_was_there_while_new_records_arrive(
    before: list[tuple[str, int]],
    meanwhile: list[list[tuple[str, int]]],
    limit: int,
    most_items: int,
    wanted: Filter,
) -> None:
    log = Logbook()
    log.add("guard", NOW - timedelta(minutes=200_001))
    for target, minutes in sorted(before, key=lambda each: -each[1]):
        log.add(target, NOW - timedelta(minutes=minutes))
    there = {
        record.record_id
        for record in (hashchain.unseal(row.body) for row in log.stored.values())
        if wanted.matches(record)
    }
    shown: list[str] = []
    now = NOW
    arrivals = iter(meanwhile)
    for page in pages(log, wanted, now, limit, most_items=most_items):
        shown += [entry.record.record_id for entry in page.entries]
        assert page.items_read <= most_items + 4
        for number, (target, _) in enumerate(next(arrivals, ())):
            now = now + timedelta(seconds=number)
            log.add(target, now)
    assert len(shown) == len(set(shown))
    assert there <= set(shown)


@settings(deadline=None, max_examples=60)
@given(arrivals=st.lists(st.lists(st.tuples(st.sampled_from(TARGETS), st.integers(0, 110)), max_size=8), max_size=12))
def test_following_tells_each_record_once_though_clocks_and_indexes_lag_by_two_minutes(
    arrivals: list[list[tuple[str, int]]],
) -> None:
    log = Logbook()
    follower = history.Follower()
    shown: list[str] = []
    now = NOW
    for batch in arrivals:
        for target, lag in batch:
            log.add(target, now - timedelta(seconds=lag))
        since = follower.since(now)
        found = [entry for page in pages(log, Filter(since=since), now, 50) for entry in page.entries]
        shown += [entry.record.record_id for entry in follower.fresh(found, now)]
        now += timedelta(seconds=7)
    assert len(shown) == len(set(shown))
    assert set(shown) == {hashchain.unseal(row.body).record_id for row in log.stored.values()}


class TestIncidents:
    def test_come_the_last_opened_first_with_who_what_and_how_long(self, log: Logbook) -> None:
        page = history.incidents(log, Filter(), NOW, 5)
        assert [view.opened_at for view in page.incidents] == [T0 - timedelta(days=5 * n) for n in range(1, 6)]
        view = page.incidents[0]
        assert (view.id, view.open, view.outcome) == (f"{ELSEWHERE}#7", False, Outcome.REMEDIATED)
        assert (view.before, view.after, view.actor) == (NONE, KEY, ALICE)
        assert (view.exposure_seconds, view.attempts, view.actions) == (8.0, 1, ("PutEncryptionConfig",))
        rest = history.incidents(log, Filter(), NOW, 100, page.cursor)
        assert len(rest.incidents) == 7
        assert rest.cursor is None

    @pytest.mark.parametrize(
        ("wanted", "count"),
        [
            (Filter(outcomes=(Outcome.REMEDIATED,)), 12),
            (Filter(outcomes=(Outcome.FAILED,)), 0),
            (Filter(actor="jdoe"), 4),
            (Filter(target=HERE), 4),
            (Filter(account="444455556666"), 4),
            (Filter(since=T0 - timedelta(days=20)), 4),
        ],
    )
    def test_are_filtered_by_what_they_came_to(self, log: Logbook, wanted: Filter, count: int) -> None:
        assert len(history.incidents(log, wanted, NOW, 100).incidents) == count

    def test_are_found_by_any_of_their_records_and_have_them_all_in_order(self, log: Logbook) -> None:
        log.add(HERE, NOW, Outcome.IGNORED, reason="ECHO")
        by_first, by_last = history.incident(log, f"{HERE}#7"), history.incident(log, f"{HERE}#8")
        assert by_first is not None
        assert by_first == by_last
        assert [entry.record.seq for entry in by_first.entries] == [7, 8]
        assert [record["outcome"] for record in by_first.to_json(timeline=True)["records"]] == [
            "REMEDIATING",
            "REMEDIATED",
        ]

    def test_that_do_not_exist_are_none_and_what_is_no_id_is_refused(self, log: Logbook) -> None:
        log.add(HERE, NOW)
        assert history.incident(log, f"{HERE}#9") is None
        assert history.incident(log, f"{HERE}#99") is None
        for text in ("", "7", HERE, f"{HERE}#x", f"{HERE}#0", "nowhere#3", f"{HERE}#-1", f"{HERE}#1234567890123"):
            with pytest.raises(ValueError, match=r"is not an? (incident|target)"):
                history.incident(log, text)

    def test_whose_change_is_heard_of_late_have_its_actor_and_exposure(self) -> None:
        log = Logbook()
        about: dict[str, Any] = {"incident_id": f"{HERE}#1", "before": NONE}
        log.add(HERE, T0, Outcome.REMEDIATING, **about)
        log.add(HERE, T0 + timedelta(seconds=5), Outcome.REMEDIATED, after=KEY, exposure_seconds=5.0, **about)
        made = T0 - timedelta(minutes=40)
        late = {**about, "cause": Cause("e1", made, ALICE), "exposure_seconds": 2405.0}
        log.add(HERE, T0 + timedelta(minutes=1), Outcome.COMPLIANT, change("e1", ALICE, made), after=KEY, **late)
        view = history.incident(log, f"{HERE}#1")
        assert view is not None
        assert (view.actor, view.exposed_since, view.exposure_seconds) == (ALICE, made, 2405.0)
        assert (view.outcome, view.closed_at) == (Outcome.REMEDIATED, T0 + timedelta(seconds=5))

    def test_that_nobody_ended_are_open_until_the_rule_no_longer_asks(self) -> None:
        log = Logbook()
        log.add(HERE, T0, Outcome.FAILED, incident_id=f"{HERE}#1", reason="AccessDenied")
        opened = history.incident(log, f"{HERE}#1")
        assert opened is not None
        assert opened.open
        log.add(HERE, T0 + timedelta(hours=1), Outcome.IGNORED, reason="RULE_OFF")
        ended = history.incident(log, f"{HERE}#1")
        assert ended is not None
        assert ended.closed_at == T0 + timedelta(hours=1)

    def test_that_are_open_say_what_the_guard_waits_for_and_since_when_x_ray_is_safe(self) -> None:
        log = Logbook()
        log.add(HERE, T0, Outcome.DEFERRED, incident_id=f"{HERE}#1", reason="BACKOFF")
        safe_at = T0 + timedelta(seconds=5)
        incident = Incident(f"{HERE}#1", T0, NONE, Phase.OPEN, due=T0 + timedelta(minutes=4), safe_at=safe_at)
        log.present[HERE] = TargetState(HERE, outcome=Outcome.DEFERRED, reason="BACKOFF", incident=incident)
        view = history.incident_now(log, f"{HERE}#1", lambda: T0 + timedelta(minutes=1))
        assert view is not None
        assert (view.exposed_until, view.exposed_seconds(NOW)) == (safe_at, 5)
        assert view.waiting is not None
        assert view.waiting.until == T0 + timedelta(minutes=4)
        assert view.to_json(timeline=True)["waiting"]["text"] == view.waiting.text
        assert "waiting" not in view.to_json(), "a list does not read the states"

    def test_that_are_over_or_not_the_targets_open_one_wait_for_nothing(self) -> None:
        log = Logbook()
        log.add(HERE, T0, Outcome.DEFERRED, incident_id=f"{HERE}#1", reason="BACKOFF")
        other = Incident(f"{HERE}#9", T0, NONE, Phase.OPEN)
        log.present[HERE] = TargetState(HERE, outcome=Outcome.DEFERRED, reason="BACKOFF", incident=other)
        view = history.incident_now(log, f"{HERE}#1", lambda: T0)
        assert view is not None
        assert view.waiting is None
        assert history.incident_now(log, f"{HERE}#7", lambda: T0) is None

    def test_are_shown_though_the_targets_state_cannot_be_read(self) -> None:
        class Newer(Logbook):
            def load(self, target: str) -> Loaded:
                raise FormatTooNew(target, 99, 3)

        log = Newer()
        log.add(HERE, T0, Outcome.FAILED, incident_id=f"{HERE}#1", reason="AccessDenied")
        view = history.incident_now(log, f"{HERE}#1", lambda: T0)
        assert view is not None
        assert view.waiting is None

    def test_that_are_only_held_up_by_a_duplicate_still_stand_as_they_stood(self) -> None:
        log = Logbook()
        log.add(HERE, T0, Outcome.OBSERVED, incident_id=f"{HERE}#1", reason="RULE_OBSERVES")
        log.add(HERE, T0, Outcome.DEFERRED, incident_id=f"{HERE}#1", reason="IN_PROGRESS")
        view = history.incident(log, f"{HERE}#1")
        assert view is not None
        assert (view.open, view.outcome) == (True, Outcome.OBSERVED)

    def test_whose_worker_is_lost_after_it_made_a_key_are_still_being_remediated(self) -> None:
        log = Logbook()
        log.add(HERE, T0, Outcome.REMEDIATING, incident_id=f"{HERE}#1")
        log.add(HERE, T0, Outcome.IGNORED, incident_id=f"{HERE}#1", reason="KEY_MADE")
        view = history.incident(log, f"{HERE}#1")
        assert view is not None
        assert (view.open, view.outcome, view.reason) == (True, Outcome.REMEDIATING, None)


class TestTargets:
    def test_show_their_present_with_the_open_incident_and_keys_that_nothing_uses(self) -> None:
        cause = Cause("e1", T0 - timedelta(minutes=2), ALICE)
        incident = Incident(f"{HERE}#3", T0, NONE, Phase.OPEN, cause=cause)
        state = TargetState(
            HERE,
            seq=4,
            outcome=Outcome.FAILED,
            setting=NONE,
            incident=incident,
            managed_key="k1",
            keys_made=("k0", "k1", "k2"),
            keys_retired=("k0",),
        )
        (view,) = history.targets([state], GuardState(), NOW)
        assert (view.account, view.region, view.compliant) == ("111122223333", "us-east-1", False)
        assert view.exposed_since == cause.at
        assert view.orphan_keys == ("k2",)
        assert view.to_json()["incident"]["id"] == f"{HERE}#3"

    def test_come_by_account_and_region_and_only_those_asked_for(self) -> None:
        states = [TargetState(name, outcome=Outcome.COMPLIANT) for name in (ELSEWHERE, HERE, THERE)]
        assert [view.target for view in history.targets(states, GuardState(), NOW)] == [THERE, HERE, ELSEWHERE]
        assert [view.target for view in history.targets(states, GuardState(), NOW, Filter(region="us-east-1"))] == [
            HERE,
            ELSEWHERE,
        ]
        assert history.targets(states, GuardState(), NOW, Filter(outcomes=(Outcome.FAILED,))) == []


def test_a_follower_forgets_what_can_no_longer_come_again() -> None:
    log = Logbook()
    follower = history.Follower()
    for number in range(50):
        at = T0 + timedelta(minutes=number)
        record = log.add(HERE, at)
        assert len(follower.fresh([Entry(record, "")], at)) == 1
    assert len(follower._returned) < 20
