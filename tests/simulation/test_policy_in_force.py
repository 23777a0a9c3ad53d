"""The first run under a new policy says so in the guard's own chain, which is no business of the target's."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from chalicelib.domain.errors import Busy, Conflict
from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.policy import sha256_of
from chalicelib.domain.reasons import NOTES, Outcome, Reason
from chalicelib.domain.stored import GUARD_CHAIN, GuardState, Record, Tally, TargetState
from chalicelib.loop.guard import Result
from chalicelib.loop.reconcile import reconcile
from tests.simulation.fakes import FakeStore
from tests.simulation.lambdas import baseline
from tests.simulation.scenarios import Stage, stage
from tests.simulation.world import HOME, Run


class Crowded(FakeStore):
    """A store where somebody else always writes to the guard's own chain first."""

    def commit(
        self,
        before: TargetState | GuardState,
        after: TargetState | GuardState,
        records: Sequence[tuple[Record, bytes, str]] = (),
        event_id: str | None = None,
        tally: Tally | None = None,
        closes: Tally | None = None,
        used: Sequence[str] = (),
    ) -> None:
        if after.target == GUARD_CHAIN:
            raise Conflict(GUARD_CHAIN)
        super().commit(before, after, records, event_id, tally, closes, used)


def test_a_policy_that_cannot_be_announced_is_raised_and_is_no_failure_of_the_target() -> None:
    scene = stage()
    run = Run("on_change/1", "on_change")
    raised: list[Exception] = []

    def live() -> None:
        guard = replace(scene.lambdas.guard(run), store=Crowded(scene.world, run, scene.tables))
        try:
            reconcile(guard, HOME, Trigger(TriggerKind.SWEEP))
        except Busy as busy:
            raised.append(busy)

    scene.world.start(live)
    with scene.undelivered():  # the echo's run would announce it
        scene.world.run(60)
    outcomes = [record.outcome for record in scene.tables.records(HOME) if record.reason not in NOTES]
    assert outcomes == [Outcome.REMEDIATING, Outcome.REMEDIATED]
    assert scene.witness.right(), scene.witness.story()
    assert raised, "it must be loud, so that Lambda tries again"


def test_the_record_of_a_policy_holds_its_text_unless_it_is_too_long_for_an_item() -> None:
    scene = stage()
    scene.lambdas.sweep()
    scene.world.run(60)
    policy = scene.lambdas.policy
    scene.lambdas.policy = replace(policy, digest="a long one", document='"' * 200_000)
    scene.lambdas.sweep()
    scene.world.run(60)
    records = [record for record in scene.tables.records(GUARD_CHAIN) if record.reason == "POLICY_IN_FORCE"]
    assert [record.detail for record in records] == [{"document": policy.document}, {"document_bytes": 400_002}]
    assert sha256_of(policy.document.encode()) == records[0].policy_digest
    assert scene.tables.guard().policy_seq == records[-1].seq


def managed_under_another_policy() -> tuple[Stage, str]:
    """A target that has been compliant for some minutes, and the digest of a policy that was deployed just now."""
    scene = stage()
    scene.lambdas.schedule(first_sweep_after=None)
    scene.world.user_puts(HOME, None)
    assert scene.converge(), scene.witness.story()
    scene.world.run(600)
    scene.lambdas.policy = baseline(when="in-use")
    assert scene.tables.guard().policy_digest != scene.lambdas.policy.digest
    return scene, scene.lambdas.policy.digest


def test_an_echo_under_a_new_policy_announces_it() -> None:
    scene, digest = managed_under_another_policy()
    echo = next(event for event in scene.world.events if event.trigger.request_id in scene.world.guards_requests)
    scene.lambdas.deliver(echo)
    scene.world.run(60)
    assert scene.tables.guard().policy_digest == digest


def test_a_tick_that_finds_nothing_due_under_a_new_policy_announces_it() -> None:
    scene, digest = managed_under_another_policy()
    scene.lambdas.look(Trigger(TriggerKind.TICK))
    scene.world.run(60)
    result = scene.lambdas.results[-1]
    assert isinstance(result, Result)
    assert result.reason == Reason.NOT_DUE
    assert scene.tables.guard().policy_digest == digest
