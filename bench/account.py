"""A fake AWS account with seventeen Regions, all compliant, whose every response takes as long as over a network."""

from __future__ import annotations

import json
import math
import re
import time
from datetime import UTC, datetime
from email.message import Message
from typing import Any

import msgspec

from bench.world import (
    TARGET,
    WANTED,
    WITH_TRACES,
    Loopback,
    Request,
    Scene,
    guard_state,
    kept_state,
    key_arn,
    key_metadata,
    read_request,
)
from chalicelib.aws.tables import AUDIT_TABLE, TARGETS_TABLE
from chalicelib.aws.threads import AT_ONCE
from chalicelib.domain.model import Target
from chalicelib.domain.policy import Policy
from chalicelib.domain.stored import GUARD_CHAIN, GuardState, TargetState

REGIONS = (
    *("ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2"),
    *("ca-central-1", "eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1"),
    *("us-east-1", "us-east-2", "us-west-1", "us-west-2"),
)
"""The Regions that every account has."""

SWEEP = Scene(f"sweep of {len(REGIONS)} Regions", {}, WANTED, "COMPLIANT")
CALL_SECONDS = 0.05
ROUNDS_OUTSIDE = 7
"""Round trips of a sweep besides its targets: the Regions, all states (2), all heads (2), its own record (2)."""

_REGION = re.compile(r"Credential=[^/]+/\d+/([^/]+)/")


LEAST_SECONDS = (ROUNDS_OUTSIDE + math.ceil(len(REGIONS) / AT_ONCE)) * CALL_SECONDS
"""How long a sweep takes at least, by its round trips alone: each compliant target takes one."""


class Account(Loopback):
    """The account, with the guard's tables in the Region of TARGET. It only pretends to store what is written."""

    def __init__(self, policy: Policy) -> None:
        rule = policy.rule_for(TARGET)
        assert rule is not None
        now = datetime.now(UTC)
        self.received: list[Request] = []
        self._description = rule.managed_key.description
        self._now = now
        targets = [Target(TARGET.account, region) for region in REGIONS]
        states: list[TargetState | GuardState] = [guard_state(policy.digest, now)]
        states += [kept_state(target, rule.id, policy.digest, now) for target in targets]
        self._items = {state.target: _item(state) for state in states}
        names = [GUARD_CHAIN, *map(str, targets)]
        self._items["roster#0"] = {"target": {"S": "roster#0"}, "names": {"SS": names}}
        super().__init__(self._answer)

    def _answer(self, path: str, headers: Message, body: bytes) -> bytes:
        time.sleep(CALL_SECONDS)
        action = headers.get("X-Amz-Target")
        if action is None and b"Action=DescribeRegions" in body:
            self.received.append(Request("ec2", "DescribeRegions", {}))
            items = "".join(f"<item><regionName>{region}</regionName></item>" for region in REGIONS)
            return f"<DescribeRegionsResponse><regionInfo>{items}</regionInfo></DescribeRegionsResponse>".encode()
        request = read_request(path, action, body)
        self.received.append(request)
        found = _REGION.search(headers["Authorization"])
        assert found is not None
        return json.dumps(self._response(request, Target(TARGET.account, found[1]))).encode()

    def _response(self, request: Request, target: Target) -> dict[str, Any]:
        match request.operation:
            case "GetEncryptionConfig":
                return {"EncryptionConfig": {**WANTED, "KeyId": key_arn(target)}}
            case "GetTraceSegmentDestination":
                return WITH_TRACES
            case "DescribeKey":
                return {"KeyMetadata": key_metadata(target, self._description, self._now)}
            case "TransactWriteItems":
                return {}
        names = [key["target"]["S"] for key in request.parameters["RequestItems"][TARGETS_TABLE]["Keys"]]
        items = [self._items[name] for name in names if name in self._items]
        return {"Responses": {TARGETS_TABLE: items, AUDIT_TABLE: []}, "UnprocessedKeys": {}}


def _item(state: TargetState | GuardState) -> dict[str, Any]:
    return {
        "target": {"S": state.target},
        "seq": {"N": str(state.seq)},
        "head": {"S": state.head},
        "state": {"S": msgspec.json.encode(state).decode()},
    }
