"""Which calls to search for in Event history, because no event says who made a violation. Pure.

The calls are searched for by their names: by the name of its key, Event history also returns each use of the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain.attribution import ONE_SECOND
from chalicelib.domain.effects import STATES
from chalicelib.domain.eventhistory import MAY_STILL_COME, as_delivered
from chalicelib.domain.events import KEY_EVENTS, read_key_event
from chalicelib.domain.lookups import HistoryEvent
from chalicelib.domain.model import KeyEvent, Subject, Target, TriggerKind
from chalicelib.domain.spanevents import SOURCES
from chalicelib.domain.stored import Attribution, Maker, TargetState

SEARCHED_FOR = timedelta(hours=3)
"""So long after a violation was seen, its call is searched for: in three runs."""

LONGEST_BEFORE = timedelta(hours=25)
"""How long before it was seen a call is searched for: a key is read completely once a day."""

_CALLS = {
    Subject.KEY_POLICY: ("PutKeyPolicy",),
    Subject.KEY_ROTATION: ("DisableKeyRotation",),
    Subject.ALIAS: ("UpdateAlias", "DeleteAlias", "CreateAlias"),
    Subject.SPANS: ("UpdateTraceSegmentDestination", "AssociateKmsKey", "DisassociateKmsKey"),
    Subject.LINKS: ("CreateLink", "UpdateLink"),
}


class Search(Struct, frozen=True):
    """A call to search for: its name, and the time in which it was made."""

    event_name: str
    since: datetime
    until: datetime


def searches(state: TargetState, now: datetime) -> tuple[Search, ...]:
    """Return the calls that may have made what no event explains, of the open incident and of those closed lately."""
    makers = [maker for past in state.past for maker in _unexplained(past.attributions, past.makers)]
    if state.incident is not None:
        makers += _unexplained(state.incident.attributions, state.incident.makers)
    found = (search for maker in makers for search in _of(maker))
    return tuple(dict.fromkeys(each for each in found if MAY_STILL_COME <= now - each.until <= SEARCHED_FOR))


def _unexplained(attributions: Iterable[Attribution], makers: Iterable[Maker]) -> list[Maker]:
    unknown = {
        each.violation
        for each in attributions
        if not (each.events or each.before_guard or each.policy_digest is not None)
    }
    return [maker for maker in makers if maker.violation in unknown]


def _of(maker: Maker) -> list[Search]:
    names = _CALLS.get(maker.subject, ())
    if maker.subject is Subject.KEY_STATE:
        names = tuple(name for name, state in STATES.items() if state in maker.values and name in KEY_EVENTS)
    oldest = maker.seen_at - LONGEST_BEFORE
    since = max(maker.since or oldest, oldest).replace(microsecond=0)
    return [Search(name, since, maker.seen_at + ONE_SECOND) for name in names]


def read_found(target: Target, search: Search, events: Sequence[HistoryEvent]) -> list[KeyEvent]:
    """Read the events of a search, oldest first. What cannot be read explains nothing."""
    source = f"aws.{SOURCES.get(search.event_name, 'kms')}"
    read = (read_key_event(as_delivered(target, event, source)) for event in reversed(events))
    return [
        replace(each, trigger=replace(each.trigger, kind=TriggerKind.HISTORY))
        for each in read
        if isinstance(each, KeyEvent) and not each.addendum_id
    ]
