"""What invokes `on_key_change`: each change that may matter, of four services, and nothing of what is frequent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib.domain.events import KEY_EVENTS, KEY_NOTICES
from chalicelib.entry import KEY_CHANGES
from chalicelib.operators.dead_letters import SOURCES
from sandbox.patterns import matches

CALL = "AWS API Call via CloudTrail"
SPANS_ARN = "arn:aws:logs:us-east-1:111122223333:log-group:aws/spans"
MOST_COMBINATIONS = 1000
"""EventBridge user guide, "Comparison operators": the product of the lengths of all `$or` lists of a pattern."""


def called(service: str, name: str, parameters: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The event of a call, as far as patterns look at it."""
    detail = {"eventSource": f"{service}.amazonaws.com", "eventName": name, "requestParameters": parameters, **more}
    return {"source": f"aws.{service}", "detail-type": CALL, "detail": detail}


MATTERS = [
    *(called("kms", name, {"keyId": "k"}) for name in sorted(KEY_EVENTS)),
    *({"source": "aws.kms", "detail-type": notice, "detail": {"key-id": "k"}} for notice in sorted(KEY_NOTICES)),
    called("xray", "UpdateTraceSegmentDestination", {"destination": "CloudWatchLogs"}),
    *(
        called("logs", name, parameters)
        for name in ("AssociateKmsKey", "DisassociateKmsKey", "DeleteLogGroup")
        for parameters in ({"logGroupName": "aws/spans", "kmsKeyId": "k"}, {"resourceIdentifier": SPANS_ARN})
    ),
    called("logs", "DisassociateKmsKey", {"resourceIdentifier": f"{SPANS_ARN}:*"}),
    *(called("oam", name, {"Identifier": "a"}) for name in ("CreateLink", "UpdateLink", "DeleteLink")),
    *(called("oam", name) for name in ("CreateLink", "UpdateLink", "DeleteLink")),
]

IS_NOTHING_TO_THE_GUARD = [
    called("kms", "Decrypt", {"keyId": "k"}),
    called("kms", "DisableKey", None, errorCode="AccessDenied"),
    called("xray", "PutEncryptionConfig", {"type": "NONE"}),  # invokes on_change
    called("xray", "CreateGroup", {}),
    called("xray", "TagResource", {}),
    called("xray", "UpdateTraceSegmentDestination", None, errorCode="AccessDenied"),
    *(
        called("logs", name, parameters)
        for name in ("AssociateKmsKey", "DisassociateKmsKey", "DeleteLogGroup")
        for parameters in (
            None,
            {"logGroupName": "/aws/lambda/shop"},
            {"logGroupName": "shop/aws/spans"},
            {"resourceIdentifier": "arn:aws:logs:us-east-1:111122223333:log-group:/aws/spans"},
            {"resourceIdentifier": "arn:aws:logs:us-east-1:111122223333:query-result:*"},
        )
    ),
    called("logs", "AssociateKmsKey", {"logGroupName": "aws/spans"}, errorCode="InvalidParameterException"),
    called("logs", "CreateLogStream", {"logGroupName": "aws/spans"}),
    called("logs", "TagResource", {"logGroupName": "aws/spans"}),
    called("oam", "CreateSink", {"Name": "s"}),
    called("oam", "TagResource", {}),
    called("s3", "DeleteObject", {}),
]


def about(event: dict[str, Any]) -> str:
    return json.dumps([event["source"], event["detail"]])


@pytest.mark.parametrize("event", MATTERS, ids=about)
def test_what_may_change_where_or_how_traces_lie_invokes_it(event: dict[str, Any]) -> None:
    assert matches(KEY_CHANGES, event)


@pytest.mark.parametrize("event", IS_NOTHING_TO_THE_GUARD, ids=about)
def test_nothing_else_does(event: dict[str, Any]) -> None:
    assert not matches(KEY_CHANGES, event)


def test_the_bus_and_the_redrive_know_the_sources_of_the_patterns(sam: dict[str, Any]) -> None:
    (policy,) = [
        each for each in sam["Resources"]["Bus"]["Properties"]["Policy"]["Statement"] if "Source" in each["Sid"]
    ]
    allowed = policy["Condition"]["ForAnyValue:StringNotEquals"]["events:source"]
    assert {source for each in KEY_CHANGES["$or"] for source in each["source"]} == set(SOURCES) == set(allowed)


def test_the_choices_of_the_pattern_are_few_enough(spoke_region: dict[str, Any]) -> None:
    def combinations(part: Any) -> int:
        if isinstance(part, list):
            return max([1, *(combinations(each) for each in part)])
        product = 1
        for name, value in part.items() if isinstance(part, dict) else ():
            product *= combinations(value) * (len(value) if name == "$or" else 1)
        return product

    pattern = spoke_region["Resources"]["ForwardRule"]["Properties"]["EventPattern"]
    assert 1 < combinations(pattern) <= MOST_COMBINATIONS
