"""Compare CloudTrail's Event history with a target's records: pure.

An event of Event history that is not on the record was missed: EventBridge, a rule or a function lost it. Two
events missed in a row, in a Region that should receive events, mean that the target is deaf.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain.events import CHANGE_EVENT, read_change
from chalicelib.domain.lookups import HistoryEvent, Look, Progress, Recorded
from chalicelib.domain.model import Actor, ChangeEvent, KeyEvent, Rejected, Target, TriggerKind
from chalicelib.domain.reasons import Reason
from chalicelib.domain.times import CLOCK_SKEW

MAY_STILL_COME = timedelta(minutes=20)
"""CloudTrail delivers within fifteen minutes: an event that is older was missed."""

MAY_STILL_APPEAR = timedelta(hours=2)
"""A recorded event that Event history does not show is unconfirmed when its record is older than this."""

OVERLAP = timedelta(minutes=30)
"""How far each look goes back before what was read already, for events that Event history showed late."""

FIRST_LOOK = timedelta(hours=24)
OLDEST = timedelta(days=89)
"""Event history has ninety days."""

DEAF_AFTER = 2
"""An event may be lost by itself; two in a row are a broken way."""


class Match(Struct, frozen=True):
    """The record of an event. `by_id`: id, name, time, actor and object agree. `own`: the guard made the call."""

    record: Recorded
    by_id: bool
    own: bool = False


# --- which events ----------------------------------------------------------------------------------------------------


def believable(progress: Progress, now: datetime) -> Progress:
    """Return the progress; without its times if one is in the future, because only an edit can have put it there."""
    look_until = progress.look.until if progress.look else None
    times = (progress.until, progress.checked_until, progress.judged_at, progress.tried_at, look_until)
    if all(at is None or at <= now + CLOCK_SKEW for at in times):
        return progress
    return replace(
        progress,
        until=None,
        checked_until=None,
        look=None,
        judged_at=None,
        judged_ids=(),
        missed_in_a_row=0,
        tried_at=None,
    )


def next_look(progress: Progress, now: datetime) -> Look:
    """Return the unfinished look, or the next one.

    It begins early enough to confirm every record that was too young in the last one.
    """
    if progress.look is not None:
        return progress.look
    if progress.until is None:
        return Look(now - FIRST_LOOK, now)
    return Look(max(min(progress.until, progress.checked_until or progress.until) - OVERLAP, now - OLDEST), now)


def remaining(look: Look, last: HistoryEvent) -> Look:
    """Return what is left of a look after the page that ends with this event; other events of its second may follow."""
    return replace(look, down_to=last.at.replace(microsecond=0))


def finished(progress: Progress, look: Look) -> Progress:
    """Return the progress after the last page of a look."""
    return replace(progress, look=None, until=look.until, checked_until=look.until - MAY_STILL_APPEAR)


def read_events(target: Target, events: Iterable[HistoryEvent]) -> list[ChangeEvent | Rejected]:
    """Read the events of a look, in the order of their times; first those that cannot be acted on.

    `events` are in AWS's order, newest first: the later of two in the same second comes first.
    """
    read = [_read(target, event) for event in events]
    rejected: list[ChangeEvent | Rejected] = [each for each in read if isinstance(each, Rejected)]
    changes = [each for each in reversed(read) if isinstance(each, ChangeEvent)]
    return [*rejected, *sorted(changes, key=_time)]


def _time(event: ChangeEvent) -> float:
    at = event.trigger.event_time
    return at.timestamp() if at else 0.0


def _read(target: Target, event: HistoryEvent) -> ChangeEvent | Rejected:
    change = read_change(as_delivered(target, event, "aws.xray"))
    if isinstance(change, Rejected):
        return change
    return replace(change, trigger=replace(change.trigger, kind=TriggerKind.HISTORY))


def as_delivered(target: Target, event: HistoryEvent, source: str) -> dict[str, object]:
    """Return the event as EventBridge would have delivered it, of the target that was looked up."""
    try:
        detail: object = json.loads(event.text)
    except (ValueError, RecursionError):
        detail = None
    return {
        "id": event.event_id,
        "source": source,
        "account": target.account,
        "region": target.region,
        "detail": detail,
    }


def own_id(event: ChangeEvent) -> str | None:
    """The id of the event itself: that of an addendum is not that of its original."""
    return event.addendum_id or event.trigger.event_id


# --- which events are on the record ----------------------------------------------------------------------------------


class OnRecord:
    """A target's records, found by event id, by request, or by time, actor and result."""

    def __init__(self, records: Sequence[Recorded]) -> None:
        self._records = [each for each in records if each.change is not None or each.reason == Reason.ADDENDUM]
        self._by_id: dict[str | None, Recorded] = {each.trigger.event_id: each for each in reversed(self._records)}
        self._by_request: dict[tuple[str | None, str | None], Recorded] = {
            (each.trigger.request_id, each.trigger.event_name): each
            for each in reversed(self._records)
            if each.trigger.request_id
        }
        self._sent: dict[str | None, Recorded] = {
            call.request_id: each for each in records for call in each.actions if call.request_id
        }

    def match(self, event: ChangeEvent, *, ids_are_equal: bool) -> Match | None:
        """Return the event's record; None if there is none.

        `ids_are_equal`: events are known to have the same id on both ways, so that a record without it is of another.
        """
        trigger = event.trigger
        if found := self._by_id.get(own_id(event)):
            return Match(found, by_id=agree(found, event))
        if found := self._sent.get(trigger.request_id):
            return Match(found, by_id=False, own=True)
        if event.addendum_id or ids_are_equal:
            return None
        if found := self._by_request.get((trigger.request_id, trigger.event_name)):
            return Match(found, by_id=False)
        return next((Match(each, by_id=False) for each in self._records if _is_same_call(event, each)), None)


def _is_same_call(event: ChangeEvent, record: Recorded) -> bool:
    """Whether time, actor and result are the same, if not both have a request id."""
    known, found = record.trigger, event.trigger
    if (known.request_id and found.request_id) or found.event_time is None or record.change is None:
        return False
    after = str(event.result) if event.effect else None
    call = (CHANGE_EVENT, found.event_time, arn_of(found.actor), after)
    return (known.event_name, known.event_time, arn_of(known.actor), record.change.after) == call


def agree(record: Recorded, event: ChangeEvent | KeyEvent) -> bool:
    """Whether record and event have the same name, time and actor, and are about the same."""
    known, found, change, effect = record.trigger, event.trigger, record.change, event.effect
    about = (effect.subject, effect.resource) if effect else (None, None)
    said = (found.event_name, found.event_time, arn_of(found.actor), about)
    known_about = (change.subject, change.resource) if change else about
    return (known.event_name, known.event_time, arn_of(known.actor), known_about) == said


def arn_of(actor: Actor | None) -> str | None:
    return actor.arn if actor else None


def was_missed(match: Match) -> bool:
    """Whether the event is only on the record because it was found in Event history."""
    return match.record.trigger.kind is TriggerKind.HISTORY


def is_late(event: ChangeEvent, now: datetime) -> bool:
    """Whether an event that is not on the record will not come any more."""
    at = event.trigger.event_time
    return at is None or now - at >= MAY_STILL_COME


# --- deafness --------------------------------------------------------------------------------------------------------


def could_be_received(event: ChangeEvent, first_seen: datetime | None) -> bool:
    """Whether the guard knew the target at the time of the call; before `first_seen` nothing delivered events."""
    at = event.trigger.event_time
    # CloudTrail's times are whole seconds, rounded down.
    return at is not None and first_seen is not None and at >= first_seen.replace(microsecond=0)


def judged(progress: Progress, event: ChangeEvent, *, received: bool, by_id: bool | None, expected: bool) -> Progress:
    """Return the progress with one more event of somebody else's, in the order of their times; each counts once.

    `received`: EventBridge delivered it. `by_id`: how its record was found, None if it has none. `expected`: this
    Region's events should be received even if none ever was.
    """
    at, event_id = event.trigger.event_time, own_id(event) or ""
    latest, of_that_second = progress.judged_at, progress.judged_ids
    if at is None or (latest is not None and (at < latest or (at == latest and event_id in of_that_second))):
        return progress
    progress = replace(
        progress,
        judged_at=at,
        judged_ids=(*of_that_second, event_id) if at == latest else (event_id,),
        matched_by_id=progress.matched_by_id + (received and by_id is True),
        matched_otherwise=progress.matched_otherwise + (received and by_id is False),
    )
    if received:
        return replace(progress, ever_received=True, missed_in_a_row=0, deaf_since=None)
    missed = progress.missed_in_a_row + 1
    is_deaf = missed >= DEAF_AFTER and (expected or progress.ever_received)
    return replace(progress, missed_in_a_row=missed, deaf_since=progress.deaf_since or (at if is_deaf else None))


def news_of_delivery(progress: Progress, records: Sequence[Recorded], was_deaf: bool) -> Reason | None:
    """Return DEAF or RECEIVING if the records do not say so yet.

    What the newest records say counts more than the former progress: a run may have died between the two.
    """
    notes = [each.reason for each in records if each.reason in (Reason.DEAF, Reason.RECEIVING)]
    known = notes[-1] == Reason.DEAF if notes else was_deaf
    if (progress.deaf_since is not None) == known:
        return None
    return Reason.DEAF if progress.deaf_since else Reason.RECEIVING


def records_since(look: Look) -> datetime:
    """Return the time of the oldest record that a look needs."""
    return look.since - CLOCK_SKEW
