"""Plan the mutations that make a target compliant, one step at a time.

`next_step` returns the next mutation, so that the loop can observe between mutations. `plan` chains the steps by their
expected effects, which makes a dry run free.

The steps are ordered by safety: the key is made usable first, and only then is X-Ray set to it, because X-Ray stops
storing traces when it cannot use its key
(https://docs.aws.amazon.com/xray/latest/devguide/xray-console-encryption.html). A new key gets its alias before that,
if the alias is free. An alias that points elsewhere is moved last: KMS may take minutes to allow that, and nobody
should be able to delay X-Ray's change by moving the alias.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain.judge import judge, judge_setting, policy_lets_xray
from chalicelib.domain.keychoice import managed_key
from chalicelib.domain.keypolicy.document import UnreadablePolicy
from chalicelib.domain.keypolicy.judge import judge_policy
from chalicelib.domain.keypolicy.openness import open_statements
from chalicelib.domain.keypolicy.wanted import PolicyTooLong, initial_policy, merge
from chalicelib.domain.model import (
    GUARD_TAG_KEY,
    GUARD_TAG_VALUE,
    EncryptionStatus,
    EncryptionType,
    Key,
    Setting,
    Target,
    arn_part,
)
from chalicelib.domain.observation import Observation
from chalicelib.domain.ownership import is_own, why_not_adopted, why_not_changed, why_unfit
from chalicelib.domain.policy import Rule
from chalicelib.domain.reasons import Problem, Reason, Violation
from chalicelib.domain.stored import TargetState

MOST_STEPS = 12
"""More mutations than any repair needs; a longer plan is a bug and stops."""

NEW_KEY_ID = "to-be-created"


class StepName(StrEnum):
    """The guard's mutations, by their AWS API names."""

    CREATE_KEY = "CreateKey"
    CANCEL_DELETION = "CancelKeyDeletion"
    ENABLE_KEY = "EnableKey"
    PUT_KEY_POLICY = "PutKeyPolicy"
    ENABLE_ROTATION = "EnableKeyRotation"
    CREATE_ALIAS = "CreateAlias"
    UPDATE_ALIAS = "UpdateAlias"
    PUT_SETTING = "PutEncryptionConfig"


class Step(Struct, frozen=True):
    """One mutation to send. For a key policy and an alias, `before` and `after` are the whole values."""

    name: StepName
    key_arn: str | None = None
    before: str | None = None
    after: str | None = None


class Blocked(Struct, frozen=True):
    """Why there is no further step.

    `left`: X-Ray can use its key and the guard may not change it, so the guard only records it.
    """

    problem: Problem
    left: bool = False


def next_step(
    target: Target, rule: Rule, state: TargetState, seen: Observation, partition: str
) -> Step | Blocked | None:
    """Return the next mutation, or why there is none; None if the target is compliant."""
    violations = judge(target, rule, state, seen)
    if not violations:
        return None
    arn = managed_key(state, seen, rule)
    setting_is_wrong = bool(judge_setting(target, rule, state, seen))
    on_managed_key = arn is not None and seen.setting.key_arn == arn
    if setting_is_wrong and not on_managed_key and _works_but_is_not_ours(target, rule, state, seen):
        other = _alias_step(rule, seen, arn) if Violation.ALIAS_MOVED in violations else None
        return other or _left_alone(state, seen, violations)
    if arn is None:
        text = initial_policy(rule, target, partition)
        return Step(StepName.CREATE_KEY, after=text)
    key = seen.keys.get(arn)
    if key is None:
        return _missing(arn, state)
    if arn != state.managed_key and not is_own(arn, state):
        unwanted = why_not_adopted(key, target)
        if unwanted:
            return Blocked(unwanted)
    if setting_is_wrong or rule.managed_key.ensure:
        repair = _repair_step(key, state, rule, target)
        if repair:
            return repair
    alias_step = _alias_step(rule, seen, arn)
    moves = setting_is_wrong and not on_managed_key
    # A new key gets the alias first, if that is free.
    comes_first = alias_step is not None and alias_step.name is StepName.CREATE_ALIAS and state.managed_key != arn
    if alias_step and (comes_first or not moves):
        return _if_ours(key, state, alias_step, f"point {rule.managed_key.alias} at it")
    if moves:
        unproved = why_not_proved(key, rule, target)
        if unproved:
            return Blocked(unproved)
        return Step(StepName.PUT_SETTING, key_arn=arn, before=seen.setting.key_arn or seen.setting.type, after=arn)
    return _left_open(key, target) if Violation.KEY_POLICY_OPEN in violations else None


def _works_but_is_not_ours(target: Target, rule: Rule, state: TargetState, seen: Observation) -> bool:
    """Whether X-Ray uses somebody else's allowed key whose only violation is that it does not rotate."""
    return judge_setting(target, rule, state, seen) == [Violation.KEY_ROTATION_OFF]


def _left_alone(state: TargetState, seen: Observation, violations: tuple[Violation, ...]) -> Blocked:
    return Blocked(
        Problem(
            Reason.KEY_NOT_OURS,
            f"{seen.setting.key_arn} is allowed and works; its owner must fix {', '.join(violations)}: "
            f"turn rotation on, or hand it over with `xray-guard key adopt {state.target} {seen.setting.key_arn}`",
        ),
        left=True,
    )


def _left_open(key: Key, target: Target) -> Blocked:
    opens = "; ".join(open_statements(key.policy or "", target))
    message = f"the policy of {key.arn} lets in others: {opens}. Remove or narrow the statement; the guard never does"
    return Blocked(Problem(Reason.KEY_POLICY_OPEN, message), left=True)


def _missing(arn: str, state: TargetState) -> Blocked:
    if arn in state.keys_made and state.recheck_at is not None:
        certain = f"{state.recheck_at:%H:%M:%SZ}"
        message = f"KMS does not show {arn} yet, which the guard created; after {certain} it counts as missing"
        return Blocked(Problem(Reason.KEY_NOT_YET_SEEN, message))
    return Blocked(
        Problem(
            Reason.KEY_BEYOND_REPAIR,
            f"the managed key {arn} no longer exists: make sure of it, then run `xray-guard key replace`",
        )
    )


def _repair_step(key: Key, state: TargetState, rule: Rule, target: Target) -> Step | Blocked | None:
    foreign = why_unfit(key, target)
    if foreign:
        return Blocked(foreign)
    if key.state in ("PendingDeletion", "PendingReplicaDeletion"):
        return _if_ours(
            key, state, Step(StepName.CANCEL_DELETION, key.arn, key.state, "Disabled"), "cancel its deletion"
        )
    if key.state == "Disabled":
        return _if_ours(key, state, Step(StepName.ENABLE_KEY, key.arn, key.state, "Enabled"), "enable it")
    if key.state != "Enabled":
        return Blocked(Problem(Reason.KEY_UNAVAILABLE, f"{key.arn} is {key.state}, which only its owner can change"))
    verdict = judge_policy(key.policy or "", rule, target, arn_part(key.arn, 1))
    if verdict.problem:
        return Blocked(Problem(Reason.KEY_POLICY_UNREADABLE, f"the policy of {key.arn}: {verdict.problem}"))
    if verdict.foreign_denies:
        return Blocked(
            Problem(
                Reason.KEY_POLICY_DENIES,
                f"the policy of {key.arn} may deny X-Ray its use: {'; '.join(verdict.foreign_denies)}. "
                "Remove or narrow the statement",
            )
        )
    if verdict.missing:
        try:
            merged = merge(key.policy or "", rule, target, arn_part(key.arn, 1))
        except (PolicyTooLong, UnreadablePolicy) as error:
            return Blocked(Problem(Reason.KEY_POLICY_TOO_LONG, f"the policy of {key.arn} cannot be completed: {error}"))
        step = Step(StepName.PUT_KEY_POLICY, key.arn, key.policy, merged)
        return _if_ours(key, state, step, f"add the statements {', '.join(verdict.missing)} to its policy")
    if rule.require.rotation and key.rotation is False:
        if key.origin != "AWS_KMS":
            return Blocked(
                Problem(Reason.KEY_NOT_ROTATABLE, f"{key.arn} has origin {key.origin}, which KMS cannot rotate")
            )
        step = Step(StepName.ENABLE_ROTATION, key.arn, "off", f"{rule.managed_key.rotation_days} days")
        return _if_ours(key, state, step, "turn its rotation on")
    return None


def _if_ours(key: Key, state: TargetState, step: Step, remedy: str) -> Step | Blocked:
    problem = why_not_changed(key, state, remedy)
    return Blocked(problem) if problem else step


def why_not_proved(key: Key, rule: Rule, target: Target) -> Problem | None:
    """Return why X-Ray must not be set to the key, by KMS's last responses; None if the key is proved usable (P13)."""
    problem = why_unfit(key, target)
    if problem:
        return problem
    if key.state != "Enabled":
        return Problem(Reason.KEY_NOT_PROVED, f"KMS last reported {key.arn} as {key.state}")
    if key.policy is None or not policy_lets_xray(key, rule, target, ours=True):
        return Problem(
            Reason.KEY_NOT_PROVED, f"the policy of {key.arn}, as KMS last returned it, does not let X-Ray use the key"
        )
    return None


def _alias_step(rule: Rule, seen: Observation, arn: str | None) -> Step | None:
    alias = rule.managed_key.alias
    if arn is None or alias not in seen.aliases:
        return None
    pointed = seen.aliases[alias]
    if pointed == arn:
        return None
    if pointed is None:
        return Step(StepName.CREATE_ALIAS, arn, None, alias)
    return Step(StepName.UPDATE_ALIAS, arn, pointed, alias)


def expected(
    step: Step, target: Target, rule: Rule, state: TargetState, seen: Observation, partition: str
) -> tuple[TargetState, Observation]:
    """Return state and observation as they are after the step took effect."""
    keys = dict(seen.keys)
    aliases = dict(seen.aliases)
    arn = step.key_arn or f"arn:{partition}:kms:{target.region}:{target.account}:key/{NEW_KEY_ID}"
    key = keys.get(arn)
    match step.name:
        case StepName.CREATE_KEY:
            tags = ((GUARD_TAG_KEY, GUARD_TAG_VALUE),)
            keys[arn] = Key(arn, target.account, target.region, "Enabled", policy=step.after, rotation=False, tags=tags)
            state = replace(state, keys_made=(*state.keys_made, arn))
        case StepName.CREATE_ALIAS | StepName.UPDATE_ALIAS:
            aliases[step.after or ""] = arn
        case StepName.PUT_SETTING:
            on_it = Setting(EncryptionType.KMS, arn, EncryptionStatus.UPDATING)
            return replace(state, managed_key=arn), replace(seen, setting=on_it)
        case _ if key is None:
            raise AssertionError(f"{step.name} of a key that was not observed")
        case StepName.CANCEL_DELETION:
            keys[arn] = replace(key, state="Disabled")
        case StepName.ENABLE_KEY:
            # What KMS does not return for a key that is not enabled is assumed to be as it was before.
            keys[arn] = replace(key, state="Enabled")
        case StepName.PUT_KEY_POLICY:
            keys[arn] = replace(key, policy=step.after)
        case StepName.ENABLE_ROTATION:
            keys[arn] = replace(key, rotation=True, rotation_days=rule.managed_key.rotation_days)
    return state, replace(seen, keys=keys, aliases=aliases)


def plan(
    target: Target, rule: Rule, state: TargetState, seen: Observation, partition: str
) -> tuple[tuple[Step, ...], Blocked | None]:
    """Return the foreseeable steps to a compliant target, and what blocks further steps, if anything."""
    steps: list[Step] = []
    while len(steps) < MOST_STEPS:
        step = next_step(target, rule, state, seen, partition)
        if not isinstance(step, Step):
            return tuple(steps), step
        steps.append(step)
        state, seen = expected(step, target, rule, state, seen, partition)
    raise AssertionError(f"a plan of more than {MOST_STEPS} steps: {[step.name for step in steps]}")
