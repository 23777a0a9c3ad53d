"""An account that the guard watches, as the tests of the whole loop see it: the world before, and what came of it."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chalicelib.auditlog import hashchain
from chalicelib.domain.stored import Record
from chalicelib.operators.policy_check import stamp
from sandbox.server import Sandbox

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "build" / "dev" / "package"
POLICY = PROJECT / "policies" / "policy.json"
ALIAS = "alias/xray-encryption"
OTHER_ALIAS = "alias/xray-traces"
GUARD_ACCOUNT = "111122223333"
FOREIGN_ACCOUNT = "444455556666"
QUICK: dict[str, Any] = {"settle_seconds": 0.0, "event_delay_seconds": 0.0, "schedules": False}


def guarded(
    package: Path = PACKAGE,
    *,
    account: str = GUARD_ACCOUNT,
    region: str = "us-east-1",
    warm: bool = False,
    **knobs: Any,
) -> Sandbox:
    """A sandbox with the package deployed in the account that the events of the folder are of; not started yet."""
    return Sandbox(package=package, account=account, region=region, warm=warm, **{**QUICK, **knobs})


def repackaged(folder: Path, members: Mapping[str, bytes | None]) -> Path:
    """The shipped package with members of its zip replaced, or left out where the value is None."""
    for name in ("tables.json", "sam.json"):
        (folder / name).write_bytes((PACKAGE / name).read_bytes())
    with (
        zipfile.ZipFile(PACKAGE / "deployment.zip") as shipped,
        zipfile.ZipFile(folder / "deployment.zip", "w") as made,
    ):
        unknown = set(members) - set(shipped.namelist())
        assert not unknown, f"the package has no {unknown}"
        for each in shipped.infolist():
            data = members.get(each.filename, shipped.read(each))
            if data is not None:
                made.writestr(each, data)
    return folder


def policy_members(folder: Path, change: Callable[[Any], None]) -> dict[str, bytes | None]:
    """The shipped policy document with a change made to it, stamped, as members of the package's zip."""
    document = json.loads(POLICY.read_bytes())
    change(document)
    policies = folder / "policies"
    policies.mkdir()
    (policies / "policy.json").write_text(json.dumps(document))
    assert stamp(policies).policy is not None
    return {f"policies/{name}": (policies / name).read_bytes() for name in ("policy.json", "policy.stamp.json")}


def setting_of(sandbox: Sandbox, region: str | None = None, account: str | None = None) -> dict[str, Any]:
    """What X-Ray answers: `Type`, `Status` and, with KMS, `KeyId`."""
    result: dict[str, Any] = sandbox.client("xray", region, account).get_encryption_config()["EncryptionConfig"]
    return result


@contextmanager
def undelivered(sandbox: Sandbox) -> Iterator[None]:
    """Whatever is called meanwhile, no event tells of it: it was before the guard's time, or the event was lost."""
    sandbox.turn(event_copies=0)
    yield
    sandbox.turn(event_copies=1)


def change_setting(sandbox: Sandbox, **to: str) -> None:
    """Set X-Ray's encryption without anybody hearing of it."""
    with undelivered(sandbox):
        sandbox.client("xray").put_encryption_config(**to)


def other_key(sandbox: Sandbox, account: str | None = None) -> str:
    """A healthy customer key that is not the guard's, with rotation on and the alias `alias/xray-traces`. Its ARN."""
    kms = sandbox.client("kms", account=account)
    arn: str = kms.create_key(Description="of the application")["KeyMetadata"]["Arn"]
    kms.enable_key_rotation(KeyId=arn)
    kms.create_alias(AliasName=OTHER_ALIAS, TargetKeyId=arn)
    return arn


def keys_behind_the_guard(sandbox: Sandbox, region: str | None = None) -> list[str]:
    """The ARNs of all keys that are tagged as the guard's own."""
    kms = sandbox.client("kms", region)
    return [
        key["KeyArn"]
        for key in kms.list_keys()["Keys"]
        if {"TagKey": "xray-guard", "TagValue": "managed"} in kms.list_resource_tags(KeyId=key["KeyId"])["Tags"]
    ]


def aliased_key(sandbox: Sandbox, alias: str = ALIAS) -> str:
    """The ARN of the key that the alias points to."""
    arn: str = sandbox.client("kms").describe_key(KeyId=alias)["KeyMetadata"]["Arn"]
    return arn


def records_of(sandbox: Sandbox, chain_name: str) -> list[Record]:
    """Every record of a chain, in order, as it is stored."""
    answer = sandbox.client("dynamodb").query(
        TableName="xray-guard-audit",
        KeyConditionExpression="target = :target AND begins_with(sk, :record)",
        ExpressionAttributeValues={":target": {"S": chain_name}, ":record": {"S": "r#"}},
    )
    assert "LastEvaluatedKey" not in answer
    return [hashchain.unseal(item["body"]["S"].encode()) for item in answer["Items"]]


def dead_letters(sandbox: Sandbox) -> list[dict[str, Any]]:
    """The messages in the dead-letter queue, taken out of it."""
    sqs = sandbox.client("sqs")
    (url,) = sqs.list_queues(QueueNamePrefix="xray-guard")["QueueUrls"]
    return [
        json.loads(message["Body"])
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    ]


def took(look: Callable[[], bool]) -> float:
    """Seconds until there is something to see; half a minute at most."""
    began = time.monotonic()
    while not look() and time.monotonic() - began < 30:
        time.sleep(0.05)
    return time.monotonic() - began
