"""`doctor` finds what keeps the guard from its work, and `redrive` sends again what was given up on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from moto.awslambda.models import lambda_backends

from chalicelib.domain.lookups import Progress
from chalicelib.operators.dead_letters import FORWARD_QUEUE_NAME, QUEUE_NAME, read_message
from chalicelib.operators.doctor import RULES
from chalicelib.operators.forwarding import FORWARD_RULE, RECEIVING_RULES
from chalicelib.operators.trails import logs_writes_of
from tests.component.operated import (
    ACCOUNT,
    HERE,
    PROJECT,
    REGION,
    client,
    delivered,
    event,
    histories,
    setting,
    swept,
    typed,
    world,
)

pytestmark = pytest.mark.usefixtures("shell")

MANAGEMENT = {"ReadWriteType": "All", "IncludeManagementEvents": True}
ON_CHANGE = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:xray-guard-on_change"


TABLES = [f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/xray-guard-{name}" for name in ("audit", "targets")]
ONLY_THE_GUARD_WRITES = {"Statement": [{"Effect": "Deny", "Principal": "*", "Action": ["dynamodb:PutItem"]}]}


def anchored(bucket: str, *, locked: bool) -> None:
    """Make a bucket with versions and an anchor of now, and with a default retention or without Object Lock."""
    s3 = client("s3")
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=locked)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    if locked:
        retention = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 400}}}
        s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=retention)
    s3.put_object(Bucket=bucket, Key=f"anchors/{datetime.now(UTC):%Y/%m/%d/%H%M%S}-1.json", Body=b"{}")


def move_anchors() -> None:
    """Let sweeps write their anchors to a bucket without Object Lock."""
    anchored("unlocked", locked=False)
    configure(XRAY_GUARD_ANCHOR_BUCKET="unlocked")


def configure(**variables: str) -> None:
    """Change the environment of the deployed function that sweeps."""
    client("lambda").update_function_configuration(
        FunctionName="xray-guard-sweep", Environment={"Variables": variables}
    )


def no_anchor_of_these_days() -> None:
    """Remove the latest anchor, as if no sweep had written one."""
    for each in client("s3").list_object_versions(Bucket="anchors")["Versions"]:
        client("s3").delete_object(Bucket="anchors", Key=each["Key"])


@pytest.fixture
def deployed() -> Iterator[None]:
    """An account in which the guard is deployed and has just swept."""
    with world():
        client("s3").create_bucket(Bucket="trail")
        trail = client("cloudtrail")
        trail.create_trail(Name="organization", S3BucketName="trail", IsMultiRegionTrail=True)
        trail.start_logging(Name="organization")
        trail.put_event_selectors(TrailName="organization", EventSelectors=[MANAGEMENT])
        iam = client("iam")
        role = iam.create_role(RoleName="xray-guard", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        for name in RULES:
            made = client("lambda").create_function(
                FunctionName=name,
                Runtime="python3.12",
                Role=role,
                Handler="app.x",
                Code={"ZipFile": b"not run here"},
                Environment={"Variables": {"XRAY_GUARD_RIGHTS": "enforce", "XRAY_GUARD_ANCHOR_BUCKET": "anchors"}},
            )
            client("events").put_rule(Name=name, EventPattern='{"source": ["aws.xray"]}')
            client("events").put_targets(Rule=name, Targets=[{"Id": "1", "Arn": made["FunctionArn"]}])
        client("sqs").create_queue(QueueName=QUEUE_NAME)
        for table in TABLES:
            client("dynamodb").put_resource_policy(ResourceArn=table, Policy=json.dumps(ONLY_THE_GUARD_WRITES))
        anchored("anchors", locked=True)
        forwarded()
        delivered(event())
        swept()
        yield


def forwarded() -> None:
    """Every other Region forwards its events to the guard's bus."""
    pattern = '{"source": ["aws.xray"]}'
    bus = client("events").create_event_bus(Name="xray-guard")["EventBusArn"]
    for name in RECEIVING_RULES:
        client("events").put_rule(Name=name, EventBusName="xray-guard", EventPattern=pattern)
        function = client("lambda").get_function_configuration(FunctionName=name)["FunctionArn"]
        client("events").put_targets(Rule=name, EventBusName="xray-guard", Targets=[{"Id": "1", "Arn": function}])
    both = json.dumps({"$or": [json.loads(pattern)] * 2})
    for region in {one["RegionName"] for one in client("ec2").describe_regions()["Regions"]} - {REGION}:
        client("events", region).put_rule(Name=FORWARD_RULE, EventPattern=both)
        client("events", region).put_targets(Rule=FORWARD_RULE, Targets=[{"Id": "guard", "Arn": bus}])
        client("sqs", region).create_queue(QueueName=FORWARD_QUEUE_NAME)


COMMAND = re.compile(r"(aws [a-z0-9]+ [a-z-]+|make [a-z]+|xray-guard [a-z]+)")
"""A remedy names the command that mends what is wrong, or that shows why."""


def findings() -> list[dict[str, Any]]:
    """Every finding."""
    found: list[dict[str, Any]] = typed("doctor", "--output", "json").json["findings"]
    return found


def bad(*options: str) -> dict[str, str]:
    """What is not good, by check, with its remedy."""
    answer = typed("doctor", "--output", "json", *options)
    result = answer.json
    found = [one for one in result["findings"] if one["status"] != "good"]
    assert (answer.code, result["healthy"]) == ((1, False) if found else (0, True))
    assert all(COMMAND.search(one["remedy"]) for one in found if one["status"] == "bad"), found
    assert all(one["remedy"] for one in found)
    return {one["check"]: f"{one['message']} | {one['remedy']}" for one in found}


class TestDoctor:
    def test_of_a_guard_that_can_work_finds_all_well(self, deployed: None) -> None:
        answer = typed("doctor")
        assert answer.code == 0, answer.out
        assert "all checks passed" in answer.err
        assert bad() == {}
        assert {line["status"] for line in typed("doctor", "-o", "jsonl").lines} == {"good"}

    @pytest.mark.parametrize(
        ("harm", "check", "result"),
        [
            (lambda: client("cloudtrail").stop_logging(Name="organization"), "trail", "no trail logs"),
            (lambda: client("cloudtrail").delete_trail(Name="organization"), "trail", "create a trail"),
            (lambda: select({**MANAGEMENT, "ReadWriteType": "ReadOnly"}), "trail", "no trail logs"),
            (lambda: select({**MANAGEMENT, "IncludeManagementEvents": False}), "trail", "no trail logs"),
            (
                lambda: select({**MANAGEMENT, "ExcludeManagementEventSources": ["kms.amazonaws.com"]}),
                "trail",
                "excludes KMS",
            ),
            (
                lambda: client("cloudtrail").update_trail(Name="organization", IsMultiRegionTrail=False),
                "trail",
                "--name organization --is-multi-region-trail",
            ),
            (lambda: client("events").disable_rule(Name=RULES[0]), "rules", "enable-rule"),
            (lambda: client("events", "eu-west-1").disable_rule(Name=FORWARD_RULE), "other Regions", "eu-west-1"),
            (
                lambda: client("events").remove_targets(Rule=RULES[-1], Ids=["1"]),
                "rules",
                "does not invoke the function",
            ),
            (
                lambda: client("events").remove_targets(Rule=RECEIVING_RULES[0], EventBusName="xray-guard", Ids=["1"]),
                "other Regions",
                "on the event bus xray-guard does not invoke",
            ),
            (
                lambda: client("lambda").delete_function(FunctionName=RULES[0]),
                "functions",
                "does not exist in us-east-1",
            ),
            (
                lambda: client("lambda").put_function_concurrency(
                    FunctionName=RULES[0], ReservedConcurrentExecutions=0
                ),
                "functions",
                "delete-function-concurrency",
            ),
            (
                lambda: client("dynamodb").update_table(TableName="xray-guard-audit", DeletionProtectionEnabled=False),
                "tables",
                "--deletion-protection-enabled",
            ),
            (
                lambda: client("dynamodb").update_continuous_backups(
                    TableName="xray-guard-targets",
                    PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False},
                ),
                "tables",
                "PointInTimeRecoveryEnabled=true",
            ),
            (
                lambda: client("dynamodb").put_resource_policy(ResourceArn=TABLES[0], Policy='{"Statement": []}'),
                "table policies",
                "does not limit who writes",
            ),
            (
                lambda: client("s3").put_bucket_versioning(
                    Bucket="anchors", VersioningConfiguration={"Status": "Suspended"}
                ),
                "anchors",
                "no versioning",
            ),
            (move_anchors, "anchors", "no Object Lock with a default retention"),
            (no_anchor_of_these_days, "anchors", "the latest anchor in anchors is more than a day old"),
            (lambda: send("{}"), "dead letters", "xray-guard redrive"),
            (lambda: client("sqs").delete_queue(QueueUrl=queue()), "dead letters", "XRAY_GUARD_DLQ_URL"),
        ],
    )
    def test_finds_what_is_wrong_and_says_what_to_do(
        self, deployed: None, harm: Callable[[], object], check: str, result: str
    ) -> None:
        harm()
        found = bad()
        assert list(found) == [check]
        assert result in found[check]

    @pytest.mark.parametrize(
        ("choice", "check", "result"),
        [
            (lambda: configure(XRAY_GUARD_ANCHOR_BUCKET=""), "anchors", "NO ANCHOR BUCKET"),
            (
                lambda: configure(XRAY_GUARD_ANCHOR_BUCKET="anchors", XRAY_GUARD_RIGHTS="observe"),
                "rights",
                "RIGHTS=enforce",
            ),
            (
                lambda: client("dynamodb").delete_resource_policy(ResourceArn=TABLES[1]),
                "table policies",
                "the table xray-guard-targets has no resource policy",
            ),
        ],
    )
    def test_warns_of_what_the_deployment_chose_to_do_without(
        self, deployed: None, choice: Callable[[], object], check: str, result: str
    ) -> None:
        choice()
        answer = typed("doctor", "--output", "json")
        assert (answer.code, answer.json["healthy"]) == (0, True)
        (warned,) = [one for one in answer.json["findings"] if one["status"] != "good"]
        assert (warned["check"], warned["status"]) == (check, "warning")
        assert result in f"{warned['message']} | {warned['remedy']}"
        assert f"WARNING: {warned['message']}" in typed("doctor").err
        assert "all checks passed, 1 with a warning" in answer.err

    def test_p14_an_open_break_glass_is_no_alarm_however_long_it_is_open(self, deployed: None) -> None:
        now = datetime.now(UTC)
        glass = {
            "carrier": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/k",
            "value": "INC-7",
            "reason": "INC-7",
            "first_seen": (now - timedelta(hours=2)).isoformat(),
            "end": (now + timedelta(hours=2)).isoformat(),
            "until": (now + timedelta(hours=2)).isoformat(),
        }
        at = glass["first_seen"]
        incident = {"id": f"{HERE}#5", "opened_at": at, "before": None, "phase": "open", "due": at}
        why = {"outcome": "SUPPRESSED", "reason": "BREAK_GLASS"}
        seen = {"watch": at, "suppressions": [glass], "incident": incident, **why}
        change_state(HERE, lambda state: {**state, **seen})
        assert bad() == {}
        (told,) = [one for one in findings() if "break-glass" in one["message"]]
        assert (told["check"], told["status"]) == ("targets", "good")
        assert f"suspends remediation of {HERE} until" in told["message"]

    def test_a_target_of_another_account_is_not_the_guards(self, deployed: None) -> None:
        item = client("dynamodb").get_item(TableName="xray-guard-targets", Key={"target": {"S": HERE}})["Item"]
        text = item["state"]["S"].replace(ACCOUNT, "999988887777")
        other = {**item, "target": {"S": f"999988887777/{REGION}"}, "state": {"S": text}}
        client("dynamodb").put_item(TableName="xray-guard-targets", Item=other)
        neglected = {"look": "2026-01-01T00:00:00Z", "first_seen": "2026-01-01T00:00:00Z", "outcome": "FAILED"}
        change_state(f"999988887777/{REGION}", lambda state: {**state, **neglected})
        assert bad() == {}

    def test_a_guard_that_was_deployed_a_moment_ago_waits_for_its_first_sweep(self, deployed: None) -> None:
        change_state("guard", lambda state: {**state, "swept_at": None, "policy_digest": None})
        assert bad() == {}
        messages = {one["check"]: one["message"] for one in findings()}
        assert "its first sweep runs within an hour" in messages["sweep"]
        assert "its first sweep runs within an hour" in messages["policy"]
        deployed_at = f"{datetime.now(UTC) - timedelta(hours=3):%Y-%m-%dT%H:%M:%S.000+0000}"
        lambda_backends[ACCOUNT][REGION].get_function("xray-guard-sweep").last_modified = deployed_at
        assert set(bad()) == {"sweep", "policy"}

    def test_the_remedy_of_what_is_wrong_is_said_whole_on_a_narrow_terminal(
        self, deployed: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        client("events").disable_rule(Name=RULES[0])
        answer = typed("doctor")
        assert max(map(len, answer.out.splitlines())) <= 80
        assert f"What to do: aws events enable-rule --name {RULES[0]}\n" in answer.err

    def test_finds_a_sweep_that_is_late_and_a_pause(self, deployed: None) -> None:
        change_state("guard", lambda state: {**state, "swept_at": "2026-01-01T00:00:00Z"})
        assert "more than two hours ago" in bad()["sweep"]
        paused = {"at": "2026-01-01T00:00:00Z", "by": "jdoe", "reason": "INC-7"}
        change_state("guard", lambda state: {**state, "paused": paused})
        findings = typed("doctor", "--output", "json").json["findings"]
        assert any("paused" in one["message"] and "jdoe" in one["message"] for one in findings)

    def test_finds_that_the_guard_enforces_another_policy(self, deployed: None, tmp_path: Path) -> None:
        policy = json.loads((PROJECT / "policies" / "policy.json").read_text("utf-8"))
        policy["rules"][0]["id"] = "mine"
        (tmp_path / "policy.json").write_text(json.dumps(policy), "utf-8")
        assert "deploy" in bad("--policy", str(tmp_path))["policy"]
        (tmp_path / "policy.json").write_text("{}", "utf-8")
        assert "not a valid policy" in bad("--policy", str(tmp_path))["policy"]

    def test_finds_a_deaf_target_and_a_history_that_is_not_read(self, deployed: None) -> None:
        now = datetime.now(UTC)
        histories().keep(HERE, Progress(until=now - timedelta(hours=4), deaf_since=now - timedelta(hours=5)))
        messages = [
            one["message"]
            for one in typed("doctor", "--output", "json").json["findings"]
            if one["check"] == "event history"
        ]
        assert [message.split(HERE)[0] for message in messages] == [
            "the guard has received no event from ",
            "Event history of ",
        ]
        histories().keep(HERE, Progress(until=now))
        assert bad() == {}

    def test_finds_that_ids_differ_on_both_ways(self, deployed: None) -> None:
        now = datetime.now(UTC)
        histories().keep(HERE, Progress(until=now, matched_otherwise=3))
        assert "other ids in Event history" in bad()["event history"]
        histories().keep(HERE, Progress(until=now, matched_otherwise=3, matched_by_id=1))
        assert bad() == {}

    def test_finds_a_target_whose_history_was_never_read(self, deployed: None) -> None:
        change_state(HERE, lambda state: {**state, "first_seen": "2026-01-01T00:00:00Z"})
        assert "was not read since 2026-01-01" in bad()["event history"]
        change_state(HERE, lambda state: {**state, "first_seen": None})
        delivered(json.loads(json.dumps(event()).replace(ACCOUNT, "444455556666")))
        change_state(f"444455556666/{REGION}", lambda state: {**state, "first_seen": "2026-01-01T00:00:00Z"})
        assert "event history" not in bad()

    def test_finds_targets_that_failed_or_are_overdue_and_keys_that_nothing_uses(self, deployed: None) -> None:
        lost = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/lost"

        def neglect(state: dict[str, Any]) -> dict[str, Any]:
            made = [*state["keys_made"], lost]
            return {**state, "keys_made": made, "look": "2026-01-01T00:00:00Z", "outcome": "FAILED", "reason": "X"}

        change_state(HERE, neglect)
        messages = [
            one["message"] for one in typed("doctor", "--output", "json").json["findings"] if one["check"] == "targets"
        ]
        assert any(lost in message for message in messages)
        assert any("overdue since 2026-01-01" in message for message in messages)
        assert any(f"could not remediate {HERE}: X" in message for message in messages)

    def test_without_anything_deployed_says_so_of_everything_and_goes_on(self) -> None:
        with world(tables=False):
            found = bad()
        of_the_guard = {"rules", "functions", "rights", "dead letters", "policy", "sweep", "targets", "event history"}
        assert set(found) == of_the_guard | {"trail", "other Regions", "tables", "table policies", "anchors"}

    def test_changes_nothing(self, deployed: None) -> None:
        before = (setting(), client("dynamodb").scan(TableName="xray-guard-targets")["Items"])
        typed("doctor")
        assert (setting(), client("dynamodb").scan(TableName="xray-guard-targets")["Items"]) == before


def select(selector: dict[str, Any]) -> None:
    """Change what the trail logs."""
    client("cloudtrail").put_event_selectors(TrailName="organization", EventSelectors=[selector])


def change_state(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write a state as no run of this test could have brought it about."""
    dynamodb = client("dynamodb")
    item = dynamodb.get_item(TableName="xray-guard-targets", Key={"target": {"S": name}})["Item"]
    state = json.dumps(change(json.loads(item["state"]["S"])))
    dynamodb.put_item(TableName="xray-guard-targets", Item={**item, "state": {"S": state}})


MANAGED = {"Field": "eventCategory", "Equals": ["Management"]}


@pytest.mark.parametrize(
    ("fields", "takes"),
    [
        ([MANAGED], True),
        ([MANAGED, {"Field": "readOnly", "Equals": ["false"]}], True),
        ([MANAGED, {"Field": "readOnly", "Equals": ["true"]}], False),
        ([MANAGED, {"Field": "eventSource", "NotEquals": ["kms.amazonaws.com"]}], False),
        ([MANAGED, {"Field": "eventSource", "NotEquals": ["rdsdata.amazonaws.com"]}], True),
        ([MANAGED, {"Field": "eventSource", "Equals": ["kms.amazonaws.com", "s3.amazonaws.com"]}], True),
        ([MANAGED, {"Field": "eventSource", "NotStartsWith": ["kms."]}], False),
        ([MANAGED, {"Field": "eventName", "Equals": ["CreateKey"]}], False),
        ([{"Field": "eventCategory", "Equals": ["Data"]}], False),
        ([], False),
    ],
)
def test_advanced_selectors_are_read_for_what_they_take(fields: list[dict[str, Any]], takes: bool) -> None:
    selectors = {"AdvancedEventSelectors": [{"Name": "x", "FieldSelectors": fields}]}
    assert logs_writes_of(selectors, "kms.amazonaws.com") is takes


# --- redrive ---------------------------------------------------------------------------------------------------------


def queue() -> str:
    """The dead-letter queue's URL."""
    return str(client("sqs").get_queue_url(QueueName=QUEUE_NAME)["QueueUrl"])


def send(body: str, **attributes: str) -> None:
    """Leave a letter."""
    result = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
    client("sqs").send_message(QueueUrl=queue(), MessageBody=body, MessageAttributes=result)


def waiting() -> int:
    """How many letters there are for anybody to take."""
    answer = client("sqs").get_queue_attributes(QueueUrl=queue(), AttributeNames=["ApproximateNumberOfMessages"])
    return int(answer["Attributes"]["ApproximateNumberOfMessages"])


def given_up(payload: Any, arn: str = f"{ON_CHANGE}:$LATEST") -> str:
    """What Lambda leaves when a function failed for good."""
    return json.dumps(
        {
            "version": "1.0",
            "timestamp": "2026-11-20T18:00:00.000Z",
            "requestContext": {
                "requestId": "r",
                "functionArn": arn,
                "condition": "RetriesExhausted",
                "approximateInvokeCount": 3,
            },
            "requestPayload": payload,
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "responsePayload": {"errorMessage": "BUSY: met other writers", "errorType": "Busy"},
        }
    )


class TestRedrive:
    def test_of_an_empty_queue_is_good(self, deployed: None) -> None:
        answer = typed("redrive")
        assert (answer.code, answer.out) == (0, "")
        assert "is empty" in answer.err
        assert typed("redrive", "--yes", "--output", "json").json == {"letters": []}

    def test_shows_what_lies_there_and_leaves_it(self, deployed: None) -> None:
        send(given_up(event()))
        send(json.dumps(event()), TARGET_ARN=ON_CHANGE, ERROR_CODE="NO_PERMISSIONS", ERROR_MESSAGE="may not invoke")
        answer = typed("redrive", "--output", "json")
        letters = answer.json["letters"]
        assert answer.code == 0
        assert [one["function"] for one in letters] == ["xray-guard-on_change"] * 2
        assert [one["payload"]["detail"]["eventName"] for one in letters] == ["PutEncryptionConfig"] * 2
        assert {one["reason"] for one in letters} == {
            "RetriesExhausted: BUSY: met other writers",
            "NO_PERMISSIONS: may not invoke",
        }
        assert waiting() == 2
        table = typed("redrive")
        assert "PutEncryptionConfig" in table.out
        assert "--yes" in table.err

    def test_leaves_what_could_not_be_sent_and_says_why(self, deployed: None) -> None:
        send("nobody knows what this is")
        send(given_up(event(), f"{ON_CHANGE}-gone"))
        answer = typed("redrive", "--yes", "--output", "json")
        assert answer.code == 1
        assert all(one["fate"].startswith("kept: ") for one in answer.json["letters"])
        assert waiting() == 2

    def test_without_a_queue_says_how_to_name_one(self) -> None:
        with world(tables=False):
            answer = typed("redrive")
        assert answer.code == 253
        assert "XRAY_GUARD_DLQ_URL" in answer.err

    def test_looks_into_the_queue_that_the_environment_names(
        self, deployed: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = client("sqs").create_queue(QueueName="other")["QueueUrl"]
        client("sqs").send_message(QueueUrl=other, MessageBody=given_up({}))
        monkeypatch.setenv("XRAY_GUARD_DLQ_URL", other)
        assert len(typed("redrive", "--output", "jsonl").lines) == 1

    def test_takes_no_more_than_it_was_told_to(self, deployed: None) -> None:
        for number in range(15):
            send(given_up({"number": number}))
        assert len(typed("redrive", "--limit", "12", "--output", "jsonl").lines) == 12


@pytest.mark.parametrize(
    ("source", "name", "function"),
    [
        ("aws.xray", "PutEncryptionConfig", "xray-guard-on_change"),
        ("aws.xray", None, "xray-guard-on_change"),
        ("aws.xray", "UpdateTraceSegmentDestination", "xray-guard-on_key_change"),
        ("aws.kms", "DisableKey", "xray-guard-on_key_change"),
        ("aws.logs", "DisassociateKmsKey", "xray-guard-on_key_change"),
        ("aws.oam", "CreateLink", "xray-guard-on_key_change"),
        ("my.app", "CreateLink", None),
        (7, None, None),
        ([], None, None),
    ],
)
def test_an_event_that_was_not_forwarded_goes_to_the_function_of_its_source(
    source: object, name: str | None, function: str | None
) -> None:
    bus = {"DataType": "String", "StringValue": f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/xray-guard"}
    message = {
        "MessageId": "m",
        "ReceiptHandle": "r",
        "Body": json.dumps({"source": source, "detail": {"eventName": name}}),
    }
    assert read_message({**message, "MessageAttributes": {"TARGET_ARN": bus}}).function == function


@pytest.mark.parametrize(
    "body",
    ["", "null", "[]", "{}", '{"requestContext": 3, "requestPayload": {}}', '{"requestContext": {}}', "[" * 9999],
)
def test_a_read_message_no_known_kind_is_read_and_names_no_function(body: str) -> None:
    letter = read_message({"MessageId": "m", "ReceiptHandle": "r", "Body": body})
    assert (letter.function, letter.sent_at) == (None, None)
