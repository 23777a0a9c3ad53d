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


def denied(scene: Stage, kind: str = BY_THE_ORGANIZATION, *, only: str = "") -> None:
    """From now on every call to X-Ray and KMS is refused."""
    scene.world.hazard = lambda run, number, name: Hazard(kind) if name not in STORE and only in name else None


def allowed(scene: Stage) -> None:
    scene.world.hazard = lambda run, number, name: None


def drifting() -> Stage:
    """A guard that has its key, and a drift that it could not remediate yet."""
    scene = stage()
    scene.lambdas.schedule()
    scene.world.user_puts(HOME, None)
    assert scene.converge(), scene.witness.story()
    denied(scene, "throttle", only="PutEncryptionConfig")
    scene.world.user_puts(HOME, None)
    scene.world.run(30)
    assert scene.tables.state(HOME).incident is not None
    return scene


def test_a_region_that_was_never_open_has_one_record_a_day_and_is_not_looked_at_between_sweeps() -> None:
    scene = stage()
    scene.lambdas.schedule()
    denied(scene)
    scene.world.run(DAY)
    (record,) = scene.tables.records(HOME)
    assert (record.outcome, record.reason, record.before) == (Outcome.IGNORED, "REGION_DENIED", None)
    assert record.error is not None
    assert "service control policy" in record.error.message
    assert scene.tables.state(HOME).due is None
    assert not [run for run in scene.lambdas.runs if run.function == "tick"]
    view = target_view(scene.tables.state(HOME), scene.tables.guard(), scene.world.clock)
    assert not view.compliant
    scene.witness.check_whole()


def test_a_region_that_could_be_read_before_says_so_once_and_keeps_its_open_incident() -> None:
    scene = drifting()
    incident = scene.tables.state(HOME).incident
    assert incident is not None
    since = len(scene.tables.records(HOME))
    denied(scene)
    scene.world.run(DAY)
    (record,) = scene.tables.records(HOME)[since:]
    assert (record.outcome, record.reason, record.incident_id) == (Outcome.IGNORED, "REGION_DENIED", incident.id)
    assert record.before is not None, "what was last read tells an alarm that the Region was open before"
    state = scene.tables.state(HOME)
    assert state.incident is not None
    assert state.incident.id == incident.id
    assert state.due is None
    scene.witness.check_whole()


def test_p6_a_region_that_is_opened_again_is_remediated_by_the_next_sweep() -> None:
    scene = drifting()
    denied(scene)
    scene.world.run(3 * 3600)
    allowed(scene)
    assert scene.world.setting(HOME).type is EncryptionType.NONE
    assert scene.converge(3600 + 600), scene.witness.story()
    scene.witness.check_whole()
    scene.witness.check_right()


def test_p3_an_attempt_that_was_lost_before_the_region_was_denied_gets_its_end() -> None:
    scene = drifting()
    crashed: list[str] = []

    def crash(run: Run, number: int, name: str) -> Hazard | None:
        if name == "PutEncryptionConfig" and not crashed:
            crashed.append(run.name)
            return Hazard("crash")
        return Hazard(BY_THE_ORGANIZATION) if crashed and name not in STORE else None

    scene.world.hazard = crash
    scene.world.run(2 * 3600)
    state = scene.tables.state(HOME)
    assert crashed
    assert (state.outcome, state.reason) == (Outcome.IGNORED, "REGION_DENIED")
    assert state.incident is not None
    assert (state.incident.phase, state.incident.lease) == (Phase.OPEN, None)
    assert [record.reason for record in scene.tables.records(HOME)][-2:] == ["WORKER_LOST", "REGION_DENIED"]
    scene.witness.check_whole()


def test_p5_a_change_in_a_denied_region_is_on_the_record_once() -> None:
    scene = stage()
    denied(scene)
    scene.lambdas.sweep()
    scene.world.run(60)
    event = scene.world.user_puts(HOME, None)
    scene.world.run(60)
    scene.lambdas.deliver(event)
    scene.world.run(60)
    told_of = [record.trigger.event_id for record in scene.tables.records(HOME) if record.trigger.event_id]
    assert told_of == [event.trigger.event_id]
    scene.witness.check_whole()


@pytest.mark.parametrize(
    ("kind", "only"), [("denied", ""), (BY_THE_ORGANIZATION, "Key")], ids=["by IAM alone", "KMS alone"]
)
def test_any_other_refusal_is_a_failure_that_is_tried_again(kind: str, only: str) -> None:
    scene = stage()
    scene.lambdas.schedule()
    denied(scene, kind, only=only)
    scene.lambdas.sweep()
    scene.world.run(600)
    records = scene.tables.records(HOME)
    assert {(record.outcome, record.reason) for record in records} == {(Outcome.FAILED, "AccessDeniedException")}
    assert scene.tables.state(HOME).due is not None
    scene.witness.check_whole()


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
