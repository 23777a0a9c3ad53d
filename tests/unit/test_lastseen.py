"""What was last seen of a key: which values count, and how long they are."""

from __future__ import annotations

from datetime import datetime

import pytest
from msgspec.structs import replace

from chalicelib.domain import lastseen
from chalicelib.domain.lastseen import LONGEST_VALUE
from chalicelib.domain.model import Effect, KeyEvent, Subject, Trigger, TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.stored import Action, LastSeen, SeenValue, TargetState
from tests.unit.targets import ALIAS, COMPLIANT, GOOD, HOUR, KEY_ARN, MINUTE, NOW, OTHER_ARN, RULE, TARGET, a_key

EMPTY = replace(COMPLIANT, last_seen=())


def observed(former: TargetState = EMPTY, at: datetime = NOW, **fields: object) -> TargetState:
    """The state after the key was seen with these fields, and the alias on it."""
    key = replace(a_key(KEY_ARN), **fields)
    seen = Observation(at, GOOD, {KEY_ARN: key}, {ALIAS: KEY_ARN})
    return replace(former, last_seen=lastseen.with_observation(former, RULE, seen, at))


def tagging(*tags: tuple[str, str], at: datetime | None = NOW) -> KeyEvent:
    effect = Effect(Subject.TAGS, KEY_ARN, "its tags")
    return KeyEvent(
        TARGET,
        Trigger(TriggerKind.KEY, "e", "TagResource", at),
        (KEY_ARN,),
        None,
        tuple(key for key, _ in tags),
        tags,
        effect=effect,
    )


def state_change(after: str, at: datetime | None = NOW, key: str = KEY_ARN) -> KeyEvent:
    trigger = Trigger(TriggerKind.KEY, "e", "DisableKey", at)
    return KeyEvent(TARGET, trigger, (key,), effect=Effect(Subject.KEY_STATE, key, after))


def values(state: TargetState, subject: Subject) -> list[str]:
    return [value.value for each in state.last_seen if each.subject is subject for value in each.values]


def test_what_kms_did_not_return_is_not_known() -> None:
    state = observed(policy=None, rotation=None, tags=None)
    assert {each.subject for each in state.last_seen} == {Subject.SETTING, Subject.KEY_STATE, Subject.ALIAS}
    assert lastseen.value_before(state, tagging(("a", "b"))) is None


def test_a_shallow_observation_keeps_what_a_deep_one_saw() -> None:
    deep = observed(policy="{}", rotation=True, tags=(("a", "b"),))
    shallow = observed(deep, NOW + HOUR, policy=None, rotation=None, tags=None)
    assert shallow.last_seen == deep.last_seen


def test_tags_that_did_not_fit_are_unknown_and_not_absent() -> None:
    state = observed(tags=(("a", "b"), ("z", "y" * LONGEST_VALUE)))
    assert lastseen.value_before(state, tagging(("a", "c"), ("m", "n"))) == "a=b, m unknown"
    (kept,) = values(state, Subject.TAGS)
    assert len(kept) == LONGEST_VALUE


def test_a_tag_whose_key_only_begins_like_another_is_another() -> None:
    state = observed(tags=(("team-a", "x"), ("team", "y")))
    assert lastseen.value_before(state, tagging(("team", "z"))) == "team=y"


@pytest.mark.parametrize(
    ("error", "states"), [(None, ["Disabled", "Enabled"]), ("DisabledException", ["Disabled"])], ids=["made", "refused"]
)
def test_only_a_call_that_succeeded_counts_as_seen(error: str | None, states: list[str]) -> None:
    state = observed(state="Disabled")
    action = Action("EnableKey", NOW + MINUTE, KEY_ARN, error=error)
    state = replace(state, last_seen=lastseen.with_actions(state, RULE, (action,)))
    assert values(state, Subject.KEY_STATE) == states


def test_an_event_without_a_time_has_the_latest_value_and_sets_none() -> None:
    state = observed(state="Enabled")
    event = state_change("Disabled", at=None)
    assert lastseen.value_before(state, event) == "Enabled"
    assert lastseen.with_event(state, RULE, event) == state.last_seen


def test_an_event_about_another_key_sets_nothing() -> None:
    state = observed()
    assert lastseen.with_event(state, RULE, state_change("Disabled", key=OTHER_ARN)) == state.last_seen


def test_an_observation_after_kms_caught_up_counts_even_if_it_shows_the_former_value() -> None:
    state = observed(at=NOW - HOUR, state="Enabled")
    state = replace(state, last_seen=lastseen.with_event(state, RULE, state_change("Disabled")))
    assert values(observed(state, NOW + 4 * MINUTE, state="Enabled"), Subject.KEY_STATE) == ["Enabled", "Disabled"]
    assert values(observed(state, NOW + 5 * MINUTE, state="Enabled"), Subject.KEY_STATE)[-1] == "Enabled"


def test_a_state_that_a_former_version_stored_has_at_least_its_setting() -> None:
    event = state_change("Disabled")
    setting = replace(event, effect=Effect(Subject.SETTING, None, "NONE"))
    assert lastseen.value_before(EMPTY, setting) == str(GOOD)
    assert lastseen.value_before(EMPTY, event) is None


def test_a_value_that_an_event_explains_later_is_as_old_as_the_event() -> None:
    state = observed(at=NOW - HOUR, state="Enabled")
    state = observed(state, NOW + MINUTE, state="Disabled")
    state = replace(state, last_seen=lastseen.with_event(state, RULE, state_change("Disabled")))
    (found,) = [each for each in state.last_seen if each.subject is Subject.KEY_STATE]
    assert found == LastSeen(Subject.KEY_STATE, KEY_ARN, (SeenValue("Enabled", NOW - HOUR), SeenValue("Disabled", NOW)))
