"""Read one field of an event: its value if it has the right shape, else nothing. Never raises."""

from __future__ import annotations

import re
from datetime import UTC, datetime

# The longest text kept of a field that several readers share, in characters, including an ellipsis.
KEY_CHARS = 2048
NAME_CHARS = 128

_TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ](?P<clock>[0-9]{2}:[0-9]{2}):(?P<second>[0-9]{2})"
    r"(?:\.(?P<fraction>[0-9]{1,9}))?(?P<zone>[Zz]|[+-][0-9]{2}:?[0-9]{2})?"
)


def as_object(value: object) -> dict[str, object]:
    """Return the object; an empty one for any other value."""
    return value if isinstance(value, dict) else {}


def as_list(value: object, limit: int) -> list[object]:
    """Return the list's first `limit` items; an empty list for any other value."""
    return value[:limit] if isinstance(value, list) else []


def as_text(value: object, limit: int) -> str | None:
    """Return the text cut to `limit`, with U+FFFD for unprintable characters; None for "" or another type."""
    if not isinstance(value, str) or not value:
        return None
    cut = value if len(value) <= limit else value[: limit - 1] + "…"
    return cut if cut.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in cut)


def as_time(value: object) -> datetime | None:
    """Read an RFC 3339 time as UTC. A time without a zone is taken as UTC, as in CloudTrail. None if unreadable."""
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return None
    second = "59" if found["second"] == "60" else found["second"]  # a leap second, which Python does not support
    zone = found["zone"] or "Z"
    try:
        moment = datetime.fromisoformat(f"{found['date']}T{found['clock']}:{second}{zone.upper()}")
        fraction = (found["fraction"] or "")[:6].ljust(6, "0")
        return moment.replace(microsecond=int(fraction)).astimezone(UTC)
    except (ValueError, OverflowError):  # no such day, or the zone moves it out of the years 1 to 9999
        return None
