"""CloudTrail: a call becomes a record, and the record an event on the default bus of its account and Region.

Only for write management events of X-Ray, KMS, CloudWatch Logs and Observability Access Manager. The record's format
follows the CloudTrail user guide, "CloudTrail record contents", and the public records that `docs/aws-assumptions.md`
names.
"""

from __future__ import annotations

import random
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

from sandbox.calls import Call, as_cloudtrail, service_model
from sandbox.knobs import KNOBS, aws_now
from sandbox.later import Later

CALL_DETAIL_TYPE = "AWS API Call via CloudTrail"
_READS = ("Get", "List", "Describe", "BatchGet")
_NO_MANAGEMENT_WRITES = {
    "xray": {"PutTraceSegments", "PutTelemetryRecords"},
    "kms": {
        "Decrypt",
        "DeriveSharedSecret",
        "Encrypt",
        "GenerateDataKey",
        "GenerateDataKeyPair",
        "GenerateDataKeyPairWithoutPlaintext",
        "GenerateDataKeyWithoutPlaintext",
        "GenerateMac",
        "GenerateRandom",
        "ReEncrypt",
        "Sign",
        "Verify",
        "VerifyMac",
    },
    "logs": {"FilterLogEvents", "PutLogEvents", "StartQuery", "StopQuery", "TestMetricFilter"},
    "oam": set(),
}
_DENIED = ("AccessDenied", "AccessDeniedException")


class Trail:
    """Writes the records and sends their events."""

    def __init__(self, later: Later, deliver: Callable[[dict[str, Any]], object], silent_session: str = "") -> None:
        self._later = later
        self._deliver = deliver
        self.silent_session = silent_session
        self.records: deque[dict[str, Any]] = deque(maxlen=5000)

    def note(self, call: Call) -> None:
        """Record a call; ignore calls that CloudTrail does not send to EventBridge."""
        service, action = call.request.service, call.request.action
        if service not in _NO_MANAGEMENT_WRITES or action.startswith(_READS) or " " in action:
            return
        if action in _NO_MANAGEMENT_WRITES[service]:
            return
        if action == "PutEncryptionConfig" and call.error_code is None and call.request.parameters["Type"] == "KMS":
            self._tell("aws.kms", CALL_DETAIL_TYPE, grant_record(call), [])
        self._tell(f"aws.{service}", CALL_DETAIL_TYPE, call_record(call), [])

    def key_deleted(self, account: str, region: str, arn: str) -> None:
        """Send the events of a deleted key: a service event, and one from KMS itself. Source: KMS developer guide."""
        record = {
            "eventVersion": "1.11",
            "userIdentity": {"accountId": account, "invokedBy": "AWS Internal"},
            "eventTime": _now(),
            "eventSource": "kms.amazonaws.com",
            "eventName": "DeleteKey",
            "awsRegion": region,
            "sourceIPAddress": "AWS Internal",
            "userAgent": "AWS Internal",
            "requestParameters": None,
            "responseElements": None,
            "eventID": str(uuid.uuid4()),
            "readOnly": False,
            "resources": [{"accountId": account, "type": "AWS::KMS::Key", "ARN": arn}],
            "eventType": "AwsServiceEvent",
            "managementEvent": True,
            "recipientAccountId": account,
            "serviceEventDetails": {"keyId": arn.rsplit("/", 1)[-1]},
            "eventCategory": "Management",
        }
        self._tell("aws.kms", "AWS Service Event via CloudTrail", record, [])
        direct = event("aws.kms", "KMS CMK Deletion", account, region, {"key-id": arn.rsplit("/", 1)[-1]}, [arn])
        self._send(direct)

    def _tell(self, source: str, detail_type: str, record: dict[str, Any], resources: list[str]) -> None:
        principal_id = str((record.get("userIdentity") or {}).get("principalId"))
        if self.silent_session and principal_id.endswith(f":{self.silent_session}"):
            return
        self.records.append(record)
        account, region = record["recipientAccountId"], record["awsRegion"]
        self._send(event(source, detail_type, account, region, record, resources))

    def _send(self, event: dict[str, Any]) -> None:
        if KNOBS.happens("lose_events", random.random()):
            return
        copies = KNOBS.event_copies + KNOBS.happens("double_events", random.random())
        late = KNOBS.late_seconds if KNOBS.happens("delay_events", random.random()) else 0.0
        for _ in range(copies):
            self._later.after(KNOBS.event_delay_seconds + late, lambda: self._deliver(event))


def event(
    source: str, detail_type: str, account: str, region: str, detail: dict[str, Any], resources: list[str]
) -> dict[str, Any]:
    """Return an event as EventBridge sends it to a target."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": detail_type,
        "source": source,
        "account": account,
        "time": _now(),
        "region": region,
        "resources": resources,
        "detail": detail,
    }


def _now() -> str:
    return aws_now().strftime("%Y-%m-%dT%H:%M:%SZ")


def call_record(call: Call) -> dict[str, Any]:
    """Return a call's CloudTrail record. A failed call has null `responseElements`, a denied one no parameters."""
    request, failed = call.request, call.error_code is not None
    operation = service_model(request.service).operation_model(request.action)
    code = "AccessDenied" if call.error_code in _DENIED else call.error_code
    parameters = None if code == "AccessDenied" else as_cloudtrail(request.parameters, operation.input_shape)
    answer = None if failed or not call.answer else as_cloudtrail(call.answer, operation.output_shape)
    record: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": call.principal.user_identity(),
        "eventTime": call.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": f"{request.service}.amazonaws.com",
        "eventName": request.action,
        "awsRegion": request.region,
        "sourceIPAddress": request.source_ip,
        "userAgent": request.user_agent,
        **({"errorCode": code, "errorMessage": call.error_message} if failed else {}),
        "requestParameters": parameters or None,
        "responseElements": answer,
        **_of_retired_grant(request.action, parameters or {}),
        "requestID": call.request_id,
        "eventID": str(uuid.uuid4()),
        "readOnly": False,
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": call.principal.account,
        "eventCategory": "Management",
        "tlsDetails": {
            "tlsVersion": "TLSv1.3",
            "cipherSuite": "TLS_AES_128_GCM_SHA256",
            "clientProvidedHostHeader": request.host,
        },
    }
    if request.service == "kms":
        record["resources"] = [
            {"accountId": arn.split(":")[4], "type": kind, "ARN": arn} for kind, arn in call.resources
        ] or None
    return record


def _of_retired_grant(action: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return how the record of RetireGrant differs. Source: KMS developer guide, log entries, "RetireGrant"."""
    if action != "RetireGrant":
        return {}
    known = {"additionalEventData": {"grantId": parameters["grantId"]}} if "grantId" in parameters else {}
    return {"requestParameters": None, **known}


def grant_record(put: Call) -> dict[str, Any]:
    """Return the record of the grant that X-Ray creates on the key with its caller's permissions during a Put.

    `invokedBy` is how CloudTrail shows a call that a service makes for its caller. Source: CloudTrail user guide,
    "userIdentity element"; that X-Ray's grants come this way is inferred.
    """
    service = "xray.amazonaws.com"
    answer = put.answer or {}
    arn = answer["EncryptionConfig"]["KeyId"]
    record = call_record(put)
    return {
        **record,
        "eventSource": "kms.amazonaws.com",
        "eventName": "CreateGrant",
        "eventID": str(uuid.uuid4()),
        "requestID": str(uuid.uuid4()),
        "userIdentity": {**record["userIdentity"], "invokedBy": service},
        "sourceIPAddress": service,
        "userAgent": service,
        "requestParameters": {
            "keyId": arn,
            "granteePrincipal": service,
            "operations": ["Decrypt", "GenerateDataKey"],
        },
        "responseElements": {"grantId": uuid.uuid4().hex, "keyId": arn},
        "resources": [{"accountId": arn.split(":")[4], "type": "AWS::KMS::Key", "ARN": arn}],
    }
