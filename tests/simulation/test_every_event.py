"""P5: every event about a target and its keys is recorded once, as itself, whatever the guard is doing."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from chalicelib.domain.events import read_change
from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import Actor, ChangeEvent, KeyEvent, Subject
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.stored import Change, Record
from tests.events.expected import FOLDER
from tests.simulation.beginnings import brake, quiet, stalls, ticking, worker
from tests.simulation.lambdas import baseline
from tests.simulation.scenarios import Stage
from tests.simulation.test_break_glass import TAG, tag_key, value
from tests.simulation.world import ACCOUNT, HOME, Hazard, Run

BOB = Actor(f"arn:aws:iam::{ACCOUNT}:user/Bob", "IAMUser")
MALLORY = Actor(f"arn:aws:iam::{ACCOUNT}:role/Mallory", "AssumedRole", session="shell")

NINA = Actor(f"arn:aws:iam::{ACCOUNT}:role/SecurityBreakGlass", "AssumedRole", session="nina")
"""A break-glass administrator of the rule, who changes nothing else."""

Event = ChangeEvent | KeyEvent


def idle(scene: Stage) -> None:
    """Nothing is wrong and nobody acts."""


def backing_off(scene: Stage) -> None:
    for _ in range(4):
        scene.lambdas.deliver(scene.world.user_puts(HOME, None))
        scene.world.run(20)
    backoff = scene.tables.state(HOME).backoffs[Lane.SETTING]
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


def third_persons_tag_on_the_key(scene: Stage) -> None:
    """Nina suspends all remediation of the target; the changes are others'."""
    tag_key(scene, value(scene, 3), NINA)
    scene.world.run(30)
    (glass,) = scene.tables.state(HOME).suppressions
    assert (glass.opened_by, glass.refused) == (NINA, None)


def third_persons_tag_on_her_role(scene: Stage) -> None:
    """Nina's own change stands; those of others are made upon it."""
    scene.world.principal_tags[NINA.arn] = ((TAG, value(scene, 3)),)
    event = scene.world.user_puts(HOME, None, NINA)
    scene.lambdas.deliver(event)
    scene.world.run(30)
    (record,) = records_of(scene, event)
    assert (record.outcome, record.trigger.actor) == (Outcome.SUPPRESSED, NINA)


def sets_none(scene: Stage) -> Event:
    return scene.world.user_puts(HOME, None, BOB)


def disables_the_key(scene: Stage) -> Event:
    return scene.world.user_disables_key(HOME, scene.managed_key(), MALLORY)


SITUATIONS = [
    idle,
    backing_off,
    in_progress,
    paused,
    observing,
    third_persons_tag_on_the_key,
    third_persons_tag_on_her_role,
]


@pytest.mark.parametrize("deed", [sets_none, disables_the_key])
@pytest.mark.parametrize("doing", SITUATIONS)
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
        scene.lambdas.deliver(event)
        scene.world.run(3)
    scene.world.run(3600)
    for event in events:
        (record,) = records_of(scene, event)
        assert record.trigger.actor == event.trigger.actor
        assert record.trigger.event_time == event.trigger.event_time
        assert record.change is not None
        assert record.change.after == ("NONE" if isinstance(event, ChangeEvent) else "Disabled")
    scene.witness.check_whole()


def test_p14_a_third_persons_break_glass_lets_changes_stand_and_does_not_make_them_hers() -> None:
    scene = ticking(quiet())
    third_persons_tag_on_the_key(scene)
    mutations = len(scene.world.mutations)
    deeds = [sets_none(scene), disables_the_key(scene)]
    for event in deeds:
        scene.lambdas.deliver(event)
        scene.world.run(60)
    scene.world.run(3600)
    assert [each for each in scene.world.mutations[mutations:] if each.run] == []
    for event in deeds:
        (record,) = records_of(scene, event)
        assert record.outcome is Outcome.SUPPRESSED
        assert record.trigger.actor == event.trigger.actor
        assert record.suppression is not None
        assert record.suppression.opened_by == NINA
        assert record.cause is not None
        assert record.cause.actor == BOB
    owners = {each.violation: [cause.actor for cause in each.events] for each in record.attributions}
    assert owners == {Violation.NOT_KMS: [BOB]}
    scene.witness.check_whole()


def test_p5_the_record_of_a_change_holds_the_value_before_it_and_after_it() -> None:
    scene = quiet()
    key = scene.managed_key()
    scene.lambdas.policy = baseline(mode="observe")
    foreign = f"arn:aws:kms:{HOME.region}:444455556666:key/theirs"
    changes = [None, foreign, key]
    for arn in changes:
        scene.lambdas.deliver(scene.world.user_puts(HOME, arn, BOB))
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
    scene.lambdas.deliver(event)
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


def test_p5_an_addendum_is_read_as_its_original_with_an_id_of_its_own() -> None:
    addendum = json.loads((FOLDER / "29_addendum_updated_data.json").read_bytes())
    original = copy.deepcopy(addendum)
    original["detail"]["eventID"] = addendum["detail"]["addendum"]["originalEventID"]
    original["detail"]["requestID"] = addendum["detail"]["addendum"]["originalRequestID"]
    del original["detail"]["addendum"]
    first, second = read_change(original), read_change(addendum)
    assert isinstance(first, ChangeEvent)
    assert isinstance(second, ChangeEvent)
    assert (first.addendum_id, second.addendum_id) == (None, addendum["detail"]["eventID"])
    assert replace(second, addendum_id=None) == first


def completed(event: Event, **fields: object) -> Event:
    """CloudTrail's addendum to an event, which says more than the event did."""
    trigger = replace(event.trigger, source_ip="203.0.113.10", user_agent="aws-cli")
    return replace(event, trigger=trigger, addendum_id=f"addendum-{event.trigger.event_id}", **fields)


def notes_of(scene: Stage, event: Event) -> list[Record]:
    """The records of what an addendum says."""
    return [record for record in scene.tables.records(HOME) if record.trigger.event_id == event.addendum_id]


@pytest.mark.parametrize("deed", [sets_none, disables_the_key])
@pytest.mark.parametrize("order", list(itertools.permutations(("original", "addendum", "addendum"))))
def test_p5_what_an_addendum_says_is_recorded_once_in_any_order(
    deed: Callable[[Stage], Event], order: tuple[str, ...]
) -> None:
    """And the change itself is recorded once, by whichever of the two came first."""
    scene = ticking(quiet())
    original = deed(scene)
    addendum = completed(original)
    for which in order:
        scene.lambdas.deliver(original if which == "original" else addendum)
        scene.world.run(60)
    scene.world.run(600)
    (record,) = records_of(scene, original)
    first = original if order[0] == "original" else addendum
    assert record.trigger == first.trigger
    (note,) = notes_of(scene, addendum)
    assert (note.outcome, note.reason, note.change) == (Outcome.IGNORED, "ADDENDUM", None)
    assert note.trigger == replace(addendum.trigger, event_id=addendum.addendum_id)
    assert addendum.effect is not None
    assert note.detail == {
        "message": f"completes or corrects event {original.trigger.event_id}",
        "original_event_id": original.trigger.event_id,
        "subject": addendum.effect.subject.value,
        "resource": addendum.effect.resource,
        "after": addendum.effect.after,
    }
    assert scene.witness.right(), scene.witness.story()
    scene.witness.check_whole()


def test_p5_an_addendum_may_name_the_actor_the_setting_or_the_error_that_its_original_did_not() -> None:
    scene = ticking(quiet())
    original = sets_none(scene)
    nameless = replace(original, trigger=replace(original.trigger, actor=None), result=None)
    failed = completed(original, result=None, error_code="AccessDenied", error_message="denied after all")
    for event in (nameless, completed(original), replace(failed, addendum_id="another-addendum")):
        scene.lambdas.deliver(event)
        scene.world.run(60)
    notes = [record for record in scene.tables.records(HOME) if record.reason == "ADDENDUM"]
    assert [note.trigger.actor for note in notes] == [BOB, BOB]
    assert notes[0].detail["after"] == "NONE"
    assert notes[1].detail == {
        "message": f"completes or corrects event {original.trigger.event_id}",
        "original_event_id": original.trigger.event_id,
        "error_code": "AccessDenied",
        "error_message": "denied after all",
    }


def test_p7_an_addendum_to_an_echo_is_not_recorded() -> None:
    scene = ticking(quiet())
    scene.lambdas.deliver(sets_none(scene))
    scene.world.run(120)
    echo = next(event for event in scene.world.events[::-1] if event.trigger.request_id in scene.world.guards_requests)
    count = len(scene.tables.records(HOME))
    for event in (completed(echo), echo, completed(echo)):
        scene.lambdas.deliver(event)
        scene.world.run(30)
    assert len(scene.tables.records(HOME)) == count
    scene.witness.check_whole()


def fails_once(failing: int, hazard: Hazard) -> Callable[[Run, int, str], Hazard | None]:
    return lambda run, number, name: hazard if number == failing else None


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", ["crash", "silence", "throttle"])
def test_p5_an_addendum_is_recorded_once_whichever_call_of_its_run_fails(kind: str, late: bool) -> None:
    number = 0
    while True:
        scene = ticking(quiet())
        original = sets_none(scene)
        scene.lambdas.deliver(original)
        scene.world.run(60)
        addendum, before = completed(original), scene.world.calls
        failing = before + number
        scene.world.hazard = fails_once(failing, Hazard(kind, late))
        scene.lambdas.deliver(addendum)
        scene.world.run(600)
        assert len(notes_of(scene, addendum)) == 1, (number, scene.witness.story())
        assert len(records_of(scene, original)) == 1
        scene.witness.check_whole()
        if scene.world.calls <= failing:
            break
        number += 1
    assert number >= 4


def test_p5_two_deliveries_of_an_addendum_at_once_while_a_worker_acts_are_one_record() -> None:
    scene = ticking(quiet())
    original = sets_none(scene)
    scene.lambdas.deliver(original)
    for _ in range(3):
        scene.lambdas.deliver(completed(original))
        scene.world.run(0.1)
    scene.world.run(600)
    assert len(notes_of(scene, completed(original))) == 1
    assert not scene.lambdas.dead_letters
    assert scene.witness.right(), scene.witness.story()
    scene.witness.check_whole()


def test_p5_the_record_of_an_addendum_is_tried_again_if_another_event_is_recorded_first() -> None:
    scene = ticking(quiet())
    original = sets_none(scene)
    scene.lambdas.deliver(original)
    scene.world.run(300)
    scene.lambdas.deliver(completed(original))
    run = scene.lambdas.runs[-1]
    stalls(scene, run, "TransactWriteItems", 5)
    scene.world.run(2)
    refused = scene.world.user_fails(HOME, MALLORY)
    scene.lambdas.deliver(refused)
    scene.world.run(60)
    assert run.calls.count("TransactWriteItems") == 2, "it lost one race"
    (note,) = notes_of(scene, completed(original))
    assert note.seq == scene.tables.state(HOME).seq
    scene.witness.check_whole()
