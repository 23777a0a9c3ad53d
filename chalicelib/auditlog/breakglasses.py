"""Break-glasses as they are at a moment: those that the states have, and former ones from their records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from chalicelib.auditlog.filters import Filter
from chalicelib.auditlog.history import LARGEST_PAGE, records
from chalicelib.auditlog.waits import is_in_force
from chalicelib.auditlog.walks import Reads
from chalicelib.domain.reasons import BREAK_GLASS_NOTES, Outcome
from chalicelib.domain.stored import Suppression, TargetState
from chalicelib.domain.times import CLOCK_SKEW


@dataclass(frozen=True, slots=True)
class BreakGlassView:
    """A break-glass value as the guard saw it. `let_through` is the number of changes that it allowed so far."""

    target: str
    suppression: Suppression
    status: str
    let_through: int

    def to_json(self) -> dict[str, Any]:
        """The suppression's fields, with the target, the status and the number of allowed changes."""
        document: dict[str, Any] = msgspec.to_builtins(self.suppression)
        return {"target": self.target, "status": self.status, "let_through": self.let_through, **document}


def status_of(suppression: Suppression, now: datetime) -> str:
    """`open`, `refused: CODE` or `ended: CODE`. The end counts from its own second, before the guard has noted it."""
    if suppression.refused:
        return f"refused: {suppression.refused}"
    if suppression.closed:
        return f"ended: {suppression.closed}"
    if is_in_force(suppression, now):
        return "open"
    return "ended: END" if suppression.until == suppression.end else "ended: CAP"


def in_force(store: Reads, states: Iterable[TargetState], now: datetime) -> list[BreakGlassView]:
    """The break-glasses in force, by target."""
    return [
        _view(store, state.target, each, now)
        for state in states
        for each in state.suppressions
        if is_in_force(each, now)
    ]


def every(store: Reads, states: Iterable[TargetState], now: datetime, since: datetime) -> list[BreakGlassView]:
    """Those in force and those refused or ended, as of `now`, newest first; of a value, what was said last.

    The states forget a value soon after its end, and keep no refused value of a principal: the records from `since` on
    have them.
    """
    found: dict[tuple[str, str, str], Suppression] = {}
    for state in states:
        found |= {(state.target, each.carrier, each.value): each for each in state.suppressions}
    wanted = Filter(since=since, outcomes=(Outcome.SUPPRESSED, Outcome.IGNORED))
    cursor, more = None, True
    while more:
        page = records(store, wanted, now, LARGEST_PAGE, cursor)
        for record in (entry.record for entry in page.entries if entry.record.reason in BREAK_GLASS_NOTES):
            if record.suppression is not None:
                found.setdefault(
                    (record.target, record.suppression.carrier, record.suppression.value), record.suppression
                )
        cursor = page.cursor
        more = cursor is not None
    views = [_view(store, target, each, now) for (target, _, _), each in found.items()]
    return sorted(views, key=lambda view: view.suppression.first_seen, reverse=True)


def _view(store: Reads, target: str, suppression: Suppression, now: datetime) -> BreakGlassView:
    return BreakGlassView(
        target, suppression, status_of(suppression, now), _let_through(store, target, suppression, now)
    )


def _let_through(store: Reads, target: str, suppression: Suppression, now: datetime) -> int:
    """Count the changes that the value allowed: each change during an incident, or the incident if none is known."""
    if suppression.refused:
        return 0
    wanted = Filter(target=target, outcomes=(Outcome.SUPPRESSED,), since=suppression.first_seen - CLOCK_SKEW)
    allowed = [
        entry.record
        for entry in records(store, wanted, now, limit=200).entries
        if entry.record.incident_id
        and entry.record.suppression is not None
        and (entry.record.suppression.carrier, entry.record.suppression.value)
        == (suppression.carrier, suppression.value)
    ]
    changes = {record.trigger.event_id: record.incident_id for record in allowed if record.change}
    without_event = {record.incident_id for record in allowed} - set(changes.values())
    return len(changes) + len(without_event)
