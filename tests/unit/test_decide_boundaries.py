"""What decides at a boundary: which key is adopted, which is proved usable (P13), and when a target is idle (P1)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.domain.decide import decide
from chalicelib.domain.keychoice import adoption
from chalicelib.domain.keypolicy.wanted import initial_policy
from chalicelib.domain.model import EncryptionStatus, EncryptionType, Key, Setting, Target, TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import ManagedKey, Mode, Require, Rule, When
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.steps import why_not_proved
from chalicelib.domain.stored import Incident, Phase, TargetState
from tests.unit.runs import a_run, known_as

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TARGET = Target("111122223333", "eu-west-1")
ALIAS = "alias/xray-encryption"
KEY = "arn:aws:kms:eu-west-1:111122223333:key/11111111-1111-1111-1111-111111111111"
NONE = Setting(EncryptionType.NONE, None, EncryptionStatus.ACTIVE)
ON_KEY = Setting(EncryptionType.KMS, KEY, EncryptionStatus.ACTIVE)
RULE = Rule(
    id="baseline",
    accounts=("*",),
    regions=("*",),
    mode=Mode.ENFORCE,
    when=When.IN_USE,
    require=Require(allowed_keys=(ALIAS,)),
    managed_key=ManagedKey(alias=ALIAS),
)
HEALTHY = Key(
    KEY,
    TARGET.account,
    TARGET.region,
    "Enabled",
    policy=initial_policy(RULE, TARGET, "aws"),
    rotation=True,
    tags=(("xray-guard", "managed"),),
)
UNRECORDED = TargetState(str(TARGET))


def seen(setting: Setting) -> Observation:
    return Observation(NOW, setting, {KEY: HEALTHY}, {ALIAS: KEY})


def test_p13_a_healthy_key_is_proved_usable() -> None:
    assert why_not_proved(HEALTHY, RULE, TARGET) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "Disabled"},
        {"state": "PendingDeletion"},
        {"state": "Unavailable"},
        {"policy": None},
        {"policy": '{"Statement": []}'},
        {"spec": "RSA_2048", "usage": "SIGN_VERIFY"},
        {"manager": "AWS"},
        {"account": "999999999999"},
        {"region": "us-east-1"},
    ],
    ids=str,
)
def test_p13_a_key_that_x_ray_could_not_use_or_that_was_not_read_is_not_proved(changes: dict[str, Any]) -> None:
    assert why_not_proved(replace(HEALTHY, **changes), RULE, TARGET) is not None


def test_a_key_is_adopted_when_x_ray_is_on_it_and_the_alias_names_it() -> None:
    assert adoption(UNRECORDED, seen(ON_KEY), RULE) == KEY


def test_p2_a_key_that_only_the_alias_names_is_not_adopted_before_x_ray_is_on_it() -> None:
    assert adoption(UNRECORDED, seen(NONE), RULE) is None


def test_a_recorded_key_is_not_adopted_again() -> None:
    assert adoption(replace(UNRECORDED, managed_key=KEY), seen(ON_KEY), RULE) is None


@pytest.mark.parametrize("trigger", [TriggerKind.SWEEP, TriggerKind.TICK])
def test_p1_a_drift_that_was_put_off_is_not_forgotten_as_idle(trigger: TriggerKind) -> None:
    unused = replace(seen(NONE), in_use=False)
    put_off = replace(UNRECORDED, incident=Incident("an incident", NOW, NONE, Phase.OPEN, due=NOW))
    outcomes = [
        decide(a_run(TARGET, RULE, trigger), known_as(state), unused, None, NOW).outcome
        for state in (UNRECORDED, put_off)
    ]
    assert outcomes == [Outcome.IGNORED, Outcome.REMEDIATING]
