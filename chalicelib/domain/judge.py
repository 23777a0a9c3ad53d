"""Name the rule's violations in an observation. Pure, and the same for every trigger."""

from __future__ import annotations

from chalicelib.domain.keychoice import is_ruled_out, managed_key
from chalicelib.domain.keypolicy.judge import Verdict, judge_for_logs, judge_policy
from chalicelib.domain.keypolicy.openness import open_statements
from chalicelib.domain.lanes import LANES, ONLY_OBSERVED, Lane
from chalicelib.domain.model import EncryptionType, Key, Target, arn_part
from chalicelib.domain.observation import Observation
from chalicelib.domain.ownership import is_accepted
from chalicelib.domain.policy import KeyKind, Rule, SpansRule, glob_matches
from chalicelib.domain.reasons import Violation
from chalicelib.domain.spans import Link
from chalicelib.domain.stored import TargetState

_STATE_VIOLATIONS = {
    "Disabled": Violation.KEY_DISABLED,
    "PendingDeletion": Violation.KEY_PENDING_DELETION,
    "PendingReplicaDeletion": Violation.KEY_PENDING_DELETION,
    "PendingImport": Violation.KEY_UNAVAILABLE,
    "Unavailable": Violation.KEY_UNAVAILABLE,
    "Creating": Violation.KEY_UNAVAILABLE,
    "Updating": Violation.KEY_UNAVAILABLE,
}

OF_SPANS = frozenset({Violation.SPANS_NOT_KMS, Violation.SPANS_KEY_NOT_ALLOWED, Violation.SPANS_KEY_UNUSABLE})
"""The violations by which CloudWatch Logs stores spans without an allowed key, or under one that it cannot use."""

OF_THE_KEY = frozenset(
    {
        *OF_SPANS,
        Violation.SPANS_FORBIDDEN,
        Violation.TRACES_COPIED,
        Violation.KEY_ROTATION_SLOW,
        Violation.KEY_DISABLED,
        Violation.KEY_PENDING_DELETION,
        Violation.KEY_UNAVAILABLE,
        Violation.KEY_NOT_FOUND,
        Violation.KEY_ROTATION_OFF,
        Violation.KEY_POLICY_INCOMPLETE,
        Violation.KEY_POLICY_OPEN,
        Violation.ALIAS_MOVED,
    }
)
"""The violations that no choice of the setting makes: somebody changes the key, moves the alias, or changes where spans
and copies of traces go.

So a key event may be their cause, and choosing a key that has them opens no break-glass. All others, such as a key's
unchangeable kind, are in `attribution.OF_THE_SETTING`.
"""


def judge(target: Target, rule: Rule, state: TargetState, seen: Observation) -> tuple[Violation, ...]:
    """Return the violations in the observation, the setting's first; empty if the target is compliant."""
    found = list(judge_setting(target, rule, state, seen))
    recorded = state.managed_key
    alias = rule.managed_key.alias
    if recorded and alias in seen.aliases and seen.aliases[alias] != recorded:
        found.append(Violation.ALIAS_MOVED)
    candidate = managed_key(state, seen, rule)
    if serves_otherwise(rule, seen, candidate) and candidate != seen.setting.key_arn:
        key = seen.keys.get(candidate) if candidate else None
        found += _judge_key(key, rule, target, ours=True) if key else [Violation.KEY_NOT_FOUND]
        if candidate and alias in seen.aliases and seen.aliases[alias] != candidate:
            found.append(Violation.ALIAS_MOVED)
    found += _judge_spans(target, rule, state, seen)
    if forbidden_links(rule, state, seen):
        found.append(Violation.TRACES_COPIED)
    return tuple(dict.fromkeys(found))


def serves_otherwise(rule: Rule, seen: Observation, managed_key: str | None) -> bool:
    """Whether the managed key must be whole even if X-Ray uses another one: the rule says so, or it encrypts spans."""
    group = seen.spans.group
    encrypts_spans = group is not None and group.key_arn == managed_key and rule.require.spans is SpansRule.ENCRYPT
    return rule.managed_key.ensure or (managed_key is not None and encrypts_spans)


def lanes_of(target: Target, rule: Rule, state: TargetState, seen: Observation) -> dict[Violation, Lane]:
    """Return the violations that the guard remediates, each with its lane; empty if there is nothing to remediate.

    If X-Ray does not use the managed key, only another setting repairs what is wrong with the present one, and what is
    wrong with the managed key harms nobody yet. A policy that lets X-Ray use the key is only to be completed.
    """
    lanes = {each: LANES[each] for each in judge(target, rule, state, seen) if each not in ONLY_OBSERVED}
    arn = managed_key(state, seen, rule)
    if arn is None or arn != seen.setting.key_arn:
        harm = {each for each in judge_setting(target, rule, state, seen) if LANES.get(each) is not Lane.UPKEEP}
        return {each: Lane.SETTING if each in harm else _other_lane(lane) for each, lane in lanes.items()}
    if not is_accepted(arn, state) and Violation.KEY_POLICY_OPEN in judge_setting(target, rule, state, seen):
        lanes[Violation.KEY_POLICY_OPEN] = Lane.SETTING  # X-Ray uses a key that the guard does not adopt
    key = seen.keys.get(arn)
    if Violation.KEY_POLICY_INCOMPLETE in lanes and key and policy_verdict(key, rule, target).lets_xray:
        lanes[Violation.KEY_POLICY_INCOMPLETE] = Lane.UPKEEP
    return lanes


def _other_lane(lane: Lane) -> Lane:
    return lane if lane is Lane.SPANS else Lane.UPKEEP


def forbidden_links(rule: Rule, state: TargetState, seen: Observation) -> tuple[Link, ...]:
    """Return the links that copy traces to accounts that the rule does not allow, as they were last read."""
    links, allowed = seen.links or state.links, rule.require.copies_to
    if links is None or allowed is None:
        return ()
    if links.problem is not None and state.links is not None:
        links = state.links
    return tuple(link for link in links.found if not any(glob_matches(each, link.account) for each in allowed))


def _judge_spans(target: Target, rule: Rule, state: TargetState, seen: Observation) -> list[Violation]:
    """What is wrong with where spans are stored. If it could not be read now, what was wrong before still is."""
    spans, require = seen.spans, rule.require
    if require.spans is SpansRule.FORBID:
        known = spans.destination is not None or spans.problem is None
        still = spans.are_in_logs if known else Violation.SPANS_FORBIDDEN in state.violations
        return [Violation.SPANS_FORBIDDEN] if still else []
    if require.spans is SpansRule.REPORT:
        return []
    if spans.problem is not None:
        return [each for each in state.violations if each in OF_SPANS]
    if spans.group is None:
        return []
    arn = spans.group.key_arn
    if arn is None:
        return [Violation.SPANS_NOT_KMS]
    if arn_part(arn, 4) != target.account and require.same_account:
        return [Violation.SPANS_KEY_NOT_ALLOWED]
    if is_ruled_out(arn, state, seen, rule):
        return [Violation.SPANS_KEY_NOT_ALLOWED]
    return [] if _logs_can_use(arn, target, rule, state, seen) else [Violation.SPANS_KEY_UNUSABLE]


def _logs_can_use(arn: str, target: Target, rule: Rule, state: TargetState, seen: Observation) -> bool:
    """Whether CloudWatch Logs can use a key. Of another owner's key the guard does not read the policy."""
    key = seen.keys.get(arn)
    if key is None or _judge_use(key):
        return False
    ours = arn == managed_key(state, seen, rule)
    return not ours or key.policy is None or judge_for_logs(key.policy, target, arn_part(arn, 1)).complete


def judge_setting(target: Target, rule: Rule, state: TargetState, seen: Observation) -> list[Violation]:
    """Return the violations of the setting itself and of the key that it names."""
    setting = seen.setting
    if setting.type is not EncryptionType.KMS or not setting.key_arn:
        return [Violation.NOT_KMS]
    if arn_part(setting.key_arn, 4) != target.account and rule.require.same_account:
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
    """Why X-Ray cannot use the key: judged for every key, also for one that the rule forbids."""
    found = []
    if key.state in _STATE_VIOLATIONS:
        found.append(_STATE_VIOLATIONS[key.state])
    elif key.state != "Enabled":
        found.append(Violation.KEY_UNAVAILABLE)
    if key.spec != "SYMMETRIC_DEFAULT" or key.usage != "ENCRYPT_DECRYPT":
        found.append(Violation.KEY_ASYMMETRIC)
    return found


def _judge_key(key: Key, rule: Rule, target: Target, *, ours: bool) -> list[Violation]:
    """What is wrong with a key that the rule allows. `ours`: it is the managed key.

    Of another owner's allowed key, the policy needs only X-Ray's statement; that owner decides about readers and
    break-glass.
    """
    found = _judge_use(key)
    if rule.require.rotation and key.rotation is False:
        found.append(Violation.KEY_ROTATION_OFF)
    elif ours and rotates_slowly(key, rule):
        found.append(Violation.KEY_ROTATION_SLOW)
    if key.policy is not None:
        verdict = policy_verdict(key, rule, target)
        if not (verdict.complete if ours else verdict.lets_xray):
            found.append(Violation.KEY_POLICY_INCOMPLETE)
        if ours and open_statements(key.policy, target):
            found.append(Violation.KEY_POLICY_OPEN)
    return found


def rotates_slowly(key: Key, rule: Rule) -> bool:
    """Whether the rule requires rotation, and the key certainly rotates more seldom than that."""
    days = key.rotation_days if key.rotation else None
    return rule.require.rotation and days is not None and days > rule.managed_key.rotation_days


def policy_verdict(key: Key, rule: Rule, target: Target) -> Verdict:
    """Return what the key's policy says, compared with what the rule requires of the managed key's."""
    return judge_policy(key.policy or "", rule, target, arn_part(key.arn, 1))
