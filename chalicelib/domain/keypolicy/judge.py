"""Judge whether a key policy says all that the rule requires, and nothing that could deny X-Ray the key."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from msgspec import Struct

from chalicelib.domain.keypolicy.document import Condition, Statement, UnreadablePolicy, read_document
from chalicelib.domain.keypolicy.meaning import catches_tag, varies
from chalicelib.domain.keypolicy.wanted import (
    ROOT,
    TAGGING_ACTIONS,
    XRAY,
    logs_statement,
    missing_statements,
    via,
    wanted_statements,
)
from chalicelib.domain.model import Target, arn_part
from chalicelib.domain.policy import Rule, arn_covers, glob_matches

# What X-Ray (through its statement or through grants), its configurers and trace readers may do with the key.
# Which operations X-Ray's grants allow is not documented, so this lists every use of a symmetric key.
_USES = (
    "kms:CreateGrant",
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:Encrypt",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
)


class Verdict(Struct, frozen=True):
    """What a policy says, compared with what the rule requires.

    `missing` names statements (ROOT, XRAY, READERS, BREAK_GLASS) in that order. `foreign_denies` describes each Deny
    that could affect X-Ray's use. `lockouts` describes each Deny that could keep the rule's break-glass principals from
    setting the tag; it breaks break-glass, not the key. `problem` says why the text is unreadable; then all is missing.
    """

    missing: tuple[str, ...] = ()
    foreign_denies: tuple[str, ...] = ()
    problem: str | None = None
    lockouts: tuple[str, ...] = ()

    @property
    def lets_xray(self) -> bool:
        """Whether the policy certainly lets X-Ray use the key."""
        return not (XRAY in self.missing or self.foreign_denies or self.problem)

    @property
    def proved(self) -> bool:
        """Whether X-Ray may be set to the key. The caller's right to create X-Ray's grant comes from IAM, by ROOT."""
        return self.lets_xray and ROOT not in self.missing

    @property
    def complete(self) -> bool:
        """Whether the policy says all that the rule requires, and nothing that could deny X-Ray the key."""
        return not (self.missing or self.foreign_denies or self.problem)


def judge_policy(text: str, rule: Rule, target: Target, partition: str) -> Verdict:
    """Judge whether a policy says all that the rule requires, and nothing that could deny X-Ray the key. Never raises.

    A run judges the same text at every step, and the next run judges it again, so the latest verdicts are cached.
    """
    return _judged(text, rule, target, partition)


@lru_cache(maxsize=32)
def _judged(text: str, rule: Rule, target: Target, partition: str) -> Verdict:
    wanted = wanted_statements(rule, target, partition)
    try:
        statements = read_document(text).statements
    except UnreadablePolicy as unreadable:
        return Verdict(missing=tuple(each.name for each in wanted), problem=str(unreadable))
    return Verdict(
        missing=missing_statements(wanted, statements),
        foreign_denies=tuple(describe(each) for each in statements if _could_deny_use(each, target)),
        lockouts=tuple(describe(each) for each in statements if _locks_out(each, rule, target)),
    )


@lru_cache(maxsize=32)
def judge_for_logs(text: str, target: Target, partition: str) -> Verdict:
    """Judge whether a policy lets CloudWatch Logs encrypt spans, and has nothing that could deny it. Never raises."""
    wanted = logs_statement(target, partition)
    try:
        statements = read_document(text).statements
    except UnreadablePolicy as unreadable:
        return Verdict(missing=(wanted.name,), problem=str(unreadable))
    denies = tuple(describe(each) for each in statements if _could_deny_use(each, target, "logs"))
    return Verdict(missing=missing_statements((wanted,), statements), foreign_denies=denies)


def _could_deny_use(each: Statement, target: Target, service: str = "xray") -> bool:
    """Whether the statement is a Deny that could affect a use of the key by the service, its configurer or a reader."""
    return (
        not each.allows
        and _could_name_use(each)
        and _could_name_user(each, target, service)
        and not any(_never_holds(condition, target, service) for condition in each.conditions or ())
    )


def _could_name_use(each: Statement) -> bool:
    if each.actions is not None:
        return any(glob_matches(pattern.lower(), use.lower()) for pattern in each.actions for use in _USES)
    if each.not_actions is not None:
        return not all(any(glob_matches(spared.lower(), use.lower()) for spared in each.not_actions) for use in _USES)
    return True


def _could_name_user(each: Statement, target: Target, service: str = "xray") -> bool:
    return each.principals is None or any(_could_be_user(kind, name, target, service) for kind, name in each.principals)


def _could_be_user(kind: str, name: str, target: Target, service: str) -> bool:
    if kind == "Service":
        return "*" in name or not name.endswith(".amazonaws.com") or name.startswith(f"{service}.")
    if kind != "AWS":
        return True
    # KMS shows the unique id instead of the ARN after the principal was deleted, and that id is never reused.
    if name.startswith(("AROA", "AIDA")) and name.isalnum():
        return False
    return (account_of(name) or target.account) == target.account


def account_of(principal: str) -> str | None:
    """Return the account that an account id, or a principal's ARN or ARN pattern, certainly belongs to."""
    account = arn_part(principal, 4) or principal
    return account if len(account) == 12 and account.isascii() and account.isdigit() else None


def _never_holds(condition: Condition, target: Target, service: str) -> bool:
    """Whether the condition certainly fails in every use of the key.

    Known about a use: it comes over TLS (KMS accepts nothing else), has no tags, comes through the service or through
    none, and a caller that is not a service belongs to the target's account.
    """
    if condition.if_exists or not condition.values or varies(condition):
        return False
    key, operator, values = condition.key, condition.operator, condition.values
    if key == "aws:tagkeys" or key.startswith("aws:requesttag/"):
        return condition.quantifier in ("", "foranyvalue") and operator in _POSITIVE
    if condition.quantifier:
        return False
    if key == "aws:securetransport":
        return operator == "bool" and all(value.lower() == "false" for value in values)
    if key == "kms:viaservice":
        return operator in _POSITIVE and not any(glob_matches(each.lower(), via(target, service)) for each in values)
    if key == "aws:principalarn":
        return operator in _POSITIVE and all(_surely_elsewhere(each, operator, target) for each in values)
    return False


_POSITIVE = frozenset({"stringequals", "stringequalsignorecase", "stringlike", "arnlike", "arnequals"})


def _surely_elsewhere(pattern: str, operator: str, target: Target) -> bool:
    # Under a String operator, a star before the account could match the colons that delimit the account.
    head = ":".join(pattern.split(":", 5)[:5])
    if not operator.startswith("arn") and ("*" in head or "?" in head):
        return False
    return (account_of(pattern) or target.account) != target.account


def _locks_out(each: Statement, rule: Rule, target: Target) -> bool:
    """Whether the statement is a Deny that could keep one of the rule's break-glass principals from setting the tag."""
    if each.allows or rule.break_glass is None or not _could_name_user(each, target):
        return False
    if each.actions is not None and not any(
        glob_matches(pattern.lower(), action.lower()) for pattern in each.actions for action in TAGGING_ACTIONS
    ):
        return False
    for condition in each.conditions or ():
        tags = condition.key == "aws:tagkeys" and condition.operator in _POSITIVE and not condition.if_exists
        if tags and condition.quantifier == "foranyvalue" and not catches_tag(condition, rule.break_glass.tag):
            return False
        if condition.key == "aws:principalarn" and condition.operator in ("arnnotlike", "arnnotequals"):
            spared = condition.values
            if all(any(arn_covers(each_spared, own) for each_spared in spared) for own in rule.break_glass.principals):
                return False
    return True


def describe(each: Statement) -> str:
    """Return what the statement denies or allows, to whom and under which condition keys, in a short line."""
    name = f"statement {each.number}" + (f" ({each.sid[:60]!r})" if each.sid else "")
    if each.actions is not None:
        what = _shown(each.actions)
    else:
        what = f"all but {_shown(each.not_actions)}" if each.not_actions else "something that cannot be read"
    who = _shown(sorted(name for _, name in each.principals)) if each.principals else "all but some"
    effect = "allows" if each.allows else "denies"
    under = f" under {_shown([condition.key for condition in each.conditions])}" if each.conditions else ""
    return f"{name} {effect} {what} to {who}{under}"


def _shown(values: Sequence[str]) -> str:
    shown = ", ".join(value[:120] for value in values[:4])
    return f"{shown} and {len(values) - 4} more" if len(values) > 4 else shown
