"""A draft: the records of one transaction, and the chain that they carry on."""

from __future__ import annotations

from typing import get_type_hints

import pytest
from msgspec.structs import fields

from chalicelib.auditlog import hashchain
from chalicelib.auditlog.chaincheck import verify_chain
from chalicelib.auditlog.draft import Draft
from chalicelib.auditlog.hashchain import StoredRow, sort_key, time_index
from chalicelib.domain.formats import FIRST_FORMAT, FORMAT
from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.protected import PROTECTED, Kept, digest_of, protected_digest
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.settlement import RecordFields
from chalicelib.domain.stored import Backoff, GuardState, Intent, Pause, Record, Suppression, TargetState, Window
from tests.unit.targets import NOW, TARGET


def test_a_draft_takes_every_field_of_a_record_but_those_it_fills_in_itself() -> None:
    own = {"record_id", "target", "seq", "at", "outcome", "trigger", "prev_hash", "format", "kept"}
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


KEY = "arn:aws:kms:us-east-1:111122223333:key/11111111-1111-1111-1111-111111111111"
SWEEP = Trigger(TriggerKind.SWEEP)


def test_p16_each_record_has_the_digests_of_the_protected_fields_before_and_after_its_transaction() -> None:
    before = TargetState(str(TARGET), version=1)
    draft = Draft(before)
    draft.add(NOW, Outcome.COMPLIANT, SWEEP)
    draft.add(NOW, Outcome.COMPLIANT, SWEEP)
    draft.set(managed_key=KEY)
    was, now = protected_digest(before), protected_digest(draft.after)
    assert was != now
    assert [record.kept for record, _, _ in draft.records] == [Kept(was, now), Kept(now, now)]
    assert [hashchain.unseal(body).kept for _, body, _ in draft.records] == [Kept(was, now), Kept(now, now)]


EDITS: dict[str, object] = {
    "managed_key": KEY,
    "keys_made": (KEY,),
    "keys_retired": (KEY,),
    "intent": Intent("nonce", NOW),
    "suppressions": (Suppression(KEY, "value", "reason", NOW, NOW, NOW),),
    "keys_handed": ("arn:c",),
    "backoffs": {Lane.SETTING: Backoff(1, NOW, NOW)},
    "lease_number": 7,
    "requests": ("request-1",),
    "windows": (Window(None, NOW),),
    "paused": Pause(NOW, "somebody", "because"),
}
OPEN = {
    *("target", "version", "seq", "head", "format"),  # the chain's own; verified by themselves
    *("incident", "recheck_at", "watch", "due"),  # bounded, see `edits`
    *("first_seen", "setting", "ever_used", "outcome", "reason", "violations", "rule", "policy_digest"),
    *("checked_at", "good_at", "good_setting_at", "past", "effects", "last_seen", "spans", "links"),
    *("swept_at", "policy_seq"),
}


def test_p16_every_field_of_a_state_is_protected_or_known_not_to_be() -> None:
    names = {each.name for kind in (TargetState, GuardState) for each in fields(kind)}
    assert set(PROTECTED) == EDITS.keys()
    assert names - OPEN == EDITS.keys()


@pytest.mark.parametrize("name", EDITS)
def test_p16_a_protected_field_changes_the_digest_and_only_with_a_record(name: str) -> None:
    drafts: tuple[Draft[TargetState] | Draft[GuardState], ...] = (Draft(TargetState(str(TARGET))), Draft(GuardState()))
    draft = drafts[name == "paused"]
    draft.set(**{name: EDITS[name]})
    assert draft.changed == (name,)
    with pytest.raises(ValueError, match=name):
        draft.after  # noqa: B018 - reading it is refused
    draft.add(NOW, Outcome.IGNORED, SWEEP)
    assert protected_digest(draft.after) != protected_digest(draft.before)


def test_p16_a_field_that_a_later_release_adds_does_not_change_the_digest_while_it_is_empty() -> None:
    document = {"managed_key": KEY, "intent": {"nonce": "n"}}
    assert digest_of(
        {**document, "backoffs": {"setting": {"count": 0}}, "intent": {"nonce": "n", "later": None}}
    ) == digest_of(document)


@pytest.mark.parametrize("known", [FIRST_FORMAT, FORMAT - 1])
def test_p16_the_first_transaction_after_an_upgrade_says_that_what_was_before_is_not_covered(known: int) -> None:
    draft = Draft(TargetState(str(TARGET), version=1, managed_key=KEY, format=known))
    draft.add(NOW, Outcome.COMPLIANT, SWEEP)
    draft.add(NOW, Outcome.COMPLIANT, SWEEP)
    now = protected_digest(draft.after)
    assert [record.kept for record, _, _ in draft.records] == [Kept(None, now), Kept(now, now)]
    assert draft.after.format == FORMAT
