"""Other Regions: a change there reaches the guard within seconds, over a bus that takes nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.operators.dead_letters import FORWARD_QUEUE_NAME
from sandbox.server import Sandbox
from tests.component.guarded import GUARD_ACCOUNT, guarded, records_of, setting_of, took
from tests.component.operated import typed

HOME, THERE, ELSEWHERE, WITHOUT = "us-east-1", "eu-west-1", "us-west-2", "eu-central-1"
TARGET = f"{GUARD_ACCOUNT}/{THERE}"
ALIAS = "alias/xray-encryption"
RIGHT_AGAIN_SECONDS = 5.0
BUS = f"arn:aws:events:{HOME}:{GUARD_ACCOUNT}:event-bus/xray-guard"
ROLE = f"arn:aws:iam::{GUARD_ACCOUNT}:role/xray-guard-forward"
CHANGES = {"source": ["aws.xray"], "detail": {"eventName": ["PutEncryptionConfig"]}}


@pytest.fixture(scope="module")
def _account() -> Iterator[Sandbox]:
    regions = (HOME, THERE, ELSEWHERE, WITHOUT)
    with guarded(warm=True, regions=regions, forwarding=(THERE, ELSEWHERE)) as running:
        yield running


@pytest.fixture
def silent(_account: Sandbox) -> Iterator[None]:
    """Calls by sessions named `past` have no events."""
    _account.trail.silent_session = "past"
    yield
    _account.trail.silent_session = ""


@pytest.fixture
def account(_account: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sandbox]:
    """An account that forwards the events of two Regions of three, and a shell that is pointed at it."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "XRAY_GUARD_"))]:
        monkeypatch.delenv(name)
    for name, value in _account.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    for function in _account.functions:
        if function.definition.short_name in ("on_change", "on_key_change"):
            function.warm()  # a cold start is not what the tests measure
    yield _account
    _account.reset()


def findings(sandbox: Sandbox) -> list[dict[str, str]]:
    """What `doctor` finds in other Regions that is not good."""
    found = typed("doctor", "--output", "json").json["findings"]
    return [one for one in found if one["check"] == "other Regions" and one["status"] != "good"]


def of_region(sandbox: Sandbox, region: str) -> dict[str, str]:
    """The one such finding that names the Region."""
    (found,) = [one for one in findings(sandbox) if region in one["message"]]
    return found


def waiting(sandbox: Sandbox, region: str) -> list[dict[str, Any]]:
    """The events in the Region's dead-letter queue."""
    sqs = sandbox.client("sqs", region)
    url = sqs.get_queue_url(QueueName=FORWARD_QUEUE_NAME)["QueueUrl"]
    received = sqs.receive_message(QueueUrl=url, VisibilityTimeout=0, MaxNumberOfMessages=10)
    return [json.loads(message["Body"]) for message in received.get("Messages", [])]


def test_none_in_another_region_is_right_again_within_five_seconds_and_on_record(account: Sandbox) -> None:
    account.client("xray", THERE).put_encryption_config(Type="NONE")
    assert took(lambda: setting_of(account, THERE)["Type"] == "KMS") < RIGHT_AGAIN_SECONDS
    assert account.idle(30)
    first, *_, last = records_of(account, TARGET)
    assert (first.outcome, last.outcome) == ("REMEDIATING", "REMEDIATED")
    assert first.trigger.kind == "change"
    assert first.trigger.actor is not None
    assert first.trigger.actor.arn == f"arn:aws:iam::{GUARD_ACCOUNT}:user/administrator"
    assert records_of(account, f"{GUARD_ACCOUNT}/{HOME}") == []


def test_a_key_that_is_disabled_in_another_region_is_enabled_within_five_seconds(account: Sandbox) -> None:
    kms = account.client("kms", THERE)
    account.client("xray", THERE).put_encryption_config(Type="NONE")
    assert account.idle(30)
    key = kms.describe_key(KeyId=ALIAS)["KeyMetadata"]["Arn"]
    kms.disable_key(KeyId=key)
    assert took(lambda: kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Enabled") < RIGHT_AGAIN_SECONDS
    assert account.idle(30)
    (event_id,) = [each["eventID"] for each in account.trail.records if each["eventName"] == "DisableKey"]
    assert len([one for one in records_of(account, TARGET) if one.trigger.event_id == event_id and one.change]) == 1


def test_a_change_of_where_spans_lie_in_another_region_reaches_the_guard_however_the_group_is_named(
    account: Sandbox,
) -> None:
    said: list[str] = []
    account.say = said.append
    logs = account.client("logs", THERE)
    account.client("xray", THERE).update_trace_segment_destination(Destination="CloudWatchLogs")
    logs.create_log_group(logGroupName="/aws/shop")
    logs.disassociate_kms_key(logGroupName="/aws/shop")
    logs.disassociate_kms_key(resourceIdentifier=f"arn:aws:logs:{THERE}:{GUARD_ACCOUNT}:log-group:aws/spans")
    assert account.idle(30)
    for name in ("UpdateTraceSegmentDestination", "DisassociateKmsKey"):
        assert said.count(f"EventBridge: {name} -> xray-guard-on_key_change") == 1
    assert not [line for line in said if "could not deliver" in line]


def test_an_event_that_is_forwarded_twice_is_on_the_record_once(account: Sandbox) -> None:
    account.turn(event_copies=2)
    account.client("xray", THERE).put_encryption_config(Type="NONE")
    assert account.idle(30)
    assert len([one for one in records_of(account, TARGET) if one.change]) == 1
    assert setting_of(account, THERE)["Type"] == "KMS"


def test_with_the_rule_disabled_nothing_happens_and_doctor_names_the_region_and_the_command(account: Sandbox) -> None:
    account.client("events", THERE).disable_rule(Name="xray-guard-forward")
    account.client("xray", THERE).put_encryption_config(Type="NONE")
    assert account.idle(30)
    assert setting_of(account, THERE)["Type"] == "NONE"
    assert records_of(account, TARGET) == []

    found = of_region(account, THERE)
    assert "is disabled" in found["message"]
    assert found["remedy"] == f"aws events enable-rule --region {THERE} --name xray-guard-forward"


def test_doctor_names_the_regions_without_the_stack_in_one_finding_with_the_command(account: Sandbox) -> None:
    (found,) = findings(account)
    assert found["status"] == "bad"
    assert found["message"].startswith(f"{WITHOUT}: there is no rule")
    assert found["remedy"] == f"make forward REGIONS={WITHOUT}"
    account.client("xray", WITHOUT).put_encryption_config(Type="NONE")
    assert account.idle(30)
    assert records_of(account, f"{GUARD_ACCOUNT}/{WITHOUT}") == []


def points_elsewhere(account: Sandbox) -> None:
    events = account.client("events", THERE)
    events.put_targets(
        Rule="xray-guard-forward", Targets=[{"Id": "guard", "Arn": BUS.replace(HOME, ELSEWHERE), "RoleArn": ROLE}]
    )


def matches_less(account: Sandbox) -> None:
    pattern = json.dumps({"$or": [CHANGES]})
    account.client("events", THERE).put_rule(Name="xray-guard-forward", EventPattern=pattern)


def lost_its_rule(account: Sandbox) -> None:
    """The stack is there, so deploying it again would change nothing."""
    events = account.client("events", THERE)
    events.remove_targets(Rule="xray-guard-forward", Ids=["guard"])
    events.delete_rule(Name="xray-guard-forward")
    empty = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    account.client("cloudformation", THERE).create_stack(StackName="xray-guard-region", TemplateBody=json.dumps(empty))


@pytest.mark.parametrize("harm", [points_elsewhere, matches_less, lost_its_rule])
def test_doctor_says_how_to_replace_a_rule_that_somebody_changed(
    account: Sandbox, harm: Callable[[Sandbox], None]
) -> None:
    harm(account)
    remedy = of_region(account, THERE)["remedy"]
    assert f"delete-stack --region {THERE} --stack-name xray-guard-region" in remedy
    assert f"make forward REGIONS={THERE}" in remedy


def test_doctor_finds_that_the_guards_bus_or_its_rules_receive_nothing(account: Sandbox) -> None:
    events = account.client("events")
    events.disable_rule(Name="xray-guard-on_change", EventBusName="xray-guard")
    found = [one["remedy"] for one in findings(account)]
    assert "aws events enable-rule --event-bus-name xray-guard --name xray-guard-on_change" in found
    for name in ("xray-guard-on_change", "xray-guard-on_key_change"):
        (target,) = events.list_targets_by_rule(Rule=name, EventBusName="xray-guard")["Targets"]
        events.remove_targets(Rule=name, EventBusName="xray-guard", Ids=[target["Id"]])
        events.delete_rule(Name=name, EventBusName="xray-guard")
    events.delete_event_bus(Name="xray-guard")
    (only,) = findings(account)
    assert "event bus xray-guard does not exist" in only["message"]


def test_doctor_finds_that_a_rule_on_the_guards_bus_invokes_something_else_or_matches_less(account: Sandbox) -> None:
    events = account.client("events")
    name = "xray-guard-on_change"
    (target,) = events.list_targets_by_rule(Rule=name, EventBusName="xray-guard")["Targets"]
    elsewhere = {**target, "Arn": target["Arn"].replace(name, "xray-guard-tick")}
    events.put_targets(Rule=name, EventBusName="xray-guard", Targets=[elsewhere])
    found = [one["message"] for one in findings(account)]
    assert f"the rule {name} on the event bus xray-guard does not invoke the function {name}" in found
    events.put_rule(Name=name, EventBusName="xray-guard", EventPattern=json.dumps({"source": ["aws.nothing"]}))
    found = [one["message"] for one in findings(account)]
    assert f"the rule {name} on the event bus xray-guard does not match what the guard's own rule does" in found


def test_doctor_does_not_ask_for_regions_that_the_organization_denies(account: Sandbox) -> None:
    denial = {"status": 400, "message": "not authorized with an explicit deny in a service control policy"}
    account.fail("events", "DescribeRule", "AccessDeniedException", times=1000, **denial)
    found = typed("doctor", "--output", "json").json["findings"]
    (of_regions,) = [one for one in found if one["check"] == "other Regions"]
    assert of_regions["status"] == "good"
    assert of_regions["message"] == f"the organization denies {WITHOUT}, {THERE}, {ELSEWHERE}"


def test_what_cannot_be_forwarded_waits_in_its_region_and_redrive_brings_it_to_the_guard(account: Sandbox) -> None:
    iam = account.client("iam")
    (name,) = iam.list_role_policies(RoleName="xray-guard-forward")["PolicyNames"]
    iam.delete_role_policy(RoleName="xray-guard-forward", PolicyName=name)
    account.client("events").remove_permission(EventBusName="xray-guard", RemoveAllPermissions=True)
    account.client("xray", THERE).put_encryption_config(Type="NONE")
    assert account.idle(30)
    (event,) = waiting(account, THERE)
    assert event["region"] == THERE
    assert f"redrive --from-region {THERE}" in of_region(account, THERE)["remedy"]

    listed = typed("redrive", "--from-region", THERE)
    assert "xray-guard redrive --from-region eu-west-1 --yes" in listed.err
    assert typed("redrive", "--from-region", THERE, "--yes").code == 0
    assert account.idle(30)
    assert event not in waiting(account, THERE)
    assert records_of(account, TARGET)[0].trigger.event_id == event["detail"]["eventID"]
    assert setting_of(account, THERE)["Type"] == "KMS"


@pytest.mark.usefixtures("silent")
def test_past_incidents_of_the_sandbox_wake_no_function(account: Sandbox) -> None:
    role = f"arn:aws:iam::{GUARD_ACCOUNT}:role/Ops"
    account.client("xray", THERE, role=role, session="past").put_encryption_config(Type="NONE")
    assert account.idle(30)
    assert records_of(account, TARGET) == []
    account.client("xray", THERE, role=role, session="present").put_encryption_config(Type="NONE")
    assert account.idle(30)
    assert records_of(account, TARGET) != []


class TestTheBus:
    """Nothing gets on the guard's bus but what the account's forwarding rules send."""

    def test_it_refuses_another_rule_even_with_the_forwarding_role(self, account: Sandbox) -> None:
        events, sqs = account.client("events", THERE), account.client("sqs", THERE)
        account.client("events", THERE).disable_rule(Name="xray-guard-forward")
        sqs.create_queue(QueueName="refused")
        dead_letters = {"Arn": f"arn:aws:sqs:{THERE}:{GUARD_ACCOUNT}:refused"}
        events.put_rule(Name="mine", EventPattern=json.dumps(CHANGES))
        target = {"Id": "bus", "Arn": BUS, "RoleArn": ROLE, "DeadLetterConfig": dead_letters}
        events.put_targets(Rule="mine", Targets=[target])
        account.client("xray", THERE).put_encryption_config(Type="NONE")
        assert account.idle(30)
        url = sqs.get_queue_url(QueueName="refused")["QueueUrl"]
        assert len(sqs.receive_message(QueueUrl=url)["Messages"]) == 1
        assert records_of(account, TARGET) == []

    def test_it_refuses_what_a_principal_puts(self, account: Sandbox) -> None:
        entry = {"Source": "my.app", "DetailType": "x", "Detail": "{}", "EventBusName": "xray-guard"}
        with pytest.raises(ClientError, match="AccessDenied"):
            account.client("events").put_events(Entries=[entry])
        elsewhere = {**entry, "EventBusName": "default"}
        assert account.client("events").put_events(Entries=[elsewhere])["FailedEntryCount"] == 0

    def test_what_it_received_is_not_forwarded_again_so_there_is_no_loop(self, account: Sandbox) -> None:
        """Somebody mirrors the guard's bus back to a Region that forwards to it."""
        events, sqs = account.client("events"), account.client("sqs", ELSEWHERE)
        sqs.create_queue(QueueName="mirror")
        mirror = account.client("events", ELSEWHERE)
        mirror.put_rule(Name="mirror", EventPattern=json.dumps(CHANGES))
        queue = f"arn:aws:sqs:{ELSEWHERE}:{GUARD_ACCOUNT}:mirror"
        mirror.put_targets(Rule="mirror", Targets=[{"Id": "queue", "Arn": queue}])
        events.put_rule(Name="back", EventBusName="xray-guard", EventPattern=json.dumps(CHANGES))
        back = f"arn:aws:events:{ELSEWHERE}:{GUARD_ACCOUNT}:event-bus/default"
        events.put_targets(
            Rule="back", EventBusName="xray-guard", Targets=[{"Id": "bus", "Arn": back, "RoleArn": ROLE}]
        )
        account.client("xray", THERE).put_encryption_config(Type="NONE")
        assert account.idle(30)
        url = sqs.get_queue_url(QueueName="mirror")["QueueUrl"]
        assert "Messages" not in sqs.receive_message(QueueUrl=url)
        assert len([one for one in records_of(account, TARGET) if one.change]) == 1
