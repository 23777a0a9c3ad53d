"""What any release stored is read and continued, in the middle of things; what a newer release stored is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable

import pytest

from chalicelib.auditlog import hashchain
from chalicelib.domain.errors import FormatTooNew
from chalicelib.domain.formats import FIRST_FORMAT, FORMAT
from chalicelib.domain.model import Target
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import GUARD_CHAIN
from tests.simulation.beginnings import release
from tests.simulation.scenarios import Stage, stage
from tests.simulation.simulatedlog import SimulatedLog
from tests.simulation.world import ACCOUNT
from tests.stored.tables import HERE, dumped, load

FORMER = "version-1.json"
PRESENT = "version-3.json"
FORMATS = {FORMER: FIRST_FORMAT, "version-2.json": 2, PRESENT: FORMAT}
REGIONS = ("us-east-1", "eu-west-1", "eu-central-1", "us-east-2")
TARGETS = tuple(Target(ACCOUNT, region) for region in REGIONS)


@pytest.fixture(params=FORMATS)
def version(request: pytest.FixtureRequest) -> str:
    """The file that a release wrote."""
    return str(request.param)


@pytest.fixture
def continued(version: str) -> Stage:
    """A release's tables and AWS; nothing runs yet."""
    return loaded(version)


def loaded(version: str) -> Stage:
    scene = stage()
    scene.lambdas.regions = REGIONS
    load(version, scene)
    return scene


def holds(now: object, former: object) -> bool:
    """Whether a value has all that its former version had; fields may have been added anywhere."""
    if isinstance(former, dict) and isinstance(now, dict):
        return all(name in now and holds(now[name], value) for name, value in former.items())
    if isinstance(former, list) and isinstance(now, list):
        return len(now) == len(former) and all(map(holds, now, former))
    return now == former


def test_states_and_records_are_read_without_losing_a_field(continued: Stage, version: str) -> None:
    kept = json.loads((HERE / version).read_text("utf-8"))
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
    is_brought_to_its_end(continued)


def is_brought_to_its_end(continued: Stage) -> None:
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


# --- the number of the format ----------------------------------------------------------------------------------------


def test_what_this_release_stores_has_its_format(continued: Stage, version: str) -> None:
    """And what a former release stored, that has no number, is the first format; its records keep their bytes."""
    former = {name: len(rows) for name, rows in continued.tables.rows.items()}
    formats = {record.format for name in former for record in continued.tables.records(name)}
    assert formats == {FORMATS[version]}
    continued.lambdas.schedule()
    release(continued)
    continued.world.run(7200)
    new = {name: rows[former[name] :] for name, rows in continued.tables.rows.items()}
    assert new[GUARD_CHAIN]
    assert any(new[str(target)] for target in TARGETS)
    for name in (name for name, rows in new.items() if rows):
        assert json.loads(continued.tables.states[name][1])["format"] == FORMAT, name
        assert {json.loads(row.body)["format"] for row in new[name]} == {FORMAT}


def newer(scene: Stage, name: str, **fields: object) -> None:
    """A newer release stored this state, in a format that this one does not know."""
    version, state, due = scene.tables.states[name]
    changed = {**json.loads(state), "format": FORMAT + 1, **fields}
    scene.tables.states[name] = (version, json.dumps(changed).encode(), due)


def stored(scene: Stage, names: Iterable[str]) -> object:
    """Everything that the tables have about these chains."""
    tables = scene.tables
    return copy.deepcopy([(tables.states[name], tables.rows[name], tables.heads[name]) for name in names])


UNREADABLE = {"incident": "a text, where this release has an object"}
MISREAD = {"managed_key": "arn:aws:kms:us-east-1:111122223333:key/of-another-meaning"}


@pytest.mark.parametrize("fields", [{}, UNREADABLE, MISREAD], ids=["same fields", "unreadable", "readable"])
def test_a_state_of_a_newer_release_is_refused_and_nothing_is_stored_or_changed(fields: dict[str, object]) -> None:
    scene = loaded(PRESENT)
    release(scene)
    refused, other = TARGETS[0], TARGETS[1]
    newer(scene, str(refused), **fields)
    before, mutations = stored(scene, [str(refused)]), len(scene.world.mutations)
    event = scene.world.user_puts(refused, None)
    with scene.undelivered():
        scene.world.user_changes_key(refused, next(iter(scene.world.place(refused).kms.keys)), state="Disabled")
    scene.lambdas.schedule()
    scene.world.run(7200)
    assert stored(scene, [str(refused)]) == before
    of_guard = [each for each in scene.world.mutations[mutations:] if each.run and each.target == refused]
    assert of_guard == []
    assert not scene.lambdas.surprises
    assert event in scene.lambdas.dead_letters, "the event waits for the newer release"
    assert scene.witness.right(other), "the targets that this release knows are still guarded"
    (sweep, *_) = [each for each in scene.tables.records(GUARD_CHAIN)[::-1] if each.reason == Reason.SWEEP]
    assert (sweep.outcome, sweep.detail["unreached"]) == (Outcome.FAILED, {str(refused): "FORMAT_TOO_NEW"})


def test_a_guard_whose_own_state_is_of_a_newer_release_stores_and_changes_nothing_at_all() -> None:
    scene = loaded(PRESENT)
    release(scene)
    newer(scene, GUARD_CHAIN)
    names = sorted(scene.tables.states)
    before, mutations = stored(scene, names), len(scene.world.mutations)
    markers = set(scene.tables.markers)
    events = [scene.world.user_puts(target, None) for target in TARGETS]
    scene.lambdas.schedule()
    scene.world.run(7200)
    assert stored(scene, names) == before
    assert scene.tables.markers == markers
    assert [each for each in scene.world.mutations[mutations:] if each.run] == []
    assert not scene.lambdas.surprises
    assert [each for each in events if each not in scene.lambdas.dead_letters] == []
    with pytest.raises(
        FormatTooNew, match=rf"the state of guard, in format {FORMAT + 1}.*changed nothing.*Use the newer release"
    ):
        scene.tables.guard()


LOST = {"requests", "windows", "effects", "last_seen", "good_setting_at", "format", "backoffs", "keys_handed"}
LOST_OF_INCIDENTS = {"planned", "attributions", "makers", "earlier", "safe_at", "settles_in"}
LOST_OF_GUARD = {"policy_seq", "format"}


def as_stored_by_the_former_release(now: object, former: object) -> object:
    """A value after the former release read and stored it: msgspec ignores the fields that a type does not have."""
    if isinstance(now, dict) and isinstance(former, dict):
        return {
            name: as_stored_by_the_former_release(value, former[name]) for name, value in now.items() if name in former
        }
    return now


def test_after_a_rollback_to_the_first_release_this_one_continues() -> None:
    """docs/deploy.md says what such a rollback loses: the former release does not check the format."""
    scene = loaded(PRESENT)
    kept = json.loads((HERE / FORMER).read_text("utf-8"))
    for name, (version, state, due) in scene.tables.states.items():
        now, former = json.loads(state), json.loads(kept["states"][name]["state"])
        assert now.keys() - former.keys() == (LOST if name != GUARD_CHAIN else LOST_OF_GUARD)
        if now.get("incident") and former.get("incident"):
            assert now["incident"].keys() - former["incident"].keys() == LOST_OF_INCIDENTS
        scene.tables.states[name] = (version, json.dumps(as_stored_by_the_former_release(now, former)).encode(), due)
    scene.witness.rolled_back = True
    is_brought_to_its_end(scene)
    found = {(finding.target, finding.code) for finding in SimulatedLog(scene.tables).report().findings}
    assert found == {(str(target), "STATE_EDITED") for target in TARGETS}


def test_p16_a_rollback_of_protected_states_to_the_first_release_is_on_record_once_and_this_one_continues() -> None:
    """The first release drops the number of the format, as somebody would who forges a state."""
    scene = loaded(PRESENT)
    scene.lambdas.schedule()
    release(scene)
    scene.world.run(13 * 3600)
    kept = json.loads((HERE / FORMER).read_text("utf-8"))
    for name, (version, state, due) in scene.tables.states.items():
        now, former = json.loads(state), json.loads(kept["states"][name]["state"])
        scene.tables.states[name] = (version, json.dumps(as_stored_by_the_former_release(now, former)).encode(), due)
    before = {target: len(scene.tables.records(target)) for target in TARGETS}
    for target in TARGETS:
        scene.world.user_puts(target, None)
    scene.world.run(3600)
    for target in TARGETS:
        assert scene.witness.right(target), scene.witness.story(target)
        reasons = [record.reason for record in scene.tables.records(target)[before[target] :]]
        assert reasons.count(Reason.STATE_EDITED) == 1, scene.witness.story(target)
        assert Reason.KEY_NOT_ON_RECORD not in reasons
