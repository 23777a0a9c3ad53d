"""Which records no event of Event history confirms: AWS did not send the event, or not like that. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set
from datetime import datetime, timedelta
from enum import Enum, auto

from msgspec.structs import replace

from chalicelib.domain.eventhistory import MAY_STILL_APPEAR, OnRecord, agree, arn_of, as_delivered
from chalicelib.domain.events import CHANGE_EVENT, KEY_EVENTS, read_change, read_key_event
from chalicelib.domain.lookups import HistoryEvent, Look, Progress, Recorded, Unconfirmed
from chalicelib.domain.model import ChangeEvent, KeyEvent, Rejected, Subject, Target, TriggerKind
from chalicelib.domain.reasons import Reason
from chalicelib.domain.spanevents import SOURCES
from chalicelib.domain.stored import Suppression, TargetState

LONGEST_WAIT = timedelta(hours=24)
"""A record that found no turn for its lookup by id in this time stays unchecked."""

MOST_WAITING = 100
"""Of the records that wait for a lookup by id, so many are stored."""

_AWS_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def unconfirmed(
    progress: Progress,
    look: Look,
    rest: Look | None,
    events: Sequence[ChangeEvent | Rejected],
    records: Sequence[Recorded],
) -> tuple[list[Unconfirmed], list[Unconfirmed]]:
    """Return the records of events that Event history does not have, and those that only a lookup by id can confirm.

    `events` are those that one run read: all of the look, except for the rest of it. A record is compared with the
    events of its time, by the run that read them. Where the ids are known to be equal on both ways, only an event with
    the record's id, name, time, actor and object confirms. An addendum confirms its original, and may correct it.
    """
    changes = [event for event in events if isinstance(event, ChangeEvent)]
    strict = progress.matched_by_id > 0
    ids = {event.trigger.event_id for event in changes if event.addendum_id or not strict}
    ids |= {event.event_id for event in events if isinstance(event, Rejected)}
    originals = {event.trigger.event_id: event for event in changes if not event.addendum_id}
    noted = _noted(records)
    refuted, doubtful = [], []
    for record in records:
        if not _must_be_confirmed(record, progress, look.until) or record.trigger.event_id in {*ids, *noted}:
            continue
        shown = originals.get(record.trigger.event_id)
        if shown is not None and agree(record, shown):
            continue
        found = Unconfirmed(record, _opened_by(record, records))
        place = _place(record.trigger.event_time, look, rest)
        if place is _Place.OF_ANOTHER_RUN:
            continue
        is_call = record.trigger.event_name in {CHANGE_EVENT, *KEY_EVENTS, *SOURCES}
        if strict and is_call and (shown is not None or not has_aws_id(found)):
            refuted.append(found)
        elif record.trigger.event_name == CHANGE_EVENT and place is _Place.READ:
            alone = OnRecord([record])
            if strict or not any(alone.match(event, ids_are_equal=False) for event in changes):
                refuted.append(found)
        elif is_call:
            doubtful.append(found)
    return refuted, doubtful


def has_aws_id(found: Unconfirmed) -> bool:
    """Whether the event's id is a UUID, as all ids of CloudTrail are."""
    return _AWS_ID.fullmatch(found.record.trigger.event_id or "") is not None


class _Place(Enum):
    """Where an event must be, if there is one: among those that this run read, another run, or outside the look."""

    READ = auto()
    OF_ANOTHER_RUN = auto()
    OUTSIDE = auto()


def _place(at: datetime | None, look: Look, rest: Look | None) -> _Place:
    if at is None or at < look.since:
        return _Place.OUTSIDE if rest is None else _Place.OF_ANOTHER_RUN
    was_read = look.down_to is not None and at > look.down_to
    will_be_read = rest is not None and (rest.down_to is None or at <= rest.down_to)
    return _Place.OF_ANOTHER_RUN if was_read or will_be_read else _Place.READ


def to_look_up(
    progress: Progress, doubtful: Sequence[Unconfirmed], records: Sequence[Recorded]
) -> tuple[Unconfirmed, ...]:
    """Return the records to look up by id: those first that were looked up least, then those that may suppress.

    So nobody can hide one behind many others.
    """
    noted = _noted(records)
    waiting = {each.record.trigger.event_id: each for each in (*progress.to_look_up, *doubtful)}
    left = [each for event_id, each in waiting.items() if event_id not in noted]
    return tuple(sorted(left, key=lambda each: (each.lookups, not each.opened, not _is_about_tags(each.record))))


def still_waiting(unchecked: Iterable[Unconfirmed], now: datetime) -> tuple[Unconfirmed, ...]:
    """Return the records that a later run looks up; the others stay unchecked."""
    young = (each for each in unchecked if now - each.record.at <= LONGEST_WAIT)
    return tuple(replace(each, record=_in_short(each.record)) for each in young)[:MOST_WAITING]


def _in_short(record: Recorded) -> Recorded:
    """Keep what a lookup is compared with; a key policy alone may have 32,768 characters."""
    change = replace(record.change, before=None, after=None) if record.change else None
    trigger = replace(record.trigger, user_agent=None, source_ip=None)
    return Recorded(record.record_id, record.at, trigger, change=change)


def confirms(target: Target, record: Recorded, event: HistoryEvent) -> bool:
    """Whether the event, found by the record's id, has its name, time, actor and object.

    One of that name that cannot be read confirms.
    """
    delivered = as_delivered(target, event, "")["detail"]
    if isinstance(delivered, dict) and delivered.get("eventName") != record.trigger.event_name:
        return False
    if record.trigger.event_name == CHANGE_EVENT:
        read: ChangeEvent | KeyEvent | Rejected = read_change(as_delivered(target, event, "aws.xray"))
    else:
        service = SOURCES.get(record.trigger.event_name or "", "kms")
        read = read_key_event(as_delivered(target, event, f"aws.{service}"))
    return isinstance(read, Rejected) or read.addendum_id is not None or agree(record, read)


def _must_be_confirmed(record: Recorded, progress: Progress, until: datetime) -> bool:
    since = progress.checked_until
    return (
        record.change is not None
        and record.trigger.event_id is not None
        and record.trigger.kind in (TriggerKind.CHANGE, TriggerKind.KEY)
        and (since is None or record.at >= since)
        and record.at < until - MAY_STILL_APPEAR
    )


def _noted(records: Iterable[Recorded]) -> Set[str | None]:
    return {each.trigger.event_id for each in records if each.reason == Reason.UNCONFIRMED}


def _opened_by(record: Recorded, records: Sequence[Recorded]) -> frozenset[tuple[str, str]]:
    return frozenset(
        (each.suppression.carrier, each.suppression.value)
        for each in records
        if each.reason == Reason.BREAK_GLASS_OPENED
        and each.suppression is not None
        and each.trigger.event_id == record.trigger.event_id
    )


def _is_about_tags(record: Recorded) -> bool:
    return record.change is not None and record.change.subject is Subject.TAGS


def without_trust(state: TargetState, found: Unconfirmed, now: datetime) -> tuple[TargetState, list[Suppression]]:
    """Close the suppressions that rest on an unconfirmed event; if there are any, the target is due at once."""
    trigger = found.record.trigger
    drift = (arn_of(trigger.actor), trigger.event_time)

    def rests_on_it(each: Suppression) -> bool:
        is_its_drift = each.drift_at is not None and (each.carrier, each.drift_at) == drift
        by_its_actor = trigger.event_name == "TagResource" and each.opened_by == trigger.actor
        return is_its_drift or by_its_actor or (each.carrier, each.value) in found.opened

    closed = [
        replace(each, closed=Reason.UNCONFIRMED.value)
        for each in state.suppressions
        if each.closed is None and each.refused is None and rests_on_it(each)
    ]
    if not closed:
        return state, []
    names = {(each.carrier, each.value): each for each in closed}
    kept = tuple(names.get((each.carrier, each.value), each) for each in state.suppressions)
    is_open = any(each.closed is None and each.refused is None for each in kept)
    incident = replace(state.incident, due=now) if state.incident else None
    return replace(state, suppressions=kept, watch=now if is_open else None, incident=incident), closed
