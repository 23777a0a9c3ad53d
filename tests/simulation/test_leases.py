"""P8 and P1 where workers stall, retry and meet: whose lease it is, how long it allows a call, how it is freed."""

from __future__ import annotations

import pytest

from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from tests.simulation.beginnings import brake, look, quiet, records_since, stalls, ticking, worker
from tests.simulation.lambdas import LEASE_SECONDS, baseline
from tests.simulation.scenarios import Stage
from tests.simulation.world import HOME, Hazard, Run


def endings(scene: Stage, count: int) -> list[tuple[Outcome, int | None, str | None]]:
    return [
        (record.outcome, record.attempt, record.error.code if record.error else None)
        for record in records_since(scene, count)
    ]


@pytest.mark.parametrize("retry", ["on_change/request-1", "on_change/request-2"], ids=["same request", "another"])
def test_p8_a_stalled_worker_does_not_end_the_attempt_of_the_worker_that_took_over(retry: str) -> None:
    """Lambda retries under the same request id, so the retry's lease has the same owner: its number must differ."""
    scene = quiet()
    count = len(scene.tables.records(HOME))
    scene.world.user_puts(HOME, None)
    first = worker(scene, "on_change/request-1", timeout=None)
    stalls(scene, first, "GetEncryptionConfig", LEASE_SECONDS + 60, after="PutEncryptionConfig")
    scene.world.run(LEASE_SECONDS + 10)
    scene.world.user_puts(HOME, None)
    second = worker(scene, retry, timeout=None)
    stalls(scene, second, "PutEncryptionConfig", 80)
    scene.world.run(LEASE_SECONDS)
    assert endings(scene, count) == [
        (Outcome.REMEDIATING, 1, None),
        (Outcome.FAILED, 1, "WORKER_LOST"),
        (Outcome.REMEDIATING, 2, None),
        (Outcome.REMEDIATED, 2, None),
    ], scene.witness.story()
    assert scene.witness.right(), scene.witness.story()
    scene.witness.check_whole()


def test_p8_each_lease_has_a_greater_number_than_all_before_it() -> None:
    scene = quiet()
    numbers: list[int] = []
    for _ in range(3):
        scene.world.user_puts(HOME, None)
        numbers.append(look(scene).of(HOME).lease_number or 0)
        scene.world.run(3 * 3600)
    assert 0 < numbers[0] < numbers[1] < numbers[2]
    assert scene.tables.state(HOME).lease_number == numbers[-1]


def test_p8_no_mutation_is_sent_so_late_that_it_could_take_effect_after_the_lease() -> None:
    """The worker stalls until ten seconds before the end of its lease, and a call may take longer than that."""
    scene = ticking(quiet())
    scene.world.user_puts(HOME, None)
    late = worker(scene, "sweep/late", timeout=None)
    stalls(scene, late, "TransactWriteItems", LEASE_SECONDS - 10)
    stalls(scene, late, "PutEncryptionConfig", 14)
    assert scene.converge(900), scene.witness.story()
    assert "PutEncryptionConfig" not in late.calls
    scene.witness.check_whole()


@pytest.mark.parametrize("name", ["sweep/acting", "sweep/other"], ids=["a retry of the same request", "another run"])
def test_p8_a_run_that_cannot_read_leaves_the_lease_of_the_worker_that_acts(name: str) -> None:
    scene = quiet()
    count = len(scene.tables.records(HOME))
    scene.world.user_puts(HOME, None)
    acting = worker(scene, "sweep/acting")
    stalls(scene, acting, "PutEncryptionConfig", 20)
    scene.world.run(5)
    befalls = scene.world.hazard
    scene.world.hazard = lambda run, number, name: (
        Hazard("throttle") if run is not acting and name == "GetEncryptionConfig" else befalls(run, number, name)
    )
    blind = worker(scene, name)
    scene.world.run(5)
    assert "GetEncryptionConfig" in blind.calls
    assert endings(scene, count) == [(Outcome.REMEDIATING, 1, None)], scene.witness.story()
    assert scene.tables.state(HOME).is_held(scene.world.clock)
    scene.world.run(60)
    assert endings(scene, count) == [(Outcome.REMEDIATING, 1, None), (Outcome.REMEDIATED, 1, None)]
    scene.witness.check_whole()


@pytest.mark.parametrize(
    "changes", [{"mode": "off"}, {"accounts": ["999999999999"]}], ids=["rule off", "no rule for the target"]
)
def test_p3_a_rule_that_goes_away_does_not_close_the_attempt_of_a_worker_that_acts(changes: dict[str, object]) -> None:
    scene = quiet()
    count = len(scene.tables.records(HOME))
    scene.world.user_puts(HOME, None)
    acting = worker(scene, "sweep/acting")
    stalls(scene, acting, "PutEncryptionConfig", 20)
    scene.world.run(5)
    scene.lambdas.policy = baseline(**changes)
    look(scene, seconds=5)
    scene.lambdas.policy = baseline()
    assert endings(scene, count) == [(Outcome.REMEDIATING, 1, None)], scene.witness.story()
    state = scene.tables.state(HOME)
    assert state.incident is not None
    assert state.incident.lease is not None
    scene.world.run(60)
    assert endings(scene, count) == [(Outcome.REMEDIATING, 1, None), (Outcome.REMEDIATED, 1, None)]
    assert not scene.witness.broken


def test_p9_a_brake_pulled_while_a_remediation_begins_stops_it() -> None:
    """The remediation's first record met a refused call's, and what the worker knew of the brake is outdated."""
    scene = quiet()
    scene.world.user_puts(HOME, None)
    mutations = len(scene.world.mutations)
    beginning = worker(scene, "sweep/beginning")
    stalls(scene, beginning, "TransactWriteItems", 10)
    scene.world.run(3)
    brake(scene)
    scene.lambdas.deliver(scene.world.user_fails(HOME))
    scene.world.run(30)
    state = scene.tables.state(HOME)
    assert (state.outcome, state.reason) == (Outcome.DEFERRED, "PAUSED"), scene.witness.story()
    assert len(scene.world.mutations) == mutations
    scene.witness.check_whole()


def test_p1_a_failed_attempt_frees_the_target_at_once() -> None:
    scene = quiet()
    scene.world.user_puts(HOME, None)
    scene.world.hazard = lambda run, number, name: Hazard("throttle") if name == "PutEncryptionConfig" else None
    look(scene)
    assert not scene.witness.right()
    assert not scene.tables.state(HOME).is_held(scene.world.clock)
    scene.world.hazard = lambda run, number, name: None
    look(scene, Trigger(TriggerKind.OPERATOR))
    assert scene.witness.right(), scene.witness.story()
    scene.witness.check_whole()


def test_p4_a_setting_that_changes_while_the_end_is_written_is_not_recorded_as_remediated() -> None:
    """A refused call's record comes between, so the end is written a second time; X-Ray is on NONE again by then."""
    scene = quiet()
    scene.world.user_puts(HOME, None)
    acting = worker(scene, "sweep/acting")
    changed: list[str] = []

    def changes_again(run: Run, number: int, name: str) -> Hazard | None:
        if run is acting and name == "TransactWriteItems" and "PutEncryptionConfig" in run.calls and not changed:
            changed.append(name)
            scene.world.user_puts(HOME, None)
            scene.lambdas.deliver(scene.world.user_fails(HOME))
            scene.world.wait(5)
        return None

    scene.world.hazard = changes_again
    scene.world.run(30)
    assert changed
    state = scene.tables.state(HOME)
    assert state.outcome is not Outcome.REMEDIATED, scene.witness.story()
    assert state.incident is not None
    assert ticking(scene).converge(900), scene.witness.story()
    scene.witness.check_whole()
