"""P13, P16: somebody edits a state in the tables. `audit verify` finds it, and the guard does not act on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.aws.tables import AUDIT_TABLE, TARGETS_TABLE
from chalicelib.domain.stored import GUARD_CHAIN
from tests.component.operated import CREDENTIALS, HERE, client, delivered, event, setting, swept, typed, world

STRANGERS_TAGS = [{"TagKey": "xray-guard", "TagValue": "managed"}]


@pytest.fixture(autouse=True)
def deployed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A guard that has swept once and then remediated a change."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with world():
        swept()
        drifts("1")
        yield


def drifts(number: str) -> None:
    """Somebody turns encryption off, and the guard receives the event."""
    client("xray").put_encryption_config(Type="NONE")
    change = event()
    change["detail"]["eventID"] = f"{number:0>8}-2222-3333-4444-555555555555"
    delivered(change)


def item(name: str) -> dict[str, Any]:
    found: dict[str, Any] = client("dynamodb").get_item(TableName=TARGETS_TABLE, Key={"target": {"S": name}})["Item"]
    return found


def edit(name: str, **fields: object) -> None:
    """One PutItem: the state with these fields, and all attributes as they were."""
    present = item(name)
    present["state"] = {"S": json.dumps({**json.loads(present["state"]["S"]), **fields})}
    client("dynamodb").put_item(TableName=TARGETS_TABLE, Item=present)


def findings() -> set[tuple[str, str]]:
    answer = typed("audit", "verify", "--output", "json")
    found = {(finding["target"], finding["code"]) for finding in answer.json["findings"]}
    assert answer.code == (1 if found else 0)
    return found


def strangers_key() -> str:
    arn: str = client("kms").create_key(Tags=STRANGERS_TAGS)["KeyMetadata"]["Arn"]
    return arn


def reasons() -> list[str | None]:
    return [record["reason"] for record in typed("history", "--output", "json").json["records"]]


def test_p16_what_the_guard_stored_verifies_whole_and_covers_every_record() -> None:
    report = typed("audit", "verify", "--output", "json").json
    assert (report["findings"], report["uncovered"]) == ([], 0)
    assert report["keys"] >= 3, "the nonce, the key and the mark"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("managed_key", "arn:aws:kms:us-east-1:123456789012:key/forged"),
        ("keys_made", ["arn:aws:kms:us-east-1:123456789012:key/forged"]),
        ("keys_retired", ["arn:aws:kms:us-east-1:123456789012:key/forged"]),
        ("intent", {"nonce": "forged", "due": "2026-11-20T12:00:00Z"}),
        ("suppressions", [{"carrier": "c", "value": "v", "reason": "", "first_seen": "2026-11-20T12:00:00Z",
                           "end": None, "until": None}]),
        ("keys_handed", ["arn:aws:kms:us-east-1:123456789012:key/x"]),
        ("backoffs", {"setting": {"count": 9}}),
        ("lease_number", 99),
    ],
)  # fmt: skip
def test_p16_an_edit_of_each_protected_field_is_found(name: str, value: object) -> None:
    edit(HERE, **{name: value})
    assert (HERE, "STATE_EDITED") in findings()
    delivered(event())
    assert (HERE, "STATE_EDITED") in findings()


def test_p16_a_state_that_claims_an_earlier_format_is_found_and_then_on_record() -> None:
    edit(HERE, format=2)
    assert findings() == {(HERE, "STATE_EDITED")}
    delivered(event())
    assert "STATE_EDITED" in reasons()


def test_p16_an_edit_of_the_pause_is_found() -> None:
    edit(GUARD_CHAIN, paused={"at": "2026-11-20T12:00:00Z", "by": "nobody", "reason": "none"})
    assert (GUARD_CHAIN, "STATE_EDITED") in findings()


@pytest.mark.parametrize("claims", [{}, {"format": 2}, {"format": 1}], ids=["this format", "format 2", "format 1"])
def test_p13_p16_x_ray_never_moves_to_a_key_that_is_only_in_the_state(claims: dict[str, int]) -> None:
    own, forged = setting()["KeyId"], strangers_key()
    edit(HERE, managed_key=forged, keys_made=[own, forged], **claims)
    drifts("2")
    drifts("3")
    assert setting()["Type"] == "NONE"
    assert "KEY_NOT_ON_RECORD" in reasons()
    key = {"target": {"S": HERE}, "sk": {"S": f"k#{forged}"}}
    assert "Item" not in client("dynamodb").get_item(TableName=AUDIT_TABLE, Key=key)
    assert {(HERE, "STATE_EDITED"), (HERE, "KEY_ROW_MISSING")} <= findings()
    assert typed("key", "replace", HERE, "--yes").code == 0
    assert typed("reconcile", HERE, "--yes").code == 0
    assert setting()["KeyId"] == own, "the guard takes its own key again"


def test_p16_an_item_that_is_hidden_from_the_index_is_found() -> None:
    present = item(HERE)
    present.pop("due_at", None)
    present["due_shard"], present["due_at"] = {"S": "due"}, {"S": "2099-01-01T00:00:00.000000Z"}
    client("dynamodb").put_item(TableName=TARGETS_TABLE, Item=present)
    assert findings() == {(HERE, "STATE_EDITED")}


def test_p9_p16_a_backoff_and_a_lease_in_the_far_future_do_not_stop_the_guard() -> None:
    edit(HERE, backoffs={"setting": {"count": 3, "last_at": "2026-11-20T12:00:00Z", "until": "2099-01-01T00:00:00Z"}})
    drifts("2")
    assert setting()["Type"] == "KMS"
    assert "STATE_EDITED" in reasons()
