"""What the API's role may do: read, and leave a request to look; nothing that would change what it tells."""

from __future__ import annotations

import pytest

from tests.iam.simulator import ACCOUNT, EVERYTHING, Policy, Question, ask
from tests.iam.test_guard_rights import AUDIT, KEY, NOTHING, TARGETS, Context

pytestmark = pytest.mark.usefixtures("simulated")

API = f"arn:aws:iam::{ACCOUNT}:role/xray-guard-api"
ASKING: Context = {"dynamodb:LeadingKeys": [f"ask#{ACCOUNT}/us-east-1"]}
STATE: Context = {"dynamodb:LeadingKeys": [f"{ACCOUNT}/us-east-1"]}
BOTH: Context = {"dynamodb:LeadingKeys": [f"ask#{ACCOUNT}/us-east-1", f"{ACCOUNT}/us-east-1"]}

CALLS: list[tuple[str, str, Context]] = [
    ("dynamodb:Query", AUDIT, NOTHING),
    ("dynamodb:Query", f"{AUDIT}/index/by_time", NOTHING),
    ("dynamodb:BatchGetItem", TARGETS, NOTHING),
    ("dynamodb:PutItem", TARGETS, ASKING),
    *(
        (
            f"logs:{action}",
            f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/xray-guard-api:log-stream:x",
            NOTHING,
        )
        for action in ("CreateLogStream", "PutLogEvents")
    ),
]

NOT_GRANTED: list[tuple[str, str, Context]] = [
    ("dynamodb:PutItem", TARGETS, STATE),
    ("dynamodb:PutItem", TARGETS, BOTH),
    ("dynamodb:PutItem", TARGETS, NOTHING),
    ("dynamodb:UpdateItem", TARGETS, ASKING),
    ("dynamodb:DeleteItem", TARGETS, ASKING),
    ("dynamodb:Scan", AUDIT, NOTHING),
    ("xray:PutEncryptionConfig", "*", NOTHING),
    ("kms:CreateKey", "*", NOTHING),
    ("kms:DescribeKey", KEY, NOTHING),
    ("lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:xray-guard-tick", NOTHING),
    (
        "logs:PutLogEvents",
        f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/xray-guard-tick:log-stream:x",
        NOTHING,
    ),
]

FORBIDDEN_WHATEVER_ELSE = ["dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:DeleteTable"]


@pytest.mark.parametrize("organization", ["without", "with"])
def test_it_may_make_the_calls_that_the_handlers_make_and_the_organization_leaves_it_so(
    organization: str, api_rights: Policy, scps: list[Policy]
) -> None:
    attached = scps if organization == "with" else []
    questions = [
        Question(API, action, what, context, identity=[api_rights], scps=attached) for action, what, context in CALLS
    ]
    assert ask(questions) == ["Allowed"] * len(CALLS)


def test_the_calls_asked_about_are_all_that_its_rights_name(api_rights: Policy) -> None:
    allowed = [one["Action"] for one in api_rights["Statement"] if one["Effect"] == "Allow"]
    named = {action for one in allowed for action in ([one] if isinstance(one, str) else one)}
    assert named == {action for action, _, _ in CALLS}


def test_it_may_write_no_state_and_touch_nothing_that_the_guard_watches(api_rights: Policy) -> None:
    request = [Question(API, action, what, context, identity=[api_rights]) for action, what, context in NOT_GRANTED]
    result = zip(NOT_GRANTED, ask(request), strict=True)
    assert [call for call, answer in result if answer == "Allowed"] == []


def test_it_cannot_change_the_audit_log_whatever_else_is_attached_to_it(api_rights: Policy) -> None:
    request = [
        Question(API, action, AUDIT, NOTHING, identity=[api_rights, EVERYTHING]) for action in FORBIDDEN_WHATEVER_ELSE
    ]
    assert ask(request) == ["ExplicitlyDenied"] * len(request)
