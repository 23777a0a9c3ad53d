"""P10, P11 and P17: throttling is met with bounded attempts, a poisoned target costs itself, a sweep has its budget."""

from __future__ import annotations

import json

import pytest

from chalicelib.domain.model import EncryptionType, Target
from chalicelib.domain.policy import parse
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GUARD_CHAIN
from chalicelib.loop.batch import Report
from tests.simulation.lambdas import BASELINE
from tests.simulation.scenarios import Stage, stage
from tests.simulation.world import ACCOUNT, HOME, STORE, Hazard, Run

REGIONS = ("eu-central-1", "eu-west-1", "us-east-1", "us-east-2", "us-west-2")
TARGETS = tuple(Target(ACCOUNT, region) for region in REGIONS)


def everywhere(budget: int = 50) -> Stage:
    """Five Regions, all of them well, and a policy whose sweep may mutate so many."""
    document = json.loads(BASELINE)
    document["limits"]["remediations_per_sweep"] = budget
    document["rules"][0]["when"] = "always"
    scene = stage(policy=parse(json.dumps(document).encode()))
    scene.lambdas.regions = REGIONS
    for target in TARGETS:
        scene.world.user_puts(target, None)
    scene.lambdas.schedule(first_sweep_after=None)
    scene.world.run(1200)
    assert all(scene.witness.right(target) and scene.witness.settled(target) for target in TARGETS)
    return scene


def drift_everywhere(scene: Stage) -> None:
    with scene.undelivered():
        for target in TARGETS:
            scene.world.user_puts(target, None)


def reports(scene: Stage) -> list[Report]:
    return [result for result in scene.lambdas.results if isinstance(result, Report)]


# --- P10 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["kms", "xray"])
def test_p10_while_aws_throttles_the_attempts_are_few_and_recorded_and_end_when_it_does(service: str) -> None:
    scene = stage()
    scene.lambdas.schedule(first_sweep_after=None)
    throttled = [True]

    def hazard(run: Run, number: int, name: str) -> Hazard | None:
        of_xray = name.endswith("EncryptionConfig")
        hit = throttled[0] and name not in STORE and (of_xray if service == "xray" else not of_xray)
        return Hazard("throttle") if hit else None

    scene.world.hazard = hazard
    scene.world.user_puts(HOME, None)
    scene.world.run(3 * 3600)
    records = scene.tables.records(HOME)
    # At first after some seconds, later after five minutes, which jitter shortens by a quarter at most.
    assert 5 <= len(records) <= 5 + 3 * 3600 // 225, scene.witness.story()
    assert {(record.outcome, record.reason) for record in records} == {(Outcome.FAILED, "ThrottlingException")}
    assert scene.tables.state(HOME).due is not None
    assert not scene.lambdas.dead_letters, "what is on the record needs no dead letter"
    throttled[0] = False
    assert scene.converge(30 * 60 + 60 + 400), scene.witness.story()
    scene.witness.check_whole()


def test_p10_while_the_tables_cannot_be_written_nothing_is_mutated_and_the_event_is_not_lost() -> None:
    scene = stage()
    scene.lambdas.schedule(first_sweep_after=None)
    down = [True]
    scene.world.hazard = lambda run, number, name: Hazard("throttle") if down[0] and name in STORE else None
    event = scene.world.user_puts(HOME, None)
    scene.world.run(600)
    assert not [mutation for mutation in scene.world.mutations if mutation.run]
    assert scene.lambdas.dead_letters == [event]
    down[0] = False
    scene.lambdas.deliver(event)
    assert scene.converge(900), scene.witness.story()
    scene.witness.check_whole()


# --- P11 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bug", "throttle", "silence"])
def test_p11_a_poisoned_target_does_not_keep_a_sweep_from_the_others(kind: str) -> None:
    scene = everywhere()
    poisoned, *others = TARGETS
    drift_everywhere(scene)
    scene.world.hazard = lambda run, number, name: (
        Hazard(kind) if run.about == str(poisoned) and name == "GetEncryptionConfig" else None
    )
    scene.lambdas.sweep()
    scene.world.run(50)
    for target in others:
        assert scene.witness.right(target), scene.witness.story(target)
    last = scene.tables.records(poisoned)[-1]
    assert last.outcome is Outcome.FAILED
    assert scene.tables.state(poisoned).due is not None
    scene.world.hazard = lambda run, number, name: None
    scene.world.run(3600)
    assert scene.witness.right(poisoned), scene.witness.story(poisoned)
    scene.lambdas.surprises.clear()
    scene.witness.check_whole()


def test_p11_a_poisoned_target_does_not_keep_a_tick_from_the_others() -> None:
    scene = everywhere()
    poisoned, *others = TARGETS
    for target in TARGETS:
        scene.world.place(target).settles_at = 0.0
    scene.world.settling = lambda rng: 30.0
    for target in TARGETS:
        scene.world.user_puts(target, None)
    scene.world.run(20)
    scene.world.hazard = lambda run, number, name: (
        Hazard("bug") if run.about == str(poisoned) and run.function == "tick" else None
    )
    scene.world.run(1200)
    for target in others:
        assert scene.witness.settled(target), scene.witness.story(target)
    assert not scene.witness.settled(poisoned)
    scene.world.hazard = lambda run, number, name: None
    scene.world.run(3600)
    assert scene.witness.settled(poisoned), scene.witness.story(poisoned)


def test_p11_a_target_whose_stored_state_cannot_be_read_costs_a_sweep_only_itself() -> None:
    scene = everywhere()
    poisoned, *others = TARGETS
    version, state, due = scene.tables.states[str(poisoned)]
    scene.tables.states[str(poisoned)] = (version, b'{"target": 5}', due)
    drift_everywhere(scene)
    scene.lambdas.sweep()
    scene.world.run(50)
    for target in others:
        assert scene.witness.right(target), scene.witness.story(target)
    (report,) = reports(scene)[-1:]
    assert str(poisoned) in report.unreached
    sweep = scene.tables.records(GUARD_CHAIN)[-1]
    assert (sweep.reason, sweep.outcome) == ("SWEEP", Outcome.FAILED)
    assert str(poisoned) in str(sweep.detail["unreached"])
    scene.tables.states[str(poisoned)] = (version, state, due)
    scene.lambdas.sweep()
    scene.world.run(50)
    assert scene.witness.right(poisoned)


# --- P17 -------------------------------------------------------------------------------------------------------------


def test_p17_a_sweep_mutates_at_most_as_many_targets_as_the_policy_allows_and_the_next_goes_on() -> None:
    scene = everywhere(budget=2)
    drift_everywhere(scene)
    for right in (2, 4, 5):
        scene.lambdas.sweep()
        scene.world.run(300)
        put_right = [target for target in TARGETS if scene.world.setting(target).type is EncryptionType.KMS]
        assert len(put_right) == right
        held = [scene.tables.state(target) for target in TARGETS if target not in put_right]
        assert all((state.outcome, state.reason) == (Outcome.DEFERRED, "BLAST_RADIUS") for state in held)
    scene.witness.check_whole()


def test_p17_a_change_event_touches_its_own_target_only_and_asks_no_budget() -> None:
    scene = everywhere(budget=1)
    drift_everywhere(scene)
    before = len(scene.world.mutations)
    scene.world.user_puts(HOME, None)
    scene.world.run(30)
    assert {mutation.target for mutation in scene.world.mutations[before:]} == {HOME}
    assert scene.witness.right(HOME)


def test_p17_what_a_sweep_put_off_is_put_right_at_once_when_its_event_comes() -> None:
    scene = everywhere(budget=1)
    with scene.undelivered():
        events = [scene.world.user_puts(target, None) for target in TARGETS]
    scene.lambdas.sweep()
    scene.world.run(60)
    for event in events:
        scene.lambdas.deliver(event)
    scene.world.run(60)
    for target in TARGETS:
        assert scene.witness.right(target), scene.witness.story(target)
    scene.witness.check_whole()


def test_p17_a_sweep_that_runs_out_of_time_says_so_and_the_next_one_begins_where_it_stopped() -> None:
    scene = everywhere()
    drift_everywhere(scene)
    scene.lambdas.at_once = 2
    scene.world.latency = lambda rng, name: 1.2
    scene.lambdas.sweep()
    scene.world.run(61)
    first = {target for target in TARGETS if scene.world.setting(target).type is EncryptionType.KMS}
    assert 0 < len(first) < len(TARGETS)
    scene.world.latency = lambda rng, name: 0.02
    scene.world.run(600)
    for _ in range(2):
        scene.lambdas.sweep()
        scene.world.run(120)
    for target in TARGETS:
        assert scene.witness.right(target), scene.witness.story(target)
    scene.witness.check_whole()
