"""Store a settlement, or a record in the guard's own chain, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Unpack

from msgspec.structs import replace

from chalicelib.auditlog.draft import Draft
from chalicelib.domain.errors import StateEdited
from chalicelib.domain.formats import FORMAT
from chalicelib.domain.model import Trigger
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.run import Known, Run
from chalicelib.domain.settlement import RecordFields, Settlement
from chalicelib.domain.stored import GUARD_CHAIN, GuardState, Record
from chalicelib.loop.guard import Guard, Result


def commit(guard: Guard, run: Run, known: Known, settlement: Settlement) -> tuple[Known, Result]:
    """Store a settlement. Return what is known after that, and the run's result.

    If the settlement has no record, a note is added where protected fields change, or are protected from now on. Raises
    Conflict if the target's state changed since it was read, or the event was audited meanwhile; KeyNotOnRecord or
    StateEdited if the state that was read is not what the guard stored.
    """
    record = None
    if settlement.state is not None:
        draft = Draft(known.stored, replace(settlement.state, version=known.stored.version + 1))
        for line in settlement.lines:
            draft.add(line.at, line.outcome, line.trigger, **line.fields)
        if not settlement.lines and (draft.changed or known.stored.format < FORMAT):
            detail: dict[str, object] = {"fields": list(draft.changed)}
            trigger = Trigger(run.trigger.kind)
            draft.add(guard.clock.now(), Outcome.IGNORED, trigger, reason=Reason.STATE_NOTED, detail=detail)
        event_id = run.event_id if settlement.lines and not known.audited else None
        tallies = (settlement.tally, settlement.closes)
        guard.store.commit(draft.before, draft.after, draft.records, event_id, *tallies, settlement.used)
        for record, _, _ in draft.records:
            guard.emit(record)
        audited = known.audited or event_id is not None
        known = replace(known, stored=draft.after, state=draft.after, audited=audited, edits=())
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

    Returns None if the event was recorded already, or if `unless` is true for the guard's state. A state that somebody
    edited is stored nevertheless: `xray-guard audit verify` finds the edit.
    """

    def store() -> Record | None:
        loaded = guard.store.load(GUARD_CHAIN, trigger.event_id)
        if loaded.audited or unless(loaded.guard):
            return None
        try:
            record = append(loaded.guard)
        except StateEdited:
            record = append(replace(loaded.guard, format=FORMAT))
        guard.emit(record)
        return record

    def append(before: GuardState) -> Record:
        draft = Draft(before)
        fields.setdefault("policy_digest", guard.policy.digest)
        line = draft.add(guard.clock.now(), outcome, trigger, **fields)
        draft.set(version=before.version + 1, **state(line))
        guard.store.commit(draft.before, draft.after, draft.records, trigger.event_id)
        return draft.records[-1][0]

    return guard.until_stored(store, "a record of the guard's own chain")
