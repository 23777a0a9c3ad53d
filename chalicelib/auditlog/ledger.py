"""Writing to a chain: one transaction's records and the state that goes with them, built before anything is stored."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from chalicelib.auditlog import hashchain
from chalicelib.domain.model import (
    Backoff,
    Cause,
    ChangeEvent,
    Incident,
    Outcome,
    PastIncident,
    Record,
    TargetState,
    Trigger,
)

PAST_INCIDENTS = 8
"""How many closed incidents a target remembers, for change events that come late."""

CLOCK_SKEW = timedelta(minutes=5)
STALE_READS = timedelta(seconds=250)
"""KMS may answer as of four minutes ago; only after this does not finding something mean that it is not there."""

QUIET = timedelta(hours=1)
"""A fight is forgotten by one step for each quiet hour, so that pausing gains an adversary little."""

FREE_ATTEMPTS = 2
FIRST_DELAY_SECONDS = 60
FIRST_RETRY_SECONDS = 15


class Draft:
    """One transaction in the making: `before` as it was read, `after` as it will stand, and the sealed records."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.after = before
        self.records: list[tuple[Record, bytes, str]] = []

    def set(self, **changes: Any) -> None:
        """Change fields of the state that will be stored."""
        self.after = replace(self.after, **changes)

    def add(self, at: datetime, outcome: Outcome, trigger: Trigger, **fields: Any) -> Record:
        """Append a record to the chain; `fields` are Record's own."""
        seq = self.after.seq + 1
        record = Record(
            record_id=f"{self.after.target}#{seq}",
            target=self.after.target,
            seq=seq,
            at=at,
            outcome=outcome,
            trigger=trigger,
            prev_hash=self.after.head,
            **fields,
        )
        body, digest = hashchain.seal(record)
        self.records.append((record, body, digest))
        self.after = replace(self.after, seq=seq, head=digest)
        return record

    def next_id(self) -> str:
        """The id that an incident gets whose first record is the next one."""
        return f"{self.after.target}#{self.after.seq + 1}"


def remember(state: TargetState, incident: Incident, closed_at: datetime) -> tuple[PastIncident, ...]:
    """The past incidents with this one at their end."""
    past = PastIncident(incident.id, incident.opened_at, closed_at, incident.before, incident.cause)
    return (*state.past, past)[-PAST_INCIDENTS:]


def caused_by(change: ChangeEvent, incident: Incident | PastIncident, after: datetime | None) -> bool:
    """Whether a change event fits as the cause of an incident that has none: same setting, and made before it was seen.

    `after` is when the incident before this one ended: a change older than that was put right with it.
    """
    at = change.trigger.event_time
    if incident.cause is not None or incident.before is None or change.result is None or at is None:
        return False
    return (
        incident.before.same_choice(change.result)
        and at <= incident.opened_at + CLOCK_SKEW
        and (after is None or at >= after - CLOCK_SKEW)
    )


def latest(known: Cause | None, heard: Cause | None) -> Cause | None:
    """The later of two changes; of two in the same second the one that was heard of last."""
    if known is None or heard is None:
        return heard or known
    return heard if heard.at >= known.at else known


def backoff_after_attempt(backoff: Backoff, now: datetime, jitter: float, most_minutes: int) -> Backoff:
    """The backoff once another attempt has begun. The first attempts are free; then the pauses double up to the limit.

    `jitter` is uniform in [0, 1) and shortens a pause by up to a quarter, so that targets fall out of step.
    """
    quiet_hours = int((now - backoff.last_at) / QUIET) if backoff.last_at else 0
    count = max(0, backoff.count - quiet_hours) + 1
    if count <= FREE_ATTEMPTS:
        return Backoff(count, now, None)
    seconds = FIRST_DELAY_SECONDS * 2 ** min(count - FREE_ATTEMPTS - 1, 20)
    return Backoff(count, now, now + _jittered(seconds, jitter, most_minutes))


def retry_after(backoff: Backoff, now: datetime, jitter: float, most_minutes: int) -> datetime:
    """When a failed attempt is due again: soon at first, later the more attempts there were."""
    seconds = FIRST_RETRY_SECONDS * 2 ** min(max(backoff.count, 1) - 1, 20)
    later = now + _jittered(seconds, jitter, most_minutes)
    return max(later, backoff.until) if backoff.until else later


def _jittered(seconds: float, jitter: float, most_minutes: int) -> timedelta:
    return timedelta(seconds=min(seconds, most_minutes * 60) * (1 - jitter / 4))


def exposure(incident: Incident, now: datetime) -> float:
    """Seconds from the change, or from its discovery where the change is unknown, to `now`."""
    return seconds(now - (incident.cause.at if incident.cause else incident.opened_at))


def seconds(span: timedelta) -> float:
    """A span in seconds, to the millisecond, never negative."""
    return max(0.0, round(span.total_seconds(), 3))


def later(one: datetime | None, other: datetime) -> datetime:
    """The later of two times, where the first may be missing."""
    return max(one, other) if one else other
