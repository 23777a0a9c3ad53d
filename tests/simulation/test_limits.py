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
    told = stage(policy=parse(json.dumps(document).encode()))
    told.lambdas.regions = REGIONS
    for target in TARGETS:
        told.world.user_puts(target, None)
    told.lambdas.schedule(first_sweep_after=None)
    told.world.run(1200)
    assert all(told.witness.right(target) and told.witness.settled(target) for target in TARGETS)
    return told


def drift_everywhere(told: Stage) -> None:
    with told.unheard():
        for target in TARGETS:
            told.world.user_puts(target, None)


def reports(told: Stage) -> list[Report]:
    return [result for result in told.lambdas.results if isinstance(result, Report)]


# --- P10 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["kms", "xray"])
def test_p10_while_aws_throttles_the_attempts_are_few_and_recorded_and_end_when_it_does(service: str) -> None:
    told = stage()
    told.lambdas.schedule(first_sweep_after=None)
    throttled = [True]

    def hazard(run: Run, number: int, name: str) -> Hazard | None:
        of_xray = name.endswith("EncryptionConfig")
        hit = throttled[0] and name not in STORE and (of_xray if service == "xray" else not of_xray)
        return Hazard("throttle") if hit else None

    told.world.hazard = hazard
    told.world.user_puts(HOME, None)
    told.world.run(3 * 3600)
    records = told.tables.records(HOME)
    assert 5 <= len(records) <= 20, told.witness.story()
    assert {(record.outcome, record.reason) for record in records} == {(Outcome.FAILED, "ThrottlingException")}
    assert told.tables.state(HOME).due is not None
    assert not told.lambdas.dead_letters, "what is on the record needs no dead letter"
    throttled[0] = False
    assert told.converge(30 * 60 + 60 + 400), told.witness.story()
    told.witness.check_whole()


def test_p10_while_the_tables_cannot_be_written_nothing_is_mutated_and_the_event_is_not_lost() -> None:
    told = stage()
    told.lambdas.schedule(first_sweep_after=None)
    down = [True]
    told.world.hazard = lambda run, number, name: Hazard("throttle") if down[0] and name in STORE else None
    event = told.world.user_puts(HOME, None)
    told.world.run(600)
    assert not [mutation for mutation in told.world.mutations if mutation.run]
    assert told.lambdas.dead_letters == [event]
    down[0] = False
    told.lambdas.hear(event)
    assert told.converge(900), told.witness.story()
    told.witness.check_whole()


# --- P11 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bug", "throttle", "silence"])
def test_p11_a_poisoned_target_does_not_keep_a_sweep_from_the_others(kind: str) -> None:
    told = everywhere()
    poisoned, *others = TARGETS
    drift_everywhere(told)
    told.world.hazard = lambda run, number, name: (
        Hazard(kind) if run.about == str(poisoned) and name == "GetEncryptionConfig" else None
    )
    told.lambdas.sweep()
    told.world.run(50)
    for target in others:
        assert told.witness.right(target), told.witness.story(target)
    last = told.tables.records(poisoned)[-1]
    assert last.outcome is Outcome.FAILED
    assert told.tables.state(poisoned).due is not None
    told.world.hazard = lambda run, number, name: None
    told.world.run(3600)
    assert told.witness.right(poisoned), told.witness.story(poisoned)
    told.lambdas.surprises.clear()
    told.witness.check_whole()


def test_p11_a_poisoned_target_does_not_keep_a_tick_from_the_others() -> None:
    told = everywhere()
    poisoned, *others = TARGETS
    for target in TARGETS:
        told.world.place(target).settles_at = 0.0
    told.world.settling = lambda rng: 30.0
    for target in TARGETS:
        told.world.user_puts(target, None)
    told.world.run(20)
    told.world.hazard = lambda run, number, name: (
        Hazard("bug") if run.about == str(poisoned) and run.function == "tick" else None
    )
    told.world.run(1200)
    for target in others:
        assert told.witness.settled(target), told.witness.story(target)
    assert not told.witness.settled(poisoned)
    told.world.hazard = lambda run, number, name: None
    told.world.run(3600)
    assert told.witness.settled(poisoned), told.witness.story(poisoned)


def test_p11_a_target_whose_stored_state_cannot_be_read_costs_a_sweep_only_itself() -> None:
    told = everywhere()
    poisoned, *others = TARGETS
    version, state, due = told.tables.states[str(poisoned)]
    told.tables.states[str(poisoned)] = (version, b'{"target": 5}', due)
    drift_everywhere(told)
    told.lambdas.sweep()
    told.world.run(50)
    for target in others:
        assert told.witness.right(target), told.witness.story(target)
    (report,) = reports(told)[-1:]
    assert str(poisoned) in report.unreached
    sweep = told.tables.records(GUARD_CHAIN)[-1]
    assert (sweep.reason, sweep.outcome) == ("SWEEP", Outcome.FAILED)
    assert str(poisoned) in sweep.detail["unreached"]
    told.tables.states[str(poisoned)] = (version, state, due)
    told.lambdas.sweep()
    told.world.run(50)
    assert told.witness.right(poisoned)


# --- P17 -------------------------------------------------------------------------------------------------------------


def test_p17_a_sweep_mutates_at_most_as_many_targets_as_the_policy_allows_and_the_next_goes_on() -> None:
    told = everywhere(budget=2)
    drift_everywhere(told)
    for right in (2, 4, 5):
        told.lambdas.sweep()
        told.world.run(300)
        put_right = [target for target in TARGETS if told.world.setting(target).type is EncryptionType.KMS]
        assert len(put_right) == right
        held = [told.tables.state(target) for target in TARGETS if target not in put_right]
        assert all((state.outcome, state.reason) == (Outcome.DEFERRED, "BLAST_RADIUS") for state in held)
    told.witness.check_whole()


def test_p17_a_change_event_touches_its_own_target_only_and_asks_no_budget() -> None:
    told = everywhere(budget=1)
    drift_everywhere(told)
    before = len(told.world.mutations)
    told.world.user_puts(HOME, None)
    told.world.run(30)
    assert {mutation.target for mutation in told.world.mutations[before:]} == {HOME}
    assert told.witness.right(HOME)


def test_p17_what_a_sweep_put_off_is_put_right_at_once_when_its_event_comes() -> None:
    told = everywhere(budget=1)
    with told.unheard():
        events = [told.world.user_puts(target, None) for target in TARGETS]
    told.lambdas.sweep()
    told.world.run(60)
    for event in events:
        told.lambdas.hear(event)
    told.world.run(60)
    for target in TARGETS:
        assert told.witness.right(target), told.witness.story(target)
    told.witness.check_whole()


def test_p17_a_sweep_that_runs_out_of_time_says_so_and_the_next_one_begins_where_it_stopped() -> None:
    told = everywhere()
    drift_everywhere(told)
    told.world.latency = lambda rng, name: 1.2
    told.lambdas.sweep()
    told.world.run(61)
    first = {target for target in TARGETS if told.world.setting(target).type is EncryptionType.KMS}
    assert 0 < len(first) < len(TARGETS)
    told.world.latency = lambda rng, name: 0.02
    told.world.run(600)
    for _ in range(2):
        told.lambdas.sweep()
        told.world.run(120)
    for target in TARGETS:
        assert told.witness.right(target), told.witness.story(target)
    told.witness.check_whole()
