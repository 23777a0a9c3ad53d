"""Every face says why the guard waits, and until when, in the same words."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import pytest
from werkzeug.test import Client

from chalicelib.api.handlers import Service, handle
from chalicelib.api.operations import BY_NAME
from chalicelib.api.requests import Request
from chalicelib.console.site import Site
from chalicelib.domain.model import Target, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import TargetState
from chalicelib.loop.reconcile import reconcile
from chalicelib.operators.context import Operator
from tests.component.operated import HERE, client, delivered, event, guard, typed

HOST = "127.0.0.1:8710"
FIGHT = r"next attempt (within a minute|[0-9:]{8}|[0-9-]{10} [0-9:]{8}), backing off after 3 attempts against root"
PAUSE = r"no attempt until an operator runs `xray-guard resume`: paused by \S+ since [0-9: -]+: INC-7"


pytestmark = pytest.mark.usefixtures("shell")


def drifted(number: int) -> None:
    """Root sets X-Ray to NONE, and the event arrives."""
    client("xray").put_encryption_config(Type="NONE")
    document = event()
    document["detail"]["eventID"] = f"00000000-0000-4000-8000-{number:012d}"
    delivered(document)


def stored() -> TargetState:
    return guard().store.load(HERE).state


def console(path: str) -> str:
    """The text of a page. A page has the date before each time."""
    page = Client(Site(Operator, [HOST])).get(path, headers={"Host": HOST}).get_data(as_text=True)
    text = unescape(re.sub(r"<[^>]*>", "", page))
    return re.sub(r"\d{4}-\d\d-\d\d\s(\d\d:)", r"\1", text)


def api(operation: str, path: dict[str, str]) -> Any:
    operator = Operator()
    request = Request(BY_NAME[operation], path, {}, {}, b"", "caller", "id")
    return json.loads(handle(Service(operator.store, operator.now), request).body)


def said_everywhere(pattern: str) -> None:
    """Every face says it, in the same words."""
    incident = stored().incident
    assert incident is not None
    seq = incident.id.rpartition("#")[2]
    account, _, region = HERE.partition("/")
    texts = [
        typed("status").err,
        typed("show", incident.id).out,
        typed("history").err,
        str(typed("status", "--output", "json").json["targets"][0]["waiting"]["text"]),
        str(typed("show", incident.id, "--output", "json").json["waiting"]["text"]),
        str(api("incident", {"id": incident.id})["waiting"]["text"]),
        str(api("target", {"account": account, "region": region})["waiting"]["text"]),
        str(api("targets", {})["targets"][0]["waiting"]["text"]),
        *[console(path).replace('"', "'") for path in ("/", f"/targets/{HERE}", f"/incidents/{HERE}/{seq}")],
    ]
    found = [re.search(pattern, text) for text in texts]
    assert all(found), [text for text, match in zip(texts, found, strict=True) if not match]
    assert len({match.group() for match in found if match}) == 1


def test_p9_a_fight_is_named_with_its_rival_and_its_end(guarded: None) -> None:
    for number in range(1, 4):
        drifted(number)
    assert stored().outcome is Outcome.DEFERRED
    said_everywhere(FIGHT)


def test_a_pause_is_named_with_who_and_why_and_resume_promises_what_it_keeps(guarded: None) -> None:
    assert typed("pause", "--reason", "INC-7").code == 0
    drifted(1)
    said_everywhere(PAUSE)
    resumed = typed("resume")
    assert resumed.code == 0
    assert "the scheduled check takes up within a minute what was deferred because of the pause" in resumed.err
    assert f"{HERE}: next check within a minute, the pause has ended" in resumed.err
    assert reconcile(guard(), Target.parse(HERE), Trigger(TriggerKind.SWEEP)).outcome is Outcome.REMEDIATED
    assert HERE not in typed("resume").err


def test_resume_names_what_goes_on_waiting_for_something_else(guarded: None) -> None:
    for number in range(1, 4):
        drifted(number)
    assert typed("pause", "--reason", "INC-7").code == 0
    assert re.search(f"{HERE}: {FIGHT}", typed("resume").err)


def test_a_target_that_waits_for_nothing_says_nothing(guarded: None) -> None:
    assert HERE not in typed("status").err
    assert HERE not in typed("history").err
