"""Why the guard does not act on a target now, and until when: one text for every face."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec import Struct

from chalicelib.domain.incidents import fight
from chalicelib.domain.lanes import OF_STEPS
from chalicelib.domain.model import arn_part
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import GuardState, Incident, Phase, Suppression, TargetState
from chalicelib.domain.waiting import held_lanes

SWEEP_EVERY = timedelta(hours=1)


class Waiting(Struct, frozen=True):
    """Why the guard waits, for people, and until when; None if it depends on a person, or on a sweep not known yet.

    Times in the text are UTC, with the day if it is not today.
    """

    text: str
    until: datetime | None = None


def waiting(state: TargetState, guard: GuardState, now: datetime) -> Waiting | None:
    """Return what the target's open incident waits for. None without one, or if the guard only observes it.

    `now` is AWS's time. What keeps the guard from acting longest is named.
    """
    incident = state.incident
    if incident is None:
        return None
    if incident.lease is not None:
        return _leased(incident.lease.until, now)
    if state.reason == Reason.REGION_DENIED:
        return _next_sweep(guard, now, "a service control policy denies the guard this Region")
    if incident.phase is Phase.APPLIED:
        since = f" since {_time(incident.applied_at, now)}" if incident.applied_at else ""
        return Waiting(f"waiting{since} for X-Ray to report ACTIVE, checked every minute", _ahead(incident.due, now))
    if state.outcome is Outcome.SUPPRESSED:
        return _suppressed(state, now)
    if state.outcome is Outcome.OBSERVED:
        return None
    if guard.paused is not None:
        who = f"paused by {_short(guard.paused.by, state)} since {_time(guard.paused.at, now)}"
        return Waiting(f"no attempt until an operator runs `xray-guard resume`: {who}: {guard.paused.reason}")
    return _by_itself(state, incident, guard, now)


def _by_itself(state: TargetState, incident: Incident, guard: GuardState, now: datetime) -> Waiting | None:
    """What the guard waits for without a person."""
    due = incident.due
    match state.reason:
        case Reason.SETTLING:
            over = f"; it counts as failed after {_time(incident.settles_until, now)}" if incident.settles_until else ""
            return Waiting(f"next attempt {_when(due, now)}, AWS has not finished a change{over}", _ahead(due, now))
        case Reason.BLAST_RADIUS:
            return _next_sweep(guard, now, "this sweep reached its remediation limit")
        case Reason.PAUSED:
            return Waiting(f"next check {_when(due, now)}, the pause has ended", _ahead(due, now))
    held = held_lanes(state, now)
    if state.reason == Reason.BACKOFF or (held and state.outcome is Outcome.FAILED):
        return Waiting(f"next attempt {_when(due, now)}, backing off{_against(state, now)}", _ahead(due, now))
    if state.outcome is Outcome.FAILED:
        tries = max((backoff.count for backoff in state.backoffs.values()), default=0)
        after = f" after {_many(tries, 'failed attempt')}" if tries else ""
        return Waiting(f"next attempt {_when(due, now)}, retrying{after}", _ahead(due, now))
    return None


def is_in_force(suppression: Suppression, now: datetime) -> bool:
    """Whether a break-glass suspends remediation now. The guard notes its end within a minute after it."""
    ended = suppression.until is not None and now >= suppression.until
    return suppression.refused is None and suppression.closed is None and not ended


def _leased(until: datetime, now: datetime) -> Waiting:
    if now < until:
        return Waiting(f"an attempt is running; if its worker is lost, the next one is {_when(until, now)}", until)
    return Waiting("next attempt within a minute, the worker of the last one was lost")


def _suppressed(state: TargetState, now: datetime) -> Waiting:
    """By the break-glass that ends last."""
    in_force = [one for one in state.suppressions if is_in_force(one, now)]
    last = max(in_force, key=lambda one: one.until or now, default=None)
    if last is None:
        return Waiting("next check within a minute, the break-glass has ended")
    if last.until is None:
        return Waiting("next check within a minute, a break-glass is in force")
    opened = f" opened by {_short(last.opened_by.arn, state)}" if last.opened_by else ""
    return Waiting(f"no attempt before {_time(last.until, now)}: a break-glass{opened} is in force", last.until)


def _next_sweep(guard: GuardState, now: datetime, why: str) -> Waiting:
    at = guard.swept_at + SWEEP_EVERY if guard.swept_at else None
    about = f", about {_time(at, now)}" if at and at > now else ""
    return Waiting(f"next attempt with the next sweep{about}: {why}", _ahead(at, now))


def _against(state: TargetState, now: datetime) -> str:
    fought = fight(state, held_lanes(state, now) or OF_STEPS)
    against = f" against {', '.join(_short(arn, state) for arn in fought['against'])}" if fought["against"] else ""
    return f" after {_many(fought['attempts'], 'attempt')}{against}" if fought["attempts"] else against


def _short(arn: str, state: TargetState) -> str:
    """An ARN of the target's account without what they have in common: `role/ci-deploy`."""
    return arn_part(arn, 5) if arn_part(arn, 4) == state.target.partition("/")[0] else arn


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _when(at: datetime | None, now: datetime) -> str:
    return "within a minute" if at is None or at <= now else _time(at, now)


def _time(at: datetime | None, now: datetime) -> str:
    if at is None:
        return "an unknown time"
    at = at.astimezone(UTC)
    return f"{at:%H:%M:%S}" if at.date() == now.astimezone(UTC).date() else f"{at:%Y-%m-%d %H:%M:%S}"


def _ahead(at: datetime | None, now: datetime) -> datetime | None:
    return at if at is not None and at > now else None
