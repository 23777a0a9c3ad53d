"""When to come again: the pauses between attempts, and how long reads may be stale."""

from __future__ import annotations

from datetime import datetime, timedelta

from chalicelib.domain.stored import Backoff

STALE_READS = timedelta(seconds=250)
"""KMS may answer as of four minutes ago; only after this does not finding something mean that it is not there."""

QUIET = timedelta(hours=1)
"""A fight is forgotten by one step for each quiet hour, so that pausing gains an adversary little."""

FREE_ATTEMPTS = 2
FIRST_DELAY_SECONDS = 60
FIRST_RETRY_SECONDS = 15


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


def later(one: datetime | None, other: datetime) -> datetime:
    """The later of two times, where the first may be missing."""
    return max(one, other) if one else other
