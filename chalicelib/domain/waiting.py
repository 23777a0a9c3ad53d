"""All due times: when a target is checked again, how attempts are spaced, and how long AWS may be slow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from msgspec import Struct

from chalicelib.domain.lanes import OF_STEPS, Lane
from chalicelib.domain.policy import Limits
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.run import At
from chalicelib.domain.stored import Backoff, Incident, Lease, TargetState

STALE_READS = timedelta(seconds=250)
"""KMS reads may be four minutes stale; only after this time does not finding something mean that it does not exist."""

QUIET = timedelta(hours=1)
"""Each quiet hour reduces the backoff by one attempt, so that an adversary gains little by pausing."""

FREE_ATTEMPTS = 2
FIRST_DELAY_SECONDS = 60
FIRST_RETRY_SECONDS = 15

SETTLING_PAUSE = timedelta(seconds=20)
"""How long to wait for a change that AWS accepted and does not show yet: until the next tick."""

LONGEST_SETTLING = timedelta(minutes=15)
"""Three repairs in sequence, each of which KMS may take four minutes to show; or X-Ray's UPDATING, five to six minutes,
twice. A problem that lasts longer does not pass by itself."""

LONGEST_UPDATE = timedelta(minutes=30)
"""After this time, X-Ray's UPDATING counts as a failure."""

DEEP_EVERY = timedelta(hours=24)
"""How often a sweep reads everything about a target whose setting has not changed."""

INTENT_AGE = timedelta(hours=1)
"""An intent is due long before it is this old, so a key created earlier cannot be its key."""

LONGEST_LEASE = timedelta(seconds=960)
"""A function lives for fifteen minutes at most, and its lease ends a minute later."""

LONGEST_BACKOFF = timedelta(minutes=1440)
"""The largest `max_backoff_minutes` that the policy's schema allows."""

LONGEST_INCIDENT = max(LONGEST_LEASE, LONGEST_BACKOFF)
"""An incident is due when its lease ends, when its next attempt is allowed, or sooner."""

LONGEST_INTENT = LONGEST_LEASE + STALE_READS
"""An intent is due `STALE_READS` after its lease."""


class Wait(Struct, frozen=True):
    """When an open incident is due again, and the target's backoffs from then on.

    Due now means: at the next tick. Due None means: at the next sweep.
    """

    due: datetime | None
    backoffs: dict[Lane, Backoff]


def backoff_after_attempt(backoff: Backoff, at: At, limits: Limits) -> Backoff:
    """Return the backoff after another attempt began. The first attempts are free; then pauses double up to the limit.

    The jitter shortens a pause by up to a quarter, so that targets are not retried in lockstep.
    """
    quiet_hours = int((at.now - backoff.last_at) / QUIET) if backoff.last_at else 0
    count = max(0, backoff.count - quiet_hours) + 1
    if count <= FREE_ATTEMPTS:
        return Backoff(count, at.now, None)
    seconds = FIRST_DELAY_SECONDS * 2 ** min(count - FREE_ATTEMPTS - 1, 20)
    return Backoff(count, at.now, at.now + _jittered(seconds, at, limits))


def counted(backoffs: dict[Lane, Backoff], lanes: Iterable[Lane], at: At, limits: Limits) -> dict[Lane, Backoff]:
    """Return the backoffs after another attempt, or failure, in each of the lanes."""
    return backoffs | {lane: backoff_after_attempt(_of(backoffs, lane), at, limits) for lane in lanes}


def after_lost(backoffs: dict[Lane, Backoff], lease: Lease, at: At, limits: Limits) -> dict[Lane, Backoff]:
    """Return the backoffs after a worker was lost: it counts in all lanes, because nobody knows what stopped it.

    Those that its attempt acted for were counted when the attempt began.
    """
    return counted(backoffs, (each for each in OF_STEPS if _of(backoffs, each).last_at != lease.since), at, limits)


def held_lanes(state: TargetState, now: datetime) -> frozenset[Lane]:
    """Return the lanes in which no step may be taken yet. If AWS is only slow to show a change, nobody is fighting."""
    backoffs = ((lane, _of(state.backoffs, lane).until) for lane in OF_STEPS if not is_settling(state, lane, now))
    return frozenset(lane for lane, until in backoffs if until and now < until)


def free_at(state: TargetState, lanes: Iterable[Lane]) -> datetime | None:
    """Return when the first of the held lanes is free again."""
    return min((until for lane in lanes if (until := _of(state.backoffs, lane).until)), default=None)


def retry_after(backoff: Backoff, at: At, limits: Limits) -> datetime:
    """Return when a failed attempt is due again: the more attempts, the longer the pause."""
    seconds = FIRST_RETRY_SECONDS * 2 ** min(max(backoff.count, 1) - 1, 20)
    retry = at.now + _jittered(seconds, at, limits)
    return max(retry, backoff.until) if backoff.until else retry


def after_failure(backoffs: dict[Lane, Backoff], lane: Lane, at: At, limits: Limits) -> Wait:
    """Return the wait after a failure without an attempt; the failure counts as an attempt in its lane."""
    backoffs = counted(backoffs, (lane,), at, limits)
    return Wait(retry_after(backoffs[lane], at, limits), backoffs)


def after_attempt(state: TargetState, lane: Lane, outcome: Outcome, at: At, limits: Limits) -> datetime:
    """Return when an attempt that stopped early in a lane is due again. DEFERRED: AWS is only slow.

    The attempt was counted when it began.
    """
    if outcome is Outcome.DEFERRED:
        return at.now + SETTLING_PAUSE
    return retry_after(_of(state.backoffs, lane), at, limits)


def after_decision(
    state: TargetState,
    outcome: Outcome,
    reason: str | None,
    lane: Lane,
    held_until: datetime | None,
    at: At,
    limits: Limits,
    *,
    tried: bool,
) -> Wait:
    """Return the wait after a decision not to act. `tried`: a failure, in `lane`, is new, or its retry was due.

    An operator may end a pause at any time, so the next tick checks again; the next sweep has a new budget.
    """
    backoffs = state.backoffs
    if outcome is Outcome.FAILED:
        wait = after_failure(backoffs, lane, at, limits) if tried else Wait(incident_due(state) or at.now, backoffs)
        return Wait(sooner(wait.due or at.now, held_until, at.now), wait.backoffs)
    if reason == Reason.SETTLING:
        return Wait(sooner(at.now + SETTLING_PAUSE, held_until, at.now), backoffs)
    if outcome is Outcome.DEFERRED:
        return Wait(held_until or (at.now if reason == Reason.PAUSED else None), backoffs)
    return Wait(at.now if outcome is Outcome.SUPPRESSED else held_until, backoffs)


def incident_due(state: TargetState) -> datetime | None:
    """Return when the open incident is due; None without one."""
    return state.incident.due if state.incident else None


def after_overdue_update(now: datetime) -> datetime:
    """Return when an overdue update is reported again."""
    return now + LONGEST_UPDATE


def is_update_overdue(incident: Incident, now: datetime) -> bool:
    """Whether X-Ray has been UPDATING for too long, and a report of that is due."""
    overdue = incident.applied_at is not None and now - incident.applied_at > LONGEST_UPDATE
    return overdue and incident.due is not None and incident.due <= now


def is_due(state: TargetState, now: datetime) -> bool:
    """Whether a tick must check the target now."""
    return state.due is not None and state.due <= now


def is_deep_check_due(state: TargetState, now: datetime) -> bool:
    """Whether a deep observation is due even if nothing seems to have changed."""
    return state.checked_at is None or now - state.checked_at >= DEEP_EVERY


def recheck_after(recheck_at: datetime | None, now: datetime) -> datetime:
    """Return when KMS certainly shows what was just changed, or what an event just reported."""
    return later(recheck_at, now + STALE_READS)


def lease_end(now: datetime, seconds: int) -> datetime:
    """Return when a lease taken now ends."""
    return now + timedelta(seconds=seconds)


def intent_due(lease: Lease) -> datetime:
    """Return the time after which not finding the lease's key means that none was created."""
    return lease.until + STALE_READS


def is_settling(state: TargetState, lane: Lane, now: datetime) -> bool:
    """Whether the lane need not back off, because what stopped the last attempt passes by itself, still in its time.

    A lane that is fought about backs off nevertheless, unless it is the one that waits. False in a fight: each incident
    may settle for a quarter of an hour, so a rival who ends one in time could begin the next without backoff and
    without an alarm.
    """
    incident = state.incident
    if state.reason != Reason.SETTLING or incident is None or incident.settles_until is None:
        return False
    lately = sum(now - past.closed_at < QUIET for past in state.past)
    free = lane is incident.settles_in or _is_free(state, lane)
    return now < incident.settles_until and free and lately < FREE_ATTEMPTS


def settles_until(incident: Incident, now: datetime) -> datetime:
    """Return until when an incident may be DEFERRED as settling, counted from the first time it was."""
    return incident.settles_until or now + LONGEST_SETTLING


def settles_anew(state: TargetState, held: frozenset[Lane]) -> datetime | None:
    """Return until when the incident settles after an attempt that left out the held lanes.

    What comes next has its time anew, unless the guard fights in another lane, too.
    """
    fights = any(not _is_free(state, lane) for lane in OF_STEPS if lane not in held)
    return state.incident.settles_until if fights and state.incident else None


def sooner(due: datetime, free: datetime | None, now: datetime) -> datetime:
    """Return when to go on: at `due`, or before if another lane is free before that."""
    return min(due, free) if free is not None and free > now else due


def later(one: datetime | None, other: datetime) -> datetime:
    """Return the later of two times; the first may be missing."""
    return max(one, other) if one else other


def _is_free(state: TargetState, lane: Lane) -> bool:
    return _of(state.backoffs, lane).count <= FREE_ATTEMPTS


def _of(backoffs: Mapping[Lane, Backoff], lane: Lane) -> Backoff:
    return backoffs.get(lane, Backoff())


def _jittered(seconds: float, at: At, limits: Limits) -> timedelta:
    return timedelta(seconds=min(seconds, limits.max_backoff_minutes * 60) * (1 - at.jitter / 4))
