"""Where spans lie: the destination of X-Ray's trace segments, and CloudWatch Logs with the log group `aws/spans`.

With Transaction Search, X-Ray sends spans to that group, which has a key of its own. moto's log groups have neither
reserved names nor AssociateKmsKey. Sources: botocore's models of both services; CloudWatch Logs user guide, "Encrypt
log data in CloudWatch Logs using AWS KMS". What Logs does when its key becomes unusable is unknown, and not simulated;
nor is the resource policy that X-Ray needs to write to the group.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NoReturn

from moto.core.common_types import TYPE_RESPONSE
from moto.core.exceptions import JsonRESTError
from moto.logs.exceptions import ResourceNotFoundException
from moto.logs.models import LogGroup, LogsBackend, logs_backends
from moto.logs.responses import LogsResponse
from moto.utilities.utils import get_partition
from moto.xray.models import XRayBackend, xray_backends

from sandbox.identity import principal_of
from sandbox.keys import ENABLED, find_key
from sandbox.knobs import KNOBS, aws_now, denied_by_the_organization
from sandbox.statements import Request, allowed

SPANS = "aws/spans"
X_RAY, CLOUD_WATCH_LOGS = "XRay", "CloudWatchLogs"
RESERVED = "aws/"

_USES = ("kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo")
"""What a key policy must allow CloudWatch Logs: all of the guide's statement. Which of it AWS checks is unknown."""


@dataclass
class Destination:
    """Where X-Ray sends trace segments. `group_at` is when it creates `aws/spans`, with `key_arn`; None: never."""

    kind: str = X_RAY
    active_at: float = 0.0
    group_at: float | None = None
    key_arn: str | None = None

    def as_api(self) -> dict[str, str]:
        """Return the response of GetTraceSegmentDestination."""
        return {"Destination": self.kind, "Status": "ACTIVE" if time.time() >= self.active_at else "PENDING"}


class Refused(JsonRESTError):
    """CloudWatch Logs refuses a request."""

    code = 400


def _refuse(code: str, message: str) -> NoReturn:
    raise Refused(code, message)


def destination_of(account: str, region: str) -> Destination:
    """Return the destination, which is kept in moto's backend, so that moto's reset clears it, too."""
    backend: XRayBackend = xray_backends[account][region]
    found: Destination = vars(backend).setdefault("sandbox_destination", Destination())
    return found


def change_destination(account: str, region: str, kind: str, key_arn: str | None) -> dict[str, str]:
    """Change the destination, and return the response. Raises Refused for a key that cannot be the group's."""
    if key_arn is not None:
        if SPANS in logs_of(account, region).groups:
            _refuse("InvalidRequestException", f"The log group {SPANS} already exists; use AssociateKmsKey")
        if key_arn.split(":", 5)[4:5] != [account]:
            _refuse("InvalidRequestException", f"{key_arn} is not the ARN of a key of the account")
        check_key(key_arn, _arn_of(account, region, SPANS))
    destination = destination_of(account, region)
    destination.kind, destination.key_arn = kind, key_arn
    destination.active_at = time.time() + KNOBS.settle_seconds
    destination.group_at = time.time() + KNOBS.spans_group_seconds if kind == CLOUD_WATCH_LOGS else None
    # The response says PENDING even if `settle_seconds` is zero.
    return {**destination.as_api(), "Status": "PENDING"}


def logs_of(account: str, region: str) -> LogsBackend:
    """Return CloudWatch Logs of an account and Region, with `aws/spans` if X-Ray has created it by now."""
    backend: LogsBackend = logs_backends[account][region]
    destination = destination_of(account, region)
    if destination.group_at is not None and time.time() >= destination.group_at:
        destination.group_at = None
        if SPANS not in backend.groups:
            _has_key(backend.create_log_group(SPANS, {}), destination.key_arn, since=0.0)
    return backend


def spans_of(account: str, region: str) -> dict[str, Any]:
    """Return the destination, whether `aws/spans` exists, the key that it shows, and the one that new spans get.

    The last two differ for `key_association_seconds` of AWS's clock after a change.
    """
    group = logs_of(account, region).groups.get(SPANS)
    return {
        **destination_of(account, region).as_api(),
        "log_group": group is not None,
        "key": group.kms_key_id if group else None,
        "encrypted_by": _in_effect(group) if group else None,
    }


def _keys(group: LogGroup) -> list[tuple[float, str | None]]:
    """Return the keys that the group had, oldest first, each with the time from which new data gets it."""
    keys: list[tuple[float, str | None]] = vars(group).setdefault("sandbox_keys", [])
    return keys


def _has_key(group: LogGroup, key_arn: str | None, since: float) -> None:
    group.kms_key_id = key_arn
    _keys(group).append((since, key_arn))


def _in_effect(group: LogGroup) -> str | None:
    now = aws_now().timestamp()
    keys = [key_arn for since, key_arn in _keys(group) if since <= now]
    return keys[-1] if keys else None


def _arn_of(account: str, region: str, name: str) -> str:
    return f"arn:{get_partition(region)}:logs:{region}:{account}:log-group:{name}"


def check_key(key_arn: str, group_arn: str) -> None:
    """Raise Refused unless the log group can have the key.

    The codes and the texts about a key that is not found or not allowed are those of public issues (terraform 24194,
    modernisation-platform 7870); that a disabled key is refused is documented, its text is our own.
    """
    _, _, _, region, account, _, name = group_arn.split(":", 6)
    try:
        if not key_arn.startswith("arn:"):
            raise JsonRESTError("NotFoundException", "not an ARN")
        key = find_key(key_arn, account, region, alias=False)
    except JsonRESTError:
        _refuse("InvalidParameterException", f"The specified KMS Key Id could not be found. '{name}'")
    if key.key_state != ENABLED:
        _refuse("InvalidParameterException", f"The specified KMS key {key.arn} is {key.key_state}.")
    if key.key_spec != "SYMMETRIC_DEFAULT" or key.key_usage != "ENCRYPT_DECRYPT":
        _refuse("InvalidParameterException", f"The specified KMS key {key.arn} is not a symmetric encryption key.")
    if not any(_allows(key.policy, principal, group_arn) for principal in _principals(region)):
        text = f"The specified KMS key does not exist or is not allowed to be used with Arn '{group_arn}'"
        _refuse("AccessDeniedException", text)


def _principals(region: str) -> list[str]:
    """Return the service principal of CloudWatch Logs; in China either spelling, because it is unknown."""
    usual = f"logs.{region}.amazonaws.com"
    return [usual, f"{usual}.cn"] if get_partition(region) == "aws-cn" else [usual]


def _allows(policy: str, service: str, group_arn: str) -> bool:
    context = {"kms:encryptioncontext:aws:logs:arn": [group_arn], "aws:principalisawsservice": ["true"]}
    return all(allowed(policy, Request(action, service=service, context=context)) for action in _USES)


class LogGroupsResponse(LogsResponse):
    """moto's CloudWatch Logs with reserved names and keys. Methods have moto's names of operations."""

    @property
    def logs_backend(self) -> LogsBackend:
        """The log groups, `aws/spans` included."""
        return logs_of(self.current_account, self.region)

    def call_action(self) -> TYPE_RESPONSE:
        """Refuse what the organization denies. The error is handled here: moto handles only those of its methods."""
        caller = principal_of(self.access_key, self.current_account, self.region)
        message = denied_by_the_organization(self.region, f"logs:{self._get_action()}", caller.arn)
        if message is None:
            return super().call_action()
        error = Refused("AccessDeniedException", message)
        return 400, {"x-amzn-errortype": "AccessDeniedException"}, error.get_body()

    def create_log_group(self) -> str:
        """CreateLogGroup: a user's name does not begin with `aws/`, and its key is checked."""
        name, key_arn = str(self._get_param("logGroupName")), self._get_param("kmsKeyId")
        if name.lower().startswith(RESERVED):
            _refuse("InvalidParameterException", "Log groups starting with AWS/ are reserved for AWS.")
        if key_arn:
            check_key(key_arn, _arn_of(self.current_account, self.region, name))
        super().create_log_group()
        _has_key(self.logs_backend.groups[name], key_arn, since=0.0)
        return ""

    def associate_kms_key(self) -> str:
        """AssociateKmsKey: shown at once, used for new data later."""
        group, key_arn = self._group(), str(self._get_param("kmsKeyId"))
        check_key(key_arn, group.arn)
        return self._later(group, key_arn)

    def disassociate_kms_key(self) -> str:
        """DisassociateKmsKey, of a group that may have no key."""
        return self._later(self._group(), None)

    @staticmethod
    def _later(group: LogGroup, key_arn: str | None) -> str:
        _has_key(group, key_arn, since=aws_now().timestamp() + KNOBS.key_association_seconds)
        return ""

    def _group(self) -> LogGroup:
        """Return the group that the request names, by name or by ARN."""
        name, identifier = self._get_param("logGroupName"), self._get_param("resourceIdentifier")
        if bool(name) == bool(identifier):
            _refuse("InvalidParameterException", "Specify either logGroupName or resourceIdentifier.")
        if identifier:
            prefix = _arn_of(self.current_account, self.region, "")
            if not identifier.startswith(prefix):
                raise NotImplementedError(f"the key of {identifier}")
            name = identifier.removeprefix(prefix)
        group: LogGroup | None = self.logs_backend.groups.get(name)
        if group is None:
            raise ResourceNotFoundException()
        return group
