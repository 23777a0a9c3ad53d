"""The statements that the managed key's policy must have, and how to add missing ones without losing a word."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from chalicelib.domain.keypolicy.document import Statement, read_document
from chalicelib.domain.keypolicy.meaning import (
    allows,
    catches_tag,
    lets_through,
    names_action,
    names_whole_key,
    spares_only,
)
from chalicelib.domain.model import Target
from chalicelib.domain.policy import EVERY_READER, BreakGlass, Rule
from chalicelib.domain.spans import SPANS_GROUP

LONGEST_POLICY_BYTES = 32 * 1024
"""KMS's quota for a key policy: https://docs.aws.amazon.com/kms/latest/developerguide/resource-limits.html"""

ROOT = "account-root"
XRAY = "x-ray"
READERS = "trace-readers"
BREAK_GLASS = "break-glass-deny"
LOGS = "cloudwatch-logs"

XRAY_SERVICE = "xray.amazonaws.com"
XRAY_ACTIONS = ("kms:GenerateDataKey", "kms:Decrypt")
READER_ACTIONS = ("kms:Decrypt",)
LOGS_ACTIONS = ("kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*")
LOGS_USES = (
    "kms:Encrypt",
    "kms:Decrypt",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:DescribeKey",
)
TAGGING_ACTIONS = ("kms:TagResource", "kms:UntagResource")


class PolicyTooLong(ValueError):
    """With the missing statements the policy would exceed KMS's limit, so somebody must shorten it first."""


def initial_policy(rule: Rule, target: Target, partition: str) -> str:
    """Return the policy of a new key: only the wanted statements."""
    statements = [wanted.statement for wanted in wanted_statements(rule, target, partition)]
    return json.dumps({"Version": "2012-10-17", "Id": "xray-encryption", "Statement": statements}, indent=2)


def merge(text: str, rule: Rule, target: Target, partition: str) -> str:
    """Return `with_statements` for those that the rule requires of every managed key."""
    return with_statements(text, wanted_statements(rule, target, partition))


def with_statements(text: str, wanted: Sequence[Wanted]) -> str:
    """Return the policy with the missing statements appended; the same text if none is missing.

    Everything else stays, token for token and in order; only white space may change. Raises UnreadablePolicy and
    PolicyTooLong.
    """
    document = read_document(text)
    missing = missing_statements(wanted, document.statements)
    if not missing:
        return text
    taken = {statement.sid for statement in document.statements}
    added = [
        {**each.statement, "Sid": _free_sid(each.statement["Sid"], taken)} for each in wanted if each.name in missing
    ]
    merged = msgspec.json.encode({**document.raw, "Statement": [*document.raw_statements, *added]})
    for indent in (2, -1):  # readable; without any white space if that is too long
        laid_out = msgspec.json.format(merged, indent=indent)
        if len(laid_out) <= LONGEST_POLICY_BYTES:
            return laid_out.decode()
    raise PolicyTooLong(
        f"with {', '.join(missing)} the key policy would have {len(laid_out)} bytes, but KMS allows "
        f"{LONGEST_POLICY_BYTES}; shorten one of its {len(document.statements)} statements"
    )


class Wanted(NamedTuple):
    """A statement that the policy must have, and a check whether other statements say at least the same."""

    name: str
    statement: dict[str, Any]
    is_said: Callable[[Sequence[Statement]], bool]


def wanted_statements(rule: Rule, target: Target, partition: str) -> tuple[Wanted, ...]:
    """Return the statements that the rule requires in the key's policy, in their order in a new key's policy."""
    wanted = [_root(target, partition), _xray(target, partition), _readers(rule, target, partition)]
    if rule.break_glass is not None:
        wanted.append(_break_glass(rule.break_glass, target, partition))
    return tuple(wanted)


def missing_statements(wanted: Iterable[Wanted], statements: Sequence[Statement]) -> tuple[str, ...]:
    """Return the names of the wanted statements that the given statements do not cover."""
    return tuple(each.name for each in wanted if not each.is_said(statements))


def _root(target: Target, partition: str) -> Wanted:
    root = f"arn:{partition}:iam::{target.account}:root"

    def is_said(statements: Sequence[Statement]) -> bool:
        # Only the account's principal lets IAM policies grant access; "*" would mean something else.
        return any(
            allows(each, "kms:*", target, partition)
            and not each.conditions
            and not {("AWS", root), ("AWS", target.account)}.isdisjoint(each.principals or ())
            for each in statements
        )

    return Wanted(
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


def _xray(target: Target, partition: str) -> Wanted:
    def is_said(statements: Sequence[Statement]) -> bool:
        # Which condition keys X-Ray's own calls have is not documented, so they may fail any condition.
        return all(
            any(
                allows(each, action, target, partition)
                and not each.conditions
                and ("Service", XRAY_SERVICE) in (each.principals or ())
                for each in statements
            )
            for action in XRAY_ACTIONS
        )

    return Wanted(
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


def _readers(rule: Rule, target: Target, partition: str) -> Wanted:
    via_xray = via(target)
    known = {"kms:calleraccount": target.account, "kms:viaservice": via_xray}
    conditions: dict[str, Any] = {"StringEquals": {"kms:CallerAccount": target.account, "kms:ViaService": via_xray}}
    patterns: tuple[str | None, ...] = (None,)  # None: any principal
    if rule.managed_key.trace_readers != EVERY_READER:
        patterns = tuple(rule.managed_key.trace_readers)
        conditions["ArnLike"] = {"aws:PrincipalArn": list(rule.managed_key.trace_readers)}

    def is_said(statements: Sequence[Statement]) -> bool:
        return all(
            any(
                allows(each, action, target, partition)
                and ("AWS", "*") in (each.principals or ())
                and all(lets_through(condition, known, pattern) for condition in each.conditions or ())
                for each in statements
            )
            for action in READER_ACTIONS
            for pattern in patterns
        )

    return Wanted(
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


def via(target: Target, service: str = "xray") -> str:
    """Return `kms:ViaService` of a request through a service; the suffix is the same in every partition."""
    return f"{service}.{target.region}.amazonaws.com"


def logs_statement(target: Target, partition: str) -> Wanted:
    """Return the statement by which CloudWatch Logs may encrypt spans, and nothing else.

    In China the principal's suffix is not documented: the guard writes the partition's own, and accepts either.
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
    """
    context = "kms:EncryptionContext:aws:logs:arn"
    group = f"arn:{partition}:logs:{target.region}:{target.account}:log-group:{SPANS_GROUP}"
    principals = [f"logs.{target.region}.amazonaws.com{suffix}" for suffix in ("", ".cn")]

    def is_said(statements: Sequence[Statement]) -> bool:
        return all(
            any(
                allows(each, action, target, partition)
                and any(("Service", principal) in (each.principals or ()) for principal in principals)
                and all(lets_through(condition, {context.lower(): group}, None) for condition in each.conditions or ())
                for each in statements
            )
            for action in LOGS_USES
        )

    return Wanted(
        LOGS,
        {
            "Sid": "CloudWatchLogsEncryptsSpans",
            "Effect": "Allow",
            "Principal": {"Service": principals[partition == "aws-cn"]},
            "Action": list(LOGS_ACTIONS),
            "Resource": "*",
            "Condition": {"ArnEquals": {context: group}},
        },
        is_said,
    )


def _break_glass(break_glass: BreakGlass, target: Target, partition: str) -> Wanted:
    tag, principals = break_glass.tag, break_glass.principals

    def denies(each: Statement, action: str) -> bool:
        return (
            not each.allows
            and each.understood
            and ("AWS", "*") in (each.principals or ())
            and names_action(each, action)
            and names_whole_key(each, target, partition)
            and all(
                catches_tag(condition, tag) or spares_only(condition, principals) for condition in each.conditions or ()
            )
        )

    def is_said(statements: Sequence[Statement]) -> bool:
        return all(any(denies(each, action) for each in statements) for action in TAGGING_ACTIONS)

    return Wanted(
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
