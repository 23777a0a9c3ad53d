"""The one object that the loop depends on, what its runs answer, and the guard's own chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Unpack

from msgspec import Struct

from chalicelib.auditlog.draft import Draft, RecordFields
from chalicelib.domain.decide import Decision
from chalicelib.domain.errors import Busy, Conflict
from chalicelib.domain.model import Target, Trigger
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Policy, Rule
from chalicelib.domain.ports import Clock, Gather, Reach, Requests, Store
from chalicelib.domain.reasons import Outcome, Problem, Reason, Violation
from chalicelib.domain.stored import GUARD_CHAIN, GuardState, Pause, Record, TargetState

MOST_CONFLICTS = 6


class Guard(Struct, frozen=True):
    """What the loop depends on. `lease_seconds` outlives the function's timeout by a minute at least."""

    account: str
    partition: str
    role_arn: str
    policy: Policy
    store: Store
    clock: Clock
    reach: Callable[[Target], Reach]
    gather: Gather
    sleep: Callable[[float], None]
    random: Callable[[], float]
    new_id: Callable[[], str]
    emit: Callable[[Record], None]
    worker: str
    requests: Requests
    lease_seconds: int = 120

    def step_aside(self) -> None:
        """Wait a moment before another attempt at a write that met another writer."""
        self.sleep(0.05 + 0.2 * self.random())


class Result(Struct, frozen=True):
    """What a run came to. `record` is the last one it wrote, None where it wrote none; `outcome` is what it found."""

    target: Target
    outcome: Outcome
    reason: str | None = None
    violations: tuple[Violation, ...] = ()
    record: Record | None = None
    mutated: bool = False


class Assessment(Struct, frozen=True):
    """What a run would do, without doing it."""

    target: Target
    rule: Rule | None
    decision: Decision
    state: TargetState
    seen: Observation | None


def pause(guard: Guard, trigger: Trigger, by: str, reason: str) -> Record | None:
    """Pull the emergency brake: everything is judged and recorded, nothing is mutated. None if it was pulled."""
    brake = Pause(guard.clock.now(), by, reason)
    return record_in_guard_chain(
        guard,
        Outcome.IGNORED,
        trigger,
        unless=lambda state: state.paused is not None,
        state={"paused": brake},
        reason=Reason.PAUSED,
        detail={"by": by, "message": reason},
    )


def resume(guard: Guard, trigger: Trigger, by: str) -> Record | None:
    """Release the brake; what was deferred is due with the next tick. Answers None if it was not pulled."""
    return record_in_guard_chain(
        guard,
        Outcome.IGNORED,
        trigger,
        unless=lambda state: state.paused is None,
        state={"paused": None},
        reason=Reason.RESUMED,
        detail={"by": by},
    )


def record_in_guard_chain(
    guard: Guard,
    outcome: Outcome,
    trigger: Trigger,
    *,
    unless: Callable[[GuardState], bool] = lambda state: False,
    state: Mapping[str, object] | None = None,
    **fields: Unpack[RecordFields],
) -> Record | None:
    """Append to the chain `guard` what belongs to no target, with `state`'s fields changed; an event only once.

    Answers None where the event was there already, or `unless` says that there is nothing to say.
    """
    for _ in range(MOST_CONFLICTS):
        loaded = guard.store.load(GUARD_CHAIN, trigger.event_id)
        if loaded.audited or unless(loaded.guard):
            return None
        draft = Draft(loaded.guard)
        fields.setdefault("policy_digest", guard.policy.digest)
        record = draft.add(guard.clock.now(), outcome, trigger, **fields)
        draft.set(version=loaded.guard.version + 1, **(state or {}))
        try:
            guard.store.commit(draft.before, draft.after, draft.records, trigger.event_id)
        except Conflict:
            guard.step_aside()
            continue
        guard.emit(record)
        return record
    raise Busy(Problem(Reason.BUSY, "the guard's own chain met other writers"))
