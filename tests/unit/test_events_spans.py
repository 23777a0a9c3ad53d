"""Events about spans and about links are read for what they changed, whatever else they contain."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.events import read_key_event
from chalicelib.domain.model import Effect, KeyEvent, Rejected, Subject, Target, TriggerKind
from chalicelib.domain.policy import Mode, Rule
from chalicelib.domain.spanevents import SOURCES
from chalicelib.domain.stored import TargetState
from chalicelib.domain.triage import concerns
from tests.unit.test_events_keys import KEY_ARN, kms_event

SINK = "arn:aws:oam:us-east-1:444455556666:sink/22222222-0000-0000-0000-000000000000"
LINK = "arn:aws:oam:us-east-1:111122223333:link/11111111-0000-0000-0000-000000000000"
GROUP_ARN = "arn:aws:logs:us-east-1:111122223333:log-group:aws/spans"
TRACES = ["AWS::Logs::LogGroup", "AWS::XRay::Trace"]
RULE = Rule("baseline", ("*",), ("*",), Mode.ENFORCE)


def event(name: str, request: object, response: object = None, **detail: object) -> Any:
    service = SOURCES[name]
    given = {"eventSource": f"{service}.amazonaws.com", "responseElements": response, **detail}
    return {**kms_event(name, request, **given), "source": f"aws.{service}"}


def read(name: str, request: object, response: object = None, **detail: object) -> KeyEvent:
    found = read_key_event(event(name, request, response, **detail))
    assert isinstance(found, KeyEvent)
    return found


@pytest.mark.parametrize(
    ("name", "request_of", "response", "effect"),
    [
        (
            "UpdateTraceSegmentDestination",
            {"destination": "CloudWatchLogs"},
            None,
            Effect(Subject.SPANS, None, "CloudWatchLogs"),
        ),
        ("UpdateTraceSegmentDestination", {"Destination": "XRay"}, None, Effect(Subject.SPANS, None, "XRay")),
        ("UpdateTraceSegmentDestination", None, {"destination": "XRay"}, Effect(Subject.SPANS, None, "XRay")),
        ("UpdateTraceSegmentDestination", None, None, Effect(Subject.SPANS, None, None)),
        (
            "AssociateKmsKey",
            {"logGroupName": "aws/spans", "kmsKeyId": KEY_ARN},
            None,
            Effect(Subject.SPANS, "aws/spans", KEY_ARN),
        ),
        (
            "AssociateKmsKey",
            {"resourceIdentifier": f"{GROUP_ARN}:*", "kmsKeyId": KEY_ARN},
            None,
            Effect(Subject.SPANS, "aws/spans", KEY_ARN),
        ),
        ("DisassociateKmsKey", {"logGroupName": "aws/spans"}, None, Effect(Subject.SPANS, "aws/spans", "none")),
        ("DisassociateKmsKey", {"resourceIdentifier": GROUP_ARN}, None, Effect(Subject.SPANS, "aws/spans", "none")),
        ("DeleteLogGroup", {"logGroupName": "aws/spans"}, None, Effect(Subject.SPANS, "aws/spans", "deleted")),
        ("DeleteLogGroup", {"logGroupName": "aws/spans2"}, None, None),
        ("AssociateKmsKey", {"logGroupName": "/aws/lambda/one", "kmsKeyId": KEY_ARN}, None, None),
        ("DisassociateKmsKey", {"resourceIdentifier": f"{GROUP_ARN}-not"}, None, None),
        (
            "CreateLink",
            {"sinkIdentifier": SINK, "resourceTypes": TRACES},
            {"arn": LINK},
            Effect(Subject.LINKS, LINK, "444455556666"),
        ),
        ("CreateLink", {"sinkIdentifier": SINK, "resourceTypes": TRACES[:1]}, {"arn": LINK}, None),
        (
            "UpdateLink",
            {"identifier": LINK, "resourceTypes": TRACES},
            {"arn": LINK, "sinkArn": SINK},
            Effect(Subject.LINKS, LINK, "444455556666"),
        ),
        (
            "UpdateLink",
            {"identifier": LINK, "resourceTypes": TRACES},
            None,
            Effect(Subject.LINKS, LINK, "another account"),
        ),
        (
            "UpdateLink",
            {"identifier": LINK, "resourceTypes": TRACES[:1]},
            None,
            Effect(Subject.LINKS, LINK, "no traces"),
        ),
        ("DeleteLink", {"identifier": LINK}, None, Effect(Subject.LINKS, LINK, "deleted")),
    ],
)
def test_each_call_is_read_for_what_it_changed_and_concerns_its_target_only_then(
    name: str, request_of: object, response: object, effect: Effect | None
) -> None:
    found = read(name, request_of, response)
    assert found.effect == effect
    assert (found.target, found.trigger.kind) == (Target("111122223333", "us-east-1"), TriggerKind.KEY)
    assert found.trigger.actor is not None
    state = TargetState("111122223333/us-east-1")
    assert concerns(found, RULE, state) is (effect is not None)


def test_an_association_names_its_key_so_that_the_guards_own_is_recognized() -> None:
    assert read("AssociateKmsKey", {"logGroupName": "aws/spans", "kmsKeyId": KEY_ARN}).key_arns == (KEY_ARN,)
    assert read("DisassociateKmsKey", {"logGroupName": "aws/spans"}).key_arns == ()


def test_a_refused_call_changed_nothing() -> None:
    refused = read("DisassociateKmsKey", {"logGroupName": "aws/spans"}, errorCode="AccessDenied")
    assert (refused.effect, refused.error_code) == (None, "AccessDenied")


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("request_of", [None, [], "text", 7, {"resourceTypes": {}, "logGroupName": ["aws/spans"]}])
def test_an_event_of_any_shape_is_read_without_an_error(name: str, request_of: object) -> None:
    assert isinstance(read_key_event(event(name, request_of, request_of)), KeyEvent)


@pytest.mark.parametrize("name", SOURCES)
def test_a_call_of_another_service_under_the_same_name_is_rejected(name: str) -> None:
    for source, endpoint in (("aws.kms", "kms.amazonaws.com"), (f"aws.{SOURCES[name]}", "kms.amazonaws.com")):
        found = read_key_event({**event(name, {}, eventSource=endpoint), "source": source})
        assert isinstance(found, Rejected)
