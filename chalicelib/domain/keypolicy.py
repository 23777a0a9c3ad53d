"""The managed key's policy: what it must say, whether it says it, and how to add what is missing without losing a word.

Policies are judged by meaning. Where the meaning is in doubt the doubt counts against the key: an Allow that may be
narrower than wanted counts as missing (adding ours is harmless), and a Deny that could hit X-Ray's use leaves the key
unproved. Merging copies every statement that KMS showed as the text it was and appends; it never rewrites one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from chalicelib.domain.model import Target
from chalicelib.domain.policy import EVERY_READER, BreakGlass, Rule, arn_covers, arn_matches, glob_covers, glob_matches

LONGEST_POLICY_BYTES = 32 * 1024
"""KMS's quota for a key policy: https://docs.aws.amazon.com/kms/latest/developerguide/resource-limits.html"""

ROOT = "account-root"
XRAY = "x-ray"
READERS = "trace-readers"
BREAK_GLASS = "break-glass-deny"

XRAY_SERVICE = "xray.amazonaws.com"
XRAY_ACTIONS = ("kms:GenerateDataKey", "kms:Decrypt")
READER_ACTIONS = ("kms:Decrypt",)
TAGGING_ACTIONS = ("kms:TagResource", "kms:UntagResource")

# What X-Ray, through its statement or through grants, and those who configure it and read traces may do with the key.
# Which operations its grants carry is not documented, so every use of a symmetric key is among them.
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
    """The text is no policy that this code understands; nothing may be written over it. The text says what is wrong."""


class PolicyTooLong(ValueError):
    """With what is missing the policy would be longer than KMS takes, so that somebody must shorten it first."""


class Verdict(Struct, frozen=True):
    """What a policy says, against what the rule asks.

    `missing` names statements (ROOT, XRAY, READERS, BREAK_GLASS) in that order; `foreign_denies` describes each Deny
    that could hit X-Ray's use; `lockouts` describes each that keeps the rule's own break-glass principals from the tag,
    which breaks not the key but break-glass. `problem` says why the text could not be read, and then all is missing.
    """

    missing: tuple[str, ...] = ()
    foreign_denies: tuple[str, ...] = ()
    problem: str | None = None
    lockouts: tuple[str, ...] = ()

    @property
    def proved(self) -> bool:
        """Whether X-Ray may be pointed at the key, as far as its policy goes."""
        return not (self.missing or self.foreign_denies or self.problem)


def initial(rule: Rule, target: Target, partition: str) -> str:
    """The policy that a new key gets: just the wanted statements."""
    statements = [wanted.statement for wanted in _wanted(rule, target, partition)]
    return json.dumps({"Version": "2012-10-17", "Id": "xray-encryption", "Statement": statements}, indent=2)


def judge(text: str, rule: Rule, target: Target, partition: str) -> Verdict:
    """Whether the policy says all that the rule asks, and nothing that could keep X-Ray from the key. Never raises.

    A run asks this of the same text at every step, and the next run asks it again: the latest answers are kept.
    """
    return _judged(text, rule, target, partition)


@lru_cache(maxsize=32)
def _judged(text: str, rule: Rule, target: Target, partition: str) -> Verdict:
    wanted = _wanted(rule, target, partition)
    try:
        statements = _read(text).statements
    except UnreadablePolicy as unreadable:
        return Verdict(missing=tuple(each.name for each in wanted), problem=str(unreadable))
    return Verdict(
        missing=_missing(wanted, statements),
        foreign_denies=tuple(_describe(each) for each in statements if _could_deny_use(each, target)),
        lockouts=tuple(_describe(each) for each in statements if _locks_out(each, rule, target)),
    )


def merge(text: str, rule: Rule, target: Target, partition: str) -> str:
    """The policy with what was missing appended; the very same text if nothing was.

    All that was there stays, token for token and in its order; only white space may change. Raises UnreadablePolicy and
    PolicyTooLong.
    """
    document = _read(text)
    wanted = _wanted(rule, target, partition)
    missing = _missing(wanted, document.statements)
    if not missing:
        return text
    taken = {statement.sid for statement in document.statements}
    added = [
        {**each.statement, "Sid": _free_sid(each.statement["Sid"], taken)} for each in wanted if each.name in missing
    ]
    merged = msgspec.json.encode({**document.raw, "Statement": [*document.raw_statements, *added]})
    for indent in (2, -1):  # as people read it; without any white space if that is too long
        laid_out = msgspec.json.format(merged, indent=indent)
        if len(laid_out) <= LONGEST_POLICY_BYTES:
            return laid_out.decode()
    raise PolicyTooLong(
        f"with {', '.join(missing)} the key policy would have {len(laid_out)} bytes, and KMS takes "
        f"{LONGEST_POLICY_BYTES}; shorten one of its {len(document.statements)} statements"
    )


def statements_for(names: Iterable[str], rule: Rule, target: Target, partition: str) -> str:
    """The wanted statements of these names as a JSON list: what a key's owner is told to add."""
    chosen = set(names)
    return json.dumps([each.statement for each in _wanted(rule, target, partition) if each.name in chosen], indent=2)


def difference(before: str, after: str) -> str:
    """What changed, for people: a unified diff of both texts, each laid out one value a line where it is JSON."""
    import difflib  # only people ask for this, and no function should pay for it at its start

    return "\n".join(difflib.unified_diff(_lines(before), _lines(after), "before", "after", lineterm=""))


def _lines(text: str) -> list[str]:
    try:
        return msgspec.json.format(text, indent=2).splitlines()
    except (ValueError, RecursionError):
        return text.splitlines()


# What does not leave this module is a NamedTuple: such a class costs a tenth of a frozen dataclass at import.

# --- Reading ---------------------------------------------------------------------------------------------------------


class _Condition(NamedTuple):
    operator: str  # lower case, without its set prefix and IfExists
    quantifier: str  # "forallvalues", "foranyvalue" or ""
    if_exists: bool
    key: str  # lower case
    values: tuple[str, ...]


class _Statement(NamedTuple):
    """One statement, its lists and single values alike. None means: not there, or not in a form that is known."""

    number: int
    sid: str | None
    allows: bool
    principals: frozenset[tuple[str, str]] | None
    actions: tuple[str, ...] | None
    not_actions: tuple[str, ...] | None
    resources: tuple[str, ...] | None
    conditions: tuple[_Condition, ...] | None
    understood: bool


class _Document(NamedTuple):
    raw: dict[str, msgspec.Raw]
    raw_statements: tuple[msgspec.Raw, ...]
    statements: tuple[_Statement, ...]


def _read(text: str) -> _Document:
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
    return _Document(
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


def _statement(number: int, read: object) -> _Statement:
    if not isinstance(read, dict):
        raise UnreadablePolicy(f"statement {number} of the key policy is not an object")
    effect, sid = read.get("Effect"), read.get("Sid")
    if effect not in ("Allow", "Deny"):
        raise UnreadablePolicy(f"statement {number} of the key policy has neither the effect Allow nor Deny")
    conditions = _conditions(read.get("Condition", {}))
    principals = _principals(read.get("Principal"))
    actions, resources = _texts(read.get("Action")), _texts(read.get("Resource"))
    return _Statement(
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


def _conditions(read: object) -> tuple[_Condition, ...] | None:
    if not isinstance(read, dict):
        return None
    conditions: list[_Condition] = []
    for written, block in read.items():
        if not isinstance(block, dict):
            return None
        quantifier, _, operator = written.lower().rpartition(":")
        for key, named in block.items():
            values = named if isinstance(named, list) else [named]
            if not all(isinstance(value, str | bool | int | float) for value in values):
                return None
            conditions.append(
                _Condition(
                    operator=operator.removesuffix("ifexists"),
                    quantifier=quantifier,
                    if_exists=operator.endswith("ifexists"),
                    key=key.lower(),
                    values=tuple(str(value).lower() if isinstance(value, bool) else str(value) for value in values),
                )
            )
    return tuple(conditions)


# --- What is wanted --------------------------------------------------------------------------------------------------


class _Wanted(NamedTuple):
    """A statement that the policy must have, and how to tell that other statements say at least the same."""

    name: str
    statement: dict[str, Any]
    is_said: Callable[[Sequence[_Statement]], bool]


def _wanted(rule: Rule, target: Target, partition: str) -> tuple[_Wanted, ...]:
    wanted = [_root(target, partition), _xray(target, partition), _readers(rule, target, partition)]
    if rule.break_glass is not None:
        wanted.append(_break_glass(rule.break_glass, target, partition))
    return tuple(wanted)


def _missing(wanted: Iterable[_Wanted], statements: Sequence[_Statement]) -> tuple[str, ...]:
    return tuple(each.name for each in wanted if not each.is_said(statements))


def _root(target: Target, partition: str) -> _Wanted:
    root = f"arn:{partition}:iam::{target.account}:root"

    def is_said(statements: Sequence[_Statement]) -> bool:
        # Only the account itself lets IAM grant; "everybody" would not mean the same.
        return any(
            _allows(each, "kms:*", target, partition)
            and not each.conditions
            and not {("AWS", root), ("AWS", target.account)}.isdisjoint(each.principals or ())
            for each in statements
        )

    return _Wanted(
        ROOT,
        {
            "Sid": "AccountByIam",
            "Effect": "Allow",
            "Principal": {"AWS": root},
            "Action": "kms:*",
            "Resource": "*",
        },
        is_said,
    )


def _xray(target: Target, partition: str) -> _Wanted:
    def is_said(statements: Sequence[_Statement]) -> bool:
        # Which condition keys X-Ray's own calls carry is not documented, so any condition may be one that they fail.
        return all(
            any(
                _allows(each, action, target, partition)
                and not each.conditions
                and ("Service", XRAY_SERVICE) in (each.principals or ())
                for each in statements
            )
            for action in XRAY_ACTIONS
        )

    return _Wanted(
        XRAY,
        {
            "Sid": "XRayEncryptsTraces",
            "Effect": "Allow",
            "Principal": {"Service": XRAY_SERVICE},
            "Action": list(XRAY_ACTIONS),
            "Resource": "*",
        },
        is_said,
    )


def _readers(rule: Rule, target: Target, partition: str) -> _Wanted:
    via_xray = via(target)
    known = {"kms:calleraccount": target.account, "kms:viaservice": via_xray}
    conditions: dict[str, Any] = {"StringEquals": {"kms:CallerAccount": target.account, "kms:ViaService": via_xray}}
    patterns: tuple[str | None, ...] = (None,)  # None: whoever it is
    if rule.managed_key.trace_readers != EVERY_READER:
        patterns = tuple(rule.managed_key.trace_readers)
        conditions["ArnLike"] = {"aws:PrincipalArn": list(rule.managed_key.trace_readers)}

    def is_said(statements: Sequence[_Statement]) -> bool:
        return all(
            any(
                _allows(each, action, target, partition)
                and ("AWS", "*") in (each.principals or ())
                and all(_lets_through(condition, known, pattern) for condition in each.conditions or ())
                for each in statements
            )
            for action in READER_ACTIONS
            for pattern in patterns
        )

    return _Wanted(
        READERS,
        {
            "Sid": "TraceReadersThroughXRay",
            "Effect": "Allow",
            "Principal": {"AWS": "*"},
            "Action": list(READER_ACTIONS),
            "Resource": "*",
            "Condition": conditions,
        },
        is_said,
    )


def via(target: Target) -> str:
    """What `kms:ViaService` says of a request that came through X-Ray; the suffix is the same in every partition."""
    return f"xray.{target.region}.amazonaws.com"


def _break_glass(break_glass: BreakGlass, target: Target, partition: str) -> _Wanted:
    tag, principals = break_glass.tag, break_glass.principals

    def denies(each: _Statement, action: str) -> bool:
        return (
            not each.allows
            and each.understood
            and ("AWS", "*") in (each.principals or ())
            and _names_action(each, action)
            and _names_whole_key(each, target, partition)
            and all(
                _catches_tag(condition, tag) or _spares_only(condition, principals)
                for condition in each.conditions or ()
            )
        )

    def is_said(statements: Sequence[_Statement]) -> bool:
        return all(any(denies(each, action) for each in statements) for action in TAGGING_ACTIONS)

    return _Wanted(
        BREAK_GLASS,
        {
            "Sid": "BreakGlassTag",
            "Effect": "Deny",
            "Principal": {"AWS": "*"},
            "Action": list(TAGGING_ACTIONS),
            "Resource": "*",
            "Condition": {
                "ForAnyValue:StringEquals": {"aws:TagKeys": [tag]},
                "ArnNotLike": {"aws:PrincipalArn": list(principals)},
            },
        },
        is_said,
    )


def _free_sid(sid: str, taken: set[str | None]) -> str:
    number = 2
    free = sid
    while free in taken:
        free, number = f"{sid}{number}", number + 1
    return free


# --- Judging ---------------------------------------------------------------------------------------------------------


def _allows(each: _Statement, action: str, target: Target, partition: str) -> bool:
    """Whether the statement, but for its principals and conditions, certainly allows the action on the key."""
    return each.allows and each.understood and _names_action(each, action) and _names_whole_key(each, target, partition)


def _names_action(each: _Statement, action: str) -> bool:
    return any(glob_covers(pattern.lower(), action.lower()) for pattern in each.actions or ())


def _names_whole_key(each: _Statement, target: Target, partition: str) -> bool:
    # The policy's own key is not known here; a statement that names one key may name another one by mistake.
    any_key = f"arn:{partition}:kms:{target.region}:{target.account}:key/*"
    return any(glob_covers(resource, any_key) for resource in each.resources or ())


def _lets_through(condition: _Condition, known: dict[str, str], principal: str | None) -> bool:
    """Whether the condition certainly holds for requests with these values, made by any ARN that fits the pattern."""
    if condition.quantifier or _varies(condition):
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
    if condition.key == "aws:principalarn" and principal is not None:
        covers = _ARN_COVERS.get(condition.operator)
        return covers is not None and any(covers(each, principal) for each in condition.values)
    return False


# ArnEquals and ArnLike behave alike; StringLike lets a star reach over colons.
_ARN_COVERS: dict[str, Callable[[str, str], bool]] = {
    "arnlike": arn_covers,
    "arnequals": arn_covers,
    "stringlike": glob_covers,
}


def _catches_tag(condition: _Condition, tag: str) -> bool:
    """Whether the condition certainly holds when a request sets or removes the tag."""
    if condition.quantifier != "foranyvalue" or condition.key != "aws:tagkeys" or _varies(condition):
        return False
    match condition.operator:
        case "stringequals":
            return tag in condition.values
        case "stringequalsignorecase":
            return tag.lower() in {value.lower() for value in condition.values}
        case "stringlike":
            return any(glob_matches(value, tag) for value in condition.values)
    return False


def _spares_only(condition: _Condition, principals: Sequence[str]) -> bool:
    """Whether the condition fails for none but those whose ARN fits one of the patterns."""
    if condition.quantifier or condition.key != "aws:principalarn" or not condition.values or _varies(condition):
        return False
    match condition.operator:
        case "arnnotlike" | "arnnotequals":
            return all(any(arn_covers(each, spared) for each in principals) for spared in condition.values)
        case "stringnotequals":
            return all(any(arn_matches(each, spared) for each in principals) for spared in condition.values)
    return False


def _varies(condition: _Condition) -> bool:
    """Whether a value holds a policy variable, which is known only to the request."""
    return any("${" in value for value in condition.values)


def _could_deny_use(each: _Statement, target: Target) -> bool:
    """Whether the statement is a Deny that could hit a use of the key: by X-Ray, its configurer, or a trace reader."""
    return (
        not each.allows
        and _could_name_use(each)
        and _could_name_user(each, target)
        and not any(_never_holds(condition, target) for condition in each.conditions or ())
    )


def _could_name_use(each: _Statement) -> bool:
    if each.actions is not None:
        return any(glob_matches(pattern.lower(), use.lower()) for pattern in each.actions for use in _USES)
    if each.not_actions is not None:
        return not all(any(glob_matches(spared.lower(), use.lower()) for spared in each.not_actions) for use in _USES)
    return True


def _could_name_user(each: _Statement, target: Target) -> bool:
    return each.principals is None or any(_could_be_user(kind, name, target) for kind, name in each.principals)


def _could_be_user(kind: str, name: str, target: Target) -> bool:
    if kind == "Service":
        return "*" in name or not name.endswith(".amazonaws.com") or name.startswith("xray.")
    if kind != "AWS":
        return True
    # KMS shows the unique id in place of the ARN once the principal is gone, and no later one ever gets that id.
    if name.startswith(("AROA", "AIDA")) and name.isalnum():
        return False
    return (_account_of(name) or target.account) == target.account


def _account_of(principal: str) -> str | None:
    """The account that an account id, or a principal's ARN or ARN pattern, certainly belongs to."""
    parts = principal.split(":", 5)
    account = parts[4] if len(parts) == 6 and parts[0] == "arn" else principal
    return account if len(account) == 12 and account.isascii() and account.isdigit() else None


def _never_holds(condition: _Condition, target: Target) -> bool:
    """Whether the condition certainly fails in every use of the key.

    Known of a use: it comes over TLS (KMS takes nothing else), it carries no tags, it comes through X-Ray or through no
    service, and who is no service is of the target's account.
    """
    if condition.if_exists or not condition.values or _varies(condition):
        return False
    key, operator, values = condition.key, condition.operator, condition.values
    if key == "aws:tagkeys" or key.startswith("aws:requesttag/"):
        return condition.quantifier in ("", "foranyvalue") and operator in _POSITIVE
    if condition.quantifier:
        return False
    if key == "aws:securetransport":
        return operator == "bool" and all(value.lower() == "false" for value in values)
    if key == "kms:viaservice":
        return operator in _POSITIVE and not any(glob_matches(each.lower(), via(target)) for each in values)
    if key == "aws:principalarn":
        return operator in _POSITIVE and all(_surely_elsewhere(each, operator, target) for each in values)
    return False


_POSITIVE = frozenset({"stringequals", "stringequalsignorecase", "stringlike", "arnlike", "arnequals"})


def _surely_elsewhere(pattern: str, operator: str, target: Target) -> bool:
    # Under a String operator a star before the account could reach over the colons that tell where the account stands.
    head = ":".join(pattern.split(":", 5)[:5])
    if not operator.startswith("arn") and ("*" in head or "?" in head):
        return False
    return (_account_of(pattern) or target.account) != target.account


def _locks_out(each: _Statement, rule: Rule, target: Target) -> bool:
    """Whether the statement is a Deny that could keep one of the rule's break-glass principals from setting the tag."""
    if each.allows or rule.break_glass is None or not _could_name_user(each, target):
        return False
    if each.actions is not None and not any(
        glob_matches(pattern.lower(), action.lower()) for pattern in each.actions for action in TAGGING_ACTIONS
    ):
        return False
    for condition in each.conditions or ():
        tags = condition.key == "aws:tagkeys" and condition.operator in _POSITIVE and not condition.if_exists
        if tags and condition.quantifier == "foranyvalue" and not _catches_tag(condition, rule.break_glass.tag):
            return False
        if condition.key == "aws:principalarn" and condition.operator in ("arnnotlike", "arnnotequals"):
            spared = condition.values
            if all(any(arn_covers(each_spared, own) for each_spared in spared) for own in rule.break_glass.principals):
                return False
    return True


def _describe(each: _Statement) -> str:
    name = f"statement {each.number}" + (f" ({each.sid[:60]!r})" if each.sid else "")
    if each.actions is not None:
        what = _shown(each.actions)
    else:
        what = f"all but {_shown(each.not_actions)}" if each.not_actions else "something that cannot be read"
    who = _shown(sorted(name for _, name in each.principals)) if each.principals else "all but some"
    under = f" under {_shown([condition.key for condition in each.conditions])}" if each.conditions else ""
    return f"{name} denies {what} to {who}{under}"


def _shown(values: Sequence[str]) -> str:
    shown = ", ".join(value[:120] for value in values[:4])
    return f"{shown} and {len(values) - 4} more" if len(values) > 4 else shown
