"""What a rule says of an observation, and what to do about it: pure, and the same for every trigger.

`judge` names the violations. `next_step` gives the one mutation that comes next, so that the loop can observe between
mutations; `plan` strings the steps together on the effects they are expected to have, which makes a dry run free.
`decide` weighs all that may hold a remediation back and answers with a decision.

The order of the steps is the order of safety: the key is made usable first, and only then does X-Ray move to it,
because X-Ray stops storing traces when it cannot use its key
(https://docs.aws.amazon.com/xray/latest/devguide/xray-console-encryption.html). A new key gets its alias before that,
so that of two workers' keys the alias names one. The alias of a recorded key only points, and comes last: KMS may take
minutes to let it be moved back, and nobody shall hold X-Ray up by moving it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum

from msgspec import Struct, field
from msgspec.structs import replace

from chalicelib.domain import keypolicy
from chalicelib.domain.model import (
    GUARD_TAG_KEY,
    GUARD_TAG_VALUE,
    EncryptionStatus,
    EncryptionType,
    Key,
    Outcome,
    Pause,
    Problem,
    Setting,
    Suppression,
    Target,
    TargetState,
    TriggerKind,
    Violation,
)
from chalicelib.domain.policy import KeyKind, Mode, Rule, When, arn_matches

MOST_STEPS = 12
"""More mutations than any repair needs; a plan that grows past this is a mistake and stops."""

NEW_KEY_ID = "to-be-created"

SETTLING = "SETTLING"
"""The reason of DEFERRED where nothing is wrong but time: AWS has not finished, or shows its past."""

SETTLING_CODES = frozenset(
    {
        "ALIAS_TAKEN",
        "KEY_CREATION_UNCERTAIN",
        "KEY_NOT_YET_SEEN",
        "KEY_REFUSED",
        "NOT_YET_TAKEN",
        "XRAY_UPDATING",
    }
)
"""Problems that pass without anybody's help, or that need only another look. No backoff holds that look back."""

_STATE_VIOLATIONS = {
    "Disabled": Violation.KEY_DISABLED,
    "PendingDeletion": Violation.KEY_PENDING_DELETION,
    "PendingReplicaDeletion": Violation.KEY_PENDING_DELETION,
    "PendingImport": Violation.KEY_UNAVAILABLE,
    "Unavailable": Violation.KEY_UNAVAILABLE,
    "Creating": Violation.KEY_UNAVAILABLE,
    "Updating": Violation.KEY_UNAVAILABLE,
}


OF_THE_KEY = frozenset(
    {
        Violation.KEY_DISABLED,
        Violation.KEY_PENDING_DELETION,
        Violation.KEY_UNAVAILABLE,
        Violation.KEY_NOT_FOUND,
        Violation.KEY_ROTATION_OFF,
        Violation.KEY_POLICY_INCOMPLETE,
        Violation.ALIAS_MOVED,
    }
)
"""What a change to a key can have caused; of the setting it says nothing."""


CLOSED_KEY = "a key that the guard may not read"
"""Stands for the ARN of a key behind an alias where the key's policy does not even let the guard see which it is."""


class Observation(Struct, frozen=True):
    """Everything read about a target at one moment.

    `keys` maps a key's ARN to what KMS told of it, None where KMS says there is no such key. `aliases` maps an alias to
    the ARN of its key, None where there is no such alias. `closed` are keys that are ruled out by name and whose policy
    keeps the guard from reading more. `in_use` is None where X-Ray's service graph was not asked, or may not be read:
    `use_problem` then says why. `deep` tells that policy, rotation and tags were read.
    """

    at: datetime
    setting: Setting
    keys: Mapping[str, Key | None] = field(default_factory=dict)
    aliases: Mapping[str, str | None] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()
    in_use: bool | None = None
    use_problem: Problem | None = None
    deep: bool = True


class StepName(StrEnum):
    """The mutations the guard knows, by AWS's names for them."""

    CREATE_KEY = "CreateKey"
    CANCEL_DELETION = "CancelKeyDeletion"
    ENABLE_KEY = "EnableKey"
    PUT_KEY_POLICY = "PutKeyPolicy"
    ENABLE_ROTATION = "EnableKeyRotation"
    CREATE_ALIAS = "CreateAlias"
    UPDATE_ALIAS = "UpdateAlias"
    PUT_SETTING = "PutEncryptionConfig"


class Step(Struct, frozen=True):
    """One mutation to make. For a key policy and an alias `before` and `after` are the whole values."""

    name: StepName
    key_arn: str | None = None
    before: str | None = None
    after: str | None = None


class Blocked(Struct, frozen=True):
    """Why no step leads on. `left` marks a key that works and is not the guard's to change: named, and left alone."""

    problem: Problem
    left: bool = False


class Decision(Struct, frozen=True):
    """What to do about an observation, with its reasons. `steps` is the expected plan of a remediation."""

    outcome: Outcome
    violations: tuple[Violation, ...] = ()
    reason: str | None = None
    message: str | None = None
    steps: tuple[Step, ...] = ()
    blocked: Problem | None = None
    suppression: Suppression | None = None
    due: datetime | None = None


# --- which key -------------------------------------------------------------------------------------------------------


def managed_key(state: TargetState, seen: Observation, rule: Rule) -> str | None:
    """The managed key's ARN: the recorded one, else the one behind the alias, else one made and not yet aliased."""
    if state.managed_key:
        return state.managed_key
    aliased = seen.aliases.get(rule.managed_key.alias)
    if aliased and aliased not in state.keys_retired:
        return aliased
    return next((arn for arn in reversed(state.keys_made) if arn not in state.keys_retired), None)


def adoption(state: TargetState, seen: Observation, rule: Rule) -> str | None:
    """The key to record as managed: X-Ray is on it already, and the rule's alias says that it is meant."""
    arn = managed_key(state, seen, rule)
    meant = arn == seen.setting.key_arn or rule.managed_key.ensure
    return arn if state.managed_key is None and arn is not None and meant else None


def _is_allowed(arn: str, state: TargetState, seen: Observation, rule: Rule) -> bool:
    for allowed in rule.require.allowed_keys:
        if allowed == rule.managed_key.alias:
            # Once recorded, the managed key is what the alias means; whoever moves the alias does not move the rule.
            if arn == managed_key(state, seen, rule):
                return True
        elif allowed.startswith("alias/"):
            if seen.aliases.get(allowed) == arn:
                return True
        elif arn_matches(allowed, arn):
            return True
    return False


def allowed_arns(state: TargetState, seen: Observation, rule: Rule, arns: Iterable[str]) -> tuple[str, ...]:
    """Those of the ARNs that the rule's `allowed_keys` cover, by name alone."""
    return tuple(arn for arn in arns if _is_allowed(arn, state, seen, rule))


def is_ruled_out(arn: str, state: TargetState, seen: Observation, rule: Rule) -> bool:
    """Whether the rule forbids the key by its name alone, unless it is AWS's own (which everybody may read)."""
    restricted = rule.require.key is KeyKind.CUSTOMER or rule.require.allowed_keys
    return bool(restricted) and not _is_allowed(arn, state, seen, rule)


# --- judging ---------------------------------------------------------------------------------------------------------


def judge(target: Target, rule: Rule, state: TargetState, seen: Observation) -> tuple[Violation, ...]:
    """The violations in the observation, the setting's first; empty when all is as the rule asks."""
    found = list(_judge_setting(target, rule, state, seen))
    recorded = state.managed_key
    alias = rule.managed_key.alias
    if recorded and alias in seen.aliases and seen.aliases[alias] != recorded:
        found.append(Violation.ALIAS_MOVED)
    candidate = managed_key(state, seen, rule)
    if rule.managed_key.ensure and candidate != seen.setting.key_arn:
        key = seen.keys.get(candidate) if candidate else None
        found += _judge_key(key, rule, target, ours=True) if key else [Violation.KEY_NOT_FOUND]
        if candidate and alias in seen.aliases and seen.aliases[alias] != candidate:
            found.append(Violation.ALIAS_MOVED)
    return tuple(dict.fromkeys(found))


def _judge_setting(target: Target, rule: Rule, state: TargetState, seen: Observation) -> list[Violation]:
    setting = seen.setting
    if setting.type is not EncryptionType.KMS or not setting.key_arn:
        return [Violation.NOT_KMS]
    account = setting.key_arn.split(":", 5)[4]
    if account != target.account and rule.require.same_account:
        return [Violation.KEY_FOREIGN_ACCOUNT]
    if setting.key_arn in seen.closed:
        return [Violation.KEY_NOT_ALLOWED]
    key = seen.keys.get(setting.key_arn)
    if key is None:
        return [Violation.KEY_NOT_FOUND]
    if key.manager == "AWS":
        if rule.require.key is KeyKind.ANY_KMS:
            return _judge_use(key)
        return [Violation.AWS_MANAGED_KEY]
    if is_ruled_out(setting.key_arn, state, seen, rule):
        return [Violation.KEY_NOT_ALLOWED, *_judge_use(key)]
    return _judge_key(key, rule, target, ours=setting.key_arn == managed_key(state, seen, rule))


def _judge_use(key: Key) -> list[Violation]:
    found = []
    if key.state in _STATE_VIOLATIONS:
        found.append(_STATE_VIOLATIONS[key.state])
    elif key.state != "Enabled":
        found.append(Violation.KEY_UNAVAILABLE)
    if key.spec != "SYMMETRIC_DEFAULT" or key.usage != "ENCRYPT_DECRYPT":
        found.append(Violation.KEY_ASYMMETRIC)
    return found


def _judge_key(key: Key, rule: Rule, target: Target, *, ours: bool) -> list[Violation]:
    """Of another's allowed key only X-Ray's own statement is asked; readers and break-glass are its owner's matter."""
    found = _judge_use(key)
    if rule.require.rotation and key.rotation is False:
        found.append(Violation.KEY_ROTATION_OFF)
    if key.policy is not None and not _policy_lets_xray(key, rule, target, ours=ours):
        found.append(Violation.KEY_POLICY_INCOMPLETE)
    return found


def _policy_lets_xray(key: Key, rule: Rule, target: Target, *, ours: bool) -> bool:
    verdict = keypolicy.judge(key.policy or "", rule, target, _partition(key.arn))
    if verdict.problem or verdict.foreign_denies:
        return False
    return not verdict.missing if ours else keypolicy.XRAY not in verdict.missing


def _partition(arn: str) -> str:
    return arn.split(":", 2)[1]


# --- the way there ---------------------------------------------------------------------------------------------------


def next_step(
    target: Target, rule: Rule, state: TargetState, seen: Observation, partition: str
) -> Step | Blocked | None:
    """The one mutation that comes next, or why there is none; None when all is as the rule asks."""
    violations = judge(target, rule, state, seen)
    if not violations:
        return None
    arn = managed_key(state, seen, rule)
    setting_is_wrong = bool(_judge_setting(target, rule, state, seen))
    on_managed_key = arn is not None and seen.setting.key_arn == arn
    if setting_is_wrong and not on_managed_key and _works_but_is_not_ours(target, rule, state, seen):
        other = _alias_step(rule, seen, arn) if Violation.ALIAS_MOVED in violations else None
        return other or _left_alone(seen, violations)
    if arn is None:
        text = keypolicy.initial(rule, target, partition)
        return Step(StepName.CREATE_KEY, after=text)
    key = seen.keys.get(arn)
    if key is None:
        return _missing(arn, state)
    if setting_is_wrong or rule.managed_key.ensure:
        repair = _repair_step(key, rule, target)
        if repair:
            return repair
    alias_step = _alias_step(rule, seen, arn)
    moves = setting_is_wrong and not on_managed_key
    if alias_step and not (moves and state.managed_key == arn):
        return _if_ours(key, alias_step, f"put {rule.managed_key.alias} back on it")
    if moves:
        unproved = why_not_proved(key, rule, target)
        if unproved:
            return Blocked(unproved)
        return Step(StepName.PUT_SETTING, key_arn=arn, before=seen.setting.key_arn or seen.setting.type, after=arn)
    return None


def _works_but_is_not_ours(target: Target, rule: Rule, state: TargetState, seen: Observation) -> bool:
    """Whether X-Ray is on an allowed key of somebody else whose only fault is that it does not rotate."""
    return _judge_setting(target, rule, state, seen) == [Violation.KEY_ROTATION_OFF]


def _left_alone(seen: Observation, violations: tuple[Violation, ...]) -> Blocked:
    return Blocked(
        Problem(
            "KEY_NOT_OURS",
            f"{seen.setting.key_arn} is allowed and works, and {', '.join(violations)} is for its owner to mend: "
            f"turn rotation on, or tag it {GUARD_TAG_KEY}={GUARD_TAG_VALUE} and put the rule's alias on it",
        ),
        left=True,
    )


def _missing(arn: str, state: TargetState) -> Blocked:
    if arn in state.keys_made and state.look is not None:
        certain = f"{state.look:%H:%M:%SZ}"
        message = f"KMS does not show {arn}, which was made here: it may be slow to, and at {certain} that is certain"
        return Blocked(Problem("KEY_NOT_YET_SEEN", message))
    return Blocked(
        Problem(
            "KEY_BEYOND_REPAIR",
            f"the managed key {arn} does not exist any more: after making sure, run `xray-guard key replace`",
        )
    )


def _repair_step(key: Key, rule: Rule, target: Target) -> Step | Blocked | None:
    foreign = _not_repairable(key, target)
    if foreign:
        return Blocked(foreign)
    if key.state in ("PendingDeletion", "PendingReplicaDeletion"):
        return _if_ours(key, Step(StepName.CANCEL_DELETION, key.arn, key.state, "Disabled"), "cancel its deletion")
    if key.state == "Disabled":
        return _if_ours(key, Step(StepName.ENABLE_KEY, key.arn, key.state, "Enabled"), "enable it")
    if key.state != "Enabled":
        return Blocked(Problem("KEY_UNAVAILABLE", f"{key.arn} is {key.state}, which nobody but its owner can change"))
    verdict = keypolicy.judge(key.policy or "", rule, target, _partition(key.arn))
    if verdict.problem:
        return Blocked(Problem("KEY_POLICY_UNREADABLE", f"the policy of {key.arn}: {verdict.problem}"))
    if verdict.foreign_denies:
        return Blocked(
            Problem(
                "KEY_POLICY_DENIES",
                f"the policy of {key.arn} may deny X-Ray its use: {'; '.join(verdict.foreign_denies)}. "
                "Remove or narrow the statement",
            )
        )
    if verdict.missing:
        try:
            merged = keypolicy.merge(key.policy or "", rule, target, _partition(key.arn))
        except (keypolicy.PolicyTooLong, keypolicy.UnreadablePolicy) as error:
            return Blocked(Problem("KEY_POLICY_TOO_LONG", f"the policy of {key.arn} cannot be completed: {error}"))
        step = Step(StepName.PUT_KEY_POLICY, key.arn, key.policy, merged)
        return _if_ours(key, step, f"add the statements {', '.join(verdict.missing)} to its policy")
    if rule.require.rotation and key.rotation is False:
        if key.origin != "AWS_KMS":
            return Blocked(
                Problem("KEY_NOT_ROTATABLE", f"{key.arn} has origin {key.origin}, which KMS does not rotate by itself")
            )
        step = Step(StepName.ENABLE_ROTATION, key.arn, "off", f"{rule.managed_key.rotation_days} days")
        return _if_ours(key, step, "turn its rotation on")
    return None


def _if_ours(key: Key, step: Step, remedy: str) -> Step | Blocked:
    if key.is_ours:
        return step
    return Blocked(
        Problem(
            "KEY_NOT_TAGGED",
            f"{key.arn} carries no tag {GUARD_TAG_KEY}={GUARD_TAG_VALUE}, so the guard may not change it: "
            f"{remedy}, or add the tag",
        )
    )


def _not_repairable(key: Key, target: Target) -> Problem | None:
    faults = [
        text
        for wrong, text in (
            (key.manager != "CUSTOMER", "is managed by AWS"),
            (key.account != target.account, f"belongs to account {key.account}"),
            (key.region != target.region, f"is of Region {key.region}"),
            (key.spec != "SYMMETRIC_DEFAULT" or key.usage != "ENCRYPT_DECRYPT", f"is {key.spec} for {key.usage}"),
        )
        if wrong
    ]
    if not faults:
        return None
    return Problem(
        "KEY_BEYOND_REPAIR",
        f"{key.arn} {' and '.join(faults)}, so it cannot be X-Ray's key: point the rule's alias at another key, "
        "or run `xray-guard key replace`",
    )


def why_not_proved(key: Key, rule: Rule, target: Target) -> Problem | None:
    """Why X-Ray may not be pointed at the key, by what KMS last answered; None when the key is proved usable (P13)."""
    problem = _not_repairable(key, target)
    if problem:
        return problem
    if key.state != "Enabled":
        return Problem("KEY_NOT_PROVED", f"KMS last answered that {key.arn} is {key.state}")
    if key.policy is None or not _policy_lets_xray(key, rule, target, ours=True):
        return Problem("KEY_NOT_PROVED", f"the policy of {key.arn}, as KMS last answered it, does not let X-Ray in")
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
    """State and observation as they are when the step has had its effect."""
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
            state = replace(state, managed_key=arn)
        case StepName.PUT_SETTING:
            return state, replace(seen, setting=Setting(EncryptionType.KMS, arn, EncryptionStatus.UPDATING))
        case _ if key is None:
            raise AssertionError(f"{step.name} of a key that was not observed")
        case StepName.CANCEL_DELETION:
            keys[arn] = replace(key, state="Disabled")
        case StepName.ENABLE_KEY:
            # What KMS does not tell of a key that is not enabled is assumed to be as before it was disabled.
            keys[arn] = replace(key, state="Enabled")
        case StepName.PUT_KEY_POLICY:
            keys[arn] = replace(key, policy=step.after)
        case StepName.ENABLE_ROTATION:
            keys[arn] = replace(key, rotation=True, rotation_days=rule.managed_key.rotation_days)
    return state, replace(seen, keys=keys, aliases=aliases)


def plan(
    target: Target, rule: Rule, state: TargetState, seen: Observation, partition: str
) -> tuple[tuple[Step, ...], Blocked | None]:
    """The steps that lead to what the rule asks, as far as can be foreseen, and what blocks the way after them."""
    steps: list[Step] = []
    while len(steps) < MOST_STEPS:
        step = next_step(target, rule, state, seen, partition)
        if not isinstance(step, Step):
            return tuple(steps), step
        steps.append(step)
        state, seen = expected(step, target, rule, state, seen, partition)
    raise AssertionError(f"a plan of more than {MOST_STEPS} steps: {[step.name for step in steps]}")


# --- deciding --------------------------------------------------------------------------------------------------------


def decide(
    target: Target,
    rule: Rule,
    state: TargetState,
    seen: Observation,
    partition: str,
    *,
    trigger: TriggerKind,
    now: datetime,
    suppression: Suppression | None = None,
    paused: Pause | None = None,
    budget_left: bool = True,
) -> Decision:
    """What to do about the observation. Whatever holds a remediation back is named, the most deliberate first."""
    if is_idle(rule, state, seen, trigger):
        return Decision(Outcome.IGNORED, reason="IDLE", message="never encrypted, and no traces in six hours")
    violations = judge(target, rule, state, seen)
    if not violations:
        return Decision(Outcome.COMPLIANT)
    if rule.mode is Mode.OBSERVE:
        return Decision(Outcome.OBSERVED, violations, reason="RULE_OBSERVES")
    if suppression is not None:
        return Decision(Outcome.SUPPRESSED, violations, reason="BREAK_GLASS", suppression=suppression)
    if paused is not None:
        return Decision(Outcome.DEFERRED, violations, "PAUSED", f"paused by {paused.by}: {paused.reason}")
    held_until = state.backoff.until
    if held_until is not None and now < held_until and trigger is not TriggerKind.OPERATOR:
        return Decision(
            Outcome.DEFERRED, violations, "BACKOFF", f"held back until {held_until:%Y-%m-%dT%H:%M:%SZ}", due=held_until
        )
    if not budget_left:
        return Decision(Outcome.DEFERRED, violations, "BLAST_RADIUS", "this sweep has mutated as many as it may")
    steps, blocked = plan(target, rule, state, seen, partition)
    if state.intent and now < state.intent.due and any(step.name is StepName.CREATE_KEY for step in steps):
        uncertain = Problem(
            "KEY_CREATION_UNCERTAIN",
            f"a key may have been made whose answer was lost; known for certain at {state.intent.due:%H:%M:%SZ}",
        )
        return _stopped(violations, uncertain)
    if steps:
        return Decision(Outcome.REMEDIATING, violations, steps=steps, blocked=blocked.problem if blocked else None)
    if blocked is None:
        raise AssertionError(f"violations {violations} with neither a step nor a reason")
    if blocked.left:
        problem = blocked.problem
        return Decision(Outcome.OBSERVED, violations, problem.code, problem.message, blocked=problem)
    return _stopped(violations, blocked.problem)


def _stopped(violations: tuple[Violation, ...], problem: Problem) -> Decision:
    """Nothing can be done: for now, where the problem passes by itself, else until somebody helps."""
    if problem.code in SETTLING_CODES:
        return Decision(Outcome.DEFERRED, violations, SETTLING, problem.message, blocked=problem)
    return Decision(Outcome.FAILED, violations, problem.code, problem.message, blocked=problem)


def is_idle(rule: Rule, state: TargetState, seen: Observation, trigger: TriggerKind) -> bool:
    """Whether nobody uses X-Ray here: a change event or an operator asks for a judgement all the same."""
    return (
        rule.when is When.IN_USE
        and trigger in (TriggerKind.SWEEP, TriggerKind.TICK)
        and state.incident is None
        and seen.setting.type is EncryptionType.NONE
        and not state.ever_used
        and seen.in_use is False
    )
