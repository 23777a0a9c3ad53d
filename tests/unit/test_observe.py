"""Observing: what is read of a target, and whose key may keep the guard from reading the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from msgspec.structs import replace

from chalicelib.domain.errors import AwsError
from chalicelib.domain.judge import judge
from chalicelib.domain.keypolicy.wanted import initial_policy
from chalicelib.domain.model import EncryptionStatus, EncryptionType, Key, Setting, Target, TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import KeyKind, ManagedKey, Mode, Require, Rule
from chalicelib.domain.ports import Keys, Principals, Reach, SpanLogs, TraceLinks, XRay
from chalicelib.domain.reading import plan_reads
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.spans import Link, LogGroup
from chalicelib.domain.steps import Step, StepName, next_step
from chalicelib.domain.stored import Incident, Phase, TargetState
from chalicelib.domain.waiting import DEEP_EVERY
from chalicelib.loop.observe import glance, glance_reads, observe

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TARGET = Target("111122223333", "eu-west-1")
ALIAS = "alias/xray-encryption"
OURS = "arn:aws:kms:eu-west-1:111122223333:key/11111111-1111-1111-1111-111111111111"
THEIRS = "arn:aws:kms:eu-west-1:111122223333:key/22222222-2222-2222-2222-222222222222"
FOREIGN = "arn:aws:kms:eu-west-1:444455556666:key/33333333-3333-3333-3333-333333333333"
RULE = Rule("baseline", ("*",), ("*",), Mode.ENFORCE, require=Require(allowed_keys=(ALIAS,)))
RECORDED = TargetState(str(TARGET), managed_key=OURS, keys_made=(OURS,))
HEALTHY = Key(
    OURS,
    TARGET.account,
    TARGET.region,
    "Enabled",
    policy=initial_policy(RULE, TARGET, "aws"),
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

    def spans_destination(self) -> tuple[str | None, str | None]:
        return "XRay", "ACTIVE"

    def group(self) -> LogGroup | None:
        raise AssertionError("there is no log group of spans")

    def all(self) -> tuple[Link, ...]:
        return ()

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


def reaching(world: World) -> Reach:
    parts = cast(Keys, world), cast(Principals, world), cast(SpanLogs, world), cast(TraceLinks, world)
    return Reach(TARGET, cast(XRay, world), *parts)


def observed(world: World, state: TargetState = RECORDED, rule: Rule = RULE) -> Observation:
    reach = reaching(world)
    first = glance(reach, gather(glance_reads(reach, rule)))
    plan = plan_reads(TARGET, rule, state, first, TriggerKind.CHANGE, NOW)
    return observe(gather, reach, rule, state, first, plan, NOW)


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


def test_p13_nobody_keeps_x_ray_on_a_key_of_theirs_by_hiding_its_policy_from_the_guard() -> None:
    seen = observed(Failing("policy", "AccessDeniedException", of=THEIRS, configured=THEIRS))
    assert judge(TARGET, RULE, RECORDED, seen) == (Violation.KEY_NOT_ALLOWED,)


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


# --- how much is read ------------------------------------------------------------------------------------------------

AS_BEFORE = replace(
    RECORDED,
    setting=World(OURS).setting,
    outcome=Outcome.REMEDIATED,
    checked_at=NOW - timedelta(hours=1),
)
INCIDENT = Incident(f"{TARGET}#1", NOW, None, Phase.OPEN)


def reads_everything(state: TargetState, kind: TriggerKind = TriggerKind.SWEEP) -> bool:
    reach = reaching(World(OURS))
    first = glance(reach, gather(glance_reads(reach, RULE)))
    return plan_reads(TARGET, RULE, state, first, kind, NOW).deep


def test_p10_a_sweep_that_finds_all_as_before_does_not_read_policy_rotation_and_tags() -> None:
    assert not reads_everything(AS_BEFORE)


@pytest.mark.parametrize(
    "changes",
    [
        {"checked_at": NOW - DEEP_EVERY},
        {"checked_at": None},
        {"incident": INCIDENT},
        {"watch": NOW},
        {"setting": World(THEIRS).setting},
        {"setting": None},
        {"outcome": Outcome.FAILED},
    ],
    ids=["a day ago", "never before", "an incident", "a break-glass", "another setting", "no setting", "a failure"],
)
def test_p6_a_sweep_reads_everything_where_anything_is_not_as_before(changes: dict[str, Any]) -> None:
    assert reads_everything(replace(AS_BEFORE, **changes))


@pytest.mark.parametrize("kind", [kind for kind in TriggerKind if kind is not TriggerKind.SWEEP])
def test_p13_whatever_else_starts_a_run_everything_is_read(kind: TriggerKind) -> None:
    assert reads_everything(AS_BEFORE, kind)


# --- what could not be read is not what was read ---------------------------------------------------------------------


class Failing(World):
    """A KMS that answers one read of one key with a code."""

    def __init__(self, read: str, code: str, of: str = OURS, configured: str | None = OURS) -> None:
        super().__init__(configured, closed=())
        self.failing, self.code, self.of = read, code, of

    def _fail(self, read: str, arn: str) -> None:
        if (read, arn) == (self.failing, self.of):
            raise AwsError(f"kms:{read}", self.code, "no")

    def describe(self, key: str) -> Key | None:
        arn = (self.alias or "") if key == ALIAS else key
        self._fail("describe", arn)
        return replace(HEALTHY, arn=arn, policy=None, rotation=None, tags=None)

    def policy(self, key_arn: str) -> str:
        self._fail("policy", key_arn)
        return super().policy(key_arn)

    def rotation(self, key_arn: str) -> tuple[bool, int | None]:
        self._fail("rotation", key_arn)
        return super().rotation(key_arn)

    def tags(self, key_arn: str) -> tuple[tuple[str, str], ...]:
        self._fail("tags", key_arn)
        return super().tags(key_arn)


@pytest.mark.parametrize("code", ["ThrottlingException", "KMSInternalException", "NoAnswer", "InvalidArnException"])
def test_p13_only_a_key_that_denies_the_guard_is_closed_to_it(code: str) -> None:
    """A throttled read must not lead to a mutation: X-Ray would be moved off a key that may be as the rule asks."""
    with pytest.raises(AwsError) as failed:
        observed(Failing("describe", code, of=THEIRS, configured=THEIRS))
    assert failed.value.code == code
    seen = observed(Failing("describe", "AccessDeniedException", of=THEIRS, configured=THEIRS))
    assert seen.closed == {THEIRS}


@pytest.mark.parametrize("read", ["describe", "policy", "rotation", "tags"])
@pytest.mark.parametrize("code", ["ThrottlingException", "KMSInternalException", "NoAnswer", "LimitExceeded"])
def test_p13_nothing_is_decided_on_a_key_one_of_whose_reads_failed(read: str, code: str) -> None:
    with pytest.raises(AwsError) as failed:
        observed(Failing(read, code))
    assert failed.value.code == code


def test_p13_tags_that_kms_denies_make_the_key_nobodys_to_change_and_say_why() -> None:
    key = observed(Failing("tags", "AccessDeniedException")).keys[OURS]
    assert key is not None
    assert (key.tags, key.tags_error, key.is_ours) == (None, "AccessDeniedException", False)


@pytest.mark.parametrize("read", ["policy", "rotation", "tags"])
def test_p2_a_key_that_kms_shows_to_some_reads_only_is_not_there_yet(read: str) -> None:
    assert observed(Failing(read, "NotFoundException")).keys[OURS] is None


@pytest.mark.parametrize("code", ["KMSInvalidStateException", "DisabledException", "UnsupportedOperationException"])
def test_a_key_that_cannot_rotate_tells_no_rotation_and_all_else(code: str) -> None:
    key = observed(Failing("rotation", code)).keys[OURS]
    assert key is not None
    assert (key.rotation, key.rotation_days, key.is_ours) == (None, None, True)


def test_a_policy_that_the_key_denies_to_the_guard_fails_the_observation() -> None:
    with pytest.raises(AwsError):
        observed(Failing("policy", "AccessDeniedException"))


def test_a_key_that_x_ray_names_by_its_id_is_known_by_its_arn() -> None:
    class Bare(World):
        def describe(self, key: str) -> Key | None:
            return super().describe(OURS if OURS.endswith(key) else key)

    seen = observed(Bare(OURS.rsplit("/", 1)[-1]))
    assert seen.setting.key_arn == OURS
    assert judge(TARGET, RULE, RECORDED, seen) == ()


def test_p6_every_alias_that_the_rule_names_is_read_the_managed_one_first_and_once() -> None:
    allowed = ("alias/other", ALIAS, "arn:aws:kms:*:*:key/*", "alias/third", "alias/other")
    assert replace(RULE, require=Require(allowed_keys=allowed)).aliases == (ALIAS, "alias/other", "alias/third")


def test_another_accounts_key_is_read_only_where_the_rule_lets_it_be_in_use() -> None:
    world = Failing("describe", "ThrottlingException", of=FOREIGN, configured=FOREIGN)
    assert observed(world).keys.get(FOREIGN) is None
    lenient = replace(RULE, require=Require(allowed_keys=(ALIAS, FOREIGN), same_account=False))
    with pytest.raises(AwsError):
        observed(world, rule=lenient)


@pytest.mark.parametrize("state", ["Disabled", "PendingDeletion"])
def test_p13_a_key_that_is_not_enabled_is_not_blamed_for_its_rotation(state: str) -> None:
    class Off(Failing):
        def describe(self, key: str) -> Key | None:
            found = super().describe(key)
            return replace(found, state=state) if found else None

        def rotation(self, key_arn: str) -> tuple[bool, int | None]:
            return False, None

    seen = observed(Off("nothing", ""))
    assert Violation.KEY_ROTATION_OFF not in judge(TARGET, RULE, RECORDED, seen)
    key = seen.keys[OURS]
    assert key is not None
    assert key.rotation is None
