"""The guard's own chain: the brake, the policy in force, and what names no target. P11, P12."""

from __future__ import annotations

from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GUARD_CHAIN, Record
from chalicelib.loop.commit import record_in_guard_chain
from chalicelib.loop.pause import pause, resume
from tests.simulation.beginnings import OPERATOR, brake, look, operate, quiet, release
from tests.simulation.lambdas import baseline
from tests.simulation.scenarios import Stage


def records(scene: Stage, reason: str) -> list[Record]:
    return [record for record in scene.tables.records(GUARD_CHAIN) if record.reason == reason]


def announced(scene: Stage) -> list[str | None]:
    """The digests of the policies that the log says are in force, in order."""
    return [record.policy_digest for record in records(scene, "POLICY_IN_FORCE")]


# --- the brake -------------------------------------------------------------------------------------------------------


def test_p9_the_first_pause_stands_and_says_who_and_why() -> None:
    scene = quiet()
    operate(scene, lambda guard: pause(guard, OPERATOR, "alice", "INC-1 outage"))
    operate(scene, lambda guard: pause(guard, OPERATOR, "bob", "me too"))
    paused = scene.tables.guard().paused
    assert paused is not None
    assert (paused.by, paused.reason) == ("alice", "INC-1 outage")
    (record,) = records(scene, "PAUSED")
    assert record.detail == {"by": "alice", "message": "INC-1 outage"}
    scene.witness.check_whole()


def test_a_guard_that_is_not_paused_is_not_resumed() -> None:
    scene = quiet()
    release(scene)
    assert records(scene, "RESUMED") == []
    brake(scene)
    release(scene)
    release(scene)
    assert [record.detail["by"] for record in records(scene, "RESUMED")] == ["alice"]
    assert scene.tables.guard().paused is None


# --- the policy in force ---------------------------------------------------------------------------------------------


def test_the_first_run_under_a_new_policy_says_so_once() -> None:
    scene = quiet()
    before = scene.lambdas.policy.digest
    assert announced(scene) == [before]
    scene.lambdas.policy = baseline(mode="observe")
    for _ in range(3):
        look(scene)
    assert announced(scene) == [before, scene.lambdas.policy.digest]
    assert scene.tables.guard().policy_digest == scene.lambdas.policy.digest


def test_a_new_policy_is_announced_though_something_else_was_written_under_it_first() -> None:
    scene = quiet()
    scene.lambdas.policy = baseline(mode="observe")
    operate(
        scene,
        lambda guard: record_in_guard_chain(guard, Outcome.FAILED, Trigger(TriggerKind.SWEEP), reason="NO_REGIONS"),
    )
    look(scene)
    assert announced(scene)[-1] == scene.lambdas.policy.digest


def test_an_operator_who_pauses_with_another_policy_at_hand_does_not_change_which_one_is_in_force() -> None:
    scene = quiet()
    in_force = scene.tables.guard().policy_digest
    scene.lambdas.policy = baseline(mode="observe")
    operate(scene, lambda guard: pause(guard, OPERATOR, "alice", "testing"))
    operate(scene, lambda guard: resume(guard, OPERATOR, "alice"))
    assert scene.tables.guard().policy_digest == in_force


# --- what names no target --------------------------------------------------------------------------------------------


def test_p11_a_bad_event_is_recorded_once_however_often_it_arrives() -> None:
    scene = quiet()
    bad = Trigger(TriggerKind.CHANGE, event_id="bad-1")
    written: list[Record | None] = []
    for _ in range(3):
        operate(
            scene,
            lambda guard: written.append(record_in_guard_chain(guard, Outcome.FAILED, bad, reason="NO_TARGET")),
        )
    assert written == [*records(scene, "NO_TARGET"), None, None]
    assert written[0] is not None
    scene.witness.check_whole()


def test_p12_each_record_of_the_guards_own_chain_raises_its_metrics() -> None:
    scene = quiet()
    brake(scene)
    emitted = [record.record_id for record in scene.lambdas.emitted if record.target == GUARD_CHAIN]
    assert emitted == [record.record_id for record in scene.tables.records(GUARD_CHAIN)]
