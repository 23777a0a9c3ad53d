"""What the organization's policy shields, from whom, and what it leaves alone."""

from __future__ import annotations

import json

import pytest

from tests.iam.conftest import POLICIES
from tests.iam.simulator import ACCOUNT, PROJECT, Policy, Question, ask

Context = dict[str, str | list[str]]

ROLE = f"arn:aws:iam::{ACCOUNT}:role/"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/0a1b2c3d-0000-4000-8000-000000000001"
MANAGED: Context = {"aws:ResourceTag/xray-guard": "managed"}
OWN_TAG: Context = {"aws:TagKeys": ["xray-guard"]}
SETS_OWN_TAG: Context = {**OWN_TAG, "aws:RequestTag/xray-guard": "managed"}

BY_XRAY: Context = {"kms:ViaService": "xray.us-east-1.amazonaws.com"}
BY_S3: Context = {"kms:ViaService": "s3.us-east-1.amazonaws.com"}

SPANS = f"arn:aws:logs:eu-west-1:{ACCOUNT}:log-group:aws/spans"
LINK = f"arn:aws:oam:us-east-1:{ACCOUNT}:link/0a1b"
SINK = "arn:aws:oam:us-east-1:999988887777:sink/0a1b"
TRACES: Context = {"oam:ResourceTypes": ["AWS::CloudWatch::Metric", "AWS::XRay::Trace"]}
METRICS: Context = {"oam:ResourceTypes": ["AWS::CloudWatch::Metric", "AWS::Logs::LogGroup"]}
TO_LOGS: Context = {"xray:TraceSegmentDestination": "CloudWatchLogs"}

OWN_STACK: Context = {"aws:ResourceTag/aws:cloudformation:stack-name": "xray-guard"}

BREAK_GLASS = f"{ROLE}SecurityBreakGlass"
PIPELINE = f"{ROLE}InfrastructurePipeline"
GUARD = f"{ROLE}xray-guard"
API = f"{ROLE}xray-guard-api"
FORWARD = f"{ROLE}xray-guard-forward"
OTHERS = (f"{ROLE}Administrator", f"{ROLE}Developer", f"arn:aws:iam::{ACCOUNT}:root", f"{ROLE}xray-guard-2")
ALL_THREE = (BREAK_GLASS, PIPELINE, GUARD)
AND_THE_API = (*ALL_THREE, API, FORWARD)
"""The API's role, too, which writes requests to the targets table, and the role that forwards events to the guard's
bus. Their own rights keep them from all else."""

MOST_CHARACTERS = 5120
"""https://docs.aws.amazon.com/organizations/latest/userguide/orgs_reference_limits.html"""


BY_IAM: Policy = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "kms:*", "Resource": "*"}],
}
"""A key's policy that leaves everything to IAM."""


def request(who: str, action: str, resource: str, context: Context, scps: list[Policy]) -> Question:
    """By somebody who may do everything, but for the organization."""
    return Question(who, action, resource, context, resource_policy=BY_IAM if resource == KEY else None, scps=scps)


def regional(service: str, resource: str) -> str:
    return f"arn:aws:{service}:us-east-1:{ACCOUNT}:{resource}"


SHIELDED: list[tuple[str, str, Context, tuple[str, ...]]] = [
    ("xray:PutEncryptionConfig", "*", {}, ALL_THREE),
    *(
        (f"kms:{action}", KEY, MANAGED, ALL_THREE)
        for action in (
            "PutKeyPolicy",
            "DisableKey",
            "DisableKeyRotation",
            "EnableKeyRotation",
            "ScheduleKeyDeletion",
            "CreateGrant",
            "RetireGrant",
            "RevokeGrant",
        )
    ),
    ("kms:CreateGrant", KEY, {**MANAGED, "kms:GrantIsForAWSResource": "false"}, ALL_THREE),
    ("kms:RevokeGrant", KEY, {**MANAGED, **BY_S3}, ALL_THREE),
    ("kms:RetireGrant", KEY, {**MANAGED, **BY_S3}, ALL_THREE),
    ("kms:TagResource", KEY, SETS_OWN_TAG, ALL_THREE),
    ("kms:UntagResource", KEY, OWN_TAG, ALL_THREE),
    ("kms:CreateKey", "*", SETS_OWN_TAG, ALL_THREE),
    ("kms:TagResource", KEY, {"aws:TagKeys": ["xray-guard-nonce"], "aws:RequestTag/xray-guard-nonce": "n"}, ALL_THREE),
    *(
        (f"kms:{action}", regional("kms", "alias/xray-encryption"), {}, ALL_THREE)
        for action in ("CreateAlias", "UpdateAlias", "DeleteAlias")
    ),
    *(
        (f"iam:{action}", role, {}, (PIPELINE,))
        for role in (BREAK_GLASS, GUARD, API, FORWARD)
        for action in (
            "UpdateAssumeRolePolicy",
            "AttachRolePolicy",
            "DetachRolePolicy",
            "PutRolePolicy",
            "DeleteRolePolicy",
            "PutRolePermissionsBoundary",
            "DeleteRolePermissionsBoundary",
            "UpdateRole",
            "CreateRole",
            "DeleteRole",
            "PassRole",
        )
    ),
    *(
        (f"lambda:{action}", regional("lambda", f"function:xray-guard-{name}"), {}, AND_THE_API)
        for name in ("on_change", "tick", "sweep", "event_history", "api")
        for action in (
            "UpdateFunctionCode",
            "UpdateFunctionConfiguration",
            "PutFunctionConcurrency",
            "DeleteFunction",
            "AddPermission",
            "RemovePermission",
            "InvokeFunction",  # whoever may hand the guard an event may tell it who did what
        )
    ),
    *(
        (f"dynamodb:{action}", regional("dynamodb", f"table/xray-guard-{name}"), {}, AND_THE_API)
        for name in ("audit", "targets")
        for action in (
            "PutItem",
            "UpdateItem",
            "DeleteItem",
            "DeleteTable",
            "UpdateTable",
            "UpdateTimeToLive",
            "PutResourcePolicy",
            "DeleteResourcePolicy",
        )
    ),
    *(
        (f"events:{action}", regional("events", f"rule/xray-guard-{name}"), {}, AND_THE_API)
        for name in ("on_change", "on_key_change", "tick", "sweep", "event_history")
        for action in ("DisableRule", "DeleteRule", "PutRule", "PutTargets", "RemoveTargets")
    ),
    *(
        (f"events:{action}", f"arn:aws:events:{region}:{ACCOUNT}:rule/{rule}", {}, AND_THE_API)
        for region, rule in (("us-east-1", "xray-guard/xray-guard-on_change"), ("eu-west-1", "xray-guard-forward"))
        for action in ("DisableRule", "DeleteRule", "PutRule", "PutTargets", "RemoveTargets")
    ),
    *(
        (f"events:{action}", regional("events", "event-bus/xray-guard"), {}, AND_THE_API)
        for action in ("DeleteEventBus", "PutEvents", "UpdateEventBus")
    ),
    ("sqs:PurgeQueue", f"arn:aws:sqs:eu-west-1:{ACCOUNT}:xray-guard-forward-dead-letters", {}, AND_THE_API),
    *(
        (f"cloudwatch:{action}", regional("cloudwatch", f"alarm:xray-guard-{name}"), {}, AND_THE_API)
        for name in ("failed", "errors-sweep")
        for action in ("PutMetricAlarm", "DeleteAlarms", "DisableAlarmActions", "SetAlarmState")
    ),
    *(
        (f"sns:{action}", regional("sns", "xray-guard-alarms"), {}, AND_THE_API)
        for action in ("DeleteTopic", "SetTopicAttributes", "Unsubscribe", "SetSubscriptionAttributes", "Publish")
    ),
    *(
        (f"logs:{action}", regional("logs", "log-group:/aws/lambda/xray-guard-sweep"), {}, AND_THE_API)
        for action in ("DeleteLogGroup", "PutRetentionPolicy", "PutSubscriptionFilter")
    ),
    *(
        (f"logs:{action}", regional("logs", "log-group:/aws/lambda/xray-guard-sweep:log-stream:x"), {}, AND_THE_API)
        for action in ("DeleteLogStream", "PutLogEvents")
    ),
    *(
        (
            f"apigateway:{action}",
            f"arn:aws:apigateway:us-east-1::/restapis/a1b2c3{part}",
            OWN_STACK,
            (BREAK_GLASS, PIPELINE),
        )
        for part, actions in (("", ("DELETE", "PATCH", "PUT")), ("/resources/r1", ("DELETE", "PATCH")))
        for action in actions
    ),
    *(
        (f"logs:{action}", group, {}, ALL_THREE)
        for group in (SPANS, f"{SPANS}:*")
        for action in ("AssociateKmsKey", "DisassociateKmsKey", "DeleteLogGroup")
    ),
    ("oam:CreateLink", SINK, TRACES, (BREAK_GLASS, PIPELINE)),
    ("oam:UpdateLink", LINK, TRACES, (BREAK_GLASS, PIPELINE)),
    ("sqs:PurgeQueue", regional("sqs", "xray-guard-dead-letters"), {}, AND_THE_API),
    ("sqs:DeleteQueue", regional("sqs", "xray-guard-dead-letters"), {}, AND_THE_API),
    *(
        (f"cloudformation:{action}", regional("cloudformation", f"stack/{stack}/0a1b"), {}, AND_THE_API)
        for stack in ("xray-guard", "xray-guard-region", "xray-guard-tables")
        for action in ("DeleteStack", "UpdateStack")
    ),
]

LEFT_ALONE: list[tuple[str, str, Context]] = [
    ("xray:GetEncryptionConfig", "*", {}),
    ("xray:PutTraceSegments", "*", {}),
    ("kms:PutKeyPolicy", KEY, {}),
    ("kms:PutKeyPolicy", KEY, {"aws:ResourceTag/xray-guard": "no"}),
    ("kms:ScheduleKeyDeletion", KEY, {"aws:ResourceTag/team": "a"}),
    ("kms:EnableKey", KEY, MANAGED),
    ("kms:Decrypt", KEY, MANAGED),
    ("kms:CreateGrant", KEY, {**MANAGED, **BY_XRAY, "kms:GrantIsForAWSResource": "true"}),
    ("kms:CreateGrant", KEY, {}),
    ("kms:RevokeGrant", KEY, {**MANAGED, **BY_XRAY}),
    ("kms:RetireGrant", KEY, {**MANAGED, **BY_XRAY}),
    ("kms:RevokeGrant", KEY, {"aws:ResourceTag/team": "a"}),
    ("kms:ListGrants", KEY, MANAGED),
    ("kms:EnableKeyRotation", KEY, {}),
    ("kms:CreateKey", "*", {"aws:TagKeys": ["team"], "aws:RequestTag/team": "a"}),
    ("kms:TagResource", KEY, {**MANAGED, "aws:TagKeys": ["team"], "aws:RequestTag/team": "a"}),
    ("kms:UpdateAlias", regional("kms", "alias/other"), {}),
    ("kms:UpdateAlias", KEY, MANAGED),
    ("iam:PassRole", f"{ROLE}Other", {}),
    ("iam:UpdateAssumeRolePolicy", f"{ROLE}Other", {}),
    ("iam:GetRole", BREAK_GLASS, {}),
    ("iam:TagRole", BREAK_GLASS, {"aws:TagKeys": ["team"], "aws:RequestTag/team": "a"}),
    ("lambda:GetFunction", regional("lambda", "function:xray-guard-tick"), {}),
    ("lambda:InvokeFunction", regional("lambda", "function:shop"), {}),
    ("dynamodb:Query", regional("dynamodb", "table/xray-guard-audit"), {}),
    ("dynamodb:GetItem", regional("dynamodb", "table/xray-guard-targets"), {}),
    ("dynamodb:PutItem", regional("dynamodb", "table/shop"), {}),
    ("cloudwatch:DescribeAlarmHistory", regional("cloudwatch", "alarm:xray-guard-failed"), {}),
    ("cloudwatch:DeleteAlarms", regional("cloudwatch", "alarm:shop"), {}),
    ("sns:Subscribe", regional("sns", "xray-guard-alarms"), {}),
    ("sns:DeleteTopic", regional("sns", "shop"), {}),
    ("logs:FilterLogEvents", regional("logs", "log-group:/aws/lambda/xray-guard-sweep"), {}),
    ("logs:StartQuery", regional("logs", "log-group:/aws/lambda/xray-guard-sweep"), {}),
    ("logs:DeleteLogGroup", regional("logs", "log-group:/aws/lambda/shop"), {}),
    ("logs:AssociateKmsKey", regional("logs", "log-group:/aws/lambda/shop"), {}),
    ("logs:DisassociateKmsKey", regional("logs", "log-group:aws/spans2"), {}),
    ("logs:PutRetentionPolicy", SPANS, {}),
    ("logs:FilterLogEvents", SPANS, {}),
    ("oam:CreateLink", SINK, METRICS),
    ("oam:UpdateLink", LINK, METRICS),
    ("oam:DeleteLink", LINK, {}),
    ("xray:UpdateTraceSegmentDestination", "*", TO_LOGS),  # the policy document says `encrypt`
    ("apigateway:GET", "arn:aws:apigateway:us-east-1::/restapis/a1b2c3", OWN_STACK),
    ("apigateway:DELETE", "arn:aws:apigateway:us-east-1::/restapis/a1b2c3", {}),
    ("dynamodb:GetResourcePolicy", regional("dynamodb", "table/xray-guard-audit"), {}),
    ("events:DescribeRule", regional("events", "rule/xray-guard-tick"), {}),
    ("events:DisableRule", regional("events", "rule/shop"), {}),
    ("events:DescribeRule", f"arn:aws:events:eu-west-1:{ACCOUNT}:rule/xray-guard-forward", {}),
    ("events:PutEvents", regional("events", "event-bus/default"), {}),
    ("sqs:ReceiveMessage", regional("sqs", "xray-guard-dead-letters"), {}),
    ("cloudformation:DescribeStacks", regional("cloudformation", "stack/xray-guard/0a1b"), {}),
]


@pytest.mark.usefixtures("simulated")
def test_what_is_shielded_is_denied_to_all_but_those_it_is_left_to(scps: list[Policy]) -> None:
    cases = [
        (who, action, resource, context, "Allowed" if who in spared else "ExplicitlyDenied")
        for action, resource, context, spared in SHIELDED
        for who in (*AND_THE_API, *OTHERS)
    ]
    answers = ask(request(who, action, resource, context, scps) for who, action, resource, context, _ in cases)
    wrong = [(case, answer) for case, answer in zip(cases, answers, strict=True) if case[-1] != answer]
    assert wrong == []


@pytest.mark.usefixtures("simulated")
def test_what_is_nobodys_business_is_left_alone(scps: list[Policy]) -> None:
    cases = [(who, *what) for what in LEFT_ALONE for who in OTHERS]
    answers = ask(request(who, action, resource, context, scps) for who, action, resource, context in cases)
    wrong = [(case, answer) for case, answer in zip(cases, answers, strict=True) if answer != "Allowed"]
    assert wrong == []


@pytest.mark.usefixtures("simulated")
def test_where_spans_are_forbidden_only_break_glass_and_the_pipeline_send_them_to_cloudwatch_logs() -> None:
    forbids = [json.loads((POLICIES / "scp-spans-forbid.json").read_text("utf-8"))]
    action = "xray:UpdateTraceSegmentDestination"
    back: Context = {"xray:TraceSegmentDestination": "XRay"}
    cases = {
        who: "Allowed" if who in (BREAK_GLASS, PIPELINE) else "ExplicitlyDenied" for who in (*AND_THE_API, *OTHERS)
    }
    assert dict(zip(cases, ask(request(who, action, "*", TO_LOGS, forbids) for who in cases), strict=True)) == cases
    assert {*ask(request(who, action, "*", back, forbids) for who in cases)} == {"Allowed"}
    assert {*ask(request(who, "xray:GetTraceSegmentDestination", "*", {}, forbids) for who in cases)} == {"Allowed"}


@pytest.mark.usefixtures("simulated")
@pytest.mark.parametrize("partition", ["aws-us-gov", "aws-cn"])
def test_it_holds_in_every_partition(partition: str, scps: list[Policy]) -> None:
    def there(arn: str) -> str:
        return arn.replace("arn:aws:", f"arn:{partition}:", 1)

    alias = there(regional("kms", "alias/xray-encryption"))
    questions = [
        Question(there(who), action, resource, scps=scps)
        for who in (GUARD, OTHERS[0])
        for action, resource in (("kms:UpdateAlias", alias), ("xray:PutEncryptionConfig", "*"))
    ]
    assert ask(questions) == ["Allowed", "Allowed", "ExplicitlyDenied", "ExplicitlyDenied"]


def test_every_role_of_the_template_is_shielded_and_spared_where_it_acts(scps: list[Policy]) -> None:
    """A role that is added later must be tested with this policy, too: by name here, by its calls beside its rights."""
    template = json.loads((PROJECT / ".chalice" / "extras.json").read_text("utf-8"))
    roles = [one["Properties"] for one in template["Resources"].values() if one.get("Type") == "AWS::IAM::Role"]
    arns = {f"arn:*:iam::*:role/{one['RoleName']}" for one in roles}
    statements = {each["Sid"]: each for scp in scps for each in scp["Statement"]}
    assert arns == {f"arn:*:iam::*:role/xray-guard{name}" for name in ("", "-api", "-forward")}
    assert arns <= set(statements["BreakGlassAndGuardRoles"]["Resource"])
    assert arns <= set(statements["TheGuardItself"]["Condition"]["ArnNotLike"]["aws:PrincipalArn"])


@pytest.mark.parametrize("name", sorted(path.name for path in POLICIES.glob("scp*.json")))
def test_each_document_fits_as_it_lies_into_what_the_organization_takes_and_only_denies(name: str) -> None:
    text = (POLICIES / name).read_text("utf-8")
    assert len(text) <= MOST_CHARACTERS
    statements = json.loads(text)["Statement"]
    assert {each["Effect"] for each in statements} == {"Deny"}
    sids = [each["Sid"] for each in statements]
    assert len(set(sids)) == len(sids)
    assert all(sid.isalnum() for sid in sids)
    assert not {"Principal", "NotPrincipal", "NotResource"} & {name for each in statements for name in each}
