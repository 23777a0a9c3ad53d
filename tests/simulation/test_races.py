"""P8: one worker acts, by a lease; nothing is sent after its end; an expired lease is taken over."""

from __future__ import annotations

from random import Random

import pytest

from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.loop.pause import pause
from tests.simulation.lambdas import LEASE_SECONDS
from tests.simulation.scenarios import ALIAS, Stage, stage
from tests.simulation.world import HOME, MUTATIONS, Hazard, Run


def well() -> Stage:
    scene = stage()
    scene.world.user_puts(HOME, None)
    scene.lambdas.schedule(first_sweep_after=None)
    assert scene.converge(), scene.witness.story()
    scene.world.run(1200)
    return scene


def test_p8_of_many_workers_at_the_same_moment_one_acts() -> None:
    scene = well()
    before = len(scene.world.mutations)
    with scene.undelivered():
        event = scene.world.user_puts(HOME, None)
    for _ in range(4):
        scene.lambdas.deliver(event)
        scene.lambdas.sweep()
        scene.lambdas.look(Trigger(TriggerKind.OPERATOR))
    assert scene.converge(900), scene.witness.story()
    sent = [mutation.name for mutation in scene.world.mutations[before:] if mutation.run]
    assert sent == ["PutEncryptionConfig"], scene.witness.story()
    scene.witness.check_whole()


def test_p8_while_a_dead_workers_lease_lasts_nobody_acts_and_then_it_is_taken_over() -> None:
    scene = well()
    begun_at: list[float] = []

    def dies_before_its_put(run: Run, number: int, name: str) -> Hazard | None:
        if name == "PutEncryptionConfig" and not begun_at:
            begun_at.append(scene.world.now)
            return Hazard("crash")
        return None

    scene.world.hazard = dies_before_its_put
    with scene.undelivered():
        event = scene.world.user_puts(HOME, None)
    scene.lambdas.deliver(event)
    scene.world.run(20)
    for _ in range(4):
        scene.lambdas.sweep()
        scene.lambdas.deliver(event)
        scene.world.run(20)
    assert scene.world.setting(HOME).key_arn is None, "somebody acted under the dead worker's lease"
    assert scene.converge(900), scene.witness.story()
    puts = [mutation for mutation in scene.world.mutations if mutation.run and mutation.name == "PutEncryptionConfig"]
    assert begun_at[0] + LEASE_SECONDS - 2 <= puts[-1].at <= begun_at[0] + LEASE_SECONDS + 60 + 5
    lost = [record for record in scene.tables.records(HOME) if record.error and record.error.code == "WORKER_LOST"]
    assert len(lost) == 1
    scene.witness.check_whole()


@pytest.mark.parametrize("frozen_at", range(2, 14))
def test_p8_a_worker_that_stands_still_until_its_lease_is_over_sends_nothing_more(frozen_at: int) -> None:
    """It stands still before a read or a store, wherever that is; another worker has taken over meanwhile."""
    scene = well()
    scene.world.user_changes_key(HOME, scene.managed_key(), state="Disabled")
    with scene.undelivered():
        scene.world.user_puts(HOME, None)
    sleeper: list[Run] = []
    moving = scene.world.latency

    def latency(rng: Random, name: str) -> float:
        run = sleeper[0] if sleeper else None
        if run and len(run.calls) == frozen_at and run.calls[-1] == name and name not in MUTATIONS:
            sleeper.append(run)
            return LEASE_SECONDS + 30.0 if len(sleeper) == 2 else moving(rng, name)
        return moving(rng, name)

    scene.world.latency = latency
    scene.lambdas.look(Trigger(TriggerKind.OPERATOR), timeout=None)
    sleeper.append(scene.lambdas.runs[-1])
    scene.world.run(5)
    scene.world.later(LEASE_SECONDS, scene.lambdas.sweep)
    assert scene.converge(1500), scene.witness.story()
    scene.witness.check_right()
    scene.witness.check_whole()


def test_p8_a_worker_whose_lease_was_taken_over_writes_no_end_of_its_attempt() -> None:
    scene = well()
    with scene.undelivered():
        scene.world.user_puts(HOME, None)
    moving = scene.world.latency
    slept: list[str] = []

    def latency(rng: Random, name: str) -> float:
        run = scene.lambdas.runs[-1]
        if name == "GetEncryptionConfig" and "PutEncryptionConfig" in run.calls and not slept:
            slept.append(run.name)
            return LEASE_SECONDS + 100.0
        return moving(rng, name)

    scene.world.latency = latency
    scene.lambdas.look(Trigger(TriggerKind.OPERATOR), timeout=None)
    assert scene.converge(1500), scene.witness.story()
    ends = [record for record in scene.tables.records(HOME) if record.outcome is Outcome.REMEDIATED]
    assert slept
    assert len(ends) == 2, scene.witness.story()
    scene.witness.check_whole()


@pytest.mark.parametrize("seed", range(12))
def test_p4_an_incident_is_never_closed_on_reads_that_are_older_than_it(seed: int) -> None:
    """The setting is read, then it is changed and another worker opens an incident, and only then the state is read."""
    scene = stage(seed, shuffled=True)
    scene.world.user_puts(HOME, None)
    scene.lambdas.schedule(first_sweep_after=None)
    assert scene.converge(), scene.witness.story()
    scene.world.run(1200)
    # Under the brake an incident stays open, so that nobody but the late one could close it.
    brake(scene)
    moving = scene.world.latency
    late: list[Run] = []

    def latency(rng: Random, name: str) -> float:
        run = late[0] if late else None
        if run and name == "BatchGetItem" and run.calls[-1] == name and run.calls.count(name) == 1:
            late.clear()
            return 20.0
        return moving(rng, name)

    scene.world.latency = latency
    scene.lambdas.look(Trigger(TriggerKind.SWEEP))
    late.append(scene.lambdas.runs[-1])
    scene.world.run(1)
    scene.world.user_puts(HOME, None)
    scene.world.run(60)
    state = scene.tables.state(HOME)
    assert state.incident is not None, scene.witness.story()
    assert (state.outcome, state.reason) == (Outcome.DEFERRED, "PAUSED")
    scene.witness.check_whole()


def brake(scene: Stage) -> None:
    """An operator pulls the emergency brake."""
    guard = scene.lambdas.guard(Run("operator", "operator"))
    scene.world.start(lambda: pause(guard, Trigger(TriggerKind.OPERATOR), "alice", "testing"))
    scene.world.run(1)


@pytest.mark.parametrize("deleted_after", [0.5, 2.0, 4.0])
def test_p1_a_key_event_heard_while_another_worker_acts_is_looked_at_when_stale_reads_have_passed(
    deleted_after: float,
) -> None:
    """A worker that read the alias waits for ACTIVE when the alias goes; the worker with the event steps back."""
    scene = well()
    scene.world.settling = lambda rng: 8.0
    scene.world.user_puts(HOME, None)
    scene.world.run(2.5)
    scene.world.run(deleted_after)
    assert scene.tables.state(HOME).outcome is Outcome.REMEDIATING, "no worker acts"
    scene.world.delivery = lambda rng: [0.1]
    scene.world.user_sets_alias(HOME, ALIAS, None)
    gone_at = scene.world.now
    assert scene.converge(900), scene.witness.story()
    right_since = scene.witness.right_since[HOME]
    assert right_since is not None
    assert right_since - gone_at <= 250 + 60 + 15
    scene.witness.check_whole()


def test_p2_the_key_in_use_is_the_managed_one_though_its_worker_died_and_the_alias_was_moved() -> None:
    """The key was put on the record before X-Ray was: whoever moves the alias then does not move X-Ray."""
    scene = stage()
    scene.lambdas.schedule(first_sweep_after=None)
    scene.world.hazard = lambda run, number, name: (
        Hazard("crash", late=True) if name == "PutEncryptionConfig" and len(scene.lambdas.runs) == 1 else None
    )
    scene.world.user_puts(HOME, None)
    scene.world.run(10)
    made = scene.world.setting(HOME).key_arn
    assert made is not None
    scene.world.user_sets_alias(HOME, ALIAS, scene.make_key(tagged=True))
    assert scene.converge(1200), scene.witness.story()
    assert scene.world.setting(HOME).key_arn == made
    scene.witness.check_right()
    scene.witness.check_whole()
