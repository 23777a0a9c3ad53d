"""The times in a query: an RFC 3339 time, a date (its first moment in UTC), or an age such as `24h`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from chalicelib.domain.times import DURATION, parse_duration

DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
DATE_TIME = rf"({DATE})[Tt]([0-9]{{2}}:[0-9]{{2}}):([0-9]{{2}})(\.[0-9]+)?([Zz]|[+-][0-9]{{2}}:[0-9]{{2}})"

FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)
"""The calendar's bounds. A time beyond them counts as the bound."""


class Moment:
    """A time in a query: either a fixed time or an age.

    A plain class, because msgspec decodes dataclasses itself and calls its hook only for types that it does not know.
    """

    __slots__ = ("_given",)

    def __init__(self, given: datetime | timedelta) -> None:
        self._given = given

    @classmethod
    def parse(cls, text: str) -> Moment:
        """Read a time, a date or an age. Raises ValueError."""
        if re.fullmatch(DURATION, text):
            return cls(parse_duration(text))
        if re.fullmatch(DATE, text):
            return cls(datetime.fromisoformat(text).replace(tzinfo=UTC))
        found = re.fullmatch(DATE_TIME, text)
        if not found:
            raise ValueError(f"not a time, a date or an age: {text}")
        day, minute, second, fraction, zone = found.groups()
        # RFC 3339 writes a leap second as :60, which Python's datetime does not have.
        second = "59" if second == "60" else second
        exact = f"{day}T{minute}:{second}{(fraction or '.0')[:7]}"
        local = datetime.fromisoformat(exact + zone.upper().replace("Z", "+00:00"))
        try:
            return cls(local.astimezone(UTC))
        except OverflowError:
            return cls(FIRST if local.year == 1 else LAST)

    def at(self, now: datetime) -> datetime:
        """The time in UTC; an age is subtracted from `now`."""
        if isinstance(self._given, datetime):
            return self._given
        try:
            return now - self._given
        except OverflowError:
            return FIRST

    @staticmethod
    def schema() -> dict[str, Any]:
        """The JSON Schema of the text."""
        return {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "string", "format": "date"},
                {"type": "string", "pattern": f"^{DURATION}$"},
            ]
        }
