"""P7: which events of the guard's role are echoes of its own calls, and which show that somebody else uses the role."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from chalicelib.domain.echo import SLACK, is_echo, is_own, plan_entry
from chalicelib.domain.keypolicy.wanted import XRAY_SERVICE
from chalicelib.domain.model import (
    Actor,
    ChangeEvent,
    Effect,
    EncryptionType,
    KeyEvent,
    Setting,
    Subject,
    Target,
    Trigger,
    TriggerKind,
)
from chalicelib.domain.policy import ManagedKey, Mode, Require, Rule, When
from chalicelib.domain.steps import Step, StepName
from chalicelib.domain.stored import Incident, Lease, Phase, TargetState, Window
from tests.unit.runs import ROLE, a_run

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TARGET = Target("111122223333", "eu-west-1")
ALIAS = "alias/xray-encryption"
KEY = "arn:aws:kms:eu-west-1:111122223333:key/11111111-1111-1111-1111-111111111111"
OTHER = "arn:aws:kms:eu-west-1:111122223333:key/22222222-2222-2222-2222-222222222222"
RULE = Rule(
    id="baseline",
    accounts=("*",),
    regions=("*",),
    mode=Mode.ENFORCE,
    when=When.ALWAYS,
    require=Require(allowed_keys=(ALIAS,)),
    managed_key=ManagedKey(alias=ALIAS),
)
POLICY = '{"Version": "2012-10-17"}'
PUT_POLICY = plan_entry(Step(StepName.PUT_KEY_POLICY, KEY, None, POLICY))
QUIET = TargetState(str(TARGET), managed_key=KEY, requests=("known",))


def trigger(name: str, at: datetime | None = NOW, request_id: str | None = "unknown") -> Trigger:
    actor = Actor(ROLE, "AssumedRole", session="on_change")
    return Trigger(TriggerKind.KEY, "event", name, at, request_id, actor)


def put(key: str | None = KEY, at: datetime | None = NOW, error: str | None = None) -> ChangeEvent:
    setting = Setting(EncryptionType.KMS if key else EncryptionType.NONE, key)
    return ChangeEvent(TARGET, trigger("PutEncryptionConfig", at), None if error else setting, error)


def key_event(name: str, key: str = KEY, alias: str | None = None, text: str | None = None) -> KeyEvent:
    effect = Effect(Subject.KEY_POLICY, key, text) if text else None
    return KeyEvent(TARGET, trigger(name), (key,), alias, effect=effect)


def acting(*plan: str, since: datetime = NOW - 30 * SECOND) -> TargetState:
    lease = Lease("worker", 1, since + 120 * SECOND, since)
    return replace(QUIET, incident=Incident("i", since, None, Phase.ACTING, lease=lease, planned=plan))


def lost(*plan: str) -> TargetState:
    return replace(QUIET, windows=(Window(NOW - 30 * SECOND, NOW + 90 * SECOND, plan),))


def test_a_request_id_on_record_makes_an_echo_whatever_the_time() -> None:
    event = put()
    known = replace(event, trigger=replace(event.trigger, request_id="known"))
    assert is_echo(known, None, QUIET)
    assert not is_echo(event, RULE, QUIET)


def test_an_event_without_a_request_id_is_none() -> None:
    event = put()
    without = replace(event, trigger=replace(event.trigger, request_id=None))
    assert not is_echo(without, RULE, replace(QUIET, requests=()))


@pytest.mark.parametrize("state", [acting(), lost()])
@pytest.mark.parametrize(
    ("event", "is_ours"),
    [
        (put(KEY), True),
        (put(KEY.rsplit("/", 1)[1]), True),
        (put(None, error="InvalidRequestException"), True),
        (put(None), False),
        (put(OTHER), False),
        (key_event("EnableKey"), True),
        (key_event("CancelKeyDeletion"), True),
        (key_event("EnableKeyRotation"), True),
        (key_event("CreateAlias", alias=ALIAS), True),
        (key_event("UpdateAlias", alias=ALIAS), True),
        (key_event("UpdateAlias", alias="alias/other"), False),
        (key_event("UpdateAlias", OTHER, ALIAS), False),
        (key_event("EnableKey", OTHER), False),
        (key_event("DisableKey"), False),
        (key_event("ScheduleKeyDeletion"), False),
        (key_event("TagResource"), False),
        (key_event("PutKeyPolicy", text=POLICY), False),
    ],
)
def test_during_an_attempt_only_the_guards_own_steps_are_echoes(
    state: TargetState, event: ChangeEvent | KeyEvent, is_ours: bool
) -> None:
    assert is_echo(event, RULE, state) is is_ours
    assert not is_echo(event, RULE, QUIET), "outside an attempt nothing is"


@pytest.mark.parametrize("state", [acting(PUT_POLICY), lost(PUT_POLICY)])
def test_a_key_policy_is_an_echo_only_with_the_text_that_was_planned(state: TargetState) -> None:
    assert is_echo(key_event("PutKeyPolicy", text=POLICY), RULE, state)
    assert not is_echo(key_event("PutKeyPolicy", text=POLICY + " "), RULE, state)
    assert not is_echo(key_event("PutKeyPolicy", OTHER, text=POLICY), RULE, state)
    assert not is_echo(key_event("PutKeyPolicy"), RULE, state), "the event does not say which text"


def test_a_planned_step_on_a_key_that_is_adopted_only_later_is_an_echo() -> None:
    state = acting(plan_entry(Step(StepName.ENABLE_KEY, OTHER)))
    assert is_echo(key_event("EnableKey", OTHER), RULE, state)


@pytest.mark.parametrize(
    ("at", "within"),
    [
        (NOW - 30 * SECOND - SLACK, True),
        (NOW - 31 * SECOND - SLACK, False),
        (NOW + 90 * SECOND + SLACK, True),
        (NOW + 91 * SECOND + SLACK, False),
        (None, False),
    ],
)
def test_a_call_outside_the_attempts_time_is_none_of_its(at: datetime | None, within: bool) -> None:
    assert is_echo(put(KEY, at), RULE, acting()) is within
    assert is_echo(put(KEY, at), RULE, lost()) is within


def test_in_a_target_that_no_rule_governs_the_guard_makes_no_calls() -> None:
    assert not is_echo(put(KEY), None, acting())


def grant(arn: str = ROLE, via: str | None = XRAY_SERVICE, key: str = KEY, name: str = "CreateGrant") -> KeyEvent:
    event = key_event(name, key)
    return replace(event, trigger=replace(event.trigger, actor=Actor(arn, "AssumedRole", via=via)))


@pytest.mark.parametrize(
    ("event", "is_ours"),
    [
        (grant(), True),
        (grant(via=None), False),
        (grant(via="ec2.amazonaws.com"), False),
        (grant(key=OTHER), False),
        (grant(name="RevokeGrant"), False),
        (grant("arn:aws:iam::111122223333:role/other"), False),
        (replace(grant(), key_arns=()), False),
        (replace(grant(), key_arns=(KEY, OTHER)), False),
    ],
)
def test_p7_x_rays_grant_on_the_targets_own_key_for_the_guards_role_is_an_echo(event: KeyEvent, is_ours: bool) -> None:
    assert is_own(a_run(TARGET, RULE, event=event), QUIET) is is_ours
    made = replace(QUIET, managed_key=None, keys_made=(KEY,))
    assert is_own(a_run(TARGET, RULE, event=event), made) is is_ours
