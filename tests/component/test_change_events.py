"""Every event of the folder, through the packaged functions: the right outcome, and the right actor on the record.

The world before is what the call would have left behind, in the stand-in's own key ids.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib.domain.keypolicy.wanted import XRAY_SERVICE, initial_policy
from chalicelib.domain.model import EncryptionType, Target, TriggerKind
from chalicelib.domain.policy import parse
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.stored import Record
from sandbox.server import Sandbox
from tests.component.guarded import (
    ALIAS,
    FOREIGN_ACCOUNT,
    OTHER_ALIAS,
    POLICY,
    aliased_key,
    change_setting,
    guarded,
    keys_behind_the_guard,
    other_key,
    policy_members,
    records_of,
    repackaged,
    setting_of,
    undelivered,
)
from tests.events.expected import EXPECTED, FOLDER, US_EAST_1, Expected

IN_THE_FOLDER = datetime(2026, 9, 30, 10, tzinfo=UTC)
GUARD_ROLE = "arn:aws:iam::111122223333:role/xray-guard"
DRIFTS = [each for each in EXPECTED if each.world not in ("compliant",)]
OF_US_EAST_1 = [each for each in EXPECTED if each.target == US_EAST_1]
ECHO = next(each for each in EXPECTED if each.outcome is None)


def number(expected: Expected) -> str:
    return expected.file.split("_")[0]


def event_of(expected: Expected, key_arn: str | None = None) -> Any:
    """The file's event, with the stand-in's key in the place of the key that it names."""
    event = json.loads(expected.path.read_bytes())
    answer = (event["detail"]["responseElements"] or {}).get("encryptionConfig", {})
    if key_arn and "keyId" in answer:
        result, answer["keyId"] = answer["keyId"], key_arn
        request = event["detail"]["requestParameters"]
        if request.get("keyId") == result:
            request["keyId"] = key_arn
        elif request.get("keyId") == result.rsplit("/", 1)[-1]:
            request["keyId"] = key_arn.rsplit("/", 1)[-1]
    return event


def world_before(sandbox: Sandbox, world: str) -> str | None:
    """What the call left behind, without its event. Returns the key that X-Ray is on."""
    if world == "compliant":
        return make_compliant(sandbox)
    if world == "none":
        return None
    with undelivered(sandbox):
        if world == "aws-managed":
            key = "alias/aws/xray"
        else:
            key = other_key(sandbox, account=FOREIGN_ACCOUNT if world == "foreign-key" else None)
        sandbox.client("xray").put_encryption_config(Type="KMS", KeyId=key)
    key_arn: str = setting_of(sandbox)["KeyId"]
    return key_arn


def make_compliant(sandbox: Sandbox) -> str:
    """Let the guard put the target right once. Answers the managed key's ARN."""
    event = json.loads((FOLDER / "13_success_none_root_console.json").read_bytes())
    event["detail"]["eventID"] = "the-first-drift"
    sandbox.invoke("on_change", event)
    assert sandbox.idle(30)
    assert setting_of(sandbox)["Type"] == "KMS"
    return aliased_key(sandbox)


def records_about(sandbox: Sandbox, event: Any) -> list[Record]:
    """The target's records that this event triggered."""
    target = Target(event["account"], event["region"])
    event_id = event["detail"].get("addendum", {}).get("originalEventID", event["detail"]["eventID"])
    return [record for record in records_of(sandbox, str(target)) if record.trigger.event_id == event_id]


def assert_put_right(sandbox: Sandbox, expected: Expected, event: Any, was_on: str | None) -> None:
    """X-Ray is on the one managed key, and the record tells who, what and when."""
    managed = aliased_key(sandbox)
    assert setting_of(sandbox) == {"Type": "KMS", "KeyId": managed, "Status": "ACTIVE"}
    assert keys_behind_the_guard(sandbox) == [managed]
    assert sandbox.client("kms").get_key_rotation_status(KeyId=managed)["KeyRotationEnabled"] is True
    assert sandbox.storing_traces()

    opened, closed = records_about(sandbox, event)
    assert [opened.outcome, closed.outcome] == [Outcome.REMEDIATING, Outcome.REMEDIATED]
    for record in (opened, closed):
        assert record.violations == (expected.violation,)
        assert record.trigger.actor == expected.actor
        assert record.trigger.event_time == IN_THE_FOLDER
        assert record.cause is not None
        assert record.cause.actor == expected.actor
        assert record.before is not None
        assert record.before.key_arn == was_on
        assert record.before.type is (EncryptionType.KMS if was_on else EncryptionType.NONE)
    assert closed.after is not None
    assert closed.after.key_arn == managed
    assert closed.exposure_seconds == pytest.approx((closed.at - IN_THE_FOLDER).total_seconds(), abs=2)


@pytest.fixture(scope="class")
def running() -> Iterator[Sandbox]:
    with guarded() as sandbox:
        yield sandbox


@pytest.fixture
def account(running: Sandbox) -> Iterator[Sandbox]:
    """The events' account, new, with the guard deployed in it."""
    yield running
    running.reset()


@pytest.fixture(scope="class")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    def allow(policy: Any) -> None:
        policy["rules"][0]["require"]["allowed_keys"].append(OTHER_ALIAS)

    folder = tmp_path_factory.mktemp("lenient")
    with guarded(repackaged(folder, policy_members(folder, allow))) as sandbox:
        yield sandbox


@pytest.fixture(scope="class")
def elsewhere() -> Iterator[Sandbox]:
    with guarded(account="999988887777") as sandbox:
        yield sandbox


@pytest.fixture
def gov_cloud() -> Iterator[Sandbox]:
    with guarded(region="us-gov-west-1", regions=("us-gov-west-1", "us-gov-east-1")) as sandbox:
        yield sandbox


class TestInTheEventsOwnAccount:
    @pytest.mark.parametrize("expected", [each for each in DRIFTS if each.target == US_EAST_1], ids=number)
    def test_each_drift_is_put_right_and_the_record_names_its_violation_and_actor(
        self, account: Sandbox, expected: Expected
    ) -> None:
        was_on = world_before(account, expected.world)
        event = event_of(expected, was_on)
        assert account.deliver(event) == 1
        assert account.idle(30)
        assert_put_right(account, expected, event, was_on)

    @pytest.mark.parametrize("expected", [each for each in EXPECTED if each.error_code], ids=number)
    def test_a_refused_call_is_ignored_with_its_error_and_its_actor(self, account: Sandbox, expected: Expected) -> None:
        managed = make_compliant(account)
        event = event_of(expected)
        assert account.deliver(event) == 1
        assert account.idle(30)
        (record,) = records_about(account, event)
        assert (record.outcome, record.reason) == (Outcome.IGNORED, expected.error_code)
        assert record.trigger.actor == expected.actor
        assert setting_of(account)["KeyId"] == managed

    def test_the_guards_own_call_leaves_no_record_and_one_by_its_role_alone_does(self, account: Sandbox) -> None:
        managed = make_compliant(account)
        before = records_of(account, str(US_EAST_1))
        event = event_of(ECHO, managed)
        # The file's guard runs as another role than the one deployed here.
        issuer = event["detail"]["userIdentity"]["sessionContext"]["sessionIssuer"]
        assert issuer["arn"] == ECHO.actor.arn
        issuer["arn"] = GUARD_ROLE
        event["detail"]["userIdentity"]["arn"] = (
            "arn:aws:sts::111122223333:assumed-role/xray-guard/xray-guard-on_change"
        )
        stranger = copy.deepcopy(event)
        (put,) = [action for record in before for action in record.actions if action.name == "PutEncryptionConfig"]
        event["detail"]["requestID"] = put.request_id
        answer = account.invoke("on_change", event)
        assert answer.value()["reason"] == "ECHO"
        assert records_of(account, str(US_EAST_1)) == before
        assert setting_of(account)["KeyId"] == managed

        # The same call under another request id is none of the guard's.
        stranger["detail"]["eventID"] = str(uuid.uuid4())
        stranger["detail"]["eventTime"] = "2026-09-30T10:00:00Z"
        account.invoke("on_change", stranger)
        note, own = records_of(account, str(US_EAST_1))[len(before) :]
        assert (note.reason, own.outcome) == ("ROLE_BORROWED", Outcome.COMPLIANT)

    def test_on_a_compliant_target_every_event_is_audited_once_and_nothing_is_changed(self, account: Sandbox) -> None:
        managed = make_compliant(account)
        for expected in OF_US_EAST_1:
            if expected.error_code or expected is ECHO:
                continue
            event = event_of(expected)
            for _ in range(2):
                answer = account.invoke("on_change", event)
                assert answer.error is None
            (record,) = records_about(account, event)
            assert record.outcome is Outcome.COMPLIANT, expected.file
            assert record.trigger.actor == expected.actor
        assert setting_of(account) == {"Type": "KMS", "KeyId": managed, "Status": "ACTIVE"}
        assert keys_behind_the_guard(account) == [managed]

    def test_an_event_later_than_the_sweep_that_put_its_drift_right_lends_the_incident_its_actor(
        self, account: Sandbox
    ) -> None:
        make_compliant(account)
        change_setting(account, Type="KMS", KeyId="alias/aws/xray")
        aws_managed = setting_of(account)["KeyId"]
        account.invoke("sweep", {})
        remedy = records_of(account, str(US_EAST_1))[-1]
        assert (remedy.outcome, remedy.trigger.kind) == (Outcome.REMEDIATED, TriggerKind.SWEEP)
        assert remedy.cause is None

        alice = next(each for each in EXPECTED if each.world == "aws-managed")
        event = event_of(alice, aws_managed)
        event["detail"]["eventTime"] = remedy.at.strftime("%Y-%m-%dT%H:%M:%SZ")
        account.invoke("on_change", event)
        (record,) = records_about(account, event)
        assert (record.outcome, record.incident_id) == (Outcome.COMPLIANT, remedy.incident_id)
        assert record.cause is not None
        assert record.cause.actor == alice.actor


class TestWhereTheRuleAllowsTheOtherKeyToo:
    """Event 03 again: `alias/xray-traces` is allowed beside the guard's own."""

    @pytest.fixture
    def deliver(self, lenient: Sandbox) -> Iterator[Callable[[bool, bool], tuple[Sandbox, str, Record]]]:
        """X-Ray is on the other key when event 03 comes; answers the last record."""

        def delivered(rotated: bool, complete: bool) -> tuple[Sandbox, str, Record]:
            kms = lenient.client("kms")
            with undelivered(lenient):
                key_arn = other_key(lenient)
                if not rotated:
                    kms.disable_key_rotation(KeyId=key_arn)
                if complete:
                    policy = initial_policy(parse(POLICY.read_bytes()).rules[0], US_EAST_1, "aws")
                    kms.put_key_policy(KeyId=key_arn, PolicyName="default", Policy=policy)
                lenient.client("xray").put_encryption_config(Type="KMS", KeyId=key_arn)
            event = event_of(next(each for each in EXPECTED if number(each) == "03"), key_arn)
            lenient.deliver(event)
            assert lenient.idle(30)
            return lenient, key_arn, records_about(lenient, event)[-1]

        yield delivered
        lenient.reset()

    def test_it_is_compliant_if_it_rotates_and_its_policy_is_complete(self, deliver: Any) -> None:
        account, key_arn, record = deliver(rotated=True, complete=True)
        assert record.outcome is Outcome.COMPLIANT
        assert (record.trigger.actor.arn, record.trigger.actor.session) == (
            "arn:aws:iam::111122223333:role/PlatformAdmin",
            "jdoe",
        )
        assert setting_of(account)["KeyId"] == key_arn
        assert keys_behind_the_guard(account) == []

    def test_it_is_left_and_the_violation_named_if_it_only_does_not_rotate(self, deliver: Any) -> None:
        account, key_arn, record = deliver(rotated=False, complete=True)
        assert record.violations == (Violation.KEY_ROTATION_OFF,)
        assert record.outcome not in (Outcome.COMPLIANT, Outcome.REMEDIATED, Outcome.REMEDIATING)
        assert setting_of(account)["KeyId"] == key_arn
        assert account.client("kms").get_key_rotation_status(KeyId=key_arn)["KeyRotationEnabled"] is False

    def test_xray_moves_off_it_if_its_policy_is_incomplete_and_the_key_is_not_touched(self, deliver: Any) -> None:
        account, key_arn, record = deliver(rotated=True, complete=False)
        before = account.client("kms").get_key_policy(KeyId=key_arn, PolicyName="default")["Policy"]
        assert record.outcome is Outcome.REMEDIATED
        assert record.violations == (Violation.KEY_POLICY_INCOMPLETE,)
        assert setting_of(account)["KeyId"] == aliased_key(account, ALIAS) != key_arn
        assert XRAY_SERVICE not in before


class TestInAGuardOfAnotherAccount:
    @pytest.mark.parametrize("expected", EXPECTED, ids=number)
    def test_every_event_is_ignored_and_nothing_is_touched(self, elsewhere: Sandbox, expected: Expected) -> None:
        event = event_of(expected)
        answer = elsewhere.invoke("on_change", event)
        assert answer.value()["reason"] == "ACCOUNT_NOT_OURS"
        (record,) = records_about(elsewhere, event)
        assert (record.outcome, record.reason) == (Outcome.IGNORED, "ACCOUNT_NOT_OURS")
        assert record.trigger.actor == expected.actor
        for account in ("999988887777", "111122223333"):
            assert setting_of(elsewhere, account=account)["Type"] == "NONE"
        assert keys_behind_the_guard(elsewhere) == []


class TestInTheGovCloudPartition:
    def test_event_27_is_put_right_with_arns_of_that_partition(self, gov_cloud: Sandbox) -> None:
        (expected,) = (each for each in EXPECTED if each.target.region == "us-gov-west-1")
        was_on = world_before(gov_cloud, expected.world)
        event = event_of(expected, was_on)
        assert gov_cloud.deliver(event) == 1
        assert gov_cloud.idle(30)
        assert_put_right(gov_cloud, expected, event, was_on)
        policy = gov_cloud.client("kms").get_key_policy(KeyId=aliased_key(gov_cloud), PolicyName="default")["Policy"]
        assert "arn:aws-us-gov:iam::111122223333:root" in policy
        assert "arn:aws:" not in policy
