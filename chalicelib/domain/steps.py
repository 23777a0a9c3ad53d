"""Plan the mutations that make a target compliant, one step at a time.

`next_step` returns the next mutation, so that the loop can observe between mutations. `plan` chains the steps by their
expected effects, which makes a dry run free.

Harm goes first: X-Ray stops storing traces when it cannot use its key
(https://docs.aws.amazon.com/xray/latest/devguide/xray-console-encryption.html). So the managed key is made usable, and
X-Ray is set to it; a key is created before, if there is none. Only then come the alias, rotation and the rest of the
key policy: nobody delays X-Ray's change by what they do to these. The key of the spans in CloudWatch Logs comes after
X-Ray, too, and keeps nothing else waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain.judge import (
    forbidden_links,
    judge,
    lanes_of,
    policy_verdict,
    rotates_slowly,
    serves_otherwise,
)
from chalicelib.domain.keychoice import managed_key
from chalicelib.domain.keypolicy.document import UnreadablePolicy
from chalicelib.domain.keypolicy.judge import judge_for_logs
from chalicelib.domain.keypolicy.openness import open_statements
from chalicelib.domain.keypolicy.wanted import PolicyTooLong, initial_policy, logs_statement, merge, with_statements
from chalicelib.domain.lanes import OF_STEPS, Lane
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
from chalicelib.domain.ownership import is_accepted, why_not_adopted, why_not_changed, why_unfit
from chalicelib.domain.policy import Rule
from chalicelib.domain.reasons import Problem, Reason, Violation
from chalicelib.domain.spans import SPANS_GROUP, LogGroup
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
    ASSOCIATE_KEY = "AssociateKmsKey"


class Step(Struct, frozen=True):
    """One mutation to send, and the lane that it acts for.

    For a key policy and an alias, `before` and `after` are the whole values.
    """

    name: StepName
    key_arn: str | None = None
    before: str | None = None
    after: str | None = None
    lane: Lane = Lane.UPKEEP


class Blocked(Struct, frozen=True):
    """Why there is no further step in the lane.

    `left`: X-Ray can use its key and the guard may not change it, so the guard only records it.
    """

    problem: Problem
    left: bool = False
    lane: Lane = Lane.UPKEEP


def next_step(
    target: Target,
    rule: Rule,
    state: TargetState,
    seen: Observation,
    partition: str,
    held: frozenset[Lane] = frozenset(),
) -> Step | Blocked | None:
    """Return the next mutation, or why there is none.

    None if the target is compliant, except for what the guard only observes and what waits for a lane in `held`. A lane
    brings the steps that it depends on: before X-Ray moves to the managed key, that is made usable, held back or not.
    """
    found = lanes_of(target, rule, state, seen)
    step: Step | Blocked | None
    spans: Blocked | None = None
    for lane in OF_STEPS:
        if lane in held or lane not in found.values():
            continue
        match lane:
            case Lane.SETTING:
                step = _usable(target, rule, state, seen, partition) or _moved(target, rule, state, seen)
            case Lane.KEY:
                step = _usable(target, rule, state, seen, partition)
            case Lane.SPANS if Lane.KEY in held and Lane.KEY in found.values():
                step = None  # a fight about the key is held back for spans, too
            case Lane.SPANS:
                step = _spans_encrypted(target, rule, state, seen, partition)
                if isinstance(step, Blocked):
                    spans, step = replace(step, lane=lane), None  # upkeep does not wait for it
            case _:
                step = _kept_up(target, rule, state, seen, partition, found)
        if step is not None and not (isinstance(step, Blocked) and spans):
            return replace(step, lane=lane)
    return spans


def _usable(target: Target, rule: Rule, state: TargetState, seen: Observation, partition: str) -> Step | Blocked | None:
    """The next step until X-Ray can use the managed key; None if it can."""
    arn = managed_key(state, seen, rule)
    if arn is None:
        return Step(StepName.CREATE_KEY, after=initial_policy(rule, target, partition))
    key = seen.keys.get(arn)
    if key is None:
        return _missing(arn, state)
    unfit = why_unfit(key, target) or (None if is_accepted(arn, state) else why_not_adopted(key, target))
    if unfit:
        return Blocked(unfit)
    if key.state in ("PendingDeletion", "PendingReplicaDeletion"):
        step = Step(StepName.CANCEL_DELETION, key.arn, key.state, "Disabled")
        return _if_ours(key, state, step, "cancel its deletion")
    if key.state == "Disabled":
        return _if_ours(key, state, Step(StepName.ENABLE_KEY, key.arn, key.state, "Enabled"), "enable it")
    if key.state != "Enabled":
        return Blocked(Problem(Reason.KEY_UNAVAILABLE, f"{key.arn} is {key.state}, which only its owner can change"))
    verdict = policy_verdict(key, rule, target)
    if verdict.problem:
        return Blocked(Problem(Reason.KEY_POLICY_UNREADABLE, f"the policy of {key.arn}: {verdict.problem}"))
    if verdict.foreign_denies:
        return Blocked(_denied(key, "X-Ray", verdict.foreign_denies))
    return None if verdict.proved else _completed_policy(key, state, rule, target, verdict.missing)


def _denied(key: Key, service: str, denies: Iterable[str]) -> Problem:
    message = f"the policy of {key.arn} may deny {service} its use: {'; '.join(denies)}. Remove or narrow the statement"
    return Problem(Reason.KEY_POLICY_DENIES, message)


def _moved(target: Target, rule: Rule, state: TargetState, seen: Observation) -> Step | Blocked:
    """The step that sets X-Ray to the managed key, which is usable."""
    arn = managed_key(state, seen, rule)
    key = seen.keys.get(arn or "")
    assert key is not None
    unproved = why_not_proved(key, rule, target)
    if unproved:
        return Blocked(unproved)
    return Step(StepName.PUT_SETTING, key.arn, before=seen.setting.key_arn or seen.setting.type, after=key.arn)


def _spans_encrypted(
    target: Target, rule: Rule, state: TargetState, seen: Observation, partition: str
) -> Step | Blocked | None:
    """The next step until CloudWatch Logs encrypts new spans with the managed key, which is usable; None if it does."""
    if seen.spans.problem is not None:
        return Blocked(seen.spans.problem)
    step = _usable(target, rule, state, seen, partition)
    if step is not None:
        return step
    arn = managed_key(state, seen, rule)
    key = seen.keys.get(arn or "")
    assert key is not None
    unproved = why_not_proved(key, rule, target)
    if unproved:
        return Blocked(unproved)
    verdict = judge_for_logs(key.policy or "", target, arn_part(key.arn, 1))
    if verdict.foreign_denies:
        return Blocked(_denied(key, "CloudWatch Logs", verdict.foreign_denies))
    if verdict.missing:
        return _added_statements(key, state, verdict.missing, lambda text: _with_logs(text, target, key.arn))
    group = seen.spans.group
    if group is None or group.key_arn == key.arn:
        return None
    return Step(StepName.ASSOCIATE_KEY, key.arn, group.key_arn or "none", SPANS_GROUP)


def _with_logs(text: str, target: Target, key_arn: str) -> str:
    return with_statements(text, (logs_statement(target, arn_part(key_arn, 1)),))


def _kept_up(
    target: Target, rule: Rule, state: TargetState, seen: Observation, partition: str, found: Mapping[Violation, Lane]
) -> Step | Blocked | None:
    """The next step of upkeep; None if none is left, or as long as X-Ray cannot use its key, whose lane is held."""
    if Lane.KEY in found.values():
        return None
    arn = managed_key(state, seen, rule)
    in_use = arn is not None and arn == seen.setting.key_arn
    if serves_otherwise(rule, seen, arn) and not in_use:
        step = _usable(target, rule, state, seen, partition)
        if step:
            return step
    key = seen.keys.get(arn or "")
    if key is not None and (in_use or serves_otherwise(rule, seen, arn)):
        step = _completed(key, state, rule, target)
        if step:
            return step
    alias_step = _alias_step(rule, seen, arn) if Violation.ALIAS_MOVED in found else None
    if arn is not None and alias_step:
        if key is None:
            return _missing(arn, state)
        return _if_ours(key, state, alias_step, f"point {rule.managed_key.alias} at it")
    # If X-Ray uses somebody else's allowed key, which only does not rotate, the guard leaves it there.
    upkeep = (each for each, lane in found.items() if lane is Lane.UPKEEP)
    return None if in_use or Lane.SETTING in found.values() else _left_alone(state, seen, upkeep)


def _completed(key: Key, state: TargetState, rule: Rule, target: Target) -> Step | Blocked | None:
    """The next step until a usable key has all that the rule requires; None if it has."""
    verdict = policy_verdict(key, rule, target)
    if verdict.missing:
        return _completed_policy(key, state, rule, target, verdict.missing)
    if rule.require.rotation and (key.rotation is False or rotates_slowly(key, rule)):
        if key.origin != "AWS_KMS" or key.is_replica:
            what = "is a replica, which its primary key rotates" if key.is_replica else f"has origin {key.origin}"
            problem = Problem(Reason.KEY_NOT_ROTATABLE, f"{key.arn} {what}, so KMS cannot rotate it here")
            return Blocked(problem, left=key.rotation is True)
        before = f"{key.rotation_days} days" if key.rotation else "off"
        step = Step(StepName.ENABLE_ROTATION, key.arn, before, f"{rule.managed_key.rotation_days} days")
        rotated = _if_ours(key, state, step, f"rotate it every {step.after} or sooner")
        return replace(rotated, left=key.rotation is True) if isinstance(rotated, Blocked) else rotated
    return None


def _completed_policy(
    key: Key, state: TargetState, rule: Rule, target: Target, missing: tuple[str, ...]
) -> Step | Blocked:
    return _added_statements(key, state, missing, lambda text: merge(text, rule, target, arn_part(key.arn, 1)))


def _added_statements(
    key: Key, state: TargetState, missing: tuple[str, ...], merged_into: Callable[[str], str]
) -> Step | Blocked:
    try:
        merged = merged_into(key.policy or "")
    except (PolicyTooLong, UnreadablePolicy) as error:
        return Blocked(Problem(Reason.KEY_POLICY_TOO_LONG, f"the policy of {key.arn} cannot be completed: {error}"))
    step = Step(StepName.PUT_KEY_POLICY, key.arn, key.policy, merged)
    return _if_ours(key, state, step, f"add the statements {', '.join(missing)} to its policy")


def _left_alone(state: TargetState, seen: Observation, violations: Iterable[Violation]) -> Blocked:
    return Blocked(
        Problem(
            Reason.KEY_NOT_OURS,
            f"{seen.setting.key_arn} is allowed and works; its owner must fix {', '.join(violations)}: "
            f"turn rotation on, or hand it over with `xray-guard key adopt {state.target} {seen.setting.key_arn}`",
        ),
        left=True,
    )


def why_only_observed(target: Target, rule: Rule, state: TargetState, seen: Observation) -> Problem | None:
    """Return what the guard records and never changes, under the code of the first; None if there is nothing."""
    found = []
    key = seen.keys.get(managed_key(state, seen, rule) or "")
    opens = open_statements(key.policy or "", target) if key else ()
    if key is not None and opens:
        message = f"the policy of {key.arn} lets in others: {'; '.join(opens)}. Remove or narrow the statement"
        found.append((Reason.KEY_POLICY_OPEN, message))
    if Violation.SPANS_FORBIDDEN in judge(target, rule, state, seen):
        command = f"aws xray update-trace-segment-destination --destination XRay --region {target.region}"
        message = (
            f"X-Ray sends spans to CloudWatch Logs, which the rule forbids. To send them to X-Ray, run `{command}`"
        )
        found.append((Reason.SPANS_FORBIDDEN, message))
    for link in forbidden_links(rule, state, seen):
        message = f"a link copies traces to account {link.account}, which the rule does not allow: delete {link.arn}"
        found.append((Reason.TRACES_COPIED, message))
    messages = [f"{message}; the guard never does" for _, message in found]
    return Problem(found[0][0], ". ".join(messages), False) if found else None


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
    if key.policy is None or not policy_verdict(key, rule, target).proved:
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
            setting = Setting(EncryptionType.KMS, arn, EncryptionStatus.UPDATING)
            return replace(state, managed_key=arn), replace(seen, setting=setting)
        case StepName.ASSOCIATE_KEY:
            group = replace(seen.spans.group or LogGroup(), key_arn=arn)
            return replace(state, managed_key=arn), replace(seen, spans=replace(seen.spans, group=group))
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
    target: Target,
    rule: Rule,
    state: TargetState,
    seen: Observation,
    partition: str,
    held: frozenset[Lane] = frozenset(),
) -> tuple[tuple[Step, ...], Blocked | None]:
    """Return the foreseeable steps to a compliant target, and what blocks further steps, if anything."""
    steps: list[Step] = []
    while len(steps) < MOST_STEPS:
        step = next_step(target, rule, state, seen, partition, held)
        if not isinstance(step, Step):
            return tuple(steps), step
        steps.append(step)
        state, seen = expected(step, target, rule, state, seen, partition)
    raise AssertionError(f"a plan of more than {MOST_STEPS} steps: {[step.name for step in steps]}")
