"""What the guard's role may do, by its own policy and the key's: each call of the loop, and no harm (P13)."""

from __future__ import annotations

import json
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
SPANS = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:aws/spans"
FUNCTIONS = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:"

Context = dict[str, str | list[str]]
NOTHING: Context = {}
BY_TICK: Context = {"lambda:SourceFunctionArn": f"{FUNCTIONS}xray-guard-tick"}
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
    ("xray:GetTraceSegmentDestination", "*", NOTHING),
    ("logs:DescribeLogGroups", "*", NOTHING),
    ("oam:ListLinks", "*", NOTHING),
    ("logs:AssociateKmsKey", SPANS, NOTHING),
    ("logs:AssociateKmsKey", f"{SPANS}:*", NOTHING),
    ("logs:AssociateKmsKey", SPANS.replace("us-east-1", "eu-west-1"), NOTHING),
    ("cloudtrail:LookupEvents", "*", NOTHING),
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
    ("dynamodb:Query", AUDIT, NOTHING),
    ("dynamodb:UpdateItem", TARGETS, NOTHING),
    ("sqs:SendMessage", QUEUE, NOTHING),
    ("logs:CreateLogStream", LOGS, NOTHING),
    ("logs:PutLogEvents", LOGS, NOTHING),
    ("s3:PutObject", "arn:aws:s3:::anchors/anchors/2026/11/20/120000-1.json", NOTHING),
]

FORBIDDEN_WHATEVER_ELSE: list[tuple[str, str, Context]] = [
    ("logs:DisassociateKmsKey", SPANS, NOTHING),
    ("xray:UpdateTraceSegmentDestination", "*", {"xray:TraceSegmentDestination": "CloudWatchLogs"}),
    ("xray:UpdateTraceSegmentDestination", "*", {"xray:TraceSegmentDestination": "XRay"}),
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
    *(
        ("logs:AssociateKmsKey", SPANS.replace(*other), NOTHING)
        for other in (("aws/spans", "aws/spans2"), ("aws/spans", "/aws/lambda/shop"), (ACCOUNT, "999988887777"))
    ),
    ("logs:DeleteLogGroup", SPANS, NOTHING),
    ("logs:GetLogEvents", f"{SPANS}:log-stream:default", NOTHING),
    ("oam:DeleteLink", f"arn:aws:oam:us-east-1:{ACCOUNT}:link/0a1b", NOTHING),
    (
        "oam:UpdateLink",
        f"arn:aws:oam:us-east-1:{ACCOUNT}:link/0a1b",
        {"oam:ResourceTypes": ["AWS::CloudWatch::Metric"]},
    ),
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


BY_A_SERVICE = {"kms:CreateGrant", "sqs:SendMessage"}
"""X-Ray and Lambda make these calls with the role: the second without naming the function, the first perhaps."""

BOUND_TO_FUNCTIONS = {
    "dynamodb:PutItem",
    "dynamodb:UpdateItem",
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:CreateKey",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:TagResource",
    "kms:UpdateAlias",
    "logs:AssociateKmsKey",
    "s3:PutObject",
    "xray:PutEncryptionConfig",
}
"""Not PutKeyPolicy: which context KMS's lock-out check carries is unknown. Not CreateGrant: X-Ray makes that call."""


def questions_about(
    calls: list[tuple[str, str, Context]], identity: list[Policy], key_policy: Policy, **also: Any
) -> list[Question]:
    return [
        Question(
            GUARD,
            action,
            resource,
            {**({} if action in BY_A_SERVICE else BY_TICK), **context},
            identity=identity,
            resource_policy=key_policy if resource == KEY else None,
            **also,
        )
        for action, resource, context in calls
    ]


def answered(calls: list[tuple[str, str, Context]], questions: list[Question], other_than: set[str]) -> list[Any]:
    return [(call, answer) for call, answer in zip(calls, ask(questions), strict=True) if answer not in other_than]


def test_each_call_of_the_loop_is_allowed_by_its_own_rights_and_left_so_by_the_organization(
    guard_rights: Policy, key_policy: Policy, scps: list[Policy]
) -> None:
    assert answered(CALLS, questions_about(CALLS, [guard_rights], key_policy), {"Allowed"}) == []
    assert answered(CALLS, questions_about(CALLS, [guard_rights], key_policy, scps=scps), {"Allowed"}) == []


@pytest.mark.parametrize(
    "function",
    [None, "shop", "xray-guard-api", "xray-guard-tick-2", "xray-guard-tick:2"],
    ids=["no function", "another function", "the API's", "a longer name", "a version"],
)
def test_p13_outside_the_guards_functions_its_role_can_neither_tag_a_key_as_its_own_nor_change_anything_else(
    function: str | None, guard_rights: Policy, key_policy: Policy
) -> None:
    source: Context = {"lambda:SourceFunctionArn": FUNCTIONS + function} if function else {}
    calls = [call for call in CALLS if call[0] in BOUND_TO_FUNCTIONS]
    assert {action for action, _, _ in calls} == BOUND_TO_FUNCTIONS
    questions = [
        Question(
            GUARD,
            action,
            resource,
            {**source, **context},
            identity=[guard_rights, EVERYTHING],
            resource_policy=key_policy if resource == KEY else None,
        )
        for action, resource, context in calls
    ]
    assert answered(calls, questions, {"ExplicitlyDenied"}) == []


@pytest.mark.parametrize("name", ["event_history", "on_change", "on_key_change", "sweep", "tick"])
def test_each_function_of_the_guard_may_make_the_calls(name: str, guard_rights: Policy, key_policy: Policy) -> None:
    calls = [
        (action, resource, {**context, "lambda:SourceFunctionArn": f"{FUNCTIONS}xray-guard-{name}"})
        for action, resource, context in CALLS
        if action in BOUND_TO_FUNCTIONS
    ]
    assert answered(calls, questions_about(calls, [guard_rights], key_policy), {"Allowed"}) == []


def test_p13_a_role_that_only_observes_reads_and_records_and_has_no_right_to_change_xray_or_kms(
    observing_rights: Policy, key_policy: Policy
) -> None:
    reads = ("Get", "List", "Describe")
    of_others = ("kms:", "logs:AssociateKmsKey", "oam:", "xray:")
    changes = [call for call in CALLS if call[0].startswith(of_others) and not call[0].split(":")[1].startswith(reads)]
    others = [call for call in CALLS if call not in changes]
    assert len(changes) > 10
    granting = json.dumps([each for each in observing_rights["Statement"] if each["Effect"] == "Allow"])
    assert [action for action, _, _ in changes if f'"{action}"' in granting] == []
    refusals = {"ImplicitlyDenied", "ExplicitlyDenied"}
    assert answered(changes, questions_about(changes, [observing_rights], key_policy), refusals) == []
    assert answered(others, questions_about(others, [observing_rights], key_policy), {"Allowed"}) == []


def test_the_calls_asked_about_are_all_that_the_adapters_make() -> None:
    text = "".join(path.read_text("utf-8") for path in (PROJECT / "chalicelib/aws").glob("*.py"))
    made = set(re.findall(r'"((?:cloudtrail|dynamodb|ec2|iam|logs|oam|s3|sqs|xray):[A-Z]\w+)"', text))
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
