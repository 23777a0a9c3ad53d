"""Times: how far clocks may differ, and durations in seconds."""

from __future__ import annotations

from datetime import timedelta

CLOCK_SKEW = timedelta(minutes=5)
"""How much the clocks of two sources may differ."""


def seconds(span: timedelta) -> float:
    """Return a duration in seconds, rounded to milliseconds, never negative."""
    return max(0.0, round(span.total_seconds(), 3))
