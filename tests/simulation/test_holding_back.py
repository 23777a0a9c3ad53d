"""What holds the guard back while a story goes on: a rule turned off, a brake, an idle target, an endless UPDATING."""

from __future__ import annotations

from chalicelib.domain.model import EncryptionType, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.loop.pause import pause, resume
from tests.simulation.lambdas import baseline
from tests.simulation.scenarios import Stage, stage
from tests.simulation.world import HOME, Hazard, Run


def well() -> Stage:
    told = stage()
    told.world.user_puts(HOME, None)
    told.lambdas.schedule(first_sweep_after=None)
    assert told.converge(), told.witness.story()
    told.world.run(1200)
    return told


def outcomes(told: Stage, since: int = 0) -> list[Outcome]:
    return [record.outcome for record in told.tables.records(HOME)[since:]]


def operate(told: Stage, act: str) -> None:
    """An operator pulls or releases the brake."""
    guard = told.lambdas.guard(Run("operator", "operator"))
    trigger = Trigger(TriggerKind.OPERATOR)

    def work() -> None:
        if act == "pause":
            pause(guard, trigger, "alice", "testing")
        else:
            resume(guard, trigger, "alice")

    told.world.start(work)
    told.world.run(1)


def test_p3_an_attempt_whose_worker_died_gets_its_end_though_the_rule_was_turned_off_meanwhile() -> None:
    told = well()
    died: list[str] = []

    def dies_before_its_put(run: Run, number: int, name: str) -> Hazard | None:
        if name == "PutEncryptionConfig" and not died:
            died.append(run.name)
            return Hazard("crash")
        return None

    told.world.hazard = dies_before_its_put
    with told.unheard():
        told.world.user_puts(HOME, None)
    told.lambdas.look(Trigger(TriggerKind.SWEEP))
    told.world.run(10)
    assert died
    told.lambdas.policy = baseline(mode="off")
    told.lambdas.sweep()
    told.world.run(600)
    state = told.tables.state(HOME)
    assert (state.outcome, state.reason) == (Outcome.IGNORED, "RULE_OFF")
    assert state.incident is None, told.witness.story()
    assert told.world.setting(HOME).type is EncryptionType.NONE
    told.witness.check_whole()


def test_p1_a_rule_that_is_turned_on_again_is_enforced_by_the_next_sweep() -> None:
    told = well()
    told.lambdas.policy = baseline(mode="off")
    told.world.user_puts(HOME, None)
    told.world.run(60)
    assert told.world.setting(HOME).type is EncryptionType.NONE
    assert outcomes(told)[-1] is Outcome.IGNORED
    told.lambdas.policy = baseline()
    told.lambdas.sweep()
    assert told.converge(600), told.witness.story()
    told.witness.check_whole()


def test_p13_under_the_brake_everything_is_judged_and_nothing_mutated_and_its_release_is_heeded() -> None:
    told = well()
    operate(told, "pause")
    before = len([mutation for mutation in told.world.mutations if mutation.run])
    event = told.world.user_puts(HOME, None)
    told.world.run(1800)
    told.lambdas.sweep()
    told.lambdas.hear(event)
    told.world.run(60)
    assert len([mutation for mutation in told.world.mutations if mutation.run]) == before
    held = told.tables.records(HOME)[-1]
    assert (held.outcome, held.reason, held.trigger.event_id) == (Outcome.DEFERRED, "PAUSED", event.trigger.event_id)
    operate(told, "resume")
    assert told.converge(60 + 250 + 60 + 15), told.witness.story()
    assert told.world.setting(HOME).key_arn == told.managed_key()
    told.witness.check_whole()


def test_an_idle_target_is_left_alone_by_sweeps_and_said_so_once() -> None:
    told = stage(policy=baseline(when="in-use"))
    told.world.place(HOME).in_use = False
    for _ in range(3):
        told.lambdas.sweep()
        told.world.run(3600)
    assert [(record.outcome, record.reason) for record in told.tables.records(HOME)] == [(Outcome.IGNORED, "IDLE")]
    assert not [mutation for mutation in told.world.mutations if mutation.run]
    told.world.place(HOME).in_use = True
    told.lambdas.sweep()
    told.lambdas.schedule(first_sweep_after=None)
    assert told.converge(600), told.witness.story()
    told.witness.check_whole()


def test_a_change_event_of_an_idle_target_is_judged() -> None:
    told = stage(policy=baseline(when="in-use"))
    told.world.place(HOME).in_use = False
    told.lambdas.schedule(first_sweep_after=None)
    told.world.user_puts(HOME, None)
    assert told.converge(600), told.witness.story()
    told.witness.check_whole()


def test_p4_updating_for_over_half_an_hour_is_failed_without_another_put_and_ends_when_it_is_active() -> None:
    told = well()
    told.world.settling = lambda rng: 7200.0
    since = len(told.tables.records(HOME))
    event = told.world.user_puts(HOME, None)
    told.world.run(7000)
    failed = [record for record in told.tables.records(HOME)[since:] if record.outcome is Outcome.FAILED]
    assert failed
    assert {record.reason for record in failed} == {"UPDATING_TOO_LONG"}
    assert 1800 <= (failed[0].at - (event.trigger.event_time or failed[0].at)).total_seconds() <= 1800 + 120
    puts = [each for each in told.world.mutations if each.run and each.name == "PutEncryptionConfig"]
    assert len(puts) == 2, "the first, long ago, and the one that takes so long"
    told.world.run(3600)
    assert told.converge(3600), told.witness.story()
    assert outcomes(told)[-1] is Outcome.REMEDIATED
    told.witness.check_whole()


def test_a_rule_that_only_observes_records_each_drift_once_and_mutates_nothing() -> None:
    told = stage(policy=baseline(mode="observe"))
    told.lambdas.schedule()
    event = told.world.user_puts(HOME, None)
    told.world.run(5 * 3600)
    (record,) = told.tables.records(HOME)
    assert (record.outcome, record.trigger.event_id) == (Outcome.OBSERVED, event.trigger.event_id)
    assert not [mutation for mutation in told.world.mutations if mutation.run]
    told.witness.check_whole()
