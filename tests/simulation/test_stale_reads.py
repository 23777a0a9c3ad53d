"""P1 and P13 where KMS answers from its past: up to four minutes old, and not every read as old as the other."""

from __future__ import annotations

from chalicelib.domain.reasons import Outcome
from tests.simulation.beginnings import settled_stage
from tests.simulation.scenarios import ALIAS, BARE_POLICY, Stage, stage
from tests.simulation.world import HOME


def test_p13_a_key_that_kms_shows_to_some_reads_only_is_not_yet_put_to_use() -> None:
    """The key is described, its policy is shown, and of its rotation KMS says that there is no such key."""
    scene = stage()
    scene.world.user_puts(HOME, None)
    with scene.undelivered():
        scene.world.user_sets_alias(HOME, ALIAS, scene.make_key(tagged=True))
    scene.world.run(1)
    ages = iter([0.0, 0.0, 240.0, 0.0])
    scene.world.staleness = lambda rng: next(ages, 240.0)
    scene.world.run(20)
    assert scene.world.setting(HOME).key_arn is None, scene.witness.story()
    assert scene.tables.records(HOME)[-1].outcome is Outcome.FAILED
    scene.world.staleness = lambda rng: 0.0
    scene.lambdas.schedule()
    assert scene.converge(600), scene.witness.story()
    scene.witness.check_whole()


def remediated_then_read_stale() -> Stage:
    """The target was remediated ten minutes ago, and from now on KMS shows what it was four minutes ago."""
    scene = settled_stage()
    scene.world.staleness = lambda rng: 240.0
    scene.witness.fresh = False
    return scene


def test_p1_what_a_remediation_saw_of_the_key_is_looked_at_again_once_stale_reads_have_passed() -> None:
    """The key had lost its statements and its rotation minutes ago, and no read showed it when X-Ray was put back."""
    scene = remediated_then_read_stale()
    since = scene.world.now
    with scene.undelivered():
        scene.world.user_changes_key(HOME, scene.managed_key(), policy=BARE_POLICY, rotation=False)
    scene.world.user_puts(HOME, None)
    assert scene.converge(1000), scene.witness.story()
    right_since = scene.witness.right_since[HOME]
    assert right_since is not None
    assert right_since - since <= 250 + 60 + 10
    scene.witness.check_whole()


def test_p1_a_repair_that_kms_is_slow_to_show_is_not_held_back_as_if_it_were_a_fight() -> None:
    scene = remediated_then_read_stale()
    since = scene.world.now
    with scene.undelivered():
        scene.world.user_changes_key(HOME, scene.managed_key(), state="Disabled")
    scene.world.user_puts(HOME, None)
    assert scene.converge(1200), scene.witness.story()
    right_since = scene.witness.right_since[HOME]
    assert right_since is not None
    assert right_since - since <= 2 * (240 + 60 + 10)
    assert all(record.reason != "BACKOFF" for record in scene.tables.records(HOME))
    scene.witness.check_whole()
