"""KMS as the guard uses it: states, policies, rotation, tags and aliases, held by every stand-in alike."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.contract.places import Place


def code_of(call: Callable[..., Any], **parameters: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return str(caught.value.response["Error"]["Code"])


def root_of(key: str) -> str:
    _, partition, _, _, account, _ = key.split(":", 5)
    return f"arn:{partition}:iam::{account}:root"


def policy_for(key: str, *more: dict[str, Any], root: bool = True) -> str:
    administer = {"Effect": "Allow", "Principal": {"AWS": root_of(key)}, "Action": "kms:*", "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [*([administer] if root else []), *more]})


def test_a_new_key_tells_all_that_is_asked_of_a_key(aws: Place) -> None:
    answer = aws.kms.describe_key(KeyId=aws.key())["KeyMetadata"]
    assert {
        name: answer[name] for name in ("KeyUsage", "KeySpec", "KeyState", "KeyManager", "Origin", "MultiRegion")
    } == {
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "KeyState": "Enabled",
        "KeyManager": "CUSTOMER",
        "Origin": "AWS_KMS",
        "MultiRegion": False,
    }


def test_tags_given_at_creation_are_on_the_key(aws: Place) -> None:
    key = aws.key(Tags=[{"TagKey": "xray-guard", "TagValue": "managed"}])
    assert aws.kms.list_resource_tags(KeyId=key)["Tags"] == [{"TagKey": "xray-guard", "TagValue": "managed"}]


def test_disabling_and_enabling_take_the_arn_and_show_in_the_state(aws: Place) -> None:
    key = aws.key()
    aws.kms.disable_key(KeyId=key)
    assert aws.state(key) == "Disabled"
    aws.kms.enable_key(KeyId=key)
    assert aws.state(key) == "Enabled"


def test_cancelling_a_deletion_leaves_the_key_disabled(aws: Place) -> None:
    key = aws.key()
    aws.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert aws.kms.cancel_key_deletion(KeyId=key)["KeyId"] == key
    assert aws.state(key) == "Disabled"


def test_a_key_pending_deletion_can_be_neither_enabled_tagged_aliased_nor_rotated(aws: Place) -> None:
    key = aws.key()
    aws.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    kms, tag = aws.kms, {"TagKey": "a", "TagValue": "b"}
    codes = {
        "EnableKey": code_of(kms.enable_key, KeyId=key),
        "TagResource": code_of(kms.tag_resource, KeyId=key, Tags=[tag]),
        "CreateAlias": code_of(kms.create_alias, AliasName=f"alias/contract-{uuid.uuid4().hex}", TargetKeyId=key),
        "EnableKeyRotation": code_of(kms.enable_key_rotation, KeyId=key),
        "ScheduleKeyDeletion": code_of(kms.schedule_key_deletion, KeyId=key, PendingWindowInDays=7),
    }
    assert set(codes.values()) == {"KMSInvalidStateException"}, codes
    assert aws.state(key) == "PendingDeletion"


def test_a_deletion_that_is_not_pending_cannot_be_cancelled(aws: Place) -> None:
    assert code_of(aws.kms.cancel_key_deletion, KeyId=aws.key()) == "KMSInvalidStateException"


def test_rotation_keeps_its_period(aws: Place) -> None:
    key = aws.key()
    assert aws.kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"] is False
    aws.kms.enable_key_rotation(KeyId=key, RotationPeriodInDays=180)
    answer = aws.kms.get_key_rotation_status(KeyId=key)
    assert (answer["KeyRotationEnabled"], answer["RotationPeriodInDays"]) == (True, 180)


def test_a_rotation_period_beyond_its_bound_is_refused(aws: Place) -> None:
    assert code_of(aws.kms.enable_key_rotation, KeyId=aws.key(), RotationPeriodInDays=2561) == "ValidationException"


def test_a_disabled_key_cannot_be_rotated(aws: Place) -> None:
    key = aws.key()
    aws.kms.disable_key(KeyId=key)
    assert code_of(aws.kms.enable_key_rotation, KeyId=key) == "DisabledException"


def test_an_asymmetric_key_cannot_be_rotated(aws: Place) -> None:
    key = aws.key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
    assert code_of(aws.kms.enable_key_rotation, KeyId=key) == "UnsupportedOperationException"


@pytest.mark.parametrize(
    "policy",
    [
        "{",
        "[]",
        '{"Version": "2012-10-17", "Statement": []}',
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*"}]}',
    ],
    ids=["no JSON", "no object", "no statements", "no principal"],
)
def test_what_is_no_policy_is_malformed_and_the_former_stays(aws: Place, policy: str) -> None:
    key = aws.key()
    before = aws.kms.get_key_policy(KeyId=key)["Policy"]
    code = code_of(aws.kms.put_key_policy, KeyId=key, PolicyName="default", Policy=policy)
    assert code == "MalformedPolicyDocumentException"
    assert aws.kms.get_key_policy(KeyId=key)["Policy"] == before


def test_a_policy_that_names_a_role_that_does_not_exist_is_malformed(aws: Place) -> None:
    key = aws.key()
    nobody = {"AWS": root_of(key).replace(":root", ":role/contract-not-there")}
    statement = {"Effect": "Allow", "Principal": nobody, "Action": "kms:Decrypt", "Resource": "*"}
    code = code_of(aws.kms.put_key_policy, KeyId=key, Policy=policy_for(key, statement))
    assert code == "MalformedPolicyDocumentException"


def test_a_policy_that_locks_its_writer_out_is_malformed(aws: Place) -> None:
    key = aws.key()
    service = {"Service": "xray.amazonaws.com"}
    statement = {"Effect": "Allow", "Principal": service, "Action": "kms:Decrypt", "Resource": "*"}
    code = code_of(aws.kms.put_key_policy, KeyId=key, Policy=policy_for(key, statement, root=False))
    assert code == "MalformedPolicyDocumentException"


def test_a_policy_of_more_than_32_kilobytes_is_over_the_limit(aws: Place) -> None:
    key = aws.key()
    statements = [
        {"Sid": f"s{number}", "Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*"}
        for number in range(500)
    ]
    code = code_of(aws.kms.put_key_policy, KeyId=key, Policy=policy_for(key, *statements))
    assert code == "LimitExceededException"


def test_a_second_alias_of_the_same_name_already_exists_and_the_first_stays(aws: Place) -> None:
    first, second, alias = aws.key(), aws.key(), f"alias/contract-{uuid.uuid4().hex[:8]}"
    aws.kms.create_alias(AliasName=alias, TargetKeyId=first)
    assert code_of(aws.kms.create_alias, AliasName=alias, TargetKeyId=second) == "AlreadyExistsException"
    assert aws.kms.describe_key(KeyId=alias)["KeyMetadata"]["Arn"] == first
    aws.kms.update_alias(AliasName=alias, TargetKeyId=second)
    assert aws.kms.describe_key(KeyId=alias)["KeyMetadata"]["Arn"] == second
    aws.kms.delete_alias(AliasName=alias)


def test_an_alias_names_no_key_for_calls_that_change_one(aws: Place) -> None:
    key, alias = aws.key(), f"alias/contract-{uuid.uuid4().hex[:8]}"
    aws.kms.create_alias(AliasName=alias, TargetKeyId=key)
    kms = aws.kms
    codes = {
        code_of(kms.enable_key, KeyId=alias),
        code_of(kms.tag_resource, KeyId=alias, Tags=[{"TagKey": "a", "TagValue": "b"}]),
        code_of(kms.put_key_policy, KeyId=alias, Policy=policy_for(key)),
        code_of(kms.enable_key_rotation, KeyId=alias),
    }
    assert codes == {"NotFoundException"}
    aws.kms.delete_alias(AliasName=alias)


def test_a_dry_run_says_that_it_would_have_succeeded_and_does_nothing(aws: Place) -> None:
    key = aws.key()
    grant = {"GranteePrincipal": root_of(key), "Operations": ["Decrypt"]}
    assert code_of(aws.kms.create_grant, KeyId=key, DryRun=True, **grant) == "DryRunOperationException"
    assert aws.kms.list_grants(KeyId=key)["Grants"] == []


def test_a_disabled_key_encrypts_nothing(aws: Place) -> None:
    key = aws.key()
    aws.kms.disable_key(KeyId=key)
    assert code_of(aws.kms.generate_data_key, KeyId=key, KeySpec="AES_256") == "DisabledException"


def test_a_multi_region_key_has_an_id_that_is_no_uuid(aws: Place) -> None:
    key = aws.key(MultiRegion=True)
    assert key.rsplit("/", 1)[-1].startswith("mrk-")
    assert aws.kms.describe_key(KeyId=key.rsplit("/", 1)[-1])["KeyMetadata"]["MultiRegion"] is True
