"""X-Ray is UPDATING for minutes after each change, and may refuse another one meanwhile: neither is the key's fault."""

from __future__ import annotations

import pytest

from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import Record
from tests.simulation.beginnings import brake, look, quiet, records_since, release, ticking
from tests.simulation.crashing import CRASHES, LOST_ANSWERS, Updating, check, interrupted
from tests.simulation.scenarios import SCENARIOS, Stage, stage
from tests.simulation.world import HOME, Hazard

MINUTE = 60.0
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
AFTER_A_REFUSAL = pytest.mark.parametrize("refuses", [False, True], ids=["puts accepted", "puts refused"])


def guarded(updating: Updating, *, empty: bool) -> Stage:
    """A guard on an empty account, or on one where all is well; X-Ray is slow from now on."""
    scene = stage()
    scene.lambdas.schedule(first_sweep_after=None)
    if not empty:
        scene.world.user_puts(HOME, None)
        assert scene.converge(), scene.witness.story()
        # Between two ticks, so that no Put meets the very moment in which X-Ray ends UPDATING.
        scene.world.run(600 + 30)
    scene.world.settling = lambda rng: updating.seconds
    scene.world.refuses_while_updating = updating.refuses
    return scene


def new_records(scene: Stage, since: int) -> list[Record]:
    return scene.tables.records(HOME)[since:]


@AFTER_A_REFUSAL
@pytest.mark.parametrize("empty", [False, True], ids=["key recorded", "empty account"])
@pytest.mark.parametrize("seconds", [1.0, 6 * MINUTE])
def test_p1_a_drift_is_remediated_without_a_failure_however_long_updating_usually_lasts(
    seconds: float, empty: bool, refuses: bool
) -> None:
    scene = guarded(Updating(seconds, refuses), empty=empty)
    since = len(scene.tables.records(HOME))
    scene.world.user_puts(HOME, None)
    # The drift's own UPDATING where X-Ray refuses a change meanwhile, the guard's, and a tick for each.
    assert scene.world.run(seconds * (1 + refuses) + 2 * MINUTE + 15, scene.witness.right), scene.witness.story()
    assert scene.converge(), scene.witness.story()
    records = new_records(scene, since)
    assert not [record for record in records if record.outcome is Outcome.FAILED], scene.witness.story()
    waits = [record for record in records if record.outcome is Outcome.DEFERRED]
    assert {record.reason for record in waits} <= {"SETTLING"}
    assert {record.error.code for record in waits if record.error} == (
        {"XRAY_UPDATING"} if refuses and seconds > 15 else set()
    )
    scene.witness.check_whole()
    scene.witness.check_right()


def test_updating_for_forty_minutes_after_the_guards_own_put_is_failed_after_thirty_and_ends_remediated() -> None:
    scene = guarded(Updating(40 * MINUTE, refuses=False), empty=False)
    since = len(scene.tables.records(HOME))
    scene.world.user_puts(HOME, None)
    assert scene.converge(45 * MINUTE), scene.witness.story()
    outcomes = [record.outcome for record in new_records(scene, since)]
    assert outcomes[:2] == [Outcome.REMEDIATING, Outcome.APPLIED]
    assert {record.reason for record in new_records(scene, since) if record.outcome is Outcome.FAILED} == {
        "UPDATING_TOO_LONG"
    }
    assert outcomes[-1] is Outcome.REMEDIATED
    assert len([mutation for mutation in scene.world.mutations if mutation.run and mutation.at > 600]) == 1
    scene.witness.check_whole()


def test_puts_refused_for_forty_minutes_are_settling_for_fifteen_and_then_failed_and_never_the_keys_fault() -> None:
    scene = guarded(Updating(40 * MINUTE, refuses=True), empty=False)
    since = len(scene.tables.records(HOME))
    scene.world.user_puts(HOME, None)
    scene.world.run(39 * MINUTE)
    ends = [record for record in new_records(scene, since) if record.outcome in (Outcome.DEFERRED, Outcome.FAILED)]
    assert {record.error.code for record in ends if record.error} == {"XRAY_UPDATING"}
    for record in ends:
        minutes = (record.at - ends[0].at).total_seconds() / 60
        assert record.outcome is (Outcome.DEFERRED if minutes < 15 else Outcome.FAILED), scene.witness.story()
    assert {record.reason for record in ends if record.outcome is Outcome.DEFERRED} == {"SETTLING"}
    assert ends[-1].outcome is Outcome.FAILED
    scene.world.settling = lambda rng: 6 * MINUTE
    assert scene.converge(40 * MINUTE), scene.witness.story()
    scene.witness.check_whole()
    scene.witness.check_right()


def test_a_rival_who_keeps_x_ray_updating_is_waited_for_no_longer_than_fifteen_minutes() -> None:
    """P9: a DEFERRED that a rival can prolong for ever would be a way to stop the guard in silence."""
    scene = guarded(Updating(6 * MINUTE, refuses=True), empty=False)
    since = len(scene.tables.records(HOME))
    began = scene.world.clock

    def flip() -> None:
        scene.world.user_puts(HOME, None)
        scene.world.later(5 * MINUTE, flip)

    flip()
    scene.world.run(55 * MINUTE)
    failed = [record for record in new_records(scene, since) if record.outcome is Outcome.FAILED]
    assert failed, scene.witness.story()
    assert (failed[0].at - began).total_seconds() <= 17 * MINUTE
    late = [
        record
        for record in new_records(scene, since)
        if record.reason == "SETTLING" and (record.at - began).total_seconds() > 16 * MINUTE
    ]
    assert not late, scene.witness.story()
    scene.witness.check_whole()


@AFTER_A_REFUSAL
@pytest.mark.parametrize("hazards", [CRASHES, LOST_ANSWERS], ids=["crash", "lost answer"])
@pytest.mark.parametrize("name", ["empty account", "key recorded", "key disabled"])
def test_p1_to_p4_wherever_a_run_is_interrupted_while_updating_lasts_six_minutes(
    name: str, hazards: tuple[Hazard, ...], refuses: bool
) -> None:
    updating = Updating(6 * MINUTE, refuses)
    for story in interrupted(BY_NAME[name], hazards, every_poll=False, updating=updating):
        check(story)


def test_p9_a_rival_who_ends_each_incident_before_it_fails_is_named_within_the_hour() -> None:
    """Fourteen minutes off the key, seven on it, and so on: each incident begins a new quarter of an hour."""
    scene = guarded(Updating(6 * MINUTE, refuses=True), empty=False)
    key, began = scene.managed_key(), scene.world.clock
    for _ in range(3):
        for _ in range(3):
            scene.world.user_puts(HOME, None)
            scene.world.run(280)
        scene.world.user_puts(HOME, key)
        scene.world.run(7 * MINUTE)
    named = [record for record in scene.tables.records(HOME) if record.reason == "BACKOFF"]
    assert named, scene.witness.story()
    assert (named[0].at - began).total_seconds() < 60 * MINUTE
    scene.witness.check_whole()


def test_p4_a_repair_by_somebody_else_after_nothing_but_refusals_is_not_called_the_guards() -> None:
    scene = quiet()
    key, count = scene.managed_key(), len(scene.tables.records(HOME))
    scene.world.settling = lambda rng: 6 * MINUTE
    scene.world.refuses_while_updating = True
    scene.world.user_puts(HOME, None)
    look(scene)
    scene.world.settling = lambda rng: 0.0
    scene.world.user_puts(HOME, key)
    look(scene)
    outcomes = [record.outcome for record in records_since(scene, count)]
    assert outcomes == [Outcome.REMEDIATING, Outcome.DEFERRED, Outcome.COMPLIANT], scene.witness.story()
    scene.witness.check_whole()


def test_what_settles_after_a_pause_is_no_failure_because_of_what_settled_before_it() -> None:
    scene = ticking(quiet())
    count = len(scene.tables.records(HOME))
    scene.world.settling = lambda rng: 6 * MINUTE
    scene.world.refuses_while_updating = True
    scene.world.user_puts(HOME, None)
    look(scene)
    brake(scene)
    scene.world.run(20 * MINUTE)
    scene.world.user_puts(HOME, None)
    release(scene)
    assert scene.converge(14 * MINUTE), scene.witness.story()
    assert Outcome.FAILED not in {record.outcome for record in records_since(scene, count)}, scene.witness.story()
    scene.witness.check_whole()
