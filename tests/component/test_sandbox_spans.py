"""The sandbox's Transaction Search: where spans go, the key of their log group, and links that copy traces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from sandbox.server import Sandbox
from tests.component.test_sandbox_events import queue_for, received

ACCOUNT, MONITORING, REGION = "123456789012", "444455556666", "us-east-1"
SPANS = "aws/spans"
SPANS_ARN = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{SPANS}"
TRACES = "AWS::XRay::Trace"


def refusal(call: Any, **parameters: Any) -> tuple[str, str]:
    """The code and the message with which AWS refuses."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def search_on(sandbox: Sandbox, **parameters: Any) -> dict[str, Any]:
    """Turn Transaction Search on; the response."""
    xray = sandbox.client("xray")
    result: dict[str, Any] = xray.update_trace_segment_destination(Destination="CloudWatchLogs", **parameters)
    return result


def with_key(key: str) -> dict[str, Any]:
    return {"CloudWatchLogsConfiguration": {"SpansLogGroupKmsKeyId": key}}


def spans_group(sandbox: Sandbox, region: str = REGION) -> dict[str, Any] | None:
    """What DescribeLogGroups shows of `aws/spans`."""
    found = sandbox.client("logs", region).describe_log_groups(logGroupNamePrefix=SPANS)["logGroups"]
    return next((each for each in found if each["logGroupName"] == SPANS), None)


def logs_statement(arn: str = SPANS_ARN, service: str = f"logs.{REGION}.amazonaws.com") -> dict[str, Any]:
    """The statement of the CloudWatch Logs guide."""
    return {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"],
        "Resource": "*",
        "Condition": {"ArnEquals": {"kms:EncryptionContext:aws:logs:arn": arn}},
    }


def key_for(sandbox: Sandbox, *statements: dict[str, Any], account: str = ACCOUNT, **made: Any) -> str:
    """A key whose policy has these statements besides that of its account's root."""
    root = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}, "Action": "kms:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [root, *statements]})
    key: str = sandbox.client("kms", account=account).create_key(Policy=policy, **made)["KeyMetadata"]["Arn"]
    return key


class TestTheDestination:
    def test_is_x_ray_until_it_is_changed_and_pending_for_as_long_as_asked(self, sandbox: Sandbox) -> None:
        sandbox.turn(settle_seconds=0.4)
        xray = sandbox.client("xray")
        shown = {name: xray.get_trace_segment_destination()[name] for name in ("Destination", "Status")}
        assert shown == {"Destination": "XRay", "Status": "ACTIVE"}
        put = search_on(sandbox)
        assert (put["Destination"], put["Status"]) == ("CloudWatchLogs", "PENDING")
        assert xray.get_trace_segment_destination()["Status"] == "PENDING"
        time.sleep(0.5)
        shown = {name: xray.get_trace_segment_destination()[name] for name in ("Destination", "Status")}
        assert shown == {"Destination": "CloudWatchLogs", "Status": "ACTIVE"}

    def test_is_one_for_each_account_and_region_and_so_is_the_group(self, sandbox: Sandbox) -> None:
        search_on(sandbox)
        for where in (("eu-west-1", None), (REGION, MONITORING)):
            assert sandbox.client("xray", *where).get_trace_segment_destination()["Destination"] == "XRay"
            assert sandbox.client("logs", *where).describe_log_groups()["logGroups"] == []
        assert spans_group(sandbox) is not None

    def test_the_group_may_be_absent_for_a_time_and_stays_when_the_destination_is_x_ray_again(
        self, sandbox: Sandbox
    ) -> None:
        sandbox.turn(spans_group_seconds=0.3)
        search_on(sandbox)
        assert spans_group(sandbox) is None
        time.sleep(0.4)
        assert spans_group(sandbox) is not None
        sandbox.client("xray").update_trace_segment_destination(Destination="XRay")
        assert spans_group(sandbox) is not None
        assert sandbox.client("xray").get_trace_segment_destination()["Destination"] == "XRay"

    def test_brings_a_key_only_with_a_new_group_and_only_one_that_logs_may_use(self, sandbox: Sandbox) -> None:
        key, foreign = key_for(sandbox, logs_statement()), key_for(sandbox, logs_statement(), account=MONITORING)
        xray = sandbox.client("xray")
        for wrong in (foreign, key.rsplit("/", 1)[-1], key_for(sandbox)):
            code, _ = refusal(xray.update_trace_segment_destination, Destination="CloudWatchLogs", **with_key(wrong))
            assert code == "InvalidRequestException"
        assert spans_group(sandbox) is None
        code, _ = refusal(xray.update_trace_segment_destination, Destination="XRay", **with_key(key))
        assert code == "InvalidRequestException"
        search_on(sandbox, **with_key(key))
        group = spans_group(sandbox)
        assert group is not None
        assert group["kmsKeyId"] == key
        assert sandbox.spans()["encrypted_by"] == key, "a new group has its key at once"
        code, _ = refusal(xray.update_trace_segment_destination, Destination="CloudWatchLogs", **with_key(key))
        assert code == "InvalidRequestException"
        search_on(sandbox)

    def test_must_be_one_that_x_ray_knows(self, sandbox: Sandbox) -> None:
        code, _ = refusal(sandbox.client("xray").update_trace_segment_destination, Destination="S3")
        assert code == "InvalidRequestException"


class TestTheKeyOfTheGroup:
    @pytest.fixture(autouse=True)
    def _search(self, sandbox: Sandbox) -> None:
        search_on(sandbox)

    def test_is_shown_at_once_and_used_for_new_data_five_minutes_later(self, sandbox: Sandbox) -> None:
        sandbox.turn(clock_behind_seconds=3600)
        logs, key = sandbox.client("logs"), key_for(sandbox, logs_statement())
        group = spans_group(sandbox)
        assert group is not None
        assert "kmsKeyId" not in group
        assert (group["arn"], group["logGroupArn"]) == (f"{SPANS_ARN}:*", SPANS_ARN)
        logs.associate_kms_key(logGroupName=SPANS, kmsKeyId=key)
        group = spans_group(sandbox)
        assert group is not None
        assert group["kmsKeyId"] == key
        assert sandbox.spans()["encrypted_by"] is None
        sandbox.let_go_by(301)
        assert sandbox.spans()["encrypted_by"] == key
        logs.disassociate_kms_key(resourceIdentifier=SPANS_ARN)
        group = spans_group(sandbox)
        assert group is not None
        assert "kmsKeyId" not in group
        assert sandbox.spans()["encrypted_by"] == key
        sandbox.let_go_by(301)
        assert sandbox.spans()["encrypted_by"] is None

    def test_may_be_a_key_of_another_account_that_lets_logs_use_it(self, sandbox: Sandbox) -> None:
        foreign = key_for(sandbox, logs_statement(), account=MONITORING)
        sandbox.client("logs").associate_kms_key(resourceIdentifier=SPANS_ARN, kmsKeyId=foreign)
        assert sandbox.spans()["key"] == foreign

    @pytest.mark.parametrize(
        "statement",
        [
            None,
            logs_statement(SPANS_ARN.replace("aws/spans", "aws/spans2")),
            logs_statement(service="logs.eu-west-1.amazonaws.com"),
            logs_statement(service="xray.amazonaws.com"),
            {**logs_statement(), "Action": ["kms:GenerateDataKey*", "kms:Decrypt*"]},
        ],
        ids=["no statement", "another group", "another Region", "another service", "too little"],
    )
    def test_is_refused_if_its_policy_does_not_let_logs_use_it_for_that_group(
        self, statement: dict[str, Any] | None, sandbox: Sandbox
    ) -> None:
        key = key_for(sandbox, *([statement] if statement else []))
        code, message = refusal(sandbox.client("logs").associate_kms_key, logGroupName=SPANS, kmsKeyId=key)
        assert (code, SPANS_ARN in message) == ("AccessDeniedException", True)
        assert sandbox.spans()["key"] is None

    def test_is_refused_where_its_policy_denies_it(self, sandbox: Sandbox) -> None:
        key = key_for(sandbox, logs_statement(), {**logs_statement(), "Effect": "Deny", "Action": "kms:Decrypt"})
        code, _ = refusal(sandbox.client("logs").associate_kms_key, logGroupName=SPANS, kmsKeyId=key)
        assert code == "AccessDeniedException"

    def test_must_exist_be_named_by_its_arn_be_enabled_and_symmetric(self, sandbox: Sandbox) -> None:
        logs, kms = sandbox.client("logs"), sandbox.client("kms")
        disabled, good = key_for(sandbox, logs_statement()), key_for(sandbox, logs_statement())
        kms.disable_key(KeyId=disabled)
        kms.create_alias(AliasName="alias/x", TargetKeyId=good)
        wrong = [
            disabled,
            good.rsplit("/", 1)[-1],
            good.rsplit(":", 1)[0] + ":alias/x",
            good.rsplit("/", 1)[0] + "/00000000-0000-4000-8000-000000000000",
            key_for(sandbox, logs_statement(), KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT"),
        ]
        for key in wrong:
            code, _ = refusal(logs.associate_kms_key, logGroupName=SPANS, kmsKeyId=key)
            assert code == "InvalidParameterException", key
        assert sandbox.spans()["key"] is None
        logs.associate_kms_key(logGroupName=SPANS, kmsKeyId=good)

    def test_needs_a_group_and_one_way_to_name_it(self, sandbox: Sandbox) -> None:
        logs, key = sandbox.client("logs"), key_for(sandbox, logs_statement())
        both = {"logGroupName": SPANS, "resourceIdentifier": SPANS_ARN}
        assert refusal(logs.associate_kms_key, **both, kmsKeyId=key)[0] == "InvalidParameterException"
        assert refusal(logs.disassociate_kms_key)[0] == "InvalidParameterException"
        logs.delete_log_group(logGroupName=SPANS)
        assert spans_group(sandbox) is None
        for call, more in ((logs.associate_kms_key, {"kmsKeyId": key}), (logs.disassociate_kms_key, {})):
            assert refusal(call, logGroupName=SPANS, **more)[0] == "ResourceNotFoundException"


class TestLogGroups:
    def test_names_that_begin_with_aws_are_reserved_and_other_groups_are_as_ever(self, sandbox: Sandbox) -> None:
        logs = sandbox.client("logs")
        code, message = refusal(logs.create_log_group, logGroupName="aws/spans")
        assert (code, "reserved for AWS" in message) == ("InvalidParameterException", True)
        arn = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/shop"
        key = key_for(sandbox, logs_statement(arn))
        assert refusal(logs.create_log_group, logGroupName="/aws/other", kmsKeyId=key)[0] == "AccessDeniedException"
        logs.create_log_group(logGroupName="/aws/shop", kmsKeyId=key)
        (group,) = logs.describe_log_groups()["logGroups"]
        assert (group["logGroupName"], group["kmsKeyId"]) == ("/aws/shop", key)

    def test_a_denied_region_denies_all_of_it(self, sandbox: Sandbox) -> None:
        sandbox.turn(denied_regions=["eu-west-1"])
        denied = [
            refusal(sandbox.client("xray", "eu-west-1").get_trace_segment_destination),
            refusal(sandbox.client("logs", "eu-west-1").describe_log_groups),
            refusal(sandbox.client("oam", "eu-west-1").list_links),
        ]
        assert {code for code, _ in denied} == {"AccessDeniedException"}
        assert all("explicit deny in a service control policy" in message for _, message in denied)


def sink_for(sandbox: Sandbox, *types: str, account: str = MONITORING, source: str = ACCOUNT) -> str:
    """A sink to which the source account may link these resource types."""
    oam = sandbox.client("oam", account=account)
    arn: str = oam.create_sink(Name="observers")["Arn"]
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": source},
                "Action": ["oam:CreateLink", "oam:UpdateLink"],
                "Resource": "*",
                "Condition": {"ForAllValues:StringEquals": {"oam:ResourceTypes": list(types)}},
            }
        ],
    }
    oam.put_sink_policy(SinkIdentifier=arn, Policy=json.dumps(policy))
    return arn


class TestLinks:
    def test_a_link_is_made_changed_shown_and_deleted(self, sandbox: Sandbox) -> None:
        oam, metrics = sandbox.client("oam"), "AWS::CloudWatch::Metric"
        sink = sink_for(sandbox, TRACES, metrics)
        made = oam.create_link(LabelTemplate="$AccountName", ResourceTypes=[metrics], SinkIdentifier=sink)
        assert made["Arn"].startswith(f"arn:aws:oam:{REGION}:{ACCOUNT}:link/")
        (listed,) = oam.list_links()["Items"]
        assert (listed["SinkArn"], listed["ResourceTypes"]) == (sink, [metrics])
        oam.update_link(Identifier=made["Arn"], ResourceTypes=[metrics, TRACES])
        assert oam.get_link(Identifier=made["Id"])["ResourceTypes"] == [metrics, TRACES]
        assert sandbox.client("oam", account=MONITORING).list_links()["Items"] == []
        assert sandbox.client("oam", "eu-west-1").list_links()["Items"] == []
        oam.delete_link(Identifier=made["Arn"])
        assert oam.list_links()["Items"] == []
        assert refusal(oam.get_link, Identifier=made["Arn"])[0] == "ResourceNotFoundException"

    def test_only_what_the_sinks_policy_allows_is_linked_once(self, sandbox: Sandbox) -> None:
        oam, sink = sandbox.client("oam"), sink_for(sandbox, TRACES)
        label = {"LabelTemplate": "x"}
        link = {**label, "SinkIdentifier": sink}
        assert refusal(oam.create_link, ResourceTypes=["AWS::Logs::LogGroup"], **link)[0] == "AccessDeniedException"
        oam.create_link(ResourceTypes=[TRACES], **link)
        assert refusal(oam.create_link, ResourceTypes=[TRACES], **link)[0] == "ConflictException"
        absent = {**label, "SinkIdentifier": sink[:-4] + "0000"}
        assert refusal(oam.create_link, ResourceTypes=[TRACES], **absent)[0] == "ResourceNotFoundException"
        own = {**label, "SinkIdentifier": sink_for(sandbox, TRACES, account=ACCOUNT)}
        assert refusal(oam.create_link, ResourceTypes=[TRACES], **own)[0] == "InvalidParameterException"
        deleting = sandbox.client("oam", account=MONITORING)
        assert refusal(deleting.delete_sink, Identifier=sink)[0] == "ConflictException"

    def test_are_listed_in_pages_and_five_at_most(self, sandbox: Sandbox) -> None:
        oam = sandbox.client("oam")
        for number in range(5):
            sink = sink_for(sandbox, TRACES, account=f"44445555000{number}")
            oam.create_link(LabelTemplate="x", ResourceTypes=[TRACES], SinkIdentifier=sink)
        pages = list(oam.get_paginator("list_links").paginate(PaginationConfig={"PageSize": 2}))
        assert [len(page["Items"]) for page in pages] == [2, 2, 1]
        sixth = {"LabelTemplate": "x", "SinkIdentifier": sink_for(sandbox, TRACES, account="444455550006")}
        assert refusal(oam.create_link, ResourceTypes=[TRACES], **sixth)[0] == "ServiceQuotaExceededException"


class TestTheEvents:
    def names(self, sandbox: Sandbox, url: str) -> list[tuple[str, str, str]]:
        return sorted(
            (each["source"], each["detail"]["eventSource"], each["detail"]["eventName"])
            for each in received(sandbox, url)
        )

    def test_every_change_has_an_event_of_its_service_and_reads_and_log_lines_have_none(self, sandbox: Sandbox) -> None:
        key, sink = key_for(sandbox, logs_statement()), sink_for(sandbox, TRACES)
        url = queue_for(sandbox, "all", {"source": ["aws.xray", "aws.logs", "aws.oam"]})
        logs, oam = sandbox.client("logs"), sandbox.client("oam")
        search_on(sandbox)
        logs.associate_kms_key(logGroupName=SPANS, kmsKeyId=key)
        logs.disassociate_kms_key(resourceIdentifier=SPANS_ARN)
        link = oam.create_link(LabelTemplate="x", ResourceTypes=[TRACES], SinkIdentifier=sink)["Arn"]
        oam.update_link(Identifier=link, ResourceTypes=[TRACES])
        spans_group(sandbox)
        oam.list_links()
        sandbox.client("xray").get_trace_segment_destination()
        logs.create_log_stream(logGroupName=SPANS, logStreamName="s")
        logs.put_log_events(
            logGroupName=SPANS, logStreamName="s", logEvents=[{"timestamp": int(time.time() * 1000), "message": "m"}]
        )
        oam.delete_link(Identifier=link)
        logs.delete_log_group(logGroupName=SPANS)
        assert self.names(sandbox, url) == [
            ("aws.logs", "logs.amazonaws.com", "AssociateKmsKey"),
            ("aws.logs", "logs.amazonaws.com", "CreateLogStream"),
            ("aws.logs", "logs.amazonaws.com", "DeleteLogGroup"),
            ("aws.logs", "logs.amazonaws.com", "DisassociateKmsKey"),
            ("aws.oam", "oam.amazonaws.com", "CreateLink"),
            ("aws.oam", "oam.amazonaws.com", "DeleteLink"),
            ("aws.oam", "oam.amazonaws.com", "UpdateLink"),
            ("aws.xray", "xray.amazonaws.com", "UpdateTraceSegmentDestination"),
        ]

    def test_name_the_parameters_and_event_history_has_them(self, sandbox: Sandbox) -> None:
        key = key_for(sandbox, logs_statement())
        search_on(sandbox)
        sandbox.client("logs").associate_kms_key(logGroupName=SPANS, kmsKeyId=key)
        shown = {record["eventName"]: record for record in sandbox.trail.records}
        assert shown["AssociateKmsKey"]["requestParameters"] == {"logGroupName": SPANS, "kmsKeyId": key}
        destination = shown["UpdateTraceSegmentDestination"]
        assert destination["requestParameters"] == {"destination": "CloudWatchLogs"}
        assert destination["responseElements"] == {"destination": "CloudWatchLogs", "status": "PENDING"}
        attribute = {"AttributeKey": "EventName", "AttributeValue": "AssociateKmsKey"}
        (found,) = sandbox.client("cloudtrail").lookup_events(LookupAttributes=[attribute])["Events"]
        assert found["EventSource"] == "logs.amazonaws.com"

    def test_a_refused_association_says_why(self, sandbox: Sandbox) -> None:
        search_on(sandbox)
        refusal(sandbox.client("logs").associate_kms_key, logGroupName=SPANS, kmsKeyId=key_for(sandbox))
        record = sandbox.trail.records[-1]
        assert (record["eventName"], record["errorCode"]) == ("AssociateKmsKey", "AccessDenied")


def test_the_aws_cli_does_all_of_it(sandbox: Sandbox) -> None:
    cli = Path(sys.executable).with_name("aws")
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}

    def aws(*words: str) -> Any:
        ran = subprocess.run(
            [cli, *words], env={**surroundings, **sandbox.environment()}, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout) if ran.stdout else None

    key, sink = key_for(sandbox, logs_statement()), sink_for(sandbox, TRACES)
    aws("xray", "update-trace-segment-destination", "--destination", "CloudWatchLogs")
    assert aws("xray", "get-trace-segment-destination")["Destination"] == "CloudWatchLogs"
    aws("logs", "associate-kms-key", "--log-group-name", SPANS, "--kms-key-id", key)
    (group,) = aws("logs", "describe-log-groups", "--log-group-name-prefix", SPANS)["logGroups"]
    assert group["kmsKeyId"] == key
    link = ("--resource-types", TRACES, "--sink-identifier", sink, "--label-template", "x")
    made = aws("oam", "create-link", *link)
    assert [each["Arn"] for each in aws("oam", "list-links")["Items"]] == [made["Arn"]]
    assert sandbox.state()["spans"][f"{ACCOUNT}/{REGION}"]["key"] == key
