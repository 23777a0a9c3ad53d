"""The packaged guard and what X-Ray's setting does not cover: spans in CloudWatch Logs, and copies of traces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import Record
from sandbox.server import Sandbox
from tests.component.guarded import (
    FOREIGN_ACCOUNT,
    guarded,
    other_key,
    policy_members,
    records_of,
    repackaged,
    setting_of,
    undelivered,
)

ACCOUNT = "123456789012"
HERE = f"{ACCOUNT}/us-east-1"
SPANS = "aws/spans"


@pytest.fixture
def remediated() -> Iterator[Sandbox]:
    """An account whose setting the guard has remediated."""
    with guarded(account=ACCOUNT) as account:
        yield well(account)


def well(account: Sandbox) -> Sandbox:
    account.client("xray").put_encryption_config(Type="NONE")
    assert account.idle(20)
    assert setting_of(account)["Type"] == "KMS"
    return account


def search_on(account: Sandbox) -> None:
    account.client("xray").update_trace_segment_destination(Destination="CloudWatchLogs")
    assert account.idle(20)


def key_of_spans(account: Sandbox) -> str | None:
    groups = account.client("logs").describe_log_groups(logGroupNamePrefix=SPANS)["logGroups"]
    found: str | None = next(each for each in groups if each["logGroupName"] == SPANS).get("kmsKeyId")
    return found


def last(account: Sandbox) -> Record:
    return records_of(account, HERE)[-1]


def test_transaction_search_without_a_key_is_remediated_and_so_is_whatever_is_done_to_the_key(
    remediated: Sandbox,
) -> None:
    search_on(remediated)
    key = setting_of(remediated)["KeyId"]
    assert key_of_spans(remediated) == key
    assert (last(remediated).outcome, last(remediated).violations) == (Outcome.REMEDIATED, ("SPANS_NOT_KMS",))
    assert "five more minutes" in str(last(remediated).detail["association"])

    remediated.client("logs").disassociate_kms_key(logGroupName=SPANS)
    assert remediated.idle(20)
    assert key_of_spans(remediated) == key

    theirs = other_key(remediated)
    document = json.loads(remediated.client("kms").get_key_policy(KeyId=key, PolicyName="default")["Policy"])
    remediated.client("kms").put_key_policy(KeyId=theirs, PolicyName="default", Policy=json.dumps(document))
    remediated.client("logs").associate_kms_key(logGroupName=SPANS, kmsKeyId=theirs)
    assert remediated.idle(20)
    assert key_of_spans(remediated) == key
    assert (last(remediated).outcome, last(remediated).violations) == (
        Outcome.REMEDIATED,
        ("SPANS_KEY_NOT_ALLOWED",),
    )
    (made,) = last(remediated).attributions
    assert [each.actor.arn for each in made.events] == [f"arn:aws:iam::{ACCOUNT}:user/administrator"]
    assert not [record for record in records_of(remediated, HERE) if record.reason == "ROLE_BORROWED"]


def test_one_event_puts_a_drift_of_the_setting_and_of_the_spans_right() -> None:
    with guarded(account=ACCOUNT) as account:
        with undelivered(account):
            search_on(account)
        well(account)
        assert key_of_spans(account) == setting_of(account)["KeyId"]


def test_where_the_rule_forbids_spans_in_logs_and_for_links_the_guard_only_raises_its_alarm(tmp_path: Path) -> None:
    def forbid(document: Any) -> None:
        document["rules"][0]["require"]["spans"] = "forbid"

    (tmp_path / "package").mkdir()
    package = repackaged(tmp_path / "package", policy_members(tmp_path, forbid))
    with guarded(package, account=ACCOUNT) as account:
        well(account)
        search_on(account)
        assert (last(account).outcome, last(account).reason) == (Outcome.OBSERVED, "SPANS_FORBIDDEN")
        assert key_of_spans(account) is None
        oam = account.client("oam", account=FOREIGN_ACCOUNT)
        sink = oam.create_sink(Name="monitoring")["Arn"]
        allow = {"Effect": "Allow", "Principal": "*", "Action": "oam:CreateLink", "Resource": "*"}
        oam.put_sink_policy(SinkIdentifier=sink, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allow]}))
        types = ["AWS::XRay::Trace"]
        account.client("oam").create_link(LabelTemplate="$AccountName", ResourceTypes=types, SinkIdentifier=sink)
        assert account.idle(20)
        assert last(account).violations == ("SPANS_FORBIDDEN", "TRACES_COPIED")
        assert FOREIGN_ACCOUNT in str(last(account).detail["copies"])
        assert len(account.client("oam").list_links()["Items"]) == 1
        assert account.client("xray").get_trace_segment_destination()["Destination"] == "CloudWatchLogs"
        account.client("xray").put_encryption_config(Type="NONE")
        assert account.idle(20)
        assert setting_of(account)["Type"] == "KMS"
