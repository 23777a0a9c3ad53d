"""Record what an addendum adds to an event that is on the record."""

from __future__ import annotations

from msgspec.structs import replace

from chalicelib.auditlog.draft import Draft
from chalicelib.domain.addenda import note_of
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.run import Run
from chalicelib.domain.stored import Record
from chalicelib.loop.guard import Guard


def note_addendum(guard: Guard, run: Run) -> Record | None:
    """Append the record of what the run's addendum says to the target's chain, once. It changes no other state.

    Returns None if there is nothing to record. Raises Busy if every attempt conflicted with another writer.
    """
    event, name = run.event, str(run.target)
    if event is None or event.addendum_id is None:
        return None
    addendum_id = event.addendum_id

    def store() -> Record | None:
        original_audited = guard.store.load(name, run.event_id).audited
        loaded = guard.store.load(name, addendum_id)
        note = note_of(run, original_audited=original_audited, audited=loaded.audited)
        if note is None:
            return None
        draft = Draft(loaded.state, replace(loaded.state, version=loaded.state.version + 1))
        draft.add(guard.clock.now(), Outcome.IGNORED, note.trigger, **note.fields)
        guard.store.commit(draft.before, draft.after, draft.records, addendum_id)
        record = draft.records[-1][0]
        guard.emit(record)
        return record

    return guard.until_stored(store, f"{name}: the record of an addendum")
