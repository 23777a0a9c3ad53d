"""A target's state fits into an item of DynamoDB, whatever somebody does to make it grow."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from msgspec.structs import replace

from chalicelib.domain.attribution import MOST_EFFECTS
from chalicelib.domain.incidents import PAST_INCIDENTS
from chalicelib.domain.model import Actor, Effect, KeyEvent, Subject, Trigger, TriggerKind, key_id_of
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.run import At
from chalicelib.domain.settlement import SettlementDraft
from chalicelib.domain.sizes import MOST_BYTES, fitted
from chalicelib.domain.stored import Attribution, Maker, PastIncident, TargetState
from tests.unit.runs import a_run, known_as
from tests.unit.targets import COMPLIANT, HOUR, KEY_ARN, MINUTE, NONE, NOW, RULE, TARGET

ITEM = 400 * 1024
MALLORY = Actor(f"arn:aws:iam::111122223333:role/{'p' * 510}/{'r' * 64}", "AssumedRole", session="s" * 64)
"""IAM's own limits: a path of 512 characters, a name and a session of 64."""

CALLS_A_SECOND = 60
"""KMS's quotas of these calls are 5 to 15 a second, and can be raised by request."""

MADE = {
    Violation.KEY_DISABLED: (Subject.KEY_STATE, "Disabled"),
    Violation.KEY_ROTATION_OFF: (Subject.KEY_ROTATION, "off"),
}


def incident(number: int) -> PastIncident:
    closed_at = NOW - HOUR + number * 5 * MINUTE
    makers = tuple(
        Maker(violation, closed_at, subject, (key_id_of(KEY_ARN),), (value,), closed_at - MINUTE)
        for violation, (subject, value) in MADE.items()
    )
    return PastIncident(
        f"{TARGET}#{number}",
        closed_at - timedelta(seconds=30),
        closed_at,
        NONE,
        good_at=closed_at - MINUTE,
        attributions=tuple(map(Attribution, MADE)),
        makers=makers,
    )


def attacked() -> TargetState:
    state = replace(COMPLIANT, past=tuple(map(incident, range(PAST_INCIDENTS))))
    for past in state.past:
        for subject, value in MADE.values():
            for call in range(CALLS_A_SECOND):
                event_id = f"{past.id[-4:]}{subject}{call}".ljust(36, "0")
                trigger = Trigger(TriggerKind.KEY, event_id, "call", past.opened_at, actor=MALLORY)
                event = KeyEvent(TARGET, trigger, (KEY_ARN,), effect=Effect(subject, KEY_ARN, value))
                draft = SettlementDraft(a_run(TARGET, RULE, event=event), known_as(state), At(NOW))
                draft.joined_past()
                state = draft.state
    return state


def test_the_makers_that_are_kept_of_a_violation_are_bounded() -> None:
    most = max(len(each.events) for past in attacked().past for each in past.attributions)
    assert most <= MOST_EFFECTS


def test_a_targets_state_fits_into_an_item_whatever_somebody_does() -> None:
    size = len(msgspec.json.encode(attacked()))
    assert size < ITEM


def swollen() -> TargetState:
    """A state that no bound of a single list keeps small: many incidents, each with long causes."""
    state = attacked()
    causes = tuple(event for past in state.past for each in past.attributions for event in each.events)
    past = tuple(
        replace(each, attributions=tuple(Attribution(name, causes) for name in Violation)) for each in state.past
    )
    return replace(state, past=past)


def test_p1_a_state_that_grew_too_large_is_stored_without_what_only_names_makers() -> None:
    state = swollen()
    assert len(msgspec.json.encode(state)) > ITEM
    settlement = SettlementDraft(a_run(TARGET, RULE), known_as(state), At(NOW)).settled(Outcome.COMPLIANT)
    assert settlement.state is not None
    assert len(msgspec.json.encode(settlement.state)) <= MOST_BYTES
    kept = [(each.id, each.opened_at, each.closed_at, each.before) for each in settlement.state.past]
    assert kept == [(each.id, each.opened_at, each.closed_at, each.before) for each in state.past]
    assert settlement.state.effects == state.effects


def test_a_state_of_usual_size_is_stored_as_it_is() -> None:
    assert fitted(COMPLIANT) is COMPLIANT
