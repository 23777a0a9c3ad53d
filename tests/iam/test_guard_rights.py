"""What the guard's role may do, by its own policy and the key's: each call of the loop, and no harm (P13)."""

from __future__ import annotations

import re
from typing import Any

import pytest

from chalicelib.aws.kms import METHODS
from tests.iam.simulator import ACCOUNT, EVERYTHING, PROJECT, Policy, Question, ask

pytestmark = pytest.mark.usefixtures("simulated")

GUARD = f"arn:aws:iam::{ACCOUNT}:role/xray-guard"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/0a1b2c3d-0000-4000-8000-000000000001"
FOREIGN_KEY = "arn:aws:kms:us-east-1:999988887777:key/0a1b2c3d-0000-4000-8000-000000000001"
ALIAS = f"arn:aws:kms:us-east-1:{ACCOUNT}:alias/xray-encryption"
AUDIT = f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/xray-guard-audit"
TARGETS = f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/xray-guard-targets"
QUEUE = f"arn:aws:sqs:us-east-1:{ACCOUNT}:xray-guard-dead-letters"
LOGS = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/xray-guard-tick:log-stream:x"
BREAK_GLASS = f"arn:aws:iam::{ACCOUNT}:role/SecurityBreakGlass"

Context = dict[str, str | list[str]]
NOTHING: Context = {}
MANAGED: Context = {"aws:ResourceTag/xray-guard": "managed"}
UNTAGGED: Context = {"aws:ResourceTag/team": "a"}
UNDER_THE_ALIAS: Context = {**UNTAGGED, "kms:ResourceAliases": ["alias/theirs", "alias/xray-encryption"]}
UNDER_ANOTHER_ALIAS: Context = {**UNTAGGED, "kms:ResourceAliases": ["alias/theirs"]}
NEW_KEY: Context = {
    "aws:TagKeys": ["purpose", "xray-guard", "xray-guard-nonce"],
    "aws:RequestTag/purpose": "xray-encryption",
    "aws:RequestTag/xray-guard": "managed",
    "aws:RequestTag/xray-guard-nonce": "n",
}
BYPASS: Context = {"kms:BypassPolicyLockoutSafetyCheck": "true"}
CHECKED: Context = {"kms:BypassPolicyLockoutSafetyCheck": "false"}
THROUGH_XRAY: Context = {"kms:ViaService": "xray.us-east-1.amazonaws.com", "kms:GrantIsForAWSResource": "true"}

CALLS: list[tuple[str, str, Context]] = [
    ("xray:GetEncryptionConfig", "*", NOTHING),
    ("xray:PutEncryptionConfig", "*", NOTHING),
    ("xray:GetServiceGraph", "*", NOTHING),
    ("ec2:DescribeRegions", "*", NOTHING),
    ("kms:ListKeys", "*", NOTHING),
    ("kms:CreateKey", "*", NEW_KEY),
    ("kms:CreateKey", "*", {**NEW_KEY, **BYPASS}),
    ("kms:CreateKey", "*", {**NEW_KEY, **CHECKED}),
    # If KMS checks PutKeyPolicy for the policy that CreateKey brings, then in the context of that request.
    ("kms:PutKeyPolicy", "*", {**NEW_KEY, **BYPASS}),
    ("kms:TagResource", KEY, NEW_KEY),
    ("kms:DescribeKey", KEY, UNTAGGED),
    ("kms:GetKeyPolicy", KEY, UNTAGGED),
    ("kms:GetKeyRotationStatus", KEY, UNTAGGED),
    ("kms:ListResourceTags", KEY, UNTAGGED),
    ("kms:PutKeyPolicy", KEY, MANAGED),
    ("kms:PutKeyPolicy", KEY, {**MANAGED, **CHECKED}),
    ("kms:EnableKey", KEY, MANAGED),
    ("kms:CancelKeyDeletion", KEY, MANAGED),
    ("kms:EnableKeyRotation", KEY, MANAGED),
    ("kms:CreateAlias", ALIAS, NOTHING),
    ("kms:CreateAlias", KEY, MANAGED),
    ("kms:UpdateAlias", ALIAS, NOTHING),
    ("kms:UpdateAlias", KEY, MANAGED),
    ("kms:UpdateAlias", KEY, UNDER_THE_ALIAS),
    ("kms:CreateGrant", KEY, {**MANAGED, **THROUGH_XRAY}),
    ("iam:ListRoleTags", BREAK_GLASS, NOTHING),
    ("dynamodb:BatchGetItem", AUDIT, NOTHING),
    ("dynamodb:BatchGetItem", TARGETS, NOTHING),
    ("dynamodb:ConditionCheckItem", AUDIT, NOTHING),
    ("dynamodb:PutItem", AUDIT, NOTHING),
    ("dynamodb:PutItem", TARGETS, NOTHING),
    ("dynamodb:Query", f"{TARGETS}/index/by_due", NOTHING),
    ("dynamodb:UpdateItem", TARGETS, NOTHING),
    ("sqs:SendMessage", QUEUE, NOTHING),
    ("logs:CreateLogStream", LOGS, NOTHING),
    ("logs:PutLogEvents", LOGS, NOTHING),
    ("s3:PutObject", "arn:aws:s3:::anchors/anchors/2026/11/20/120000-1.json", NOTHING),
]

FORBIDDEN_WHATEVER_ELSE: list[tuple[str, str, Context]] = [
    ("kms:DisableKey", KEY, MANAGED),
    ("kms:ScheduleKeyDeletion", KEY, MANAGED),
    ("kms:DeleteImportedKeyMaterial", KEY, MANAGED),
    ("kms:DisableKeyRotation", KEY, MANAGED),
    ("kms:PutKeyPolicy", KEY, {**MANAGED, **BYPASS}),
    ("kms:PutKeyPolicy", KEY, {**UNTAGGED, **BYPASS}),
    ("kms:DeleteAlias", ALIAS, NOTHING),
    ("kms:DeleteAlias", KEY, MANAGED),
    ("kms:UntagResource", KEY, {**MANAGED, "aws:TagKeys": ["team"]}),
    (
        "kms:TagResource",
        KEY,
        {**MANAGED, "aws:TagKeys": ["xray-guard-break-glass"], "aws:RequestTag/xray-guard-break-glass": "x"},
    ),
    (
        "kms:TagResource",
        KEY,
        {**NEW_KEY, "aws:TagKeys": ["xray-guard", "xray-guard-nonce", "xray-guard-break-glass"]},
    ),
    ("dynamodb:UpdateItem", AUDIT, NOTHING),
    ("dynamodb:DeleteItem", AUDIT, NOTHING),
    ("dynamodb:BatchWriteItem", AUDIT, NOTHING),
    ("dynamodb:PartiQLUpdate", AUDIT, NOTHING),
    ("dynamodb:PartiQLDelete", AUDIT, NOTHING),
    ("dynamodb:DeleteTable", AUDIT, NOTHING),
    ("dynamodb:UpdateTable", AUDIT, NOTHING),
    ("dynamodb:UpdateTimeToLive", AUDIT, NOTHING),
]

NOT_GRANTED: list[tuple[str, str, Context]] = [
    ("kms:CreateKey", "*", BYPASS),
    *((f"kms:{action}", KEY, UNTAGGED) for action in ("PutKeyPolicy", "EnableKey", "CancelKeyDeletion", "CreateAlias")),
    ("kms:EnableKeyRotation", KEY, {"aws:ResourceTag/xray-guard": "no"}),
    ("kms:UpdateAlias", KEY, UNDER_ANOTHER_ALIAS),
    ("kms:UpdateAlias", KEY, UNTAGGED),
    ("kms:UpdateAlias", ALIAS.replace("xray-encryption", "other"), NOTHING),
    ("kms:CreateAlias", ALIAS.replace("xray-encryption", "other"), NOTHING),
    ("kms:CreateGrant", KEY, MANAGED),
    ("kms:CreateGrant", KEY, {**MANAGED, **THROUGH_XRAY, "kms:ViaService": "s3.us-east-1.amazonaws.com"}),
    ("kms:CreateGrant", KEY, {**MANAGED, "kms:ViaService": "xray.us-east-1.amazonaws.com"}),
    ("kms:CreateKey", "*", NOTHING),
    ("kms:CreateKey", "*", {"aws:TagKeys": ["xray-guard"], "aws:RequestTag/xray-guard": "managed"}),
    (
        "kms:CreateKey",
        "*",
        {**NEW_KEY, "aws:TagKeys": ["xray-guard", "xray-guard-nonce", "owner"], "aws:RequestTag/owner": "me"},
    ),
    ("kms:TagResource", KEY, {**MANAGED, "aws:TagKeys": ["team"], "aws:RequestTag/team": "a"}),
    ("kms:TagResource", KEY, {"aws:TagKeys": ["xray-guard"], "aws:RequestTag/xray-guard": "managed"}),
    ("kms:Decrypt", KEY, MANAGED),
    ("kms:GenerateDataKey", KEY, MANAGED),
    ("kms:ReplicateKey", KEY, MANAGED),
    ("kms:RevokeGrant", KEY, MANAGED),
    ("iam:ListRoleTags", f"arn:aws:iam::{ACCOUNT}:role/Developer", NOTHING),
    ("iam:TagRole", BREAK_GLASS, {"aws:TagKeys": ["team"], "aws:RequestTag/team": "a"}),
    ("iam:PassRole", GUARD, NOTHING),
    ("sts:AssumeRole", BREAK_GLASS, NOTHING),
    ("dynamodb:DeleteItem", TARGETS, NOTHING),
    ("dynamodb:DeleteTable", TARGETS, NOTHING),
    ("dynamodb:GetItem", f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/shop", NOTHING),
    ("s3:DeleteObject", "arn:aws:s3:::anchors/anchors/2026/11/20/120000-1.json", NOTHING),
    ("s3:PutObject", "arn:aws:s3:::anchors/elsewhere", NOTHING),
    ("lambda:UpdateFunctionCode", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:xray-guard-tick", NOTHING),
]


def questions_about(
    calls: list[tuple[str, str, Context]], identity: list[Policy], key_policy: Policy, **also: Any
) -> list[Question]:
    return [
        Question(
            GUARD,
            action,
            resource,
            context,
            identity=identity,
            resource_policy=key_policy if resource == KEY else None,
            **also,
        )
        for action, resource, context in calls
    ]


def answered(calls: list[tuple[str, str, Context]], questions: list[Question], other_than: set[str]) -> list[Any]:
    return [(call, answer) for call, answer in zip(calls, ask(questions), strict=True) if answer not in other_than]


def test_each_call_of_the_loop_is_allowed_by_its_own_rights_and_left_so_by_the_organization(
    guard_rights: Policy, key_policy: Policy, scp: Policy
) -> None:
    assert answered(CALLS, questions_about(CALLS, [guard_rights], key_policy), {"Allowed"}) == []
    assert answered(CALLS, questions_about(CALLS, [guard_rights], key_policy, scps=[scp]), {"Allowed"}) == []


def test_the_calls_asked_about_are_all_that_the_adapters_make() -> None:
    text = "".join(path.read_text("utf-8") for path in (PROJECT / "chalicelib/aws").glob("*.py"))
    made = set(re.findall(r'"((?:dynamodb|ec2|iam|s3|sqs|xray):[A-Z]\w+)"', text))
    made |= {f"kms:{operation}" for operation in METHODS}
    asked_as_other = {
        "dynamodb:TransactWriteItems",  # authorized as the actions of its parts
        "dynamodb:GetItem",  # the command line's, with its caller's own rights
        "dynamodb:Scan",  # the same
        "s3:GetObjectVersion",  # the same
        "s3:ListBucketVersions",  # the same
        "iam:ListUserTags",  # the policy document names no user
    }
    assert made - asked_as_other <= {action for action, _, _ in CALLS}


def test_what_takes_a_key_away_may_lock_out_opens_break_glass_or_changes_the_log_is_denied_whatever_else_it_was_given(
    guard_rights: Policy, key_policy: Policy
) -> None:
    calls = FORBIDDEN_WHATEVER_ELSE
    assert answered(calls, questions_about(calls, [guard_rights, EVERYTHING], key_policy), {"ExplicitlyDenied"}) == []


def test_what_is_not_its_own_is_not_granted(guard_rights: Policy, key_policy: Policy) -> None:
    refusals = {"ImplicitlyDenied", "ExplicitlyDenied"}
    assert answered(NOT_GRANTED, questions_about(NOT_GRANTED, [guard_rights], key_policy), refusals) == []


def test_a_foreign_key_is_described_where_its_owner_allows_it_and_never_changed(guard_rights: Policy) -> None:
    open_to_all = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}],
    }
    changing = ("PutKeyPolicy", "EnableKey", "CreateGrant", "ScheduleKeyDeletion")
    questions = [
        Question(
            GUARD,
            f"kms:{action}",
            FOREIGN_KEY,
            {} if action == "DescribeKey" else MANAGED,
            identity=[guard_rights],
            resource_policy=open_to_all,
            account="999988887777",
        )
        for action in ("DescribeKey", *changing)
    ]
    answer = ask(questions)
    assert answer[0] == "Allowed"
    assert "Allowed" not in answer[1:]
