"""A Region that the organization denies is no failure of the guard's, and is never taken for a compliant one."""

from __future__ import annotations

import pytest

from chalicelib.auditlog.views import target_view
from chalicelib.domain.model import EncryptionType
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import Phase
from tests.simulation.beginnings import look, quiet, ticking
from tests.simulation.scenarios import Stage, stage
from tests.simulation.world import HOME, STORE, Hazard, Run

BY_THE_ORGANIZATION = "denied by the organization"
DAY = 24 * 3600


def denied(told: Stage, kind: str = BY_THE_ORGANIZATION, *, only: str = "") -> None:
    """From now on every call to X-Ray and KMS is refused."""
    told.world.hazard = lambda run, number, name: Hazard(kind) if name not in STORE and only in name else None


def allowed(told: Stage) -> None:
    told.world.hazard = lambda run, number, name: None


def drifting() -> Stage:
    """A guard that has its key, and a drift that it could not remediate yet."""
    told = stage()
    told.lambdas.schedule()
    told.world.user_puts(HOME, None)
    assert told.converge(), told.witness.story()
    denied(told, "throttle", only="PutEncryptionConfig")
    told.world.user_puts(HOME, None)
    told.world.run(30)
    assert told.tables.state(HOME).incident is not None
    return told


def test_a_region_that_was_never_open_has_one_record_a_day_and_is_not_looked_at_between_sweeps() -> None:
    told = stage()
    told.lambdas.schedule()
    denied(told)
    told.world.run(DAY)
    (record,) = told.tables.records(HOME)
    assert (record.outcome, record.reason, record.before) == (Outcome.IGNORED, "REGION_DENIED", None)
    assert record.error is not None
    assert "service control policy" in record.error.message
    assert told.tables.state(HOME).due is None
    assert not [run for run in told.lambdas.runs if run.function == "tick"]
    view = target_view(told.tables.state(HOME))
    assert not view.compliant
    told.witness.check_whole()


def test_a_region_that_could_be_read_before_says_so_once_and_keeps_its_open_incident() -> None:
    told = drifting()
    incident = told.tables.state(HOME).incident
    assert incident is not None
    since = len(told.tables.records(HOME))
    denied(told)
    told.world.run(DAY)
    (record,) = told.tables.records(HOME)[since:]
    assert (record.outcome, record.reason, record.incident_id) == (Outcome.IGNORED, "REGION_DENIED", incident.id)
    assert record.before is not None, "what was last read tells an alarm that the Region was open before"
    state = told.tables.state(HOME)
    assert state.incident is not None
    assert state.incident.id == incident.id
    assert state.due is None
    told.witness.check_whole()


def test_p6_a_region_that_is_opened_again_is_remediated_by_the_next_sweep() -> None:
    told = drifting()
    denied(told)
    told.world.run(3 * 3600)
    allowed(told)
    assert told.world.setting(HOME).type is EncryptionType.NONE
    assert told.converge(3600 + 600), told.witness.story()
    told.witness.check_whole()
    told.witness.check_right()


def test_p3_an_attempt_that_was_lost_before_the_region_was_denied_gets_its_end() -> None:
    told = drifting()
    crashed: list[str] = []

    def crash(run: Run, number: int, name: str) -> Hazard | None:
        if name == "PutEncryptionConfig" and not crashed:
            crashed.append(run.name)
            return Hazard("crash")
        return Hazard(BY_THE_ORGANIZATION) if crashed and name not in STORE else None

    told.world.hazard = crash
    told.world.run(2 * 3600)
    state = told.tables.state(HOME)
    assert crashed
    assert (state.outcome, state.reason) == (Outcome.IGNORED, "REGION_DENIED")
    assert state.incident is not None
    assert (state.incident.phase, state.incident.lease) == (Phase.OPEN, None)
    assert [record.reason for record in told.tables.records(HOME)][-2:] == ["WORKER_LOST", "REGION_DENIED"]
    told.witness.check_whole()


def test_p5_a_change_in_a_denied_region_is_on_the_record_once() -> None:
    told = stage()
    denied(told)
    told.lambdas.sweep()
    told.world.run(60)
    event = told.world.user_puts(HOME, None)
    told.world.run(60)
    told.lambdas.hear(event)
    told.world.run(60)
    told_of = [record.trigger.event_id for record in told.tables.records(HOME) if record.trigger.event_id]
    assert told_of == [event.trigger.event_id]
    told.witness.check_whole()


@pytest.mark.parametrize(
    ("kind", "only"), [("denied", ""), (BY_THE_ORGANIZATION, "Key")], ids=["by IAM alone", "KMS alone"]
)
def test_any_other_refusal_is_a_failure_that_is_tried_again(kind: str, only: str) -> None:
    told = stage()
    told.lambdas.schedule()
    denied(told, kind, only=only)
    told.lambdas.sweep()
    told.world.run(600)
    records = told.tables.records(HOME)
    assert {(record.outcome, record.reason) for record in records} == {(Outcome.FAILED, "AccessDeniedException")}
    assert told.tables.state(HOME).due is not None
    told.witness.check_whole()


def test_a_region_opened_again_in_the_midst_of_a_fight_says_so_and_is_not_left_to_the_next_sweep() -> None:
    scene = quiet()
    while scene.tables.state(HOME).reason != "BACKOFF":
        scene.world.user_puts(HOME, None)
        look(scene, seconds=5)
    denied(scene, only="GetEncryptionConfig")
    look(scene, seconds=1)
    assert scene.tables.state(HOME).reason == "REGION_DENIED"
    allowed(scene)
    look(scene, seconds=1)
    state = scene.tables.state(HOME)
    assert (state.outcome, state.reason) == (Outcome.DEFERRED, "BACKOFF"), scene.witness.story()
    assert state.due is not None
    assert ticking(scene).converge(600), scene.witness.story()
    scene.witness.check_whole()


def test_a_region_opened_again_while_x_ray_is_updating_is_waited_for_by_the_tick() -> None:
    scene = quiet()
    scene.world.settling = lambda rng: 360.0
    scene.world.user_puts(HOME, None)
    look(scene)
    denied(scene, only="GetEncryptionConfig")
    look(scene)
    assert scene.tables.state(HOME).reason == "REGION_DENIED"
    allowed(scene)
    look(scene)
    state = scene.tables.state(HOME)
    assert (state.outcome, state.reason) == (Outcome.APPLIED, None), scene.witness.story()
    assert ticking(scene).converge(600), scene.witness.story()
    scene.witness.check_whole()
