"""What an event of KMS says that it changed."""

from __future__ import annotations

import json

import pytest

from chalicelib.domain.attribution import attribute, effect_of, makers_of, remember
from chalicelib.domain.echo import is_echo, plan_entry
from chalicelib.domain.effects import POLICY_CHARS
from chalicelib.domain.events import read_key_event
from chalicelib.domain.incidents import cause_of, cause_of_drift
from chalicelib.domain.model import Effect, KeyEvent, Subject
from chalicelib.domain.observation import Observation
from chalicelib.domain.reasons import Violation
from chalicelib.domain.steps import Step, StepName
from chalicelib.domain.stored import TargetState, Window
from tests.unit.runs import a_run, known_as
from tests.unit.targets import ALIAS, COMPLIANT, NONE, NOW, RULE, TARGET, a_key
from tests.unit.test_events_keys import ALIAS_ARN, KEY_ARN, kms_event

STATEMENTS = {"Version": "2012-10-17", "Statement": [{"Sid": "Ünïcode", "Effect": "Allow"}]}
INDENTED = json.dumps(STATEMENTS, indent=2, ensure_ascii=False)


def read(name: str, request: object, *arns: str) -> KeyEvent:
    event = read_key_event(kms_event(name, request, *arns))
    assert isinstance(event, KeyEvent)
    return event


@pytest.mark.parametrize(
    ("name", "request_", "arn", "effect"),
    [
        ("DisableKey", {"keyId": KEY_ARN}, KEY_ARN, Effect(Subject.KEY_STATE, KEY_ARN, "Disabled")),
        ("ScheduleKeyDeletion", {"keyId": KEY_ARN}, KEY_ARN, Effect(Subject.KEY_STATE, KEY_ARN, "PendingDeletion")),
        ("PutKeyPolicy", {"policy": INDENTED}, KEY_ARN, Effect(Subject.KEY_POLICY, KEY_ARN, INDENTED)),
        ("PutKeyPolicy", {}, KEY_ARN, Effect(Subject.KEY_POLICY, KEY_ARN, None)),
        (
            "EnableKeyRotation",
            {"rotationPeriodInDays": 90},
            KEY_ARN,
            Effect(Subject.KEY_ROTATION, KEY_ARN, "on every 90 days"),
        ),
        ("EnableKeyRotation", {}, KEY_ARN, Effect(Subject.KEY_ROTATION, KEY_ARN, "on")),
        ("DisableKeyRotation", {}, KEY_ARN, Effect(Subject.KEY_ROTATION, KEY_ARN, "off")),
        (
            "TagResource",
            {"tags": [{"tagKey": "a", "tagValue": "b"}, {"tagKey": "c", "tagValue": ""}]},
            KEY_ARN,
            Effect(Subject.TAGS, KEY_ARN, "a=b, c="),
        ),
        ("UntagResource", {"tagKeys": ["a", "c"]}, KEY_ARN, Effect(Subject.TAGS, KEY_ARN, "removed a, c")),
        (
            "TagResource",
            {"tags": [{"tagValue": "b"}, {"tagKey": 7}, {"tagKey": "c", "tagValue": ["d"]}]},
            KEY_ARN,
            Effect(Subject.TAGS, KEY_ARN, "c="),
        ),
        (
            "CreateGrant",
            {"granteePrincipal": "xray.amazonaws.com", "operations": ["Decrypt", "GenerateDataKey"]},
            KEY_ARN,
            Effect(Subject.GRANTS, KEY_ARN, "granted to xray.amazonaws.com: Decrypt, GenerateDataKey"),
        ),
        (
            "CreateGrant",
            {"granteeServicePrincipal": "xray.amazonaws.com", "operations": ["Decrypt", 7, None]},
            KEY_ARN,
            Effect(Subject.GRANTS, KEY_ARN, "granted to xray.amazonaws.com: Decrypt"),
        ),
        ("CreateGrant", None, KEY_ARN, Effect(Subject.GRANTS, KEY_ARN, "granted to unknown: unknown operations")),
        ("RevokeGrant", {"grantId": "abcd"}, KEY_ARN, Effect(Subject.GRANTS, KEY_ARN, "revoked abcd")),
        ("RevokeGrant", {"grantId": ["abcd"]}, KEY_ARN, Effect(Subject.GRANTS, KEY_ARN, "revoked a grant")),
        ("RetireGrant", None, KEY_ARN, Effect(Subject.GRANTS, KEY_ARN, "retired a grant")),
        (
            "DeleteAlias",
            {"aliasName": "alias/xray-encryption"},
            ALIAS_ARN,
            Effect(Subject.ALIAS, "alias/xray-encryption", "deleted"),
        ),
    ],
)
def test_each_call_says_what_it_changed(name: str, request_: object, arn: str, effect: Effect) -> None:
    assert read(name, request_, arn).effect == effect


def test_a_new_grant_has_the_id_by_which_it_is_revoked_or_retired() -> None:
    given = kms_event("CreateGrant", {"granteePrincipal": "arn:p", "operations": ["Decrypt"]}, KEY_ARN)
    given["detail"]["responseElements"] = {"grantId": "abcd", "keyId": KEY_ARN}
    retired = kms_event("RetireGrant", None, KEY_ARN, additionalEventData={"grantId": "abcd"})
    found = [read_key_event(event) for event in (given, retired)]
    texts = [event.effect.after for event in found if isinstance(event, KeyEvent) and event.effect]
    assert texts == ["granted to arn:p: Decrypt (grant abcd)", "retired abcd"]


def test_a_retired_grant_whose_record_has_no_request_and_no_resources_names_the_key_of_the_response() -> None:
    retired = kms_event("RetireGrant", None)
    retired["detail"]["responseElements"] = {"keyId": KEY_ARN}
    event = read_key_event(retired)
    assert isinstance(event, KeyEvent)
    assert event.key_arns == (KEY_ARN,)


def test_the_text_of_a_grant_is_bounded_and_printable() -> None:
    request = {"granteePrincipal": "\x1b" + "x" * 10_000, "operations": ["y" * 10_000] * 10_000}
    effect = read("CreateGrant", request, KEY_ARN).effect
    assert effect is not None
    assert effect.after is not None
    assert len(effect.after) < 7_000
    assert effect.after.isprintable()


def test_a_grant_is_not_kept_among_what_may_have_made_a_violation() -> None:
    event = read("CreateGrant", {"granteePrincipal": "arn:p"}, KEY_ARN)
    assert effect_of(event, cause_of(event.trigger)) is None


def test_a_policy_longer_than_kms_allows_is_cut() -> None:
    effect = read("PutKeyPolicy", {"policy": "x" * (POLICY_CHARS + 1)}, KEY_ARN).effect
    assert effect is not None
    assert effect.after == "x" * POLICY_CHARS


@pytest.mark.parametrize("hostile", ["\ud800", "\x00", 7, None, ["a"]])
def test_a_hostile_policy_is_read_and_compared_without_an_error(hostile: object) -> None:
    event = read("PutKeyPolicy", {"policy": hostile}, KEY_ARN)
    state = TargetState(str(TARGET), managed_key=KEY_ARN, windows=(Window(None, NOW),))
    assert not is_echo(event, RULE, state)
    assert len(remember((), effect_of(event, cause_of(event.trigger)))) == 1


def test_p7_the_guards_own_policy_is_recognized_however_it_is_written() -> None:
    event = read("PutKeyPolicy", {"policy": INDENTED}, KEY_ARN)
    step = Step(StepName.PUT_KEY_POLICY, KEY_ARN, None, INDENTED)
    state = TargetState(str(TARGET), managed_key=KEY_ARN, windows=(Window(None, NOW, (plan_entry(step),)),))
    assert is_echo(event, RULE, state)


def test_p5_a_policy_with_line_breaks_is_attributed_to_who_put_it() -> None:
    event = read("PutKeyPolicy", {"policy": INDENTED}, KEY_ARN)
    key = a_key(KEY_ARN, policy=json.dumps(STATEMENTS))
    seen = Observation(NOW, NONE, {KEY_ARN: key}, {ALIAS: KEY_ARN})
    known = known_as(COMPLIANT.__class__(str(TARGET), first_seen=NOW, managed_key=KEY_ARN))
    effects = remember((), effect_of(event, cause_of(event.trigger)))
    violations = (Violation.KEY_POLICY_INCOMPLETE,)
    makers = makers_of(RULE, known, seen, violations)
    (found,) = attribute(a_run(TARGET, RULE), known, effects, makers, violations)
    assert [each.actor for each in found.events] == [event.trigger.actor]


def test_p5_whoever_made_a_grant_with_the_guards_role_owns_no_violation_of_the_key() -> None:
    """Other grants are recorded without a check; one by a borrowed role has the target read."""
    event = read("CreateGrant", {"granteePrincipal": "arn:p"}, KEY_ARN)
    seen = Observation(NOW, NONE, {KEY_ARN: a_key(KEY_ARN, state="Disabled")}, {ALIAS: KEY_ARN})
    run = a_run(TARGET, RULE, event=event)
    assert cause_of_drift(run, known_as(COMPLIANT), seen, (Violation.KEY_DISABLED,)) is None
    disabled = read("DisableKey", {}, KEY_ARN)
    assert cause_of_drift(a_run(TARGET, RULE, event=disabled), known_as(COMPLIANT), seen, (Violation.KEY_DISABLED,))
