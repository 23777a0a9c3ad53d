"""A draft: the records of one transaction, and the chain that they carry on."""

from __future__ import annotations

from typing import get_type_hints

from chalicelib.auditlog.chaincheck import verify_chain
from chalicelib.auditlog.draft import Draft
from chalicelib.auditlog.hashchain import StoredRow, sort_key, time_index
from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.settlement import RecordFields
from chalicelib.domain.stored import Record, TargetState
from tests.unit.targets import NOW, TARGET


def test_a_draft_takes_every_field_of_a_record_but_those_it_fills_in_itself() -> None:
    own = {"record_id", "target", "seq", "at", "outcome", "trigger", "prev_hash", "format"}
    of_record = get_type_hints(Record)
    assert get_type_hints(RecordFields) == {name: kind for name, kind in of_record.items() if name not in own}


def test_p16_records_that_are_written_together_carry_on_the_chain() -> None:
    draft = Draft(TargetState(str(TARGET)))
    for number in range(3):
        assert draft.next_id() == f"{TARGET}#{number + 1}"
        draft.add(NOW, Outcome.COMPLIANT, Trigger(TriggerKind.SWEEP))
    rows = [
        StoredRow(record.target, sort_key(record.seq), body, digest, time_index(record.target, record.seq, record.at))
        for record, body, digest in draft.records
    ]
    assert not list(verify_chain(str(TARGET), rows, (draft.after.seq, draft.after.head)))
    assert draft.after.seq == 3
