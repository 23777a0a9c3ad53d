"""What a former version of the guard wrote is read and continued: states, records, markers, in the middle of things."""

from __future__ import annotations

import json

import pytest

from chalicelib.auditlog import hashchain
from chalicelib.domain.model import Target
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GUARD_CHAIN
from tests.simulation.beginnings import release
from tests.simulation.scenarios import Stage, stage
from tests.simulation.world import ACCOUNT
from tests.stored.tables import HERE, dumped, load

FORMER = "version-1.json"
REGIONS = ("us-east-1", "eu-west-1", "eu-central-1", "us-east-2")
TARGETS = tuple(Target(ACCOUNT, region) for region in REGIONS)


@pytest.fixture
def continued() -> Stage:
    """The former version's tables and AWS; nothing runs yet."""
    scene = stage()
    scene.lambdas.regions = REGIONS
    load(FORMER, scene)
    return scene


def holds(now: object, former: object) -> bool:
    """Whether a value has all that its former version had; fields may have been added anywhere."""
    if isinstance(former, dict) and isinstance(now, dict):
        return all(name in now and holds(now[name], value) for name, value in former.items())
    if isinstance(former, list) and isinstance(now, list):
        return len(now) == len(former) and all(map(holds, now, former))
    return now == former


def test_states_and_records_are_read_without_losing_a_field(continued: Stage) -> None:
    kept = json.loads((HERE / FORMER).read_text("utf-8"))
    now = dumped(continued)
    for name, item in kept["states"].items():
        former = json.loads(item["state"])
        state = continued.tables.guard() if name == GUARD_CHAIN else continued.tables.state(name)
        assert state.version == former["version"]
        assert holds(json.loads(now["states"][name]["state"]), former)
    for name, rows in kept["rows"].items():
        for row, record in zip(rows, continued.tables.records(name), strict=True):
            read = json.loads(hashchain.seal(record)[0])
            assert holds(read, json.loads(row["body"])), f"{name} {row['sk']} lost a field"


def test_what_was_in_the_middle_of_things_is_brought_to_its_end(continued: Stage) -> None:
    before = {name: list(rows) for name, rows in continued.tables.rows.items()}
    continued.lambdas.schedule()
    release(continued)
    continued.world.run(13 * 3600)
    for target in TARGETS:
        assert continued.witness.right(target), continued.witness.story(target)
        assert continued.tables.state(target).incident is None
    for name, rows in before.items():
        assert continued.tables.rows[name][: len(rows)] == rows, f"a record of {name} was rewritten"
    lost = [
        record for target in TARGETS for record in continued.tables.records(target) if record.reason == "WORKER_LOST"
    ]
    assert {record.target.rpartition("/")[2] for record in lost} >= {"eu-west-1", "eu-central-1"}
    suppressed = continued.tables.records(TARGETS[3])
    assert Outcome.SUPPRESSED in {record.outcome for record in suppressed}
    assert "BREAK_GLASS_ENDED" in {record.reason for record in suppressed}
    continued.witness.check_whole()
