"""Run and check the steps of the demo: the sandbox with the guard, the people, the clock, and the claims."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import boto3

from sandbox.calls import Call
from sandbox.demo.voice import Voice
from sandbox.server import Sandbox

T = TypeVar("T")

GUARD_ROLE = "role/xray-guard"
AUDIT_TABLE = "xray-guard-audit"
READS = ("Get", "List", "Describe", "Batch", "Query", "Scan")


class Wrong(Exception):
    """A claim of the demo is not true. The message says which."""


@dataclass(frozen=True)
class Person:
    """A principal of the account with its credentials. `name` is the last part of its ARN in CloudTrail."""

    name: str
    credentials: dict[str, str]


@dataclass(frozen=True, slots=True)
class Line:
    """The fields of a record that the demo shows."""

    seq: int
    outcome: str
    reason: str | None
    violations: tuple[str, ...]
    actor: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    exposure_seconds: float | None
    trigger: str

    def summary(self) -> str:
        """The record in one line."""
        parts = [f"#{self.seq} {self.outcome}", *self.violations]
        if self.reason:
            parts.append(self.reason)
        if self.before and self.after and _choice(self.before) != _choice(self.after):
            parts.append(f"{_choice(self.before)} → {_choice(self.after)}")
        if self.actor:
            parts.append(f"by {self.actor}")
        if self.exposure_seconds is not None:
            parts.append(f"exposed {self.exposure_seconds:.1f} s")
        return ", ".join(parts)


def _choice(setting: dict[str, Any]) -> str:
    return short(setting["key_arn"]) if setting.get("key_arn") else str(setting["type"])


def short(key_arn: str) -> str:
    """The short form of a key's ARN."""
    return f"key {key_arn.rsplit('/', 1)[-1][:8]}…"


class Stage:
    """The sandbox, and the actions of the chapters."""

    def __init__(self, sandbox: Sandbox, voice: Voice, patience_seconds: float = 15.0) -> None:
        self.sandbox = sandbox
        self.voice = voice
        self.target = f"{sandbox.account}/{sandbox.region}"
        self._patience_seconds = patience_seconds

    # People

    def user(self, name: str) -> Person:
        """An IAM user with an access key."""
        iam = self.sandbox.client("iam")
        iam.create_user(UserName=name)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        credentials = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
        return Person(f"user/{name}", credentials)

    def session(self, role: str, session: str) -> Person:
        """A session of a role."""
        arn = f"arn:aws:iam::{self.sandbox.account}:role/{role}"
        return Person(f"role/{role}", self.sandbox.credentials(arn, session))

    def client(self, person: Person, service: str, region: str | None = None) -> Any:
        """A boto3 client with the person's credentials."""
        return boto3.client(
            service, region_name=region or self.sandbox.region, endpoint_url=self.sandbox.url, **person.credentials
        )

    # Time

    def advance(self, seconds: float, text: str) -> None:
        """Advance the simulated clock."""
        self.settle()
        self.sandbox.let_go_by(seconds)
        self.voice.passes(text)

    def settle(self) -> None:
        """Wait until no event is in flight and no function runs."""
        if not self.sandbox.idle(self._patience_seconds):
            raise Wrong(f"the functions still run after {self._patience_seconds:.0f} s")

    def wait_for(self, check: Callable[[], T | None], what: str) -> T:
        """Repeat the check until it returns a value. Raises Wrong with `what` after the patience."""
        give_up = time.monotonic() + self._patience_seconds
        while time.monotonic() < give_up:
            seen = check()
            if seen:
                return seen
            time.sleep(0.05)
        raise Wrong(f"waited {self._patience_seconds:.0f} s for {what}")

    # Steps

    @contextmanager
    def step(self, who: str, what: str) -> Iterator[None]:
        """A principal does something. Prints the guard's mutations and records that follow, too, with their time."""
        known, began_at = self._newest_call(), time.monotonic()
        self.voice.moment(0.0, who, what)
        yield
        self.settle()
        took = time.monotonic() - began_at
        calls = self._calls_since(known)
        for call in calls:
            for actor, action in self._describe(call):
                self.voice.moment((call.at - calls[0].at).total_seconds(), actor, action)
        self.voice.quiet(took)

    def _newest_call(self) -> Call | None:
        return self.sandbox.calls[-1] if self.sandbox.calls else None

    def _describe(self, call: Call) -> Iterator[tuple[str, str]]:
        """Describe a call of the guard; nothing for reads and for calls of others."""
        request = call.request
        if not is_guard(call) or request.action.startswith(READS):
            return
        if request.service == "dynamodb":
            for each in request.parameters.get("TransactItems", ()):
                item = each.get("Put", {}).get("Item", {})
                if "body" in item:
                    chain = item["target"]["S"].rsplit("/", 1)[-1]
                    where = "" if item["target"]["S"] == self.target else f"{chain} "
                    yield "log", where + _line(json.loads(item["body"]["S"])).summary()
        elif request.service in ("kms", "xray"):
            about = request.parameters.get("AliasName") or request.parameters.get("Type") or ""
            refused = f", refused: {call.error_code}" if call.error_code else ""
            yield "guard", f"{request.service} {request.action} {about}".rstrip() + refused

    # Reads

    def setting(self, region: str | None = None) -> dict[str, Any]:
        """X-Ray's current setting."""
        setting: dict[str, Any] = self.sandbox.client("xray", region).get_encryption_config()["EncryptionConfig"]
        return setting

    def records(self, target: str | None = None) -> list[Line]:
        """The records of a chain, in order."""
        answer = self.sandbox.client("dynamodb").query(
            TableName=AUDIT_TABLE,
            KeyConditionExpression="target = :target AND begins_with(sk, :record)",
            ExpressionAttributeValues={":target": {"S": target or self.target}, ":record": {"S": "r#"}},
        )
        return [_line(json.loads(item["body"]["S"])) for item in answer["Items"]]

    def last(self, outcome: str, after: int, target: str | None = None) -> Line:
        """Wait for a record with this outcome and a seq higher than `after`; return the newest such record."""

        def newest() -> Line | None:
            found = [line for line in self.records(target) if line.outcome == outcome and line.seq > after]
            return found[-1] if found else None

        return self.wait_for(newest, f"the record {outcome} in the chain {target or self.target}")

    def seq(self, target: str | None = None) -> int:
        """The seq of a chain's newest record."""
        found = self.records(target)
        return found[-1].seq if found else 0

    def own_keys(self, region: str | None = None) -> list[str]:
        """The keys that are tagged as the guard's."""
        kms = self.sandbox.client("kms", region)
        ours = {"TagKey": "xray-guard", "TagValue": "managed"}
        return [
            each["KeyArn"]
            for each in kms.list_keys()["Keys"]
            if ours in kms.list_resource_tags(KeyId=each["KeyId"])["Tags"]
        ]

    def guards_calls(self, since: Call) -> list[Call]:
        """The guard's own calls after `since`."""
        return [call for call in self._calls_since(since) if is_guard(call)]

    def _calls_since(self, known: Call | None) -> list[Call]:
        calls = list(self.sandbox.calls)
        return calls[calls.index(known) + 1 :] if known in calls else calls

    # Claims

    def prove(self, holds: object, text: str, otherwise: object = None) -> None:
        """Print a claim that is true. Raises Wrong if it is not, with the actual value."""
        if not holds:
            raise Wrong(f"not true: {text}" + (f"; instead: {otherwise}" if otherwise is not None else ""))
        self.voice.proved(text)

    def command(self, *arguments: str, person: Person | None = None, exits: int = 0) -> None:
        """Run the installed command line, print its output, and check its exit code."""
        line = f"xray-guard {shlex.join(arguments)}"
        self.voice.command(line)
        ended = self._run(arguments, shown=self.voice.on_terminal, person=person)
        self.voice.printed((ended.stdout or "") + (ended.stderr or ""))
        if ended.returncode != exits:
            raise Wrong(f"{line} exits with {ended.returncode}, not {exits}")

    def json_of(self, *arguments: str) -> Any:
        """The JSON output of the command line, without printing it."""
        ended = self._run(("--output", "json", *arguments), shown=False)
        try:
            return json.loads(ended.stdout)
        except ValueError:
            raise Wrong(f"xray-guard {' '.join(arguments)} printed no JSON: {ended.stdout} {ended.stderr}") from None

    def _run(
        self, arguments: tuple[str, ...], *, shown: bool, person: Person | None = None
    ) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("xray-guard")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "XRAY_GUARD_"))}
        theirs = {name.upper(): value for name, value in person.credentials.items()} if person else {}
        sys.stdout.flush()
        return subprocess.run(
            [program, *arguments],
            env={**kept, **self.sandbox.environment(), **theirs},
            capture_output=not shown,
            text=True,
            timeout=60,
            check=False,
        )


def is_guard(call: Call) -> bool:
    """Whether the guard's own role made the call."""
    return (call.principal.role_arn or "").endswith(f":{GUARD_ROLE}")


def _line(body: dict[str, Any]) -> Line:
    cause = body["cause"] or body["trigger"]
    actor = cause["actor"]["arn"].split(":", 5)[-1] if cause["actor"] else None
    return Line(
        body["seq"],
        body["outcome"],
        body["reason"],
        tuple(body["violations"]),
        actor,
        body["before"],
        body["after"],
        body["exposure_seconds"],
        body["trigger"]["kind"],
    )
