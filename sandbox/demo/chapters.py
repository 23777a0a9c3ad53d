"""The chapters of the demo: a principal does something in AWS, and then the demo checks the result in the sandbox."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from botocore.exceptions import ClientError

from sandbox.demo.stage import AUDIT_TABLE, Person, Stage, short
from sandbox.knobs import aws_now

ALIAS = "alias/xray-encryption"
ELSEWHERE = "eu-west-1"
HOURS = 3600.0
TAG = "xray-guard-break-glass"


def run(stage: Stage) -> None:
    """Run all chapters. Raises Wrong if a claim is not true."""
    alice, bob = stage.user("alice"), stage.user("bob")
    platform = stage.session("PlatformAdmin", "jdoe")
    managed = turned_off(stage, alice)
    switched(stage, platform, managed)
    echo(stage)
    refused(stage, bob, managed)
    stage.advance(4 * HOURS, "Four quiet hours later: the simulated clock is advanced.")
    disabled(stage, bob, managed)
    moved(stage, bob, managed)
    stage.advance(4 * HOURS, "Four quiet hours later.")
    lost_event(stage, alice)
    break_glass(stage, alice, platform, managed)
    read_back(stage)
    tampered(stage)


def turned_off(stage: Stage, alice: Person) -> str:
    """Returns the ARN of the key that the guard creates."""
    stage.voice.chapter(
        "A user turns encryption off", "The account has no key for X-Ray, and its setting was never changed."
    )
    stage.prove(stage.setting()["Type"] == "NONE" and not stage.own_keys(), "X-Ray: NONE. Keys of the guard: none.")
    with stage.step(alice.name, "xray PutEncryptionConfig NONE"):
        stage.client(alice, "xray").put_encryption_config(Type="NONE")
        record = stage.last("REMEDIATED", after=0)
    setting = stage.setting()
    stage.prove(
        (setting["Type"], setting["Status"]) == ("KMS", "ACTIVE"),
        f"X-Ray: KMS, ACTIVE, on {short(setting['KeyId'])}",
        setting,
    )
    arn: str = setting["KeyId"]
    kms = stage.sandbox.client("kms")
    aliased = kms.describe_key(KeyId=ALIAS)["KeyMetadata"]["Arn"]
    rotation = kms.get_key_rotation_status(KeyId=arn)
    stage.prove(
        aliased == arn and rotation["KeyRotationEnabled"],
        f"The key has its alias, {ALIAS}, and rotates every {rotation['RotationPeriodInDays']} days",
        rotation,
    )
    policy = json.loads(kms.get_key_policy(KeyId=arn, PolicyName="default")["Policy"])
    names = [statement["Sid"] for statement in policy["Statement"]]
    stage.prove(
        any(statement["Principal"] == {"Service": "xray.amazonaws.com"} for statement in policy["Statement"]),
        f"Its key policy allows X-Ray to use it: {', '.join(names)}",
        names,
    )
    stage.prove(
        record.actor == alice.name and record.violations == ("NOT_KMS",),
        f"The record names the actor and the violation: {record.actor}, {record.violations[0]}",
        record,
    )
    return arn


def switched(stage: Stage, platform: Person, managed: str) -> None:
    """A switch to a key that the account does not control."""
    stage.voice.chapter(
        "A role switches to the AWS managed key",
        "Traces are encrypted, but with a key that the account does not control.",
    )
    with stage.step(platform.name, "xray PutEncryptionConfig KMS alias/aws/xray"):
        before = stage.seq()
        stage.client(platform, "xray").put_encryption_config(Type="KMS", KeyId="alias/aws/xray")
        record = stage.last("REMEDIATED", after=before)
    stage.prove(
        stage.setting()["KeyId"] == managed and record.violations == ("AWS_MANAGED_KEY",),
        f"X-Ray uses {short(managed)} again",
        stage.setting(),
    )
    stage.prove(stage.own_keys() == [managed], "The guard reused its key: there is no second one", stage.own_keys())


def echo(stage: Stage) -> None:
    """The event of the guard's own change."""
    stage.voice.chapter(
        "The guard receives the event of its own change",
        "CloudTrail records the guard's own calls, too. The demo delivers one again.",
    )
    own = next(
        record
        for record in reversed(stage.sandbox.trail.records)
        if record["eventName"] == "PutEncryptionConfig" and "assumed-role/xray-guard/" in record["userIdentity"]["arn"]
    )
    records, newest = stage.records(), stage.sandbox.calls[-1]
    with stage.step("EventBridge", f"PutEncryptionConfig by {own['userIdentity']['arn'].split(':', 5)[-1]}"):
        stage.sandbox.deliver(
            {
                "version": "0",
                "id": own["eventID"],
                "detail-type": "AWS API Call via CloudTrail",
                "source": "aws.xray",
                "account": own["recipientAccountId"],
                "time": own["eventTime"],
                "region": own["awsRegion"],
                "resources": [],
                "detail": own,
            }
        )
        calls = stage.wait_for(lambda: stage.guards_calls(newest), "the guard to receive the event of its own call")
    calls = stage.guards_calls(newest)
    mutations = [call for call in calls if not call.request.action.startswith(("Get", "BatchGet"))]
    stage.prove(
        len(calls) <= 2 and not mutations and stage.records() == records,
        f"{len(calls)} reads, no write, no record: {', '.join(call.request.action for call in calls)}",
        [call.request.action for call in calls],
    )


def refused(stage: Stage, bob: Person, managed: str) -> None:
    """A call that AWS refuses."""
    stage.voice.chapter("A call that X-Ray refuses", "Nothing changed, but a user tried.")
    with stage.step(bob.name, "xray PutEncryptionConfig KMS alias/no-such-key"):
        before = stage.seq()
        try:
            stage.client(bob, "xray").put_encryption_config(Type="KMS", KeyId="alias/no-such-key")
        except ClientError as error:
            code = error.response["Error"]["Code"]
        record = stage.last("IGNORED", after=before)
    stage.prove(
        (record.reason, record.actor) == (code, bob.name) and stage.setting()["KeyId"] == managed,
        f"Recorded as {record.outcome}, {record.reason}; the guard changed nothing",
        record,
    )


def disabled(stage: Stage, bob: Person, managed: str) -> None:
    """Worse than NONE: X-Ray stores no traces."""
    stage.voice.chapter(
        "A user disables the key", "The setting is still KMS, but X-Ray cannot use the key: it stops storing traces."
    )
    lost: list[bool] = []
    with stage.step(bob.name, f"kms DisableKey {short(managed)}"):
        before = stage.seq()
        stage.client(bob, "kms").disable_key(KeyId=managed)
        lost.append(stage.sandbox.storing_traces())
        stage.last("REMEDIATED", after=before)
    state = stage.sandbox.client("kms").describe_key(KeyId=managed)["KeyMetadata"]["KeyState"]
    stage.prove(
        state == "Enabled" and stage.sandbox.storing_traces(),
        "The key is enabled, and X-Ray stores traces again",
        state,
    )
    stage.prove(stage.setting()["KeyId"] == managed and lost == [False], "X-Ray's setting was not changed")


def moved(stage: Stage, bob: Person, managed: str) -> None:
    """A moved alias."""
    kms = stage.client(bob, "kms")
    other = kms.create_key(Description="of bob")["KeyMetadata"]["Arn"]
    stage.settle()
    stage.voice.chapter(
        "A user moves the alias to another key",
        "The guard relies on the recorded key; the alias only points to it.",
    )
    with stage.step(bob.name, f"kms UpdateAlias {ALIAS} to {short(other)}"):
        before = stage.seq()
        kms.update_alias(AliasName=ALIAS, TargetKeyId=other)
        record = stage.last("REMEDIATED", after=before)
    aliased = stage.sandbox.client("kms").describe_key(KeyId=ALIAS)["KeyMetadata"]["Arn"]
    stage.prove(
        aliased == managed and record.violations == ("ALIAS_MOVED",),
        f"{ALIAS} points to {short(managed)} again",
        aliased,
    )
    policy = stage.sandbox.client("kms").get_key_policy(KeyId=other, PolicyName="default")["Policy"]
    stage.prove("xray.amazonaws.com" not in policy, "The other key is unchanged")


def lost_event(stage: Stage, alice: Person) -> None:
    """An event that is not delivered."""
    target = f"{stage.sandbox.account}/{ELSEWHERE}"
    stage.voice.chapter(
        f"A change without an event, in {ELSEWHERE}",
        "This Region does not forward its events, and events can be lost: the hourly sweep checks every Region.",
    )
    with stage.step(alice.name, f"xray PutEncryptionConfig KMS alias/aws/xray, in {ELSEWHERE}"):
        stage.client(alice, "xray", ELSEWHERE).put_encryption_config(Type="KMS", KeyId="alias/aws/xray")
    stage.prove(not stage.records(target), "The guard received no event and has no record")
    with stage.step("EventBridge", "the hourly schedule: sweep"):
        stage.sandbox.run_schedule("sweep")
        stage.last("REMEDIATED", after=0, target=target)
    keys = stage.own_keys(ELSEWHERE)
    stage.prove(
        len(keys) == 1 and stage.setting(ELSEWHERE)["KeyId"] == keys[0],
        f"X-Ray in {ELSEWHERE}: KMS, with a key in that Region, {short(keys[0])}",
        stage.setting(ELSEWHERE),
    )
    sweep = stage.records("guard")[-1]
    stage.prove(sweep.reason == "SWEEP", "The record of the sweep anchors the heads of all chains", sweep)


def break_glass(stage: Stage, alice: Person, platform: Person, managed: str) -> None:
    """For a limited time, and recorded."""
    officer = stage.session("SecurityBreakGlass", "morgan")
    tag = [{"TagKey": TAG, "TagValue": f"{aws_now() + timedelta(hours=1):%Y%m%dT%H%M%SZ} because I can"}]
    stage.voice.chapter("Break-glass", "A tag on the managed key suspends remediation for one hour.")
    with stage.step(alice.name, f"kms TagResource {TAG}"):
        denied = _code(lambda: stage.client(alice, "kms").tag_resource(KeyId=managed, Tags=tag))
    stage.prove(
        denied == "AccessDeniedException",
        "The key policy denies the tag to every principal but the break-glass role",
        denied,
    )
    with stage.step(officer.name, "opens the break-glass for an hour, with the command line"):
        before = stage.seq()
        arguments = ("break-glass", "open", stage.target, "--for", "1h", "--reason", "INC-4711 vendor debugging")
        stage.command(*arguments, person=officer)
        opened = stage.last("SUPPRESSED", after=before)
    stage.prove(
        opened.reason == "BREAK_GLASS_OPENED" and opened.actor == officer.name,
        f"Recorded: opened by {opened.actor}",
        opened,
    )
    with stage.step(platform.name, "xray PutEncryptionConfig NONE"):
        stage.client(platform, "xray").put_encryption_config(Type="NONE")
        held = stage.last("SUPPRESSED", after=opened.seq)
    stage.prove(
        stage.setting()["Type"] == "NONE" and held.actor == platform.name,
        "The guard allows the drift: X-Ray: NONE",
        held,
    )
    stage.advance(1.25 * HOURS, "One hour later, the end time of the tag has passed.")
    with stage.step("EventBridge", "the minute's schedule: tick"):
        stage.sandbox.run_schedule("tick")
        record = stage.last("REMEDIATED", after=held.seq)
    setting, minutes = stage.setting(), (record.exposure_seconds or 0) / 60
    stage.prove(
        (setting["Type"], setting.get("KeyId")) == ("KMS", managed) and record.actor == platform.name,
        f"The guard enforces again: KMS, with {short(managed)}. Exposed for {minutes:.0f} minutes, by {record.actor}",
        setting,
    )


def read_back(stage: Stage) -> None:
    """The command line."""
    stage.voice.chapter("The audit log", "The installed command line reads the simulated AWS as it would read AWS.")
    stage.command("history", "--target", stage.target)
    records = stage.json_of("history", "--target", stage.target)["records"]
    tried = sum(record["outcome"] == "REMEDIATING" for record in records)
    ended = [record for record in records if record["outcome"] == "REMEDIATED"]
    stage.prove(
        tried == len(ended) == 5 and all(record["exposure_seconds"] is not None for record in ended),
        f"{tried} drifts, each with its actor, the settings before and after, and the exposure",
        [record["outcome"] for record in records],
    )
    stage.command("audit", "verify")
    stage.prove(stage.json_of("audit", "verify")["whole"], "Verified: no tampering found")


def tampered(stage: Stage) -> None:
    """A change by a principal with write access to the table."""
    stage.voice.chapter("A user edits the audit log", "Alice replaces her name with bob's.")
    place = {"target": {"S": stage.target}, "sk": {"S": f"r#{1:012d}"}}
    dynamodb: Any = stage.sandbox.client("dynamodb")
    body: str = dynamodb.get_item(TableName=AUDIT_TABLE, Key=place)["Item"]["body"]["S"]
    with stage.step("user/alice", "dynamodb UpdateItem: in record 1, user/alice becomes user/bob"):
        dynamodb.update_item(
            TableName=AUDIT_TABLE,
            Key=place,
            UpdateExpression="SET body = :body",
            ExpressionAttributeValues={":body": {"S": body.replace("user/alice", "user/bob")}},
        )
    stage.command("audit", "verify", exits=1)
    found = [(finding["target"], finding["seq"]) for finding in stage.json_of("audit", "verify")["findings"]]
    stage.prove(found == [(stage.target, 1)], f"Detected: record 1 of {stage.target} was edited. Exit code 1", found)


def _code(call: Any) -> str:
    try:
        call()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "done"
