"""Sweep and tick reconcile several targets at a time: a slow one delays no other, and the budget stays exact."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from chalicelib.domain.model import EncryptionType, Target
from chalicelib.domain.policy import parse
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GUARD_CHAIN
from chalicelib.loop.batch import Report
from chalicelib.loop.tick import tick
from tests.simulation.fakes import FakeRequests
from tests.simulation.lambdas import BASELINE, FUNCTION_SECONDS
from tests.simulation.scenarios import Stage, stage
from tests.simulation.world import ACCOUNT, Crash, Hazard, Run

SLOW_SECONDS = 4.0


def regions(count: int) -> tuple[str, ...]:
    return tuple(f"eu-test-{number}" for number in range(1, count + 1))


def an_account(count: int, *, budget: int = 50, seed: int = 0) -> Stage:
    """An account that the guard has not seen yet: X-Ray is not encrypted in any of its Regions."""
    document = json.loads(BASELINE)
    document["limits"]["remediations_per_sweep"] = budget
    document["rules"][0]["when"] = "always"
    scene = stage(seed, policy=parse(json.dumps(document).encode()), shuffled=True)
    scene.lambdas.regions = regions(count)
    return scene


def targets(scene: Stage) -> tuple[Target, ...]:
    return tuple(Target(ACCOUNT, region) for region in scene.lambdas.regions)


def encrypted(scene: Stage) -> list[Target]:
    return [target for target in targets(scene) if scene.world.setting(target).type is EncryptionType.KMS]


def well(count: int, *, budget: int = 50, seed: int = 0) -> Stage:
    """The same account after sweeps have remediated all of it."""
    scene = an_account(count, budget=budget, seed=seed)
    scene.lambdas.schedule(first_sweep_after=None)
    while len(encrypted(scene)) < count:
        scene.lambdas.sweep()
        scene.world.run(1200)
    assert all(scene.witness.right(target) and scene.witness.settled(target) for target in targets(scene))
    return scene


def drift(scene: Stage, which: Iterable[Target]) -> None:
    with scene.undelivered():
        for target in which:
            scene.world.user_puts(target, None)


def slow(scene: Stage, target: Target) -> None:
    """Each call of X-Ray and KMS takes seconds in one Region."""

    def hazard(run: Run, number: int, name: str) -> None:
        if run.about == str(target):
            scene.world.wait(SLOW_SECONDS)

    scene.world.hazard = hazard


def swept(scene: Stage, seconds: float = FUNCTION_SECONDS) -> dict[str, Any]:
    """Sweep, and return what its record says."""
    scene.lambdas.sweep()
    scene.world.run(seconds)
    record = next(record for record in reversed(scene.tables.records(GUARD_CHAIN)) if record.reason == "SWEEP")
    assert (scene.world.clock - record.at).total_seconds() <= seconds
    return record.detail


def last_report(scene: Stage) -> Report:
    return next(result for result in reversed(scene.lambdas.results) if isinstance(result, Report))


def mutated(scene: Stage, since: int = 0) -> set[Target]:
    return {mutation.target for mutation in scene.world.mutations[since:] if mutation.run is not None}


# --- a slow Region ---------------------------------------------------------------------------------------------------


def test_a_sweep_of_seventeen_regions_takes_little_longer_than_the_slowest_of_them() -> None:
    scene = well(17)
    late = targets(scene)[3]
    drift(scene, targets(scene))
    slow(scene, late)
    since = scene.world.now
    run = swept(scene)["run"]
    assert (run["targets"], run["at_once"], run["slowest"]) == (17, 8, str(late))
    assert run["slowest_seconds"] > 5 * SLOW_SECONDS
    assert run["seconds"] < run["slowest_seconds"] + 2.0
    right = {target: scene.witness.right_since[target] for target in targets(scene) if target != late}
    # In the simulation, reads that are issued together take their time one after the other.
    assert max(at - since for at in right.values() if at is not None) < SLOW_SECONDS + 0.5
    assert len(encrypted(scene)) == 17
    scene.witness.check_whole()


def test_what_is_due_in_a_slow_region_holds_up_neither_other_retries_nor_requests() -> None:
    scene = well(6)
    late, *others, asked = targets(scene)
    drift(scene, targets(scene))
    for minutes, target in enumerate((*reversed(others), late), start=1):
        _make_due(scene, target, minutes)
    slow(scene, late)
    requests = FakeRequests(str(asked))
    since = scene.world.now
    scene.lambdas.invoke("tick", lambda guard, run: tick(replace(guard, requests=requests), lambda: 60.0), retries=())
    scene.world.run(SLOW_SECONDS)
    assert encrypted(scene) == [*others, asked]
    assert requests.waiting == [], "what was done is taken off the list before the slow Region ends"
    scene.world.run(since + FUNCTION_SECONDS - scene.world.now - 1)
    assert encrypted(scene) == list(targets(scene))
    scene.witness.check_whole()


def test_a_target_that_is_due_and_requested_is_reconciled_once_and_then_again() -> None:
    scene = well(2)
    target, other = targets(scene)
    drift(scene, [target])
    _make_due(scene, target, 1)
    requests = FakeRequests(str(target), str(other))
    scene.lambdas.invoke("tick", lambda guard, run: tick(replace(guard, requests=requests), lambda: 60.0), retries=())
    scene.world.run(FUNCTION_SECONDS)
    report = last_report(scene)
    assert sorted(result.outcome for result in report.results if result.target == target) == [
        Outcome.COMPLIANT,
        Outcome.REMEDIATED,
    ]
    assert requests.waiting == []


def _make_due(scene: Stage, target: Target, minutes_ago: int) -> None:
    state = scene.tables.state(target)
    state = replace(state, recheck_at=scene.world.clock - timedelta(minutes=minutes_ago))
    scene.tables.states[str(target)] = (state.version, msgspec.json.encode(state), state.due)


# --- P17 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_p17_the_budget_is_exact_however_many_targets_are_reconciled_at_a_time(seed: int) -> None:
    scene = an_account(30, budget=10, seed=seed)
    scene.world.latency = lambda rng, name: rng.uniform(0.005, 0.4)
    for right in (10, 20, 30):
        before = len(scene.world.mutations)
        detail = swept(scene)
        assert len(mutated(scene, before)) == 10
        assert len(encrypted(scene)) == right
        assert detail["outcomes"].get("DEFERRED", 0) == 30 - right
        held = [scene.tables.state(target) for target in targets(scene) if target not in encrypted(scene)]
        assert all((state.outcome, state.reason) == (Outcome.DEFERRED, "BLAST_RADIUS") for state in held)
    scene.witness.check_whole()


def test_p17_targets_that_are_compliant_take_nothing_of_the_budget() -> None:
    scene = well(17, budget=3)
    drifted = targets(scene)[9:12]
    drift(scene, drifted)
    before = len(scene.world.mutations)
    detail = swept(scene)
    assert mutated(scene, before) == set(drifted)
    assert detail["outcomes"] == {"COMPLIANT": 14, "REMEDIATED": 3}


@pytest.mark.parametrize("hazard", [Hazard("silence", late=True), Hazard("bug", late=True)], ids=lambda it: it.kind)
def test_p17_a_target_that_may_have_been_mutated_counts(hazard: Hazard) -> None:
    """The answer to its last transaction is lost, so no result says that it was mutated."""
    scene = an_account(6, budget=2)
    scene.lambdas.at_once = 3
    first = targets(scene)[0]
    scene.world.hazard = lambda run, number, name: (
        hazard
        if run.about == str(first) and "PutEncryptionConfig" in run.calls and name == "TransactWriteItems"
        else None
    )
    swept(scene)
    assert len(mutated(scene)) == 2
    assert first in mutated(scene)


# --- P6, P10: order and time -----------------------------------------------------------------------------------------


def test_p6_the_targets_begin_longest_unseen_first_though_several_run_at_a_time() -> None:
    scene = an_account(9)
    order = list(targets(scene))
    Random(4).shuffle(order)
    for number, target in enumerate(order):
        state = replace(scene.tables.state(target), version=1, checked_at=scene.world.clock + timedelta(minutes=number))
        scene.tables.states[str(target)] = (1, msgspec.json.encode(state), None)
    began: list[str] = []

    def note(run: Run, number: int, name: str) -> None:
        if "/" in run.about and run.about not in began:
            began.append(run.about)

    scene.lambdas.at_once = 3
    scene.world.hazard = note
    scene.world.latency = lambda rng, name: rng.uniform(0.01, 0.8)
    swept(scene)
    assert began == [str(target) for target in order]


def test_p10_a_sweep_begins_no_target_late_and_names_those_it_did_not_begin() -> None:
    scene = an_account(9)
    scene.lambdas.at_once = 3
    scene.world.latency = lambda rng, name: 0.75
    detail = swept(scene, FUNCTION_SECONDS + 1)
    done = encrypted(scene)
    assert 3 <= len(done) < 9
    assert detail["run"]["at_once"] == 3
    assert detail["unreached"] == {str(target): "OUT_OF_TIME" for target in targets(scene) if target not in done}
    scene.world.latency = lambda rng, name: 0.02
    swept(scene)
    assert len(encrypted(scene)) == 9


# --- what ends the process -------------------------------------------------------------------------------------------


def _crashes_at(scene: Stage, number_of_call: int, *, late: bool) -> list[Run]:
    """The first sweep dies at a call of one of its targets. Return the run when it is dead."""
    dead: list[Run] = []
    counted = [0]

    def hazard(run: Run, number: int, name: str) -> Hazard | None:
        assert run not in dead, "a dead process makes no calls"
        if run.function != "sweep" or dead:
            return None
        counted[0] += 1
        if counted[0] != number_of_call:
            return None
        dead.append(run)
        return Hazard("crash", late=late)

    scene.world.hazard = hazard
    return dead


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("number", range(2, 66, 3))
def test_p1_a_crash_in_one_target_ends_all_and_each_of_them_is_remediated_later(number: int, late: bool) -> None:
    scene = an_account(4, seed=number)
    scene.lambdas.at_once = 3
    scene.world.latency = lambda rng, name: rng.uniform(0.01, 0.1)
    scene.lambdas.schedule(first_sweep_after=None)
    dead = _crashes_at(scene, number, late=late)
    scene.lambdas.sweep()
    scene.world.run(1200)
    assert len(dead) == 1, "the sweep makes fewer calls"
    for target in targets(scene):
        assert scene.witness.right(target), scene.witness.story(target)
        assert scene.witness.keys_made[target] == 1
    scene.witness.check_whole()


def test_p8_the_end_of_the_functions_time_ends_all_its_targets_and_each_is_remediated_later() -> None:
    scene = an_account(5)
    scene.lambdas.schedule(first_sweep_after=None)
    frozen: list[Run] = []

    def hazard(run: Run, number: int, name: str) -> None:
        if name == "PutEncryptionConfig" and (not frozen or run in frozen):
            frozen.append(run)
            scene.world.wait(10 * FUNCTION_SECONDS)

    scene.world.hazard = hazard
    scene.lambdas.sweep()
    scene.world.run(FUNCTION_SECONDS - 1)
    assert encrypted(scene) == []
    assert len(frozen) == 5, "each of them is in the middle of a remediation"
    scene.world.run(1800)
    assert encrypted(scene) == list(targets(scene))
    for target in targets(scene):
        assert scene.witness.right(target), scene.witness.story(target)
    scene.witness.check_whole()


def test_p11_a_bug_in_one_target_stops_none_of_those_that_run_beside_it() -> None:
    scene = an_account(6)
    poisoned, *others = targets(scene)
    scene.world.hazard = lambda run, number, name: Hazard("bug") if run.about == str(poisoned) else None
    detail = swept(scene)
    assert encrypted(scene) == others
    assert scene.tables.records(GUARD_CHAIN)[-1].outcome is Outcome.FAILED
    assert detail["unreached"] == {str(poisoned): "INTERNAL_ERROR"}
    report = last_report(scene)
    assert len(report.bugs) == 1


def test_a_crash_is_the_end_of_work_that_runs_beside_it() -> None:
    """The simulation itself: of two jobs of one process, one dies at 1 s, and the other does nothing after that."""
    scene = stage()
    world, done = scene.world, []

    def dies() -> None:
        world.wait(1.0)
        raise Crash

    def goes_on() -> None:
        for _ in range(5):
            world.wait(0.4)
            done.append(world.now)

    def process() -> None:
        try:
            world.fan_out([dies, goes_on], 2)
        except Crash:
            done.append(-world.now)

    world.start(process)
    world.run(10)
    assert done == [0.4, 0.8, -1.0]
    assert world.running == 0
