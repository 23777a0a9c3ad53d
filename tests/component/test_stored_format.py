"""Tables that a newer release wrote, met by this one with the real store: it refuses them and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.api import handlers
from chalicelib.api.operations import BY_NAME
from chalicelib.api.requests import Request
from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.tables import AUDIT_TABLE, TARGETS_TABLE
from chalicelib.domain.errors import FormatTooNew
from chalicelib.domain.formats import FORMAT
from chalicelib.domain.stored import GUARD_CHAIN
from chalicelib.wiring import make_log_store
from tests.component.operated import (
    CREDENTIALS,
    HERE,
    REGION,
    client,
    delivered,
    event,
    setting,
    swept,
    typed,
    world,
)

SENTENCE = f"in format {FORMAT + 1}. This release knows formats up to {FORMAT}, so it changed nothing."


@pytest.fixture(autouse=True)
def deployed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A guard that has swept once and then remediated a change."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with world():
        swept()
        client("xray").put_encryption_config(Type="NONE")
        delivered(event())
        yield


def newer(name: str) -> None:
    """A newer release stores this state."""
    item = client("dynamodb").get_item(TableName=TARGETS_TABLE, Key={"target": {"S": name}})["Item"]
    item["state"] = {"S": json.dumps({**json.loads(item["state"]["S"]), "format": FORMAT + 1, "new": {"field": 1}})}
    client("dynamodb").put_item(TableName=TARGETS_TABLE, Item=item)


def stored() -> Any:
    """Every item of both tables."""
    tables = [client("dynamodb").scan(TableName=table)["Items"] for table in (AUDIT_TABLE, TARGETS_TABLE)]
    return [sorted(items, key=json.dumps) for items in tables]


@pytest.mark.parametrize("name", [HERE, GUARD_CHAIN])
def test_the_function_raises_before_it_writes_or_changes_anything(name: str) -> None:
    newer(name)
    client("xray").put_encryption_config(Type="NONE")
    before, drift = stored(), setting()
    change = event()
    change["detail"]["eventID"] = "11111111-2222-3333-4444-555555555555"
    with pytest.raises(FormatTooNew, match=SENTENCE):
        delivered(change)
    assert (stored(), setting()) == (before, drift)


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("check", HERE),
        ("reconcile", HERE, "--yes"),
        ("pause", "--reason", "test"),
        ("resume",),
        ("break-glass", "list"),
        ("key", "replace", HERE, "--yes"),
    ],
    ids=lambda words: words[0],
)
def test_the_command_line_says_so_and_changes_nothing(words: tuple[str, ...]) -> None:
    newer(HERE)
    newer(GUARD_CHAIN)
    before, present = stored(), setting()
    answer = typed(*words)
    assert answer.code == 253
    assert "FORMAT_TOO_NEW: a newer release of the guard stored the state of" in answer.err
    assert SENTENCE in answer.err
    assert "What to do: use the release of xray-guard that is deployed" in answer.err
    assert (stored(), setting()) == (before, present)


def test_the_log_is_shown_whatever_release_stored_the_states_and_a_mere_claim_of_a_later_one_is_found() -> None:
    """A later release stores a record with each state that it stores first, and here is none."""
    newer(HERE)
    newer(GUARD_CHAIN)
    history = typed("history", "--output", "json")
    assert history.code == 0
    assert {record["format"] for record in history.json["records"]} == {FORMAT}
    verified = typed("audit", "verify", "--output", "json")
    found = {(finding["target"], finding["code"]) for finding in verified.json["findings"]}
    assert (verified.code, found) == (1, {(HERE, "STATE_EDITED"), (GUARD_CHAIN, "STATE_EDITED")})


def test_the_api_says_so() -> None:
    newer(HERE)
    service = handlers.Service(make_log_store(Clients(), REGION, AwsClock()), lambda: pytest.fail("no time is needed"))
    account, region = HERE.split("/")
    for name in ("target", "reconcile"):
        request = Request(BY_NAME[name], {"account": account, "region": region}, {}, {}, b"", "arn", "1")
        before = stored()
        answer = handlers.handle(service, request)
        problem = json.loads(answer.body)
        assert (answer.status, problem["code"]) == (503, "FORMAT_TOO_NEW")
        assert SENTENCE in problem["detail"]
        assert stored() == before
