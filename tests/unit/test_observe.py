"""Observing: what is read of a target, and whose key may keep the guard from reading the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from msgspec.structs import replace

from chalicelib import keypolicy
from chalicelib.decide import Observation, Step, StepName, judge, next_step
from chalicelib.errors import AwsError
from chalicelib.model import EncryptionStatus, EncryptionType, Key, Setting, Target, TargetState, Violation
from chalicelib.observe import glance, glance_reads, observe
from chalicelib.policy import KeyKind, ManagedKey, Mode, Require, Rule
from chalicelib.ports import Keys, Principals, Reach, XRay

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TARGET = Target("111122223333", "eu-west-1")
ALIAS = "alias/xray-encryption"
OURS = "arn:aws:kms:eu-west-1:111122223333:key/11111111-1111-1111-1111-111111111111"
THEIRS = "arn:aws:kms:eu-west-1:111122223333:key/22222222-2222-2222-2222-222222222222"
FOREIGN = "arn:aws:kms:eu-west-1:444455556666:key/33333333-3333-3333-3333-333333333333"
RULE = Rule("baseline", ("*",), ("*",), Mode.ENFORCE, require=Require(allowed_keys=(ALIAS,)))
RECORDED = TargetState(str(TARGET), managed_key=OURS)
HEALTHY = Key(
    OURS,
    TARGET.account,
    TARGET.region,
    "Enabled",
    policy=keypolicy.initial(RULE, TARGET, "aws"),
    rotation=True,
    tags=(("xray-guard", "managed"),),
)


class World:
    """X-Ray set to one key, and a KMS where the guard's key is healthy and some keys shut the guard out."""

    def __init__(self, configured: str | None, alias: str | None = OURS, closed: Sequence[str] = (THEIRS, FOREIGN)):
        kind = EncryptionType.KMS if configured else EncryptionType.NONE
        self.setting = Setting(kind, configured, EncryptionStatus.ACTIVE)
        self.alias = alias
        self.closed = closed

    def get(self) -> Setting:
        return self.setting

    def describe(self, key: str) -> Key | None:
        arn = self.alias if key == ALIAS else key
        if arn in self.closed:
            raise AwsError("kms:DescribeKey", "AccessDeniedException", "no resource-based policy allows it")
        return replace(HEALTHY, policy=None, rotation=None, tags=None) if arn == OURS else None

    def policy(self, key_arn: str) -> str:
        return HEALTHY.policy or ""

    def rotation(self, key_arn: str) -> tuple[bool, int | None]:
        return True, 365

    def tags(self, key_arn: str) -> tuple[tuple[str, str], ...]:
        return HEALTHY.tags or ()


def gather(reads: Sequence[Callable[[], Any]]) -> list[Any]:
    return [read() for read in reads]


def observed(world: World, state: TargetState = RECORDED, rule: Rule = RULE) -> Observation:
    reach = Reach(TARGET, cast(XRay, world), cast(Keys, world), cast(Principals, world))
    first = glance(rule, gather(glance_reads(reach, rule)))
    return observe(gather, reach, rule, state, first, NOW, deep=True, ask_use=False)


@pytest.mark.parametrize(
    ("configured", "rule"),
    [
        (THEIRS, RULE),
        (FOREIGN, replace(RULE, require=Require(allowed_keys=(ALIAS,), same_account=False))),
        (THEIRS, replace(RULE, require=Require(KeyKind.ANY_KMS, allowed_keys=(ALIAS,)))),
    ],
)
def test_p13_nobody_keeps_x_ray_on_a_key_of_theirs_by_shutting_the_guard_out_of_it(configured: str, rule: Rule) -> None:
    seen = observed(World(configured), rule=rule)
    assert judge(TARGET, rule, RECORDED, seen) == (Violation.KEY_NOT_ALLOWED,)
    step = next_step(TARGET, rule, RECORDED, seen, "aws")
    assert isinstance(step, Step)
    assert (step.name, step.key_arn) == (StepName.PUT_SETTING, OURS)


def test_nobody_holds_x_ray_up_by_moving_the_alias_of_a_recorded_key_to_one_that_shuts_the_guard_out() -> None:
    seen = observed(World(None, alias=THEIRS))
    assert judge(TARGET, RULE, RECORDED, seen) == (Violation.NOT_KMS, Violation.ALIAS_MOVED)
    step = next_step(TARGET, RULE, RECORDED, seen, "aws")
    assert isinstance(step, Step)
    assert step.name is StepName.PUT_SETTING
    settled = replace(seen, setting=Setting(EncryptionType.KMS, OURS, EncryptionStatus.ACTIVE))
    step = next_step(TARGET, RULE, RECORDED, settled, "aws")
    assert isinstance(step, Step)
    assert (step.name, step.key_arn, step.after) == (StepName.UPDATE_ALIAS, OURS, ALIAS)


@pytest.mark.parametrize(
    ("world", "state", "rule"),
    [
        (World(None, alias=THEIRS), TargetState(str(TARGET)), RULE),
        (World(OURS, closed=(OURS,)), RECORDED, RULE),
        (World(THEIRS), RECORDED, replace(RULE, require=Require(allowed_keys=(ALIAS, THEIRS)))),
        (World(THEIRS), RECORDED, replace(RULE, require=Require(KeyKind.ANY_KMS))),
    ],
    ids=["to be adopted", "the managed key", "allowed by name", "any key will do"],
)
def test_a_key_that_matters_and_cannot_be_read_fails_the_observation(
    world: World, state: TargetState, rule: Rule
) -> None:
    with pytest.raises(AwsError) as refused:
        observed(world, state, rule)
    assert refused.value.code == "AccessDeniedException"


def test_an_alias_among_the_allowed_ones_that_shuts_the_guard_out_allows_nothing() -> None:
    rule = replace(RULE, require=Require(allowed_keys=(ALIAS,)), managed_key=ManagedKey(alias="alias/managed"))
    world = World(THEIRS, alias=THEIRS)
    assert judge(TARGET, rule, RECORDED, observed(world, rule=rule))[0] is Violation.KEY_NOT_ALLOWED
