"""What one statement of a key policy certainly says about an action, the key or a condition. In doubt: False."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chalicelib.domain.keypolicy.document import Condition, Statement
from chalicelib.domain.model import Target
from chalicelib.domain.policy import arn_covers, arn_matches, glob_covers, glob_matches


def allows(each: Statement, action: str, target: Target, partition: str) -> bool:
    """Whether the statement certainly allows the action on the key, regardless of its principals and conditions."""
    return each.allows and each.understood and names_action(each, action) and names_whole_key(each, target, partition)


def names_action(each: Statement, action: str) -> bool:
    """Whether the statement certainly applies to the action."""
    return any(glob_covers(pattern.lower(), action.lower()) for pattern in each.actions or ())


def names_whole_key(each: Statement, target: Target, partition: str) -> bool:
    """Whether the statement certainly applies to the key that has the policy."""
    # The policy's own key is unknown here; a statement that names one key may name another one by mistake.
    any_key = f"arn:{partition}:kms:{target.region}:{target.account}:key/*"
    return any(glob_covers(resource, any_key) for resource in each.resources or ())


def lets_through(condition: Condition, known: dict[str, str], principal: str | None) -> bool:
    """Whether the condition certainly holds for requests with these values from any ARN that matches `principal`."""
    if condition.quantifier or varies(condition):
        return False
    if condition.key in known:
        value = known[condition.key]
        match condition.operator:
            case "stringequals":
                return value in condition.values
            case "stringequalsignorecase":
                return value.lower() in {each.lower() for each in condition.values}
            case "stringlike":
                return any(glob_matches(each, value) for each in condition.values)
            case "arnequals" | "arnlike":
                return any(arn_matches(each, value) for each in condition.values)
    if condition.key == "aws:principalarn" and principal is not None:
        covers = _ARN_COVERS.get(condition.operator)
        return covers is not None and any(covers(each, principal) for each in condition.values)
    return False


# ArnEquals and ArnLike behave the same; under StringLike, a star also matches colons.
_ARN_COVERS: dict[str, Callable[[str, str], bool]] = {
    "arnlike": arn_covers,
    "arnequals": arn_covers,
    "stringlike": glob_covers,
}


def catches_tag(condition: Condition, tag: str) -> bool:
    """Whether the condition certainly holds when a request sets or removes the tag."""
    if condition.quantifier != "foranyvalue" or condition.key != "aws:tagkeys" or varies(condition):
        return False
    match condition.operator:
        case "stringequals":
            return tag in condition.values
        case "stringequalsignorecase":
            return tag.lower() in {value.lower() for value in condition.values}
        case "stringlike":
            return any(glob_matches(value, tag) for value in condition.values)
    return False


def spares_only(condition: Condition, principals: Sequence[str]) -> bool:
    """Whether the condition fails only for principals whose ARN matches one of the patterns."""
    if condition.quantifier or condition.key != "aws:principalarn" or not condition.values or varies(condition):
        return False
    match condition.operator:
        case "arnnotlike" | "arnnotequals":
            return all(any(arn_covers(each, spared) for each in principals) for spared in condition.values)
        case "stringnotequals":
            return all(any(arn_matches(each, spared) for each in principals) for spared in condition.values)
    return False


def varies(condition: Condition) -> bool:
    """Whether a value contains a policy variable, which only a request resolves."""
    return any("${" in value for value in condition.values)
