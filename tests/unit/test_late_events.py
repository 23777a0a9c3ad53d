"""P5: an event that arrives late is joined to what it did: its incident, its violation, and the value before it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from chalicelib.domain.breakglass import Weighed
from chalicelib.domain.decide import Decision
from chalicelib.domain.model import Effect, KeyEvent, Setting, Subject
from chalicelib.domain.reasons import Outcome, Problem, Reason, Violation
from chalicelib.domain.run import At
from chalicelib.domain.settle import Failed, Judged, LeaseHeld, settle
from chalicelib.domain.settlement import RecordFields, Settlement
from chalicelib.domain.stored import Attribution, Cause, LastSeen, Maker, PastIncident, SeenValue, TargetState
from tests.unit.runs import a_run, known_as
from tests.unit.targets import (
    ALICE,
    BOB,
    COMPLIANT,
    GOOD,
    HOUR,
    KEY_ARN,
    MINUTE,
    NONE,
    NOW,
    OTHER,
    RULE,
    SECOND,
    TARGET,
    a_lease,
    acting,
    an_incident,
    change_event,
    drifted,
    key_event,
    seen_as,
)

OPENED, CLOSED = NOW - 10 * MINUTE, NOW - 9 * MINUTE
NOT_KMS = Maker(Violation.NOT_KMS, OPENED, Subject.SETTING, (), ("NONE",), NOW - HOUR)
DISABLED = Maker(Violation.KEY_DISABLED, OPENED, Subject.KEY_STATE, (KEY_ARN.rsplit("/", 1)[-1],), ("Disabled",))


def past(maker: Maker, before: Setting = GOOD, cause: Cause | None = None) -> PastIncident:
    """An incident that was remediated before the event of what made it arrived."""
    unknown = (Attribution(maker.violation),)
    return PastIncident(f"{TARGET}#2", OPENED, CLOSED, before, cause, NOW - HOUR, unknown, (maker,))


def disables(at: datetime) -> KeyEvent:
    event = key_event(KEY_ARN, actor=BOB)
    return replace(
        event, trigger=replace(event.trigger, event_time=at), effect=Effect(Subject.KEY_STATE, KEY_ARN, "Disabled")
    )


def compliant(state: TargetState, event: object) -> Settlement:
    end = Judged(seen_as(GOOD), Weighed((), None), Decision(Outcome.COMPLIANT))
    return settle(a_run(TARGET, RULE, event=event), known_as(state), end, At(NOW))  # type: ignore[arg-type]


def fields(settlement: Settlement) -> RecordFields:
    (line,) = settlement.lines
    return line.fields


def test_p5_a_late_key_event_is_the_cause_of_the_incident_whose_violation_it_made() -> None:
    state = replace(COMPLIANT, past=(past(DISABLED),))
    event = disables(OPENED - MINUTE)
    settlement = compliant(state, event)
    cause = Cause("event-2", OPENED - MINUTE, BOB)
    found = (Attribution(Violation.KEY_DISABLED, (cause,)),)
    assert fields(settlement)["incident_id"] == f"{TARGET}#2"
    assert (fields(settlement)["cause"], fields(settlement)["exposure_seconds"]) == (cause, 120)
    assert fields(settlement)["attributions"] == found
    assert settlement.state is not None
    assert settlement.state.past == (replace(state.past[0], cause=cause, attributions=found),)


def test_p5_a_late_change_explains_a_violation_of_an_incident_that_another_change_caused() -> None:
    alices = Cause("event-0", OPENED - 2 * MINUTE, ALICE)
    state = replace(COMPLIANT, past=(past(NOT_KMS, OTHER, alices),))
    settlement = compliant(state, change_event(NONE, at=OPENED - MINUTE, actor=BOB))
    bobs = Cause("event-1", OPENED - MINUTE, BOB)
    assert fields(settlement)["incident_id"] == f"{TARGET}#2"
    assert fields(settlement)["attributions"] == (Attribution(Violation.NOT_KMS, (bobs,)),)
    assert "cause" not in fields(settlement)
    assert settlement.state is not None
    assert settlement.state.past[0].cause == alices


@pytest.mark.parametrize("at", [NOW - HOUR - SECOND, CLOSED + SECOND], ids=["before it", "after it"])
def test_p5_what_happened_outside_an_incident_is_no_part_of_it(at: datetime) -> None:
    settlement = compliant(replace(COMPLIANT, past=(past(DISABLED),)), disables(at))
    assert "incident_id" not in fields(settlement)
    assert "attributions" not in fields(settlement)


def test_p5_what_happened_in_an_incident_is_listed_in_it_even_if_it_made_no_violation() -> None:
    settlement = compliant(replace(COMPLIANT, past=(past(NOT_KMS),)), disables(OPENED - MINUTE))
    assert fields(settlement)["incident_id"] == f"{TARGET}#2"
    assert (fields(settlement)["attributions"], "cause" in fields(settlement)) == ((), False)


def test_the_end_of_a_lost_attempt_names_who_made_what_that_attempt_was_about() -> None:
    alices = (Attribution(Violation.NOT_KMS, (Cause("event-0", OPENED, ALICE),)),)
    state = drifted(acting(a_lease(NOW), attributions=alices), Outcome.REMEDIATING, lease_number=3)
    found = (Violation.KEY_NOT_ALLOWED,)
    decision = Decision(Outcome.OBSERVED, reason=Reason.RULE_OBSERVES, violations=found)
    end = Judged(seen_as(OTHER), Weighed((), None), decision)
    lost, observed = settle(a_run(TARGET, RULE), known_as(state), end, At(NOW)).lines
    assert (lost.fields["violations"], lost.fields["attributions"]) == ((Violation.NOT_KMS,), alices)
    assert observed.fields["attributions"] == (Attribution(Violation.KEY_NOT_ALLOWED),)


LATE = change_event(NONE, at=OPENED - MINUTE, actor=BOB)
BOBS = (Attribution(Violation.NOT_KMS, (Cause("event-1", OPENED - MINUTE, BOB),)),)
SETTINGS = (
    SeenValue(str(GOOD), NOW - HOUR),
    SeenValue(str(NONE), NOW - 5 * MINUTE),
    SeenValue(str(GOOD), NOW - MINUTE + timedelta(milliseconds=500)),
)
SEEN = replace(COMPLIANT, last_seen=(LastSeen(Subject.SETTING, None, SETTINGS),))


@pytest.mark.parametrize(
    ("at", "after", "before"),
    [
        (NOW - 2 * HOUR, NONE, None),
        (NOW - 6 * MINUTE, NONE, GOOD),
        (NOW - 4 * MINUTE, GOOD, NONE),
        (NOW - MINUTE, NONE, GOOD),
        (NOW - MINUTE, GOOD, NONE),
        (NOW - SECOND, NONE, GOOD),
    ],
)
def test_p5_the_value_before_a_change_is_what_was_seen_before_it(
    at: datetime, after: Setting, before: Setting | None
) -> None:
    change = fields(compliant(SEEN, change_event(after, at=at)))["change"]
    assert change is not None
    assert (change.before, change.after) == (str(before) if before else None, str(after))


def test_p5_the_value_before_a_change_may_be_known_from_another_event_only() -> None:
    first = compliant(SEEN, change_event(OTHER, at=NOW - 30 * SECOND, event_id="first"))
    assert first.state is not None
    change = fields(compliant(first.state, change_event(NONE, at=NOW - 20 * SECOND)))["change"]
    assert change is not None
    assert change.before == str(OTHER)


def test_p5_an_event_whose_check_fails_explains_the_violation_that_it_made() -> None:
    state = open_with(NOT_KMS)
    settlement = settle(a_run(TARGET, RULE, event=LATE), known_as(state), Failed(Problem("NoAnswer", "slow")), At(NOW))
    assert fields(settlement)["attributions"] == BOBS


def test_p5_an_event_during_another_attempt_says_which_violation_it_made() -> None:
    held = acting(a_lease(), makers=(NOT_KMS,), attributions=(Attribution(Violation.NOT_KMS),))
    settlement = settle(
        a_run(TARGET, RULE, event=LATE), known_as(drifted(held, Outcome.REMEDIATING)), LeaseHeld(), At(NOW)
    )
    assert fields(settlement)["attributions"] == BOBS
    assert settlement.state is not None
    assert settlement.state.incident is not None
    assert settlement.state.incident.attributions == BOBS


def test_p5_an_event_explains_a_violation_that_the_incident_had_before() -> None:
    decision = Decision(Outcome.OBSERVED, reason=Reason.RULE_OBSERVES, violations=(Violation.KEY_NOT_ALLOWED,))
    end = Judged(seen_as(OTHER), Weighed((), None), decision)
    settlement = settle(a_run(TARGET, RULE, event=LATE), known_as(open_with(NOT_KMS)), end, At(NOW))
    assert fields(settlement)["violations"] == (Violation.KEY_NOT_ALLOWED,)
    assert fields(settlement)["attributions"] == (Attribution(Violation.KEY_NOT_ALLOWED), *BOBS)


def open_with(maker: Maker) -> TargetState:
    """An open incident whose violation is of unknown origin."""
    return drifted(an_incident(makers=(maker,), attributions=(Attribution(maker.violation),)), Outcome.OBSERVED)
