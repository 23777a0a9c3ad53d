"""Times: how far clocks may differ, and durations as text and in seconds."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

CLOCK_SKEW = timedelta(minutes=5)
"""How much the clocks of two sources may differ."""

STAMP = "%Y-%m-%dT%H:%M:%S.%fZ"
"""The form of times in attributes of the tables that are sorted by."""

DURATION = r"[0-9]{1,6}[smhdw]"
"""A duration as operators and queries write it, as a regular expression: `30m`, `2h`, `1d`."""

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(text: str) -> timedelta:
    """Parse `30m`, `2h` or `1d`. Raises ValueError for other text."""
    if not re.fullmatch(DURATION, text):
        raise ValueError(f"{text!r} is not a duration")
    return timedelta(seconds=int(text[:-1]) * UNIT_SECONDS[text[-1]])


def stamp(at: datetime) -> str:
    """Format a time (UTC) so that texts sort like times."""
    return at.strftime(STAMP)


def seconds(span: timedelta) -> float:
    """Return a duration in seconds, rounded to milliseconds, never negative."""
    return max(0.0, round(span.total_seconds(), 3))
