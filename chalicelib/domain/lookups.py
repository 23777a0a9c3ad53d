"""What the guard reads of CloudTrail's Event history, what it compares that with, and how far it has read.

Only the function `event_history` and the operators' faces load this module. An unreadable `Progress` starts anew, so
its fields may change; a new one needs a default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from chalicelib.domain.model import Trigger
from chalicelib.domain.stored import Change, Suppression


class HistoryEvent(Struct, frozen=True):
    """An event of Event history: its id and time, and CloudTrail's record as JSON text, which is untrusted input."""

    event_id: str
    at: datetime
    text: str


class HistoryPage(Struct, frozen=True):
    """One response of LookupEvents, newest event first. `token` is None on the last page."""

    events: tuple[HistoryEvent, ...]
    token: str | None = None


class EventHistory(Protocol):
    """CloudTrail's Event history of one account and Region."""

    def lookup(
        self, attribute: tuple[str, str], since: datetime, until: datetime, token: str | None = None
    ) -> HistoryPage:
        """LookupEvents: one page of the events with this attribute, such as `("EventName", "PutEncryptionConfig")`."""


class SentCall(Struct, frozen=True):
    """A call of the guard, as a record has it."""

    request_id: str | None = None


class Recorded(Struct, frozen=True):
    """What matters here of a record. Only the one record of an event has `change`."""

    record_id: str
    at: datetime
    trigger: Trigger
    reason: str | None = None
    change: Change | None = None
    actions: tuple[SentCall, ...] = ()
    suppression: Suppression | None = None


class Unconfirmed(Struct, frozen=True):
    """A record of an event that Event history did not show, and the break-glass values that the event opened.

    `lookups` counts those by id that decided nothing.
    """

    record: Recorded
    opened: frozenset[tuple[str, str]] = frozenset()
    lookups: int = 0


class Look(Struct, frozen=True):
    """A time whose events are being read, newest first: from `since` until `until`.

    `down_to`: former runs read every event after that second; None if none read any.
    """

    since: datetime
    until: datetime
    down_to: datetime | None = None


class Progress(Struct, frozen=True):
    """How far a target's Event history was read, and what that says about the delivery of its events.

    Every event before `until` was read, and every record before `checked_until` was compared with the events.
    `to_look_up` are records that only a lookup by id can confirm. `look` is unfinished. `judged_at` is the time, in
    whole seconds, of the latest events, `judged_ids`, that are part of `missed_in_a_row`, `ever_received` and of the
    two counts: events whose id, or only whose request or time, is that of their record.
    `deaf_since`: the target receives no events. `tried_at` is when a run last spent its time on the target.
    """

    until: datetime | None = None
    checked_until: datetime | None = None
    to_look_up: tuple[Unconfirmed, ...] = ()
    look: Look | None = None
    judged_at: datetime | None = None
    judged_ids: tuple[str, ...] = ()
    missed_in_a_row: int = 0
    ever_received: bool = False
    deaf_since: datetime | None = None
    matched_by_id: int = 0
    matched_otherwise: int = 0
    tried_at: datetime | None = None


class HistoryStore(Protocol):
    """What the guard's tables have of Event history."""

    def progress(self, targets: Sequence[str]) -> Mapping[str, Progress]:
        """The stored progress by target, read consistently. None is stored of a target that is absent."""

    def keep(self, target: str, progress: Progress) -> None:
        """Store the progress of a target, in place of the former one."""

    def audited(self, target: str, event_ids: Sequence[str]) -> Set[str]:
        """Those of the events that were recorded or counted, read consistently, a hundred a request."""

    def recorded(self, target: str, since: datetime) -> Sequence[Recorded]:
        """The records of a chain since a time, in order."""
