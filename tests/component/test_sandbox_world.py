"""The sandbox's AWS: accounts and Regions apart, stale reads, key policies that deny, faults, and harm that shows."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from sandbox.__main__ import main
from sandbox.server import Sandbox

ONE_ATTEMPT = Config(retries={"total_max_attempts": 1})


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def put(sandbox: Sandbox, key: str) -> None:
    sandbox.client("xray").put_encryption_config(Type="KMS", KeyId=key)


def test_the_setting_is_one_for_each_account_and_region(sandbox: Sandbox) -> None:
    key = sandbox.client("kms").create_key()["KeyMetadata"]["Arn"]
    put(sandbox, key)
    kinds = {
        where: sandbox.client("xray", *where).get_encryption_config()["EncryptionConfig"]["Type"]
        for where in [("us-east-1", None), ("eu-west-1", None), ("us-east-1", "444455556666")]
    }
    assert list(kinds.values()) == ["KMS", "NONE", "NONE"]


def test_a_key_of_another_account_can_be_used_by_its_arn(sandbox: Sandbox) -> None:
    foreign = sandbox.client("kms", account="444455556666").create_key()["KeyMetadata"]["Arn"]
    assert foreign.split(":")[4] == "444455556666"
    put(sandbox, foreign)
    shown = sandbox.client("xray").get_encryption_config()["EncryptionConfig"]
    assert shown["KeyId"] == foreign
    assert sandbox.client("kms").describe_key(KeyId=foreign)["KeyMetadata"]["AWSAccountId"] == "444455556666"
    with pytest.raises(ClientError) as caught:
        sandbox.client("kms").get_key_policy(KeyId=foreign)
    assert code_of(caught) == "AccessDeniedException"


def test_a_key_of_another_region_cannot(sandbox: Sandbox) -> None:
    elsewhere = sandbox.client("kms", "eu-west-1").create_key()["KeyMetadata"]["Arn"]
    with pytest.raises(ClientError) as caught:
        put(sandbox, elsewhere)
    assert code_of(caught) == "InvalidRequestException"


def test_the_setting_is_updating_for_as_long_as_asked(sandbox: Sandbox) -> None:
    sandbox.turn(settle_seconds=0.4)
    xray = sandbox.client("xray")
    xray.put_encryption_config(Type="NONE")
    assert xray.get_encryption_config()["EncryptionConfig"]["Status"] == "UPDATING"
    time.sleep(0.5)
    assert xray.get_encryption_config()["EncryptionConfig"]["Status"] == "ACTIVE"


def test_harm_shows_no_trace_is_stored_while_the_key_cannot_be_used(sandbox: Sandbox) -> None:
    kms = sandbox.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    put(sandbox, key)
    assert sandbox.storing_traces()
    kms.disable_key(KeyId=key)
    assert not sandbox.storing_traces()
    kms.enable_key(KeyId=key)
    assert sandbox.storing_traces()
    sandbox.set_key_state(key, "Unavailable")
    assert not sandbox.storing_traces()
    kms.enable_key(KeyId=key)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Unavailable"


def test_harm_shows_a_deny_that_bars_xray_stops_the_storing(sandbox: Sandbox) -> None:
    kms = sandbox.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    put(sandbox, key)
    policy = json.loads(kms.get_key_policy(KeyId=key)["Policy"])
    xray = {"Service": "xray.amazonaws.com"}
    policy["Statement"].append({"Effect": "Deny", "Principal": xray, "Action": "kms:Decrypt", "Resource": "*"})
    kms.put_key_policy(KeyId=key, Policy=json.dumps(policy))
    assert not sandbox.storing_traces()


def test_stale_reads_tell_what_was_and_writes_take_effect_at_once(sandbox: Sandbox) -> None:
    kms = sandbox.client("kms", config=ONE_ATTEMPT)
    former = kms.create_key()["KeyMetadata"]["Arn"]
    kms.create_alias(AliasName="alias/x", TargetKeyId=former)
    time.sleep(0.3)
    sandbox.turn(stale_seconds=0.25)
    made = kms.create_key(Tags=[{"TagKey": "a", "TagValue": "b"}])["KeyMetadata"]["Arn"]
    kms.disable_key(KeyId=former)
    kms.update_alias(AliasName="alias/x", TargetKeyId=made)
    for read in (kms.describe_key, kms.list_resource_tags, kms.get_key_policy):
        with pytest.raises(ClientError) as caught:
            read(KeyId=made)
        assert code_of(caught) == "NotFoundException"
    assert [each["KeyArn"] for each in kms.list_keys()["Keys"]] == [former]
    shown = kms.describe_key(KeyId="alias/x")["KeyMetadata"]
    assert (shown["Arn"], shown["KeyState"]) == (former, "Enabled")
    time.sleep(0.3)
    assert kms.describe_key(KeyId="alias/x")["KeyMetadata"]["Arn"] == made
    assert kms.describe_key(KeyId=former)["KeyMetadata"]["KeyState"] == "Disabled"


def with_deny(sandbox: Sandbox, key: str, deny: dict[str, Any]) -> None:
    kms = sandbox.client("kms")
    policy = json.loads(kms.get_key_policy(KeyId=key)["Policy"])
    policy["Statement"].append({"Sid": "deny", "Effect": "Deny", "Principal": "*", "Resource": "*", **deny})
    kms.put_key_policy(KeyId=key, Policy=json.dumps(policy))


def test_a_key_policy_denies_a_tag_to_all_but_those_it_names(sandbox: Sandbox) -> None:
    key = sandbox.client("kms").create_key()["KeyMetadata"]["Arn"]
    glass = "arn:aws:iam::123456789012:role/SecurityBreakGlass"
    deny = {
        "Action": ["kms:TagResource", "kms:UntagResource"],
        "Condition": {
            "ForAnyValue:StringEquals": {"aws:TagKeys": "break-glass"},
            "ArnNotLike": {"aws:PrincipalArn": "arn:*:iam::*:role/SecurityBreakGlass"},
        },
    }
    with_deny(sandbox, key, deny)
    tags = [{"TagKey": "break-glass", "TagValue": "20261120T180000Z INC-1"}]
    with pytest.raises(ClientError) as caught:
        sandbox.client("kms").tag_resource(KeyId=key, Tags=tags)
    assert code_of(caught) == "AccessDeniedException"
    sandbox.client("kms").tag_resource(KeyId=key, Tags=[{"TagKey": "other", "TagValue": "fine"}])
    sandbox.client("kms", role=glass).tag_resource(KeyId=key, Tags=tags)
    shown = {each["TagKey"] for each in sandbox.client("kms").list_resource_tags(KeyId=key)["Tags"]}
    assert shown == {"break-glass", "other"}


def test_a_deny_for_another_service_keeps_nobody_from_describing_the_key(sandbox: Sandbox) -> None:
    key = sandbox.client("kms").create_key()["KeyMetadata"]["Arn"]
    with_deny(sandbox, key, {"Action": "kms:*", "Principal": {"Service": "ec2.amazonaws.com"}})
    assert sandbox.client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Enabled"


def test_the_statement_of_a_deleted_role_names_its_unique_id_which_no_new_policy_may(sandbox: Sandbox) -> None:
    iam, kms = sandbox.client("iam"), sandbox.client("kms")
    role = iam.create_role(RoleName="Reader", AssumeRolePolicyDocument="{}")["Role"]
    key = kms.create_key()["KeyMetadata"]["Arn"]
    policy = json.loads(kms.get_key_policy(KeyId=key)["Policy"])
    reader = {"Effect": "Allow", "Principal": {"AWS": role["Arn"]}, "Action": "kms:Decrypt", "Resource": "*"}
    policy["Statement"].append(reader)
    kms.put_key_policy(KeyId=key, Policy=json.dumps(policy))
    iam.delete_role(RoleName="Reader")
    shown = kms.get_key_policy(KeyId=key)["Policy"]
    assert json.loads(shown)["Statement"][-1]["Principal"] == {"AWS": role["RoleId"]}
    with pytest.raises(ClientError) as caught:
        kms.put_key_policy(KeyId=key, Policy=shown)
    assert code_of(caught) == "MalformedPolicyDocumentException"


def test_nobody_changes_the_key_that_aws_manages(sandbox: Sandbox) -> None:
    put(sandbox, "alias/aws/xray")
    kms = sandbox.client("kms")
    key = kms.describe_key(KeyId="alias/aws/xray")["KeyMetadata"]["Arn"]
    with pytest.raises(ClientError) as caught:
        kms.disable_key(KeyId=key)
    assert code_of(caught) == "AccessDeniedException"
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"] is True


def test_aliases_are_told_in_pages_and_predefined_ones_without_a_key_until_used(sandbox: Sandbox) -> None:
    kms = sandbox.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    for number in range(3):
        kms.create_alias(AliasName=f"alias/x{number}", TargetKeyId=key)
    pages = kms.get_paginator("list_aliases").paginate(PaginationConfig={"PageSize": 2})
    shown = [each for page in pages for each in page["Aliases"]]
    assert sum(each.get("TargetKeyId") == key for each in shown) == 3
    assert "TargetKeyId" not in next(each for each in shown if each["AliasName"] == "alias/aws/xray")


def test_the_service_graph_is_empty_until_seeded_and_looks_back_six_hours_at_most(sandbox: Sandbox) -> None:
    xray, now = sandbox.client("xray"), time.time()
    assert xray.get_service_graph(StartTime=now - 3600, EndTime=now)["Services"] == []
    sandbox.seed_services("shop")
    shown = xray.get_service_graph(StartTime=now - 6 * 3600 + 5, EndTime=time.time() + 1)["Services"]
    assert [each["Name"] for each in shown] == ["shop"]
    with pytest.raises(ClientError) as caught:
        xray.get_service_graph(StartTime=now - 7 * 3600, EndTime=now)
    assert code_of(caught) == "InvalidRequestException"


def test_the_enabled_regions_are_those_that_the_sandbox_was_given(sandbox: Sandbox) -> None:
    sandbox.turn(regions=["us-east-1", "eu-west-1"])
    shown = sandbox.client("ec2").describe_regions()["Regions"]
    assert [each["RegionName"] for each in shown] == ["us-east-1", "eu-west-1"]


def test_the_caller_is_the_administrator_or_the_role_session(sandbox: Sandbox) -> None:
    unknown = boto3.client(
        "sts", "us-east-1", endpoint_url=sandbox.url, aws_access_key_id="test", aws_secret_access_key="test"
    )
    assert unknown.get_caller_identity()["Arn"] == "arn:aws:iam::123456789012:user/administrator"
    role = "arn:aws:iam::444455556666:role/Spoke"
    shown = sandbox.client("sts", role=role, session="guard").get_caller_identity()
    assert (shown["Account"], shown["Arn"]) == ("444455556666", "arn:aws:sts::444455556666:assumed-role/Spoke/guard")


def test_a_call_can_fail_before_or_after_it_took_effect(sandbox: Sandbox) -> None:
    kms = sandbox.client("kms", config=ONE_ATTEMPT)
    sandbox.fail("kms", "CreateKey", "KMSInternalException", status=500)
    with pytest.raises(ClientError, match="KMSInternalException"):
        kms.create_key()
    assert kms.list_keys()["Keys"] == []
    sandbox.fail("kms", "CreateKey", "KMSInternalException", status=500, carried_out=True)
    with pytest.raises(ClientError, match="KMSInternalException"):
        kms.create_key()
    assert len(kms.list_keys()["Keys"]) == 1
    kms.create_key()


def test_a_failed_transaction_leaves_what_others_wrote_meanwhile(sandbox: Sandbox) -> None:
    dynamodb = sandbox.client("dynamodb")
    dynamodb.create_table(
        TableName="t",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
    )
    dynamodb.put_item(TableName="t", Item={"k": {"S": "taken"}})

    def failing(number: int) -> str:
        fresh = {"TableName": "t", "Item": {"k": {"S": f"never{number}"}}}
        barred = {
            "TableName": "t",
            "Item": {"k": {"S": "taken"}},
            "ConditionExpression": "attribute_not_exists(k)",
        }
        with pytest.raises(ClientError) as caught:
            dynamodb.transact_write_items(TransactItems=[{"Put": fresh}, {"Put": barred}])
        return code_of(caught)

    def writing(number: int) -> None:
        dynamodb.put_item(TableName="t", Item={"k": {"S": f"kept{number}"}})

    with ThreadPoolExecutor(4) as pool:
        codes = [pool.submit(failing, number) for number in range(10)]
        for done in [pool.submit(writing, number) for number in range(10)]:
            done.result()
    assert {each.result() for each in codes} == {"TransactionCanceledException"}
    found = {item["k"]["S"] for item in dynamodb.scan(TableName="t")["Items"]}
    assert found == {"taken", *(f"kept{number}" for number in range(10))}


def test_a_partition_is_that_of_the_region(sandbox: Sandbox) -> None:
    key = sandbox.client("kms", "us-gov-west-1").create_key()["KeyMetadata"]["Arn"]
    assert key.startswith("arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/")
    shown = sandbox.client("sts", "us-gov-west-1").get_caller_identity()["Arn"]
    assert shown == "arn:aws-us-gov:iam::123456789012:user/administrator"


def test_a_second_sandbox_in_one_process_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(RuntimeError, match="already"):
        Sandbox().start()
    assert sandbox.client("xray").get_encryption_config()["EncryptionConfig"]["Type"] == "NONE"


def test_the_program_tells_how_to_point_a_client_at_it_and_ends_when_told_to() -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "--port", "0", "--no-functions"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout is not None
        shown = ""
        while "Control endpoint" not in shown:
            line = program.stdout.readline()
            assert line, shown
            shown += line
        url = shown.split("AWS_ENDPOINT_URL=")[1].split()[0]
        assert url.startswith("http://127.0.0.1:")
        xray = boto3.client("xray", "us-east-1", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b")
        assert xray.get_encryption_config()["EncryptionConfig"]["Type"] == "NONE"
        program.terminate()
        assert program.wait(10) == 0
    finally:
        program.kill()
        program.wait()


def test_the_program_without_a_package_says_what_to_do(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--package", "not/there"]) == 2
    assert "make package" in capfd.readouterr().err


def test_aws_can_be_hours_behind_the_host_in_its_answers_and_in_what_cloudtrail_tells(sandbox: Sandbox) -> None:
    sandbox.turn(clock_behind_seconds=7200)
    answer = sandbox.client("dynamodb").list_tables()
    sandbox.client("xray").put_encryption_config(Type="NONE")
    wanted = datetime.now(UTC) - timedelta(hours=2)
    shown = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    recorded = datetime.strptime(sandbox.trail.records[-1]["eventTime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    for at in (shown, recorded, sandbox.calls[-1].at):
        assert abs(at - wanted) < timedelta(seconds=5)


class TestTheLockOutCheck:
    """KMS asks whether the caller itself may put the next policy, by the key policy or by its own IAM rights."""

    ROOT_ONLY = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
                    "Action": "kms:*",
                    "Resource": "*",
                }
            ],
        }
    )
    BY_TAG = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": "kms:CreateKey", "Resource": "*"},
                {
                    "Effect": "Allow",
                    "Action": "kms:PutKeyPolicy",
                    "Resource": "*",
                    "Condition": {"StringEquals": {"aws:ResourceTag/xray-guard": "managed"}},
                },
            ],
        }
    )
    TAGS = ({"TagKey": "xray-guard", "TagValue": "managed"},)

    @pytest.fixture
    def kms(self, sandbox: Sandbox) -> Any:
        """KMS as a role that may put the policies of keys with a tag."""
        iam = sandbox.client("iam")
        role = iam.create_role(RoleName="ByTag", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        iam.put_role_policy(RoleName="ByTag", PolicyName="by-tag", PolicyDocument=self.BY_TAG)
        return sandbox.client("kms", role=role)

    def test_refuses_a_new_key_whose_maker_could_change_its_policy_by_tag_only(self, kms: Any) -> None:
        with pytest.raises(ClientError, match="will not allow you to update the key policy") as caught:
            kms.create_key(Policy=self.ROOT_ONLY, Tags=self.TAGS)
        assert code_of(caught) == "MalformedPolicyDocumentException"
        kms.create_key(Policy=self.ROOT_ONLY, Tags=self.TAGS, BypassPolicyLockoutSafetyCheck=True)

    def test_sees_the_tags_of_a_key_that_is_there(self, kms: Any) -> None:
        tagged = kms.create_key(Tags=self.TAGS)["KeyMetadata"]["KeyId"]
        kms.put_key_policy(KeyId=tagged, Policy=self.ROOT_ONLY)
        plain = kms.create_key()["KeyMetadata"]["KeyId"]
        with pytest.raises(ClientError, match="will not allow you to update the key policy"):
            kms.put_key_policy(KeyId=plain, Policy=self.ROOT_ONLY)

    def test_lets_those_pass_whom_the_policy_itself_names(self, sandbox: Sandbox, kms: Any) -> None:
        named = json.loads(self.ROOT_ONLY)
        named["Statement"][0]["Principal"]["AWS"] = "arn:aws:iam::123456789012:role/ByTag"
        kms.create_key(Policy=json.dumps(named))
