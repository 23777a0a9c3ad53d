"""Records, incidents and targets as values for people; an incident is built from its records."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import msgspec

from chalicelib.auditlog import hashchain
from chalicelib.auditlog.parts import Participant, Person, participants, people_of
from chalicelib.auditlog.waits import Waiting, is_in_force, waiting
from chalicelib.auditlog.walks import Budget, Reads
from chalicelib.domain.incidents import exposed_since
from chalicelib.domain.model import Actor, Setting
from chalicelib.domain.reasons import NOT_JUDGED, NOTES, Outcome, Problem, Violation
from chalicelib.domain.spans import Links, Spans
from chalicelib.domain.stored import Cause, Change, GuardState, Incident, Record, Suppression, TargetState
from chalicelib.domain.times import seconds

OF_THE_PRESENT = ("exposed_until", "waiting")
"""The fields of an incident that its records do not have."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record with its hash."""

    record: Record
    hash: str

    @property
    def actor(self) -> Actor | None:
        """Who the record is about.

        Of the record of an event, the event's actor; otherwise the actor that caused the drift, if the record names
        one, or that triggered the run.
        """
        record = self.record
        own = record.trigger.actor if record.change else None
        return own or (record.cause.actor if record.cause else record.trigger.actor)

    @property
    def people(self) -> tuple[Person, ...]:
        """Everybody who has a part in the record, and which."""
        return people_of(self.record)

    def to_json(self) -> dict[str, Any]:
        """The record's fields as they were hashed, and `hash`, `actor`, `people`, `account` and `region`."""
        account, _, region = self.record.target.partition("/")
        document: dict[str, Any] = _plain(self.record)
        return {
            **document,
            "hash": self.hash,
            "actor": _plain(self.actor),
            "people": _plain(self.people),
            "account": account if region else None,
            "region": region or None,
        }


@dataclass(frozen=True, slots=True)
class IncidentView:
    """An incident, derived from its records.

    `outcome` and `reason` are its current ones. `exposure_seconds` is known after its end; of an open incident,
    `exposed_until` is set if the exposure is over, and `waiting` is what the guard waits for, both from the target's
    state, as only `history.incident_now` reads it. `exposed_since` is the time
    of the change, or of its detection if the change is unknown. `people` are all who have a part in it. `complete`: all
    its records were read.
    """

    id: str
    target: str
    open: bool
    outcome: Outcome
    opened_at: datetime
    exposed_since: datetime
    closed_at: datetime | None = None
    reason: str | None = None
    rule: str | None = None
    violations: tuple[Violation, ...] = ()
    before: Setting | None = None
    after: Setting | None = None
    actor: Actor | None = None
    cause: Cause | None = None
    exposure_seconds: float | None = None
    attempts: int = 0
    actions: tuple[str, ...] = ()
    suppression: Suppression | None = None
    error: Problem | None = None
    people: tuple[Participant, ...] = ()
    complete: bool = True
    entries: tuple[Entry, ...] = ()
    exposed_until: datetime | None = None
    waiting: Waiting | None = None

    @property
    def changed(self) -> Change | None:
        """What the change made that began the incident; None if no record has it.

        Without a cause, the change of the latest event that made a violation.
        """
        attributions = [each for entry in self.entries for each in entry.record.attributions]
        makers = [event.event_id for each in attributions for event in each.events]
        wanted = self.cause.event_id if self.cause else next(reversed(makers), None)
        changes = (entry.record.change for entry in self.entries if entry.record.trigger.event_id == wanted)
        return next((change for change in changes if wanted and change and change.subject), None)

    def exposed_seconds(self, now: datetime) -> float:
        """How long an open incident has been exposed."""
        return seconds((self.exposed_until or now) - self.exposed_since)

    def to_json(self, *, timeline: bool = False) -> dict[str, Any]:
        """The fields by their names; `timeline` adds the records, oldest first, and what is of the present."""
        document = _shallow(self, without=("entries",) if timeline else ("entries", *OF_THE_PRESENT))
        account, _, region = self.target.partition("/")
        document |= {"account": account, "region": region}
        return {**document, "records": [entry.to_json() for entry in self.entries]} if timeline else document


@dataclass(frozen=True, slots=True)
class TargetView:
    """The current state of a target. `exposed_until` is set if the exposure is over and the incident still open.

    `waiting` is what the guard waits for. `spans` and `links` are as last read, None if they never were.
    """

    target: str
    account: str
    region: str
    outcome: Outcome | None
    reason: str | None
    violations: tuple[Violation, ...]
    setting: Setting | None
    rule: str | None
    policy_digest: str | None
    first_seen: datetime | None
    checked_at: datetime | None
    good_at: datetime | None
    incident: Incident | None
    exposed_since: datetime | None
    managed_key: str | None
    orphan_keys: tuple[str, ...]
    suppressions: tuple[Suppression, ...]
    due: datetime | None
    records: int
    exposed_until: datetime | None = None
    waiting: Waiting | None = None
    spans: Spans | None = None
    links: Links | None = None

    def exposed_seconds(self, now: datetime) -> float | None:
        """How long the target has been exposed in its open incident; None without one."""
        return seconds((self.exposed_until or now) - self.exposed_since) if self.exposed_since else None

    @property
    def compliant(self) -> bool:
        """Whether the setting satisfied the rule at the last check."""
        return self.outcome in (Outcome.COMPLIANT, Outcome.REMEDIATED) and self.incident is None

    def to_json(self) -> dict[str, Any]:
        """The fields by their names."""
        return {**_shallow(self), "compliant": self.compliant}


@dataclass(frozen=True, slots=True)
class Page:
    """Records, newest first. `cursor` is for the next page, None at the end; `unreadable` counts unreadable rows."""

    entries: tuple[Entry, ...]
    cursor: str | None
    items_read: int
    unreadable: int = 0

    def to_json(self) -> dict[str, Any]:
        """The response of the API."""
        return {"records": [entry.to_json() for entry in self.entries], "next_token": self.cursor}


@dataclass(frozen=True, slots=True)
class IncidentPage:
    """Incidents, newest first. `cursor` is for the next page, None at the end."""

    incidents: tuple[IncidentView, ...]
    cursor: str | None
    items_read: int
    unreadable: int = 0

    def to_json(self) -> dict[str, Any]:
        """The response of the API."""
        return {"incidents": [incident.to_json() for incident in self.incidents], "next_token": self.cursor}


def target_view(state: TargetState, guard: GuardState, now: datetime) -> TargetView:
    """The view of a target's stored state. `now` is AWS's time."""
    account, _, region = state.target.partition("/")
    kept = {state.managed_key, *state.keys_retired}
    return TargetView(
        target=state.target,
        account=account,
        region=region,
        outcome=state.outcome,
        reason=state.reason,
        violations=state.violations,
        setting=state.setting,
        rule=state.rule,
        policy_digest=state.policy_digest,
        first_seen=state.first_seen,
        checked_at=state.checked_at,
        good_at=state.good_at,
        incident=state.incident,
        exposed_since=exposed_since(state.incident) if state.incident else None,
        managed_key=state.managed_key,
        orphan_keys=tuple(arn for arn in state.keys_made if arn not in kept),
        suppressions=tuple(one for one in state.suppressions if is_in_force(one, now)),
        due=state.due,
        records=state.seq,
        exposed_until=state.incident.safe_at if state.incident else None,
        waiting=waiting(state, guard, now),
        spans=state.spans,
        links=state.links,
    )


def read_entry(row: hashchain.StoredRow) -> Entry | None:
    """The entry of a row; None if its body is not a record."""
    try:
        return Entry(hashchain.unseal(row.body), row.hash)
    except ValueError:
        return None


def opens_incident(record: Record) -> bool:
    """Whether the record is the first of its incident."""
    return record.incident_id is not None and record.incident_id == record.record_id


def incident_from(store: Reads, first: Entry, budget: Budget, most: int) -> IncidentView:
    """The incident whose first record is `first`, from at most `most` records after it."""
    target = first.record.target
    own, closed_at, others = [first], _closing(first.record), 0
    seq, left, complete = first.record.seq + 1, most, False
    while left > 0 and budget.allows(1):
        slice_ = store.oldest(target, budget.take(min(left, 100)), seq)
        budget.count(len(slice_.rows))
        left -= len(slice_.rows)
        for row in slice_.rows:
            entry = read_entry(row)
            if entry is None:
                continue
            record = entry.record
            seq = record.seq + 1
            if record.incident_id == first.record.incident_id:
                own.append(entry)
                closed_at = closed_at or _closing(record)
            else:
                ends = opens_incident(record) or (record.outcome is Outcome.IGNORED and record.reason in NOT_JUDGED)
                closed_at = closed_at or (record.at if ends else None)
                others += opens_incident(record)
        # A late change event joins one of the last eight incidents, so no further records can follow.
        if not slice_.more or others > 8:
            complete = True
            break
    return _view(tuple(own), closed_at, complete=complete)


def _closing(record: Record) -> datetime | None:
    if record.outcome is Outcome.REMEDIATED:
        return record.at
    return record.at if record.outcome is Outcome.COMPLIANT and record.reason != "UPDATING" else None


def _view(entries: tuple[Entry, ...], closed_at: datetime | None, *, complete: bool) -> IncidentView:
    own = [entry.record for entry in entries]
    first = own[0]
    significant = [record for record in own if not _says_nothing_of_progress(record)] or own
    until_end = [record for record in significant if closed_at is None or record.at <= closed_at] or significant
    last = until_end[-1]
    cause = next((record.cause for record in reversed(own) if record.cause), None)
    exposures = [record.exposure_seconds for record in own if record.exposure_seconds is not None]
    return IncidentView(
        id=first.record_id,
        target=first.target,
        open=closed_at is None,
        outcome=last.outcome,
        opened_at=first.at,
        exposed_since=cause.at if cause else first.at,
        closed_at=closed_at,
        reason=last.reason,
        rule=last.rule,
        violations=next((record.violations for record in own if record.violations), ()),
        before=next((record.before for record in own if record.before), None),
        after=next((record.after for record in reversed(own) if record.after), None),
        actor=cause.actor if cause else None,
        cause=cause,
        exposure_seconds=exposures[-1] if exposures else None,
        attempts=sum(record.outcome is Outcome.REMEDIATING for record in own),
        actions=tuple(action.name for record in own for action in record.actions if action.error is None),
        suppression=next((each.suppression for each in reversed(own) if each.outcome is Outcome.SUPPRESSED), None),
        error=last.error,
        people=participants(own),
        complete=complete,
        entries=entries,
    )


def _says_nothing_of_progress(record: Record) -> bool:
    """Whether the record does not say how far the incident is: a note, or a change that waits for its attempt."""
    is_note = record.outcome is Outcome.IGNORED and record.reason in NOTES
    return is_note or record.reason in ("IN_PROGRESS", "UPDATING")


def _plain(value: object) -> Any:
    """Convert to JSON types, with times as RFC 3339."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _shallow(view: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    return {each.name: _plain(getattr(view, each.name)) for each in fields(view) if each.name not in without}
