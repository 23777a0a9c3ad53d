"""The sandbox's CloudTrail and EventBridge: each call has its event, and goes to the rules that match it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from sandbox.patterns import matches
from sandbox.server import Sandbox

CHANGES = {
    "source": ["aws.xray"],
    "detail-type": ["AWS API Call via CloudTrail"],
    "detail": {"eventSource": ["xray.amazonaws.com"], "eventName": ["PutEncryptionConfig"]},
}


def queue_for(sandbox: Sandbox, rule: str, pattern: dict[str, Any], region: str = "us-east-1") -> str:
    """A queue that a rule sends to. Answers its URL."""
    sqs = sandbox.client("sqs", region)
    url: str = sqs.create_queue(QueueName=rule)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events = sandbox.client("events", region)
    events.put_rule(Name=rule, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": arn}])
    return url


def received(sandbox: Sandbox, url: str, region: str = "us-east-1") -> list[dict[str, Any]]:
    assert sandbox.idle(10)
    messages = sandbox.client("sqs", region).receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    return [json.loads(message["Body"]) for message in messages.get("Messages", [])]


def test_a_put_by_the_administrator_becomes_an_event_with_the_shape_of_the_public_record(sandbox: Sandbox) -> None:
    url = queue_for(sandbox, "changes", CHANGES)
    sandbox.client("xray").put_encryption_config(Type="NONE")
    (event,) = received(sandbox, url)
    record = event["detail"]
    assert {name: event[name] for name in ("source", "detail-type", "account", "region")} == {
        "source": "aws.xray",
        "detail-type": "AWS API Call via CloudTrail",
        "account": "123456789012",
        "region": "us-east-1",
    }
    assert record["requestParameters"] == {"type": "NONE"}
    assert record["responseElements"] == {"encryptionConfig": {"status": "UPDATING", "type": "NONE"}}
    assert record["userIdentity"]["type"] == "IAMUser"
    assert record["userIdentity"]["arn"] == "arn:aws:iam::123456789012:user/administrator"
    assert record["recipientAccountId"] == "123456789012"
    assert "errorCode" not in record
    at = datetime.strptime(record["eventTime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - at).total_seconds()) < 10


def test_a_role_session_is_told_with_its_role_and_path(sandbox: Sandbox) -> None:
    url = queue_for(sandbox, "changes", CHANGES)
    iam = sandbox.client("iam")
    role = iam.create_role(RoleName="Ops", Path="/teams/", AssumeRolePolicyDocument="{}")["Role"]
    sandbox.client("xray", role=role["Arn"], session="jdoe").put_encryption_config(Type="NONE")
    (event,) = received(sandbox, url)
    identity = event["detail"]["userIdentity"]
    assert identity["type"] == "AssumedRole"
    assert identity["arn"] == "arn:aws:sts::123456789012:assumed-role/Ops/jdoe"
    assert identity["sessionContext"]["sessionIssuer"]["arn"] == "arn:aws:iam::123456789012:role/teams/Ops"
    assert identity["principalId"] == f"{role['RoleId']}:jdoe"


def test_an_iam_users_own_access_key_names_the_user(sandbox: Sandbox) -> None:
    url = queue_for(sandbox, "changes", CHANGES)
    iam = sandbox.client("iam")
    iam.create_user(UserName="Bob", Path="/division_abc/")
    key = iam.create_access_key(UserName="Bob")["AccessKey"]
    xray = boto3.client(
        "xray",
        region_name="us-east-1",
        endpoint_url=sandbox.url,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    xray.put_encryption_config(Type="NONE")
    (event,) = received(sandbox, url)
    assert event["detail"]["userIdentity"]["arn"] == "arn:aws:iam::123456789012:user/division_abc/Bob"


def test_a_refused_put_is_told_with_its_error_and_without_an_answer(sandbox: Sandbox) -> None:
    url = queue_for(sandbox, "changes", CHANGES)
    with pytest.raises(ClientError):
        sandbox.client("xray").put_encryption_config(Type="KMS", KeyId="alias/not-there")
    (event,) = received(sandbox, url)
    assert event["detail"]["errorCode"] == "InvalidRequestException"
    assert event["detail"]["requestParameters"] == {"type": "KMS", "keyId": "alias/not-there"}
    assert event["detail"]["responseElements"] is None


def test_a_denied_put_is_told_as_access_denied_with_null_parameters(sandbox: Sandbox) -> None:
    url = queue_for(sandbox, "changes", CHANGES)
    sandbox.fail("xray", "PutEncryptionConfig", "AccessDeniedException", status=403, message="no policy allows it")
    with pytest.raises(ClientError):
        sandbox.client("xray").put_encryption_config(Type="NONE")
    (event,) = received(sandbox, url)
    assert (event["detail"]["errorCode"], event["detail"]["requestParameters"]) == ("AccessDenied", None)


def test_the_request_id_of_the_record_is_the_one_that_the_caller_got(sandbox: Sandbox) -> None:
    put = sandbox.client("xray").put_encryption_config(Type="NONE")
    assert sandbox.trail.records[-1]["requestID"] == put["ResponseMetadata"]["RequestId"]


def test_kms_changes_name_their_key_and_alias_in_resources_and_reads_are_not_told(sandbox: Sandbox) -> None:
    kms = sandbox.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    kms.create_alias(AliasName="alias/x", TargetKeyId=key.rsplit("/", 1)[-1])
    kms.describe_key(KeyId="alias/x")
    kms.disable_key(KeyId=key)
    kms.delete_alias(AliasName="alias/x")
    result = [(each["eventName"], {one["ARN"] for one in each["resources"]}) for each in sandbox.trail.records]
    alias = "arn:aws:kms:us-east-1:123456789012:alias/x"
    assert result == [
        ("CreateKey", {key}),
        ("CreateAlias", {key, alias}),
        ("DisableKey", {key}),
        ("DeleteAlias", {key, alias}),
    ]


def test_a_deleted_key_is_told_by_a_service_event_and_by_kms_itself(sandbox: Sandbox) -> None:
    url = queue_for(sandbox, "keys", {"source": ["aws.kms"]})
    key = sandbox.client("kms").create_key()["KeyMetadata"]["Arn"]
    assert len(received(sandbox, url)) == 1
    sandbox.delete_key(key)
    result = {event["detail-type"]: event for event in received(sandbox, url)}
    assert result["AWS Service Event via CloudTrail"]["detail"]["eventName"] == "DeleteKey"
    assert result["KMS CMK Deletion"]["resources"] == [key]
    with pytest.raises(ClientError, match="NotFoundException"):
        sandbox.client("kms").describe_key(KeyId=key)


def test_events_stay_in_the_region_of_the_call(sandbox: Sandbox) -> None:
    here = queue_for(sandbox, "changes", CHANGES)
    there = queue_for(sandbox, "changes", CHANGES, "eu-west-1")
    sandbox.client("xray", "eu-west-1").put_encryption_config(Type="NONE")
    (event,) = received(sandbox, there, "eu-west-1")
    assert event["region"] == "eu-west-1"
    assert received(sandbox, here) == []


def test_a_disabled_rule_hears_nothing_and_an_enabled_one_hears_again(sandbox: Sandbox) -> None:
    url = queue_for(sandbox, "changes", CHANGES)
    events, xray = sandbox.client("events"), sandbox.client("xray")
    events.disable_rule(Name="changes")
    xray.put_encryption_config(Type="NONE")
    assert received(sandbox, url) == []
    events.enable_rule(Name="changes")
    xray.put_encryption_config(Type="NONE")
    assert len(received(sandbox, url)) == 1


BUS = "arn:aws:events:us-east-1:123456789012:event-bus/default"
RULE = "arn:aws:events:eu-west-1:123456789012:rule/forward"
SENDS = {"Effect": "Allow", "Action": "events:PutEvents", "Resource": BUS}


def role_that(sandbox: Sandbox, may: dict[str, Any], trusted: str = "events.amazonaws.com", **condition: Any) -> str:
    """The ARN of a new role that the service may assume under the condition, with these rights."""
    iam = sandbox.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": trusted}, "Action": "sts:AssumeRole", **condition}
    role = iam.create_role(RoleName="forward", AssumeRolePolicyDocument=policy_of(trust))["Role"]
    iam.put_role_policy(RoleName="forward", PolicyName="p", PolicyDocument=policy_of(may))
    return str(role["Arn"])


def policy_of(statement: dict[str, Any]) -> str:
    """A policy with one statement."""
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def forwarded(sandbox: Sandbox, **target: Any) -> list[dict[str, Any]]:
    """What arrives here when X-Ray's setting changes in another Region, whose rule has this target."""
    here = queue_for(sandbox, "changes", CHANGES)
    there = sandbox.client("events", "eu-west-1")
    there.put_rule(Name="forward", EventPattern=json.dumps(CHANGES))
    there.put_targets(Rule="forward", Targets=[{"Id": "bus", "Arn": BUS, **target}])
    sandbox.client("xray", "eu-west-1").put_encryption_config(Type="NONE")
    return received(sandbox, here)


def test_a_rule_forwards_to_the_bus_of_another_region_and_the_event_keeps_its_own(sandbox: Sandbox) -> None:
    (event,) = forwarded(sandbox, RoleArn=role_that(sandbox, SENDS))
    assert (event["account"], event["region"]) == ("123456789012", "eu-west-1")


def test_a_role_that_trusts_only_this_rule_forwards_for_it(sandbox: Sandbox) -> None:
    condition = {"ArnLike": {"aws:SourceArn": RULE}, "StringEquals": {"aws:SourceAccount": "123456789012"}}
    assert len(forwarded(sandbox, RoleArn=role_that(sandbox, SENDS, Condition=condition))) == 1


def test_a_rule_without_a_role_forwards_where_the_bus_allows_it(sandbox: Sandbox) -> None:
    statement = {"Sid": "a", **SENDS, "Principal": {"AWS": "123456789012"}}
    sandbox.client("events").put_permission(Policy=policy_of(statement))
    assert len(forwarded(sandbox)) == 1


@pytest.mark.parametrize(
    "role",
    [
        lambda sandbox: {},
        lambda sandbox: {"RoleArn": "arn:aws:iam::123456789012:role/gone"},
        lambda sandbox: {"RoleArn": role_that(sandbox, {**SENDS, "Resource": BUS.replace("default", "other")})},
        lambda sandbox: {"RoleArn": role_that(sandbox, {**SENDS, "Action": "events:PutRule"})},
        lambda sandbox: {"RoleArn": role_that(sandbox, SENDS, "lambda.amazonaws.com")},
        lambda sandbox: {"RoleArn": role_that(sandbox, SENDS, Condition={"ArnLike": {"aws:SourceArn": RULE + "-not"}})},
    ],
    ids=["none", "gone", "for another bus", "other action", "other service", "for another rule"],
)
def test_a_rule_that_may_not_forward_does_not(sandbox: Sandbox, role: Callable[[Sandbox], dict[str, str]]) -> None:
    assert forwarded(sandbox, **role(sandbox)) == []


def test_a_bus_that_denies_a_source_refuses_it_from_rules_and_principals(sandbox: Sandbox) -> None:
    condition = {"StringNotEquals": {"events:source": ["aws.kms"]}}
    statement = {"Sid": "d", **SENDS, "Effect": "Deny", "Principal": "*", "Condition": condition}
    sandbox.client("events").put_permission(Policy=policy_of(statement))
    assert forwarded(sandbox, RoleArn=role_that(sandbox, SENDS)) == []
    with pytest.raises(ClientError, match="AccessDenied"):
        sandbox.client("events").put_events(Entries=[{"Source": "my.app", "DetailType": "x", "Detail": "{}"}])


def test_events_can_be_lost_or_come_twice(sandbox: Sandbox) -> None:
    url = queue_for(sandbox, "changes", CHANGES)
    xray = sandbox.client("xray")
    sandbox.turn(event_copies=0)
    xray.put_encryption_config(Type="NONE")
    assert received(sandbox, url) == []
    sandbox.turn(event_copies=2)
    xray.put_encryption_config(Type="NONE")
    first, second = received(sandbox, url)
    assert first["detail"]["eventID"] == second["detail"]["eventID"]


def test_a_customer_cannot_speak_for_aws_but_for_itself(sandbox: Sandbox) -> None:
    aws, own = queue_for(sandbox, "changes", CHANGES), queue_for(sandbox, "own", {"source": ["my.app"]})
    entries = [
        {"Source": "aws.xray", "DetailType": "AWS API Call via CloudTrail", "Detail": json.dumps(CHANGES["detail"])},
        {"Source": "my.app", "DetailType": "hello", "Detail": '{"n": 1}'},
    ]
    answer = sandbox.client("events").put_events(Entries=entries)
    assert answer["FailedEntryCount"] == 1
    assert answer["Entries"][0]["ErrorCode"] == "NotAuthorizedForSourceException"
    assert received(sandbox, aws) == []
    assert [event["detail"] for event in received(sandbox, own)] == [{"n": 1}]


def test_a_schedule_fires_when_told_and_its_rule_matches_no_other_event(sandbox: Sandbox) -> None:
    url = queue_for(sandbox, "changes", CHANGES)
    events = sandbox.client("events")
    arn = "arn:aws:sqs:us-east-1:123456789012:changes"
    events.put_rule(Name="minutely", ScheduleExpression="rate(1 minute)")
    events.put_targets(Rule="minutely", Targets=[{"Id": "queue", "Arn": arn}])
    sandbox.client("xray").put_encryption_config(Type="NONE")
    assert [event["source"] for event in received(sandbox, url)] == ["aws.xray"]
    assert sandbox.run_schedule("minutely") == 1
    assert [event["detail-type"] for event in received(sandbox, url)] == ["Scheduled Event"]


def test_an_undeliverable_event_goes_to_the_dead_letter_queue_of_its_target(sandbox: Sandbox) -> None:
    sqs, events = sandbox.client("sqs"), sandbox.client("events")
    url = sqs.create_queue(QueueName="dead")["QueueUrl"]
    target = {
        "Id": "gone",
        "Arn": "arn:aws:lambda:us-east-1:123456789012:function:gone",
        "DeadLetterConfig": {"Arn": "arn:aws:sqs:us-east-1:123456789012:dead"},
    }
    events.put_rule(Name="changes", EventPattern=json.dumps(CHANGES))
    events.put_targets(Rule="changes", Targets=[target])
    sandbox.client("xray").put_encryption_config(Type="NONE")
    (event,) = received(sandbox, url)
    assert event["detail"]["eventName"] == "PutEncryptionConfig"


EVENT = {
    "source": "aws.kms",
    "detail": {
        "eventName": "DisableKey",
        "errorCode": None,
        "count": 3,
        "resources": [{"ARN": "arn:1", "type": "key"}, {"ARN": "arn:2", "type": "alias"}],
        "userIdentity": {"sessionContext": {"sessionIssuer": {"userName": "Ops"}}},
    },
}


@pytest.mark.parametrize(
    ("detail", "fits"),
    [
        ({"eventName": ["EnableKey", "DisableKey"]}, True),
        ({"eventName": ["EnableKey"]}, False),
        ({"eventName": [{"prefix": "Disable"}]}, True),
        ({"eventName": [{"prefix": "Enable"}]}, False),
        ({"eventName": [{"anything-but": ["DisableKey"]}]}, False),
        ({"eventName": [{"anything-but": {"prefix": "Get"}}]}, True),
        ({"nothing": [{"anything-but": ["x"]}]}, False),
        ({"nothing": [{"exists": False}]}, True),
        ({"nothing": {"deeper": [{"exists": False}]}}, True),
        ({"eventName": [{"exists": False}]}, False),
        ({"errorCode": [None]}, True),
        ({"count": [{"numeric": [">", 2, "<=", 3]}]}, True),
        ({"count": [True]}, False),
        ({"userIdentity": {"sessionContext": {"sessionIssuer": {"userName": ["Ops"]}}}}, True),
        ({"resources": {"ARN": ["arn:2"]}}, True),
        ({"resources": {"ARN": ["arn:2"], "type": ["key"]}}, False),
        ({"eventName": [{"wildcard": "*Key"}]}, True),
        ({"$or": [{"eventName": ["x"]}, {"count": [3]}]}, True),
    ],
)
def test_a_pattern_matches_as_eventbridge_matches(detail: dict[str, Any], fits: bool) -> None:
    assert matches({"source": ["aws.kms"], "detail": detail}, EVENT) is fits


def ask(sandbox: Sandbox, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{sandbox.url}/_sandbox/{path}", data, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_the_control_endpoint_tells_the_calls_with_their_principals(sandbox: Sandbox) -> None:
    sandbox.client("xray").put_encryption_config(Type="NONE")
    (call,) = ask(sandbox, "GET", "calls?service=xray&action=PutEncryptionConfig")
    assert call["principal"] == "arn:aws:iam::123456789012:user/administrator"
    assert (call["parameters"], call["status"], call["error"]) == ({"Type": "NONE"}, 200, None)
    ask(sandbox, "DELETE", "calls")
    assert ask(sandbox, "GET", "calls") == []


def test_the_control_endpoint_turns_knobs_and_refuses_those_that_are_not_there(sandbox: Sandbox) -> None:
    assert ask(sandbox, "POST", "knobs", {"settle_seconds": 9})["settle_seconds"] == 9
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(sandbox, "POST", "knobs", {"colour": 1})
    assert caught.value.code == 400


def test_an_event_put_in_by_hand_arrives_as_if_aws_had_sent_it(sandbox: Sandbox) -> None:
    url = queue_for(sandbox, "changes", CHANGES)
    event = {**CHANGES, "source": "aws.xray", "detail-type": "AWS API Call via CloudTrail"}
    event |= {"account": "123456789012", "region": "us-east-1"}
    event["detail"] = {"eventSource": "xray.amazonaws.com", "eventName": "PutEncryptionConfig"}
    assert ask(sandbox, "POST", "events", event) == {"targets": 1}
    assert received(sandbox, url) == [event]


def test_an_event_is_on_the_bus_within_a_quarter_of_a_second(sandbox: Sandbox) -> None:
    sandbox.turn(event_delay_seconds=0.1)
    queue_for(sandbox, "changes", CHANGES)
    began = time.monotonic()
    sandbox.client("xray").put_encryption_config(Type="NONE")
    assert sandbox.idle(5)
    # Sixfold, for a machine that is busy with other tests.
    assert time.monotonic() - began < 1.5


def test_grants_are_told_with_their_ids_and_a_retired_one_without_a_request(sandbox: Sandbox) -> None:
    kms = sandbox.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    given = {"GranteePrincipal": "arn:aws:iam::123456789012:root", "Operations": ["Decrypt"]}
    first, second, third = (kms.create_grant(KeyId=key, **given) for _ in range(3))
    kms.revoke_grant(KeyId=key, GrantId=first["GrantId"])
    kms.retire_grant(KeyId=key, GrantId=second["GrantId"])
    kms.retire_grant(GrantToken=third["GrantToken"])
    created, *_, revoked, retired, by_token = list(sandbox.trail.records)[1:]
    assert (created["eventName"], created["responseElements"]["grantId"]) == ("CreateGrant", first["GrantId"])
    assert created["requestParameters"]["granteePrincipal"] == given["GranteePrincipal"]
    assert revoked["requestParameters"]["grantId"] == first["GrantId"]
    assert (retired["requestParameters"], retired["additionalEventData"]) == (None, {"grantId": second["GrantId"]})
    assert (by_token["eventName"], by_token["requestParameters"]) == ("RetireGrant", None)
    assert [each["ARN"] for record in (created, revoked, retired, by_token) for each in record["resources"]] == [
        key
    ] * 4
    assert kms.list_grants(KeyId=key)["Grants"] == []
    with pytest.raises(ClientError, match="NotFoundException"):
        kms.retire_grant(KeyId=key, GrantId=second["GrantId"])
