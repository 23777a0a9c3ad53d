"""The records that the reading of Event history adds besides those of missed events: notes, and what was rejected."""

from __future__ import annotations

from msgspec.structs import replace

from chalicelib.auditlog.draft import Draft
from chalicelib.domain.lookups import Unconfirmed
from chalicelib.domain.model import Rejected, Target, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Problem, Reason
from chalicelib.domain.unconfirmed import without_trust
from chalicelib.loop.commit import record_in_guard_chain
from chalicelib.loop.guard import Guard


def add_note(
    guard: Guard,
    target: Target,
    trigger: Trigger,
    reason: Reason,
    detail: dict[str, object],
    found: Unconfirmed | None = None,
) -> None:
    """Append a note to the target's chain. Of an unconfirmed event, also end the suppressions that rest on it."""

    def store() -> None:
        state = guard.store.load(str(target)).state
        now = guard.clock.now()
        after, closed = without_trust(state, found, now) if found else (state, [])
        draft = Draft(state, replace(after, version=state.version + 1))
        policy = guard.policy.digest
        draft.add(now, Outcome.IGNORED, trigger, reason=reason, detail=detail, policy_digest=policy)
        for each in closed:
            ended = Reason.BREAK_GLASS_ENDED
            draft.add(now, Outcome.IGNORED, trigger, reason=ended, suppression=each, policy_digest=policy)
        guard.store.commit(draft.before, draft.after, draft.records)
        for record, _, _ in draft.records:
            guard.emit(record)

    guard.until_stored(store, f"{target}: a note about Event history")


def reject(guard: Guard, rejected: Rejected) -> None:
    """Record an event that cannot be acted on in the guard's own chain, once."""
    record_in_guard_chain(
        guard,
        Outcome.FAILED,
        Trigger(TriggerKind.HISTORY, event_id=rejected.event_id),
        reason=rejected.reason,
        error=Problem(rejected.reason, rejected.detail, retryable=False),
    )
