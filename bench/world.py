"""A fake AWS that returns prepared bytes at once, so that the benchmark measures the function and not the fake.

Three scenes, each with a target that the guard has managed for some time: the event of its own change, a change that
left the target compliant, and a change to NONE while the managed key is healthy. A scene does not change: it responds
to every run in the same way, so any number of runs can be measured.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from chalicelib.aws.tables import AUDIT_TABLE, TARGETS_TABLE
from chalicelib.domain.keypolicy.wanted import initial_policy
from chalicelib.domain.model import (
    GUARD_TAG_KEY,
    GUARD_TAG_VALUE,
    Actor,
    EncryptionStatus,
    EncryptionType,
    Setting,
    Target,
)
from chalicelib.domain.policy import Policy
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.spans import Links, Spans
from chalicelib.domain.stored import GUARD_CHAIN, Cause, GuardState, PastIncident, TargetState

TARGET = Target("111122223333", "us-east-1")
ROLE_ARN = f"arn:aws:iam::{TARGET.account}:role/xray-guard-role"
KEY_ID = "1234abcd-12ab-34cd-56ef-1234567890ab"
KEY_ARN = f"arn:aws:kms:{TARGET.region}:{TARGET.account}:key/{KEY_ID}"
WANTED = {"Type": "KMS", "KeyId": KEY_ARN, "Status": "ACTIVE"}
ECHO_REQUEST_ID = "0a37c2f6-7c41-4f0e-8a3e-2d0f0a5f4b11"
"""Of a call that the guard made, and remembers."""

NOTHING = {"Type": "NONE", "Status": "ACTIVE"}
SERVICES = {"DynamoDB_20120810": "dynamodb", "TrentService": "kms"}
XRAY_PATHS = {
    "/EncryptionConfig": "GetEncryptionConfig",
    "/PutEncryptionConfig": "PutEncryptionConfig",
    "/GetTraceSegmentDestination": "GetTraceSegmentDestination",
}
WITH_TRACES = {"Destination": "XRay", "Status": "ACTIVE"}
"""Spans are stored with the traces."""


@dataclass(frozen=True, slots=True)
class Request:
    """One received AWS call: service, API name, and the parameters as boto3 takes them."""

    service: str
    operation: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scene:
    """What is measured: an event, X-Ray's setting before it, and the guard's expected outcome."""

    name: str
    event: dict[str, Any]
    found: dict[str, str]
    outcome: str
    reason: str | None = None


def scenes(events: Path) -> tuple[Scene, ...]:
    """Return the three scenes, with events from the folder of sample events."""
    echo = json.loads((events / "26_success_kms_self_remediator_lambda.json").read_text("utf-8"))
    echo["detail"]["requestID"] = ECHO_REQUEST_ID
    change = json.loads((events / "13_success_none_root_console.json").read_text("utf-8"))
    return (
        Scene("own echo", echo, WANTED, "IGNORED", "ECHO"),
        Scene("compliant change", change, WANTED, "COMPLIANT"),
        Scene("drift, healthy key", change, NOTHING, "REMEDIATED"),
    )


class Loopback:
    """An AWS on 127.0.0.1. `answer(path, headers, body)` returns a response's body, in the thread of its connection."""

    def __init__(self, answer: Callable[[str, Message, bytes], bytes]) -> None:

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1  # send head and body together

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                response = answer(self.path, self.headers, body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("x-amzn-RequestId", "5d1ff3ad-0f5c-4d3c-9e46-7c2f1d4b3a99")
                self.send_header("Content-Length", str(len(response)))
                self.end_headers()
                self.wfile.write(response)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Ignore it: a terminated process breaks its connection."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class Endpoint(Loopback):
    """The scene's AWS. `received` has every call received since it was last cleared."""

    def __init__(self, scene: Scene, policy: Policy) -> None:
        super().__init__(self._answer)
        self.received: list[Request] = []
        self._found = scene.found
        self._setting = scene.found
        self._turn = threading.Lock()
        self._answers = _answers(policy)

    def _answer(self, path: str, headers: Message, body: bytes) -> bytes:
        request = read_request(path, headers.get("X-Amz-Target"), body)
        with self._turn:
            self.received.append(request)
            match request.operation:
                case "GetEncryptionConfig":
                    return json.dumps({"EncryptionConfig": self._setting}).encode()
                case "PutEncryptionConfig":
                    self._setting = WANTED
                    return json.dumps({"EncryptionConfig": {**WANTED, "Status": "UPDATING"}}).encode()
                case "TransactWriteItems":
                    # The transaction after a Put ends the run: reset the setting for the next run.
                    self._setting = self._found
            return self._answers[request.operation]


def read_request(path: str, action: str | None, body: bytes) -> Request:
    """Return the AWS call of an HTTP request to X-Ray, KMS or DynamoDB."""
    parameters = json.loads(body) if body else {}
    parameters.pop("ClientRequestToken", None)  # botocore puts a new one into every transaction
    if action is None:
        return Request("xray", XRAY_PATHS[path], parameters)
    prefix, _, operation = action.partition(".")
    return Request(SERVICES[prefix], operation, parameters)


def _answers(policy: Policy) -> dict[str, bytes]:
    """Return the responses that do not depend on the scene, by API name."""
    rule = policy.rule_for(TARGET)
    if rule is None:
        raise ValueError("the packaged policy governs no account; there is nothing to measure")
    now = datetime.now(UTC)
    states: dict[str, TargetState | GuardState] = {
        str(TARGET): kept_state(TARGET, rule.id, policy.digest, now),
        GUARD_CHAIN: guard_state(policy.digest, now),
    }
    items = [
        {"target": {"S": name}, "state": {"S": msgspec.json.encode(state).decode()}} for name, state in states.items()
    ]
    tags = {**rule.managed_key.tags, GUARD_TAG_KEY: GUARD_TAG_VALUE}
    answers = {
        "BatchGetItem": {"Responses": {TARGETS_TABLE: items, AUDIT_TABLE: []}, "UnprocessedKeys": {}},
        "TransactWriteItems": {},
        "GetTraceSegmentDestination": WITH_TRACES,
        "DescribeKey": {"KeyMetadata": key_metadata(TARGET, rule.managed_key.description, now)},
        "GetKeyPolicy": {"Policy": initial_policy(rule, TARGET, "aws"), "PolicyName": "default"},
        "GetKeyRotationStatus": {
            "KeyId": KEY_ARN,
            "KeyRotationEnabled": True,
            "RotationPeriodInDays": rule.managed_key.rotation_days,
        },
        "ListResourceTags": {
            "Tags": [{"TagKey": name, "TagValue": value} for name, value in tags.items()],
            "Truncated": False,
        },
    }
    return {operation: json.dumps(answer).encode() for operation, answer in answers.items()}


def key_arn(target: Target) -> str:
    """Return the ARN of the target's managed key."""
    return f"arn:aws:kms:{target.region}:{target.account}:key/{KEY_ID}"


def key_metadata(target: Target, description: str, made_at: datetime) -> dict[str, Any]:
    """Return the target's managed key as DescribeKey returns it."""
    return {
        "AWSAccountId": target.account,
        "Arn": key_arn(target),
        "KeyId": KEY_ID,
        "KeyState": "Enabled",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeyManager": "CUSTOMER",
        "Origin": "AWS_KMS",
        "Description": description,
        "Enabled": True,
        "MultiRegion": False,
        "CreationDate": made_at.timestamp(),
    }


def guard_state(digest: str, now: datetime) -> GuardState:
    """Return the guard's own state."""
    return GuardState(version=3, seq=3, head="c" * 64, policy_digest=digest, swept_at=now)


def kept_state(target: Target, rule: str, digest: str, now: datetime) -> TargetState:
    """Return the state of a compliant target that was remediated three times before."""
    arn = key_arn(target)
    drifted, wanted = Setting(EncryptionType.NONE), Setting(EncryptionType.KMS, arn, EncryptionStatus.ACTIVE)
    times = [now - timedelta(days=days) for days in (9, 5, 2)]
    past = tuple(
        PastIncident(
            f"{target}#{number * 3}",
            at,
            at + timedelta(seconds=3),
            drifted,
            Cause(f"9f7ec12c-f1db-591c-9607-da86b6050{number:03d}", at, Actor(f"{ROLE_ARN}-{number}", "AssumedRole")),
        )
        for number, at in enumerate(times, start=1)
    )
    return TargetState(
        str(target),
        version=12,
        seq=11,
        head="b" * 64,
        first_seen=times[0],
        setting=wanted,
        ever_used=True,
        outcome=Outcome.COMPLIANT,
        rule=rule,
        policy_digest=digest,
        checked_at=now,
        good_at=now,
        past=past,
        lease_number=3,
        requests=(ECHO_REQUEST_ID,),
        managed_key=arn,
        keys_made=(arn,),
        spans=Spans(WITH_TRACES["Destination"], WITH_TRACES["Status"]),
        links=Links(at=now),
    )
