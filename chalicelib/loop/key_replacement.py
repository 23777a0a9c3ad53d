"""Give up a managed key at an operator's request. The guard never replaces a managed key by itself."""

from __future__ import annotations

from msgspec.structs import replace

from chalicelib.domain.errors import GuardError
from chalicelib.domain.model import Target, Trigger
from chalicelib.domain.reasons import Outcome, Problem, Reason
from chalicelib.domain.settlement import SettlementDraft
from chalicelib.loop.commit import commit
from chalicelib.loop.guard import Guard, Result


def replace_key(guard: Guard, target: Target, trigger: Trigger) -> Result:
    """Give up the managed key: the next check creates another one. The old key is left unchanged.

    Raises GuardError if the target has no managed key, or a worker holds its lease.
    """
    run = guard.run(target, trigger)

    def store() -> Result:
        known = guard.known(run)
        state, at = known.state, guard.at()
        if state.managed_key is None:
            raise GuardError(Problem(Reason.NO_MANAGED_KEY, f"the guard recorded no managed key for {target}", False))
        if state.is_held(at.now):
            raise GuardError(Problem(Reason.IN_PROGRESS, f"a worker holds {target}'s lease; retry in two minutes"))
        draft = SettlementDraft(run, known, at)
        draft.set(
            managed_key=None,
            keys_retired=(*state.keys_retired, state.managed_key),
            incident=replace(state.incident, due=at.now) if state.incident else None,
            backoffs={},
            recheck_at=at.now,
        )
        draft.add(Outcome.IGNORED, reason=Reason.KEY_REPLACED, detail={"retired": state.managed_key})
        return commit(guard, run, known, draft.settled(Outcome.IGNORED, Reason.KEY_REPLACED))[1]

    return guard.until_stored(store, f"{target}: the replacement of its key")
