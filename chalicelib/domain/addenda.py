"""Decide what to record of an addendum: CloudTrail's later event that completes or corrects an earlier one. Pure.

An addendum is no other call. It reports its original again, with `addendum_id` as its own id, so the run that it starts
is its original's: it records the event if the original never arrived. What the addendum says is recorded once more,
under its own id, because records are immutable: the original's record cannot be completed. See "addendum" in
https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain.model import ChangeEvent, Trigger
from chalicelib.domain.reasons import Reason
from chalicelib.domain.run import Run
from chalicelib.domain.settlement import RecordFields


class Note(Struct, frozen=True):
    """A record to add: its trigger, and the fields that neither the chain nor the run sets."""

    trigger: Trigger
    fields: RecordFields


def note_of(run: Run, *, original_audited: bool, audited: bool) -> Note | None:
    """The record of what the run's addendum says; None if there is nothing to record.

    Nothing is recorded of an event that is no addendum, of one that is on the record already (`audited`), and of one
    whose original is not on the record, even after its own run: an echo, or an event about another key.
    """
    event = run.event
    if event is None or event.addendum_id is None or audited or not original_audited:
        return None
    original = event.trigger.event_id
    detail: dict[str, object] = {"message": f"completes or corrects event {original}", "original_event_id": original}
    if effect := event.effect:
        detail |= {"subject": effect.subject.value, "resource": effect.resource, "after": effect.after}
    if event.error_code:
        detail["error_code"] = event.error_code
    if isinstance(event, ChangeEvent) and event.error_message:
        detail["error_message"] = event.error_message
    fields: RecordFields = {
        "reason": Reason.ADDENDUM,
        "rule": run.rule_id,
        "policy_digest": run.setup.policy_digest,
        "detail": detail,
    }
    return Note(replace(event.trigger, event_id=event.addendum_id), fields)
