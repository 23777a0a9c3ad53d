"""The verbs that hold the guard back: what they change, who may, and what the record says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.model import Target, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.loop.reconcile import reconcile
from tests.component.operated import ACCOUNT, HERE, PROJECT, Answer, client, delivered, event, guard, typed, world

BREAK_GLASS_ROLE = "SecurityBreakGlass"


pytestmark = pytest.mark.usefixtures("shell")


@pytest.fixture
def break_glass_administrator(guarded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell of somebody who has assumed the break-glass role."""
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}]}
    role = client("iam").create_role(RoleName=BREAK_GLASS_ROLE, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    given = client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="morgan")["Credentials"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", given["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", given["SessionToken"])


def managed_key() -> str:
    arn = guard().store.load(HERE).state.managed_key
    assert arn is not None
    return arn


def tags() -> dict[str, str]:
    listed = client("kms").list_resource_tags(KeyId=managed_key())["Tags"]
    return {tag["TagKey"]: tag["TagValue"] for tag in listed}


def looked() -> Outcome:
    """A sweep's look: a tick's would depend on which whole second AWS's clock tells."""
    return reconcile(guard(), Target.parse(HERE), Trigger(TriggerKind.SWEEP)).outcome


def setting_type() -> Any:
    return client("xray").get_encryption_config()["EncryptionConfig"]["Type"]


def test_while_paused_a_drift_is_recorded_and_nothing_is_changed_until_resumed(guarded: None) -> None:
    paused = typed("pause", "--reason", "INC-7", "--output", "json")
    assert (paused.code, paused.json["paused"]["reason"]) == (0, "INC-7")
    client("xray").put_encryption_config(Type="NONE")
    assert looked() is Outcome.DEFERRED
    assert setting_type() == "NONE"
    assert "PAUSED" in typed("status").err
    assert typed("resume").code == 0
    assert looked() is Outcome.REMEDIATED
    assert setting_type() == "KMS"
    result = typed("history", "--target", "guard", "--output", "json").json["records"]
    assert [each["reason"] for each in result if each["reason"] in ("PAUSED", "RESUMED")] == ["RESUMED", "PAUSED"]
    assert all(ACCOUNT in each["trigger"]["actor"]["arn"] for each in result if each["reason"] in ("PAUSED", "RESUMED"))


def test_pausing_twice_and_resuming_twice_says_no_and_keeps_the_first_reason(guarded: None) -> None:
    assert typed("pause", "--reason", "first").code == 0
    again = typed("pause", "--reason", "second", "--output", "json")
    assert (again.code, again.json["paused"]["reason"]) == (1, "first")
    assert [typed("resume").code, typed("resume").code] == [0, 1]


def test_pausing_takes_a_reason(guarded: None) -> None:
    assert typed("pause").code == 2
    assert typed("pause", "--reason", "  ").code == 2
    assert guard().store.load(HERE).guard.paused is None


def change_now(event_id: str) -> dict[str, Any]:
    """The event of a change to NONE that was made now."""
    detail = {**event()["detail"], "eventID": event_id, "eventTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    return {**event(), "detail": detail}


def test_a_break_glass_administrator_opens_lists_and_closes(break_glass_administrator: None) -> None:
    opened = typed("break-glass", "open", HERE, "--for", "2h", "--reason", "INC-1234 vendor", "--output", "json")
    assert opened.code == 0, opened.err
    assert tags()["xray-guard-break-glass"] == opened.json["value"]
    client("xray").put_encryption_config(Type="NONE")
    assert looked() is Outcome.SUPPRESSED
    (listed,) = typed("break-glass", "list", "--output", "json").json["break_glass"]
    assert (listed["target"], listed["status"], listed["let_through"]) == (HERE, "open", 1)
    assert listed["reason"] == "INC-1234 vendor"
    delivered(change_now("first"))
    delivered(change_now("another person's"))
    (listed,) = typed("break-glass", "list", "--output", "json").json["break_glass"]
    assert listed["let_through"] == 2, "each change counts, also during one incident"
    assert typed("break-glass", "close", HERE).code == 0
    assert looked() is Outcome.REMEDIATED
    assert typed("break-glass", "list", "--output", "json").json["break_glass"] == []
    (ended,) = typed("break-glass", "list", "--all", "--output", "json").json["break_glass"]
    assert ended["status"] == "ended: REMOVED"


def test_nobody_else_can_open_one_not_even_the_administrator(guarded: None) -> None:
    refused = typed("break-glass", "open", HERE, "--for", "2h", "--reason", "INC-1")
    assert refused.code == 254
    assert "role/SecurityBreakGlass" in refused.err
    assert "xray-guard-break-glass" not in tags()


@pytest.mark.parametrize(("span", "words"), [("3d", "3 days"), ("1w", "1 week"), ("721m", "12 hours 1 minute")])
def test_a_break_glass_longer_than_the_rules_cap_is_refused(
    span: str, words: str, break_glass_administrator: None
) -> None:
    opened = typed("break-glass", "open", HERE, "--for", span, "--reason", "INC-1")
    assert (opened.code, opened.out) == (2, "")
    assert f"{span} is {words}, and the rule allows at most 12 hours" in opened.err
    assert "xray-guard-break-glass" not in tags()


def test_a_break_glass_is_announced_as_it_is_set(break_glass_administrator: None) -> None:
    opened = typed("break-glass", "open", "us-east-1", "--for", "90m", "--reason", "INC-1", "--output", "json")
    assert opened.code == 0
    assert f"No remediation for 1 hour 30 minutes, until {opened.json['until']}" in opened.err
    end = datetime.strptime(opened.json["value"].split()[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert opened.json["until"] == f"{end:%Y-%m-%dT%H:%M:%SZ}"
    assert tags()["xray-guard-break-glass"] == opened.json["value"]


def read_all() -> None:
    """Let the guard read everything about the target, as at an event of the key."""
    reconcile(guard(), Target.parse(HERE), Trigger(TriggerKind.KEY))


def waited(*words: str, after: int = 2, then: Callable[[], object] = lambda: read_all()) -> tuple[Answer, int]:
    """Type a command; in the pause number `after` something happens. Returns the number of pauses, too."""
    pauses = 0

    def sleep(seconds: float) -> None:
        nonlocal pauses
        pauses += 1
        if pauses == after:
            then()

    return typed(*words, sleep=sleep), pauses


OPEN = ("break-glass", "open", HERE, "--for", "2h", "--reason", "INC-1", "--wait", "--output", "json")
CLOSE = ("break-glass", "close", HERE, "--wait", "--output", "json")


def test_p14_open_and_close_wait_until_the_guard_has_seen_the_tag(break_glass_administrator: None) -> None:
    opened, pauses = waited(*OPEN)
    assert (opened.code, opened.json["status"], pauses) == (0, "open", 2)
    assert "the break-glass is in force" in opened.err
    (listed,) = typed("break-glass", "list", "--output", "json").json["break_glass"]
    assert listed["status"] == "open"
    closed, pauses = waited(*CLOSE)
    assert (closed.code, closed.json["status"], pauses) == (0, "closed", 2)
    assert typed("break-glass", "list", "--output", "json").json["break_glass"] == []
    again, pauses = waited(*CLOSE)
    assert (again.code, pauses) == (0, 0), "nothing is in force"


def test_p14_open_says_why_the_guard_refuses_the_tag(break_glass_administrator: None) -> None:
    def without_deny() -> None:
        kms = client("kms")
        policy = json.loads(kms.get_key_policy(KeyId=managed_key(), PolicyName="default")["Policy"])
        policy["Statement"] = [each for each in policy["Statement"] if each["Effect"] != "Deny"]
        kms.put_key_policy(KeyId=managed_key(), PolicyName="default", Policy=json.dumps(policy))
        read_all()

    opened, pauses = waited(*OPEN, then=without_deny)
    assert (opened.code, opened.json["status"], pauses) == (1, "refused: DENY_MISSING", 2)
    assert "does not accept the tag: the key policy did not deny the tag to others" in opened.err
    assert typed("break-glass", "list", "--output", "json").json["break_glass"] == []
    (refused,) = typed("break-glass", "list", "--all", "--output", "json").json["break_glass"]
    assert refused["status"] == "refused: DENY_MISSING"


def test_p14_open_gives_up_after_five_minutes_and_says_what_is_known(break_glass_administrator: None) -> None:
    opened, pauses = waited(*OPEN, then=lambda: None)
    assert (opened.code, opened.json["status"], pauses) == (1, None, 150)
    assert "The guard has not seen the change within 5 minutes." in opened.err
    assert "xray-guard doctor" in opened.err
    assert f"xray-guard break-glass close {HERE}" in opened.err
    assert tags()["xray-guard-break-glass"] == opened.json["value"]
    read_all()
    closed, pauses = waited(*CLOSE, then=lambda: None)
    assert (closed.code, closed.json["status"], pauses) == (1, None, 150)
    assert "It reads an open break-glass every minute" in closed.err


def test_every_reason_against_a_tag_has_its_words() -> None:
    from chalicelib.cli.break_glass import WHY_NOT
    from chalicelib.domain.breakglass import RESUMABLE, Closing
    from chalicelib.domain.tagvalue import Refusal

    assert set(WHY_NOT) == {*Refusal, *(set(Closing) - RESUMABLE)}


@pytest.mark.parametrize(
    ("span", "reason"),
    [("2", "INC-1"), ("0h", "INC-1"), ("soon", "INC-1"), ("2h", " "), ("2h", "<b>"), ("2h", "x" * 256)],
)
def test_a_value_that_would_not_count_is_not_even_set(span: str, reason: str, break_glass_administrator: None) -> None:
    assert typed("break-glass", "open", HERE, "--for", span, "--reason", reason).code == 2
    assert "xray-guard-break-glass" not in tags()


def test_without_a_managed_key_it_says_what_to_do_instead() -> None:
    with world():
        answer = typed("break-glass", "open", HERE, "--for", "2h", "--reason", "INC-1")
    assert answer.code == 253
    assert "ensure" in answer.err


def without_break_glass(folder: Path, **changes: Any) -> str:
    """The path of the policy that ships, with no `break_glass` in its rule, and with these fields of it changed."""
    document = json.loads((PROJECT / "policies" / "policy.json").read_text("utf-8"))
    (rule,) = document["rules"]
    rule.pop("break_glass")
    rule.update(changes)
    path = folder / "policy.json"
    path.write_text(json.dumps(document), "utf-8")
    return str(path)


@pytest.mark.parametrize(
    "verb", [("open", HERE, "--for", "2h", "--reason", "INC-1"), ("close", HERE)], ids=["open", "close"]
)
def test_a_rule_without_break_glass_is_said_to_have_none(
    verb: tuple[str, ...], break_glass_administrator: None, tmp_path: Path
) -> None:
    answer = typed("break-glass", *verb, "--policy", without_break_glass(tmp_path))
    assert answer.code == 253
    assert f"rule baseline governs {HERE} and does not define `break_glass`" in answer.err
    assert "xray-guard-break-glass" not in tags()


def test_a_target_without_a_rule_is_said_to_have_none(break_glass_administrator: None, tmp_path: Path) -> None:
    elsewhere = without_break_glass(tmp_path, regions=["eu-*"])
    answer = typed("break-glass", "open", HERE, "--for", "2h", "--reason", "INC-1", "--policy", elsewhere)
    assert answer.code == 253
    assert f"no rule governs {HERE}" in answer.err


def test_a_key_is_replaced_only_on_an_operators_word(guarded: None) -> None:
    old = managed_key()
    request = typed("key", "replace", HERE, "--output", "json")
    assert (request.code, request.json["retired"], request.json["replaced"]) == (0, old, False)
    assert managed_key() == old
    done = typed("key", "replace", HERE, "--yes", "--output", "json")
    assert (done.code, done.json["replaced"]) == (0, True)
    assert looked() is Outcome.REMEDIATED
    new = managed_key()
    assert new != old
    assert client("xray").get_encryption_config()["EncryptionConfig"]["KeyId"] == new
    alias = client("kms").describe_key(KeyId="alias/xray-encryption")["KeyMetadata"]["Arn"]
    assert alias == new
    assert client("kms").describe_key(KeyId=old)["KeyMetadata"]["KeyState"] == "Enabled"


def test_a_key_is_handed_over_only_with_its_owners_tag_and_an_operators_word(guarded: None) -> None:
    kms, former = client("kms"), managed_key()
    metadata = kms.create_key(Description="theirs")["KeyMetadata"]
    arn = metadata["Arn"]
    untagged = typed("key", "adopt", HERE, metadata["KeyId"])
    assert untagged.code == 254
    assert f"aws kms tag-resource --region us-east-1 --key-id {arn} --tags" in untagged.err
    kms.tag_resource(KeyId=arn, Tags=[{"TagKey": "xray-guard", "TagValue": "managed"}])
    request = typed("key", "adopt", HERE, metadata["KeyId"], "--output", "json")
    assert (request.code, request.json["adopted"], request.json["done"]) == (0, arn, False)
    assert managed_key() == former
    done = typed("key", "adopt", HERE, arn, "--yes", "--output", "json")
    assert (done.code, done.json["retired"]) == (0, former)
    assert looked() is Outcome.REMEDIATED
    assert managed_key() == arn
    assert client("xray").get_encryption_config()["EncryptionConfig"]["KeyId"] == arn
    assert kms.describe_key(KeyId="alias/xray-encryption")["KeyMetadata"]["Arn"] == arn
    assert kms.get_key_rotation_status(KeyId=arn)["KeyRotationEnabled"]


def test_there_is_no_key_to_replace_where_none_is_recorded() -> None:
    with world():
        answer = typed("key", "replace", HERE, "--yes")
    assert answer.code == 254
    assert "no managed key" in answer.err
