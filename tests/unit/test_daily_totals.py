"""What a write adds to the figures, and what is read back from their sums."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chalicelib.auditlog import daily_totals, history
from chalicelib.auditlog.draft import Draft
from chalicelib.auditlog.summary import (
    LONGEST_RANGE,
    PERCENTILES,
    ActorCount,
    Summary,
    Suppressions,
    _spread,
    summarize,
)
from chalicelib.domain.incidents import remember
from chalicelib.domain.model import Actor, EncryptionType, Setting, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import Cause, GuardState, Incident, Phase, TargetState

HERE = "111122223333/us-east-1"
MORNING = datetime(2026, 11, 20, 8, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)
FIRST_DAY, LAST_DAY = MORNING.date(), MIDNIGHT.date()
ALICE = Actor("arn:aws:iam::111122223333:user/Alice")
NONE = Setting(EncryptionType.NONE)
SWEEP = Trigger(TriggerKind.SWEEP)


class Sums:
    """Added up as the store does."""

    def __init__(self) -> None:
        self.items: dict[str, Counter[str]] = {}

    def write(self, draft: Draft[TargetState]) -> TargetState:
        """Store a draft, as far as the figures go."""
        draft.set(version=draft.before.version + 1)
        for item, amounts in daily_totals.additions(
            draft.before, draft.after, [record for record, _, _ in draft.records]
        ):
            sums = self.items.setdefault(item, Counter())
            for name, amount in amounts:
                sums[name] += amount
        after: TargetState = draft.after
        return after

    def sums(self, items: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        """`summary.Reads`."""
        return {item: self.items[item] for item in items if item in self.items}

    def summary(self, since: date = FIRST_DAY, until: date = LAST_DAY) -> Summary:
        """The figures of the two days of these tests."""
        return summarize(self, since, until)


def opened(sums: Sums, at: datetime = MORNING, cause: Cause | None = None) -> TargetState:
    """A target whose drift was just found and is being put right."""
    draft = Draft(TargetState(HERE))
    incident = Incident(draft.next_id(), at, NONE, Phase.ACTING, cause=cause, mutated=True)
    draft.add(at, Outcome.REMEDIATING, SWEEP, incident_id=incident.id)
    draft.set(incident=incident, outcome=Outcome.REMEDIATING)
    return sums.write(draft)


def closed(sums: Sums, state: TargetState, at: datetime, cause: Cause | None = None) -> TargetState:
    """The same when it is put right."""
    assert state.incident is not None
    incident = replace(state.incident, cause=cause or state.incident.cause)
    began = incident.cause.at if incident.cause else incident.opened_at
    draft = Draft(state)
    draft.add(at, Outcome.REMEDIATED, SWEEP, incident_id=incident.id, exposure_seconds=(at - began).total_seconds())
    draft.set(incident=None, past=remember(state, incident, at), outcome=Outcome.REMEDIATED)
    return sums.write(draft)


def heard_late(sums: Sums, state: TargetState, at: datetime, change_at: datetime) -> TargetState:
    """The change event of the last incident comes after its end, and lends it its actor and time."""
    past = state.past[-1]
    cause = Cause("event", change_at, ALICE)
    draft = Draft(state)
    seconds = (past.closed_at - change_at).total_seconds()
    trigger = Trigger(TriggerKind.CHANGE, event_id="event")
    draft.add(at, Outcome.COMPLIANT, trigger, incident_id=past.id, cause=cause, exposure_seconds=seconds)
    draft.set(past=(*state.past[:-1], replace(past, cause=cause)), outcome=Outcome.COMPLIANT)
    return sums.write(draft)


class TestIncidents:
    def test_are_counted_on_the_day_they_were_opened_and_on_the_day_they_ended(self) -> None:
        sums = Sums()
        closed(sums, opened(sums), MIDNIGHT)
        figures = sums.summary()
        assert [(day.opened, day.closed, day.remediated) for day in figures.days] == [(1, 0, 0), (0, 1, 1)]
        assert figures.records == {"REMEDIATED": 1, "REMEDIATING": 1}

    def test_have_their_exposure_from_the_change_and_their_remediation_from_the_discovery(self) -> None:
        sums = Sums()
        cause = Cause("event", MORNING - timedelta(seconds=90), ALICE)
        closed(sums, opened(sums, cause=cause), MORNING + timedelta(seconds=10))
        figures = sums.summary()
        assert figures.exposure.p50 == pytest.approx(100, rel=daily_totals.RELATIVE_ERROR)
        assert figures.time_to_remediate.p50 == pytest.approx(10, rel=daily_totals.RELATIVE_ERROR)

    def test_that_somebody_else_put_right_have_an_exposure_and_no_remediation(self) -> None:
        sums = Sums()
        state = opened(sums)
        assert state.incident is not None
        draft = Draft(state)
        at = MORNING + timedelta(seconds=5)
        draft.add(at, Outcome.COMPLIANT, SWEEP, incident_id=state.incident.id, exposure_seconds=5.0)
        draft.set(incident=None, past=remember(state, state.incident, at), outcome=Outcome.COMPLIANT)
        sums.write(draft)
        figures = sums.summary()
        assert (figures.closed, figures.exposure.count, figures.time_to_remediate.count) == (1, 1, 0)

    def test_that_nobody_asks_about_any_more_are_closed_without_an_exposure(self) -> None:
        sums = Sums()
        state = opened(sums)
        assert state.incident is not None
        draft = Draft(state)
        draft.add(MIDNIGHT, Outcome.IGNORED, SWEEP, reason="RULE_OFF")
        draft.set(incident=None, past=remember(state, state.incident, MIDNIGHT), outcome=Outcome.IGNORED)
        sums.write(draft)
        assert (sums.summary().closed, sums.summary().exposure.count) == (1, 0)


class TestLateChanges:
    """P5: what arrives late is added to what was known, and not counted twice."""

    def test_move_the_exposure_to_what_it_truly_was_on_the_day_of_the_end(self) -> None:
        sums = Sums()
        state = closed(sums, opened(sums), MORNING + timedelta(seconds=10))
        assert sums.summary().exposure.p50 == pytest.approx(10, rel=daily_totals.RELATIVE_ERROR)
        heard_late(sums, state, MIDNIGHT, MORNING - timedelta(seconds=990))
        figures = sums.summary()
        assert figures.exposure.count == 1
        assert figures.exposure.p50 == pytest.approx(1000, rel=daily_totals.RELATIVE_ERROR)
        assert [day.exposure_p50 is not None for day in figures.days] == [True, False]
        assert (figures.opened, figures.closed) == (1, 1)

    def test_give_the_incident_its_actor_once(self) -> None:
        sums = Sums()
        state = closed(sums, opened(sums), MORNING + timedelta(seconds=10))
        assert (sums.summary().top_actors, sums.summary().unexplained) == ((), 1)
        state = heard_late(sums, state, MIDNIGHT, MORNING)
        assert sums.summary().top_actors == (ActorCount(ALICE.arn, 1),)
        assert sums.summary().unexplained == 0
        sums.write(Draft(state))
        assert sums.summary().top_actors == (ActorCount(ALICE.arn, 1),)

    def test_that_come_just_as_the_incident_ends_are_counted_with_its_end(self) -> None:
        sums = Sums()
        cause = Cause("event", MORNING - timedelta(seconds=90), ALICE)
        closed(sums, opened(sums), MORNING + timedelta(seconds=10), cause)
        figures = sums.summary()
        assert figures.exposure.count == 1
        assert figures.exposure.p50 == pytest.approx(100, rel=daily_totals.RELATIVE_ERROR)
        assert figures.top_actors == (ActorCount(ALICE.arn, 1),)


def test_an_actor_of_any_length_and_letters_has_a_name_of_bounded_length() -> None:
    for arn in ("a" * 5000, "\ud800" * 300, "ü" * 300):
        sums = Sums()
        opened(sums, cause=Cause("event", MORNING, Actor(arn)))
        ((name, _),) = sums.items[f"{daily_totals.ACTORS}#2026-11-20"].items()
        assert len(name.encode()) <= daily_totals.LONGEST_ACTOR + len("actor:…")


def test_two_long_actors_that_begin_alike_are_two() -> None:
    sums = Sums()
    for last in "xy":
        opened(sums, cause=Cause("event", MORNING, Actor("a" * 5000 + last)))
    assert [each.incidents for each in sums.summary().top_actors] == [1, 1]


def test_suppressions_are_counted_by_what_became_of_them() -> None:
    sums = Sums()
    draft = Draft(TargetState(HERE))
    for reason in ("BREAK_GLASS_OPENED", "BREAK_GLASS_ENDED", "BREAK_GLASS_REFUSED", "BREAK_GLASS_REFUSED", "OTHER"):
        draft.add(MORNING, Outcome.SUPPRESSED, SWEEP, reason=reason)
    sums.write(draft)
    assert sums.summary().suppressions == Suppressions(opened=1, refused=2, ended=1)


def test_the_guards_own_chain_and_a_write_that_changes_nothing_add_nothing() -> None:
    draft = Draft(GuardState())
    draft.add(MORNING, Outcome.IGNORED, SWEEP, reason="SWEEP")
    assert daily_totals.additions(draft.before, draft.after, [record for record, _, _ in draft.records]) == []
    state = TargetState(HERE, version=3, outcome=Outcome.COMPLIANT)
    assert daily_totals.additions(state, replace(state, version=4, checked_at=MORNING), []) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([None, *Outcome]), st.booleans()), max_size=40))
def test_the_present_is_what_the_targets_are_whatever_they_were(
    writes: list[tuple[int, Outcome | None, bool]],
) -> None:
    sums = Sums()
    targets: dict[int, TargetState] = {}
    for number, outcome, is_open in writes:
        before = targets.get(number, TargetState(f"11112222333{number}/us-east-1"))
        draft = Draft(before)
        draft.set(outcome=outcome, incident=Incident("x#1", MORNING, None, Phase.OPEN) if is_open else None)
        targets[number] = sums.write(draft)
    figures = sums.summary().targets
    views = history.targets(targets.values(), GuardState(), MORNING)
    assert figures.targets == len(views)
    assert figures.compliant == sum(view.compliant for view in views)
    assert figures.by_outcome == Counter(view.outcome or "UNKNOWN" for view in views)
    governed = [view for view in views if view.outcome is not Outcome.IGNORED]
    assert figures.governed == len(governed)
    assert figures.share == (round(figures.compliant / len(governed), 4) if governed else None)


@given(st.lists(st.floats(0, 1e8), min_size=1, max_size=200), st.sampled_from(PERCENTILES))
def test_a_percentile_is_off_by_no_more_than_is_said(spans: list[float], percent: int) -> None:
    counts = Counter(f"exposure:{daily_totals.bucket(span)}" for span in spans)
    figures = getattr(_spread(counts, "exposure:"), f"p{percent}")
    true = sorted(spans)[math.ceil(percent * len(spans) / 100) - 1]
    assert abs(figures - true) <= max(daily_totals.FINEST_SECONDS, true * daily_totals.RELATIVE_ERROR) + 0.001


def test_figures_cover_at_most_four_hundred_days_and_say_which() -> None:
    figures = Sums().summary(date(1, 1, 1), date(2026, 11, 20))
    assert len(figures.days) == LONGEST_RANGE.days
    assert (figures.since, figures.until) == (figures.days[0].day, figures.days[-1].day)
    assert Sums().summary(date(2026, 11, 20), date(2026, 11, 19)).days == ()
    assert len(Sums().summary(date(1, 1, 1), date(1, 1, 3)).days) == 3
