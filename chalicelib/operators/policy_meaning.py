"""Whether a well-formed policy document makes sense: what no schema can check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from chalicelib.domain.keypolicy.wanted import LONGEST_POLICY_BYTES, initial_policy
from chalicelib.domain.model import Target, arn_part, is_region
from chalicelib.domain.policy import KeyKind, Mode, Policy, Rule, glob_covers
from chalicelib.operators.policy_findings import Finding, pointer, shown


def meaning_findings(policy: Policy) -> Iterator[Finding]:
    """Errors and warnings about the rules, in their order."""
    first_of: dict[str, int] = {}
    for number, rule in enumerate(policy.rules):
        at = f"/rules/{number}"
        if first_of.setdefault(rule.id, number) != number:
            yield Finding(
                f"{at}/id", shown(rule.id), f"rule {first_of[rule.id]} already has this id; allowed: a unique id"
            )
        yield from _scope_findings(at, rule)
        if rule.mode is not Mode.OFF:
            yield from _key_findings(at, rule)
            yield from _copies_findings(at, rule)
            yield from _principals_findings(at, rule)
        covering = _covered_by(rule, policy.rules[:number])
        if covering:
            yield Finding(
                at,
                shown(rule.id),
                f"this rule never applies: {', '.join(covering)} above it matches all of its targets",
                warning=True,
            )


def _scope_findings(at: str, rule: Rule) -> Iterator[Finding]:
    for number, account in enumerate(rule.accounts):
        if not _can_match_account(account):
            yield Finding(
                f"{at}/accounts/{number}",
                shown(account),
                "allowed: twelve digits, or a glob that twelve digits can match",
            )
    for number, region in enumerate(rule.regions):
        if not _has_wildcard(region) and not is_region(region):
            yield Finding(
                f"{at}/regions/{number}",
                shown(region),
                "allowed: the name of a Region, such as eu-central-1, or a glob",
            )


def _key_findings(at: str, rule: Rule) -> Iterator[Finding]:
    require, managed = rule.require, rule.managed_key
    for number, allowed in enumerate(require.allowed_keys):
        if allowed.startswith("alias/aws/"):
            yield Finding(
                f"{at}/require/allowed_keys/{number}",
                shown(allowed),
                "the alias of an AWS managed key; allowed: aliases of customer managed keys (any-kms needs no entry)",
            )
        elif allowed.startswith("arn:") and not _can_match_account(arn_part(allowed, 4)):
            yield Finding(
                f"{at}/require/allowed_keys/{number}",
                shown(allowed),
                "allowed: an ARN whose account has twelve digits",
            )
    restricted = require.key is KeyKind.CUSTOMER or require.allowed_keys
    if restricted and not any(_allows_managed(allowed, rule) for allowed in require.allowed_keys):
        yield Finding(
            f"{at}/require/allowed_keys",
            shown(require.allowed_keys),
            f"the rule would refuse its own managed key; allowed: a list with {managed.alias} in it",
        )


def _copies_findings(at: str, rule: Rule) -> Iterator[Finding]:
    for number, account in enumerate(rule.require.copies_to or ()):
        if not _can_match_account(account):
            yield Finding(
                f"{at}/require/copies_to/{number}",
                shown(account),
                "allowed: twelve digits, or a glob that twelve digits can match",
            )


def _allows_managed(allowed: str, rule: Rule) -> bool:
    """Whether an entry of `allowed_keys` certainly allows the managed key of every target of the rule."""
    if not allowed.startswith("arn:"):
        return allowed == rule.managed_key.alias
    return (
        glob_covers(arn_part(allowed, 1), "aws*")
        and arn_part(allowed, 5) == "key/*"
        and all(glob_covers(arn_part(allowed, 3), each) for each in rule.regions)
        and all(glob_covers(arn_part(allowed, 4), each) for each in rule.accounts)
    )


def _principals_findings(at: str, rule: Rule) -> Iterator[Finding]:
    readers = rule.managed_key.trace_readers
    if not isinstance(readers, str):
        yield from _principal_findings(f"{at}/managed_key/trace_readers", readers)
        length = len(initial_policy(rule, Target("1" * 12, "x" * 32), "aws-us-gov").encode())
        if length > LONGEST_POLICY_BYTES:
            yield Finding(
                f"{at}/managed_key/trace_readers",
                f"{len(readers)} patterns",
                f"the key policy would have {length} bytes; allowed: {LONGEST_POLICY_BYTES}, so use fewer patterns",
            )
    if rule.break_glass is None:
        return
    yield from _principal_findings(f"{at}/break_glass/principals", rule.break_glass.principals)
    for number, principal in enumerate(rule.break_glass.principals):
        name = arn_part(principal, 5).partition("/")[2]
        if not name.strip("*?/"):
            yield Finding(
                f"{at}/break_glass/principals/{number}",
                shown(principal),
                "every role or user may open a break-glass; better: name the principals",
                warning=True,
            )
    # IAM ignores case in tag keys, KMS does not: two tags that differ only in case would be confused.
    for tag in rule.managed_key.tags:
        if tag.casefold() == rule.break_glass.tag.casefold():
            yield Finding(
                f"{at}/managed_key/tags{pointer([tag])}",
                shown(tag),
                "a new key cannot have the break-glass tag; allowed: any other tag",
            )


def _principal_findings(at: str, patterns: Iterable[str]) -> Iterator[Finding]:
    for number, pattern in enumerate(patterns):
        if not _can_match_account(arn_part(pattern, 4)):
            yield Finding(
                f"{at}/{number}", shown(pattern), "allowed: an ARN pattern whose account can be twelve digits"
            )


def _covered_by(rule: Rule, earlier: Iterable[Rule]) -> list[str]:
    """The earlier rules that together match all targets of this one. Empty if a target is left, or may be."""
    covering: list[str] = []
    for account, region in product(rule.accounts, rule.regions):
        cover = next(
            (
                other.id
                for other in earlier
                if any(glob_covers(each, account) for each in other.accounts)
                and any(glob_covers(each, region) for each in other.regions)
            ),
            None,
        )
        if cover is None:
            return []
        if cover not in covering:
            covering.append(cover)
    return covering


def _can_match_account(pattern: str) -> bool:
    """Whether the glob can match twelve digits."""
    fixed = pattern.replace("*", "")
    return len(fixed) == 12 or ("*" in pattern and len(fixed) < 12)


def _has_wildcard(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern
