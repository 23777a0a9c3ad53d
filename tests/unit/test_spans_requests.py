"""The requests about spans and links: exactly one log group counts, every page is read, and the change is sent once."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.aws.logs import SpanLogsApi
from chalicelib.aws.oam import TraceLinksApi
from chalicelib.aws.xray import XRayApi
from chalicelib.domain.errors import AwsError
from chalicelib.domain.spans import TRACES, Link, LogGroup, of_traces
from tests.unit.endpoint import Endpoint, Refused

REGION = "us-east-1"
KEY = "arn:aws:kms:us-east-1:111122223333:key/11111111-1111-1111-1111-111111111111"
LINK = "arn:aws:oam:us-east-1:111122223333:link/"
SINK = "arn:aws:oam:us-east-1:444455556666:sink/1"
GROUPS: list[dict[str, Any]] = [
    {"logGroupName": "aws/spans-of-others"},
    {"logGroupName": "aws/spans", "kmsKeyId": KEY, "retentionInDays": 30},
]


def aws(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """An AWS with prepared answers, one item a page."""
    number = int(parameters.get("nextToken") or parameters.get("NextToken") or 0)
    match operation:
        case "DescribeLogGroups":
            assert parameters["logGroupNamePrefix"] == "aws/spans"
            return {"logGroups": GROUPS[number : number + 1], **({"nextToken": "1"} if number == 0 else {})}
        case "ListLinks":
            types = [[TRACES], ["AWS::Logs::LogGroup"]][number]
            page = {"Arn": f"{LINK}{number}", "SinkArn": SINK, "ResourceTypes": types}
            return {"Items": [page], **({"NextToken": "1"} if number == 0 else {})}
        case "GetTraceSegmentDestination":
            return {"Destination": "CloudWatchLogs", "Status": "PENDING"}
    return {}


def test_only_the_log_group_of_exactly_that_name_counts_on_whatever_page_it_is() -> None:
    assert SpanLogsApi(Endpoint(aws).clients, REGION).group() == LogGroup(KEY, 30)


def test_without_such_a_log_group_there_is_none_and_one_without_key_or_retention_says_so() -> None:
    others = Endpoint(lambda operation, parameters: {"logGroups": GROUPS[:1]})
    assert SpanLogsApi(others.clients, REGION).group() is None
    bare = Endpoint(lambda operation, parameters: {"logGroups": [{"logGroupName": "aws/spans"}]})
    assert SpanLogsApi(bare.clients, REGION).group() == LogGroup(None, None)


def test_p8_an_association_is_sent_once_and_to_that_log_group_only() -> None:
    def silent(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        raise Refused("ServiceUnavailableException", status=503)

    endpoint = Endpoint(silent)
    with pytest.raises(AwsError) as refused:
        SpanLogsApi(endpoint.clients, REGION).associate(KEY)
    assert refused.value.effect_unknown
    (request,) = endpoint.requests
    assert (request.operation, request.parameters) == (
        "AssociateKmsKey",
        {"logGroupName": "aws/spans", "kmsKeyId": KEY},
    )


def test_every_link_is_read_with_the_account_of_its_sink() -> None:
    links = TraceLinksApi(Endpoint(aws).clients, REGION).all()
    assert links == (
        Link(f"{LINK}0", "444455556666", (TRACES,)),
        Link(f"{LINK}1", "444455556666", ("AWS::Logs::LogGroup",)),
    )
    assert of_traces(links) == links[:1]


@pytest.mark.parametrize("answer", [{}, {"Destination": "Elsewhere", "Status": "ACTIVE"}])
def test_p4_a_destination_that_the_guard_does_not_know_is_not_taken_for_one_that_it_knows(answer: Any) -> None:
    with pytest.raises(AwsError) as unknown:
        XRayApi(Endpoint(lambda operation, parameters: answer).clients, REGION).spans_destination()
    assert unknown.value.code == "UnexpectedAnswer"


def test_the_destination_is_read_as_x_ray_says_it() -> None:
    assert XRayApi(Endpoint(aws).clients, REGION).spans_destination() == ("CloudWatchLogs", "PENDING")
