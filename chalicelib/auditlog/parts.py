"""Who had a part in a record or in an incident, and which part. The filter by actor and every face use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from chalicelib.domain.model import Actor, Subject
from chalicelib.domain.reasons import Reason, Violation
from chalicelib.domain.stored import Record

LONGEST_VALUE = 256


class Part(StrEnum):
    """What somebody has to do with a record or an incident."""

    EVENT = "event"  # made the call that a record is about
    TRIGGER = "trigger"  # made the event or the request that began the run, whose own record is another one
    COUNTED = "counted"  # made the calls that a record only counts
    CAUSE = "cause"  # made the change that began the incident
    VIOLATION = "violation"  # made a violation
    BREAK_GLASS = "break-glass"  # opened, or tried to open, a break-glass


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who has a part in a record. `violations` are those that the record attributes to them."""

    actor: Actor
    parts: tuple[Part, ...]
    violations: tuple[Violation, ...] = ()


@dataclass(frozen=True, slots=True)
class PersonsChange:
    """What somebody changed in an incident, and the record that has it in full.

    `at` is the time of the call; `before` and `after` are cut after 256 characters.
    """

    record_id: str
    at: datetime | None
    event_name: str | None
    subject: Subject | None
    resource: str | None
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Participant:
    """Somebody who has a part in an incident, with all that they changed in it, in the order of the records."""

    actor: Actor
    parts: tuple[Part, ...]
    violations: tuple[Violation, ...]
    changes: tuple[PersonsChange, ...]


def people_of(record: Record) -> tuple[Person, ...]:
    """Everybody who has a part in the record; first who made the call that it is about."""
    return tuple(Person(actor, parts, violations) for actor, (parts, violations) in _gathered(_parts(record)).items())


def participants(records: Iterable[Record]) -> tuple[Participant, ...]:
    """Everybody who has a part in the incident with these records, in the order in which they appear."""
    records = tuple(records)
    changes: dict[Actor, list[PersonsChange]] = {}
    for record in records:
        if record.change and record.trigger.actor:
            changes.setdefault(record.trigger.actor, []).append(_change(record))
    found = _gathered(each for record in records for each in _parts(record))
    return tuple(
        Participant(actor, _without_trigger(parts), violations, tuple(changes.get(actor, ())))
        for actor, (parts, violations) in found.items()
    )


def _without_trigger(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """A call that is recorded began a run, too: that says nothing more."""
    return tuple(part for part in parts if part is not Part.TRIGGER) if Part.EVENT in parts else parts


def _gathered(
    found: Iterable[tuple[Actor, Part, Violation | None]],
) -> dict[Actor, tuple[tuple[Part, ...], tuple[Violation, ...]]]:
    """The parts and violations of each actor, each once."""
    people: dict[Actor, tuple[tuple[Part, ...], tuple[Violation, ...]]] = {}
    for actor, part, violation in found:
        parts, violations = people.get(actor, ((), ()))
        people[actor] = (
            parts if part in parts else (*parts, part),
            violations if violation is None or violation in violations else (*violations, violation),
        )
    return people


def _parts(record: Record) -> Iterator[tuple[Actor, Part, Violation | None]]:
    if record.trigger.actor:
        counted = record.reason == Reason.CALLS_COUNTED
        part = Part.COUNTED if counted else Part.EVENT if record.change else Part.TRIGGER
        yield record.trigger.actor, part, None
    if record.cause:
        yield record.cause.actor, Part.CAUSE, None
    for attribution in record.attributions:
        for event in attribution.events:
            yield event.actor, Part.VIOLATION, attribution.violation
    if record.suppression and record.suppression.opened_by:
        yield record.suppression.opened_by, Part.BREAK_GLASS, None


def _change(record: Record) -> PersonsChange:
    change, trigger = record.change, record.trigger
    assert change is not None
    return PersonsChange(
        record.record_id,
        trigger.event_time,
        trigger.event_name,
        change.subject,
        change.resource,
        _cut(change.before),
        _cut(change.after),
    )


def _cut(value: str | None) -> str | None:
    return value if value is None or len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}…"
