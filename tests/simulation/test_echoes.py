"""P7: the events of the guard's own calls cause no mutation and no record of its own."""

from __future__ import annotations

from chalicelib.domain.model import ChangeEvent
from chalicelib.domain.reasons import Outcome
from tests.simulation.beginnings import quiet, settled_stage
from tests.simulation.scenarios import Stage, stage
from tests.simulation.world import ALICE, HOME, MUTATIONS


def calls_of(scene: Stage, function: str, since: int = 0) -> list[str]:
    return [call for run in scene.lambdas.runs[since:] if run.function == function for call in run.calls]


def test_p7_the_echo_of_our_own_put_reads_twice_at_most_and_writes_nothing() -> None:
    scene = settled_stage()
    before = len(scene.tables.records(HOME))
    echoes = [run for run in scene.lambdas.runs if run.function == "on_change"][1:]
    assert echoes, "the event of the guard's own Put never arrived"
    for run in echoes:
        assert run.calls == ["BatchGetItem", "GetEncryptionConfig"]
    assert len(scene.tables.records(HOME)) == before
    scene.witness.check_whole()


def test_p7_the_echo_of_a_call_of_ours_that_was_refused_reads_the_table_only_and_starts_no_attempt() -> None:
    scene = settled_stage()
    key = scene.managed_key()
    scene.world.staleness = lambda rng: 240.0
    with scene.undelivered():
        scene.world.user_changes_key(HOME, key, state="Disabled")
    since = len(scene.lambdas.runs)
    scene.world.user_puts(HOME, None)
    scene.world.run(20)
    attempts = [each for each in scene.tables.records(HOME) if each.outcome is Outcome.REMEDIATING]
    assert len(attempts) == 2, scene.witness.story()
    refused = [run for run in scene.lambdas.runs[since:] if run.function == "on_change"][1:]
    assert [run.calls for run in refused] == [["BatchGetItem"]]


def test_p7_the_echo_may_close_an_incident_that_waits_for_active() -> None:
    scene = stage(settling=lambda rng: 15.0, delivery=lambda rng: [2.0, 20.0])
    scene.world.user_puts(HOME, None)
    scene.world.run(60)
    outcomes = [each.outcome for each in scene.tables.records(HOME) if each.outcome is not Outcome.IGNORED]
    assert outcomes == [Outcome.REMEDIATING, Outcome.APPLIED, Outcome.COMPLIANT, Outcome.REMEDIATED] or outcomes == [
        Outcome.REMEDIATING,
        Outcome.APPLIED,
        Outcome.REMEDIATED,
    ], scene.witness.story()
    assert not MUTATIONS.intersection(
        call for run in scene.lambdas.runs[1:] if run.function == "on_change" for call in run.calls
    )
    scene.witness.check_whole()


def test_p7_an_incident_that_our_own_echo_closes_is_not_recorded_as_a_change_of_the_guards() -> None:
    scene = quiet()
    scene.world.settling = lambda rng: 15.0
    scene.lambdas.deliver(scene.world.user_puts(HOME, None))
    scene.world.run(16)
    echo = scene.world.events[-1]
    scene.lambdas.deliver(echo)
    scene.world.run(5)
    end = scene.tables.records(HOME)[-1]
    assert (end.outcome, end.trigger.event_id, end.trigger.actor) == (Outcome.REMEDIATED, None, None)
    assert end.cause is not None
    assert end.cause.actor == ALICE
    assert (str(HOME), echo.trigger.event_id) not in scene.tables.markers


def test_p7_an_echo_that_finds_another_setting_puts_it_right_without_blaming_the_guard() -> None:
    scene = settled_stage()
    with scene.undelivered():
        scene.world.user_puts(HOME, None)
    echo = next(
        event
        for event in scene.world.events
        if isinstance(event, ChangeEvent) and event.trigger.actor and "xray-guard" in event.trigger.actor.arn
    )
    scene.lambdas.deliver(echo)
    assert scene.converge(600), scene.witness.story()
    incident = scene.tables.records(HOME)[-1]
    assert incident.outcome is Outcome.REMEDIATED
    assert incident.cause is None
    assert all(record.trigger.event_id != echo.trigger.event_id for record in scene.tables.records(HOME))
