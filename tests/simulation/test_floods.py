"""Whoever floods the guard with what it must audit does not keep it from acting, and loses no line of the audit log."""

from __future__ import annotations

from collections import Counter

import pytest

from chalicelib.domain.model import ChangeEvent
from chalicelib.domain.reasons import Outcome
from tests.simulation.scenarios import stage
from tests.simulation.world import HOME

FLOOD_SECONDS = 60


@pytest.mark.parametrize("refused_a_second", [2, 10, 20])
def test_a_flood_of_refused_calls_does_not_keep_x_ray_from_being_put_right(refused_a_second: int) -> None:
    """Anybody may have calls refused, and each is audited in the very chain that the remediation is recorded in."""
    scene = stage(latency=lambda rng, name: rng.uniform(0.005, 0.03) * (2 if name == "TransactWriteItems" else 1))
    scene.world.user_puts(HOME, None)
    scene.lambdas.schedule(first_sweep_after=None)
    assert scene.converge(), scene.witness.story()
    scene.world.run(1200)
    world, ends = scene.world, scene.world.now + FLOOD_SECONDS
    world.delivery = lambda rng: [rng.uniform(1, 3)]

    def flood() -> None:
        world.user_fails(HOME)
        if world.now < ends:
            world.later(world.rng.uniform(0.5, 1.5) / refused_a_second, flood)

    flood()
    world.user_puts(HOME, None)
    assert world.run(15, scene.witness.right), scene.witness.story()
    assert scene.converge(900), scene.witness.story()
    refused = Counter(event.trigger.event_id for event in world.events if event.error_code)
    ignored = [record for record in scene.tables.records(HOME) if record.outcome is Outcome.IGNORED]
    audited = Counter(record.trigger.event_id for record in ignored)
    set_aside = Counter(
        event.trigger.event_id for event in scene.lambdas.dead_letters if isinstance(event, ChangeEvent)
    )
    assert audited + set_aside == refused, "each refused call is audited once, or set aside"
    scene.witness.check_whole()
