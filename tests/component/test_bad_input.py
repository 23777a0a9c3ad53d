"""Bad input through the packaged functions: on the record or in the dead-letter queue, and never acted on wrongly.

P11 (a bad event costs one record or one dead letter) and P12 (no valid policy: no action, loudly).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings

from chalicelib.auditlog.hashchain import marker_key
from chalicelib.domain.events import read_change
from chalicelib.domain.model import Rejected
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GUARD_CHAIN, Record
from sandbox.server import Sandbox
from tests.component.guarded import (
    POLICY,
    aliased_key,
    change_setting,
    dead_letters,
    guarded,
    keys_behind_the_guard,
    records_of,
    repackaged,
    setting_of,
)
from tests.events.expected import FOLDER
from tests.unit.test_events_hostile import CHANGES, claimed_targets, mutated

TARGET = "111122223333/us-east-1"
REGIONS = ("us-east-1", "us-east-2", "eu-central-1", "us-gov-west-1")
GUARD_ROLE = "arn:aws:iam::111122223333:role/xray-guard"
BIGGEST_EVENT_BYTES = 256 * 1024


def none_event(**detail: Any) -> Any:
    """Root sets NONE, with fields of the record replaced, or removed where given as `...`."""
    event = json.loads((FOLDER / "13_success_none_root_console.json").read_bytes())
    return changed(event, detail=detail)


def changed(event: Any, *, detail: dict[str, Any] | None = None, **envelope: Any) -> Any:
    event = deepcopy(event)
    for holder, changes in ((event, envelope), (event["detail"], detail or {})):
        for name, value in changes.items():
            if value is ...:
                del holder[name]
            else:
                holder[name] = value
    return event


def padded(event: Any, name: str) -> Any:
    """The event with a text field of its record so long that the whole is as big as an event may be."""
    event["detail"][name] = ""
    event["detail"][name] = "A" * (BIGGEST_EVENT_BYTES - len(json.dumps(event)))
    return event


NAMES_NO_TARGET: dict[str, tuple[Any, str]] = {
    "an empty object": ({}, "NOT_OUR_EVENT"),
    "null": (None, "NOT_AN_OBJECT"),
    "a list": ([none_event()], "NOT_AN_OBJECT"),
    "a text": ("PutEncryptionConfig", "NOT_AN_OBJECT"),
    "a number": (13, "NOT_AN_OBJECT"),
    "no detail": (none_event() | {"detail": None}, "DETAIL_MISSING"),
    "a text for detail": (none_event() | {"detail": "{}"}, "DETAIL_MISSING"),
    "a detail that was left out for its size": (none_event() | {"detail": {"omitted": True}}, "DETAIL_OMITTED"),
    "another service's source": (none_event() | {"source": "aws.s3"}, "NOT_OUR_EVENT"),
    "another call": (none_event(eventName="PutTraceSegments"), "NOT_OUR_EVENT"),
    "a list for the call's name": (none_event(eventName=["PutEncryptionConfig"]), "NOT_OUR_EVENT"),
    "no account at all": (changed(none_event(recipientAccountId=...), account=...), "ACCOUNT_MISSING"),
    "an account of eleven digits": (none_event(recipientAccountId="11112222333"), "ACCOUNT_INVALID"),
    "a number for the account": (none_event(recipientAccountId=111122223333), "ACCOUNT_INVALID"),
    "two accounts": (none_event(recipientAccountId="444455556666"), "TARGET_MISMATCH"),
    "no Region at all": (changed(none_event(awsRegion=...), region=...), "REGION_MISSING"),
    "a Region that is none": (none_event(awsRegion="../../etc/passwd"), "REGION_INVALID"),
    "two Regions": (none_event(awsRegion="eu-central-1"), "TARGET_MISMATCH"),
}

READABLE: dict[str, Any] = {
    "no identity": none_event(userIdentity=...),
    "a text for the identity": none_event(userIdentity="root"),
    "an identity of a kind that nobody knows": none_event(userIdentity={"type": "Quantum", "arn": {"a": 1}}),
    "an identity whose ARN is hostile": none_event(
        userIdentity={"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/\x1b[2J<script>alert(1)</script>"}
    ),
    "no request id, event id, time, address or agent": none_event(
        eventID=..., requestID=..., eventTime=..., sourceIPAddress=..., userAgent=...
    ),
    "a time that is none": none_event(eventTime="yesterday"),
    "a number for the event's id": none_event(eventID=42),
    "an event id that would reach into another row": none_event(eventID="r#000000000001"),
    "an answer that is a list": none_event(responseElements=[], requestParameters=None),
    "an answer of a type that nobody knows": none_event(responseElements={"encryptionConfig": {"type": "DES"}}),
    "a hostile user agent": none_event(userAgent="=HYPERLINK(1)\r\n\x00\ud800; DROP TABLE audit; ${jndi:ldap://x}"),
    "a user agent that fills the whole event": padded(none_event(), "userAgent"),
    "parameters that fill the whole event": none_event(requestParameters={f"k{n}": "v" * 50 for n in range(3500)}),
    "lists in lists": none_event(requestParameters=json.loads("[" * 400 + "]" * 400)),
}


@pytest.fixture(scope="class")
def running() -> Iterator[Sandbox]:
    with guarded(regions=REGIONS[:3], retry_seconds=(0.05, 0.05)) as sandbox:
        yield sandbox


def last_record(sandbox: Sandbox, chain: str) -> Record:
    return records_of(sandbox, chain)[-1]


def is_json(event: Any) -> bool:
    """Whether AWS could have sent it: JSON knows neither infinity nor what is not a number."""
    try:
        json.dumps(event, allow_nan=False)
    except ValueError:
        return False
    return True


def audited(sandbox: Sandbox, chain: str, event_id: str) -> bool:
    """Whether the event's marker stands in the chain."""
    key = {"target": {"S": chain}, "sk": {"S": marker_key(event_id)}}
    return "Item" in sandbox.client("dynamodb").get_item(TableName="xray-guard-audit", Key=key)


class TestAnEventThatNamesNoTarget:
    @pytest.mark.parametrize("name", NAMES_NO_TARGET)
    def test_is_one_record_in_the_guards_own_chain_and_xray_is_not_touched(self, running: Sandbox, name: str) -> None:
        event, reason = NAMES_NO_TARGET[name]
        if isinstance(event, dict):
            event = {**event, "id": name.replace(" ", "-")}
            if isinstance(event.get("detail"), dict):
                event["detail"] = {**event["detail"], "eventID": event["id"]}
        before = len(records_of(running, GUARD_CHAIN))
        for _ in range(2):
            answer = running.invoke("on_change", event)
            assert answer.error is None
            assert answer.value()["reason"] == reason
        assert len(records_of(running, GUARD_CHAIN)) == before + 1, "one record, however often it comes"
        record = last_record(running, GUARD_CHAIN)
        assert (record.outcome, record.reason) == (Outcome.FAILED, reason)
        assert record.error is not None
        assert record.error.message
        assert records_of(running, TARGET) == []
        assert {setting_of(running, region)["Type"] for region in REGIONS[:3]} == {"NONE"}
        assert keys_behind_the_guard(running) == []


class TestAnEventThatIsStrangeButNamesItsTarget:
    @pytest.fixture
    def account(self, running: Sandbox) -> Iterator[Sandbox]:
        yield running
        running.reset()

    @pytest.mark.parametrize("name", READABLE)
    def test_is_a_hint_like_any_other_the_drift_is_put_right_and_the_record_is_fit_to_be_read(
        self, account: Sandbox, name: str
    ) -> None:
        event = READABLE[name]
        answer = account.invoke("on_change", event)
        assert answer.error is None
        assert answer.value()["outcome"] == "REMEDIATED"
        assert setting_of(account)["KeyId"] == aliased_key(account)
        record = last_record(account, TARGET)
        trigger = record.trigger
        for text in (trigger.event_id, trigger.user_agent, trigger.source_ip, str(trigger.actor)):
            assert text is None or (text.isprintable() and len(text) <= 2048)
        again = account.invoke("on_change", event)
        assert again.error is None
        assert last_record(account, TARGET) == record, "audited once, however often it comes"

    def test_an_unknown_identity_is_recorded_as_unknown_and_is_nobody_in_particular(self, account: Sandbox) -> None:
        account.invoke("on_change", none_event(userIdentity={"type": "Quantum"}))
        actor = last_record(account, TARGET).trigger.actor
        assert actor is not None
        assert (actor.arn, actor.type) == ("unknown", "Quantum")

    def test_who_only_pretends_to_be_the_guard_is_not_taken_for_an_echo(self, account: Sandbox) -> None:
        answer = account.invoke("on_change", none_event(userIdentity={"type": "AWSService", "invokedBy": GUARD_ROLE}))
        assert answer.value()["outcome"] == "REMEDIATED"


class TestAnyEventOfTheFolderWithAnyFieldChanged:
    named: ClassVar[set[str]] = set()

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(events=mutated(CHANGES))
    def test_is_audited_under_its_own_target_or_the_guard_and_touches_no_other(
        self, running: Sandbox, events: tuple[Any, Any]
    ) -> None:
        event = json.loads(json.dumps(events[1]))
        assume(is_json(event))
        type(self).named |= {target.region for target in claimed_targets(event)}
        found = read_change(event)
        answer = running.invoke("on_change", event)
        assert answer.error is None, answer.payload
        if isinstance(found, Rejected):
            assert audited(running, GUARD_CHAIN, found.event_id)
        elif answer.value()["reason"] != "ECHO":
            assert found.trigger.event_id is not None
            assert audited(running, str(found.target), found.trigger.event_id)
        assert {region for region in REGIONS[:3] if setting_of(running, region)["Type"] != "NONE"} <= self.named


NOT_READABLE = {
    "nothing": b"",
    "a text": b"not json",
    "half an event": json.dumps(none_event()).encode()[:500],
    "bytes that are no UTF-8": b"\xff\xfe",
    "lists in lists, deeper than JSON is read": b"[" * 100_000 + b"]" * 100_000,
}


class TestWhatLambdaCannotEvenRead:
    @pytest.mark.parametrize("name", NOT_READABLE)
    def test_ends_in_the_dead_letter_queue_after_lambdas_retries_and_the_next_event_is_handled(
        self, running: Sandbox, name: str
    ) -> None:
        running.functions.invoke_later("on_change", NOT_READABLE[name])
        assert running.idle(30)
        (letter,) = dead_letters(running)
        assert letter["requestContext"]["condition"] == "RetriesExhausted"
        assert letter["requestContext"]["approximateInvokeCount"] == 3
        answer = running.invoke("on_change", none_event(eventID=f"after-{name}"))
        assert answer.error is None


SHIPPED = POLICY.read_bytes()
WITHOUT_A_VALID_POLICY: dict[str, dict[str, bytes | None]] = {
    "absent": {"policies/policy.json": None},
    "altered": {"policies/policy.json": SHIPPED.replace(b'"rotation": true', b'"rotation": false')},
    "cut off": {"policies/policy.json": SHIPPED[:200]},
    "unstamped": {"policies/policy.stamp.json": None},
    "with a stamp that is none": {"policies/policy.stamp.json": b"{}"},
    "with the stamp of another document": {
        "policies/policy.stamp.json": json.dumps({"sha256": "0" * 64, "schema_sha256": "0" * 64}).encode()
    },
}


@pytest.mark.parametrize("how", WITHOUT_A_VALID_POLICY)
def test_without_a_valid_policy_nothing_is_done_and_the_event_is_kept_whole_as_a_dead_letter(
    how: str, tmp_path: Path
) -> None:
    """P12. The event is as big as events may be, for a queue that takes less would lose it."""
    package = repackaged(tmp_path, WITHOUT_A_VALID_POLICY[how])
    with guarded(package, retry_seconds=(0.05, 0.05)) as sandbox:
        event = padded(none_event(), "userAgent")
        sandbox.deliver(event)
        assert sandbox.idle(60)
        (letter,) = dead_letters(sandbox)
        assert letter["requestContext"]["condition"] == "RetriesExhausted"
        assert letter["requestPayload"] == event
        assert letter["responsePayload"]["errorType"] == "PolicyError"
        assert setting_of(sandbox)["Type"] == "NONE"
        assert keys_behind_the_guard(sandbox) == []
        assert records_of(sandbox, TARGET) == records_of(sandbox, GUARD_CHAIN) == []
        assert "no valid policy, so no action" in sandbox.log("on_change")


def test_without_a_valid_policy_tick_and_sweep_end_in_an_error_too(tmp_path: Path) -> None:
    """P12."""
    package = repackaged(tmp_path, WITHOUT_A_VALID_POLICY["unstamped"])
    with guarded(package) as sandbox:
        change_setting(sandbox, Type="KMS", KeyId="alias/aws/xray")
        for function in ("tick", "sweep"):
            answer = sandbox.invoke(function, {})
            assert (answer.error, answer.value()["errorType"]) == ("Unhandled", "PolicyError")
        assert setting_of(sandbox)["KeyId"] == aliased_key(sandbox, "alias/aws/xray")
        assert records_of(sandbox, GUARD_CHAIN) == []
