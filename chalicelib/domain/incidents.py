"""Incidents: what caused them, how long they exposed, and what is remembered of them."""

from __future__ import annotations

from datetime import datetime

from chalicelib.domain.model import ChangeEvent
from chalicelib.domain.stored import Cause, Incident, PastIncident, TargetState
from chalicelib.domain.times import CLOCK_SKEW, seconds

PAST_INCIDENTS = 8
"""How many closed incidents a target remembers, for change events that come late."""


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


def exposure(incident: Incident, now: datetime) -> float:
    """Seconds from the change, or from its discovery where the change is unknown, to `now`."""
    return seconds(now - (incident.cause.at if incident.cause else incident.opened_at))
