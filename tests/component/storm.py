"""A storm: five writers change everything that the guard looks after, while its functions are killed at random.

    python -m tests.component.storm [--seconds 120] [--seed 1]

The package runs in the sandbox. Each writer is a user of its own and calls AWS over HTTP. Meanwhile the functions'
processes are killed, and DynamoDB and KMS lose answers to the guard. Afterwards the dead letters are delivered again,
and hours go by; then every call must be on the record once under its own actor, and the target must be right.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from chalicelib.auditlog import hashchain
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import Record
from sandbox.server import Sandbox
from tests.component.guarded import ALIAS, aliased_key, dead_letters, guarded, setting_of
from tests.component.operated import with_models

ACCOUNT = "123456789012"
HERE = f"{ACCOUNT}/us-east-1"
HOUR = 3600.0
WRITERS = ("settings", "states", "aliases", "policies", "tags")
ROOT_ONLY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "kms:*", "Resource": "*"}
    ],
}
LOST = (("dynamodb", "TransactWriteItems"), ("dynamodb", "BatchGetItem"), ("kms", "EnableKey"))
"""Calls that only the guard makes here: their answers are lost after they took effect."""

REFUSED_CALLS = 3


@dataclass
class Storm:
    """One storm in a running sandbox."""

    sandbox: Sandbox
    dice: random.Random
    key: str = ""
    other: str = ""
    killed: int = 0
    lost: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def rages(self, seconds: float) -> None:
        """Let it happen for so many seconds, and then let the guard end its work."""
        self._settles_in()
        threads = [
            threading.Thread(target=self._writes, args=(name, random.Random(self.dice.random()))) for name in WRITERS
        ]
        threads.append(threading.Thread(target=self._disturbs, args=(random.Random(self.dice.random()),)))
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self.over.set()
        for thread in threads:
            thread.join()
        self._calms_down()

    def _settles_in(self) -> None:
        self.sandbox.client("xray").put_encryption_config(Type="NONE")
        assert self.sandbox.idle(60)
        self.key = aliased_key(self.sandbox)
        self.other = self.sandbox.client("kms").create_key(Description="another")["KeyMetadata"]["Arn"]
        iam = self.sandbox.client("iam")
        for name in (*WRITERS, "refused"):
            iam.create_user(UserName=name)
        refused = self._client("refused", "xray")
        for _ in range(REFUSED_CALLS):
            with contextlib.suppress(ClientError):
                refused.put_encryption_config(Type="KMS", KeyId="alias/not-there")

    def _client(self, name: str, service: str) -> Any:
        key = self.sandbox.client("iam").create_access_key(UserName=name)["AccessKey"]
        return boto3.Session(botocore_session=with_models(botocore.session.Session())).client(
            service,
            region_name="us-east-1",
            endpoint_url=self.sandbox.url,
            aws_access_key_id=key["AccessKeyId"],
            aws_secret_access_key=key["SecretAccessKey"],
            config=Config(retries={"max_attempts": 0}),
        )

    def _writes(self, name: str, dice: random.Random) -> None:
        client = self._client(name, "xray" if name == "settings" else "kms")
        numbers = iter(range(1_000_000))
        # The tag is one of the rule's: of tags that mean nothing to the guard, only ten an hour are recorded in full.
        deeds: dict[str, list[Callable[[], Any]]] = {
            "settings": [
                lambda: client.put_encryption_config(Type="NONE"),
                lambda: client.put_encryption_config(Type="KMS", KeyId="alias/aws/xray"),
            ],
            "states": [lambda: client.disable_key(KeyId=self.key)],
            "aliases": [
                lambda: client.update_alias(AliasName=ALIAS, TargetKeyId=self.other),
                lambda: client.update_alias(AliasName=ALIAS, TargetKeyId=self.key),
            ],
            "policies": [
                lambda: client.put_key_policy(KeyId=self.key, PolicyName="default", Policy=json.dumps(ROOT_ONLY))
            ],
            "tags": [
                lambda: client.tag_resource(
                    KeyId=self.key, Tags=[{"TagKey": "purpose", "TagValue": f"number {next(numbers)}"}]
                )
            ],
        }
        while not self.over.wait(dice.uniform(0.2, 1.5)):
            with contextlib.suppress(ClientError):
                dice.choice(deeds[name])()

    def _disturbs(self, dice: random.Random) -> None:
        """Kill a function at work, or lose the answer to a call of the guard's."""
        while not self.over.wait(dice.uniform(0.3, 1.2)):
            if dice.random() < 0.5:
                service, action = dice.choice(LOST)
                self.sandbox.fail(service, action, "InternalFailure", status=500, carried_out=dice.random() < 0.7)
                self.lost += 1
                continue
            function = self.sandbox.functions.find(dice.choice(("on_change", "on_key_change", "tick")))
            process = function.process_id if function else None
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                self.killed += 1

    def _calms_down(self) -> None:
        self.sandbox.faults.clear()
        assert self.sandbox.idle(120)
        while letters := dead_letters(self.sandbox):
            for letter in letters:
                self.sandbox.invoke(letter["requestContext"]["functionArn"].split(":")[6], letter["requestPayload"])
        for _ in range(6):
            self.sandbox.let_go_by(0.6 * HOUR)
            self.sandbox.run_schedule("sweep")
            self.sandbox.run_schedule("tick")
            assert self.sandbox.idle(120)

    # --- what must hold --------------------------------------------------------------------------------------------

    def calls(self) -> list[Any]:
        """CloudTrail's records of the writers' calls about X-Ray and the guard's key."""
        ours = [f"arn:aws:iam::{ACCOUNT}:user/{name}" for name in (*WRITERS, "refused")]
        return [
            record
            for record in self.sandbox.trail.records
            if record["userIdentity"].get("arn") in ours and record["eventName"] != "CreateGrant"
        ]

    def check(self) -> Counter[str]:
        """Raise AssertionError if a promise is broken; return how many calls of each actor are on the record."""
        records = records_of_target(self.sandbox)
        own = Counter(record.trigger.event_id for record in records if record.change)
        actors = {record.trigger.event_id: record.trigger.actor for record in records if record.change}
        found: Counter[str] = Counter()
        for call in self.calls():
            refused, name = "errorCode" in call, call["eventName"]
            if refused and name != "PutEncryptionConfig":
                continue  # a key call that changed nothing is not recorded
            assert own[call["eventID"]] == 1, f"{name} by {call['userIdentity']['arn']}: {own[call['eventID']]} records"
            actor = actors[call["eventID"]]
            assert actor is not None
            assert actor.arn == call["userIdentity"]["arn"]
            found[actor.arn.rsplit("/", 1)[-1]] += 1
        borrowed = [record.record_id for record in records if record.reason == Reason.ROLE_BORROWED]
        assert borrowed == []
        assert found["refused"] == REFUSED_CALLS
        setting = setting_of(self.sandbox)
        assert setting == {"Type": "KMS", "KeyId": aliased_key(self.sandbox), "Status": "ACTIVE"}
        key = self.sandbox.client("kms").describe_key(KeyId=setting["KeyId"])["KeyMetadata"]
        assert (key["Arn"], key["KeyState"]) == (self.key, "Enabled")
        assert records[-1].outcome in (Outcome.REMEDIATED, Outcome.COMPLIANT)
        return found


def records_of_target(sandbox: Sandbox) -> list[Record]:
    """All records of the target, page by page."""
    pages = sandbox.client("dynamodb").get_paginator("query").paginate
    items = pages(
        TableName="xray-guard-audit",
        KeyConditionExpression="target = :target AND begins_with(sk, :record)",
        ExpressionAttributeValues={":target": {"S": HERE}, ":record": {"S": "r#"}},
    )
    return [hashchain.unseal(item["body"]["S"].encode()) for page in items for item in page["Items"]]


def deployed() -> Sandbox:
    """The sandbox for a storm: AWS's clock is half a day behind, so that hours can go by."""
    return guarded(account=ACCOUNT, regions=("us-east-1",), clock_behind_seconds=20 * HOUR, retry_seconds=(0.1, 0.3))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    print(f"a storm of {options.seconds:.0f} seconds, seed {seed}", flush=True)
    with deployed() as sandbox:
        storm = Storm(sandbox, random.Random(seed))
        storm.rages(options.seconds)
        found = storm.check()
    print(f"on the record: {dict(found)}; {storm.killed} processes killed, {storm.lost} answers lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
