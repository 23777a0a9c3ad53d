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
    told = stage()
    told.world.user_puts(HOME, None)
    told.lambdas.schedule(first_sweep_after=None)
    assert told.converge(), told.witness.story()
    told.world.run(1200)
    told.world.delivery = lambda rng: []
    return told


def three_changes(told: Stage) -> list[ChangeEvent]:
    """Three users change the setting within a minute."""
    first = told.world.user_puts(HOME, None, ALICE)
    told.world.run(20)
    aws_managed = told.world.user_makes_key(HOME, manager="AWS", rotation=True, policy=BARE_POLICY)
    second = told.world.user_puts(HOME, aws_managed, BOB)
    told.world.run(20)
    third = told.world.user_puts(HOME, None, CAROL)
    told.world.run(20)
    return [first, second, third]


def records_of(told: Stage, event: ChangeEvent) -> list[Outcome]:
    return [
        record.outcome
        for record in told.tables.records(HOME)
        if record.trigger.event_id == event.trigger.event_id and record.outcome is not Outcome.REMEDIATED
    ]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_p5_in_any_order_and_repeated_the_same_events_end_in_the_same_state(order: tuple[int, ...]) -> None:
    told = well()
    key = told.managed_key()
    events = three_changes(told)
    for number in (*order, *order):
        told.lambdas.hear(events[number])
        told.world.run(30)
    assert told.converge(900), told.witness.story()
    assert told.world.setting(HOME).key_arn == key
    told.witness.check_right()
    told.witness.check_whole()
    for event in events:
        assert len(records_of(told, event)) == 1, told.witness.story()


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_p5_whichever_event_comes_first_the_drift_is_laid_to_who_made_what_stood_there(order: tuple[int, ...]) -> None:
    """Carol's change is what stood there; Alice made the same one before her, and Bob another."""
    told = well()
    before = len(told.tables.records(HOME))
    events = three_changes(told)
    for number in order:
        told.lambdas.hear(events[number])
        told.world.run(30)
    assert told.converge(900), told.witness.story()
    told_since = told.tables.records(HOME)[before:]
    (incident,) = [record for record in told_since if record.outcome is Outcome.REMEDIATED]
    past = told.tables.state(HOME).past[-1]
    assert past.id == incident.incident_id
    assert past.cause is not None
    assert past.cause.actor in (ALICE, CAROL), told.witness.story()


def test_p5_events_at_the_same_moment_are_each_audited_once_and_repaired_once() -> None:
    told = well()
    events = three_changes(told)
    puts = len(told.world.mutations)
    for event in (*events, *reversed(events)):
        told.lambdas.hear(event)
    assert told.converge(900), told.witness.story()
    told.witness.check_whole()
    for event in events:
        assert len(records_of(told, event)) == 1, told.witness.story()
    assert [mutation.name for mutation in told.world.mutations[puts:]] == ["PutEncryptionConfig"]


def test_p5_an_event_that_comes_after_a_sweep_repaired_its_drift_is_joined_to_that_incident() -> None:
    told = well()
    changed_at = told.world.clock
    event = told.world.user_puts(HOME, None, BOB)
    told.world.run(300)
    told.lambdas.sweep()
    assert told.converge(600), told.witness.story()
    repaired = told.tables.records(HOME)[-1]
    assert repaired.outcome is Outcome.REMEDIATED
    assert repaired.cause is None
    told.world.run(600)
    told.lambdas.hear(event)
    told.world.run(10)
    joined = told.tables.records(HOME)[-1]
    assert (joined.outcome, joined.incident_id) == (Outcome.COMPLIANT, repaired.incident_id)
    assert joined.trigger.actor == BOB
    assert joined.cause is not None
    assert joined.cause.actor == BOB
    assert joined.exposure_seconds is not None
    exposed = (repaired.at - changed_at).total_seconds()
    assert joined.exposure_seconds == pytest.approx(exposed, abs=1.5)
    told.witness.check_whole()


def test_p5_an_event_heard_while_another_worker_acts_is_audited_and_joined() -> None:
    told = well()
    told.world.settling = lambda rng: 5.0
    event = told.world.user_puts(HOME, None, BOB)
    told.lambdas.sweep()
    told.world.run(3)
    told.lambdas.hear(event)
    assert told.converge(600), told.witness.story()
    past = told.tables.state(HOME).past[-1]
    assert past.cause is not None
    assert past.cause.actor == BOB
    assert records_of(told, event) == [Outcome.DEFERRED]
    told.witness.check_whole()


def test_p6_a_lost_change_event_is_put_right_by_the_next_sweep() -> None:
    told = well()
    told.world.user_puts(HOME, None)
    told.world.run(3500)
    assert told.world.setting(HOME).key_arn is None, "nothing but the sweep may have told the guard"
    told.lambdas.sweep()
    told.world.run(10)
    assert told.world.setting(HOME).key_arn == told.managed_key()
    assert told.world.setting(HOME).status is EncryptionStatus.ACTIVE
    told.witness.check_whole()


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
    told = stage()
    told.world.user_puts(HOME, None)
    told.lambdas.schedule()
    assert told.converge(), told.witness.story()
    told.world.run(1200)
    with told.unheard():
        told.world.user_changes_key(HOME, told.managed_key(), **changes)
    assert told.converge(within_hours * 3600), told.witness.story()
    told.witness.check_whole()
