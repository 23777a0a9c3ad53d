"""Parse the times and durations that operators write."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
DURATION = re.compile(r"([0-9]{1,6})([smhdw])")


def parse_duration(text: str) -> timedelta:
    """Parse `30m`, `2h` or `1d`. Raises ValueError for other text, OverflowError beyond what a timedelta can hold."""
    found = DURATION.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not a duration")
    return timedelta(seconds=int(found[1]) * UNITS[found[2]])


def parse_time(text: str, now: datetime) -> datetime:
    """Parse `24h` as 24 hours before now, or an RFC 3339 time or date (UTC without a zone). Raises ValueError."""
    try:
        if DURATION.fullmatch(text):
            return now - parse_duration(text)
        read = datetime.fromisoformat(text)
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is not in the calendar") from error
