"""X-Ray's setting: what the guard rests on, held by every stand-in alike."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.contract.places import Place


def settled(aws: Place) -> dict[str, Any]:
    until = time.monotonic() + aws.patience_seconds
    while True:
        answer: dict[str, Any] = aws.xray.get_encryption_config()["EncryptionConfig"]
        if answer["Status"] == "ACTIVE" or time.monotonic() > until:
            return answer
        time.sleep(0.05)


def test_a_put_by_alias_answers_updating_with_the_arn_of_the_key_and_becomes_active(aws: Place) -> None:
    key, alias = aws.key(), f"alias/contract-{uuid.uuid4().hex[:8]}"
    aws.kms.create_alias(AliasName=alias, TargetKeyId=key)
    try:
        put = aws.xray.put_encryption_config(Type="KMS", KeyId=alias)["EncryptionConfig"]
        assert put == {"Type": "KMS", "KeyId": key, "Status": "UPDATING"}
        assert settled(aws) == {"Type": "KMS", "KeyId": key, "Status": "ACTIVE"}
    finally:
        aws.xray.put_encryption_config(Type="NONE")
        aws.kms.delete_alias(AliasName=alias)


def test_a_bare_key_id_is_resolved_to_the_key_arn(aws: Place) -> None:
    key = aws.key()
    aws.xray.put_encryption_config(Type="KMS", KeyId=key.rsplit("/", 1)[-1])
    assert settled(aws)["KeyId"] == key


def test_none_carries_no_key(aws: Place) -> None:
    aws.xray.put_encryption_config(Type="KMS", KeyId=aws.key())
    aws.xray.put_encryption_config(Type="NONE")
    assert settled(aws) == {"Type": "NONE", "Status": "ACTIVE"}


def test_the_alias_of_the_aws_managed_key_resolves_to_a_key_that_aws_manages(aws: Place) -> None:
    put = aws.xray.put_encryption_config(Type="KMS", KeyId="alias/aws/xray")["EncryptionConfig"]
    key = aws.kms.describe_key(KeyId=put["KeyId"])["KeyMetadata"]
    assert (key["KeyManager"], key["KeyState"]) == ("AWS", "Enabled")


def refused(aws: Place, key: str) -> str:
    before = settled(aws)
    with pytest.raises(ClientError) as caught:
        aws.xray.put_encryption_config(Type="KMS", KeyId=key)
    assert settled(aws) == before
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return str(caught.value.response["Error"]["Code"])


def test_an_alias_that_is_not_there_is_refused_and_changes_nothing(aws: Place) -> None:
    assert refused(aws, "alias/contract-not-there") == "InvalidRequestException"


def test_a_key_that_is_not_there_is_refused_and_changes_nothing(aws: Place) -> None:
    assert refused(aws, str(uuid.uuid4())) == "InvalidRequestException"


def test_a_disabled_key_is_refused_and_changes_nothing(aws: Place) -> None:
    key = aws.key()
    aws.kms.disable_key(KeyId=key)
    assert refused(aws, key) == "InvalidRequestException"


def test_a_key_pending_deletion_is_refused_and_changes_nothing(aws: Place) -> None:
    key = aws.key()
    aws.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert refused(aws, key) == "InvalidRequestException"


def test_an_asymmetric_key_is_refused_and_changes_nothing(aws: Place) -> None:
    key = aws.key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
    assert refused(aws, key) == "InvalidRequestException"


def test_the_setting_stays_when_its_key_becomes_unusable(aws: Place) -> None:
    key = aws.key()
    aws.xray.put_encryption_config(Type="KMS", KeyId=key)
    settled(aws)
    aws.kms.disable_key(KeyId=key)
    assert settled(aws) == {"Type": "KMS", "KeyId": key, "Status": "ACTIVE"}
