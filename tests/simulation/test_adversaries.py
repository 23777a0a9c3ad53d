"""P9: what an adversary in one lane gets out of the guard in a day, and that no lane delays another."""

from __future__ import annotations

import json
from functools import partial

import pytest

from chalicelib.domain.lanes import Lane
from chalicelib.domain.reasons import Outcome, Violation
from tests.simulation.adversaries import (
    ADVERSARIES,
    CI,
    COSMETIC,
    HOURS,
    Adversary,
    Meter,
    Undo,
    changes_key,
    disables,
    fought,
    moves_alias,
    puts_none,
    stops_rotation,
    strips_policy,
)
from tests.simulation.beginnings import settled_stage
from tests.simulation.scenarios import ALIAS, Stage
from tests.simulation.world import HOME, Hazard

MOST_MUTATIONS_A_DAY = 330
"""In each lane that is fought about."""

LONGEST_EXPOSURE_SECONDS = 380
"""Of one time: the longest pause and a tick."""

REPAIRED_SECONDS = 5
"""From a change in one lane to its repair, however long another lane backs off: the event's delivery and one run."""


@pytest.mark.parametrize("name", ADVERSARIES)
def test_p9_each_day_of_an_adversary_is_bounded(name: str) -> None:
    adversary = ADVERSARIES[name]
    scene, figures = fought(adversary)
    scene.witness.check_whole()
    assert figures.mutations <= MOST_MUTATIONS_A_DAY * len(adversary.undoes), figures.row(name)
    assert figures.longest <= LONGEST_EXPOSURE_SECONDS, figures.row(name)
    assert sum(each.run is not None for each in scene.world.mutations[-8:]), "silent"
    if adversary.strikes:
        assert len(figures.stretches) == len(adversary.strikes)
        assert figures.longest <= REPAIRED_SECONDS, figures.row(name)
    if adversary.undoes.keys() <= COSMETIC.keys():
        assert figures.exposed <= REPAIRED_SECONDS * len(adversary.strikes), figures.row(name)
    if adversary.rests_after:
        assert figures.exposed <= 16_000, figures.row(name)


def held(scene: Stage, lane: Lane, undo: Undo) -> None:
    """Flip something until its lane backs off. Each flip was repaired."""
    for _ in range(3):
        undo(scene)
        scene.world.run(15)
        assert scene.witness.right(), scene.witness.story()
        until = scene.tables.state(HOME).backoffs[lane].until
        if until is not None and until > scene.world.clock:
            return
    raise AssertionError(f"{lane} does not back off: {scene.tables.state(HOME).backoffs}")


FLIPS: dict[str, tuple[Lane, Undo]] = {
    "alias": (Lane.UPKEEP, moves_alias),
    "rotation": (Lane.UPKEEP, stops_rotation),
    "setting": (Lane.SETTING, puts_none),
    "key": (Lane.KEY, disables),
    "X-Ray's statement": (Lane.KEY, strips_policy),
}
HARMS: dict[str, Undo] = {"setting": puts_none, "key": disables, "X-Ray's statement": strips_policy}


@pytest.mark.parametrize(
    ("flip", "harm"),
    [(flip, harm) for flip in FLIPS for harm in HARMS if FLIPS[flip][0] is not FLIPS[harm][0]],
)
def test_p9_flips_in_one_lane_never_delay_the_repair_of_another(flip: str, harm: str) -> None:
    scene = settled_stage()
    lane, undo = FLIPS[flip]
    held(scene, lane, undo)
    if lane is Lane.UPKEEP:
        undo(scene)
    meter = Meter(scene)
    HARMS[harm](scene)
    scene.world.run(REPAIRED_SECONDS)
    figures = meter.read()
    assert len(figures.stretches) == 1, scene.witness.story()
    assert figures.longest <= REPAIRED_SECONDS, scene.witness.story()
    assert scene.converge(600), scene.witness.story()
    scene.witness.check_whole()


@pytest.mark.parametrize("undo", [disables, strips_policy], ids=["key", "X-Ray's statement"])
def test_p9_a_move_makes_the_key_usable_even_if_the_keys_lane_backs_off(undo: Undo) -> None:
    scene = settled_stage()
    held(scene, Lane.KEY, undo)
    with scene.undelivered():
        undo(scene)
    meter = Meter(scene)
    puts_none(scene)
    scene.world.run(REPAIRED_SECONDS)
    assert meter.read().longest <= REPAIRED_SECONDS, scene.witness.story()
    assert scene.witness.right(), scene.witness.story()


def test_p9_removing_the_readers_statement_never_spends_the_backoff_of_x_rays_statement() -> None:
    scene = settled_stage()
    only_needed = '{"Version": "2012-10-17", "Statement": ' + _first_statements(scene) + "}"
    held(scene, Lane.UPKEEP, partial(changes_key, policy=only_needed))
    assert Lane.KEY not in scene.tables.state(HOME).backoffs
    strips_policy(scene)
    scene.world.run(REPAIRED_SECONDS)
    assert scene.world.mutations[-1].name == "PutKeyPolicy"
    assert scene.witness.right(), scene.witness.story()


def _first_statements(scene: Stage) -> str:
    return json.dumps(json.loads(scene.full_policy)["Statement"][:2])


# --- partial ends ----------------------------------------------------------------------------------------------------


def partly_done(harm: Undo = disables) -> Stage:
    """The alias is fought about, held back and moved away, when harm comes."""
    scene = settled_stage()
    held(scene, Lane.UPKEEP, moves_alias)
    moves_alias(scene)
    harm(scene)
    scene.world.run(12)
    return scene


@pytest.mark.parametrize(
    ("harm", "violation"), [(disables, Violation.KEY_DISABLED), (puts_none, Violation.NOT_KMS)], ids=["key", "setting"]
)
def test_p4_an_attempt_that_leaves_a_held_lane_is_deferred_and_names_what_remains(
    harm: Undo, violation: Violation
) -> None:
    scene = partly_done(harm)
    state = scene.tables.state(HOME)
    begun, ended = [record for record in scene.tables.records(HOME) if record.attempt is not None][-2:]
    assert (begun.outcome, ended.outcome, ended.reason) == (Outcome.REMEDIATING, Outcome.DEFERRED, "BACKOFF")
    assert (ended.incident_id, ended.attempt) == (begun.incident_id, begun.attempt)
    assert ended.detail["remediated"] == [violation]
    assert ended.detail["remains"] == [Violation.ALIAS_MOVED]
    assert CI.arn in str(ended.detail["against"])
    assert ended.violations == state.violations == (Violation.ALIAS_MOVED,)
    assert ended.actions
    assert state.incident is not None
    assert (state.incident.lease, state.incident.violations) == (None, (Violation.ALIAS_MOVED,))
    assert state.incident.due == state.backoffs[Lane.UPKEEP].until
    assert scene.converge(600), scene.witness.story()
    last = scene.tables.records(HOME)[-1]
    assert (last.outcome, last.incident_id) == (Outcome.REMEDIATED, ended.incident_id)
    scene.witness.check_whole()


def test_p4_the_exposure_of_a_partly_remediated_incident_ends_when_x_ray_was_safe() -> None:
    scene = partly_done(puts_none)
    incident = scene.tables.state(HOME).incident
    assert incident is not None
    assert incident.safe_at is not None
    assert scene.converge(600), scene.witness.story()
    last = scene.tables.records(HOME)[-1]
    assert last.exposure_seconds is not None
    assert last.exposure_seconds < (last.at - incident.opened_at).total_seconds() - 10
    (past,) = scene.tables.state(HOME).past[-1:]
    assert past.safe_at == incident.safe_at


def test_p4_harm_that_comes_back_makes_the_exposure_count_again() -> None:
    scene = partly_done(puts_none)
    for _ in range(3):
        puts_none(scene)
        scene.world.run(15)
    incident = scene.tables.state(HOME).incident
    assert incident is not None
    assert incident.safe_at is None
    scene.witness.check_whole()


def test_p4_while_x_ray_is_updating_nothing_is_called_remediated_and_each_tick_reads_the_setting() -> None:
    scene = settled_stage()
    held(scene, Lane.UPKEEP, moves_alias)
    scene.world.run(70)
    for _ in range(2):
        moves_alias(scene)
        scene.world.run(10)
    scene.world.settling = lambda rng: 25.0
    puts_none(scene)
    scene.world.run(20)
    (ended,) = scene.tables.records(HOME)[-1:]
    assert (ended.outcome, ended.reason) == (Outcome.DEFERRED, "BACKOFF")
    assert ended.detail["applied"] == [Violation.NOT_KMS]
    assert "remediated" not in ended.detail
    incident = scene.tables.state(HOME).incident
    assert incident is not None
    assert incident.safe_at is None
    scene.world.run(60)
    incident = scene.tables.state(HOME).incident
    assert incident is not None
    assert incident.safe_at is not None, scene.witness.story()
    assert incident.due == scene.tables.state(HOME).backoffs[Lane.UPKEEP].until
    assert scene.converge(600), scene.witness.story()
    scene.witness.check_whole()


# --- harm goes first -------------------------------------------------------------------------------------------------


def test_p1_x_ray_leaves_none_before_the_alias_rotation_and_policy_are_put_right() -> None:
    scene = settled_stage()
    with scene.undelivered():
        changes_key(scene, rotation=False, rotation_days=None)
        changes_key(scene, policy='{"Version": "2012-10-17", "Statement": ' + _first_statements(scene) + "}")
        moves_alias(scene)
    before = len(scene.world.mutations)
    puts_none(scene)
    assert scene.converge(), scene.witness.story()
    ours = [each.name for each in scene.world.mutations[before:] if each.run]
    assert ours == ["PutEncryptionConfig", "PutKeyPolicy", "EnableKeyRotation", "UpdateAlias"]


def test_p1_an_alias_that_is_fought_over_all_day_never_delays_x_rays_move() -> None:
    scene, figures = fought(
        Adversary({"UpdateAlias": moves_alias}, strikes=tuple((hour * HOURS, puts_none) for hour in range(1, 7))),
        seconds=7 * HOURS,
    )
    assert figures.puts == 6
    assert figures.longest <= REPAIRED_SECONDS
    assert scene.world.place(HOME).kms.aliases[ALIAS] in (scene.managed_key(), _others(scene))


def _others(scene: Stage) -> str:
    return next(arn for arn in scene.world.place(HOME).kms.keys if arn != scene.managed_key())


def test_p8_a_worker_that_is_lost_counts_in_every_lane_once() -> None:
    scene = settled_stage()
    crashed: list[str] = []

    def crash(run: object, number: int, name: str) -> Hazard | None:
        if name == "EnableKey" and not crashed:
            crashed.append(name)
            return Hazard("crash")
        return None

    scene.world.hazard = crash
    counts = {lane: each.count for lane, each in scene.tables.state(HOME).backoffs.items()}
    disables(scene)
    assert scene.converge(), scene.witness.story()
    after = {lane: each.count for lane, each in scene.tables.state(HOME).backoffs.items()}
    gained = {lane: after[lane] - counts.get(lane, 0) for lane in after}
    assert gained == {Lane.SETTING: 1, Lane.KEY: 2, Lane.SPANS: 1, Lane.UPKEEP: 1}
