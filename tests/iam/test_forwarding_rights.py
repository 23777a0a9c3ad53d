"""The role that forwards events may put them on the guard's bus only, and the bus takes nothing else."""

from __future__ import annotations

import pytest

from tests.iam.simulator import ACCOUNT, EVERYTHING, Policy, Question, ask

ROLE = f"arn:aws:iam::{ACCOUNT}:role/"
FORWARD = f"{ROLE}xray-guard-forward"
BUS = f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/xray-guard"
RULE = f"arn:aws:events:eu-west-1:{ACCOUNT}:rule/xray-guard-forward"
OTHER_RULE = f"arn:aws:events:eu-west-1:{ACCOUNT}:rule/mine"
OTHER_ACCOUNT = "999988887777"
Context = dict[str, str | list[str]]
SENDS: Context = {"aws:SourceArn": RULE, "events:source": "aws.xray"}


@pytest.mark.usefixtures("simulated")
def test_the_role_may_put_events_on_the_guards_bus_and_nothing_else(forward_rights: Policy, scps: list[Policy]) -> None:
    cases = {
        ("events:PutEvents", BUS): "Allowed",
        ("events:PutEvents", BUS.replace("us-east-1", "eu-west-1")): "ImplicitlyDenied",
        ("events:PutEvents", f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/default"): "ImplicitlyDenied",
        ("events:PutRule", RULE): "ImplicitlyDenied",
        ("lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:xray-guard-tick"): "ImplicitlyDenied",
        ("sqs:SendMessage", f"arn:aws:sqs:us-east-1:{ACCOUNT}:xray-guard-dead-letters"): "ImplicitlyDenied",
    }
    questions = [
        Question(FORWARD, action, resource, SENDS if action == "events:PutEvents" else {}, [forward_rights], scps=scps)
        for action, resource in cases
    ]
    assert dict(zip(cases, ask(questions), strict=True)) == cases


@pytest.mark.usefixtures("simulated")
def test_the_bus_takes_what_the_forwarding_rules_send_and_refuses_everything_else(
    forward_rights: Policy, bus_policy: Policy
) -> None:
    """Whether EventBridge's request has `aws:SourceArn` under the role does not decide it: without it the role may."""
    anything = f"{ROLE}Administrator"
    cases: list[tuple[str, list[Policy], Context, str]] = [
        (FORWARD, [forward_rights], SENDS, "Allowed"),
        *(
            (FORWARD, [forward_rights], {**SENDS, "events:source": source}, "Allowed")
            for source in ("aws.kms", "aws.logs", "aws.oam")
        ),
        (FORWARD, [forward_rights], {"events:source": "aws.xray"}, "Allowed"),
        (FORWARD, [forward_rights], {}, "Allowed"),
        (FORWARD, [forward_rights], {**SENDS, "aws:SourceArn": OTHER_RULE}, "ExplicitlyDenied"),
        (FORWARD, [forward_rights], {**SENDS, "events:source": "aws.s3"}, "ExplicitlyDenied"),
        (anything, [EVERYTHING], {"events:source": "my.app"}, "ExplicitlyDenied"),
        (anything, [EVERYTHING], {**SENDS, "aws:SourceArn": OTHER_RULE}, "ExplicitlyDenied"),
    ]
    questions = [
        Question(who, "events:PutEvents", BUS, context, identity, resource_policy=bus_policy)
        for who, identity, context, _ in cases
    ]
    assert ask(questions) == [answer for *_, answer in cases]


@pytest.mark.usefixtures("simulated")
def test_the_bus_takes_nothing_from_another_account(bus_policy: Policy) -> None:
    """Not yet: an organization's accounts will need a statement of their own."""
    stranger = f"arn:aws:iam::{OTHER_ACCOUNT}:role/xray-guard-forward"
    theirs: Context = {**SENDS, "aws:SourceArn": RULE.replace(ACCOUNT, OTHER_ACCOUNT)}
    questions = [
        Question(stranger, "events:PutEvents", BUS, context, resource_policy=bus_policy) for context in (SENDS, theirs)
    ]
    assert "Allowed" not in ask(questions)
