"""What is read of a target is planned before it is read: as little as may be, and all that a decision rests on."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.domain.errors import AwsError
from chalicelib.domain.model import Key, Setting, TriggerKind
from chalicelib.domain.observation import CLOSED_KEY
from chalicelib.domain.policy import KeyKind, Require, Rule
from chalicelib.domain.reading import (
    Glance,
    KeyReads,
    ReadPlan,
    outlined,
    plan_reads,
    wants_more,
)
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import TargetState
from chalicelib.domain.waiting import DEEP_EVERY
from tests.unit.targets import (
    ALIAS,
    COMPLIANT,
    FOREIGN_ARN,
    GOOD,
    HOUR,
    KEY_ARN,
    NONE,
    NOW,
    OTHER,
    OTHER_ARN,
    RULE,
    SECOND,
    TARGET,
    UPDATING,
    a_key,
    an_incident,
    seen_as,
)

REFUSED = AwsError("kms:DescribeKey", "AccessDeniedException", "no")
FOREIGN = replace(GOOD, key_arn=FOREIGN_ARN)
ANY_ACCOUNT = replace(RULE, require=replace(RULE.require, same_account=False, allowed_keys=(ALIAS, FOREIGN_ARN)))
OTHER_ALLOWED = replace(RULE, require=replace(RULE.require, allowed_keys=(ALIAS, OTHER_ARN)))


def described(arn: str = KEY_ARN, **changes: Any) -> Key:
    """A key as DescribeKey shows it."""
    return a_key(arn, policy=None, rotation=None, rotation_days=None, tags=None, **changes)


def glance_of(setting: Setting = GOOD, *, managed: Key | AwsError | None = None, **others: Key | None) -> Glance:
    """The first round's answers; the managed alias points to no key unless the test says to which."""
    return Glance(setting, {ALIAS: managed, "alias/theirs": others.get("theirs")})


HEALTHY = glance_of(managed=described())


def planned(
    first: Glance = HEALTHY,
    state: TargetState = COMPLIANT,
    kind: TriggerKind = TriggerKind.SWEEP,
    rule: Rule = RULE,
    *,
    deep: bool | None = None,
) -> ReadPlan:
    return plan_reads(TARGET, rule, state, first, kind, NOW, deep=deep)


def reads_of(plan: ReadPlan, arn: str) -> KeyReads:
    (reads,) = [each for each in plan.keys if each.arn == arn]
    return reads


# --- deep or shallow -------------------------------------------------------------------------------------------------


def test_a_sweep_reads_a_target_that_is_as_before_no_deeper_than_the_first_round() -> None:
    assert planned() == ReadPlan((KeyReads(KEY_ARN, describe=False, details=False, may_refuse=False),), False, False)


@pytest.mark.parametrize("kind", [kind for kind in TriggerKind if kind is not TriggerKind.SWEEP])
def test_every_run_but_a_sweep_reads_policy_rotation_and_tags(kind: TriggerKind) -> None:
    plan = planned(kind=kind)
    assert plan.deep
    assert reads_of(plan, KEY_ARN).details


@pytest.mark.parametrize("outcome", [Outcome.COMPLIANT, Outcome.REMEDIATED])
def test_a_sweep_trusts_what_was_compliant_or_was_remediated(outcome: Outcome) -> None:
    assert not planned(state=replace(COMPLIANT, outcome=outcome)).deep


@pytest.mark.parametrize(
    "state",
    [
        replace(COMPLIANT, checked_at=None),
        replace(COMPLIANT, checked_at=NOW - DEEP_EVERY),
        replace(COMPLIANT, incident=an_incident()),
        replace(COMPLIANT, watch=NOW - HOUR),
        replace(COMPLIANT, setting=NONE),
        replace(COMPLIANT, setting=None),
        replace(COMPLIANT, outcome=Outcome.IGNORED, reason=Reason.REGION_DENIED),
        TargetState(COMPLIANT.target),
    ],
    ids=["never", "a day ago", "incident", "break-glass", "another setting", "no setting", "not judged", "never seen"],
)
def test_p6_a_sweep_reads_all_once_a_day_and_where_anything_moved(state: TargetState) -> None:
    plan = planned(state=replace(state, managed_key=KEY_ARN))
    assert plan.deep
    assert reads_of(plan, KEY_ARN).details


def test_a_sweep_a_second_before_the_day_is_over_does_not_read_all() -> None:
    assert not planned(state=replace(COMPLIANT, checked_at=NOW - DEEP_EVERY + SECOND)).deep


def test_a_sweep_takes_updating_for_no_other_setting() -> None:
    assert not planned(glance_of(UPDATING, managed=described())).deep


@pytest.mark.parametrize("deep", [True, False])
def test_the_depth_may_be_asked_for(deep: bool) -> None:
    for kind in (TriggerKind.SWEEP, TriggerKind.CHANGE):
        plan = planned(kind=kind, deep=deep)
        assert (plan.deep, reads_of(plan, KEY_ARN).details) == (deep, deep)


# --- which keys ------------------------------------------------------------------------------------------------------


def test_a_key_that_the_first_round_did_not_describe_is_described() -> None:
    first = glance_of(OTHER, managed=described())
    assert [(each.arn, each.describe) for each in planned(first).keys] == [(KEY_ARN, False), (OTHER_ARN, True)]


def test_p13_the_recorded_key_is_read_wherever_the_alias_points() -> None:
    moved = glance_of(NONE, managed=described(OTHER_ARN))
    assert planned(moved).keys == (KeyReads(KEY_ARN, describe=True, details=True, may_refuse=False),)


def test_without_a_recorded_key_the_key_behind_the_alias_is_read() -> None:
    unknown = replace(COMPLIANT, managed_key=None)
    assert planned(glance_of(NONE, managed=described(OTHER_ARN)), unknown).keys == (
        KeyReads(OTHER_ARN, describe=False, details=True, may_refuse=False),
    )


def test_p2_a_key_that_was_made_and_has_no_alias_yet_is_read() -> None:
    made = replace(COMPLIANT, managed_key=None, keys_made=(OTHER_ARN, KEY_ARN))
    assert [each.arn for each in planned(glance_of(NONE), made).keys] == [KEY_ARN]


def test_an_empty_account_has_no_key_to_read() -> None:
    assert planned(glance_of(NONE), TargetState(COMPLIANT.target)).keys == ()


def test_no_details_are_read_of_a_key_that_the_rule_rules_out() -> None:
    first = glance_of(OTHER, managed=described())
    assert reads_of(planned(first), OTHER_ARN).details is False
    assert reads_of(planned(first, rule=OTHER_ALLOWED), OTHER_ARN).details is True


def test_no_details_are_read_of_a_key_that_aws_manages() -> None:
    rule = replace(RULE, require=Require(key=KeyKind.ANY_KMS, allowed_keys=(ALIAS, "alias/theirs")))
    first = glance_of(OTHER, managed=described(), theirs=described(OTHER_ARN, manager="AWS"))
    assert reads_of(planned(first, rule=rule), OTHER_ARN).details is False
    customers = glance_of(OTHER, managed=described(), theirs=described(OTHER_ARN))
    assert reads_of(planned(customers, rule=rule), OTHER_ARN).details is True


# --- which refusals matter -------------------------------------------------------------------------------------------


def test_p13_a_key_that_the_rule_rules_out_may_refuse_to_be_described() -> None:
    first = glance_of(OTHER, managed=described())
    assert reads_of(planned(first), OTHER_ARN).may_refuse
    assert not reads_of(planned(first, rule=OTHER_ALLOWED), OTHER_ARN).may_refuse


def test_p4_the_managed_key_may_not_refuse_to_be_described() -> None:
    for first in (glance_of(NONE), glance_of(GOOD), glance_of(OTHER)):
        plan = planned(first, kind=TriggerKind.CHANGE)
        assert reads_of(plan, KEY_ARN) == KeyReads(KEY_ARN, describe=True, details=True, may_refuse=False)


def test_an_alias_whose_key_refuses_does_not_stop_the_guard_that_recorded_a_key() -> None:
    plan = planned(glance_of(GOOD, managed=REFUSED))
    assert reads_of(plan, KEY_ARN).describe


def test_p2_an_alias_whose_key_refuses_leaves_it_open_which_key_is_meant() -> None:
    with pytest.raises(AwsError) as raised:
        planned(glance_of(GOOD, managed=REFUSED), replace(COMPLIANT, managed_key=None))
    assert raised.value is REFUSED


# --- keys of other accounts ------------------------------------------------------------------------------------------


def test_a_foreign_key_is_not_read_where_the_rule_wants_the_targets_own() -> None:
    assert reads_of(planned(glance_of(FOREIGN, managed=described())), FOREIGN_ARN) == KeyReads(
        FOREIGN_ARN, describe=False, details=False, may_refuse=True
    )


def test_a_foreign_key_is_described_and_no_more_where_the_rule_allows_it() -> None:
    plan = planned(glance_of(FOREIGN, managed=described()), rule=ANY_ACCOUNT)
    assert plan.deep
    assert reads_of(plan, FOREIGN_ARN) == KeyReads(FOREIGN_ARN, describe=True, details=False, may_refuse=False)


def test_a_foreign_key_that_the_rule_does_not_name_may_refuse() -> None:
    rule = replace(RULE, require=replace(RULE.require, same_account=False))
    assert reads_of(planned(glance_of(FOREIGN, managed=described()), rule=rule), FOREIGN_ARN).may_refuse


# --- whether X-Ray is in use -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(TriggerKind))
def test_only_a_sweep_and_a_tick_ask_whether_xray_is_in_use(kind: TriggerKind) -> None:
    asks = planned(glance_of(NONE), TargetState(COMPLIANT.target), kind).use
    assert asks is (kind in (TriggerKind.SWEEP, TriggerKind.TICK))


def test_a_target_that_was_ever_encrypted_counts_as_in_use() -> None:
    unused = replace(COMPLIANT, setting=NONE, ever_used=False)
    assert planned(glance_of(NONE), unused).use
    assert not planned(glance_of(NONE), replace(unused, ever_used=True)).use
    assert not planned(glance_of(GOOD), unused).use


# --- what the first round shows, and what it is worth ----------------------------------------------------------------


def test_an_outline_knows_the_keys_behind_the_aliases() -> None:
    outline = outlined(glance_of(GOOD, managed=described(), theirs=described(OTHER_ARN)), NOW, deep=True)
    assert outline == seen_as(
        GOOD, described(), described(OTHER_ARN), aliases={ALIAS: KEY_ARN, "alias/theirs": OTHER_ARN}
    )


def test_an_outline_knows_that_an_alias_has_no_key_or_one_that_may_not_be_read() -> None:
    outline = outlined(glance_of(GOOD, managed=REFUSED), NOW, deep=False)
    assert (outline.keys, outline.aliases) == ({}, {ALIAS: CLOSED_KEY, "alias/theirs": None})


def test_a_shallow_observation_that_finds_something_is_not_enough() -> None:
    shallow = seen_as(GOOD, described(), deep=False)
    disabled = seen_as(GOOD, described(state="Disabled"), deep=False)
    assert not wants_more(TARGET, RULE, COMPLIANT, shallow)
    assert wants_more(TARGET, RULE, COMPLIANT, disabled)
    assert wants_more(TARGET, RULE, replace(COMPLIANT, managed_key=None), shallow), "a key to adopt"
