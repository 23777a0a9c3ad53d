"""P9 and P1: whom a fight is against, how loud a slow X-Ray is, who is never held back, and what steps back leaves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from chalicelib.domain.errors import GuardError
from chalicelib.domain.model import Actor
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import Record
from chalicelib.loop.guard import Guard
from chalicelib.loop.managed_key import replace_key
from tests.simulation.beginnings import OPERATOR, look, operate, quiet, stalls, ticking, worker
from tests.simulation.scenarios import Stage
from tests.simulation.world import ACCOUNT, HOME

CAROL = Actor(f"arn:aws:iam::{ACCOUNT}:user/Carol", "IAMUser")
TERRAFORM = Actor(f"arn:aws:iam::{ACCOUNT}:role/terraform", "AssumedRole", session="apply")


def fought(scene: Stage, times: int = 4) -> None:
    """Terraform reverts so often that the next drift is held back; its events are delivered."""
    for _ in range(times):
        scene.lambdas.deliver(scene.world.user_puts(HOME, None, TERRAFORM))
        scene.world.run(5)
        look(scene, OPERATOR, seconds=5)
    assert scene.witness.right(), scene.witness.story()


def held_back(scene: Stage) -> list[Record]:
    return [record for record in scene.tables.records(HOME) if record.reason == "BACKOFF"]


def is_held_back(scene: Stage) -> bool:
    state = scene.tables.state(HOME)
    return (state.outcome, state.reason) == (Outcome.DEFERRED, "BACKOFF") and not scene.witness.right()


# --- a fight ---------------------------------------------------------------------------------------------------------


def test_p9_the_record_of_a_fight_names_the_earlier_rivals_and_the_one_whose_event_came() -> None:
    """Alice made a drift, too, but an hour before the fight began."""
    scene = quiet()
    fought(scene)
    scene.lambdas.deliver(scene.world.user_puts(HOME, None, CAROL))
    scene.world.run(5)
    assert is_held_back(scene)
    assert held_back(scene)[-1].detail["against"] == sorted([TERRAFORM.arn, CAROL.arn])


def test_p9_an_operator_is_not_held_back_by_a_fight() -> None:
    scene = quiet()
    fought(scene)
    scene.lambdas.deliver(scene.world.user_puts(HOME, None, TERRAFORM))
    scene.world.run(5)
    assert is_held_back(scene)
    look(scene, OPERATOR)
    assert scene.witness.right(), scene.witness.story()


def test_p9_a_fight_of_yesterday_holds_nothing_back() -> None:
    scene = quiet()
    fought(scene)
    scene.world.run(24 * 3600)
    before = len(held_back(scene))
    for _ in range(2):
        scene.lambdas.deliver(scene.world.user_puts(HOME, None, TERRAFORM))
        scene.world.run(30)
        assert scene.witness.right(), scene.witness.story()
    assert len(held_back(scene)) == before


def test_p10_a_repair_that_kms_was_slow_to_show_does_not_hold_back_the_next_one() -> None:
    scene = ticking(quiet())
    scene.world.staleness = lambda rng: 240.0
    scene.world.user_changes_key(HOME, scene.managed_key(), state="Disabled")
    scene.world.user_puts(HOME, None)
    look(scene)
    assert scene.world.run(1200, scene.witness.right), scene.witness.story()
    attempts = [record for record in scene.tables.records(HOME)[2:] if record.outcome is Outcome.REMEDIATING]
    assert len(attempts) > 3, "KMS was not slow"
    scene.world.staleness = lambda rng: 0.0
    scene.world.run(20)
    scene.lambdas.deliver(scene.world.user_puts(HOME, None))
    assert scene.world.run(30, scene.witness.right), scene.witness.story()


def test_p9_x_ray_that_is_updating_for_hours_is_reported_once_in_half_an_hour() -> None:
    scene = ticking(quiet())
    scene.world.settling = lambda rng: 4 * 3600.0
    scene.world.user_puts(HOME, None)
    look(scene)
    scene.world.run(4 * 3600 + 120)
    slow = [record.at for record in scene.tables.records(HOME) if record.reason == "UPDATING_TOO_LONG"]
    assert 5 <= len(slow) <= 7, scene.witness.story()
    assert min((later - earlier).total_seconds() for earlier, later in pairwise(slow)) >= 30 * 60
    assert scene.tables.records(HOME)[-1].outcome is Outcome.REMEDIATED
    scene.witness.check_whole()


# --- stepping back ---------------------------------------------------------------------------------------------------


def changes_the_setting(scene: Stage) -> None:
    scene.world.user_puts(HOME, None, CAROL)


def changes_the_key(scene: Stage) -> None:
    scene.world.user_changes_key(HOME, scene.managed_key(), rotation=False)


@pytest.mark.parametrize("act", [changes_the_setting, changes_the_key])
def test_p1_what_is_received_while_another_worker_acts_is_looked_at_though_that_worker_is_lost(
    act: Callable[[Stage], None],
) -> None:
    """The worker is lost with its lease, so nothing that it would have left to be looked at is there."""
    scene = quiet()
    scene.world.user_puts(HOME, None)
    acting = worker(scene, "sweep/acting")
    stalls(scene, acting, "PutEncryptionConfig", 600)
    scene.world.run(5)
    assert scene.tables.state(HOME).recheck_at is None
    scene.world.delivery = lambda rng: [1.0]
    act(scene)
    scene.world.run(10)
    assert scene.tables.state(HOME).recheck_at is not None
    assert ticking(scene).converge(900), scene.witness.story()
    scene.witness.check_whole()


# --- giving up a key -------------------------------------------------------------------------------------------------


def give_up(guard: Guard) -> None:
    replace_key(guard, HOME, OPERATOR)


def test_p2_a_key_given_up_in_a_fight_is_replaced_within_two_ticks_and_never_taken_again() -> None:
    scene = ticking(quiet())
    given_up = []
    for _ in range(2):
        fought(scene)
        scene.lambdas.deliver(scene.world.user_puts(HOME, None, TERRAFORM))
        scene.world.run(5)
        assert is_held_back(scene)
        given_up.append(scene.managed_key())
        operate(scene, give_up)
        assert scene.world.run(120, scene.witness.right), scene.witness.story()
        scene.world.run(600)
    keys = [*given_up, scene.managed_key()]
    assert len(set(keys)) == 3, "a key that was given up is in use again"
    assert scene.tables.state(HOME).keys_retired == tuple(given_up)
    named = [record.detail["retired"] for record in scene.tables.records(HOME) if record.reason == "KEY_REPLACED"]
    assert named == given_up


def test_p1_a_key_given_up_without_any_drift_is_replaced_by_the_next_tick() -> None:
    scene = ticking(quiet())
    old = scene.managed_key()
    operate(scene, give_up)
    scene.world.run(90)
    assert scene.world.setting(HOME).key_arn != old, scene.witness.story()
    assert scene.witness.right(), scene.witness.story()


def test_p8_a_key_is_not_given_up_while_a_worker_acts() -> None:
    scene = quiet()
    key = scene.managed_key()
    scene.world.user_puts(HOME, None)
    acting = worker(scene, "sweep/acting")
    stalls(scene, acting, "PutEncryptionConfig", 20)
    scene.world.run(5)
    refused: list[str] = []

    def refuses(guard: Guard) -> None:
        try:
            give_up(guard)
        except GuardError as error:
            refused.append(error.problem.code)

    operate(scene, refuses)
    assert refused == ["IN_PROGRESS"]
    scene.world.run(60)
    assert scene.managed_key() == key
    assert scene.witness.right(), scene.witness.story()
    scene.witness.check_whole()
