"""Whose change the guard remediated is not named for what somebody else did later."""

from __future__ import annotations

from chalicelib.domain.model import Actor
from tests.simulation.beginnings import quiet, ticking
from tests.simulation.test_every_event import MALLORY
from tests.simulation.world import ACCOUNT, ALICE, HOME

CAROL = Actor(f"arn:aws:iam::{ACCOUNT}:user/Carol", "IAMUser")


def test_nobody_is_named_for_what_the_guard_repaired_an_hour_before_somebody_else_did_it_again() -> None:
    """Mallory has the guard look at the target twice: it was right, then it is wrong. Her event comes late."""
    scene = ticking(quiet())
    world = scene.world
    arn = scene.managed_key()
    world.delivery = lambda rng: [1.0]
    world.user_disables_key(HOME, arn, CAROL)
    world.run(3600)
    assert scene.witness.right()
    world.user_creates_grant(HOME, arn, MALLORY)  # a look at the target: it is compliant
    world.run(100)
    known = len(scene.tables.records(HOME))
    world.delivery = lambda rng: [600.0]
    world.user_disables_key(HOME, arn, MALLORY)
    world.delivery = lambda rng: [1.0]
    world.user_creates_grant(HOME, arn, MALLORY)  # and another one, before the event of the deed comes
    world.run(60)
    named = {
        event.actor
        for record in scene.tables.records(HOME)[known:]
        for attribution in record.attributions
        for event in attribution.events
    }
    assert ALICE not in named
    assert CAROL not in named, "Carol disabled the key an hour ago, and the guard enabled it since"
