"""What holds the guard back while a story goes on: a rule turned off, a brake, an idle target, an endless UPDATING."""

from __future__ import annotations

from chalicelib.domain.model import EncryptionType, Trigger, TriggerKind
from chalicelib.domain.reasons import NOTES, Outcome
from chalicelib.loop.pause import pause, resume
from tests.simulation.lambdas import baseline
from tests.simulation.scenarios import Stage, stage
from tests.simulation.world import HOME, Hazard, Run


def well() -> Stage:
    scene = stage()
    scene.world.user_puts(HOME, None)
    scene.lambdas.schedule(first_sweep_after=None)
    assert scene.converge(), scene.witness.story()
    scene.world.run(1200)
    return scene


def outcomes(scene: Stage, since: int = 0) -> list[Outcome]:
    return [record.outcome for record in scene.tables.records(HOME)[since:] if record.reason not in NOTES]


def operate(scene: Stage, act: str) -> None:
    """An operator pulls or releases the brake."""
    guard = scene.lambdas.guard(Run("operator", "operator"))
    trigger = Trigger(TriggerKind.OPERATOR)

    def work() -> None:
        if act == "pause":
            pause(guard, trigger, "alice", "testing")
        else:
            resume(guard, trigger, "alice")

    scene.world.start(work)
    scene.world.run(1)


def test_p3_an_attempt_whose_worker_died_gets_its_end_though_the_rule_was_turned_off_meanwhile() -> None:
    scene = well()
    died: list[str] = []

    def dies_before_its_put(run: Run, number: int, name: str) -> Hazard | None:
        if name == "PutEncryptionConfig" and not died:
            died.append(run.name)
            return Hazard("crash")
        return None

    scene.world.hazard = dies_before_its_put
    with scene.undelivered():
        scene.world.user_puts(HOME, None)
    scene.lambdas.look(Trigger(TriggerKind.SWEEP))
    scene.world.run(10)
    assert died
    scene.lambdas.policy = baseline(mode="off")
    scene.lambdas.sweep()
    scene.world.run(600)
    state = scene.tables.state(HOME)
    assert (state.outcome, state.reason) == (Outcome.IGNORED, "RULE_OFF")
    assert state.incident is None, scene.witness.story()
    assert scene.world.setting(HOME).type is EncryptionType.NONE
    scene.witness.check_whole()


def test_p1_a_rule_that_is_turned_on_again_is_enforced_by_the_next_sweep() -> None:
    scene = well()
    scene.lambdas.policy = baseline(mode="off")
    scene.world.user_puts(HOME, None)
    scene.world.run(60)
    assert scene.world.setting(HOME).type is EncryptionType.NONE
    assert outcomes(scene)[-1] is Outcome.IGNORED
    scene.lambdas.policy = baseline()
    scene.lambdas.sweep()
    assert scene.converge(600), scene.witness.story()
    scene.witness.check_whole()


def test_p13_under_the_brake_everything_is_judged_and_nothing_mutated_and_its_release_is_heeded() -> None:
    scene = well()
    operate(scene, "pause")
    before = len([mutation for mutation in scene.world.mutations if mutation.run])
    event = scene.world.user_puts(HOME, None)
    scene.world.run(1800)
    scene.lambdas.sweep()
    scene.lambdas.deliver(event)
    scene.world.run(60)
    assert len([mutation for mutation in scene.world.mutations if mutation.run]) == before
    held = scene.tables.records(HOME)[-1]
    assert (held.outcome, held.reason, held.trigger.event_id) == (Outcome.DEFERRED, "PAUSED", event.trigger.event_id)
    operate(scene, "resume")
    assert scene.converge(60 + 250 + 60 + 15), scene.witness.story()
    assert scene.world.setting(HOME).key_arn == scene.managed_key()
    scene.witness.check_whole()


def test_an_idle_target_is_left_alone_by_sweeps_and_said_so_once() -> None:
    scene = stage(policy=baseline(when="in-use"))
    scene.world.place(HOME).in_use = False
    for _ in range(3):
        scene.lambdas.sweep()
        scene.world.run(3600)
    assert [(record.outcome, record.reason) for record in scene.tables.records(HOME)] == [(Outcome.IGNORED, "IDLE")]
    assert not [mutation for mutation in scene.world.mutations if mutation.run]
    scene.world.place(HOME).in_use = True
    scene.lambdas.sweep()
    scene.lambdas.schedule(first_sweep_after=None)
    assert scene.converge(600), scene.witness.story()
    scene.witness.check_whole()


def test_a_change_event_of_an_idle_target_is_judged() -> None:
    scene = stage(policy=baseline(when="in-use"))
    scene.world.place(HOME).in_use = False
    scene.lambdas.schedule(first_sweep_after=None)
    scene.world.user_puts(HOME, None)
    assert scene.converge(600), scene.witness.story()
    scene.witness.check_whole()


def test_p4_updating_for_over_half_an_hour_is_failed_without_another_put_and_ends_when_it_is_active() -> None:
    scene = well()
    scene.world.settling = lambda rng: 7200.0
    since = len(scene.tables.records(HOME))
    event = scene.world.user_puts(HOME, None)
    scene.world.run(7000)
    failed = [record for record in scene.tables.records(HOME)[since:] if record.outcome is Outcome.FAILED]
    assert failed
    assert {record.reason for record in failed} == {"UPDATING_TOO_LONG"}
    assert 1800 <= (failed[0].at - (event.trigger.event_time or failed[0].at)).total_seconds() <= 1800 + 120
    puts = [each for each in scene.world.mutations if each.run and each.name == "PutEncryptionConfig"]
    assert len(puts) == 2, "the first, long ago, and the one that takes so long"
    scene.world.run(3600)
    assert scene.converge(3600), scene.witness.story()
    assert outcomes(scene)[-1] is Outcome.REMEDIATED
    scene.witness.check_whole()


def test_a_rule_that_only_observes_records_each_drift_once_and_mutates_nothing() -> None:
    scene = stage(policy=baseline(mode="observe"))
    scene.lambdas.schedule()
    event = scene.world.user_puts(HOME, None)
    scene.world.run(5 * 3600)
    (record,) = scene.tables.records(HOME)
    assert (record.outcome, record.trigger.event_id) == (Outcome.OBSERVED, event.trigger.event_id)
    assert not [mutation for mutation in scene.world.mutations if mutation.run]
    scene.witness.check_whole()


def test_p13_a_guard_whose_role_only_reads_records_each_drift_once_and_mutates_nothing() -> None:
    scene = stage()
    scene.lambdas.observe_only = True
    scene.lambdas.schedule()
    event = scene.world.user_puts(HOME, None)
    scene.world.run(5 * 3600)
    (record,) = scene.tables.records(HOME)
    assert (record.outcome, record.reason) == (Outcome.OBSERVED, "RIGHTS_OBSERVE")
    assert record.trigger.event_id == event.trigger.event_id
    assert not [mutation for mutation in scene.world.mutations if mutation.run]
    scene.witness.check_whole()


def test_p13_a_guard_that_loses_its_rights_during_a_remediation_observes_and_resumes_with_them() -> None:
    scene = stage()
    scene.lambdas.schedule()
    scene.world.hazard = lambda run, number, name: Hazard("crash") if name == "PutEncryptionConfig" else None
    scene.world.user_puts(HOME, None)
    scene.world.run(90)
    assert outcomes(scene)[-1] is Outcome.REMEDIATING
    scene.lambdas.observe_only = True
    scene.world.hazard = lambda run, number, name: None
    before = len(scene.world.mutations)
    scene.world.run(2 * 3600)
    assert (outcomes(scene)[-1], scene.tables.records(HOME)[-1].reason) == (Outcome.OBSERVED, "RIGHTS_OBSERVE")
    assert len(scene.world.mutations) == before
    scene.lambdas.observe_only = False
    assert scene.converge(2 * 3600), scene.witness.story()
    assert outcomes(scene)[-1] is Outcome.REMEDIATED
    scene.witness.check_whole()
