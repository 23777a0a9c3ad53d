"""Evaluate policy statements as IAM does, as far as key policies need it.

Identity policies are assumed to allow everything, because the sandbox enforces none; only KMS's lock-out safety check
evaluates them.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """One call as a policy sees it. If an AWS service itself calls, `service` is set and `principal_arn` is empty.

    `context` maps the condition keys, in lower case, to all their values.
    """

    action: str
    account: str = ""
    principal_arn: str = ""
    session_arn: str = ""
    service: str = ""
    context: Mapping[str, Sequence[str]] = field(default_factory=dict)


def statements_of(policy: str) -> list[dict[str, Any]]:
    """Return the policy's statements; none if the text is not a policy."""
    try:
        found = json.loads(policy).get("Statement", [])
    except (ValueError, AttributeError):
        return []
    found = found if isinstance(found, list) else [found]
    return [each for each in found if isinstance(each, dict)]


def denied(policy: str, request: Request) -> bool:
    """Whether a Deny of the policy applies to the request."""
    return any(each.get("Effect") == "Deny" and applies(each, request) for each in statements_of(policy))


def allowed(policy: str, request: Request) -> bool:
    """Whether an Allow applies, where the account's root means all its principals, and no Deny."""
    return not denied(policy, request) and any(
        each.get("Effect") == "Allow" and applies(each, request) for each in statements_of(policy)
    )


def granted(policies: Sequence[str], request: Request) -> bool:
    """Whether identity policies, which name no principal, allow the request. The resource is not compared."""
    fitting = [each for policy in policies for each in statements_of(policy) if _fits_but_for_principal(each, request)]
    return bool(fitting) and all(each.get("Effect") == "Allow" for each in fitting)


def applies(statement: Mapping[str, Any], request: Request) -> bool:
    """Whether principal, action and all conditions match. The resource is always the key itself."""
    return _principal_fits(statement, request) and _fits_but_for_principal(statement, request)


def _fits_but_for_principal(statement: Mapping[str, Any], request: Request) -> bool:
    return _action_fits(statement, request.action) and all(
        _condition_fits(operator, key, wanted, request)
        for operator, block in _mapping(statement.get("Condition")).items()
        for key, wanted in _mapping(block).items()
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return the value as a list: IAM treats a single value as a list of one."""
    return value if isinstance(value, list) else [value]


def _principal_fits(statement: Mapping[str, Any], request: Request) -> bool:
    if "NotPrincipal" in statement:
        return not _names(statement["NotPrincipal"], request)
    return _names(statement.get("Principal"), request)


def _names(principal: Any, request: Request) -> bool:
    if principal == "*":
        return True
    for kind, values in _mapping(principal).items():
        for value in as_list(values):
            if not isinstance(value, str):
                continue
            if kind == "Service" and request.service and value == request.service:
                return True
            if kind == "AWS" and not request.service and _is_principal(value, request):
                return True
            if kind == "AWS" and value == "*":
                return True
    return False


def _is_principal(value: str, request: Request) -> bool:
    account_root = value == request.account or (
        value.startswith("arn:") and value.endswith(f":iam::{request.account}:root")
    )
    return value in ("*", request.principal_arn, request.session_arn) or account_root


def _action_fits(statement: Mapping[str, Any], action: str) -> bool:
    def fits(patterns: Any) -> bool:
        return any(glob(str(each).lower(), action.lower()) for each in as_list(patterns))

    if "NotAction" in statement:
        return not fits(statement["NotAction"])
    return fits(statement.get("Action", []))


def glob(pattern: str, text: str) -> bool:
    """Match with IAM's wildcards, only `*` and `?`; `[` is not special."""
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def _arn_glob(pattern: str, text: str) -> bool:
    wanted, given = pattern.split(":", 5), text.split(":", 5)
    return len(wanted) == len(given) == 6 and all(glob(w, g) for w, g in zip(wanted, given, strict=True))


_TESTS: dict[str, Callable[[str, str], bool]] = {
    "stringequals": lambda wanted, given: wanted == given,
    "stringequalsignorecase": lambda wanted, given: wanted.lower() == given.lower(),
    "stringlike": glob,
    "arnequals": _arn_glob,
    "arnlike": _arn_glob,
    "bool": lambda wanted, given: wanted.lower() == given.lower(),
    "numericequals": lambda wanted, given: float(wanted) == float(given),
}


def _condition_fits(operator: str, key: str, wanted: Any, request: Request) -> bool:
    """Whether one condition matches. An unknown operator never matches, so it neither allows nor denies."""
    name = operator.lower()
    given = request.context.get(key.lower())
    values = [str(each).lower() if isinstance(each, bool) else str(each) for each in as_list(wanted)]
    if name == "null":
        return (given is None) == (values[0].lower() == "true")
    quantifier, _, rest = name.rpartition(":")
    if_exists = rest.endswith("ifexists")
    rest = rest.removesuffix("ifexists")
    negated = "not" in rest
    test = _TESTS.get(rest.replace("not", "", 1))
    if test is None:
        return False

    def one(value: str) -> bool:
        hit = any(test(each, value) for each in values)
        return not hit if negated else hit

    if given is None:
        return if_exists or quantifier == "forallvalues" or (negated and quantifier != "foranyvalue")
    if quantifier == "forallvalues":
        return all(one(value) for value in given)
    return any(one(value) for value in given)
