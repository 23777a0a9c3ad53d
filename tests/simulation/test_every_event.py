"""P5: every event about a target and its keys is recorded once, as itself, whatever the guard is doing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest

from chalicelib.domain.events import read_change
from chalicelib.domain.model import Actor, ChangeEvent, KeyEvent, Subject
from chalicelib.domain.stored import Change, Record
from tests.events.expected import FOLDER
from tests.simulation.beginnings import brake, quiet, stalls, ticking, worker
from tests.simulation.lambdas import baseline
from tests.simulation.scenarios import Stage
from tests.simulation.world import ACCOUNT, HOME

BOB = Actor(f"arn:aws:iam::{ACCOUNT}:user/Bob", "IAMUser")
MALLORY = Actor(f"arn:aws:iam::{ACCOUNT}:role/Mallory", "AssumedRole", session="shell")

Event = ChangeEvent | KeyEvent


def idle(scene: Stage) -> None:
    """Nothing is wrong and nobody acts."""


def backing_off(scene: Stage) -> None:
    for _ in range(4):
        scene.lambdas.hear(scene.world.user_puts(HOME, None))
        scene.world.run(20)
    backoff = scene.tables.state(HOME).backoff
    assert backoff.until is not None
    assert backoff.until > scene.world.clock


def in_progress(scene: Stage) -> None:
    scene.world.user_puts(HOME, None)
    run = worker(scene, "a worker")
    stalls(scene, run, "PutEncryptionConfig", 30)
    scene.world.run(5)
    assert scene.tables.state(HOME).is_held(scene.world.clock)


def paused(scene: Stage) -> None:
    brake(scene)


def observing(scene: Stage) -> None:
    scene.lambdas.policy = baseline(mode="observe")


def sets_none(scene: Stage) -> Event:
    return scene.world.user_puts(HOME, None, BOB)


def disables_the_key(scene: Stage) -> Event:
    return scene.world.user_disables_key(HOME, scene.managed_key(), MALLORY)


@pytest.mark.parametrize("deed", [sets_none, disables_the_key])
@pytest.mark.parametrize("doing", [idle, backing_off, in_progress, paused, observing])
@pytest.mark.parametrize("order", ["setting first", "key first"])
def test_p5_two_peoples_changes_are_recorded_once_each_under_their_own_names(
    doing: Callable[[Stage], None], deed: Callable[[Stage], Event], order: str
) -> None:
    scene = ticking(quiet())
    doing(scene)
    other = disables_the_key if deed is sets_none else sets_none
    deeds = [deed, other] if order == "setting first" else [other, deed]
    events = [each(scene) for each in deeds]
    for event in (*events, *reversed(events)):
        scene.lambdas.hear(event)
        scene.world.run(3)
    scene.world.run(3600)
    for event in events:
        (record,) = records_of(scene, event)
        assert record.trigger.actor == event.trigger.actor
        assert record.trigger.event_time == event.trigger.event_time
        assert record.change is not None
        assert record.change.after == ("NONE" if isinstance(event, ChangeEvent) else "Disabled")
    scene.witness.check_whole()


def test_p5_the_record_of_a_change_holds_the_value_before_it_and_after_it() -> None:
    scene = quiet()
    key = scene.managed_key()
    scene.lambdas.policy = baseline(mode="observe")
    foreign = f"arn:aws:kms:{HOME.region}:444455556666:key/theirs"
    changes = [None, foreign, key]
    for arn in changes:
        scene.lambdas.hear(scene.world.user_puts(HOME, arn, BOB))
        scene.world.run(30)
    recorded = [record.change for record in scene.tables.records(HOME) if record.trigger.actor == BOB and record.change]
    assert recorded == [
        Change(Subject.SETTING, None, f"KMS {key}", "NONE"),
        Change(Subject.SETTING, None, "NONE", f"KMS {foreign}"),
        Change(Subject.SETTING, None, f"KMS {foreign}", f"KMS {key}"),
    ]


def test_what_the_guard_did_about_an_event_is_no_second_record_of_it() -> None:
    scene = ticking(quiet())
    event = sets_none(scene)
    scene.lambdas.hear(event)
    scene.world.run(600)
    about = [record for record in scene.tables.records(HOME) if record.trigger.event_id == event.trigger.event_id]
    assert [(record.outcome.value, record.change is not None) for record in about] == [
        ("REMEDIATING", True),
        ("REMEDIATED", False),
    ]


def records_of(scene: Stage, event: Event) -> list[Record]:
    """The records that are the event's own."""
    records = scene.tables.records(HOME)
    return [record for record in records if record.change and record.trigger.event_id == event.trigger.event_id]


def test_p5_an_addendum_is_no_second_record_of_its_original() -> None:
    addendum = json.loads((FOLDER / "29_addendum_updated_data.json").read_bytes())
    original = copy.deepcopy(addendum)
    original["detail"]["eventID"] = addendum["detail"]["addendum"]["originalEventID"]
    original["detail"]["requestID"] = addendum["detail"]["addendum"]["originalRequestID"]
    del original["detail"]["addendum"]
    first, second = read_change(original), read_change(addendum)
    assert isinstance(first, ChangeEvent)
    assert first == second
