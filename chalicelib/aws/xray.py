"""X-Ray's encryption setting over boto3.

https://docs.aws.amazon.com/xray/latest/api/API_EncryptionConfig.html
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from chalicelib.aws.clients import Clients, call, request_id
from chalicelib.aws.paging import pages
from chalicelib.domain.errors import AwsError
from chalicelib.domain.model import EncryptionStatus, EncryptionType, Setting
from chalicelib.domain.spans import IN_LOGS, WITH_TRACES

LOOK_BACK = timedelta(hours=6)
"""The longest time range that GetServiceGraph accepts."""


class XRayApi:
    """`ports.XRay` for one Region."""

    def __init__(self, clients: Clients, region: str) -> None:
        self._clients = clients
        self._region = region

    def get(self) -> Setting:
        """GetEncryptionConfig."""
        client = self._clients.reading("xray", self._region)
        answer = call("xray:GetEncryptionConfig", client.get_encryption_config)
        return _setting("xray:GetEncryptionConfig", answer)

    def put(self, key_arn: str) -> tuple[Setting, str | None]:
        """PutEncryptionConfig with type KMS, sent once."""
        client = self._clients.mutating("xray", self._region)
        answer = call("xray:PutEncryptionConfig", client.put_encryption_config, Type="KMS", KeyId=key_arn)
        return _setting("xray:PutEncryptionConfig", answer), request_id(answer)

    def spans_destination(self) -> tuple[str | None, str | None]:
        """GetTraceSegmentDestination."""
        client = self._clients.reading("xray", self._region)
        answer = call("xray:GetTraceSegmentDestination", client.get_trace_segment_destination)
        destination = answer.get("Destination")
        if destination not in (WITH_TRACES, IN_LOGS):
            message = f"no destination that the guard knows: {destination}"
            raise AwsError("xray:GetTraceSegmentDestination", "UnexpectedAnswer", message)
        return destination, answer.get("Status")

    def in_use(self, now: datetime) -> bool:
        """GetServiceGraph over the six hours before `now`; stops at the first page with a service."""
        client = self._clients.reading("xray", self._region)
        found = pages(
            "xray:GetServiceGraph",
            client.get_service_graph,
            {"NextToken": "NextToken"},
            StartTime=now - LOOK_BACK,
            EndTime=now,
        )
        return any(response.get("Services") for response in found)


def _setting(operation: str, answer: dict[str, Any]) -> Setting:
    """Branch on `Type`; `KeyId` is optional, and has no meaning with NONE."""
    config = answer.get("EncryptionConfig") or {}
    try:
        kind = EncryptionType(config["Type"])
        status = EncryptionStatus(config["Status"]) if config.get("Status") else None
    except (KeyError, ValueError) as error:
        raise AwsError(operation, "UnexpectedAnswer", f"no Type or Status that the guard knows: {error}") from error
    return Setting(kind, config.get("KeyId") if kind is EncryptionType.KMS else None, status)
