"""What operators decide about a target's managed key: replace it, or hand a key of theirs over to the guard.

The guard does neither by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from chalicelib.domain.errors import GuardError
from chalicelib.domain.keychoice import latest_made
from chalicelib.domain.model import Key, Target, Trigger
from chalicelib.domain.ownership import why_not_handed_over
from chalicelib.domain.reasons import Outcome, Problem, Reason
from chalicelib.domain.settlement import SettlementDraft
from chalicelib.domain.stored import TargetState
from chalicelib.loop.commit import commit
from chalicelib.loop.guard import Guard, Result
from chalicelib.loop.readkey import read_key

Changes = Mapping[str, object]


def replace_key(guard: Guard, target: Target, trigger: Trigger) -> Result:
    """Give up the managed key: the next check creates another one. The old key is left unchanged.

    Raises GuardError if the target has no managed key, or a worker holds its lease.
    """

    def changes(state: TargetState) -> tuple[Changes, dict[str, object]]:
        retired = state.managed_key or latest_made(state)
        if retired is None:
            raise GuardError(Problem(Reason.NO_MANAGED_KEY, f"the guard recorded no managed key for {target}", False))
        return {"managed_key": None, "keys_retired": (*state.keys_retired, retired)}, {"retired": retired}

    return _decide(guard, target, trigger, Reason.KEY_REPLACED, changes)


def adopt_key(guard: Guard, target: Target, trigger: Trigger, key_arn: str) -> Result:
    """Make a key of somebody else's the managed key, which the guard may change from now on.

    The former managed key is retired. Raises GuardError if the key cannot be the managed key, lets in others, does not
    have the tag by which its owner agrees, or if a worker holds the target's lease.
    """
    key = key_to_adopt(guard, target, key_arn)

    def changes(state: TargetState) -> tuple[Changes, dict[str, object]]:
        retired = state.managed_key if state.managed_key not in (None, key.arn) else None
        still_retired = tuple(arn for arn in state.keys_retired if arn != key.arn)
        return {
            "managed_key": key.arn,
            "keys_handed": tuple(dict.fromkeys((*state.keys_handed, key.arn))),
            "keys_retired": (*still_retired, retired) if retired else still_retired,
        }, {"adopted": key.arn, "retired": retired}

    return _decide(guard, target, trigger, Reason.KEY_HANDED_OVER, changes)


def key_to_adopt(guard: Guard, target: Target, key_arn: str) -> Key:
    """Read the key. Raises GuardError if an operator cannot hand it over to the guard."""
    key = read_key(guard.gather, guard.reach(target), key_arn)
    if key is None:
        raise GuardError(Problem(Reason.KEY_BEYOND_REPAIR, f"KMS has no key {key_arn} in {target}", False))
    problem = why_not_handed_over(key, target)
    if problem is not None:
        raise GuardError(problem)
    return key


def _decide(
    guard: Guard,
    target: Target,
    trigger: Trigger,
    reason: Reason,
    changes: Callable[[TargetState], tuple[Changes, dict[str, object]]],
) -> Result:
    """Store the changes with a record that has their detail, and have the target checked at the next tick."""
    run = guard.run(target, trigger)

    def store() -> Result:
        known = guard.known(run)
        state, at = known.state, guard.at()
        changed, detail = changes(state)
        if state.is_held(at.now):
            raise GuardError(Problem(Reason.IN_PROGRESS, f"a worker holds {target}'s lease; retry in two minutes"))
        draft = SettlementDraft(run, known, at)
        draft.set(
            **changed,
            incident=replace(state.incident, due=at.now) if state.incident else None,
            backoffs={},
            recheck_at=at.now,
        )
        draft.add(Outcome.IGNORED, reason=reason, detail=detail)
        return commit(guard, run, known, draft.settled(Outcome.IGNORED, reason))[1]

    return guard.until_stored(store, f"{target}: the decision about its key")
