"""P14: a break-glass tag that a key brings along does not count, however the guard comes to adopt the key."""

from __future__ import annotations

from chalicelib.domain.model import GUARD_TAG_KEY, GUARD_TAG_VALUE, EncryptionType
from chalicelib.domain.reasons import Outcome
from tests.simulation.lambdas import baseline
from tests.simulation.scenarios import ALIAS, Stage, stage
from tests.simulation.world import HOME, Hazard, Run

TAGS = ((GUARD_TAG_KEY, GUARD_TAG_VALUE), ("xray-guard-break-glass", "20261121T180000Z INC-1 so they say"))


def assert_not_suppressed(told: Stage, arn: str) -> None:
    """The key is the managed one now, and what it brought along suppresses nothing, neither then nor later."""
    assert told.managed_key() == arn
    told.world.user_puts(HOME, None)
    told.world.run(600)
    assert told.witness.right(), told.witness.story()
    assert Outcome.SUPPRESSED not in {record.outcome for record in told.tables.records(HOME)}
    refused = {record.suppression.refused for record in told.tables.records(HOME) if record.suppression}
    assert refused == {"FOUND_AT_ADOPTION"}


def test_p14_a_key_that_wins_the_alias_while_the_guard_makes_its_own_brings_no_break_glass_along() -> None:
    told = stage(rivals=True)
    told.lambdas.schedule(first_sweep_after=None)
    made: list[str] = []

    def wins_the_alias(run: Run, number: int, name: str) -> Hazard | None:
        if name == "EnableKeyRotation" and not made:
            made.append(told.make_key(tagged=False, tags=TAGS))
            with told.unheard():
                told.world.user_sets_alias(HOME, ALIAS, made[0])
        return None

    told.world.hazard = wins_the_alias
    told.world.user_puts(HOME, None)
    told.world.run(600)
    assert told.witness.right(), told.witness.story()
    assert_not_suppressed(told, made[0])


def test_p14_a_key_that_gets_the_alias_while_in_use_brings_no_break_glass_along() -> None:
    """A sweep that saw all to be well less than a day ago does not read tags, and must, before it adopts."""
    require = {"key": "customer", "allowed_keys": [ALIAS, "arn:*:kms:*:*:key/*"], "same_account": True}
    told = stage(policy=baseline(require={**require, "rotation": True}))
    arn = told.make_key(tagged=False, tags=TAGS)
    told.world.user_puts(HOME, arn)
    told.lambdas.schedule(first_sweep_after=1800)
    told.world.run(1200)
    assert told.world.setting(HOME).type is EncryptionType.KMS
    with told.unheard():
        told.world.user_sets_alias(HOME, ALIAS, arn)
    told.world.run(3600)
    assert_not_suppressed(told, arn)
