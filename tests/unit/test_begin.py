"""How an attempt begins while others write to the same target: what was observed stands if only the chain grew."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from chalicelib.domain.model import GUARD_TAG_KEY, GUARD_TAG_VALUE, NONCE_TAG_KEY, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import Intent, TargetState
from chalicelib.loop.guard import Result
from chalicelib.loop.reconcile import reconcile
from tests.simulation.scenarios import Stage
from tests.simulation.still import still
from tests.simulation.world import HOME, Hazard, Run

SWEEP = Trigger(TriggerKind.SWEEP)


def swept(scene: Stage) -> tuple[Run, Result]:
    run = Run("sweep/1", "sweep")
    return run, reconcile(scene.lambdas.guard(run), HOME, SWEEP)


def drifted() -> Stage:
    """A target that was compliant for an hour, and then turned off."""
    scene = still()
    swept(scene)
    assert scene.witness.right(), scene.witness.story()
    scene.world.run(3600)
    scene.world.user_puts(HOME, None)
    return scene


def interrupts(scene: Stage, times: int) -> None:
    """Just before a sweep writes, somebody's refused call is put on the record of the same target: so many times."""
    others: list[Run] = []

    def hazard(run: Run, number: int, name: str) -> Hazard | None:
        if run.name == "sweep/1" and name == "TransactWriteItems" and len(others) < times:
            others.append(Run(f"on_change/{len(others)}", "on_change"))
            refused = scene.world.user_fails(HOME)
            reconcile(scene.lambdas.guard(others[-1]), HOME, refused.trigger, refused)
        return None

    scene.world.hazard = hazard


@pytest.mark.parametrize("times", [1, 3])
def test_p1_a_chain_that_grew_costs_another_write_and_not_another_observation(times: int) -> None:
    undisturbed, _ = swept(drifted())
    scene = drifted()
    interrupts(scene, times)
    run, result = swept(scene)
    assert result.outcome is Outcome.REMEDIATED
    assert Counter(run.calls) - Counter(undisturbed.calls) == {"BatchGetItem": times, "TransactWriteItems": times}
    scene.witness.check_whole()


def test_p16_records_that_came_between_are_followed_by_those_of_the_attempt_in_one_chain() -> None:
    scene = drifted()
    count = len(scene.tables.records(HOME))
    interrupts(scene, 2)
    swept(scene)
    records = scene.tables.records(HOME)
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert [record.outcome for record in records[count:]] == [
        Outcome.IGNORED,
        Outcome.IGNORED,
        Outcome.REMEDIATING,
        Outcome.REMEDIATED,
    ]
    scene.witness.check_whole()


def test_p2_a_lost_workers_key_that_was_just_found_is_not_created_again_though_the_chain_grew() -> None:
    scene = still()
    tags = ((GUARD_TAG_KEY, GUARD_TAG_VALUE), (NONCE_TAG_KEY, "nonce-lost"))
    lost = scene.make_key(tagged=True, tags=tags)
    due = scene.world.clock + timedelta(minutes=5)
    state = TargetState(str(HOME), version=1, intent=Intent("nonce-lost", due))
    scene.tables.hold(state)
    scene.world.run(60)
    interrupts(scene, 1)
    swept(scene)
    after = scene.tables.state(HOME)
    assert (after.managed_key, after.keys_made, after.intent) == (lost, (lost,), None)
    assert list(scene.world.place(HOME).kms.keys) == [lost]
    scene.witness.check_whole()
