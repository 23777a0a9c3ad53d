"""One settlement becomes one transaction: records, state, the event's marker, and the records' metrics."""

from __future__ import annotations

import pytest

from chalicelib.domain.errors import Conflict
from chalicelib.domain.model import Actor, ChangeEvent, EncryptionType, Setting, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.run import At, Known, Run
from chalicelib.domain.settlement import Settlement, SettlementDraft
from chalicelib.loop.commit import commit
from chalicelib.loop.guard import Guard
from tests.simulation.scenarios import Stage
from tests.simulation.still import still
from tests.simulation.world import HOME
from tests.simulation.world import Run as Invocation

ALICE = Actor("arn:aws:iam::111122223333:user/Alice")
KEY_ARN = "arn:aws:kms:us-east-1:111122223333:key/11111111-1111-1111-1111-111111111111"


@pytest.fixture
def scene() -> Stage:
    return still()


def guard_of(scene: Stage) -> Guard:
    return scene.lambdas.guard(Invocation("test/1", "test"))


def a_change(scene: Stage, guard: Guard) -> Run:
    """A run that somebody's PutEncryptionConfig started."""
    trigger = Trigger(TriggerKind.CHANGE, "event-1", event_time=scene.world.clock, actor=ALICE)
    return guard.run(HOME, trigger, ChangeEvent(HOME, trigger, Setting(EncryptionType.NONE)))


def a_sweep(guard: Guard) -> Run:
    return guard.run(HOME, Trigger(TriggerKind.SWEEP))


def settled(run: Run, known: Known, scene: Stage, *outcomes: Outcome, **changes: object) -> Settlement:
    """A settlement with one record for each outcome, that changes these fields of the state."""
    draft = SettlementDraft(run, known, At(scene.world.clock))
    draft.set(**changes)
    for outcome in outcomes:
        draft.add(outcome, reason="TEST")
    return draft.settled(Outcome.OBSERVED)


def test_p5_a_change_that_is_on_the_record_is_marked_so(scene: Stage) -> None:
    guard = guard_of(scene)
    run = a_change(scene, guard)
    known = guard.known(run)
    commit(guard, run, known, settled(run, known, scene, Outcome.OBSERVED))
    assert guard.known(run).audited


def test_p5_a_run_that_recorded_nothing_leaves_its_change_to_be_recorded(scene: Stage) -> None:
    guard = guard_of(scene)
    run = a_change(scene, guard)
    known, _ = commit(guard, run, guard.known(run), settled(run, guard.known(run), scene, managed_key=KEY_ARN))
    assert scene.tables.state(HOME).managed_key == KEY_ARN
    assert (known.audited, guard.known(run).audited) == (False, False)


def test_p5_a_run_writes_several_times_and_marks_its_change_once(scene: Stage) -> None:
    guard = guard_of(scene)
    run = a_change(scene, guard)
    known = guard.known(run)
    for outcome in (Outcome.REMEDIATING, Outcome.FAILED):
        known, result = commit(guard, run, known, settled(run, known, scene, outcome))
        assert result.record == scene.tables.records(HOME)[-1]
    assert known.audited
    assert [record.outcome for record in scene.tables.records(HOME)] == [Outcome.REMEDIATING, Outcome.FAILED]
    scene.witness.check_whole()


def test_p8_of_two_writes_against_one_state_the_second_stores_nothing(scene: Stage) -> None:
    guard = guard_of(scene)
    run = a_sweep(guard)
    known = guard.known(run)
    commit(guard, run, known, settled(run, known, scene, managed_key=KEY_ARN))
    with pytest.raises(Conflict):
        commit(guard, run, known, settled(run, known, scene, lease_number=7))
    state = scene.tables.state(HOME)
    assert (state.managed_key, state.lease_number) == (KEY_ARN, 0)


def test_p3_what_is_counted_is_what_was_stored(scene: Stage) -> None:
    guard = guard_of(scene)
    run = a_sweep(guard)
    known = guard.known(run)
    commit(guard, run, known, settled(run, known, scene, Outcome.SUPPRESSED, Outcome.OBSERVED))
    with pytest.raises(Conflict):
        commit(guard, run, known, settled(run, known, scene, Outcome.FAILED))
    assert [record.outcome for record in scene.lambdas.emitted] == [Outcome.SUPPRESSED, Outcome.OBSERVED]
    assert scene.lambdas.emitted == scene.tables.records(HOME)
