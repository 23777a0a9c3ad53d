"""`make contract-live`, against the sandbox: it touches no other account, harms nothing, and cleans up after itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from sandbox.server import Sandbox
from tests.contract.assumptions import CHECKS, Check, Live, Settled, Verdict, a_key_of_its_own
from tests.contract.live import PROJECT, main

ALIAS = "alias/xray-encryption"


@pytest.fixture
def cloud(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The sandbox as the only AWS that this process knows."""
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    return sandbox


class Clock:
    """A clock that moves only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which nothing wraps, whatever the tests run in."""
    monkeypatch.setenv("COLUMNS", "400")


def run(cloud: Sandbox, account: str | None = None, checks: Sequence[Check] = CHECKS, **how: Any) -> int:
    clock = Clock()
    arguments = ["--account", cloud.account if account is None else account, "--region", cloud.region]
    return main(arguments, checks=checks, **{"wait": clock.wait, "seconds": clock, **how})


def states(cloud: Sandbox) -> list[str]:
    """The state of every customer key."""
    kms = cloud.client("kms")
    keys = [kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"] for key in kms.list_keys()["Keys"]]
    return [key["KeyState"] for key in keys if key["KeyManager"] == "CUSTOMER"]


def setting(cloud: Sandbox) -> dict[str, Any]:
    config: dict[str, Any] = cloud.client("xray").get_encryption_config()["EncryptionConfig"]
    return config


def puts(cloud: Sandbox) -> list[dict[str, Any]]:
    return [call.request.parameters for call in cloud.calls if call.request.action == "PutEncryptionConfig"]


def on_the_managed_key(cloud: Sandbox) -> str:
    """X-Ray on the key behind the rule's alias, as the guard leaves it. Returns the key's ARN."""
    kms = cloud.client("kms")
    arn: str = kms.create_key()["KeyMetadata"]["Arn"]
    kms.create_alias(AliasName=ALIAS, TargetKeyId=arn)
    cloud.turn(settle_seconds=0.0)
    cloud.client("xray").put_encryption_config(Type="KMS", KeyId=arn)
    cloud.calls.clear()
    return arn


@pytest.mark.parametrize("account", ["", "123", "12345678901x", "1234567890123", "１２３４５６７８９０１２"])
def test_it_refuses_to_run_without_the_twelve_digits_of_an_account(
    cloud: Sandbox, account: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cloud, account) == 2
    assert "Refused: ACCOUNT must be the 12-digit id" in capsys.readouterr().err
    assert list(cloud.calls) == []


def test_it_refuses_to_run_in_an_account_other_than_the_one_that_was_named(
    cloud: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cloud, "999999999999") == 2
    assert f"the credentials are of account {cloud.account}, not of 999999999999" in capsys.readouterr().err
    assert [call.request.action for call in cloud.calls] == ["GetCallerIdentity"]


def test_it_refuses_to_run_where_aws_does_not_say_whose_the_credentials_are(cloud: Sandbox) -> None:
    cloud.fail("sts", "GetCallerIdentity", "ExpiredToken", status=403, times=9)
    assert run(cloud) == 2
    assert {call.request.action for call in cloud.calls} == {"GetCallerIdentity"}


def test_make_hands_the_account_and_the_region_on_and_leaves_nothing_to_a_default() -> None:
    shown = subprocess.run(
        ["make", "--dry-run", "contract-live", "REGION=eu-west-3"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert '-m tests.contract.live --account "" --region "eu-west-3"' in shown.stdout
    refused = subprocess.run(
        [sys.executable, "-m", "tests.contract.live", "--account", "", "--region", "eu-west-3"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (refused.returncode, refused.stdout) == (2, "")


def test_it_prints_each_assumption_with_its_answer_and_meaning_and_deletes_its_key(
    cloud: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cloud) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert all(word in lines[0] for word in ("ASSUMPTION", "HOLDS", "ANSWER", "WHAT IT MEANS"))
    for assumption in (
        "With NONE the setting has no KeyId",
        "GetServiceGraph takes six hours and needs no right on the key",
        "DescribeKey of a missing alias answers NotFoundException",
        "KMS accepts the guard's key policy, lock-out check included",
        "A new key shows in ListKeys and ListResourceTags within 250 seconds",
        "A disabled key encrypts nothing",
        "CancelKeyDeletion leaves a key Disabled",
    ):
        (line,) = [each for each in lines if each.startswith(assumption)]
        assert Verdict.YES.value in line.removeprefix(assumption).split()
    assert "is deleted in 7 days" in printed.err
    assert states(cloud) == ["PendingDeletion"]
    key = cloud.client("kms").list_keys()["Keys"][0]["KeyId"]
    tags = cloud.client("kms").list_resource_tags(KeyId=key)["Tags"]
    assert [tag["TagKey"] for tag in tags] == ["xray-guard-contract"]


def test_it_leaves_x_ray_alone_that_is_not_on_the_key_behind_the_alias(
    cloud: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    on_the_managed_key(cloud)
    other = cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
    for to in ({"Type": "NONE"}, {"Type": "KMS", "KeyId": other}):
        cloud.client("xray").put_encryption_config(**to)
        before = setting(cloud)
        cloud.calls.clear()
        assert run(cloud) == 0
        assert puts(cloud) == []
        assert setting(cloud) == before
        assert "so this run does not touch it" in capsys.readouterr().out


def test_it_leaves_x_ray_alone_whose_key_is_not_enabled(cloud: Sandbox) -> None:
    key = on_the_managed_key(cloud)
    cloud.client("kms").disable_key(KeyId=key)
    assert run(cloud) == 0
    assert puts(cloud) == []


def test_it_puts_the_key_that_x_ray_uses_once_more_and_measures_updating(
    cloud: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    key = on_the_managed_key(cloud)
    cloud.turn(settle_seconds=600.0)
    clock = Clock()

    def wait(seconds: float) -> None:
        clock.wait(seconds)
        if clock.now > 300:
            cloud.turn(settle_seconds=0.0)
            cloud.client("xray").put_encryption_config(Type="KMS", KeyId=key)

    assert run(cloud, wait=wait, seconds=clock) == 0
    assert [each["Type"] for each in puts(cloud)] == ["KMS"] * len(puts(cloud))
    assert setting(cloud) == {"Type": "KMS", "KeyId": key, "Status": "ACTIVE"}
    out = capsys.readouterr().out
    assert "A Put while X-Ray is UPDATING is accepted" in out
    assert "302 s" in out or "300 s" in out


def test_a_failure_in_the_middle_leaves_no_key_and_the_other_checks_go_on(
    cloud: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.fail("kms", "EnableKeyRotation", "LimitExceededException", times=9)
    assert run(cloud) == 0
    out = capsys.readouterr().out
    assert "KMS accepts the guard's key policy" in out
    (rest,) = [line for line in out.splitlines() if line.startswith("The rest of: a key of its own")]
    assert "LimitExceededException" in rest
    assert "A Put while X-Ray is UPDATING" in out
    assert states(cloud) == ["PendingDeletion"]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_a_crash_in_the_middle_leaves_no_key_and_says_what_was_settled(
    cloud: Sandbox, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    def crashes(live: Live) -> Iterator[Settled]:
        yield next(a_key_of_its_own(live))
        assert states(cloud) == ["Enabled"]
        raise error

    with pytest.raises(type(error)):
        run(cloud, checks=(crashes,))
    assert states(cloud) == ["PendingDeletion"]
    assert "KMS accepts the guard's key policy" in capsys.readouterr().out


def test_a_key_whose_creation_was_not_answered_is_found_by_its_tag_and_deleted(cloud: Sandbox) -> None:
    cloud.fail("kms", "CreateKey", "KMSInternalException", status=500, carried_out=True)
    assert run(cloud) == 0
    assert states(cloud) == ["PendingDeletion"]


def test_a_key_that_was_perhaps_made_and_does_not_show_is_told_with_its_tag(
    cloud: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.fail("kms", "CreateKey", "KMSInternalException", status=500)
    assert run(cloud) == 1
    err = capsys.readouterr().err
    assert "Not cleaned up: CreateKey was not answered" in err
    assert "xray-guard-contract=" in err


def test_a_key_that_cannot_be_deleted_is_told_with_the_command_to_run(
    cloud: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.fail("kms", "ScheduleKeyDeletion", "AccessDeniedException", times=99)
    assert run(cloud) == 1
    (key,) = cloud.client("kms").list_keys()["Keys"]
    command = f"aws kms schedule-key-deletion --region {cloud.region} --key-id {key['KeyArn']}"
    assert command in capsys.readouterr().err


@pytest.mark.parametrize(
    ("break_it", "assumption"),
    [
        (lambda cloud: cloud.fail("kms", "DescribeKey", "AccessDeniedException"), "DescribeKey of a missing alias"),
        (
            lambda cloud: cloud.fail("xray", "GetServiceGraph", "AccessDeniedException"),
            "GetServiceGraph takes six hours",
        ),
    ],
)
def test_a_belief_that_is_wrong_is_told_with_what_happens_then(
    cloud: Sandbox,
    break_it: Callable[[Sandbox], None],
    assumption: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    break_it(cloud)
    assert run(cloud) == 1
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith(assumption)]
    assert "NO" in line.split()
    assert "the guard" in line.lower()


def test_a_policy_that_the_lock_out_check_refuses_is_tried_without_it(
    cloud: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.fail("kms", "CreateKey", "MalformedPolicyDocumentException", message="The new key policy will not allow you")
    assert run(cloud) == 1
    out = capsys.readouterr().out
    (line,) = [each for each in out.splitlines() if each.startswith("KMS accepts the guard's key policy without")]
    assert "yes" in line.split()
    assert states(cloud) == ["PendingDeletion"]


def test_cloudtrail_shows_whether_x_rays_grant_comes_through_x_ray(
    cloud: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    on_the_managed_key(cloud)
    assert run(cloud) == 0
    out = capsys.readouterr().out
    (line,) = [each for each in out.splitlines() if each.startswith("X-Ray's CreateGrant carries kms:ViaService")]
    assert "yes" in line.split()
    (line,) = [each for each in out.splitlines() if each.startswith("CloudTrail's PutEncryptionConfig has")]
    assert "yes" in line.split()
    for record in cloud.trail.records:
        record["userIdentity"].pop("invokedBy", None)
    cloud.lookups.forget()  # CloudTrail allows two lookups a second
    assert run(cloud) == 1
    assert "widen LetXRayUseTheKey" in capsys.readouterr().out
