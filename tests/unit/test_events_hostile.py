"""P11: whatever an event holds, reading it answers with a value, and never with another target than the event's own."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalicelib.auditlog.hashchain import seal, unseal
from chalicelib.domain.actors import read_actor
from chalicelib.domain.events import read_change, read_key_event
from chalicelib.domain.model import Actor, ChangeEvent, KeyEvent, Rejected, Target, Trigger
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import ZERO_HASH, Record
from tests.events.expected import EXPECTED
from tests.unit.test_events_keys import ALIAS_ARN, KEY_ARN, KEY_ID, kms_event, kms_notice

CHANGES = [json.loads(expected.path.read_bytes()) for expected in EXPECTED]
KEY_CHANGES = [
    kms_event("DisableKey", {"keyId": KEY_ID}, KEY_ARN),
    kms_event("DisableKey", {"keyId": KEY_ID}),
    kms_event("UpdateAlias", {"aliasName": "alias/xray-encryption", "targetKeyId": KEY_ID}, KEY_ARN, ALIAS_ARN),
    kms_event("TagResource", {"keyId": KEY_ID, "tags": [{"tagKey": "a", "tagValue": "b"}]}, KEY_ARN),
    kms_event("UntagResource", {"keyId": KEY_ID, "tagKeys": ["a"]}, KEY_ARN),
    kms_notice("KMS CMK Deletion"),
]

TEXT = st.text(st.characters(), max_size=40) | st.sampled_from(
    [
        "",
        "111122223333",
        "444455556666",
        "us-east-1",
        "eu-central-1",
        "arn:aws:iam::111122223333:role/SecurityBreakGlass",
        "arn:aws:sts::111122223333:assumed-role/a/b/c",
        "alias/xray-encryption",
        "2026-09-30T10:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "PutEncryptionConfig",
        "KMS",
        "x" * 10_000,
        "\ud800",
        "\x1b[31m",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
GARBAGE = JSON | st.binary() | st.sets(st.integers()) | st.just(object()) | st.just(10**6000)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every field of an event, its own root left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((*path, key), *paths(item, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn, events: list[Any]) -> tuple[Any, Any]:
    """An event, and the same with up to three of its fields removed or replaced by any JSON value."""
    original = draw(st.sampled_from(events))
    event = deepcopy(original)
    for _ in range(draw(st.integers(1, 3))):
        places = paths(event)
        if not places:
            break
        *parents, last = draw(st.sampled_from(places))
        holder = event
        for step in parents:
            holder = holder[step]
        if draw(st.booleans()):
            del holder[last]
        else:
            holder[last] = draw(JSON)
    return original, event


def claimed_targets(event: Any) -> set[Target]:
    """Every target that any mix of the event's own accounts and Regions could name."""
    detail = event.get("detail")
    detail = detail if isinstance(detail, dict) else {}
    accounts = {each for each in (event.get("account"), detail.get("recipientAccountId")) if isinstance(each, str)}
    regions = {each for each in (event.get("region"), detail.get("awsRegion")) if isinstance(each, str)}
    return {Target(account, region) for account in accounts for region in regions}


def assert_sound(trigger: Trigger) -> None:
    """What is passed on is bounded, printable, in UTC, and can be stored and read again."""
    assert trigger.event_id
    assert len(trigger.event_id) <= 128
    assert trigger.event_time is None or trigger.event_time.tzinfo is UTC
    actor = trigger.actor or Actor("unknown")
    for text in (
        trigger.event_id,
        trigger.event_name,
        trigger.request_id,
        trigger.source_ip,
        trigger.user_agent,
        actor.arn,
        actor.type,
        actor.session,
        actor.via,
        actor.issued_by,
    ):
        assert text is None or (0 < len(text) <= 2048 and text.isprintable())
    record = Record("r", "guard", 1, datetime(2026, 9, 30, tzinfo=UTC), Outcome.IGNORED, trigger, ZERO_HASH)
    assert unseal(seal(record)[0]) == record


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated(CHANGES))
def test_a_change_event_with_any_field_changed_is_read_or_rejected_and_names_no_target_but_its_own(
    events: tuple[Any, Any],
) -> None:
    _, event = events
    found = read_change(event)
    if isinstance(found, Rejected):
        assert found.reason
        assert found.detail
        assert 0 < len(found.event_id) <= 128
        return
    assert isinstance(found, ChangeEvent)
    assert claimed_targets(event) == {found.target}
    assert_sound(found.trigger)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated(KEY_CHANGES))
def test_a_key_event_with_any_field_changed_is_read_or_rejected_and_names_no_target_but_its_own(
    events: tuple[Any, Any],
) -> None:
    original, event = events
    found = read_key_event(event)
    if isinstance(found, Rejected):
        assert found.reason
        return
    assert isinstance(found, KeyEvent)
    assert found.target in claimed_targets(event)
    assert_sound(found.trigger)
    assert len(found.key_arns) <= 16
    assert all(arn.startswith("arn:") and ":key/" in arn and arn.isprintable() for arn in found.key_arns)
    if event == original:
        assert found.key_arns == (KEY_ARN,)


@settings(max_examples=300, deadline=None)
@given(GARBAGE)
def test_any_value_at_all_is_answered_with_a_value(value: object) -> None:
    assert isinstance(read_change(value), Rejected)
    assert isinstance(read_key_event(value), Rejected)
    assert isinstance(read_actor(value), Actor)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["userIdentity", "responseElements", "requestParameters", "errorCode", "eventID", "eventTime"]),
    GARBAGE,
)
def test_any_value_at_all_in_a_records_part_costs_no_more_than_that_part(part: str, value: object) -> None:
    event = deepcopy(CHANGES[1])
    event["detail"][part] = value
    found = read_change(event)
    assert isinstance(found, ChangeEvent)
    assert found.target == Target("111122223333", "us-east-1")
    assert_sound(found.trigger)


def nested(depth: int, kind: str) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


@pytest.mark.parametrize("kind", ["list", "dict"])
@pytest.mark.parametrize("part", ["userIdentity", "responseElements", "requestParameters", "extra"])
def test_an_event_nested_deeper_than_python_recurses_is_read(kind: str, part: str) -> None:
    event = deepcopy(CHANGES[1])
    deep = nested(100_000, kind)
    event["detail"][part] = deep
    del event["detail"]["eventID"], event["id"]
    found = read_change(event)
    assert isinstance(found, ChangeEvent)
    assert (found.trigger.event_id or "").startswith("sha256:")
    # Freed from the inside out: Python 3.11 frees a deep dictionary by recursion.
    while isinstance(deep, dict | list):
        deep = deep.pop("a") if isinstance(deep, dict) else deep.pop()


def test_an_event_of_256_kilobytes_is_read() -> None:
    event = deepcopy(CHANGES[1])
    event["detail"]["userAgent"] = "u" * 262_144
    event["detail"]["userIdentity"]["extra"] = [{"k": "v" * 100}] * 2000
    found = read_change(event)
    assert isinstance(found, ChangeEvent)
    assert_sound(found.trigger)


@pytest.mark.parametrize(
    "odd", [math.nan, math.inf, 10**5000, -(10**5000), b"\xff", {1: 2}, {None: None}, {(): ()}], ids=range(8)
)
def test_an_event_without_an_id_is_digested_whatever_it_holds(odd: object) -> None:
    event = deepcopy(CHANGES[1])
    del event["detail"]["eventID"], event["id"]
    event["detail"]["odd"] = odd
    first, second = read_change(event), read_change(deepcopy(event))
    assert isinstance(first, ChangeEvent)
    assert first == second
    del event["detail"]["odd"]
    other = read_change(event)
    assert isinstance(other, ChangeEvent)
    assert other.trigger.event_id != first.trigger.event_id


def test_a_value_that_holds_itself_is_digested_too() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert read_change([endless]) == read_change([endless])
