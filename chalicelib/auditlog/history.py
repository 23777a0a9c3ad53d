"""The query layer of the command line, the API and the console: records, incidents and targets, newest first, in pages.

A page reads at most `MOST_ITEMS` items with `MOST_QUERIES` queries, whatever the filter. So it may have fewer records
than the limit, and still a cursor.

A record may become visible late if a clock or the index lags: `Follower` reads the last two minutes again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from chalicelib.auditlog.cursors import read_cursor, write_cursor
from chalicelib.auditlog.filters import Filter
from chalicelib.auditlog.views import (
    Entry,
    IncidentPage,
    IncidentView,
    Page,
    TargetView,
    incident_from,
    opens_incident,
    read_entry,
    target_view,
)
from chalicelib.auditlog.waits import waiting
from chalicelib.auditlog.walks import MOST_ITEMS, MOST_QUERIES, SLACK, Budget, Reads, walk_back
from chalicelib.domain.errors import FormatTooNew, StoreError
from chalicelib.domain.model import Target
from chalicelib.domain.ports import Loaded
from chalicelib.domain.stored import GUARD_CHAIN, GuardState, TargetState

LARGEST_PAGE = 500

RECORDS_OF_AN_INCIDENT = 24
"""How many records after an incident's first one a list reads; `incident` reads all."""


def records(
    store: Reads,
    wanted: Filter,
    now: datetime,
    limit: int = 50,
    cursor: str | None = None,
    *,
    most_items: int = MOST_ITEMS,
) -> Page:
    """One page of the records that match the filter, newest first.

    `now` is AWS's time, aware. The cursor keeps the time range of the first page. Raises BadCursor.
    """
    wanted, start = read_cursor(cursor, "records", wanted)
    budget = Budget(most_items, MOST_QUERIES)
    walk = walk_back(store, wanted, now, start, budget, limit)
    found: list[Entry] = []
    unreadable = 0
    last: str | None = None
    for position, row in walk:
        entry = read_entry(row)
        unreadable += entry is None
        if entry is not None and wanted.matches(entry.record):
            found.append(entry)
        last = position
        if len(found) == min(limit, LARGEST_PAGE):
            break
    else:
        last = walk.rest
    return Page(tuple(found), write_cursor("records", wanted, last), budget.items_read, unreadable)


def incidents(
    store: Reads,
    wanted: Filter,
    now: datetime,
    limit: int = 20,
    cursor: str | None = None,
    *,
    most_items: int = MOST_ITEMS,
) -> IncidentPage:
    """One page of the incidents that match the filter, newest first. `outcomes` filters by their current outcome.

    Raises BadCursor.
    """
    wanted, start = read_cursor(cursor, "incidents", wanted)
    budget = Budget(most_items, MOST_QUERIES)
    opening = _opening(wanted)
    walk = walk_back(store, wanted, now, start, budget, limit)
    found: list[IncidentView] = []
    unreadable = 0
    last = start
    for position, row in walk:
        entry = read_entry(row)
        unreadable += entry is None
        if entry is not None and opens_incident(entry.record) and opening.matches(entry.record):
            if last != start and not budget.allows(RECORDS_OF_AN_INCIDENT + 1):
                break
            view = incident_from(store, entry, budget, RECORDS_OF_AN_INCIDENT)
            if _matches_incident(wanted, view):
                found.append(view)
        last = position
        if len(found) == min(limit, LARGEST_PAGE):
            break
    else:
        last = walk.rest
    return IncidentPage(tuple(found), write_cursor("incidents", wanted, last), budget.items_read, unreadable)


def incident(store: Reads, incident_id: str) -> IncidentView | None:
    """One incident with its records, oldest first; None if it does not exist.

    Accepts the id of one of its records, too. Raises ValueError if the text is not an id.
    """
    target, seq = _read_id(incident_id)
    slice_ = store.oldest(target, 1, seq)
    first = read_entry(slice_.rows[0]) if slice_.rows else None
    if first is None or first.record.seq != seq or first.record.incident_id is None:
        return None
    if not opens_incident(first.record):
        target, seq = _read_id(first.record.incident_id)
        first = next(filter(None, map(read_entry, store.oldest(target, 1, seq).rows)), None)
        if first is None or not opens_incident(first.record) or first.record.seq != seq:
            return None
    return incident_from(store, first, Budget(MOST_ITEMS, MOST_QUERIES), MOST_ITEMS)


class LiveReads(Reads, Protocol):
    """The reads of the store that also has the targets' present states."""

    def load(self, target: str) -> Loaded:
        """Read the target's and the guard's state."""


def incident_now(store: LiveReads, incident_id: str, now: Callable[[], datetime]) -> IncidentView | None:
    """Like `incident`, and what the guard waits for if the incident is open. `now` returns AWS's time."""
    view = incident(store, incident_id)
    if view is None or not view.open:
        return view
    loaded = present(store, view.target)
    open_incident = loaded.state.incident if loaded else None
    if loaded is None or open_incident is None or open_incident.id != view.id:
        return view
    return replace(view, exposed_until=open_incident.safe_at, waiting=waiting(loaded.state, loaded.guard, now()))


def open_incidents(
    store: LiveReads, states: Iterable[TargetState], wanted: Filter, now: Callable[[], datetime]
) -> list[IncidentView]:
    """The open incidents that match the filter, newest first, with what the guard waits for.

    The targets' states name them, so all are found, whenever they were opened.
    """
    found = []
    for state in states:
        if state.incident is None or not wanted.matches_target(state.target):
            continue
        view = incident_now(store, state.incident.id, now)
        if view is None or not view.open or not _opening(wanted).matches(view.entries[0].record):
            continue
        if _matches_incident(wanted, view):
            found.append(view)
    return sorted(found, key=lambda view: view.opened_at, reverse=True)


def present(store: LiveReads, target: str) -> Loaded | None:
    """Read a target's present state; None if it cannot be read, for example because a newer release stored it.

    The log is shown all the same.
    """
    try:
        return store.load(target)
    except (FormatTooNew, StoreError):
        return None


def targets(
    states: Iterable[TargetState], guard: GuardState, now: datetime, wanted: Filter | None = None
) -> list[TargetView]:
    """The current state of the targets, by account and Region. Of the filter, only target, rule and outcome apply."""
    views = []
    for state in states:
        view = target_view(state, guard, now)
        if wanted is None or (
            wanted.matches_target(view.target)
            and (wanted.rule is None or view.rule == wanted.rule)
            and (not wanted.outcomes or view.outcome in wanted.outcomes)
        ):
            views.append(view)
    return sorted(views, key=lambda view: (view.account, view.region))


class Follower:
    """Find new records in repeated reads of an overlapping time range, so that each record is printed once."""

    OVERLAP = timedelta(minutes=2)

    def __init__(self) -> None:
        self._returned: dict[str, datetime] = {}

    def since(self, now: datetime) -> datetime:
        """The start of the next read. The overlap covers clocks and indexes that lag."""
        return now - self.OVERLAP - timedelta(seconds=1)

    def fresh(self, entries: Iterable[Entry], now: datetime) -> list[Entry]:
        """The entries that were not returned before, oldest first."""
        new = sorted(
            (entry for entry in entries if entry.record.record_id not in self._returned),
            key=lambda entry: (entry.record.at, entry.record.target, entry.record.seq),
        )
        self._returned |= {entry.record.record_id: entry.record.at for entry in new}
        oldest = self.since(now) - SLACK
        self._returned = {name: at for name, at in self._returned.items() if at >= oldest}
        return new


def _opening(wanted: Filter) -> Filter:
    """What an incident's first record shows of a filter. The rest depends on all records of the incident."""
    return replace(wanted, outcomes=(), actor=None, violations=())


def _matches_incident(wanted: Filter, view: IncidentView) -> bool:
    if wanted.outcomes and view.outcome not in wanted.outcomes:
        return False
    violations = {violation for entry in view.entries for violation in entry.record.violations}
    if wanted.violations and violations.isdisjoint(wanted.violations):
        return False
    return wanted.actor is None or any(wanted.matches_actor(entry.record) for entry in view.entries)


def _read_id(text: str) -> tuple[str, int]:
    """Parse an id, written with `/` and `#`, or with dots in their place for the path of a URL."""
    dotted = text.split(".")
    target, _, seq = (f"{dotted[0]}/{dotted[1]}#{dotted[2]}" if len(dotted) == 3 else text).rpartition("#")
    if not (seq.isascii() and seq.isdigit() and 0 < len(seq) <= 12 and int(seq) > 0):
        raise ValueError(f"{text!r} is not an incident: write it as 111122223333/us-east-1#7")
    if target != GUARD_CHAIN:
        Target.parse(target)
    return target, int(seq)
