"""Parse the times that operators write."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from chalicelib.domain.times import DURATION, parse_duration


def parse_time(text: str, now: datetime) -> datetime:
    """Parse `24h` as 24 hours before now, or an RFC 3339 time or date (UTC without a zone). Raises ValueError."""
    try:
        if re.fullmatch(DURATION, text):
            return now - parse_duration(text)
        read = datetime.fromisoformat(text)
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is not in the calendar") from error
