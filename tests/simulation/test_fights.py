"""P9: against another automation the guard slows down, names it, and never stops silently."""

from __future__ import annotations

from itertools import pairwise

import pytest

from chalicelib.domain.model import Actor
from chalicelib.domain.reasons import Outcome
from tests.simulation.scenarios import Stage, stage
from tests.simulation.world import ACCOUNT, HOME, Mutation

DAY = 24 * 3600.0
TERRAFORM = Actor(f"arn:aws:iam::{ACCOUNT}:role/terraform", "AssumedRole", session="apply")

LONGEST_PAUSE = 5 * 60 + 60 + 20
"""Five minutes at most, the tick that takes it up, and the time that the attempt itself takes."""

MOST_PUTS_A_DAY = 330
"""The most that any of the rivals below got out of the guard in a day. The pauses double up to five minutes, jitter
shortens them by a quarter at most, and each quiet hour takes one step back."""

MOST_MUTATIONS_OF_A_KEY_A_DAY = 330


def fought(delay: float, *, rests_after: int = 0, rest: float = 0.0) -> Stage:
    """A day with a rival who reverts each Put of the guard after `delay`, and rests after every so many."""
    scene = stage()
    scene.lambdas.schedule()
    world = scene.world
    mutated = world.on_mutation
    reverted = [0]

    def revert() -> None:
        world.user_puts(HOME, None, TERRAFORM)

    def on_mutation(mutation: Mutation) -> None:
        mutated(mutation)
        if mutation.run is not None and mutation.name == "PutEncryptionConfig":
            reverted[0] += 1
            pause = rest if rests_after and reverted[0] % rests_after == 0 else delay
            world.later(pause, revert)

    world.on_mutation = on_mutation
    world.user_puts(HOME, None, TERRAFORM)
    world.run(DAY)
    return scene


def puts(scene: Stage) -> list[float]:
    return [each.at for each in scene.world.mutations if each.run and each.name == "PutEncryptionConfig"]


RIVALS = {
    "at once": {"delay": 0.3},
    "after five seconds": {"delay": 5.0},
    "after a minute": {"delay": 60.0},
    "after ten minutes": {"delay": 600.0},
    "just within an hour": {"delay": 3500.0},
    "every quiet hour": {"delay": 3700.0},
    "four times, then an hour's rest": {"delay": 5.0, "rests_after": 4, "rest": 3700.0},
    "twice, then two hours' rest": {"delay": 5.0, "rests_after": 2, "rest": 7300.0},
    "ten times, then six hours' rest": {"delay": 5.0, "rests_after": 10, "rest": 6 * 3600.0 + 100},
}


@pytest.mark.parametrize("rival", RIVALS.values(), ids=RIVALS.keys())
def test_p9_a_rival_who_always_reverts_gets_a_bounded_number_of_puts_a_day(rival: dict[str, float]) -> None:
    scene = fought(**rival)  # type: ignore[arg-type]
    sent = puts(scene)
    assert len(sent) <= MOST_PUTS_A_DAY
    scene.witness.check_whole()


def test_p9_against_a_rival_who_reverts_at_once_the_pauses_grow_and_the_guard_never_falls_silent() -> None:
    scene = fought(5.0)
    sent = puts(scene)
    pauses = [later - earlier for earlier, later in pairwise(sent)]
    assert pauses[4] > pauses[3] > pauses[2]
    assert max(pauses) <= LONGEST_PAUSE
    assert sent[-1] > DAY - LONGEST_PAUSE
    scene.witness.check_whole()


def test_p9_the_record_names_the_rival_and_how_often_it_was_fought() -> None:
    scene = fought(5.0)
    held = [record for record in scene.tables.records(HOME) if record.reason == "BACKOFF"]
    assert held, "a fight of a whole day and not one DEFERRED"
    assert all(record.outcome is Outcome.DEFERRED for record in held)
    assert all(TERRAFORM.arn in str(record.detail["against"]) for record in held)
    first, last = (int(str(record.detail["attempts"])) for record in (held[0], held[-1]))
    assert last > first


def test_p9_once_the_rival_has_gone_the_target_is_right_within_the_longest_pause() -> None:
    scene = fought(5.0)
    scene.world.on_mutation = scene.witness._mutation
    assert scene.converge(LONGEST_PAUSE + 300), scene.witness.story()


@pytest.mark.parametrize("delay", [0.05, 1.0, 8.0, 60.0])
def test_p9_a_rival_who_always_disables_the_key_gets_a_bounded_number_of_mutations_a_day(delay: float) -> None:
    """Within a quarter of an hour it may be KMS that is slow, and is not held back; after it, it is a fight."""
    scene = stage()
    scene.lambdas.schedule()
    world = scene.world
    world.user_puts(HOME, None)
    assert scene.converge()
    world.run(600)
    before = len(world.mutations)
    mutated = world.on_mutation
    key = scene.managed_key()

    def on_mutation(mutation: Mutation) -> None:
        mutated(mutation)
        if mutation.run is not None and mutation.name == "EnableKey":
            world.later(delay, lambda: world.user_changes_key(HOME, key, state="Disabled"))

    world.on_mutation = on_mutation
    world.user_changes_key(HOME, key, state="Disabled")
    world.run(DAY)
    sent = [each for each in world.mutations[before:] if each.run]
    assert len(sent) <= MOST_MUTATIONS_OF_A_KEY_A_DAY
    assert sent[-1].at > world.now - LONGEST_PAUSE, "silent"
    scene.witness.check_whole()
