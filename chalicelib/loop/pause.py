"""The operators' pause: while it lasts, the guard judges and records everything, and mutates nothing."""

from __future__ import annotations

from chalicelib.domain.model import Trigger
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import GUARD_CHAIN, Pause, Record
from chalicelib.loop.commit import record_in_guard_chain
from chalicelib.loop.guard import Guard


def pause(guard: Guard, trigger: Trigger, by: str, reason: str) -> Record | None:
    """Pause the guard. Return the record, or None if it was paused already."""
    return record_in_guard_chain(
        guard,
        Outcome.IGNORED,
        trigger,
        unless=lambda state: state.paused is not None,
        state=lambda record: {"paused": Pause(record.at, by, reason)},
        reason=Reason.PAUSED,
        policy_digest=guard.store.load(GUARD_CHAIN).guard.policy_digest,
        detail={"by": by, "message": reason},
    )


def resume(guard: Guard, trigger: Trigger, by: str) -> Record | None:
    """End the pause; deferred targets are due with the next tick. Return the record, or None if it was not paused."""
    return record_in_guard_chain(
        guard,
        Outcome.IGNORED,
        trigger,
        unless=lambda state: state.paused is None,
        state=lambda record: {"paused": None},
        reason=Reason.RESUMED,
        policy_digest=guard.store.load(GUARD_CHAIN).guard.policy_digest,
        detail={"by": by},
    )
