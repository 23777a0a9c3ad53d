"""X-Ray's encryption setting, service graph and destination of trace segments, which moto lacks.

After a Put, the status is UPDATING, and ACTIVE after `settle_seconds`. Source: X-Ray developer guide, "Configuring
sampling, groups, and encryption settings with the API". The texts of errors are our own, because AWS documents none.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import Any

from moto.core.common_types import TYPE_RESPONSE
from moto.core.exceptions import JsonRESTError
from moto.kms.models import Key
from moto.xray.models import XRayBackend, xray_backends
from moto.xray.responses import XRayResponse

from sandbox.identity import principal_of
from sandbox.keys import ENABLED, KeyResponse, find_key, key_request
from sandbox.knobs import KNOBS, aws_now, denied_by_the_organization
from sandbox.spans import CLOUD_WATCH_LOGS, X_RAY, Refused, change_destination, destination_of
from sandbox.statements import Request, allowed, denied

ADDED_PATHS = (
    "EncryptionConfig",
    "GetTraceSegmentDestination",
    "PutEncryptionConfig",
    "UpdateTraceSegmentDestination",
)
"""The paths of the operations that moto lacks."""

GRAPH_RANGE_SECONDS = 6 * 3600


@dataclass
class Tracing:
    """X-Ray's state of one account and Region. `services` are (name, time when last seen)."""

    type: str = "NONE"
    key_arn: str | None = None
    settled_at: float = 0.0
    services: tuple[tuple[str, float], ...] = ()

    def as_api(self) -> dict[str, Any]:
        """Return the `EncryptionConfig` of a response; NONE normally has no key."""
        status = "ACTIVE" if time.time() >= self.settled_at else "UPDATING"
        found = {"Type": self.type, "Status": status}
        return {**found, "KeyId": self.key_arn} if self.key_arn else found


def tracing_of(account: str, region: str) -> Tracing:
    """Return the state, which is kept in moto's backend, so that moto's reset clears it, too."""
    backend: XRayBackend = xray_backends[account][region]
    found: Tracing = vars(backend).setdefault("sandbox_tracing", Tracing())
    return found


def seed_services(account: str, region: str, names: tuple[str, ...], seen_at: float | None = None) -> None:
    """Set the services of the service graph, by default as seen a moment ago; none clears it.

    Not now, because a caller that reads AWS's clock from responses is up to a second behind it.
    """
    at = aws_now().timestamp() - 2 if seen_at is None else seen_at
    tracing_of(account, region).services = tuple((name, at) for name in names)


def storing_traces(account: str, region: str) -> bool:
    """Whether X-Ray can store traces: if it cannot use its key, it stores none."""
    tracing = tracing_of(account, region)
    if tracing.type == "NONE":
        return True
    try:
        key = find_key(tracing.key_arn or "", account, region)
    except JsonRESTError:
        return False
    return key.key_state == ENABLED and _lets_xray_use_it(key)


def _lets_xray_use_it(key: Key) -> bool:
    """Whether X-Ray may use the key by its own statement, or by a grant that the account's root statement allows."""
    for action in ("kms:GenerateDataKey", "kms:Decrypt"):
        itself = Request(action=action, service="xray.amazonaws.com")
        root = Request(action="kms:CreateGrant", account=key.account_id)
        if denied(key.policy, itself) or not (allowed(key.policy, itself) or allowed(key.policy, root)):
            return key.key_manager == "AWS"
    return True


class InvalidRequest(JsonRESTError):
    """X-Ray's error for an invalid request."""

    code = 400

    def __init__(self, message: str) -> None:
        super().__init__("InvalidRequestException", message)


class AccessDenied(JsonRESTError):
    """X-Ray's error for a caller without permission."""

    code = 403

    def __init__(self, message: str) -> None:
        super().__init__("AccessDeniedException", message)


class TracingResponse(XRayResponse):
    """moto's X-Ray with the encryption setting. Methods are named by the path, as moto does for X-Ray."""

    def encryption_config(self) -> str:
        """GetEncryptionConfig: POST /EncryptionConfig."""
        self._unless_denied("xray:GetEncryptionConfig")
        return json.dumps({"EncryptionConfig": tracing_of(self.current_account, self.region).as_api()})

    def put_encryption_config(self) -> str:
        """PutEncryptionConfig: the response has the named key's ARN."""
        self._unless_denied("xray:PutEncryptionConfig")
        kind, key_id = self._get_param("Type"), self._get_param("KeyId")
        if kind not in ("NONE", "KMS"):
            raise InvalidRequest(f"Type must be NONE or KMS, not {kind!r}")
        if key_id is not None and not (isinstance(key_id, str) and 1 <= len(key_id) <= 3000):
            raise InvalidRequest("KeyId must have from 1 to 3000 characters")
        if kind == "KMS" and key_id is None:
            raise InvalidRequest("KeyId is required where Type is KMS")
        key = self._usable(key_id) if kind == "KMS" and key_id is not None else None
        tracing = tracing_of(self.current_account, self.region)
        if not KNOBS.updates_while_updating and tracing.as_api()["Status"] == "UPDATING":
            raise InvalidRequest("An update of the encryption configuration is in progress")
        tracing.type, tracing.key_arn = kind, key.arn if key else None
        tracing.settled_at = time.time() + KNOBS.settle_seconds
        # A Put returns UPDATING even if `settle_seconds` is zero.
        return json.dumps({"EncryptionConfig": {**tracing.as_api(), "Status": "UPDATING"}})

    def get_trace_segment_destination(self) -> str:
        """GetTraceSegmentDestination."""
        self._unless_denied("xray:GetTraceSegmentDestination")
        return json.dumps(destination_of(self.current_account, self.region).as_api())

    def update_trace_segment_destination(self) -> str:
        """UpdateTraceSegmentDestination, which may name the key of a log group that X-Ray is about to create."""
        self._unless_denied("xray:UpdateTraceSegmentDestination")
        kind, settings = self._get_param("Destination"), self._get_param("CloudWatchLogsConfiguration")
        key_arn = (settings or {}).get("SpansLogGroupKmsKeyId")
        if kind not in (X_RAY, CLOUD_WATCH_LOGS):
            raise InvalidRequest(f"Destination must be {X_RAY} or {CLOUD_WATCH_LOGS}, not {kind!r}")
        if settings is not None and kind != CLOUD_WATCH_LOGS:
            raise InvalidRequest(f"CloudWatchLogsConfiguration is for the destination {CLOUD_WATCH_LOGS} only")
        try:
            return json.dumps(change_destination(self.current_account, self.region, kind, key_arn))
        except Refused as refused:
            raise InvalidRequest(refused.message) from None

    def _unless_denied(self, action: str) -> None:
        caller = principal_of(self.access_key, self.current_account, self.region)
        message = denied_by_the_organization(self.region, action, caller.arn)
        if message:
            raise AccessDenied(message)

    def _usable(self, key_id: str) -> Key:
        try:
            key = find_key(key_id, self.current_account, self.region)
        except JsonRESTError as error:
            raise InvalidRequest(f"The key {key_id} cannot be used: {error.message}") from None
        if key.key_state != ENABLED:
            raise InvalidRequest(f"The key {key.arn} is {key.key_state}")
        if key.key_spec != "SYMMETRIC_DEFAULT" or key.key_usage != "ENCRYPT_DECRYPT":
            raise InvalidRequest(f"The key {key.arn} is not a symmetric encryption key")
        caller = principal_of(self.access_key, self.current_account, self.region)
        via = f"xray.{self.region}.amazonaws.com"
        for action in ("kms:DescribeKey", "kms:CreateGrant"):
            request = key_request(caller, action, {}, KeyResponse.kms_backend_tags(key), via)
            foreign = caller.account != key.account_id
            if denied(key.policy, request) or (not foreign and not allowed(key.policy, request)):
                raise InvalidRequest(f"{caller.arn} is not allowed {action} on {key.arn}")
        return key

    def service_graph(self) -> str | tuple[str, dict[str, int]]:
        """GetServiceGraph: the services seen in the requested time range, at most six hours."""
        start, end = self._get_param("StartTime"), self._get_param("EndTime")
        if not isinstance(start, (int, float)) or not isinstance(end, (int, float)):
            raise InvalidRequest("StartTime and EndTime are required")
        if not 0 <= end - start <= GRAPH_RANGE_SECONDS:
            raise InvalidRequest("The time range must not be negative, nor longer than six hours")
        services = [
            {"ReferenceId": number, "Name": name, "Names": [name], "Root": True, "Type": "AWS::Lambda::Function"}
            for number, (name, seen_at) in enumerate(tracing_of(self.current_account, self.region).services)
            if start <= seen_at <= end
        ]
        return json.dumps({"StartTime": start, "EndTime": end, "Services": services, "ContainsOldGroupVersions": False})

    def call_action(self) -> TYPE_RESPONSE:
        """Call moto's method, and name errors as X-Ray's clients read them."""
        status, headers, body = super().call_action()
        if status >= 400:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                headers["x-amzn-errortype"] = json.loads(body)["__type"]
        return status, headers, body
