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
    told = stage()
    told.world.user_puts(HOME, None)
    told.lambdas.schedule(first_sweep_after=None)
    assert told.converge(), told.witness.story()
    told.world.run(1200)
    return told


def test_p8_of_many_workers_at_the_same_moment_one_acts() -> None:
    told = well()
    before = len(told.world.mutations)
    with told.unheard():
        event = told.world.user_puts(HOME, None)
    for _ in range(4):
        told.lambdas.hear(event)
        told.lambdas.sweep()
        told.lambdas.look(Trigger(TriggerKind.OPERATOR))
    assert told.converge(900), told.witness.story()
    sent = [mutation.name for mutation in told.world.mutations[before:] if mutation.run]
    assert sent == ["PutEncryptionConfig"], told.witness.story()
    told.witness.check_whole()


def test_p8_while_a_dead_workers_lease_lasts_nobody_acts_and_then_it_is_taken_over() -> None:
    told = well()
    begun_at: list[float] = []

    def dies_before_its_put(run: Run, number: int, name: str) -> Hazard | None:
        if name == "PutEncryptionConfig" and not begun_at:
            begun_at.append(told.world.now)
            return Hazard("crash")
        return None

    told.world.hazard = dies_before_its_put
    with told.unheard():
        event = told.world.user_puts(HOME, None)
    told.lambdas.hear(event)
    told.world.run(20)
    for _ in range(4):
        told.lambdas.sweep()
        told.lambdas.hear(event)
        told.world.run(20)
    assert told.world.setting(HOME).key_arn is None, "somebody acted under the dead worker's lease"
    assert told.converge(900), told.witness.story()
    puts = [mutation for mutation in told.world.mutations if mutation.run and mutation.name == "PutEncryptionConfig"]
    assert begun_at[0] + LEASE_SECONDS - 2 <= puts[-1].at <= begun_at[0] + LEASE_SECONDS + 60 + 5
    lost = [record for record in told.tables.records(HOME) if record.error and record.error.code == "WORKER_LOST"]
    assert len(lost) == 1
    told.witness.check_whole()


@pytest.mark.parametrize("frozen_at", range(2, 14))
def test_p8_a_worker_that_stands_still_until_its_lease_is_over_sends_nothing_more(frozen_at: int) -> None:
    """It stands still before a read or a store, wherever that is; another worker has taken over meanwhile."""
    told = well()
    told.world.user_changes_key(HOME, told.managed_key(), state="Disabled")
    with told.unheard():
        told.world.user_puts(HOME, None)
    sleeper: list[Run] = []
    moving = told.world.latency

    def latency(rng: Random, name: str) -> float:
        run = sleeper[0] if sleeper else None
        if run and len(run.calls) == frozen_at and run.calls[-1] == name and name not in MUTATIONS:
            sleeper.append(run)
            return LEASE_SECONDS + 30.0 if len(sleeper) == 2 else moving(rng, name)
        return moving(rng, name)

    told.world.latency = latency
    told.lambdas.look(Trigger(TriggerKind.OPERATOR), timeout=None)
    sleeper.append(told.lambdas.runs[-1])
    told.world.run(5)
    told.world.later(LEASE_SECONDS, told.lambdas.sweep)
    assert told.converge(1500), told.witness.story()
    told.witness.check_right()
    told.witness.check_whole()


def test_p8_a_worker_whose_lease_was_taken_over_writes_no_end_of_its_attempt() -> None:
    told = well()
    with told.unheard():
        told.world.user_puts(HOME, None)
    moving = told.world.latency
    slept: list[str] = []

    def latency(rng: Random, name: str) -> float:
        run = told.lambdas.runs[-1]
        if name == "GetEncryptionConfig" and "PutEncryptionConfig" in run.calls and not slept:
            slept.append(run.name)
            return LEASE_SECONDS + 100.0
        return moving(rng, name)

    told.world.latency = latency
    told.lambdas.look(Trigger(TriggerKind.OPERATOR), timeout=None)
    assert told.converge(1500), told.witness.story()
    ends = [record for record in told.tables.records(HOME) if record.outcome is Outcome.REMEDIATED]
    assert slept
    assert len(ends) == 2, told.witness.story()
    told.witness.check_whole()


@pytest.mark.parametrize("seed", range(12))
def test_p4_an_incident_is_never_closed_on_reads_that_are_older_than_it(seed: int) -> None:
    """The setting is read, then it is changed and another worker opens an incident, and only then the state is read."""
    told = stage(seed, shuffled=True)
    told.world.user_puts(HOME, None)
    told.lambdas.schedule(first_sweep_after=None)
    assert told.converge(), told.witness.story()
    told.world.run(1200)
    # Under the brake an incident stays open, so that nobody but the late one could close it.
    brake(told)
    moving = told.world.latency
    late: list[Run] = []

    def latency(rng: Random, name: str) -> float:
        run = late[0] if late else None
        if run and name == "BatchGetItem" and run.calls[-1] == name and run.calls.count(name) == 1:
            late.clear()
            return 20.0
        return moving(rng, name)

    told.world.latency = latency
    told.lambdas.look(Trigger(TriggerKind.SWEEP))
    late.append(told.lambdas.runs[-1])
    told.world.run(1)
    told.world.user_puts(HOME, None)
    told.world.run(60)
    state = told.tables.state(HOME)
    assert state.incident is not None, told.witness.story()
    assert (state.outcome, state.reason) == (Outcome.DEFERRED, "PAUSED")
    told.witness.check_whole()


def brake(told: Stage) -> None:
    """An operator pulls the emergency brake."""
    guard = told.lambdas.guard(Run("operator", "operator"))
    told.world.start(lambda: pause(guard, Trigger(TriggerKind.OPERATOR), "alice", "testing"))
    told.world.run(1)


@pytest.mark.parametrize("deleted_after", [0.5, 2.0, 4.0])
def test_p1_a_key_event_heard_while_another_worker_acts_is_looked_at_when_stale_reads_have_passed(
    deleted_after: float,
) -> None:
    """The alias goes while a worker, which has read it already, waits for ACTIVE; who hears of it steps back."""
    told = well()
    told.world.settling = lambda rng: 8.0
    told.world.user_puts(HOME, None)
    told.world.run(2.5)
    told.world.run(deleted_after)
    assert told.tables.state(HOME).outcome is Outcome.REMEDIATING, "no worker acts"
    told.world.delivery = lambda rng: [0.1]
    told.world.user_sets_alias(HOME, ALIAS, None)
    gone_at = told.world.now
    assert told.converge(900), told.witness.story()
    right_since = told.witness.right_since[HOME]
    assert right_since is not None
    assert right_since - gone_at <= 250 + 60 + 15
    told.witness.check_whole()


def test_p2_the_key_in_use_is_the_managed_one_though_its_worker_died_and_the_alias_was_moved() -> None:
    """The key was put on the record before X-Ray was: whoever moves the alias then does not move X-Ray."""
    told = stage()
    told.lambdas.schedule(first_sweep_after=None)
    told.world.hazard = lambda run, number, name: (
        Hazard("crash", late=True) if name == "PutEncryptionConfig" and len(told.lambdas.runs) == 1 else None
    )
    told.world.user_puts(HOME, None)
    told.world.run(10)
    made = told.world.setting(HOME).key_arn
    assert made is not None
    told.world.user_sets_alias(HOME, ALIAS, told.make_key(tagged=True))
    assert told.converge(1200), told.witness.story()
    assert told.world.setting(HOME).key_arn == made
    told.witness.check_right()
    told.witness.check_whole()
