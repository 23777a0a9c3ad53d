"""The text of a key policy as a document of statements, and the difference between two texts."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec

_ELEMENTS = frozenset(
    {
        "Sid",
        "Effect",
        "Principal",
        "NotPrincipal",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Condition",
    }
)


class UnreadablePolicy(ValueError):
    """This code does not understand the policy, so it must not be overwritten. The text says what is wrong."""


# Values passed only between these modules are NamedTuples: at import, one costs a tenth of a frozen dataclass.


class Condition(NamedTuple):
    """One parsed condition on one condition key."""

    operator: str  # lower case, without its set prefix and IfExists
    quantifier: str  # "forallvalues", "foranyvalue" or ""
    if_exists: bool
    key: str  # lower case
    values: tuple[str, ...]


class Statement(NamedTuple):
    """One statement. Single values are read as lists. None means absent, or in an unknown form."""

    number: int
    sid: str | None
    allows: bool
    principals: frozenset[tuple[str, str]] | None
    actions: tuple[str, ...] | None
    not_actions: tuple[str, ...] | None
    resources: tuple[str, ...] | None
    conditions: tuple[Condition, ...] | None
    understood: bool


class Document(NamedTuple):
    """A policy as raw text, to be copied, and as statements, to be judged."""

    raw: dict[str, msgspec.Raw]
    raw_statements: tuple[msgspec.Raw, ...]
    statements: tuple[Statement, ...]


def read_document(text: str) -> Document:
    """Parse a policy's text. Raises UnreadablePolicy if anything in it is not certainly understood."""
    try:
        parsed = json.loads(text, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
        raw = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        listed = isinstance(parsed.get("Statement"), list)
        raw_statements = msgspec.json.decode(raw["Statement"], type=list[msgspec.Raw]) if listed else [raw["Statement"]]
    except UnreadablePolicy:
        raise
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise UnreadablePolicy(f"the key policy is not a JSON object with a Statement: {error}") from error
    parsed_statements = parsed["Statement"] if listed else [parsed["Statement"]]
    return Document(
        raw=raw,
        raw_statements=tuple(raw_statements),
        statements=tuple(_statement(number, each) for number, each in enumerate(parsed_statements, start=1)),
    )


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise UnreadablePolicy("the key policy has an object with the same key twice")
    return read


def _no_constant(name: str) -> Any:
    raise UnreadablePolicy(f"the key policy has {name}, which is not JSON")


def _statement(number: int, read: object) -> Statement:
    if not isinstance(read, dict):
        raise UnreadablePolicy(f"statement {number} of the key policy is not an object")
    effect, sid = read.get("Effect"), read.get("Sid")
    if effect not in ("Allow", "Deny"):
        raise UnreadablePolicy(f"statement {number} of the key policy has neither the effect Allow nor Deny")
    conditions = _conditions(read.get("Condition", {}))
    principals = _principals(read.get("Principal"))
    actions, resources = _texts(read.get("Action")), _texts(read.get("Resource"))
    return Statement(
        number=number,
        sid=sid if isinstance(sid, str) else None,
        allows=effect == "Allow",
        principals=principals,
        actions=actions,
        not_actions=_texts(read.get("NotAction")),
        resources=resources,
        conditions=conditions,
        understood=None not in (principals, actions, resources, conditions)
        and read.keys() <= _ELEMENTS - {"NotPrincipal", "NotAction", "NotResource"},
    )


def _texts(read: object) -> tuple[str, ...] | None:
    values = read if isinstance(read, list) else [read]
    texts = tuple(value for value in values if isinstance(value, str))
    return texts if texts and len(texts) == len(values) else None


def _principals(read: object) -> frozenset[tuple[str, str]] | None:
    if read == "*":
        return frozenset({("AWS", "*")})
    if not isinstance(read, dict) or not read:
        return None
    pairs: set[tuple[str, str]] = set()
    for kind, named in read.items():
        values = _texts(named)
        if values is None:
            return None
        pairs.update((kind, value) for value in values)
    return frozenset(pairs)


def _conditions(read: object) -> tuple[Condition, ...] | None:
    if not isinstance(read, dict):
        return None
    conditions: list[Condition] = []
    for written, block in read.items():
        if not isinstance(block, dict):
            return None
        quantifier, _, operator = written.lower().rpartition(":")
        for key, named in block.items():
            values = named if isinstance(named, list) else [named]
            if not all(isinstance(value, str | bool | int | float) for value in values):
                return None
            conditions.append(
                Condition(
                    operator=operator.removesuffix("ifexists"),
                    quantifier=quantifier,
                    if_exists=operator.endswith("ifexists"),
                    key=key.lower(),
                    values=tuple(str(value).lower() if isinstance(value, bool) else str(value) for value in values),
                )
            )
    return tuple(conditions)


def difference(before: str, after: str) -> str:
    """Return a unified diff of both texts for people; JSON is formatted with one value per line."""
    import difflib  # only people need this, and no function should pay for it at its cold start

    return "\n".join(difflib.unified_diff(_lines(before), _lines(after), "before", "after", lineterm=""))


def _lines(text: str) -> list[str]:
    try:
        return msgspec.json.format(text, indent=2).splitlines()
    except (ValueError, RecursionError):
        return text.splitlines()
