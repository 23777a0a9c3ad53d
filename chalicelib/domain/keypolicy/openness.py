"""Find the statements of a key policy that let in principals outside the key's account.

Only what certainly keeps them out counts: in doubt, a statement is open. The guard reports such a statement and never
removes it (P13).
"""

from __future__ import annotations

from functools import lru_cache

from chalicelib.domain.keypolicy.document import Condition, Statement, UnreadablePolicy, read_document
from chalicelib.domain.keypolicy.judge import account_of, describe
from chalicelib.domain.keypolicy.meaning import varies
from chalicelib.domain.model import Target

_OF_THE_CALLER = frozenset({"aws:principalaccount", "aws:sourceaccount", "kms:calleraccount"})
"""A request outside the account has another account in these keys, or lacks them."""

_EXACT = frozenset({"stringequals", "stringequalsignorecase"})
_OF_ARNS = frozenset({"arnequals", "arnlike"})


@lru_cache(maxsize=32)
def open_statements(text: str, target: Target) -> tuple[str, ...]:
    """Describe each Allow that lets in principals outside the account, or everybody. Never raises.

    Empty for a text that is not a policy: `judge_policy` reports that.
    """
    try:
        statements = read_document(text).statements
    except UnreadablePolicy:
        return ()
    return tuple(describe(each) for each in statements if each.allows and _is_open(each, target))


def _is_open(each: Statement, target: Target) -> bool:
    if any(_names_another(condition, target) for condition in each.conditions or ()):
        return True
    outside = each.principals is None or any(_is_outside(kind, name, target) for kind, name in each.principals)
    return outside and not any(_keeps_in(condition, target) for condition in each.conditions or ())


def _names_another(condition: Condition, target: Target) -> bool:
    """Whether a service may act for another account: the statement says so."""
    source = condition.key in ("aws:sourceaccount", "aws:sourcearn")
    return source and any(account_of(each) not in (None, target.account) for each in condition.values)


def _is_outside(kind: str, name: str, target: Target) -> bool:
    """Whether the principal may be outside the account. A service acts for known accounts."""
    if kind == "Service":
        return "*" in name
    if kind == "AWS" and name.startswith(("AROA", "AIDA")) and name.isalnum():
        return False  # a deleted principal, whose id is never used again
    return account_of(name) != target.account


def _keeps_in(condition: Condition, target: Target) -> bool:
    """Whether the condition certainly fails for every request of a principal outside the account."""
    if condition.if_exists or condition.quantifier or not condition.values or varies(condition):
        return False
    if condition.key in _OF_THE_CALLER:
        return condition.operator in _EXACT and set(condition.values) == {target.account}
    if condition.key == "aws:principalarn":
        # Under a String operator, a star before the account could match the colons that delimit the account.
        plain = condition.operator in _EXACT and not any("*" in each or "?" in each for each in condition.values)
        return (plain or condition.operator in _OF_ARNS) and all(
            account_of(each) == target.account for each in condition.values
        )
    return False
