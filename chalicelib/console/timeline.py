"""The timeline of an incident: equal failures in a row are one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.auditlog.views import Entry
from chalicelib.domain.reasons import Outcome

PERIODS = (1, 2)
"""A failure repeats by itself, or with the attempt before it."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """One line: `entry` is the latest record; `repeats` are all that say the same, itself included, oldest first."""

    entry: Entry
    repeats: tuple[Entry, ...]


def stretches(entries: Sequence[Entry]) -> list[Stretch]:
    """The lines of a timeline, in the order of the records. Only failures and waits without an event are joined."""
    found: list[Stretch] = []
    at = 0
    while at < len(entries):
        period, times = _repeats(entries, at)
        for place in range(period):
            own = tuple(entries[at + place + period * number] for number in range(times))
            found.append(Stretch(own[-1], own))
        at += period * times
    return found


def _repeats(entries: Sequence[Entry], at: int) -> tuple[int, int]:
    """The records that repeat from here, and how often."""
    for period in PERIODS:
        first = [_says(entry) for entry in entries[at : at + period]]
        if None in first or not any(entry.record.outcome in REPEATED for entry in entries[at : at + period]):
            continue
        times = 1
        while [_says(entry) for entry in entries[at + times * period : at + (times + 1) * period]] == first:
            times += 1
        if times > 1:
            return period, times
    return 1, 1


REPEATED = (Outcome.FAILED, Outcome.DEFERRED)


def _says(entry: Entry) -> tuple[object, ...] | None:
    """What a record says, apart from its time and number; None of an event, which is always its own line."""
    record = entry.record
    if record.change is not None or record.trigger.event_id is not None or record.exposure_seconds is not None:
        return None
    actions = tuple((action.name, action.key_arn, action.error) for action in record.actions)
    return record.outcome, record.reason, record.error, record.violations, record.trigger.kind, actions
