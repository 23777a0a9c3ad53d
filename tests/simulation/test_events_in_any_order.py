"""P5 and P6: events twice, late, out of order or never; the same end, each audited once, and joined to its incident."""

from __future__ import annotations

from itertools import permutations

import pytest

from chalicelib.domain.model import Actor, ChangeEvent, EncryptionStatus
from chalicelib.domain.reasons import Outcome
from tests.simulation.scenarios import BARE_POLICY, Stage, stage
from tests.simulation.world import ACCOUNT, ALICE, HOME

BOB = Actor(f"arn:aws:iam::{ACCOUNT}:user/Bob", "IAMUser")
CAROL = Actor(f"arn:aws:iam::{ACCOUNT}:user/Carol", "IAMUser")


def well() -> Stage:
    """A target that the guard has put right, long ago; from now on events come only when a test delivers them."""
    scene = stage()
    scene.world.user_puts(HOME, None)
    scene.lambdas.schedule(first_sweep_after=None)
    assert scene.converge(), scene.witness.story()
    scene.world.run(1200)
    scene.world.delivery = lambda rng: []
    return scene


def three_changes(scene: Stage) -> list[ChangeEvent]:
    """Three users change the setting within a minute."""
    first = scene.world.user_puts(HOME, None, ALICE)
    scene.world.run(20)
    aws_managed = scene.world.user_makes_key(HOME, manager="AWS", rotation=True, policy=BARE_POLICY)
    second = scene.world.user_puts(HOME, aws_managed, BOB)
    scene.world.run(20)
    third = scene.world.user_puts(HOME, None, CAROL)
    scene.world.run(20)
    return [first, second, third]


def records_of(scene: Stage, event: ChangeEvent) -> list[Outcome]:
    return [
        record.outcome
        for record in scene.tables.records(HOME)
        if record.trigger.event_id == event.trigger.event_id and record.outcome is not Outcome.REMEDIATED
    ]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_p5_in_any_order_and_repeated_the_same_events_end_in_the_same_state(order: tuple[int, ...]) -> None:
    scene = well()
    key = scene.managed_key()
    events = three_changes(scene)
    for number in (*order, *order):
        scene.lambdas.deliver(events[number])
        scene.world.run(30)
    assert scene.converge(900), scene.witness.story()
    assert scene.world.setting(HOME).key_arn == key
    scene.witness.check_right()
    scene.witness.check_whole()
    for event in events:
        assert len(records_of(scene, event)) == 1, scene.witness.story()


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_p5_whichever_event_comes_first_the_drift_is_laid_to_who_made_what_stood_there(order: tuple[int, ...]) -> None:
    """Carol's change is what stood there; Alice made the same one before her, and Bob another."""
    scene = well()
    before = len(scene.tables.records(HOME))
    events = three_changes(scene)
    for number in order:
        scene.lambdas.deliver(events[number])
        scene.world.run(30)
    assert scene.converge(900), scene.witness.story()
    told_since = scene.tables.records(HOME)[before:]
    (incident,) = [record for record in told_since if record.outcome is Outcome.REMEDIATED]
    past = scene.tables.state(HOME).past[-1]
    assert past.id == incident.incident_id
    assert past.cause is not None
    assert past.cause.actor in (ALICE, CAROL), scene.witness.story()


def test_p5_events_at_the_same_moment_are_each_audited_once_and_repaired_once() -> None:
    scene = well()
    events = three_changes(scene)
    puts = len(scene.world.mutations)
    for event in (*events, *reversed(events)):
        scene.lambdas.deliver(event)
    assert scene.converge(900), scene.witness.story()
    scene.witness.check_whole()
    for event in events:
        assert len(records_of(scene, event)) == 1, scene.witness.story()
    assert [mutation.name for mutation in scene.world.mutations[puts:]] == ["PutEncryptionConfig"]


def test_p5_an_event_that_comes_after_a_sweep_repaired_its_drift_is_joined_to_that_incident() -> None:
    scene = well()
    changed_at = scene.world.clock
    event = scene.world.user_puts(HOME, None, BOB)
    scene.world.run(300)
    scene.lambdas.sweep()
    assert scene.converge(600), scene.witness.story()
    repaired = scene.tables.records(HOME)[-1]
    assert repaired.outcome is Outcome.REMEDIATED
    assert repaired.cause is None
    scene.world.run(600)
    scene.lambdas.deliver(event)
    scene.world.run(10)
    joined = scene.tables.records(HOME)[-1]
    assert (joined.outcome, joined.incident_id) == (Outcome.COMPLIANT, repaired.incident_id)
    assert joined.trigger.actor == BOB
    assert joined.cause is not None
    assert joined.cause.actor == BOB
    assert joined.exposure_seconds is not None
    exposed = (repaired.at - changed_at).total_seconds()
    assert joined.exposure_seconds == pytest.approx(exposed, abs=1.5)
    scene.witness.check_whole()


def test_p5_an_event_heard_while_another_worker_acts_is_audited_and_joined() -> None:
    scene = well()
    scene.world.settling = lambda rng: 5.0
    event = scene.world.user_puts(HOME, None, BOB)
    scene.lambdas.sweep()
    scene.world.run(3)
    scene.lambdas.deliver(event)
    assert scene.converge(600), scene.witness.story()
    past = scene.tables.state(HOME).past[-1]
    assert past.cause is not None
    assert past.cause.actor == BOB
    assert records_of(scene, event) == [Outcome.DEFERRED]
    scene.witness.check_whole()


def test_p6_a_lost_change_event_is_put_right_by_the_next_sweep() -> None:
    scene = well()
    scene.world.user_puts(HOME, None)
    scene.world.run(3500)
    assert scene.world.setting(HOME).key_arn is None, "only the sweep may have found it"
    scene.lambdas.sweep()
    scene.world.run(10)
    assert scene.world.setting(HOME).key_arn == scene.managed_key()
    assert scene.world.setting(HOME).status is EncryptionStatus.ACTIVE
    scene.witness.check_whole()


@pytest.mark.parametrize(
    ("changes", "within_hours"),
    [
        ({"state": "Disabled"}, 1.1),
        ({"state": "PendingDeletion"}, 1.1),
        ({"policy": BARE_POLICY}, 25.1),
        ({"rotation": False, "rotation_days": None}, 25.1),
    ],
)
def test_p6_a_lost_key_event_is_put_right_by_a_sweep(changes: dict[str, object], within_hours: float) -> None:
    """States are read by every sweep; policy, rotation and tags once a day."""
    scene = stage()
    scene.world.user_puts(HOME, None)
    scene.lambdas.schedule()
    assert scene.converge(), scene.witness.story()
    scene.world.run(1200)
    with scene.undelivered():
        scene.world.user_changes_key(HOME, scene.managed_key(), **changes)
    assert scene.converge(within_hours * 3600), scene.witness.story()
    scene.witness.check_whole()
