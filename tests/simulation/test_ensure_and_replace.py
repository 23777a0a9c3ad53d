"""A key that is required before any drift, and a key that an operator replaces: P1, P2, P3 wherever a run crashes."""

from __future__ import annotations

import json
from collections.abc import Iterator

from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.loop.managed_key import replace_key
from tests.simulation.crashing import CRASHES
from tests.simulation.lambdas import BASELINE, baseline
from tests.simulation.scenarios import ALIAS, BARE_POLICY, Stage, stage
from tests.simulation.world import HOME, Hazard, Run

RULE = json.loads(BASELINE)["rules"][0]
ENSURED = baseline(require={**RULE["require"], "key": "any-kms"}, managed_key={**RULE["managed_key"], "ensure": True})
OPERATOR = Trigger(TriggerKind.OPERATOR)


class Interrupted:
    """Counts the calls from `begin` on, and lets a hazard befall one of them."""

    def __init__(self, hazard: Hazard | None, at: int) -> None:
        self._hazard, self._at = hazard, at
        self._counting = False
        self.calls = 0

    def begin(self) -> None:
        self._counting = True

    def __call__(self, run: Run, number: int, name: str) -> Hazard | None:
        if not self._counting:
            return None
        self.calls += 1
        return self._hazard if self.calls - 1 == self._at else None


def ensured(befalls: Interrupted) -> Stage:
    """X-Ray on the AWS managed key, which is enough for the rule; only the managed key is required as well."""
    scene = stage(policy=ENSURED, hazard=befalls)
    with scene.undelivered():
        scene.world.user_puts(HOME, scene.world.user_makes_key(HOME, manager="AWS", rotation=True, policy=BARE_POLICY))
    scene.world.run(600)
    scene.lambdas.schedule(first_sweep_after=10.0)
    befalls.begin()
    scene.world.run(1800)
    scene.world.end()
    return scene


def replaced(befalls: Interrupted) -> tuple[Stage, str]:
    """A target that is right, whose key an operator then gives up."""
    scene = stage(hazard=befalls)
    scene.lambdas.schedule()
    scene.world.user_puts(HOME, None)
    assert scene.converge(), scene.witness.story()
    scene.world.run(600)
    old = scene.managed_key()
    scene.lambdas.invoke("operator", lambda guard, run: replace_key(guard, HOME, OPERATOR), retries=())
    scene.world.run(1)
    befalls.begin()
    scene.world.run(1800)
    scene.world.end()
    return scene, old


def every_crash() -> Iterator[tuple[Hazard, int]]:
    return ((hazard, at) for at in range(60) for hazard in CRASHES)


def test_p1_p2_a_key_that_the_rule_asks_for_is_there_before_any_drift_wherever_the_run_crashes() -> None:
    whole = ensured(Interrupted(None, -1))
    at_xray = whole.world.place(HOME).key_arn
    interrupted = 0
    for hazard, at in every_crash():
        befalls = Interrupted(hazard, at)
        scene = ensured(befalls)
        interrupted += befalls.calls > at
        state = scene.tables.state(HOME)
        kms = scene.world.place(HOME).kms
        assert state.managed_key is not None, (hazard, at, scene.witness.story())
        assert kms.aliases[ALIAS] == state.managed_key
        assert [arn for arn, key in kms.keys.items() if key.manager == "CUSTOMER"] == [state.managed_key]
        assert state.incident is None
        assert scene.world.place(HOME).key_arn == at_xray
        scene.witness.check_whole()
    assert interrupted > 40


def test_p1_p3_a_key_that_was_given_up_is_replaced_by_one_and_left_as_it_was_wherever_the_run_crashes() -> None:
    interrupted = 0
    for hazard, at in every_crash():
        befalls = Interrupted(hazard, at)
        scene, old = replaced(befalls)
        interrupted += befalls.calls > at
        state = scene.tables.state(HOME)
        kms = scene.world.place(HOME).kms
        assert state.managed_key not in (None, old), (hazard, at, scene.witness.story())
        assert set(kms.keys) == {old, state.managed_key}
        assert kms.keys[old].state == "Enabled"
        assert kms.aliases[ALIAS] == state.managed_key == scene.world.place(HOME).key_arn
        assert state.incident is None
        # The operator's word is what allows a second key, and only one.
        (second,) = scene.witness.broken
        assert "made key number 2" in second
        scene.witness.broken.clear()
        scene.witness.check_whole()
    assert interrupted > 40


def test_a_key_is_given_up_on_the_record_with_the_key_that_was_meant() -> None:
    scene, old = replaced(Interrupted(None, -1))
    (record,) = [each for each in scene.tables.records(HOME) if each.reason == "KEY_REPLACED"]
    assert (record.outcome, record.detail["retired"]) == (Outcome.IGNORED, old)
