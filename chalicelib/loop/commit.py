"""Store a settlement, or a record in the guard's own chain, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Unpack

from msgspec.structs import replace

from chalicelib.auditlog.draft import Draft
from chalicelib.domain.model import Trigger
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.run import Known, Run
from chalicelib.domain.settlement import RecordFields, Settlement
from chalicelib.domain.stored import GUARD_CHAIN, GuardState, Record
from chalicelib.loop.guard import Guard, Result


def commit(guard: Guard, run: Run, known: Known, settlement: Settlement) -> tuple[Known, Result]:
    """Store a settlement. Return what is known after that, and the run's result.

    Raises Conflict if the target's state changed since it was read, or the event was audited meanwhile.
    """
    record = None
    if settlement.state is not None:
        draft = Draft(known.stored, replace(settlement.state, version=known.stored.version + 1))
        for line in settlement.lines:
            record = draft.add(line.at, line.outcome, line.trigger, **line.fields)
        event_id = run.event_id if settlement.lines and not known.audited else None
        guard.store.commit(draft.before, draft.after, draft.records, event_id, settlement.tally, settlement.closes)
        for each, _, _ in draft.records:
            guard.emit(each)
        known = replace(known, stored=draft.after, state=draft.after, audited=known.audited or event_id is not None)
    elif settlement.tally is not None and run.event_id is not None:
        guard.store.count(run.event_id, settlement.tally)
    result = Result(
        run.target,
        settlement.outcome,
        settlement.reason,
        settlement.violations,
        record,
        settlement.mutated,
        settlement.due,
    )
    return known, result


def record_in_guard_chain(
    guard: Guard,
    outcome: Outcome,
    trigger: Trigger,
    *,
    unless: Callable[[GuardState], bool] = lambda state: False,
    state: Callable[[Record], Mapping[str, object]] = lambda record: {},
    **fields: Unpack[RecordFields],
) -> Record | None:
    """Append a record that belongs to no target to the chain `guard`, and set the state's fields; an event only once.

    Returns None if the event was recorded already, or if `unless` is true for the guard's state.
    """

    def store() -> Record | None:
        loaded = guard.store.load(GUARD_CHAIN, trigger.event_id)
        if loaded.audited or unless(loaded.guard):
            return None
        draft = Draft(loaded.guard)
        fields.setdefault("policy_digest", guard.policy.digest)
        record = draft.add(guard.clock.now(), outcome, trigger, **fields)
        draft.set(version=loaded.guard.version + 1, **state(record))
        guard.store.commit(draft.before, draft.after, draft.records, trigger.event_id)
        guard.emit(record)
        return record

    return guard.until_stored(store, "a record of the guard's own chain")
