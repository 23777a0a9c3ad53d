"""The sandbox's Lambda: a packaged template is deployed, and its functions run as Lambda would run them.

The package is made by hand here, so that these tests stand by themselves.
"""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.functions import Function
from sandbox.server import Sandbox
from sandbox.template import Made, Template, TemplateError

HANDLERS = """
import json, os, sys, time
import boto3

def echo(event, context):
    print("event", json.dumps(event)[:80])
    return {
        "event": event,
        "function": context.function_name,
        "arn": context.invoked_function_arn,
        "left": context.get_remaining_time_in_millis(),
        "table": os.environ["TABLE"],
        "process": os.getpid(),
    }

def heal(event, context):
    boto3.client("dynamodb").put_item(
        TableName=os.environ["TABLE"],
        Item={"id": {"S": event["detail"]["eventID"]}, "who": {"S": boto3.client("sts").get_caller_identity()["Arn"]}},
    )
    if event["detail"]["requestParameters"]["type"] == "NONE":
        boto3.client("xray").put_encryption_config(Type="KMS", KeyId="alias/aws/xray")

def fail(event, context):
    raise ValueError("on purpose")

def sleep(event, context):
    time.sleep(30)

def leave(event, context):
    os._exit(3)

def ask(event, context):
    import pytest

def beat(event, context):
    print("beat", event["detail-type"])
"""

PATTERN = {"source": ["aws.xray"], "detail": {"eventName": ["PutEncryptionConfig"]}}


def function(name: str, **properties: Any) -> dict[str, Any]:
    return {
        "Type": "AWS::Serverless::Function",
        "Properties": {
            "Handler": f"app.{name}",
            "Runtime": "python3.11",
            "CodeUri": "./deployment.zip",
            "Timeout": 10,
            "Role": {"Fn::GetAtt": ["Role", "Arn"]},
            "Environment": {"Variables": {"TABLE": {"Ref": "Table"}}},
            **properties,
        },
    }


TO_DEAD_LETTERS = {
    "MaximumRetryAttempts": 2,
    "DestinationConfig": {"OnFailure": {"Type": "SQS", "Destination": {"Fn::GetAtt": ["Dead", "Arn"]}}},
}

ALLOW_ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}

TEMPLATE: dict[str, Any] = {
    "Parameters": {"Heals": {"Type": "String", "Default": "yes"}},
    "Conditions": {"Heals": {"Fn::Equals": [{"Ref": "Heals"}, "yes"]}},
    "Resources": {
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "RoleName": {"Fn::Sub": "guard-${AWS::Region}"},
                "Path": "/apps/",
                "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": []},
                "Policies": [{"PolicyName": "p", "PolicyDocument": ALLOW_ALL}],
            },
        },
        "Table": {
            "Type": "AWS::DynamoDB::Table",
            "Properties": {
                "TableName": "things",
                "BillingMode": "PAY_PER_REQUEST",
                "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            },
        },
        "Dead": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "dead"}},
        "DeadPolicy": {"Type": "AWS::SQS::QueuePolicy", "Properties": {"Queues": [{"Ref": "HealHealEvent"}]}},
        "Echo": function("echo", FunctionName="guard-echo"),
        "Heal": {
            **function("heal", Events={"HealEvent": {"Type": "EventBridgeRule", "Properties": {"Pattern": PATTERN}}}),
            "Condition": "Heals",
        },
        "Fail": function("fail", EventInvokeConfig=TO_DEAD_LETTERS),
        "Sleep": function("sleep", Timeout=1),
        "Leave": function("leave"),
        "Ask": function("ask"),
        "Missing": {**function("missing"), "Properties": {**function("x")["Properties"], "Handler": "gone.missing"}},
        "Beat": function("beat", Events={"Tick": {"Type": "Schedule", "Properties": {"Schedule": "rate(1 minute)"}}}),
    },
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    (folder / "sam.json").write_text(json.dumps(TEMPLATE))
    (folder / "tables.json").write_text(json.dumps({"Resources": {}}))
    with zipfile.ZipFile(folder / "deployment.zip", "w") as members:
        members.writestr("app.py", HANDLERS)
    return folder


@pytest.fixture(scope="module")
def small(package: Path) -> Iterator[Sandbox]:
    with Sandbox(
        package=package, warm=False, settle_seconds=0.1, retry_seconds=(0.05, 0.05), schedules=False
    ) as running:
        yield running


@pytest.fixture
def cloud(small: Sandbox) -> Iterator[Sandbox]:
    """The small package deployed. Its state stays, for a reset would cost every function its start."""
    yield small
    assert small.idle(30)


def test_a_function_is_invoked_by_the_lambda_api_under_its_own_or_its_handlers_name(cloud: Sandbox) -> None:
    client = cloud.client("lambda")
    for name in ("guard-echo", "echo", "arn:aws:lambda:us-east-1:123456789012:function:guard-echo"):
        answer = client.invoke(FunctionName=name, Payload=b'{"n": 1}', LogType="Tail")
        shown = json.load(answer["Payload"])
        assert (shown["event"], shown["function"], shown["table"]) == ({"n": 1}, "guard-echo", "things")
        assert shown["arn"] == "arn:aws:lambda:us-east-1:123456789012:function:guard-echo"
        assert 0 < shown["left"] <= 10_000
        assert "FunctionError" not in answer
    assert 'event {"n": 1}' in cloud.log("echo")


def test_a_function_that_is_not_there_is_not_found(cloud: Sandbox) -> None:
    client = cloud.client("lambda")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="nobody")


def test_the_functions_are_listed(cloud: Sandbox) -> None:
    shown = {each["FunctionName"] for each in cloud.client("lambda").list_functions()["Functions"]}
    assert {"guard-echo", "heal", "fail", "beat"} <= shown


def test_a_process_is_kept_warm(cloud: Sandbox) -> None:
    first, second = (cloud.invoke("echo", {}).value()["process"] for _ in range(2))
    assert first == second


def test_a_change_by_a_user_is_healed_by_the_function_and_told_as_its_roles_doing(cloud: Sandbox) -> None:
    cloud.trail.records.clear()
    cloud.client("xray").put_encryption_config(Type="NONE")
    assert cloud.idle(30)
    shown = cloud.client("xray").get_encryption_config()["EncryptionConfig"]
    assert shown["Type"] == "KMS"
    by_user, by_function = (each["userIdentity"] for each in cloud.trail.records if "xray" in each["eventSource"])
    assert by_user["arn"].endswith(":user/administrator")
    role = "arn:aws:iam::123456789012:role/apps/guard-us-east-1"
    assert by_function["sessionContext"]["sessionIssuer"]["arn"] == role
    assert by_function["arn"] == "arn:aws:sts::123456789012:assumed-role/guard-us-east-1/heal"
    items = cloud.client("dynamodb").scan(TableName="things")["Items"]
    assert {item["who"]["S"] for item in items} == {by_function["arn"]}


def test_what_fails_is_tried_three_times_and_then_kept_by_the_failure_destination(cloud: Sandbox) -> None:
    client, sqs = cloud.client("lambda"), cloud.client("sqs")
    assert client.invoke(FunctionName="fail", InvocationType="Event", Payload=b'{"n": 2}')["StatusCode"] == 202
    assert cloud.idle(30)
    url = sqs.get_queue_url(QueueName="dead")["QueueUrl"]
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    shown = json.loads(message["Body"])
    assert shown["requestPayload"] == {"n": 2}
    assert shown["requestContext"]["condition"] == "RetriesExhausted"
    assert shown["requestContext"]["approximateInvokeCount"] == 3
    assert shown["responsePayload"]["errorMessage"] == "on purpose"


def test_an_error_is_answered_as_unhandled_with_its_type(cloud: Sandbox) -> None:
    result = cloud.invoke("fail", {})
    assert (result.error, result.value()["errorType"]) == ("Unhandled", "ValueError")


def test_a_function_that_takes_too_long_is_ended_and_starts_anew(cloud: Sandbox) -> None:
    began = time.monotonic()
    result = cloud.invoke("sleep", {})
    assert "Task timed out after 1.00 seconds" in result.value()["errorMessage"]
    assert time.monotonic() - began < 10
    assert named(cloud, "sleep").process_id is None


def test_a_process_that_ends_by_itself_is_an_error_and_not_a_wait(cloud: Sandbox) -> None:
    result = cloud.invoke("leave", {})
    assert result.value()["errorType"] == "Runtime.ExitError"


def test_a_module_that_is_not_in_the_package_is_an_error_although_it_is_installed_here(cloud: Sandbox) -> None:
    assert cloud.invoke("ask", {}).value()["errorType"] in ("ModuleNotFoundError", "Runtime.ImportModuleError")


def test_a_handler_that_cannot_be_loaded_is_an_error_that_says_so(cloud: Sandbox) -> None:
    assert cloud.invoke("missing", {}).value()["errorType"] == "Runtime.ImportModuleError"


def test_a_schedule_of_the_template_fires_its_function(cloud: Sandbox) -> None:
    assert cloud.run_schedule("beat") == 1
    assert cloud.idle(30)
    assert "beat Scheduled Event" in cloud.log("beat")


def named(sandbox: Sandbox, name: str) -> Function:
    found: Function = next(each for each in sandbox.functions if each.definition.name == name)
    return found


def test_the_functions_work_where_awss_runtime_client_is_not_installed(cloud: Sandbox) -> None:
    for name in ("guard-echo", "fail"):
        named(cloud, name).restart(plain=True)
    result = cloud.invoke("echo", {"n": 3})
    assert result.error is None, result.log
    assert result.value()["event"] == {"n": 3}
    failed = cloud.invoke("fail", {})
    assert (failed.error, failed.value()["errorType"]) == ("Unhandled", "ValueError")
    for name in ("guard-echo", "fail"):
        named(cloud, name).restart(plain=False)


def test_no_process_outlives_the_sandbox_nor_its_reset(package: Path, small: Sandbox) -> None:
    small.invoke("echo", {})
    former = named(small, "guard-echo").process_id
    assert former is not None
    small.reset()
    with pytest.raises(ProcessLookupError):
        os.kill(former, 0)
    assert small.invoke("echo", {}).error is None
    assert small.client("xray").get_encryption_config()["EncryptionConfig"]["Type"] == "NONE"


def resolve(value: Any, **parameters: Any) -> Any:
    document = {
        "Parameters": {name: {"Type": "String"} for name in parameters},
        "Conditions": {"Yes": {"Fn::Not": [{"Fn::Equals": ["a", "b"]}]}, "No": {"Fn::Not": [{"Condition": "Yes"}]}},
        "Mappings": {"M": {"a": {"b": "c"}}},
    }
    made = {"Thing": Made("thing-1", {"Arn": "arn:thing", "Sub.Name": "deep"})}
    return Template(document, {"AWS::Region": "eu-west-1"}, made.__getitem__, parameters).resolve(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"Ref": "Thing"}, "thing-1"),
        ({"Fn::GetAtt": ["Thing", "Arn"]}, "arn:thing"),
        ({"Fn::GetAtt": "Thing.Arn"}, "arn:thing"),
        (
            {"Fn::Sub": "${Thing}/${Thing.Arn}/${AWS::Region}/${!literal}/${Name}"},
            "thing-1/arn:thing/eu-west-1/${literal}/n",
        ),
        ({"Fn::Sub": ["${a}", {"a": {"Ref": "Thing"}}]}, "thing-1"),
        ({"Fn::If": ["Yes", 1, {"Ref": "NotThere"}]}, 1),
        ({"a": {"Fn::If": ["No", 1, {"Ref": "AWS::NoValue"}]}, "b": 2}, {"b": 2}),
        ([{"Fn::If": ["No", 1, {"Ref": "AWS::NoValue"}]}, 2], [2]),
        ({"Fn::Join": ["-", ["a", {"Ref": "Name"}]]}, "a-n"),
        ({"Fn::Select": [1, {"Fn::Split": [":", "a:b"]}]}, "b"),
        ({"Fn::FindInMap": ["M", "a", "b"]}, "c"),
    ],
)
def test_intrinsic_functions_give_what_cloudformation_gives(value: Any, expected: Any) -> None:
    assert resolve(value, Name="n") == expected


def test_an_intrinsic_function_that_is_not_known_is_refused() -> None:
    with pytest.raises(TemplateError, match="Fn::Transform"):
        resolve({"Fn::Transform": {}})
