"""The record of a pause names the policy in force, whatever document the operator has."""

from __future__ import annotations

from msgspec.structs import replace

from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.reasons import Reason
from chalicelib.domain.stored import GUARD_CHAIN
from chalicelib.loop.guard import Guard
from chalicelib.loop.pause import pause
from tests.simulation.beginnings import operate, quiet
from tests.simulation.lambdas import baseline


def test_the_record_of_a_pause_has_the_digest_of_the_policy_in_force() -> None:
    """`xray-guard pause` uses the file beside it (`operator.file_policy`), which may be any other."""
    scene = quiet()
    file_policy = baseline(mode="observe")

    def by_hand(guard: Guard) -> object:
        return pause(replace(guard, policy=file_policy), Trigger(TriggerKind.OPERATOR), "nina", "why")

    operate(scene, by_hand)
    scene.world.run(10)
    (record,) = (each for each in scene.tables.records(GUARD_CHAIN) if each.reason == Reason.PAUSED)
    assert record.policy_digest == scene.tables.guard().policy_digest
