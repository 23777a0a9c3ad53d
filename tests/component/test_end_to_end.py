"""The loop end to end: somebody changes something in AWS, nobody calls the guard, and the target is right again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest

from chalicelib.domain.model import Subject, TriggerKind
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import GUARD_CHAIN
from sandbox.server import Sandbox
from sandbox.tracing import tracing_of
from tests.component.guarded import (
    PACKAGE,
    PROJECT,
    aliased_key,
    change_setting,
    dead_letters,
    guarded,
    keys_behind_the_guard,
    records_of,
    setting_of,
    undelivered,
)

ACCOUNT = "123456789012"
HERE = f"{ACCOUNT}/us-east-1"
THERE = f"{ACCOUNT}/eu-west-1"
HOUR = 3600.0
RIGHT_AGAIN_SECONDS = 5.0
ON_RECORD_SECONDS = 10.0


def until(look: Callable[[], Any], seconds: float) -> Any:
    """What there is to see, as soon as there is something; what was last seen after so many seconds."""
    give_up = time.monotonic() + seconds
    while not (seen := look()) and time.monotonic() < give_up:
        time.sleep(0.1)
    return seen


@pytest.fixture(scope="class")
def environment() -> Iterator[dict[str, str]]:
    """The environment that the running sandbox tells its users to set."""
    program = [sys.executable, "-m", "sandbox", "--port", "0", "--package", str(PACKAGE)]
    running = subprocess.Popen(program, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert running.stdout is not None
        result = ""
        for line in running.stdout:
            result += line
            if line.strip().startswith("export "):
                break
        assert "export AWS_ENDPOINT_URL=http://127.0.0.1:" in result, result
        settings = dict(each.split("=", 1) for each in result.rsplit("export ", 1)[1].split())
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        yield {**kept, **settings}
    finally:
        running.terminate()
        assert running.wait(30) == 0


class TestWithMakeSandboxUp:
    """As somebody sees it who starts the sandbox and points clients at it."""

    @pytest.mark.parametrize("client", ["the AWS CLI", "boto3"])
    def test_none_is_kms_and_active_within_five_seconds_and_on_the_record_within_ten(
        self, environment: dict[str, str], client: str
    ) -> None:
        if client == "the AWS CLI" and shutil.which("aws") is None:
            pytest.skip("there is no AWS CLI on the path; what it does, boto3 does in the next test")
        xray = AwsCli(environment) if client == "the AWS CLI" else Boto3(environment)
        looking = Boto3(environment)
        xray.put_none()
        setting = until(lambda: (it := looking.get())["Type"] == "KMS" and it["Status"] == "ACTIVE" and it, 30)
        seen_at = datetime.now(UTC)
        assert setting, "X-Ray was never put right"
        # From the call as AWS took it: how long the client itself takes to start and end is not the guard's doing.
        took = (seen_at - last_put_of_none(environment)).total_seconds()
        assert took < RIGHT_AGAIN_SECONDS
        assert xray.get() == setting

        kms = boto3_client(environment, "kms")
        key = kms.describe_key(KeyId=setting["KeyId"])["KeyMetadata"]
        assert (key["KeyManager"], key["KeyState"]) == ("CUSTOMER", "Enabled")
        assert kms.get_key_rotation_status(KeyId=setting["KeyId"])["KeyRotationEnabled"] is True

        remedied = until(lambda: history(environment, "REMEDIATED"), ON_RECORD_SECONDS - took)
        assert remedied, "there is no record of it"
        newest = remedied[0]
        assert newest["actor"]["arn"] == f"arn:aws:iam::{ACCOUNT}:user/administrator"
        assert newest["before"]["type"] == "NONE"
        assert newest["after"] == {"type": "KMS", "key_arn": setting["KeyId"], "status": "ACTIVE"}
        assert 0 < newest["exposure_seconds"] < RIGHT_AGAIN_SECONDS


class AwsCli:
    """`aws xray`, as it stands on the path."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def _run(self, *arguments: str) -> Any:
        ended = subprocess.run(
            ["aws", "xray", *arguments, "--output", "json"],
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return json.loads(ended.stdout)["EncryptionConfig"]

    def put_none(self) -> None:
        self._run("put-encryption-config", "--type", "NONE")

    def get(self) -> Any:
        return self._run("get-encryption-config")


class Boto3:
    """The same with boto3."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._client = boto3_client(environment, "xray")

    def put_none(self) -> None:
        self._client.put_encryption_config(Type="NONE")

    def get(self) -> Any:
        return self._client.get_encryption_config()["EncryptionConfig"]


def last_put_of_none(environment: dict[str, str]) -> datetime:
    """When NONE was last put to the stand-in."""
    address = f"{environment['AWS_ENDPOINT_URL']}/_sandbox/calls?action=PutEncryptionConfig"
    with urllib.request.urlopen(address) as answer:
        calls = json.loads(answer.read())
    return datetime.fromisoformat([call for call in calls if call["parameters"]["Type"] == "NONE"][-1]["at"])


def boto3_client(environment: dict[str, str], service: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


def history(environment: dict[str, str], outcome: str) -> list[dict[str, Any]]:
    """The records of this outcome, newest first, as the installed command line tells them."""
    program = Path(sys.executable).with_name("xray-guard")
    ended = subprocess.run(
        [program, "history", "--output", "json", "--outcome", outcome],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    records: list[dict[str, Any]] = json.loads(ended.stdout)["records"]
    return records


@pytest.fixture(scope="module")
def _running() -> Iterator[Sandbox]:
    with guarded(
        account=ACCOUNT,
        regions=("us-east-1", "eu-west-1"),
        clock_behind_seconds=12 * HOUR,
        retry_seconds=(0.05, 0.05),
    ) as sandbox:
        yield sandbox


@pytest.fixture
def account(_running: Sandbox) -> Iterator[Sandbox]:
    """An account with two Regions and the guard in one of them, new; half a day may go by in it."""
    yield _running
    _running.reset()


def outcomes(sandbox: Sandbox, chain: str = HERE) -> list[Outcome]:
    """The outcomes of a chain's records, without the notes about keys."""
    records = records_of(sandbox, chain)
    return [record.outcome for record in records if record.reason not in (Reason.KEY_MADE, Reason.KEY_ADOPTED)]


def put_none(sandbox: Sandbox) -> None:
    sandbox.client("xray").put_encryption_config(Type="NONE")
    assert sandbox.idle(40)


def run(sandbox: Sandbox, schedule: str) -> None:
    sandbox.run_schedule(schedule)
    assert sandbox.idle(40)


def test_an_event_that_comes_twice_is_one_incident_and_one_key(account: Sandbox) -> None:
    """P5, P2."""
    account.turn(event_copies=2)
    put_none(account)
    assert outcomes(account) == [Outcome.REMEDIATING, Outcome.REMEDIATED]
    assert keys_behind_the_guard(account) == [aliased_key(account)] == [setting_of(account)["KeyId"]]


def test_grants_on_the_managed_key_are_on_the_record_and_those_of_x_ray_for_the_guard_are_not(account: Sandbox) -> None:
    """P5, P7."""
    put_none(account)
    assert outcomes(account) == [Outcome.REMEDIATING, Outcome.REMEDIATED]
    key, kms = aliased_key(account), account.client("kms")
    grantee = f"arn:aws:iam::{ACCOUNT}:root"
    grant = kms.create_grant(KeyId=key, GranteePrincipal=grantee, Operations=["Decrypt"])["GrantId"]
    kms.retire_grant(KeyId=key, GrantId=grant)
    other = kms.create_grant(KeyId=key, GranteePrincipal=grantee, Operations=["Decrypt"])["GrantId"]
    kms.revoke_grant(KeyId=key, GrantId=other)
    assert account.idle(40)
    records = [record for record in records_of(account, HERE) if record.reason == "GRANTS_CHANGED"]
    assert {
        (one.reason, one.change.subject, one.change.resource, one.change.after) for one in records if one.change
    } == {
        ("GRANTS_CHANGED", Subject.GRANTS, key, f"granted to {grantee}: Decrypt (grant {grant})"),
        ("GRANTS_CHANGED", Subject.GRANTS, key, f"retired {grant}"),
        ("GRANTS_CHANGED", Subject.GRANTS, key, f"granted to {grantee}: Decrypt (grant {other})"),
        ("GRANTS_CHANGED", Subject.GRANTS, key, f"revoked {other}"),
    }
    assert len(records) == 4


def test_p13_deployed_with_a_role_that_only_reads_the_guard_records_what_happened_and_changes_nothing() -> None:
    with guarded(account=ACCOUNT, parameters={"Rights": "observe"}) as account:
        put_none(account)
        assert account.idle(20)
        run(account, "sweep")
        (record,) = records_of(account, HERE)
        assert (record.outcome, record.reason) == (Outcome.OBSERVED, "RIGHTS_OBSERVE")
        assert setting_of(account)["Type"] == "NONE"
        assert keys_behind_the_guard(account) == []


def test_a_change_whose_event_is_lost_is_put_right_by_the_next_sweep(account: Sandbox) -> None:
    """P6."""
    change_setting(account, Type="KMS", KeyId="alias/aws/xray")
    assert account.idle(10)
    assert records_of(account, HERE) == []
    run(account, "sweep")
    record = records_of(account, HERE)[-1]
    assert (record.outcome, record.trigger.kind) == (Outcome.REMEDIATED, TriggerKind.SWEEP)
    assert setting_of(account)["KeyId"] == aliased_key(account)


def test_the_other_region_is_covered_by_the_sweep_with_a_key_of_its_own(account: Sandbox) -> None:
    put_none(account)
    account.client("xray", "eu-west-1").put_encryption_config(Type="KMS", KeyId="alias/aws/xray")
    assert account.idle(10)
    assert records_of(account, THERE) == [], "no rule of that Region forwards to the guard"
    run(account, "sweep")
    assert outcomes(account, THERE) == [Outcome.REMEDIATING, Outcome.REMEDIATED]
    (there,), (here,) = keys_behind_the_guard(account, "eu-west-1"), keys_behind_the_guard(account)
    assert setting_of(account, "eu-west-1")["KeyId"] == there != here == setting_of(account)["KeyId"]


def test_a_region_that_never_used_xray_is_left_idle_by_the_sweep_and_costs_no_key(account: Sandbox) -> None:
    for _ in range(2):
        run(account, "sweep")
    (record,) = records_of(account, THERE)
    assert (record.outcome, record.reason) == (Outcome.IGNORED, "IDLE")
    assert keys_behind_the_guard(account, "eu-west-1") == []
    account.seed_services("shop", region="eu-west-1")
    run(account, "sweep")
    assert setting_of(account, "eu-west-1")["Type"] == "KMS"


def test_what_stays_updating_is_applied_then_failed_without_another_put_and_remediated_once_active(
    account: Sandbox,
) -> None:
    """P4."""
    account.turn(settle_seconds=10_000_000)
    put_none(account)
    assert outcomes(account)[-1] is Outcome.APPLIED
    run(account, "tick")
    assert outcomes(account)[-1] is Outcome.APPLIED, "nothing is new"
    account.let_go_by(0.6 * HOUR)
    run(account, "tick")
    failed = records_of(account, HERE)[-1]
    assert (failed.outcome, failed.reason or (failed.error and failed.error.code)) == (
        Outcome.FAILED,
        "UPDATING_TOO_LONG",
    )
    tracing_of(ACCOUNT, "us-east-1").settled_at = 0.0
    account.let_go_by(0.6 * HOUR)
    run(account, "tick")
    ended = records_of(account, HERE)[-1]
    assert ended.outcome is Outcome.REMEDIATED
    assert ended.exposure_seconds is not None
    assert ended.exposure_seconds > 1.2 * HOUR
    puts = [call for call in account.calls if call.request.action == "PutEncryptionConfig"]
    assert len(puts) == 2, "the drift's and the guard's"


def test_a_put_that_is_refused_while_x_ray_is_updating_is_settling_and_ends_with_the_same_key(account: Sandbox) -> None:
    """P1, P4: UPDATING lasts minutes, so the drift's own change is in the way of the guard's."""
    account.turn(settle_seconds=10_000_000, updates_while_updating=False)
    put_none(account)
    held = records_of(account, HERE)[-1]
    assert (held.outcome, held.reason) == (Outcome.DEFERRED, "SETTLING")
    assert held.error is not None
    assert held.error.code == "XRAY_UPDATING"
    assert [action.error for action in held.actions if action.name == "PutEncryptionConfig"] == [
        "InvalidRequestException"
    ]
    tracing_of(ACCOUNT, "us-east-1").settled_at = 0.0
    account.turn(settle_seconds=0.0)
    account.let_go_by(60.0)
    run(account, "tick")
    assert outcomes(account) == [
        Outcome.REMEDIATING,
        Outcome.DEFERRED,
        Outcome.REMEDIATING,
        Outcome.REMEDIATED,
    ]
    assert setting_of(account)["KeyId"] == aliased_key(account)
    assert keys_behind_the_guard(account) == [aliased_key(account)]


def test_a_key_that_may_not_be_made_with_its_policy_is_made_with_kms_default_and_completed(account: Sandbox) -> None:
    """P2: where the organization denies the bypass of the check against a lock-out."""
    denied = "with an explicit deny in a service control policy"
    account.fail("kms", "CreateKey", "AccessDeniedException", message=denied, times=1)
    put_none(account)
    assert outcomes(account) == [Outcome.REMEDIATING, Outcome.REMEDIATED]
    actions = records_of(account, HERE)[-1].actions
    assert [(action.name, action.error) for action in actions][:3] == [
        ("CreateKey", "AccessDeniedException"),
        ("CreateKey", None),
        ("PutKeyPolicy", None),
    ]
    assert keys_behind_the_guard(account) == [aliased_key(account)] == [setting_of(account)["KeyId"]]
    assert account.storing_traces()


def test_a_region_that_the_organization_denies_is_told_once_and_costs_the_sweep_nothing(account: Sandbox) -> None:
    account.turn(denied_regions=["eu-west-1"])
    for _ in range(3):
        run(account, "sweep")
    (record,) = records_of(account, THERE)
    assert (record.outcome, record.reason) == (Outcome.IGNORED, "REGION_DENIED")
    swept = records_of(account, GUARD_CHAIN)[-1]
    assert (swept.outcome, swept.reason) == (Outcome.IGNORED, "SWEEP")


@pytest.mark.parametrize("carried_out", [False, True], ids=["refused", "carried out, its answer lost"])
@pytest.mark.parametrize(
    ("service", "action"),
    [
        ("kms", "CreateKey"),
        ("kms", "EnableKeyRotation"),
        ("kms", "CreateAlias"),
        ("xray", "PutEncryptionConfig"),
    ],
)
def test_a_mutation_that_fails_once_is_on_the_record_and_a_later_tick_ends_it_with_one_key(
    account: Sandbox, service: str, action: str, carried_out: bool
) -> None:
    """P1, P2, P3."""
    account.fail(service, action, "InternalFailure", status=500, carried_out=carried_out)
    account.deliver(event_of_none())
    assert account.idle(40)
    for _ in range(6):
        account.let_go_by(0.2 * HOUR)
        run(account, "tick")
    assert setting_of(account) == {"Type": "KMS", "KeyId": aliased_key(account), "Status": "ACTIVE"}
    assert keys_behind_the_guard(account) == [aliased_key(account)]
    kms = account.client("kms")
    assert kms.get_key_rotation_status(KeyId=aliased_key(account))["KeyRotationEnabled"] is True
    result = outcomes(account)
    assert result[:2] == [Outcome.REMEDIATING, Outcome.FAILED]
    assert result[-1] is Outcome.REMEDIATED


def test_while_nothing_can_be_stored_nothing_is_mutated_and_the_event_is_kept(account: Sandbox) -> None:
    """P3."""
    account.fail("dynamodb", "TransactWriteItems", "InternalServerError", status=500, times=10_000)
    put_none(account)
    assert setting_of(account)["Type"] == "NONE"
    assert keys_behind_the_guard(account) == []
    (letter,) = dead_letters(account)
    assert letter["requestPayload"]["detail"]["eventName"] == "PutEncryptionConfig"
    account.faults.clear()
    account.invoke("on_change", letter["requestPayload"])
    assert setting_of(account)["KeyId"] == aliased_key(account)


def test_a_throttled_region_does_not_keep_the_sweep_from_the_others_and_the_sweep_says_which(account: Sandbox) -> None:
    """P11."""
    with undelivered(account):
        for region in ("us-east-1", "eu-west-1"):
            account.client("xray", region).put_encryption_config(Type="KMS", KeyId="alias/aws/xray")
    account.fail("xray", "GetEncryptionConfig", "ThrottledException", status=429, times=3)
    run(account, "sweep")
    own = keys_of(account)
    right = [region for region in ("us-east-1", "eu-west-1") if setting_of(account, region)["KeyId"] in own]
    failed = [chain for chain in (HERE, THERE) if outcomes(account, chain)[-1] is Outcome.FAILED]
    assert (len(right), len(failed)) == (1, 1)
    assert records_of(account, GUARD_CHAIN)[-1].reason == "SWEEP"
    account.let_go_by(0.5 * HOUR)
    run(account, "tick")
    assert {setting_of(account, region)["KeyId"] for region in ("us-east-1", "eu-west-1")} == set(keys_of(account))


def keys_of(sandbox: Sandbox) -> list[str]:
    return [*keys_behind_the_guard(sandbox), *keys_behind_the_guard(sandbox, "eu-west-1")]


def event_of_none() -> Any:
    event = json.loads((PROJECT / "tests/events/13_success_none_root_console.json").read_text())
    return json.loads(json.dumps(event).replace("111122223333", ACCOUNT))
