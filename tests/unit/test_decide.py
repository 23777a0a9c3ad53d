"""Judging and planning: each violation is named, each repair is the right next step, and nothing else is touched."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.domain.decide import Decision, decide
from chalicelib.domain.judge import judge
from chalicelib.domain.keypolicy.wanted import initial_policy, logs_statement, with_statements
from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import EncryptionStatus, EncryptionType, Key, Setting, Target, TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import KeyKind, ManagedKey, Mode, Require, Rule, SpansRule, When
from chalicelib.domain.reasons import Outcome, Problem, Violation
from chalicelib.domain.spans import IN_LOGS, TRACES, Link, Links, LogGroup, Spans
from chalicelib.domain.steps import Blocked, Step, StepName, next_step, plan
from chalicelib.domain.stored import Backoff, Intent, Pause, Suppression, TargetState
from tests.unit.runs import a_run, known_as

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TARGET = Target("111122223333", "eu-west-1")
ALIAS = "alias/xray-encryption"
OURS = "arn:aws:kms:eu-west-1:111122223333:key/11111111-1111-1111-1111-111111111111"
OTHER = "arn:aws:kms:eu-west-1:111122223333:key/22222222-2222-2222-2222-222222222222"
FOREIGN = "arn:aws:kms:eu-west-1:444455556666:key/33333333-3333-3333-3333-333333333333"
RULE = Rule(
    id="baseline",
    accounts=("*",),
    regions=("*",),
    mode=Mode.ENFORCE,
    when=When.IN_USE,
    require=Require(allowed_keys=(ALIAS, "alias/theirs"), spans=SpansRule.ENCRYPT, copies_to=("1111*",)),
    managed_key=ManagedKey(alias=ALIAS),
)
POLICY = initial_policy(RULE, TARGET, "aws")
ANYBODY = '{"Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*"}'
OPEN = POLICY.replace('"Statement": [', f'"Statement": [{ANYBODY},', 1)
NO_READERS = json.dumps({"Version": "2012-10-17", "Statement": json.loads(POLICY)["Statement"][:2]})
NONE = Setting(EncryptionType.NONE, None, EncryptionStatus.ACTIVE)


def key(arn: str = OURS, **changes: Any) -> Key:
    """A healthy key of the guard's own."""
    healthy = Key(
        arn,
        arn.split(":")[4],
        "eu-west-1",
        "Enabled",
        policy=POLICY,
        rotation=True,
        tags=(("xray-guard", "managed"),),
    )
    return replace(healthy, **changes)


def on(arn: str) -> Setting:
    return Setting(EncryptionType.KMS, arn, EncryptionStatus.ACTIVE)


def seen(setting: Setting = NONE, *keys: Key, alias: str | None = OURS, theirs: str | None = None) -> Observation:
    return Observation(NOW, setting, {each.arn: each for each in keys}, {ALIAS: alias, "alias/theirs": theirs})


def state(**changes: Any) -> TargetState:
    return replace(TargetState(str(TARGET), managed_key=OURS, keys_made=(OURS,)), **changes)


def nothing_made(**changes: Any) -> TargetState:
    """A target without a key of the guard's own."""
    return state(managed_key=None, keys_made=(), **changes)


def step(observation: Observation, of: TargetState | None = None, rule: Rule = RULE) -> Step | Blocked | None:
    return next_step(TARGET, rule, of or state(), observation, "aws")


def decided(observation: Observation, of: TargetState | None = None, rule: Rule = RULE, **held: Any) -> Decision:
    run = a_run(TARGET, rule, held.pop("trigger", TriggerKind.CHANGE), budget_left=held.pop("budget_left", True))
    run = replace(run, setup=replace(run.setup, observe_only=held.pop("observe_only", False)))
    suppression, paused = held.pop("suppression", None), held.pop("paused", None)
    assert not held
    known = known_as(of or state(), paused=paused)
    return decide(run, known, observation, suppression, NOW)


WITH_LOGS = with_statements(POLICY, (logs_statement(TARGET, "aws"),))
FORBIDS = replace(RULE, require=replace(RULE.require, spans=SpansRule.FORBID))
REPORTS = replace(RULE, require=replace(RULE.require, spans=SpansRule.REPORT, copies_to=None))


def in_logs(observation: Observation, group: LogGroup | None) -> Observation:
    """The observation, where X-Ray sends spans to CloudWatch Logs."""
    return replace(observation, spans=Spans(IN_LOGS, "ACTIVE", group))


def linked(account: str) -> Links:
    """A link that copies traces to the account."""
    return Links(NOW, (Link("arn:aws:oam:eu-west-1:111122223333:link/1", account, (TRACES,)),))


ASYMMETRIC = {"spec": "RSA_2048", "usage": "SIGN_VERIFY"}


@pytest.mark.parametrize(
    ("observation", "violations"),
    [
        (seen(on(OURS), key()), ()),
        (seen(NONE, key()), (Violation.NOT_KMS,)),
        (seen(on(OTHER), key(), key(OTHER, manager="AWS")), (Violation.AWS_MANAGED_KEY,)),
        (seen(on(OTHER), key(), key(OTHER)), (Violation.KEY_NOT_ALLOWED,)),
        (seen(on(OTHER), key(), key(OTHER, state="Disabled")), (Violation.KEY_NOT_ALLOWED, Violation.KEY_DISABLED)),
        (seen(on(FOREIGN), key()), (Violation.KEY_FOREIGN_ACCOUNT,)),
        (seen(on(OTHER), key()), (Violation.KEY_NOT_FOUND,)),
        (seen(on(OURS), key(state="Disabled")), (Violation.KEY_DISABLED,)),
        (seen(on(OURS), key(state="PendingDeletion")), (Violation.KEY_PENDING_DELETION,)),
        (seen(on(OURS), key(state="Unavailable")), (Violation.KEY_UNAVAILABLE,)),
        (seen(on(OURS), key(state="PendingImport")), (Violation.KEY_UNAVAILABLE,)),
        (seen(on(OURS), key(state="SomethingNew")), (Violation.KEY_UNAVAILABLE,)),
        (seen(on(OURS), key(**ASYMMETRIC)), (Violation.KEY_ASYMMETRIC,)),
        (seen(on(OURS), key(rotation=False)), (Violation.KEY_ROTATION_OFF,)),
        (seen(on(OURS), key(policy='{"Statement": []}')), (Violation.KEY_POLICY_INCOMPLETE,)),
        (seen(on(OURS), key(policy=OPEN)), (Violation.KEY_POLICY_OPEN,)),
        (seen(on(OURS), key(), alias=OTHER), (Violation.ALIAS_MOVED,)),
        (seen(on(OURS), key(), alias=None), (Violation.ALIAS_MOVED,)),
        (seen(on(OTHER), key(), key(OTHER), theirs=OTHER), ()),
        (seen(on(OURS), key(rotation_days=365)), ()),
        (seen(on(OURS), key(rotation_days=366)), (Violation.KEY_ROTATION_SLOW,)),
        (in_logs(seen(on(OURS), key()), None), ()),
        (in_logs(seen(on(OURS), key(policy=WITH_LOGS)), LogGroup(OURS)), ()),
        (in_logs(seen(on(OURS), key()), LogGroup()), (Violation.SPANS_NOT_KMS,)),
        (in_logs(seen(on(OURS), key()), LogGroup(FOREIGN)), (Violation.SPANS_KEY_NOT_ALLOWED,)),
        (in_logs(seen(on(OURS), key()), LogGroup(OTHER)), (Violation.SPANS_KEY_NOT_ALLOWED,)),
        (in_logs(seen(on(OURS), key()), LogGroup(OURS)), (Violation.SPANS_KEY_UNUSABLE,)),
        (in_logs(seen(on(OURS), key(), key(OTHER), theirs=OTHER), LogGroup(OTHER)), ()),
        (
            in_logs(seen(on(OURS), key(), key(OTHER, state="Disabled"), theirs=OTHER), LogGroup(OTHER)),
            (Violation.SPANS_KEY_UNUSABLE,),
        ),
        (in_logs(seen(on(OURS), key(), theirs=OTHER), LogGroup(OTHER)), (Violation.SPANS_KEY_UNUSABLE,)),
        (replace(seen(on(OURS), key()), links=linked("111122224444")), ()),
        (replace(seen(on(OURS), key()), links=linked("444455556666")), (Violation.TRACES_COPIED,)),
    ],
)
def test_every_violation_is_named(observation: Observation, violations: tuple[Violation, ...]) -> None:
    assert judge(TARGET, RULE, state(), observation) == violations


@pytest.mark.parametrize(
    ("observation", "violations"),
    [
        (seen(on(OURS), key()), ()),
        (in_logs(seen(on(OURS), key()), None), (Violation.SPANS_FORBIDDEN,)),
        (in_logs(seen(on(OURS), key()), LogGroup()), (Violation.SPANS_FORBIDDEN,)),
        (in_logs(seen(on(OURS), key()), LogGroup(OURS)), (Violation.SPANS_FORBIDDEN,)),
    ],
)
def test_a_rule_that_forbids_spans_in_logs_names_only_that_and_one_that_reports_names_nothing(
    observation: Observation, violations: tuple[Violation, ...]
) -> None:
    assert judge(TARGET, FORBIDS, state(), observation) == violations
    assert judge(TARGET, REPORTS, state(), replace(observation, links=linked("444455556666"))) == ()


def test_p4_what_could_not_be_read_of_spans_stays_as_it_was_and_accuses_nobody() -> None:
    unread = replace(seen(on(OURS), key()), spans=Spans(IN_LOGS, problem=Problem("ThrottlingException", "slow")))
    assert judge(TARGET, RULE, state(), unread) == ()
    for violation in (Violation.SPANS_NOT_KMS, Violation.SPANS_KEY_UNUSABLE, Violation.SPANS_KEY_NOT_ALLOWED):
        known = state(violations=(Violation.NOT_KMS, violation))
        assert judge(TARGET, RULE, known, unread) == (violation,)
        blocked = step(unread, known)
        assert isinstance(blocked, Blocked)
        assert (blocked.problem.code, blocked.lane) == ("ThrottlingException", Lane.SPANS)
    forbidden = replace(unread, spans=Spans(problem=Problem("AccessDenied", "no")))
    known = state(violations=(Violation.SPANS_FORBIDDEN,))
    assert judge(TARGET, FORBIDS, known, forbidden) == (Violation.SPANS_FORBIDDEN,)
    assert decided(forbidden, known, FORBIDS).outcome is Outcome.OBSERVED
    assert judge(TARGET, FORBIDS, state(), forbidden) == ()


def test_links_that_were_not_read_this_time_are_as_they_were_last_read() -> None:
    known = state(links=linked("444455556666"))
    assert judge(TARGET, RULE, known, seen(on(OURS), key())) == (Violation.TRACES_COPIED,)
    unread = replace(seen(on(OURS), key()), links=Links(NOW, problem=Problem("AccessDenied", "no")))
    assert judge(TARGET, RULE, known, unread) == (Violation.TRACES_COPIED,)
    assert judge(TARGET, RULE, known, replace(unread, links=Links(NOW))) == ()


def test_moving_the_alias_does_not_make_another_key_allowed() -> None:
    found = judge(TARGET, RULE, state(), seen(on(OTHER), key(), key(OTHER), alias=OTHER))
    assert found == (Violation.KEY_NOT_ALLOWED, Violation.ALIAS_MOVED)


def test_the_aws_managed_key_is_enough_where_any_kms_key_is() -> None:
    rule = replace(RULE, require=Require(key=KeyKind.ANY_KMS))
    assert judge(TARGET, rule, state(managed_key=None), seen(on(OTHER), key(OTHER, manager="AWS"), alias=None)) == ()


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        (seen(NONE, key()), StepName.PUT_SETTING),
        (seen(NONE, key(state="Disabled")), StepName.ENABLE_KEY),
        (seen(NONE, key(state="PendingDeletion")), StepName.CANCEL_DELETION),
        (seen(NONE, key(policy='{"Statement": []}')), StepName.PUT_KEY_POLICY),
        (seen(NONE, key(rotation=False)), StepName.PUT_SETTING),
        (seen(NONE, key(policy=NO_READERS)), StepName.PUT_SETTING),
        (seen(on(OURS), key(rotation=False)), StepName.ENABLE_ROTATION),
        (seen(on(OURS), key(policy=NO_READERS)), StepName.PUT_KEY_POLICY),
        (seen(NONE, key(), alias=None), StepName.PUT_SETTING),
        (seen(NONE, key(), alias=OTHER), StepName.PUT_SETTING),
        (seen(on(OURS), key(), alias=None), StepName.CREATE_ALIAS),
        (seen(on(OURS), key(), alias=OTHER), StepName.UPDATE_ALIAS),
        (seen(on(OTHER), key(), key(OTHER, state="Disabled"), theirs=OTHER), StepName.PUT_SETTING),
        (seen(on(OURS), key(rotation_days=2560)), StepName.ENABLE_ROTATION),
        (in_logs(seen(NONE, key(policy=WITH_LOGS)), LogGroup()), StepName.PUT_SETTING),
        (in_logs(seen(on(OURS), key()), LogGroup()), StepName.PUT_KEY_POLICY),
        (in_logs(seen(on(OURS), key(policy=WITH_LOGS)), LogGroup()), StepName.ASSOCIATE_KEY),
        (in_logs(seen(on(OURS), key(policy=WITH_LOGS)), LogGroup(FOREIGN)), StepName.ASSOCIATE_KEY),
        (in_logs(seen(on(OURS), key(policy=WITH_LOGS, state="Disabled")), LogGroup(OURS)), StepName.ENABLE_KEY),
        (seen(on(OTHER), key(), key(OTHER, policy='{"Statement": []}'), theirs=OTHER), StepName.PUT_SETTING),
    ],
)
def test_the_next_step_is_the_one_that_is_safe_now(observation: Observation, expected: StepName) -> None:
    found = step(observation)
    assert isinstance(found, Step)
    assert found.name is expected
    assert found.key_arn == OURS


def test_with_no_key_and_no_alias_a_key_is_made_and_x_ray_moves_before_any_upkeep() -> None:
    steps, blocked = plan(TARGET, RULE, nothing_made(), seen(NONE, alias=None), "aws")
    names = [each.name for each in steps]
    assert names == [StepName.CREATE_KEY, StepName.PUT_SETTING, StepName.ENABLE_ROTATION, StepName.CREATE_ALIAS]
    assert [each.lane for each in steps] == [Lane.SETTING, Lane.SETTING, Lane.UPKEEP, Lane.UPKEEP]
    assert blocked is None


@pytest.mark.parametrize("alias", [None, OTHER])
@pytest.mark.parametrize("tags", [(), (("xray-guard", "managed"),)])
def test_nobody_holds_x_ray_up_by_moving_the_alias_of_a_recorded_key(
    alias: str | None, tags: tuple[tuple[str, str], ...]
) -> None:
    steps, blocked = plan(TARGET, RULE, state(), seen(NONE, key(tags=tags), alias=alias), "aws")
    assert steps[0].name is StepName.PUT_SETTING
    assert len(steps) == 1 + bool(tags)
    assert (blocked is None) == bool(tags)
    if blocked:
        assert blocked.problem.code == "KEY_NOT_TAGGED"


def test_a_key_pending_deletion_is_brought_back_before_x_ray_moves_to_it() -> None:
    steps, _ = plan(TARGET, RULE, state(), seen(NONE, key(state="PendingDeletion")), "aws")
    assert [each.name for each in steps] == [StepName.CANCEL_DELETION, StepName.ENABLE_KEY, StepName.PUT_SETTING]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"state": "Disabled"}, "KEY_NOT_OURS"),
        ({"state": "PendingDeletion"}, "KEY_NOT_OURS"),
        ({"policy": '{"Statement": []}'}, "KEY_NOT_OURS"),
        ({"policy": OPEN}, "KEY_POLICY_OPEN"),
        (ASYMMETRIC, "KEY_BEYOND_REPAIR"),
        ({"state": "Unavailable"}, "KEY_UNAVAILABLE"),
        ({"policy": "not a policy"}, "KEY_POLICY_UNREADABLE"),
    ],
)
def test_a_key_that_is_not_handed_over_is_never_changed_nor_used_while_it_is_unfit(
    changes: dict[str, Any], code: str
) -> None:
    """P13: the guard's tag on it proves nothing, for anybody may have set it."""
    found = step(seen(NONE, key(**changes)), nothing_made())
    assert isinstance(found, Blocked)
    assert found.problem.code == code


def test_a_healthy_untagged_key_behind_the_alias_is_adopted_as_it_is() -> None:
    found = step(seen(NONE, key(tags=())), nothing_made())
    assert found == Step(StepName.PUT_SETTING, OURS, "NONE", OURS, Lane.SETTING)


def test_x_ray_moves_to_a_usable_key_behind_the_alias_before_its_owner_must_turn_rotation_on() -> None:
    steps, blocked = plan(TARGET, RULE, nothing_made(), seen(NONE, key(tags=(), rotation=False)), "aws")
    assert [each.name for each in steps] == [StepName.PUT_SETTING]
    assert blocked is not None
    assert (blocked.problem.code, blocked.lane) == ("KEY_NOT_OURS", Lane.UPKEEP)


def test_a_foreign_deny_keeps_x_ray_off_the_key() -> None:
    deny = '{"Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*"}'
    text = POLICY.replace('"Statement": [', f'"Statement": [{deny},', 1)
    found = step(seen(NONE, key(policy=text)))
    assert isinstance(found, Blocked)
    assert found.problem.code == "KEY_POLICY_DENIES"


def test_an_allowed_key_of_others_that_only_does_not_rotate_is_named_and_left() -> None:
    decision = decided(seen(on(OTHER), key(), key(OTHER, rotation=False), theirs=OTHER))
    assert (decision.outcome, decision.reason) == (Outcome.OBSERVED, "KEY_NOT_OURS")
    assert decision.violations == (Violation.KEY_ROTATION_OFF,)


def test_a_recorded_key_that_is_gone_is_never_replaced_without_an_operators_word() -> None:
    decision = decided(seen(NONE, alias=None))
    assert (decision.outcome, decision.reason) == (Outcome.FAILED, "KEY_BEYOND_REPAIR")
    assert decision.steps == ()


def test_a_key_just_made_that_kms_does_not_show_is_waited_for() -> None:
    made = state(managed_key=None, keys_made=(OURS,), recheck_at=NOW + timedelta(minutes=4))
    decision = decided(seen(NONE, alias=None), made)
    assert (decision.outcome, decision.reason) == (Outcome.DEFERRED, "SETTLING")
    assert decision.blocked is not None
    assert decision.blocked.code == "KEY_NOT_YET_SEEN"


@pytest.mark.parametrize(("seconds", "outcome"), [(1, Outcome.DEFERRED), (0, Outcome.REMEDIATING)])
def test_while_a_key_may_have_been_made_no_other_one_is(seconds: int, outcome: Outcome) -> None:
    """P2: the answer to CreateKey was lost, and not finding the key proves nothing before the intent is due."""
    intended = nothing_made(intent=Intent("nonce", NOW + timedelta(seconds=seconds)))
    decision = decided(seen(NONE, alias=None), intended)
    assert decision.outcome is outcome
    assert (decision.reason == "SETTLING") is (outcome is Outcome.DEFERRED)


def test_a_retired_key_is_given_up_and_its_alias_taken_over() -> None:
    replaced = state(managed_key=None, keys_made=(OURS,), keys_retired=(OURS,))
    steps, _ = plan(TARGET, RULE, replaced, seen(on(OURS), key(state="Unavailable")), "aws")
    names = [each.name for each in steps]
    assert names == [StepName.CREATE_KEY, StepName.PUT_SETTING, StepName.ENABLE_ROTATION, StepName.UPDATE_ALIAS]


HOLDS: list[tuple[dict[str, Any], Outcome, str]] = [
    ({"observe_only": True}, Outcome.OBSERVED, "RIGHTS_OBSERVE"),
    ({"suppression": Suppression(OURS, "v", "r", NOW, None, None)}, Outcome.SUPPRESSED, "BREAK_GLASS"),
    ({"paused": Pause(NOW, "me", "because")}, Outcome.DEFERRED, "PAUSED"),
    ({"budget_left": False}, Outcome.DEFERRED, "BLAST_RADIUS"),
]


@pytest.mark.parametrize(("held", "outcome", "reason"), HOLDS)
def test_what_holds_a_remediation_back_is_named(held: dict[str, Any], outcome: Outcome, reason: str) -> None:
    decision = decided(seen(NONE, key()), **held)
    assert (decision.outcome, decision.reason, decision.steps) == (outcome, reason, ())


@pytest.mark.parametrize(("held", "outcome", "reason"), HOLDS)
def test_what_holds_back_says_nothing_of_a_compliant_target(
    held: dict[str, Any], outcome: Outcome, reason: str
) -> None:
    assert decided(seen(on(OURS), key()), **held) == Decision(Outcome.COMPLIANT)


def test_a_fight_is_held_back_until_its_pause_is_over() -> None:
    fought = state(backoffs={Lane.SETTING: Backoff(5, NOW, NOW + timedelta(minutes=1))})
    assert decided(seen(NONE, key()), fought).reason == "BACKOFF"
    rested = state(backoffs={Lane.SETTING: Backoff(5, NOW, NOW)})
    assert decided(seen(NONE, key()), rested).outcome is Outcome.REMEDIATING


def test_an_observing_rule_says_so_and_plans_nothing() -> None:
    decision = decided(seen(NONE, key()), rule=replace(RULE, mode=Mode.OBSERVE))
    assert (decision.outcome, decision.violations, decision.steps) == (Outcome.OBSERVED, (Violation.NOT_KMS,), ())


@pytest.mark.parametrize("observation", [seen(NONE, alias=None), seen(on(OURS), key(state="Unavailable"))])
def test_p13_a_guard_whose_role_only_reads_observes_what_it_would_remediate_and_what_it_could_not(
    observation: Observation,
) -> None:
    decision = decided(observation, observe_only=True)
    assert (decision.outcome, decision.reason, decision.steps) == (Outcome.OBSERVED, "RIGHTS_OBSERVE", ())
    by_rule = decided(observation, rule=replace(RULE, mode=Mode.OBSERVE), observe_only=True)
    assert (by_rule.outcome, by_rule.reason) == (Outcome.OBSERVED, "RULE_OBSERVES")


IDLE = replace(seen(NONE, alias=None), in_use=False)


@pytest.mark.parametrize(
    ("observation", "of", "trigger", "rule", "outcome"),
    [
        (IDLE, {}, TriggerKind.SWEEP, RULE, Outcome.IGNORED),
        (IDLE, {}, TriggerKind.CHANGE, RULE, Outcome.REMEDIATING),
        (IDLE, {}, TriggerKind.OPERATOR, RULE, Outcome.REMEDIATING),
        (IDLE, {"ever_used": True}, TriggerKind.SWEEP, RULE, Outcome.REMEDIATING),
        (replace(IDLE, in_use=True), {}, TriggerKind.SWEEP, RULE, Outcome.REMEDIATING),
        (replace(IDLE, in_use=None), {}, TriggerKind.SWEEP, RULE, Outcome.REMEDIATING),
        (IDLE, {}, TriggerKind.SWEEP, replace(RULE, when=When.ALWAYS), Outcome.REMEDIATING),
    ],
)
def test_a_sweep_leaves_alone_only_what_was_never_encrypted_and_has_no_traces(
    observation: Observation, of: dict[str, Any], trigger: TriggerKind, rule: Rule, outcome: Outcome
) -> None:
    assert decided(observation, nothing_made(**of), rule, trigger=trigger).outcome is outcome


def test_a_rule_may_ask_for_the_key_before_there_is_any_drift() -> None:
    ensured = replace(RULE, require=Require(key=KeyKind.ANY_KMS), managed_key=replace(RULE.managed_key, ensure=True))
    observation = seen(on(OTHER), key(OTHER, manager="AWS"), alias=None)
    steps, blocked = plan(TARGET, ensured, nothing_made(), observation, "aws")
    assert [each.name for each in steps] == [StepName.CREATE_KEY, StepName.ENABLE_ROTATION, StepName.CREATE_ALIAS]
    assert blocked is None
