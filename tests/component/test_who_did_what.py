"""P5 over a table: who changed what is on the record once, and every face says the same, whatever the guard is doing.

Alice sets X-Ray to NONE, and mallory disables the key: in either order, with events that arrive twice, late or of the
same second, while the guard is idle, backs off, is paused, only observes, while another worker holds the lease, and
during nina's break-glass. `cells` makes it happen, once for the whole table; each test is one cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from typing import Any

import pytest
from werkzeug.test import Client

from chalicelib.console.site import Site
from chalicelib.domain.model import Subject
from chalicelib.domain.outcome_meanings import VIOLATIONS
from chalicelib.domain.reasons import Violation
from chalicelib.domain.stored import Record
from sandbox.gateway import Gateway
from tests.component.calling import call
from tests.component.cells import (
    ALICE,
    BREAK_GLASS,
    CELLS,
    IDLE,
    IN_PROGRESS,
    MALLORY,
    NINA,
    TWICE,
    Cell,
    Day,
    spent_day,
)
from tests.component.operated import Typist, typed

ADMINISTRATOR = "arn:aws:iam::123456789012:user/administrator"
HOST = "127.0.0.1:8710"
MAKERS = {"NOT_KMS": ALICE, "KEY_DISABLED": MALLORY, "AWS_MANAGED_KEY": ADMINISTRATOR}
"""Who makes each violation, in every cell."""


@dataclass(frozen=True)
class Faces:
    """What the three faces show of the day."""

    day: Day
    gateway: Gateway
    console: Client

    def api(self, path: str) -> Any:
        answer = call(self.gateway, path)
        assert answer.status == 200, answer.body
        return answer.json()

    def page(self, path: str) -> str:
        answer = self.console.get(path, headers={"Host": HOST})
        assert answer.status_code == 200
        return unescape(" ".join(re.sub(r"<[^>]*>", " ", answer.get_data(as_text=True)).split()))


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faces]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_ALLOW_NONEXISTENT_REGION", "true")
        with spent_day(tmp_path_factory.mktemp("table"), patch.setenv) as day, Gateway(day.sandbox) as gateway:
            yield Faces(day, gateway, Client(Site(Typist, [HOST])))


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_p5_every_face_says_who_did_what(cell: Cell, faces: Faces) -> None:
    records = faces.day.records(cell)
    own = each_change_is_recorded_once(cell, records)
    no_violation_is_attributed_to_anybody_else(records)
    incident = faces.api(f"/v1/records?target={cell.target}&limit=100")
    assert incident == typed("history", "--target", str(cell.target), "--limit", "100", "--output", "json").json
    assert [each["record_id"] for each in reversed(incident["records"])] == [record.record_id for record in records]
    incidents = [
        an_incident_is_the_same_everywhere(faces, record.incident_id, cell)
        for record in records
        if record.incident_id == record.record_id
    ]
    every_incident_lists_who_did_what(cell, own, incidents)
    the_filter_finds_those_who_had_a_part(faces, cell, incident["records"], incidents)


def each_change_is_recorded_once(cell: Cell, records: list[Record]) -> dict[str, Record]:
    """The records of alice's and mallory's calls."""
    own = {}
    for what, actor, after in (("setting", ALICE, "NONE"), ("key", MALLORY, "Disabled")):
        event_id = cell.events[what]["detail"]["eventID"]
        (record,) = [each for each in records if each.change and each.trigger.event_id == event_id]
        assert record.trigger.actor is not None
        assert record.trigger.actor.arn == actor
        assert record.change is not None
        assert record.change.after == after
        own[what] = record
    setting, key = own["setting"].change, own["key"].change
    assert setting is not None
    assert key is not None
    assert (setting.subject, setting.before) == (Subject.SETTING, cell.setting_before)
    assert (key.subject, key.resource) == (Subject.KEY_STATE, cell.key_arn)
    assert key.before == "Enabled"
    changed = {record.trigger.actor.arn for record in records if record.change and record.trigger.actor}
    extra = {IN_PROGRESS: {ADMINISTRATOR}, BREAK_GLASS: {NINA}}
    assert changed == {ALICE, MALLORY} | extra.get(cell.doing, set())
    return own


def no_violation_is_attributed_to_anybody_else(records: list[Record]) -> None:
    """Each violation is attributed to its maker in the end, and to nobody else before."""
    latest: dict[tuple[str | None, str], list[str]] = {}
    for record in records:
        for attribution in record.attributions:
            actors = [event.actor.arn for event in attribution.events]
            assert actors in ([], [MAKERS[attribution.violation]])
            latest[record.incident_id, attribution.violation] = actors
        assert {each.violation for each in record.attributions} >= set(record.violations)
    assert latest
    assert {name: MAKERS[name[1]] for name in latest} == {name: ",".join(actors) for name, actors in latest.items()}


def an_incident_is_the_same_everywhere(faces: Faces, incident_id: str | None, cell: Cell) -> Any:
    """The incident, which API, command line and console show with the same people and changes."""
    assert incident_id is not None
    seq = incident_id.rpartition("#")[2]
    incident = faces.api(f"/v1/incidents/{cell.target.account}.{cell.region}.{seq}")
    assert incident == typed("show", incident_id, "--output", "json").json
    text = typed("show", incident_id).out
    page = faces.page(f"/incidents/{cell.target}/{seq}")
    page = page[page.index("Who did what") : page.index("Timeline")]
    for person in incident["people"]:
        name = person["actor"]["arn"].split(":")[-1]
        (line,) = [each for each in text.splitlines() if each.startswith("  person:") and f" {name}" in each]
        parts = line.rpartition(": ")[2]
        labelled = parts
        for violation in person["violations"]:
            labelled = labelled.replace(f"made {violation}", f"violation: {VIOLATIONS[Violation(violation)].label}")
        assert f"{labelled[:1].upper()}{labelled[1:]} {person['actor']['arn']}" in page
        assert all(f"made {violation}" in parts for violation in person["violations"])
        for change in person["changes"]:
            what = f"{change['after']} ({change['event_name']} at {change['at']})"
            assert what in text
            assert what in page
            assert f"record {change['record_id'].rpartition('#')[2]}" in page
    cause = incident["cause"] and incident["cause"]["actor"]["arn"]
    assert f"who: {cause.split(':')[-1] if cause else 'unknown'}" in re.sub(r" +", " ", text)
    assert cause == expected_cause(cell, incident)
    return incident


def expected_cause(cell: Cell, incident: Any) -> str:
    """Who made the change that began the incident."""
    if cell.doing == IN_PROGRESS:
        return ADMINISTRATOR
    if cell.arrival == TWICE and cell.doing == IDLE:
        return MAKERS[incident["violations"][0]]
    return MALLORY if cell.arrival == TWICE and cell.first == "key" else ALICE


def every_incident_lists_who_did_what(cell: Cell, own: dict[str, Record], incidents: list[Any]) -> None:
    """Each change is listed in the one incident in which it happened, under the name of who made it."""
    assert len(incidents) == (2 if cell.arrival == TWICE and cell.doing == IDLE else 1)
    for what, actor in (("setting", ALICE), ("key", MALLORY)):
        listed = [
            (person["actor"]["arn"], "event" in person["parts"], change["subject"], change["before"], change["after"])
            for incident in incidents
            for person in incident["people"]
            for change in person["changes"]
            if change["record_id"] == own[what].record_id
        ]
        change = own[what].change
        assert change is not None
        assert listed == [(actor, True, change.subject, change.before, change.after)]
    makers = {
        (violation, person["actor"]["arn"])
        for incident in incidents
        for person in incident["people"]
        for violation in person["violations"]
    }
    assert ("NOT_KMS", ALICE) in makers
    assert makers <= set(MAKERS.items())


def the_filter_finds_those_who_had_a_part(faces: Faces, cell: Cell, records: list[Any], incidents: list[Any]) -> None:
    """`--actor mallory` finds what mallory has a part in, and says which."""
    for name, actor in (("alice", ALICE), ("mallory", MALLORY)):
        parts = {
            each["record_id"]: [person["parts"] for person in each["people"] if person["actor"]["arn"] == actor]
            for each in records
        }
        where = f"target={cell.target}&actor={name}"
        found = faces.api(f"/v1/records?{where}&limit=100")["records"]
        assert [each["record_id"] for each in found] == [record_id for record_id, mine in parts.items() if mine]
        part_of = [each["id"] for each in faces.api(f"/v1/incidents?{where}")["incidents"]]
        assert part_of == [
            each["id"]
            for each in reversed(incidents)
            if any(person["actor"]["arn"] == actor for person in each["people"])
        ]
    lines = typed("history", "--target", str(cell.target), "--actor", "mallory", "--output", "wide").out.splitlines()
    assert "part" in lines[0].casefold().split()
    assert sum("made the call" in line for line in lines) == 1
    page = faces.page(f"/records?target={cell.target}&actor=mallory")
    assert page.count("role/mallory (shell): Made the call") == 1
