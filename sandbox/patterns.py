"""EventBridge's event patterns. moto's matcher does not support lists of objects, such as CloudTrail's `resources`.

Source: EventBridge user guide, "Creating event patterns" and "Comparison operators".
"""

from __future__ import annotations

import fnmatch
import ipaddress
from typing import Any

_ABSENT = object()


def matches(pattern: dict[str, Any], event: Any) -> bool:
    """Whether every field of the pattern matches. One element of a list of objects must match all fields below it."""
    if isinstance(event, list):
        return any(matches(pattern, each) for each in event)
    for name, wanted in pattern.items():
        if name == "$or":
            if not any(matches(each, event) for each in wanted):
                return False
            continue
        given = event.get(name, _ABSENT) if isinstance(event, dict) else _ABSENT
        if isinstance(wanted, dict):
            if given is _ABSENT and not _only_absence(wanted):
                return False
            if not matches(wanted, {} if given is _ABSENT else given):
                return False
        elif not any(_fits(each, given) for each in wanted):
            return False
    return True


def _only_absence(pattern: dict[str, Any]) -> bool:
    """Whether a pattern matches an absent value: it only requires that fields do not exist."""
    return all(
        _only_absence(each) if isinstance(each, dict) else {"exists": False} in each for each in pattern.values()
    )


def _fits(wanted: Any, given: Any) -> bool:
    if isinstance(wanted, dict):
        (operator, operand), *_ = wanted.items()
        if operator == "exists":
            return (given is not _ABSENT) == bool(operand)
        values = given if isinstance(given, list) else [given]
        return given is not _ABSENT and any(_compares(operator, operand, value) for value in values)
    values = given if isinstance(given, list) else [given]
    return any(type(value) is type(wanted) and value == wanted for value in values) or (
        _is_number(wanted) and any(_is_number(value) and value == wanted for value in values)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _compares(operator: str, operand: Any, value: Any) -> bool:
    if operator == "anything-but":
        if isinstance(operand, dict):
            (inner, wanted), *_ = operand.items()
            return not any(_compares(inner, each, value) for each in (wanted if isinstance(wanted, list) else [wanted]))
        return value not in (operand if isinstance(operand, list) else [operand])
    if operator in ("prefix", "suffix") and isinstance(operand, dict):
        folded = str(operand.get("equals-ignore-case", "")).lower()
        return isinstance(value, str) and _compares(operator, folded, value.lower())
    if operator == "numeric":
        return _is_number(value) and all(
            _orders(sign, value, limit) for sign, limit in zip(operand[::2], operand[1::2], strict=True)
        )
    if not isinstance(value, str):
        return False
    if operator == "prefix":
        return value.startswith(operand)
    if operator == "suffix":
        return value.endswith(operand)
    if operator == "equals-ignore-case":
        return value.lower() == str(operand).lower()
    if operator == "wildcard":
        return fnmatch.fnmatchcase(value, str(operand).replace("[", "[[]").replace("?", "[?]"))
    if operator == "cidr":
        try:
            return ipaddress.ip_address(value) in ipaddress.ip_network(operand)
        except ValueError:
            return False
    raise ValueError(f"EventBridge has no comparison {operator!r}")


def _orders(sign: str, value: float, limit: float) -> bool:
    return {
        "<": value < limit,
        "<=": value <= limit,
        "=": value == limit,
        ">=": value >= limit,
        ">": value > limit,
    }[sign]
