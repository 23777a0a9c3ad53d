"""P14: a break-glass tag that a key brings along does not count, however the guard comes to adopt the key."""

from __future__ import annotations

from chalicelib.domain.model import GUARD_TAG_KEY, GUARD_TAG_VALUE, EncryptionType
from chalicelib.domain.reasons import Outcome
from tests.simulation.lambdas import baseline
from tests.simulation.scenarios import ALIAS, Stage, stage
from tests.simulation.world import HOME, Hazard, Run

TAGS = ((GUARD_TAG_KEY, GUARD_TAG_VALUE), ("xray-guard-break-glass", "20261121T180000Z INC-1 so they say"))


def assert_not_suppressed(scene: Stage, arn: str) -> None:
    """The key is the managed one now, and what it brought along suppresses nothing, neither then nor later."""
    assert scene.managed_key() == arn
    scene.world.user_puts(HOME, None)
    scene.world.run(600)
    assert scene.witness.right(), scene.witness.story()
    assert Outcome.SUPPRESSED not in {record.outcome for record in scene.tables.records(HOME)}
    refused = {record.suppression.refused for record in scene.tables.records(HOME) if record.suppression}
    assert refused == {"FOUND_AT_ADOPTION"}


def test_p14_a_key_that_is_found_behind_the_alias_brings_no_break_glass_along() -> None:
    scene = stage()
    scene.lambdas.schedule(first_sweep_after=None)
    found = scene.make_key(tagged=False, tags=TAGS)
    with scene.undelivered():
        scene.world.user_sets_alias(HOME, ALIAS, found)
    scene.world.user_puts(HOME, None)
    scene.world.run(600)
    assert scene.witness.right(), scene.witness.story()
    assert_not_suppressed(scene, found)


def test_p2_a_key_that_takes_the_alias_while_the_guard_makes_its_own_does_not_keep_x_ray_off_the_guards_key() -> None:
    """P14: what the other key brings along suppresses nothing."""
    scene = stage(rivals=True)
    scene.lambdas.schedule(first_sweep_after=None)
    made: list[str] = []

    def takes_the_alias(run: Run, number: int, name: str) -> Hazard | None:
        if name == "EnableKeyRotation" and not made:
            made.append(scene.make_key(tagged=False, tags=TAGS))
            with scene.undelivered():
                scene.world.user_sets_alias(HOME, ALIAS, made[0])
        return None

    scene.world.hazard = takes_the_alias
    scene.world.user_puts(HOME, None)
    scene.world.run(600)
    assert scene.witness.right(), scene.witness.story()
    assert scene.world.setting(HOME).key_arn == scene.managed_key() != made[0]
    assert scene.world.place(HOME).kms.aliases[ALIAS] == scene.managed_key(), scene.witness.story()
    assert Outcome.SUPPRESSED not in {record.outcome for record in scene.tables.records(HOME)}


def test_p14_a_key_that_gets_the_alias_while_in_use_brings_no_break_glass_along() -> None:
    """A sweep that saw all to be well less than a day ago does not read tags, and must, before it adopts."""
    require = {"key": "customer", "allowed_keys": [ALIAS, "arn:*:kms:*:*:key/*"], "same_account": True}
    scene = stage(policy=baseline(require={**require, "rotation": True}))
    arn = scene.make_key(tagged=False, tags=TAGS)
    scene.world.user_puts(HOME, arn)
    scene.lambdas.schedule(first_sweep_after=1800)
    scene.world.run(1200)
    assert scene.world.setting(HOME).type is EncryptionType.KMS
    with scene.undelivered():
        scene.world.user_sets_alias(HOME, ALIAS, arn)
    scene.world.run(3600)
    assert_not_suppressed(scene, arn)
