"""P6: the packaged functions find in CloudTrail's Event history what EventBridge never delivered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.cloudtrail import EventHistoryApi
from chalicelib.domain.lookups import Look, Progress
from chalicelib.domain.model import TriggerKind
from chalicelib.domain.reasons import Reason
from chalicelib.wiring import make_history_store
from sandbox.server import Sandbox
from tests.component.guarded import GUARD_ACCOUNT, guarded, records_of, setting_of

HOUR = 3600.0
AWAY = "eu-west-1"
THERE = f"{GUARD_ACCOUNT}/{AWAY}"
NAME = [{"AttributeKey": "EventName", "AttributeValue": "PutEncryptionConfig"}]


@pytest.fixture(scope="module")
def _account() -> Iterator[Sandbox]:
    with guarded(clock_behind_seconds=24 * HOUR, regions=("us-east-1", AWAY)) as sandbox:
        yield sandbox


@pytest.fixture
def account(_account: Sandbox) -> Sandbox:
    """A guarded account whose clock can skip 24 hours."""
    _account.reset()
    return _account


@pytest.fixture
def clients(account: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Clients:
    """The adapters' clients of the account's administrator."""
    for name, value in (("ENDPOINT_URL", account.url), ("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test")):
        monkeypatch.setenv(f"AWS_{name}", value)
    return Clients()


def now(sandbox: Sandbox) -> datetime:
    """AWS's time."""
    return datetime.now(UTC) - timedelta(seconds=sandbox.state()["knobs"]["clock_behind_seconds"])


def around(sandbox: Sandbox) -> tuple[datetime, datetime]:
    """An hour before and after now."""
    return now(sandbox) - timedelta(hours=1), now(sandbox) + timedelta(hours=1)


def run(sandbox: Sandbox, schedule: str) -> None:
    assert sandbox.run_schedule(schedule)
    assert sandbox.idle(60)


def test_p6_a_toggle_in_another_region_without_forwarding_is_recorded_with_its_actor(account: Sandbox) -> None:
    run(account, "sweep")
    key = setting_of(account, AWAY).get("KeyId")
    xray = account.client("xray", AWAY)
    xray.put_encryption_config(Type="NONE")
    account.let_go_by(10)
    xray.put_encryption_config(**({"Type": "KMS", "KeyId": key} if key else {"Type": "NONE"}))
    assert account.idle(10)
    assert not [each for each in records_of(account, THERE) if each.change]
    account.let_go_by(0.5 * HOUR)
    run(account, "event_history")
    found = [each for each in records_of(account, THERE) if each.change]
    assert next(each.change.after for each in found if each.change) == "NONE"
    assert len(found) == 2
    assert {each.trigger.kind for each in found} == {TriggerKind.HISTORY}
    for record in found:
        assert record.trigger.actor is not None
        assert record.trigger.actor.arn.startswith(f"arn:aws:iam::{GUARD_ACCOUNT}:")
        assert record.trigger.source_ip == "127.0.0.1"
    account.let_go_by(1 * HOUR)
    run(account, "event_history")
    assert len([each for each in records_of(account, THERE) if each.change]) == 2
    (first, second) = [each for each in records_of(account, "guard") if each.reason == Reason.EVENT_HISTORY]
    assert (first.detail["missed"], second.detail["missed"]) == (2, 0)
    assert second.detail["refused"] == {}


def test_a_function_that_somebody_invokes_with_a_forged_event_leaves_an_unconfirmed_record(account: Sandbox) -> None:
    run(account, "sweep")
    at = now(account)
    forged = {
        "source": "aws.xray",
        "account": GUARD_ACCOUNT,
        "region": "us-east-1",
        "detail": {
            "eventID": "forged-1",
            "eventName": "PutEncryptionConfig",
            "eventSource": "xray.amazonaws.com",
            "eventTime": f"{at:%Y-%m-%dT%H:%M:%SZ}",
            "userIdentity": {"type": "IAMUser", "arn": f"arn:aws:iam::{GUARD_ACCOUNT}:user/Innocent"},
            "recipientAccountId": GUARD_ACCOUNT,
            "awsRegion": "us-east-1",
            "responseElements": {"encryptionConfig": {"type": "NONE"}},
        },
    }
    assert account.invoke("on_change", forged).error is None
    for hours in (1, 1.5, 1):
        account.let_go_by(hours * HOUR)
        run(account, "event_history")
    here = records_of(account, f"{GUARD_ACCOUNT}/us-east-1")
    (note,) = [each for each in here if each.reason == Reason.UNCONFIRMED]
    (record,) = [each for each in here if each.change and each.trigger.event_id == "forged-1"]
    assert note.detail == {"record_id": record.record_id, "event_id": "forged-1"}


def test_p6_of_lost_late_and_doubled_events_each_is_on_the_record_once(account: Sandbox) -> None:
    run(account, "sweep")
    account.turn(lose_events=2)
    xray = account.client("xray")
    xray.put_encryption_config(Type="NONE")  # lost
    with pytest.raises(ClientError):
        xray.put_encryption_config(Type="KMS", KeyId="alias/absent")  # lost
    account.turn(double_events=1)
    xray.put_encryption_config(Type="NONE")
    account.turn(delay_events=1, late_seconds=1.0)
    with pytest.raises(ClientError):
        xray.put_encryption_config(Type="KMS", KeyId="alias/absent")
    assert account.idle(60)
    account.let_go_by(0.5 * HOUR)
    run(account, "event_history")
    own = [
        each
        for each in records_of(account, f"{GUARD_ACCOUNT}/us-east-1")
        if each.change and each.trigger.event_name == "PutEncryptionConfig"
    ]
    assert sorted(each.trigger.kind for each in own) == ["change", "change", "history", "history"]
    assert len({each.trigger.event_id for each in own}) == 4


def test_p6_a_deaf_region_and_a_reading_are_counted_every_hour_for_their_alarms(account: Sandbox) -> None:
    run(account, "sweep")
    account.turn(lose_events=2)
    for _ in range(2):
        account.client("xray").put_encryption_config(Type="NONE")
    for hours in (0.5, 1):
        account.let_go_by(hours * HOUR)
        run(account, "event_history")
        for metric in ("Deaf", "EventHistoryRead"):
            (sent,) = re.findall(rf'"{metric}": ?\[([0-9.]+)\]', account.log("event_history").rpartition("START")[2])
            assert float(sent) == 1
    here = records_of(account, f"{GUARD_ACCOUNT}/us-east-1")
    assert len([each for each in here if each.reason == Reason.DEAF]) == 1


# --- the adapters ----------------------------------------------------------------------------------------------------


def impatient(sandbox: Sandbox, region: str) -> Any:
    """A client that does not retry."""
    return boto3.client(
        "cloudtrail",
        region_name=region,
        endpoint_url=sandbox.url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
    )


def code_of(refused: pytest.ExceptionInfo[ClientError]) -> str:
    return str(refused.value.response["Error"]["Code"])


def test_event_history_comes_in_pages_of_fifty_by_one_attribute_and_twice_a_second(account: Sandbox) -> None:
    xray = account.client("xray", AWAY)
    for _ in range(60):
        xray.put_encryption_config(Type="NONE")
    client = impatient(account, AWAY)
    first = client.lookup_events(LookupAttributes=NAME)
    assert len(first["Events"]) == 50
    rest = client.lookup_events(LookupAttributes=NAME, NextToken=first["NextToken"])
    assert len(rest["Events"]) == 10
    assert "NextToken" not in rest
    with pytest.raises(ClientError) as refused:
        [client.lookup_events(LookupAttributes=NAME) for _ in range(20)]
    assert code_of(refused) == "ThrottlingException"
    client = impatient(account, "us-east-1")  # the limit is of one Region
    with pytest.raises(ClientError) as refused:
        client.lookup_events(LookupAttributes=NAME, StartTime=datetime(2020, 1, 1), NextToken=first["NextToken"])
    assert code_of(refused) == "InvalidNextTokenException"
    with pytest.raises(ClientError) as refused:
        client.lookup_events(LookupAttributes=[*NAME, {"AttributeKey": "Username", "AttributeValue": "x"}])
    assert code_of(refused) == "InvalidLookupAttributesException"


def test_the_adapter_reads_page_after_page(account: Sandbox, clients: Clients) -> None:
    for _ in range(51):
        account.client("xray", AWAY).put_encryption_config(Type="NONE")
    history, (since, until) = EventHistoryApi(clients, AWAY), around(account)
    page = history.lookup(("EventName", "PutEncryptionConfig"), since, until)
    assert len(page.events) == 50
    rest = history.lookup(("EventName", "PutEncryptionConfig"), since, until, page.token)
    assert (len(rest.events), rest.token) == (1, None)


def test_the_adapter_finds_an_event_by_its_id_with_cloudtrails_record(account: Sandbox, clients: Clients) -> None:
    account.client("xray", AWAY).put_encryption_config(Type="NONE")
    history, (since, until) = EventHistoryApi(clients, AWAY), around(account)
    (event,) = history.lookup(("EventName", "PutEncryptionConfig"), since, until).events
    assert history.lookup(("EventId", event.event_id), since, until).events == (event,)
    assert json.loads(event.text)["eventID"] == event.event_id


def test_event_history_shows_an_event_after_its_delay(account: Sandbox, clients: Clients) -> None:
    account.turn(history_delay_seconds=600)
    account.client("xray", AWAY).put_encryption_config(Type="NONE")
    history, (since, until) = EventHistoryApi(clients, AWAY), around(account)
    assert history.lookup(("EventName", "PutEncryptionConfig"), since, until).events == ()
    account.let_go_by(900)
    assert len(history.lookup(("EventName", "PutEncryptionConfig"), since, until).events) == 1


def test_progress_is_kept_and_an_unreadable_one_starts_anew(account: Sandbox, clients: Clients) -> None:
    store = make_history_store(clients, "us-east-1", AwsClock())
    at = datetime(2026, 11, 20, tzinfo=UTC)
    progress = Progress(until=at, look=Look(at, at, at), missed_in_a_row=1, ever_received=True, deaf_since=at)
    store.keep(THERE, progress)
    assert store.progress([THERE, "another"]) == {THERE: progress}
    item = {"target": {"S": f"history#{THERE}"}, "progress": {"S": '{"until": "yesterday"}'}}
    account.client("dynamodb").put_item(TableName="xray-guard-targets", Item=item)
    assert store.progress([THERE]) == {THERE: Progress()}


def test_the_newest_records_are_read_in_order_back_to_a_time(account: Sandbox, clients: Clients) -> None:
    run(account, "sweep")
    account.client("xray").put_encryption_config(Type="NONE")
    assert account.idle(30)
    records = records_of(account, f"{GUARD_ACCOUNT}/us-east-1")
    store = make_history_store(clients, "us-east-1", AwsClock())
    found = store.recorded(records[0].target, records[1].at)
    assert [each.record_id for each in found] == [each.record_id for each in records if each.at >= records[1].at]
    by_id = {each.record_id: each for each in records}
    assert all(each.trigger == by_id[each.record_id].trigger for each in found)
    sent = {call.request_id for each in found for call in each.actions}
    assert sent >= {action.request_id for action in records[-1].actions}
