"""KMS over boto3. https://docs.aws.amazon.com/kms/latest/APIReference/Welcome.html"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from chalicelib.aws.clients import Clients, call, request_id
from chalicelib.aws.paging import pages
from chalicelib.aws.threads import Threads
from chalicelib.domain.errors import DENIED, AwsError
from chalicelib.domain.model import Key, arn_part
from chalicelib.domain.ports import Gather

Tags = tuple[tuple[str, str], ...]


class KeysApi:
    """`ports.Keys` for one Region. `gather` performs the reads of a search in parallel."""

    def __init__(self, clients: Clients, region: str, gather: Gather | None = None) -> None:
        self._clients = clients
        self._region = region
        self._gather = gather or Threads()

    def describe(self, key: str) -> Key | None:
        """DescribeKey, by ARN, id or alias; None if KMS has no such key."""
        try:
            answer = self._read("DescribeKey", KeyId=key)
        except AwsError as error:
            if error.code == "NotFoundException":
                return None
            raise
        return _key(answer["KeyMetadata"])

    def policy(self, key_arn: str) -> str:
        """GetKeyPolicy of `default`, the only policy a key has."""
        return str(self._read("GetKeyPolicy", KeyId=key_arn, PolicyName="default")["Policy"])

    def rotation(self, key_arn: str) -> tuple[bool, int | None]:
        """GetKeyRotationStatus."""
        answer = self._read("GetKeyRotationStatus", KeyId=key_arn)
        return bool(answer["KeyRotationEnabled"]), answer.get("RotationPeriodInDays")

    def tags(self, key_arn: str) -> Tags:
        """ListResourceTags, every page."""
        found: list[tuple[str, str]] = []
        for response in self._pages("ListResourceTags", KeyId=key_arn):
            found += [(tag["TagKey"], tag["TagValue"]) for tag in response["Tags"]]
        return tuple(found)

    def find_by_tag(self, tag_key: str, tag_value: str, made_after: datetime) -> str | None:
        """Return the ARN of the customer key with this tag that was created after `made_after`, or None.

        Needed only after a lost CreateKey. It reads every page of ListKeys, and the keys of one page in parallel:
        DescribeKey of each, ListResourceTags of those that are new enough. KMS allows 2,000 requests per second for
        each: https://docs.aws.amazon.com/kms/latest/developerguide/requests-per-second.html

        It skips a key that the guard may not read. It raises the error of every other failed read, because such a read
        does not show that the key is absent.
        """
        for response in self._pages("ListKeys"):
            arns = [str(entry["KeyArn"]) for entry in response["Keys"]]
            reads = [partial(self._is_made, arn, (tag_key, tag_value), made_after) for arn in arns]
            found = [arn for arn, is_made in zip(arns, self._gather(reads), strict=True) if is_made]
            if found:
                return found[0]
        return None

    def _is_made(self, key_arn: str, tag: tuple[str, str], after: datetime) -> bool:
        try:
            key = self.describe(key_arn)
            if key is None or key.manager != "CUSTOMER" or (key.made_at is not None and key.made_at < after):
                return False
            return tag in self.tags(key_arn)
        except AwsError as error:
            # A key that the guard may not read cannot be the one that it created.
            if error.code in DENIED or error.code == "NotFoundException":
                return False
            raise

    def create(self, description: str, policy: str | None, tags: Sequence[tuple[str, str]]) -> tuple[Key, str | None]:
        """CreateKey, sent once: it has no client token, so a retry would create a second key.

        For a policy of ours, KMS's lock-out safety check is bypassed. It checks if the caller may put the next policy;
        the guard's role may do so only because of tags that the check may not see. Our policy always has the root's
        statement, so nobody is locked out. https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateKey.html
        """
        given = {} if policy is None else {"Policy": policy, "BypassPolicyLockoutSafetyCheck": True}
        answer = self._mutate(
            "CreateKey",
            Description=description,
            **given,
            Tags=[{"TagKey": key, "TagValue": value} for key, value in tags],
        )
        return _key(answer["KeyMetadata"]), request_id(answer)

    def put_policy(self, key_arn: str, policy: str) -> str | None:
        """PutKeyPolicy, with KMS's lock-out safety check."""
        return request_id(self._mutate("PutKeyPolicy", KeyId=key_arn, PolicyName="default", Policy=policy))

    def enable(self, key_arn: str) -> str | None:
        """EnableKey."""
        return request_id(self._mutate("EnableKey", KeyId=key_arn))

    def cancel_deletion(self, key_arn: str) -> str | None:
        """CancelKeyDeletion."""
        return request_id(self._mutate("CancelKeyDeletion", KeyId=key_arn))

    def enable_rotation(self, key_arn: str, days: int) -> str | None:
        """EnableKeyRotation."""
        return request_id(self._mutate("EnableKeyRotation", KeyId=key_arn, RotationPeriodInDays=days))

    def create_alias(self, alias: str, key_arn: str) -> str | None:
        """CreateAlias."""
        return request_id(self._mutate("CreateAlias", AliasName=alias, TargetKeyId=key_arn))

    def update_alias(self, alias: str, key_arn: str) -> str | None:
        """UpdateAlias."""
        return request_id(self._mutate("UpdateAlias", AliasName=alias, TargetKeyId=key_arn))

    def _read(self, operation: str, **parameters: Any) -> dict[str, Any]:
        return _kms(self._clients.reading("kms", self._region), operation, parameters)

    def _pages(self, operation: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        send = getattr(self._clients.reading("kms", self._region), METHODS[operation])
        return pages(f"kms:{operation}", send, {"Marker": "NextMarker"}, "Truncated", **parameters)

    def _mutate(self, operation: str, **parameters: Any) -> dict[str, Any]:
        return _kms(self._clients.mutating("kms", self._region), operation, parameters)


METHODS = {
    "DescribeKey": "describe_key",
    "GetKeyPolicy": "get_key_policy",
    "GetKeyRotationStatus": "get_key_rotation_status",
    "ListResourceTags": "list_resource_tags",
    "ListKeys": "list_keys",
    "CreateKey": "create_key",
    "PutKeyPolicy": "put_key_policy",
    "EnableKey": "enable_key",
    "CancelKeyDeletion": "cancel_key_deletion",
    "EnableKeyRotation": "enable_key_rotation",
    "CreateAlias": "create_alias",
    "UpdateAlias": "update_alias",
}


def _kms(client: Any, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return call(f"kms:{operation}", getattr(client, METHODS[operation]), **parameters)


def _key(metadata: dict[str, Any]) -> Key:
    arn = metadata["Arn"]
    return Key(
        arn=arn,
        account=metadata.get("AWSAccountId") or arn_part(arn, 4),
        region=arn_part(arn, 3),
        state=metadata["KeyState"],
        spec=metadata.get("KeySpec") or "UNKNOWN",
        usage=metadata.get("KeyUsage") or "UNKNOWN",
        manager=metadata.get("KeyManager") or "UNKNOWN",
        origin=metadata.get("Origin") or "UNKNOWN",
        is_replica=(metadata.get("MultiRegionConfiguration") or {}).get("MultiRegionKeyType") == "REPLICA",
        description=metadata.get("Description") or "",
        made_at=metadata.get("CreationDate"),
    )
