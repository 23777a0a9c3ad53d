"""Create past incidents in the sandbox: weeks of changes and remediations in several accounts.

Only the clock and the people are made up. Each change is a call to the simulated AWS. The loop that ships receives its
event in CloudTrail's format, judges it, remediates it and records it. The same seed gives the same incidents.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import urllib.request
import uuid
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
from msgspec.structs import replace

from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.iam import PrincipalsApi
from chalicelib.aws.kms import KeysApi
from chalicelib.aws.logs import SpanLogsApi
from chalicelib.aws.oam import TraceLinksApi
from chalicelib.aws.xray import XRayApi
from chalicelib.domain.events import read_change, read_key_event
from chalicelib.domain.lookups import Progress
from chalicelib.domain.model import Rejected, Target, Trigger, TriggerKind
from chalicelib.domain.policy import Policy, parse
from chalicelib.domain.ports import Reach
from chalicelib.loop.guard import Guard
from chalicelib.loop.reconcile import reconcile
from chalicelib.loop.sweep import sweep
from chalicelib.wiring import make_guard, make_history_store

AWS_CLI = "aws-cli/2.31.4 md/awscrt#0.27.6 ua/2.1 os/linux#6.8 md/arch#x86_64 lang/python#3.13.7 md/command#"
TERRAFORM = "APN/1.0 HashiCorp/1.0 Terraform/1.13.3 (+https://www.terraform.io) terraform-provider-aws/6.14.1"
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who calls AWS: a user by the ARN's last part, or a role with its session's name."""

    name: str
    user_agent: str
    session: str | None = None
    source_ip: str = "203.0.113.24"

    def identity(self, account: str) -> dict[str, Any]:
        """CloudTrail's `userIdentity` of this person in the account."""
        if self.name == "root":
            return {"type": "Root", "arn": f"arn:aws:iam::{account}:root", "accountId": account}
        if self.session is None:
            return {"type": "IAMUser", "arn": f"arn:aws:iam::{account}:user/{self.name}", "accountId": account}
        role = self.name.rsplit("/", 1)[-1]
        issuer = {"type": "Role", "arn": f"arn:aws:iam::{account}:role/{self.name}", "accountId": account}
        return {
            "type": "AssumedRole",
            "principalId": f"AROAEXAMPLEROLEID0001:{self.session}",
            "arn": f"arn:aws:sts::{account}:assumed-role/{role}/{self.session}",
            "accountId": account,
            "sessionContext": {"sessionIssuer": issuer},
        }


ALICE = Person("Alice", AWS_CLI + "xray.put-encryption-config")
PLATFORM = Person("PlatformAdmin", AWS_CLI + "xray.put-encryption-config", "jdoe", "198.51.100.7")
SSO_ROLE = "aws-reserved/sso.amazonaws.com/AWSReservedSSO_admin_599c9e90e350d2ff"
SSO = Person(SSO_ROLE, BROWSER, "jane.doe@example.com", "192.0.2.81")
PIPELINE = Person("ci-deploy", TERRAFORM, "GitHubActions", "198.51.100.200")
ROOT = Person("root", BROWSER, source_ip="192.0.2.9")
BREAK_GLASS = Person("SecurityBreakGlass", AWS_CLI + "kms.tag-resource", "ops-oncall", "198.51.100.7")
PEOPLE = (ALICE, PLATFORM, PLATFORM, SSO, PIPELINE, PIPELINE, PIPELINE, ROOT)

TAG = "xray-guard-break-glass"
OTHER_ACCOUNT = "111122223333"
SESSION = "sandbox-past"
MISHAPS = (
    *("none",) * 9,
    *("aws-managed",) * 4,
    *("other-key",) * 3,
    *("disabled",) * 2,
    *("rotation-off",) * 2,
    "policy-stripped",
    "alias-moved",
    "refused",
    "again",
)


@dataclass
class PastClock:
    """A clock that can be set, and advances by the duration of a call at each read."""

    at: datetime
    chance: random.Random

    def now(self) -> datetime:
        """Aware, UTC."""
        self.at += timedelta(milliseconds=self.chance.randint(15, 160))
        return self.at

    def sleep(self, seconds: float) -> None:
        """Advance the clock without waiting."""
        self.at += timedelta(seconds=seconds)

    def set(self, at: datetime) -> None:
        """Advance to that time; never back."""
        self.at = max(self.at, at)


@dataclass
class Past:
    """Creates the incidents. The tables belong to the account `home`, in `region`.

    `clients_of` returns clients of an account: of its administrator, or of a session of the named role.

    The clock does not wait, so the simulated X-Ray must be ACTIVE at once, unless the pauses of the loop are real
    (`waits`). `knows` receives CloudTrail's record of each call.
    """

    home: str
    region: str
    policy: Policy
    clients_of: Callable[[str, str | None], Clients]
    ends: datetime
    seed: int = 1
    people: Sequence[Person] = PEOPLE
    waits: bool = False
    knows: Callable[[dict[str, Any]], object] = lambda record: None
    guards: dict[str, Guard] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.clock = PastClock(self.ends - timedelta(days=400), self.chance)

    def guard_of(self, account: str) -> Guard:
        """The guard of the account. All guards share the tables and the clock."""
        if account not in self.guards:
            clients = self.clients_of(account, None)

            @cache
            def reach(target: Target) -> Reach:
                where = target.region
                return Reach(
                    target,
                    XRayApi(clients, where),
                    KeysApi(clients, where),
                    PrincipalsApi(clients, target),
                    SpanLogsApi(clients, where),
                    TraceLinksApi(clients, where),
                )

            made = make_guard(
                self.clients_of(self.home, None),
                self.policy,
                account=account,
                partition="aws",
                region=self.region,
                role_arn=f"arn:aws:iam::{account}:role/xray-guard-role",
                emit=lambda record: None,
                lease_seconds=120,
                worker="on_change/past",
            )
            self.guards[account] = replace(
                made,
                reach=reach,
                clock=self.clock,
                sleep=self._pause,
                random=self.chance.random,
                new_id=lambda: str(uuid.UUID(int=self.chance.getrandbits(128), version=4)),
            )
        return self.guards[account]

    def _pause(self, seconds: float) -> None:
        self.clock.sleep(seconds)
        if self.waits:
            time.sleep(seconds)

    # What people do

    def changes_setting(
        self, target: Target, who: Person, at: datetime, key: str | None, refused: str = "", *, prompt: bool = False
    ) -> None:
        """A principal calls PutEncryptionConfig with a key, or NONE; the guard receives the event a moment later.

        One event in fourteen comes late, by up to a quarter of an hour, unless it must be `prompt`.
        """
        self.clock.set(at)
        request = {"type": "KMS", "keyId": key} if key else {"type": "NONE"}
        detail: dict[str, Any] = {"requestParameters": request}
        if refused:
            detail |= {"errorCode": refused, "errorMessage": "not authorized to perform: xray:PutEncryptionConfig"}
        else:
            client = self.clients_of(target.account, None).mutating("xray", target.region)
            given = {"Type": request["type"], **({"KeyId": key} if key else {})}
            answer = client.put_encryption_config(**given)["EncryptionConfig"]
            config = {"type": answer["Type"], "status": "UPDATING"}
            detail["responseElements"] = {
                "encryptionConfig": config | ({"keyId": answer["KeyId"]} if "KeyId" in answer else {})
            }
        event = self._event(target, who, "xray", "PutEncryptionConfig", detail)
        self.knows(event["detail"])
        change = read_change(event)
        assert not isinstance(change, Rejected), change
        in_time = prompt or self.chance.random() < 0.93
        self.clock.sleep(self.chance.uniform(0.6, 4.0) if in_time else self.chance.uniform(20, 900))
        reconcile(self.guard_of(target.account), target, change.trigger, change)

    def changes_key(self, target: Target, who: Person, at: datetime, name: str, arn: str, **parameters: Any) -> None:
        """A principal calls KMS (an operation by its botocore name) on a key; the guard receives the event."""
        self.clock.set(at)
        role = who.name if who is BREAK_GLASS else None  # the only one whom the key policy may turn away
        client = self.clients_of(target.account, role).mutating("kms", target.region)
        method = getattr(client, "".join("_" + each.lower() if each.isupper() else each for each in name).lstrip("_"))
        named = {"TargetKeyId": arn} if name.endswith("Alias") else {"KeyId": arn.rsplit("/", 1)[-1]}
        method(**named, **parameters)
        request: dict[str, Any] = {"keyId": arn}
        if "Tags" in parameters:
            request["tags"] = [{"tagKey": each["TagKey"], "tagValue": each["TagValue"]} for each in parameters["Tags"]]
        if "Policy" in parameters:
            request["policy"] = parameters["Policy"]
        if "AliasName" in parameters:
            request["aliasName"] = parameters["AliasName"]
        self.deliver_key_event(target, who, name, arn, request)

    def deliver_key_event(self, target: Target, who: Person, name: str, arn: str, request: dict[str, Any]) -> None:
        """The guard receives the event of a call to KMS."""
        event = self._event(target, who, "kms", name, {"requestParameters": request, "responseElements": None})
        event["detail"]["resources"] = [{"accountId": target.account, "type": "AWS::KMS::Key", "ARN": arn}]
        self.knows(event["detail"])
        change = read_key_event(event)
        assert not isinstance(change, Rejected), change
        self.clock.sleep(self.chance.uniform(0.8, 6.0))
        reconcile(self.guard_of(target.account), change.target, change.trigger, change)

    def _event(self, target: Target, who: Person, service: str, name: str, detail: dict[str, Any]) -> dict[str, Any]:
        number = self.chance.getrandbits
        return {
            "source": f"aws.{service}",
            "detail-type": "AWS API Call via CloudTrail",
            "account": target.account,
            "region": target.region,
            "id": str(uuid.UUID(int=number(128), version=4)),
            "detail": {
                "eventVersion": "1.11",
                "userIdentity": who.identity(target.account),
                "eventTime": self.clock.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "eventSource": f"{service}.amazonaws.com",
                "eventName": name,
                "awsRegion": target.region,
                "sourceIPAddress": who.source_ip,
                "userAgent": who.user_agent,
                "requestID": str(uuid.UUID(int=number(128), version=4)),
                "eventID": str(uuid.UUID(int=number(128), version=4)),
                "eventType": "AwsApiCall",
                "readOnly": False,
                "managementEvent": True,
                "recipientAccountId": target.account,
                **detail,
            },
        }

    # What the schedules do

    def ticks(self, at: datetime) -> None:
        """The scheduled check at that time, of the guards of all accounts."""
        self.clock.set(at)
        for name in self.guard_of(self.home).store.due(self.clock.now(), 200):
            target = Target.parse(name)
            reconcile(self.guard_of(target.account), target, Trigger(TriggerKind.TICK))

    def sweeps(self, at: datetime, regions: Sequence[str]) -> None:
        """The sweep of the home account at that time."""
        self.clock.set(at)
        sweep(self.guard_of(self.home), lambda: regions, None, lambda: 300.0)

    def checks(self, target: Target, at: datetime) -> None:
        """A sweep's check of one target."""
        self.clock.set(at)
        reconcile(self.guard_of(target.account), target, Trigger(TriggerKind.SWEEP))

    # The story

    def mishap(self, target: Target, at: datetime, kind: str | None = None, who: Person | None = None) -> None:
        """A change to a target, and the guard's reaction."""
        who = who or self.chance.choice(list(self.people))
        kind = kind or self.chance.choice(MISHAPS)
        managed = self.managed_key(target)
        if kind == "refused":
            self.changes_setting(target, who, at, None, "AccessDenied")
        elif kind == "aws-managed":
            self.changes_setting(target, who, at, "alias/aws/xray")
        elif kind == "other-key":
            self.changes_setting(target, who, at, self.other_key(target))
        elif managed is None or kind == "none":
            self.changes_setting(target, who, at, None)
        elif kind == "again":
            self.changes_setting(target, who, at, managed)
        elif kind == "disabled":
            self.changes_key(target, who, at, "DisableKey", managed)
        elif kind == "rotation-off":
            self.changes_key(target, who, at, "DisableKeyRotation", managed)
        elif kind == "alias-moved":
            alias = "alias/xray-encryption"
            self.changes_key(target, who, at, "UpdateAlias", self.other_key(target), AliasName=alias)
        else:
            policy = _only_root(target.account)
            self.changes_key(target, who, at, "PutKeyPolicy", managed, Policy=policy)

    def managed_key(self, target: Target) -> str | None:
        """The managed key that the guard recorded."""
        return self.guard_of(target.account).store.load(str(target)).state.managed_key

    def other_key(self, target: Target) -> str:
        """A customer key of the target that no rule allows, created on first use."""
        return self._other_key(target.account, target.region)

    def _other_key(self, account: str, region: str) -> str:
        kms = self.clients_of(account, None).mutating("kms", region)
        for alias in kms.list_aliases()["Aliases"]:
            if alias["AliasName"] == "alias/app-traces":
                return f"arn:aws:kms:{region}:{account}:key/{alias['TargetKeyId']}"
        made = kms.create_key(Description="traces of the application", Policy=_only_root(account))["KeyMetadata"]
        kms.create_alias(AliasName="alias/app-traces", TargetKeyId=made["KeyId"])
        return str(made["Arn"])

    def spread(self, targets: Sequence[Target], days: int, mishaps: int) -> None:
        """Spread so many mishaps over the targets and over the days before the end, in order; some days are busier."""
        first = self.ends - timedelta(days=days)
        weights = [self.chance.choice((0.3, 1, 1, 1.5, 3)) for _ in range(days)]
        chosen = self.chance.choices(range(days), weights, k=mishaps)
        moments = sorted(first + timedelta(days=day, seconds=self.chance.randint(0, 80_000)) for day in chosen)
        for at in moments:
            self.mishap(self.chance.choice(list(targets)), at)
            if self.chance.random() < 0.15:
                self.ticks(self.clock.at + timedelta(minutes=6))

    def suppresses(self, target: Target, at: datetime, ends: datetime, ticket: str, tag: str, who: Person) -> None:
        """Open a break-glass on the managed key, and make the change that it allows."""
        value = f"{ends:%Y%m%dT%H%M%SZ} {ticket}"
        managed = self.managed_key(target)
        assert managed is not None, f"{target} has no managed key to tag"
        tags = [{"TagKey": tag, "TagValue": value}]
        self.changes_key(target, BREAK_GLASS, at, "TagResource", managed, Tags=tags)
        self.changes_setting(target, who, at + timedelta(minutes=4), None)

    def is_stuck(self, target: Target, at: datetime) -> None:
        """Point the rule's alias to a disabled key without the guard's tag, which the guard may not repair."""
        kms = self.clients_of(target.account, None).mutating("kms", target.region)
        made = kms.create_key(Description="made by hand", Policy=_only_root(target.account))["KeyMetadata"]
        kms.create_alias(AliasName="alias/xray-encryption", TargetKeyId=made["KeyId"])
        kms.disable_key(KeyId=made["KeyId"])
        self.changes_setting(target, ALICE, at, None)

    def fights(self, target: Target, at: datetime, rounds: int) -> None:
        """An automation undoes the remediation again and again."""
        for number in range(rounds):
            self.changes_setting(target, PIPELINE, at + timedelta(minutes=2 * number), None, prompt=True)


def _only_root(account: str) -> str:
    return (
        '{"Version":"2012-10-17","Statement":[{"Sid":"Enable IAM User Permissions","Effect":"Allow",'
        f'"Principal":{{"AWS":"arn:aws:iam::{account}:root"}},"Action":"kms:*","Resource":"*"}}]}}'
    )


def clients_by_account() -> Callable[[str, str | None], Clients]:
    """Clients of any account and role, each created once. Their session name marks their calls."""
    sts: Any = botocore.session.get_session().create_client("sts")

    @cache
    def clients_of(account: str, role: str | None) -> Clients:
        arn = f"arn:aws:iam::{account}:role/{role or 'OrganizationAccountAccessRole'}"
        given = sts.assume_role(RoleArn=arn, RoleSessionName=SESSION)["Credentials"]
        session = botocore.session.get_session()
        session.set_credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
        return Clients(session)

    return clients_of


def put_into_event_history(record: dict[str, Any]) -> None:
    """Have the sandbox's Event history show a call, at its time in the past."""
    request = urllib.request.Request(
        os.environ["AWS_ENDPOINT_URL"] + "/_sandbox/records", json.dumps(record).encode(), method="POST"
    )
    with urllib.request.urlopen(request):
        pass


def main(arguments: list[str]) -> int:
    """`python -m sandbox.past ACCOUNT REGION MISHAPS NOW PACKAGE`: a month in other Regions and in another account.

    It is judged by the package's policy. The Region itself stays unchanged, so that users can start there. Prints what
    this policy does not allow of it.
    """
    home, region, mishaps, until, package = arguments
    now = datetime.fromisoformat(until)
    with zipfile.ZipFile(Path(package) / "deployment.zip") as shipped:
        policy = parse(shipped.read("policies/policy.json"))
    past = Past(home, region, policy, clients_by_account(), now, seed=11, waits=True, knows=put_into_event_history)
    elsewhere = [name for name in ("us-east-2", "us-west-2", "eu-central-1", "eu-west-1") if name != region]
    own = [Target(home, name) for name in elsewhere]
    others = [Target(OTHER_ACCOUNT, name) for name in (region, *elsewhere[:2])]
    past.spread([*own[:2], own[3], *others], 30, int(mishaps))
    for target in own[:2]:
        past.mishap(target, now - timedelta(hours=6), "none", ALICE)
    past.mishap(own[0], now - timedelta(hours=5), "policy-stripped", PLATFORM)
    past.is_stuck(own[2], now - timedelta(hours=3))
    if past.managed_key(own[1]) is None:
        print("None has a break-glass: it is a tag on the managed key, and in observe mode the guard makes no key.")
    else:
        ends = now + timedelta(hours=7)
        past.suppresses(own[1], now - timedelta(hours=1), ends, "INC-2231 trace export", TAG, PLATFORM)
    # The guard was here for a month, so it has read Event history until now.
    histories = make_history_store(past.clients_of(home, None), region, AwsClock())
    for target in own:
        histories.keep(str(target), Progress(until=now))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
