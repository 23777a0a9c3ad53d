"""Giving up a managed key on an operator's word: the guard never takes a second one by itself."""

from __future__ import annotations

from msgspec.structs import replace

from chalicelib.auditlog.draft import Draft
from chalicelib.domain.errors import Busy, Conflict, GuardError
from chalicelib.domain.model import Target, Trigger
from chalicelib.domain.reasons import Outcome, Problem, Reason
from chalicelib.domain.stored import Backoff
from chalicelib.loop.guard import MOST_CONFLICTS, Guard, Result
from chalicelib.loop.journal import Journal


def replace_key(guard: Guard, target: Target, trigger: Trigger) -> Result:
    """On an operator's word, give up the managed key: the next look makes another. The old key is left as it is.

    Raises GuardError where the target has no managed key, or a worker is at it.
    """
    for _ in range(MOST_CONFLICTS):
        journal = Journal(guard, target, guard.policy.rule_for(target), trigger, None)
        state = journal.load().state
        now = guard.clock.now()
        if state.managed_key is None:
            raise GuardError(Problem(Reason.NO_MANAGED_KEY, f"the guard recorded no managed key for {target}", False))
        if state.is_held(now):
            raise GuardError(Problem(Reason.IN_PROGRESS, f"a worker is at {target}; try again in two minutes"))
        draft = Draft(state)
        incident = replace(state.incident, due=now) if state.incident else None
        draft.set(
            managed_key=None,
            keys_retired=(*state.keys_retired, state.managed_key),
            incident=incident,
            backoff=Backoff(),
            look=now,
        )
        journal.add(draft, Outcome.IGNORED, now, reason=Reason.KEY_REPLACED, detail={"retired": state.managed_key})
        try:
            return journal.commit(draft, Outcome.IGNORED, Reason.KEY_REPLACED)
        except Conflict:
            guard.step_aside()
    raise Busy(Problem(Reason.BUSY, f"{target}: {MOST_CONFLICTS} attempts met other writers"))
