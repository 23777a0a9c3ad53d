"""Times: how far clocks may differ, and spans in seconds."""

from __future__ import annotations

from datetime import timedelta

CLOCK_SKEW = timedelta(minutes=5)
"""How far the clocks of two sources may differ."""


def seconds(span: timedelta) -> float:
    """A span in seconds, to the millisecond, never negative."""
    return max(0.0, round(span.total_seconds(), 3))
