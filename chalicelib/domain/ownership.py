"""Which keys the guard may change: those that it made, and those that an operator handed over. Pure.

The guard's tag alone proves nothing: anybody with `kms:TagResource` can set it, and anybody with `kms:CreateAlias` can
point the rule's alias at a key.
"""

from __future__ import annotations

from msgspec.structs import replace

from chalicelib.domain.keypolicy.openness import open_statements
from chalicelib.domain.model import GUARD_TAG_KEY, GUARD_TAG_VALUE, Key, Target
from chalicelib.domain.reasons import Problem, Reason
from chalicelib.domain.stored import TargetState


def is_own(key_arn: str, state: TargetState) -> bool:
    """Whether the guard made the key for this target, or an operator handed it over."""
    return key_arn in state.keys_made or key_arn in state.keys_handed


def is_accepted(key_arn: str, state: TargetState) -> bool:
    """Whether the key is the managed key already, or the guard's own, so that it need not be adopted."""
    return key_arn == state.managed_key or is_own(key_arn, state)


def why_not_changed(key: Key, state: TargetState, remedy: str) -> Problem | None:
    """Return why the guard may not change the key; None if it may. `remedy` is what its owner can do instead."""
    if not is_own(key.arn, state):
        return Problem(
            Reason.KEY_NOT_OURS,
            f"the guard did not make {key.arn}, so it does not change it: {remedy}, or hand the key over with "
            f"`xray-guard key adopt {state.target} {key.arn}`",
        )
    if not key.is_ours:
        return Problem(
            Reason.KEY_NOT_TAGGED,
            f"{key.arn} does not have the tag {GUARD_TAG_KEY}={GUARD_TAG_VALUE} any more, so the guard's role may not "
            f"change it: {remedy}, or add the tag",
        )
    return None


def why_unfit(key: Key, target: Target) -> Problem | None:
    """Return why the key can never be the managed key, whatever is changed about it; None if it can."""
    faults = [
        text
        for wrong, text in (
            (key.manager != "CUSTOMER", "is managed by AWS"),
            (key.account != target.account, f"belongs to account {key.account}"),
            (key.region != target.region, f"is in Region {key.region}"),
            (key.spec != "SYMMETRIC_DEFAULT" or key.usage != "ENCRYPT_DECRYPT", f"is {key.spec} for {key.usage}"),
        )
        if wrong
    ]
    if not faults:
        return None
    return Problem(
        Reason.KEY_BEYOND_REPAIR,
        f"{key.arn} {' and '.join(faults)}, so it cannot be the managed key: point the rule's alias at another key, "
        "or run `xray-guard key replace`",
    )


def why_not_adopted(key: Key, target: Target) -> Problem | None:
    """Return why a key of somebody else's is not adopted for use: it lets in principals outside the account."""
    opens = open_statements(key.policy or "", target)
    if not opens:
        return None
    return Problem(
        Reason.KEY_POLICY_OPEN,
        f"the policy of {key.arn}, which the guard did not make, lets in others: {'; '.join(opens)}. Remove or narrow "
        "the statement, or delete the rule's alias so that the guard makes a key of its own",
    )


def why_not_handed_over(key: Key, target: Target) -> Problem | None:
    """Return why an operator cannot hand the key over to the guard; None if it is possible."""
    problem = why_unfit(key, target) or why_not_adopted(key, target)
    if problem is None and not key.is_ours:
        command = f"aws kms tag-resource --region {target.region} --key-id {key.arn}"
        problem = Problem(
            Reason.KEY_NOT_TAGGED,
            f"{key.arn} does not have the tag by which its owner agrees, and without which the guard's role may not "
            f"change it: run `{command} --tags TagKey={GUARD_TAG_KEY},TagValue={GUARD_TAG_VALUE}` first",
        )
    return replace(problem, retryable=False) if problem else None
