"""KMS behaviour in which moto differs from AWS and on which the guard depends.

Refusals come from one table of operations and key states. Every read uses a view of the keys: the live one, or one that
is `stale_seconds` old. Source of the states: KMS developer guide, "Key states of AWS KMS keys".
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from moto.core.common_types import TYPE_RESPONSE
from moto.core.exceptions import JsonRESTError
from moto.kms.models import Key, KmsBackend, kms_backends
from moto.kms.responses import KmsResponse
from moto.kms.utils import RESERVED_ALIASES
from moto.utilities.utils import get_partition

from sandbox.calls import touch
from sandbox.identity import Principal, policies_of, principal_of, role_with_arn, user_with_arn
from sandbox.knobs import KNOBS, denied_by_the_organization
from sandbox.statements import Request, allowed, as_list, denied, granted, statements_of

ENABLED, DISABLED, PENDING_DELETION = "Enabled", "Disabled", "PendingDeletion"
PENDING_IMPORT, UNAVAILABLE = "PendingImport", "Unavailable"
POLICY_LIMIT_BYTES = 32 * 1024
KEPT_SECONDS = 900
"""Views are kept for at least this long, for stale reads."""

_NOT_DISABLED = {DISABLED: "DisabledException"}
_NOT_PENDING = {PENDING_DELETION: "KMSInvalidStateException"}
_NOT_IMPORTING = {PENDING_IMPORT: "KMSInvalidStateException"}
_WORKING = {**_NOT_DISABLED, **_NOT_PENDING, **_NOT_IMPORTING, UNAVAILABLE: "KMSInvalidStateException"}


@dataclass(frozen=True, slots=True)
class Operation:
    """What an operation requires of its key.

    `refused` maps key states to the error that they cause. `alias` and `abroad`: whether the key may be named by an
    alias, and whether it may belong to another account. `symmetric`: only symmetric keys with AWS's own key material.
    """

    parameter: str = "KeyId"
    refused: Mapping[str, str] = field(default_factory=dict)
    alias: bool = False
    abroad: bool = False
    symmetric: bool = False


_USE = Operation(refused=_WORKING, alias=True, abroad=True)
_ROTATION_CHANGE = Operation(refused={**_NOT_DISABLED, **_NOT_PENDING}, symmetric=True)

OPERATIONS: dict[str, Operation] = {
    "CancelKeyDeletion": Operation(
        refused=dict.fromkeys((ENABLED, DISABLED, PENDING_IMPORT, UNAVAILABLE), "KMSInvalidStateException")
    ),
    "CreateAlias": Operation("TargetKeyId", _NOT_PENDING),
    "CreateGrant": Operation(refused=_WORKING, abroad=True),
    "Decrypt": _USE,
    "DescribeKey": Operation(alias=True, abroad=True),
    "DisableKey": Operation(refused={**_NOT_PENDING, **_NOT_IMPORTING}),
    "DisableKeyRotation": _ROTATION_CHANGE,
    "EnableKey": Operation(refused={**_NOT_PENDING, **_NOT_IMPORTING}),
    "EnableKeyRotation": _ROTATION_CHANGE,
    "Encrypt": _USE,
    "GenerateDataKey": _USE,
    "GenerateDataKeyWithoutPlaintext": _USE,
    "GetKeyPolicy": Operation(),
    "GetKeyRotationStatus": Operation(abroad=True, symmetric=True),
    "ListGrants": Operation(abroad=True),
    "ListKeyPolicies": Operation(),
    "ListResourceTags": Operation(),
    "PutKeyPolicy": Operation(),
    "RevokeGrant": Operation(abroad=True),
    "ScheduleKeyDeletion": Operation(refused=_NOT_PENDING),
    "TagResource": Operation(refused=_NOT_PENDING),
    "UntagResource": Operation(refused=_NOT_PENDING),
    "UpdateAlias": Operation("TargetKeyId", _NOT_PENDING),
    "UpdateKeyDescription": Operation(refused=_NOT_PENDING),
}

_DRY_RUNS = {
    "CreateGrant",
    "Decrypt",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "RetireGrant",
    "RevokeGrant",
}
_CRYPTOGRAPHIC = {"Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext"}


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key as KMS's reads return it."""

    metadata: dict[str, Any]
    policy: str
    rotation: bool
    rotation_days: int
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class View:
    """All keys and aliases of an account and Region at one moment."""

    keys: dict[str, KeyView]
    aliases: dict[str, str]


def refuse(code: str, message: str) -> NoReturn:
    """Raise one of KMS's errors."""
    raise JsonRESTError(code, message)


def view_of(backend: KmsBackend) -> View:
    """Return KMS's present keys and aliases."""
    keys = {
        key.id: KeyView(
            metadata=key.to_dict()["KeyMetadata"],
            policy=_policy_as_told(key),
            rotation=bool(key.key_rotation_status) and key.key_state != PENDING_DELETION,
            rotation_days=_extras(key).get("rotation_days", 365),
            tags=dict(backend.tagger.get_tag_dict_for_resource(key.id)),
        )
        for key in list(backend.keys.values())
    }
    aliases = {name: key.id for key in list(backend.keys.values()) for name in list(key.aliases)}
    return View(keys, aliases)


def remember(backend: KmsBackend) -> None:
    """Keep a view of KMS's present state, for stale reads."""
    history, now = _history(backend), time.time()
    history.append((now, view_of(backend)))
    kept_seconds = max(KEPT_SECONDS, 2 * KNOBS.stale_seconds)
    while len(history) > 1 and history[1][0] < now - kept_seconds:
        history.pop(0)


def _history(backend: KmsBackend) -> list[tuple[float, View]]:
    # Kept in the backend's own dictionary, which moto clears when it resets its state.
    history: list[tuple[float, View]] = vars(backend).setdefault("sandbox_history", [])
    return history


def _as_read(backend: KmsBackend) -> View:
    """Return the view that a read uses: the live one, or the last one that is at least `stale_seconds` old."""
    if KNOBS.stale_seconds <= 0:
        return view_of(backend)
    then = time.time() - KNOBS.stale_seconds
    for at, view in reversed(_history(backend)):
        if at <= then:
            return view
    return View({}, {})


def _extras(key: Key) -> dict[str, Any]:
    extras: dict[str, Any] = vars(key).setdefault("sandbox", {})
    return extras


def _policy_as_told(key: Key) -> str:
    """Return the key's policy, with the unique ids of principals that no longer exist.

    Source: IAM user guide, "AWS JSON policy elements: Principal", on deleted roles and users.
    """
    gone = {
        arn: unique_id
        for arn, unique_id in _extras(key).get("principals", {}).items()
        if (_entity(arn) or {}).get("id") != unique_id
    }
    if not gone:
        return str(key.policy)
    policy = json.loads(key.policy)
    for statement in as_list(policy["Statement"]):
        principal = statement.get("Principal")
        if isinstance(principal, dict) and "AWS" in principal:
            named = [gone.get(each, each) for each in as_list(principal["AWS"])]
            principal["AWS"] = named if isinstance(principal["AWS"], list) else named[0]
    return json.dumps(policy)


def _entity(arn: str) -> dict[str, str] | None:
    return role_with_arn(arn) or user_with_arn(arn)


def backend_for(account: str, region: str) -> KmsBackend:
    """Return KMS of an account and Region."""
    return kms_backends[account][region]


def find_key(key_id: str, account: str, region: str, *, alias: bool = True, abroad: bool = True) -> Key:
    """Return the live key with this id, alias or ARN. Raises JsonRESTError as KMS would."""
    owner, name = account, key_id
    if key_id.startswith("arn:"):
        parts = key_id.split(":", 5)
        if len(parts) != 6 or parts[2] != "kms" or "/" not in parts[5]:
            refuse("InvalidArnException", f"Invalid arn {key_id}")
        if parts[3] != region or parts[1] != get_partition(region):
            refuse("NotFoundException", f"Invalid arn {parts[3]}")
        owner, name = parts[4], parts[5].removeprefix("key/")
    if not re.fullmatch(r"\d{12}", owner):
        refuse("InvalidArnException", f"Invalid arn {key_id}")
    if owner != account and not abroad:
        refuse("AccessDeniedException", f"This operation cannot be used on {key_id}, a key of another account")
    backend = backend_for(owner, region)
    if name.startswith("alias/"):
        if not alias:
            refuse("NotFoundException", f"Invalid keyId {key_id}")
        found = _aliased(backend, name)
        if found is None:
            arn = f"arn:{get_partition(region)}:kms:{region}:{owner}:{name}"
            refuse("NotFoundException", f"Alias {arn} is not found.")
        return found
    if name not in backend.keys:
        if not key_id.startswith("arn:") and not re.fullmatch(r"(mrk-)?[0-9a-fA-F-]{32,36}", name):
            refuse("NotFoundException", f"Invalid keyId '{key_id}'")
        arn = f"arn:{get_partition(region)}:kms:{region}:{owner}:key/{name}"
        refuse("NotFoundException", f"Key '{arn}' does not exist")
    return backend.keys[name]


def _aliased(backend: KmsBackend, name: str) -> Key | None:
    for key in list(backend.keys.values()):
        if name in key.aliases:
            return key
    return _aws_managed_key(backend, name) if name in RESERVED_ALIASES else None


def _aws_managed_key(backend: KmsBackend, alias: str) -> Key:
    """Return the key behind a predefined alias, created at its first use. Source: KMS, DescribeKey."""
    service = alias.removeprefix("alias/aws/")
    key = backend.create_key(
        policy=json.dumps(_aws_managed_policy(backend, service)),
        key_usage="ENCRYPT_DECRYPT",
        key_spec="SYMMETRIC_DEFAULT",
        description=f"Default key that protects the {service} data of this account when no other key is defined",
        tags=None,
        multi_region=False,
    )
    key.key_manager = "AWS"
    key.key_rotation_status = True
    backend.create_alias(key.id, alias)
    remember(backend)
    return key


def _aws_managed_policy(backend: KmsBackend, service: str) -> dict[str, Any]:
    root = f"arn:{backend.partition}:iam::{backend.account_id}:root"
    return {
        "Version": "2012-10-17",
        "Id": f"auto-{service}-1",
        "Statement": [
            {
                "Sid": f"Use by the account through {service}",
                "Effect": "Allow",
                "Principal": {"AWS": "*"},
                "Action": ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey*", "kms:CreateGrant", "kms:DescribeKey"],
                "Resource": "*",
                "Condition": {
                    "StringEquals": {
                        "kms:CallerAccount": backend.account_id,
                        "kms:ViaService": f"{service}.{backend.region_name}.amazonaws.com",
                    }
                },
            },
            {
                "Sid": "Reading of its metadata",
                "Effect": "Allow",
                "Principal": {"AWS": root},
                "Action": ["kms:Describe*", "kms:Get*", "kms:List*", "kms:RevokeGrant"],
                "Resource": "*",
            },
        ],
    }


def set_key_state(arn: str, state: str) -> None:
    """Put a key into a state that no call causes, such as Unavailable."""
    key = _key_with_arn(arn)
    key.key_state, key.enabled = state, state == ENABLED
    remember(backend_for(key.account_id, key.region))


def delete_key(arn: str) -> None:
    """Delete a key, as KMS does when its waiting period is over."""
    key = _key_with_arn(arn)
    backend = backend_for(key.account_id, key.region)
    backend.delete_key(key.id)
    remember(backend)


def _key_with_arn(arn: str) -> Key:
    parts = arn.split(":", 5)
    if len(parts) != 6:
        raise ValueError(f"{arn!r} is not the ARN of a key")
    try:
        return find_key(arn, parts[4], parts[3], alias=False)
    except JsonRESTError as error:
        raise ValueError(error.message) from None


class KeyResponse(KmsResponse):
    """moto's KMS without its gaps. Methods have moto's names of operations."""

    @property
    def _parameters(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body or "{}")
        return found

    @property
    def _caller(self) -> Principal:
        return principal_of(self.access_key, self.current_account, self.region)

    def call_action(self) -> TYPE_RESPONSE:
        """Check, execute, keep a view. Errors are handled here, because moto handles only those of its own methods."""
        action = self._get_action()
        account = self.current_account
        try:
            self._check(action)
        except JsonRESTError as error:
            return self._refusal(error)
        status, headers, body = super().call_action()
        if status < 400 and not action.startswith(("Get", "List", "Describe")):
            backends = {(self.current_account, self.region), (account, self.region)}
            for owner, region in backends:
                remember(backend_for(owner, region))
        return status, headers, body

    def _refusal(self, error: JsonRESTError) -> TYPE_RESPONSE:
        headers = dict(self.response_headers)
        headers.update({key.lower(): value for key, value in error.get_headers()})
        headers["status"] = "400"
        headers, body = self._enrich_response(headers, error.get_body())
        return 400, headers, body

    def _check(self, action: str) -> None:
        try:
            parameters = self._parameters
        except ValueError:
            refuse("SerializationException", "the request is not JSON")
        message = denied_by_the_organization(self.region, f"kms:{action}", self._caller.arn)
        if message:
            refuse("AccessDeniedException", message)
        operation = OPERATIONS.get(action)
        key: Key | None = None
        if operation is not None:
            named = parameters.get(operation.parameter)
            if named is None and action == "Decrypt":
                named = base64.b64decode(parameters["CiphertextBlob"])[:36].decode("ascii", "replace")
            if not isinstance(named, str) or not named:
                refuse("ValidationException", f"{operation.parameter} is required")
            key = self._named(named, operation)
            touch("AWS::KMS::Key", key.arn)
            self._check_policy(key, action, parameters)
            self._check_state(key, action, operation)
            # moto's own methods do not support all ways to name a key, so they get the bare key id.
            if operation.parameter in parameters:
                self.body = json.dumps({**parameters, operation.parameter: key.id})
            self.current_account = key.account_id
        if parameters.get("AliasName"):
            alias = parameters["AliasName"]
            partition = get_partition(self.region)
            if action == "DeleteAlias" and (aliased := _aliased(self.kms_backend, alias)) is not None:
                touch("AWS::KMS::Key", aliased.arn)
            touch("AWS::KMS::Alias", f"arn:{partition}:kms:{self.region}:{self.current_account}:{alias}")
        if parameters.get("DryRun") and action in _DRY_RUNS:
            refuse("DryRunOperationException", "The request would have succeeded, but the DryRun option is set.")

    def _named(self, named: str, operation: Operation) -> Key:
        own = f"arn:{get_partition(self.region)}:kms:{self.region}:{self.current_account}:"
        name = named.removeprefix(own)
        if KNOBS.stale_seconds > 0 and operation.alias and name.startswith("alias/") and name not in RESERVED_ALIASES:
            target = _as_read(self.kms_backend).aliases.get(name)
            if target is None:
                refuse("NotFoundException", f"Alias {own}{name} is not found.")
            named = target
        return find_key(named, self.current_account, self.region, alias=operation.alias, abroad=operation.abroad)

    def _check_state(self, key: Key, action: str, operation: Operation) -> None:
        if operation.symmetric and (key.key_spec != "SYMMETRIC_DEFAULT" or key.origin != "AWS_KMS"):
            refuse("UnsupportedOperationException", f"{key.arn} does not support automatic rotation")
        if action in _CRYPTOGRAPHIC and key.key_usage != "ENCRYPT_DECRYPT":
            refuse("InvalidKeyUsageException", f"{key.arn} key usage is {key.key_usage}")
        code = operation.refused.get(key.key_state)
        if code:
            names = {PENDING_DELETION: "pending deletion", PENDING_IMPORT: "pending import"}
            state = names.get(key.key_state, key.key_state.lower())
            if action == "CancelKeyDeletion":
                state = "not pending deletion"
            refuse(code, f"{key.arn} is {state}.")

    def _check_policy(self, key: Key, action: str, parameters: dict[str, Any]) -> None:
        request = key_request(self._caller, f"kms:{action}", parameters, self.kms_backend_tags(key))
        abroad = request.account != key.account_id
        if denied(key.policy, request) or (not abroad and not allowed(key.policy, request)):
            refuse(
                "AccessDeniedException",
                f"User: {self._caller.arn} is not authorized to perform: kms:{action} on resource: {key.arn} "
                "by the resource-based policy",
            )

    @staticmethod
    def kms_backend_tags(key: Key) -> dict[str, str]:
        """Return the tags of a live key."""
        tagger = backend_for(key.account_id, key.region).tagger
        return dict(tagger.get_tag_dict_for_resource(key.id))

    # Reads

    def _read(self) -> KeyView:
        view = _as_read(self.kms_backend)
        key_id = self._parameters["KeyId"]
        if key_id not in view.keys:
            partition = get_partition(self.region)
            arn = f"arn:{partition}:kms:{self.region}:{self.current_account}:key/{key_id}"
            refuse("NotFoundException", f"Key '{arn}' does not exist")
        return view.keys[key_id]

    def describe_key(self) -> str:
        """DescribeKey, which may be stale; `_check` resolves the key's name."""
        return json.dumps({"KeyMetadata": self._read().metadata})

    def get_key_policy(self) -> str:
        """GetKeyPolicy."""
        if self._parameters.get("PolicyName", "default") != "default":
            refuse("NotFoundException", "No such policy exists")
        return json.dumps({"Policy": self._read().policy, "PolicyName": "default"})

    def get_key_rotation_status(self) -> str:
        """GetKeyRotationStatus, with the period that moto omits."""
        view = self._read()
        answer: dict[str, Any] = {"KeyId": view.metadata["Arn"], "KeyRotationEnabled": view.rotation}
        if view.rotation:
            answer["RotationPeriodInDays"] = view.rotation_days
            answer["NextRotationDate"] = view.metadata["CreationDate"] + view.rotation_days * 86_400
        return json.dumps(answer)

    def list_resource_tags(self) -> str:
        """ListResourceTags, in pages."""
        tags = [{"TagKey": key, "TagValue": value} for key, value in self._read().tags.items()]
        return self._page("Tags", tags, 50)

    def list_keys(self) -> str:
        """ListKeys, in pages."""
        view = _as_read(self.kms_backend)
        found = [{"KeyId": key_id, "KeyArn": key.metadata["Arn"]} for key_id, key in view.keys.items()]
        return self._page("Keys", found, 100)

    def list_aliases(self) -> str:
        """ListAliases, in pages; a predefined alias has no key before its first use."""
        view = _as_read(self.kms_backend)
        wanted = self._parameters.get("KeyId")
        key_id = find_key(wanted, self.current_account, self.region, alias=False, abroad=False).id if wanted else None
        found: list[dict[str, str]] = []
        for name in sorted({*view.aliases, *RESERVED_ALIASES}):
            target = view.aliases.get(name)
            if key_id is not None and target != key_id:
                continue
            arn = f"arn:{get_partition(self.region)}:kms:{self.region}:{self.current_account}:{name}"
            found.append({"AliasName": name, "AliasArn": arn, **({"TargetKeyId": target} if target else {})})
        return self._page("Aliases", found, 50)

    def _page(self, name: str, found: list[Any], usual: int) -> str:
        limit = int(self._parameters.get("Limit") or usual)
        marker = self._parameters.get("Marker") or "0"
        if not marker.isdigit():
            refuse("InvalidMarkerException", f"Invalid marker {marker}")
        end = int(marker) + limit
        answer: dict[str, Any] = {name: found[int(marker) : end], "Truncated": end < len(found)}
        if end < len(found):
            answer["NextMarker"] = str(end)
        return json.dumps(answer)

    # Keys

    def create_key(self) -> str:
        """CreateKey: checks policy and tags before it creates the key."""
        parameters = self._parameters
        spec = parameters.get("KeySpec") or parameters.get("CustomerMasterKeySpec") or "SYMMETRIC_DEFAULT"
        usage = parameters.get("KeyUsage") or ("ENCRYPT_DECRYPT" if spec == "SYMMETRIC_DEFAULT" else None)
        if usage is None:
            refuse("ValidationException", f"You must specify a KeyUsage value for a key of spec {spec}")
        if spec == "SYMMETRIC_DEFAULT" and usage != "ENCRYPT_DECRYPT":
            refuse("ValidationException", f"KeyUsage {usage} is not compatible with KeySpec {spec}")
        tags = parameters.get("Tags") or []
        _check_tags(tags, already=set())
        policy = parameters.get("Policy")
        if policy is not None:
            self._check_new_policy(policy, {})
        origin = parameters.get("Origin") or "AWS_KMS"
        multi_region = bool(parameters.get("MultiRegion"))
        backend = self.kms_backend
        key = backend.create_key(policy, usage, spec, parameters.get("Description") or "", tags, multi_region, origin)
        if multi_region:
            _rename(backend, key, key.id.removeprefix("mrk-").replace("-", ""))
        if origin == "EXTERNAL":
            key.key_state, key.enabled = PENDING_IMPORT, False
        _extras(key)["principals"] = _principals(key.policy)
        touch("AWS::KMS::Key", key.arn)
        return json.dumps({"KeyMetadata": key.to_dict()["KeyMetadata"]})

    def enable_key(self) -> str:
        """EnableKey; on an Unavailable key it succeeds and changes nothing."""
        key = self._key()
        if key.key_state != UNAVAILABLE:
            key.key_state, key.enabled = ENABLED, True
        return "{}"

    def disable_key(self) -> str:
        """DisableKey."""
        key = self._key()
        if key.key_state != UNAVAILABLE:
            key.key_state, key.enabled = DISABLED, False
        return "{}"

    def cancel_key_deletion(self) -> str:
        """CancelKeyDeletion leaves the key Disabled."""
        key = self._key()
        key.key_state, key.enabled, key.deletion_date = DISABLED, False, None
        return json.dumps({"KeyId": key.arn})

    def schedule_key_deletion(self) -> str:
        """ScheduleKeyDeletion, after 7 to 30 days."""
        key = self._key()
        days = self._parameters.get("PendingWindowInDays", 30)
        if not isinstance(days, int) or not 7 <= days <= 30:
            refuse("ValidationException", f"PendingWindowInDays must be from 7 to 30, not {days}")
        date = self.kms_backend.schedule_key_deletion(key.id, days)
        answer = {"KeyId": key.arn, "DeletionDate": date, "KeyState": key.key_state, "PendingWindowInDays": days}
        return json.dumps(answer)

    def _key(self) -> Key:
        return self.kms_backend.keys[self._parameters["KeyId"]]

    # Grants

    def retire_grant(self) -> str:
        """RetireGrant, by the grant's token, or by its id and its key."""
        parameters = self._parameters
        named, token = parameters.get("KeyId"), parameters.get("GrantToken")
        if bool(token) == bool(named and parameters.get("GrantId")):
            refuse("ValidationException", "Give either the GrantToken, or the GrantId and the KeyId")
        key = find_key(named, self.current_account, self.region, alias=False) if named else self._key_granted(token)
        grant = next(
            (one for one in key.grants.values() if parameters.get("GrantId") == one.id or token == one.token), None
        )
        if grant is None:
            refuse("NotFoundException", "No such grant exists")
        touch("AWS::KMS::Key", key.arn)
        key.retire_grant(grant.id)
        return "{}"

    def _key_granted(self, token: object) -> Key:
        for key in list(self.kms_backend.keys.values()):
            if any(grant.token == token for grant in list(key.grants.values())):
                return key
        refuse("InvalidGrantTokenException", "The grant token is not valid")

    # Policy

    def put_key_policy(self) -> str:
        """PutKeyPolicy, with the checks of CreateKey; `PolicyName` is optional."""
        parameters = self._parameters
        if parameters.get("PolicyName", "default") != "default":
            refuse("ValidationException", "The policy name must be default")
        policy = parameters.get("Policy", "")
        key = self._key()
        self._check_new_policy(policy, self.kms_backend_tags(key))
        key.policy = policy
        _extras(key)["principals"] = _principals(policy)
        return "{}"

    def _check_new_policy(self, policy: str, tags: Mapping[str, str]) -> None:
        if len(policy.encode()) > POLICY_LIMIT_BYTES:
            refuse("LimitExceededException", "The key policy is longer than 32 KB")
        try:
            parsed = json.loads(policy)
        except ValueError:
            refuse("MalformedPolicyDocumentException", "The policy is not JSON")
        _check_form(parsed)
        if self._parameters.get("BypassPolicyLockoutSafetyCheck"):
            return
        again = Request(
            action="kms:PutKeyPolicy",
            account=self._caller.account,
            principal_arn=self._caller.policy_arn,
            session_arn=self._caller.arn,
            context=_context(self._caller, {}, tags),
        )
        if not self._may(policy, again):
            refuse(
                "MalformedPolicyDocumentException",
                "The new key policy will not allow you to update the key policy in the future.",
            )

    def _may(self, policy: str, request: Request) -> bool:
        """Whether the key policy allows the request and, if it delegates to IAM, the caller's own permissions do, too.

        A role without permissions in the sandbox may do everything.
        """
        if not allowed(policy, request):
            return False
        rights = policies_of(self._caller)
        return not rights or allowed(policy, replace(request, account="")) or granted(rights, request)

    # Rotation

    def enable_key_rotation(self) -> str:
        """EnableKeyRotation, every 90 to 2560 days."""
        days = self._parameters.get("RotationPeriodInDays", 365)
        if not isinstance(days, int) or not 90 <= days <= 2560:
            refuse("ValidationException", f"RotationPeriodInDays must be from 90 to 2560, not {days}")
        key = self._key()
        key.key_rotation_status = True
        _extras(key)["rotation_days"] = days
        return "{}"

    # Tags

    def tag_resource(self) -> str:
        """TagResource."""
        key = self._key()
        tags = self._parameters.get("Tags") or []
        _check_tags(tags, already=set(self.kms_backend_tags(key)))
        self.kms_backend.tag_resource(key.id, {each["TagKey"]: each.get("TagValue", "") for each in tags})
        return "{}"

    # Aliases

    def _set_alias(self, update: bool = False) -> str:
        name = self._parameters.get("AliasName") or ""
        if not re.fullmatch(r"alias/[a-zA-Z0-9/_-]{1,250}", name):
            refuse("ValidationException", f"{name} is not the name of an alias")
        if name.startswith("alias/aws/"):
            refuse("NotAuthorizedException", "Aliases that begin with alias/aws/ belong to AWS")
        backend = self.kms_backend
        key = backend.keys[self._parameters["TargetKeyId"]]
        former = _aliased(backend, name)
        arn = f"arn:{get_partition(self.region)}:kms:{self.region}:{self.current_account}:{name}"
        if update:
            if former is None:
                refuse("NotFoundException", f"Alias {arn} is not found.")
            if (former.key_spec == "SYMMETRIC_DEFAULT") != (key.key_spec == "SYMMETRIC_DEFAULT"):
                refuse("ValidationException", "The former and the new key must be of one type")
            backend.update_alias(key.id, name)
        else:
            if former is not None:
                refuse("AlreadyExistsException", f"An alias with the name {arn} already exists")
            backend.create_alias(key.id, name)
        return "{}"

    def delete_alias(self) -> str:
        """DeleteAlias; refuses AWS's own aliases."""
        if (self._parameters.get("AliasName") or "").startswith("alias/aws/"):
            refuse("NotAuthorizedException", "Aliases that begin with alias/aws/ belong to AWS")
        return super().delete_alias()


def key_request(
    caller: Principal, action: str, parameters: Mapping[str, Any], tags: Mapping[str, str], via: str = ""
) -> Request:
    """Return a KMS call as the key's policy sees it. `via` is the service through which it comes."""
    return Request(
        action=action,
        account=caller.account,
        principal_arn=caller.policy_arn,
        session_arn=caller.arn,
        context=_context(caller, parameters, tags, via),
    )


def _context(
    caller: Principal, parameters: Mapping[str, Any], tags: Mapping[str, str], via: str = ""
) -> dict[str, list[str]]:
    context = {
        "aws:principalarn": [caller.policy_arn],
        "aws:principalaccount": [caller.account],
        "aws:principaltype": ["AssumedRole" if caller.role_arn else "User"],
        "aws:principalisawsservice": ["false"],
        "aws:viaawsservice": ["true" if via else "false"],
        "kms:calleraccount": [caller.account],
        "kms:grantisforawsresource": ["true" if via else "false"],
        **({"kms:viaservice": [via]} if via else {}),
        **{f"aws:resourcetag/{key.lower()}": [value] for key, value in tags.items()},
    }
    requested = parameters.get("Tags") or []
    keys = [each["TagKey"] for each in requested if isinstance(each, dict) and "TagKey" in each]
    keys += [each for each in parameters.get("TagKeys") or [] if isinstance(each, str)]
    if keys:
        context["aws:tagkeys"] = keys
    for each in requested:
        if isinstance(each, dict) and "TagKey" in each:
            context[f"aws:requesttag/{each['TagKey'].lower()}"] = [each.get("TagValue", "")]
    if parameters.get("BypassPolicyLockoutSafetyCheck") is not None:
        context["kms:bypasspolicylockoutsafetycheck"] = [str(parameters["BypassPolicyLockoutSafetyCheck"]).lower()]
    return context


def _rename(backend: KmsBackend, key: Key, hexadecimal: str) -> None:
    """Give a multi-Region key an id in AWS's format: `mrk-` and 32 digits without dashes."""
    former = key.id
    tags = backend.tagger.get_tag_dict_for_resource(former)
    backend.keys.pop(former)
    key.id = f"mrk-{hexadecimal}"
    key.arn = key.arn.replace(former, key.id)
    key.multi_region_configuration["PrimaryKey"]["Arn"] = key.arn
    backend.keys[key.id] = key
    backend.tagger.delete_all_tags_for_resource(former)
    backend.tag_resource(key.id, tags)


def _check_tags(tags: list[dict[str, str]], already: set[str]) -> None:
    names = [each.get("TagKey", "") for each in tags]
    if len(set(names)) != len(names):
        refuse("TagException", "The same tag key stands twice")
    if len({*names, *already}) > 50:
        refuse("TagException", "A key holds at most 50 tags")
    for each in tags:
        name, value = each.get("TagKey", ""), each.get("TagValue", "")
        if not 1 <= len(name) <= 128 or len(value) > 256 or name.lower().startswith("aws:"):
            refuse("TagException", f"The tag {name!r} is not valid")
        if not all(each.isalnum() or each in " _.:/=+-@" for each in name + value):
            refuse("TagException", f"The tag {name!r} holds characters that tags may not hold")


def _check_form(policy: Any) -> None:
    """Refuse what KMS would not accept as a policy. Source: KMS, PutKeyPolicy; IAM, policy grammar."""

    def malformed(why: str) -> NoReturn:
        refuse("MalformedPolicyDocumentException", why)

    if not isinstance(policy, dict):
        malformed("The policy is not an object")
    statements = as_list(policy.get("Statement", []))
    if not statements:
        malformed("The policy has no statements")
    if policy.get("Version", "2012-10-17") not in ("2012-10-17", "2008-10-17"):
        malformed("The policy's version is not known")
    sids = [each["Sid"] for each in statements if isinstance(each, dict) and each.get("Sid")]
    if len(set(sids)) != len(sids):
        malformed("Two statements have the same Sid")
    for statement in statements:
        if not isinstance(statement, dict):
            malformed("A statement is not an object")
        if statement.get("Effect") not in ("Allow", "Deny"):
            malformed("A statement has no Effect")
        if ("Action" in statement) == ("NotAction" in statement):
            malformed("A statement needs Action or NotAction")
        for action in as_list(statement.get("Action", statement.get("NotAction"))):
            if not isinstance(action, str) or not (action == "*" or re.fullmatch(r"kms:[A-Za-z*?]+", action)):
                malformed("A statement has an action that is none of KMS's")
        if "Resource" not in statement and "NotResource" not in statement:
            malformed("A statement has no Resource")
        if ("Principal" in statement) == ("NotPrincipal" in statement):
            malformed("A statement needs a Principal")
        if not isinstance(statement.get("Condition", {}), dict):
            malformed("A statement's Condition is not an object")
        _check_principal(statement.get("Principal", statement.get("NotPrincipal")), malformed)


def _check_principal(principal: Any, malformed: Any) -> None:
    if principal == "*":
        return
    if not isinstance(principal, dict) or not principal:
        malformed("A statement's Principal is not valid")
    for kind, values in principal.items():
        for value in as_list(values):
            if not isinstance(value, str) or not _principal_exists(kind, value):
                malformed("Policy contains a statement with one or more invalid principals.")


def _principal_exists(kind: str, value: str) -> bool:
    if kind == "Service":
        return re.fullmatch(r"[a-z0-9.-]+\.amazonaws\.com(\.cn)?", value) is not None
    if kind == "Federated":
        return True
    if kind != "AWS":
        return False
    if value == "*" or re.fullmatch(r"\d{12}", value):
        return True
    parts = value.split(":", 5)
    if len(parts) != 6 or not parts[1].startswith("aws") or not re.fullmatch(r"\d{12}", parts[4]):
        return False
    if parts[2] == "sts" and parts[5].startswith("assumed-role/"):
        role = parts[5].split("/")[1]
        return role_with_arn(f"arn:{parts[1]}:iam::{parts[4]}:role/{role}") is not None
    return parts[2] == "iam" and (parts[5] == "root" or _entity(value) is not None)


def _principals(policy: str) -> dict[str, str]:
    """Return the roles and users that the policy names, with their unique ids."""
    found: dict[str, str] = {}
    for statement in statements_of(policy):
        principal = statement.get("Principal")
        for value in as_list(principal.get("AWS", [])) if isinstance(principal, dict) else []:
            entity = _entity(value) if isinstance(value, str) else None
            if entity is not None:
                found[value] = entity["id"]
    return found
