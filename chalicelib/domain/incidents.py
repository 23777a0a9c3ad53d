"""Incidents: their causes, their exposure, and what is remembered of closed ones."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TypedDict

from msgspec.structs import replace

from chalicelib.domain.judge import OF_THE_KEY
from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import Actor, ChangeEvent, KeyEvent, Trigger
from chalicelib.domain.observation import Observation
from chalicelib.domain.reasons import Problem, Reason, Violation
from chalicelib.domain.run import Known, Run, must_audit
from chalicelib.domain.stored import Attribution, Cause, Incident, PastIncident, TargetState
from chalicelib.domain.times import CLOCK_SKEW, seconds

PAST_INCIDENTS = 8
"""How many closed incidents a target remembers, for change events that arrive late."""

UNKNOWN_ACTOR = Actor("unknown")


class JoinedFields(TypedDict, total=False):
    """The fields of a record that join its event to a past incident; empty if it belongs to none."""

    incident_id: str
    cause: Cause | None
    exposure_seconds: float
    attributions: tuple[Attribution, ...]


def cause_of(trigger: Trigger) -> Cause | None:
    """Return the event as a cause; None if it has no id or no time."""
    if trigger.event_id is None or trigger.event_time is None:
        return None
    return Cause(trigger.event_id, trigger.event_time, trigger.actor or UNKNOWN_ACTOR)


def cause_of_drift(run: Run, known: Known, seen: Observation, violations: tuple[Violation, ...]) -> Cause | None:
    """Return who owns the drift: the event's actor, but only if the event's effect is what was observed."""
    if run.event is None:
        return None
    if isinstance(run.event, KeyEvent):
        is_owner = OF_THE_KEY.issuperset(violations) and not run.event.is_about_grants
    else:
        is_owner = owner_of_drift(run, known, seen) is not None
    return cause_of(run.event.trigger) if is_owner else None


def owner_of_drift(run: Run, known: Known, seen: Observation) -> ChangeEvent | None:
    """Return the run's change event if it made the observed setting.

    None if it made another setting, was audited before, or is older than the last time the target was compliant: then
    somebody made the same change again. Event times have whole seconds, so the same second counts as later.
    """
    change = run.change
    if change is None or change.result is None or not must_audit(run, known):
        return None
    at, good_at = change.trigger.event_time, known.state.good_at
    is_newer = at is None or good_at is None or at >= good_at.replace(microsecond=0)
    return change if is_newer and seen.setting.same_choice(change.result) else None


def join(incident: Incident, change: ChangeEvent | None, state: TargetState) -> Incident:
    """Return the open incident with the change event as its cause, if the event fits and there is no cause yet."""
    if change is None:
        return incident
    cause = cause_of(change.trigger)
    incident = replace(incident, latest=latest(incident.latest, cause))
    fits = caused_by(change, incident, _compliant_before(incident, state))
    return replace(incident, cause=cause) if fits else incident


def _compliant_before(incident: Incident, state: TargetState) -> datetime | None:
    """When the target was last compliant before the incident: no change before that caused it."""
    times = [state.good_at, *(past.closed_at for past in state.past[-1:])]
    return max((at for at in times if at is not None and at <= incident.opened_at), default=None)


def join_past(state: TargetState, change: ChangeEvent | None) -> tuple[TargetState, JoinedFields]:
    """Set the cause of the newest past incident that the change event fits; also return the record's fields for it."""
    past = _past_caused_by(state, change)
    if past is None or change is None or change.trigger.event_time is None:
        return state, {}
    cause = cause_of(change.trigger)
    joined = tuple(replace(each, cause=cause) if each.id == past.id else each for each in state.past)
    exposed = past_exposure(past, change.trigger.event_time)
    return replace(state, past=joined), {"incident_id": past.id, "cause": cause, "exposure_seconds": exposed}


def remember(state: TargetState, incident: Incident, closed_at: datetime) -> tuple[PastIncident, ...]:
    """Return the past incidents with this one appended."""
    past = PastIncident(
        incident.id,
        incident.opened_at,
        closed_at,
        incident.before,
        incident.cause,
        state.good_setting_at or _compliant_before(incident, state),
        (*incident.attributions, *incident.earlier),
        incident.makers,
        incident.safe_at,
    )
    return (*state.past, past)[-PAST_INCIDENTS:]


def past_with(state: TargetState, incident_id: str | None, at: datetime | None) -> PastIncident | None:
    """Return the past incident with this id; else the newest one in which something happened at this time.

    An incident lasts from the time when the target was last compliant. Event times have whole seconds.
    """
    for past in reversed(state.past):
        if incident_id is not None and past.id == incident_id:
            return past
    for past in reversed(state.past):
        since = past.good_at.replace(microsecond=0) if past.good_at else None
        if at is not None and at <= past.closed_at and (since is None or at >= since):
            return past
    return None


def exposure(incident: Incident, now: datetime) -> float:
    """Return the seconds from the change, or from its discovery if the change is unknown, to the end of the exposure.

    That is `now`, or when X-Ray was seen to be safe again while other violations of the incident remained.
    """
    return seconds((incident.safe_at or now) - exposed_since(incident))


def exposed_since(incident: Incident) -> datetime:
    """Return the time of the change, or of its discovery if the change is unknown."""
    return incident.cause.at if incident.cause else incident.opened_at


def past_exposure(past: PastIncident, changed_at: datetime) -> float:
    """Return the seconds from the change to the end of a past incident's exposure."""
    return seconds((past.safe_at or past.closed_at) - changed_at)


class Fight(TypedDict):
    """How often the guard attempted what somebody undoes, and the ARNs of those who did, as far as known."""

    attempts: int
    against: list[str]


def fight(state: TargetState, lanes: Iterable[Lane], event: ChangeEvent | KeyEvent | None = None) -> Fight:
    """Return the fight in these lanes, as records name it. `event` is what triggered the run."""
    attempts = max((state.backoffs[lane].count for lane in lanes if lane in state.backoffs), default=0)
    # Each attempt ended one incident at most; earlier incidents are not part of the fight.
    causes = [past.cause for past in state.past[-attempts:]] if attempts else []
    if state.incident is not None:
        causes += [state.incident.cause, *(each for made in state.incident.attributions for each in made.events)]
    actors = [cause.actor for cause in causes if cause]
    if event is not None and event.trigger.actor is not None:
        actors.append(event.trigger.actor)
    return {"attempts": attempts, "against": sorted({actor.arn for actor in actors})}


def worker_lost(incident: Incident) -> Problem:
    """Return the problem that ends an attempt whose worker was lost."""
    lease = incident.lease
    owner = lease.owner if lease else "unknown"
    return Problem(Reason.WORKER_LOST, f"worker {owner} stored no result; what it did in this attempt is not known")


def _past_caused_by(state: TargetState, change: ChangeEvent | None) -> PastIncident | None:
    if change is None:
        return None
    ends = (None, *(past.closed_at for past in state.past))
    for past, ended in reversed(tuple(zip(state.past, ends, strict=False))):
        if caused_by(change, past, ended):
            return past
    return None


def caused_by(change: ChangeEvent, incident: Incident | PastIncident, after: datetime | None) -> bool:
    """Whether a change event may be the cause of an incident without one: same setting, and made before its discovery.

    `after` is when the previous incident ended: an older change was remediated with that incident.
    """
    at = change.trigger.event_time
    if incident.cause is not None or incident.before is None or change.result is None or at is None:
        return False
    return (
        incident.before.same_choice(change.result)
        and at <= incident.opened_at + CLOCK_SKEW
        and (after is None or at >= after - CLOCK_SKEW)
    )


def latest(known: Cause | None, reported: Cause | None) -> Cause | None:
    """Return the later of two changes; of two in the same second, the one reported last."""
    if known is None or reported is None:
        return reported or known
    return reported if reported.at >= known.at else known
