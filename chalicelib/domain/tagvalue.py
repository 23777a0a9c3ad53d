"""The grammar of a break-glass tag: `<end> <ticket or reason>`, such as `20261120T180000Z INC-1234`."""

from __future__ import annotations

import re
import string
from datetime import UTC, datetime
from enum import StrEnum

from msgspec import Struct

Tags = tuple[tuple[str, str], ...]

_BASIC = re.compile(r"(\d{4})(\d\d)(\d\d)[Tt](\d\d)(\d\d)(\d\d)([Zz]|)", re.ASCII)
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.\d+)?([Zz]|[+-]\d\d:[0-5]\d|)",
    re.ASCII,
)

_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class Refusal(StrEnum):
    """Why a value, or the key or principal that has it, does not suppress."""

    NO_END = "NO_END"
    NO_ZONE = "NO_ZONE"
    NO_REASON = "NO_REASON"
    PAST = "PAST"
    TAG_UNREADABLE = "TAG_UNREADABLE"
    FOUND_AT_ADOPTION = "FOUND_AT_ADOPTION"
    OPENER_NOT_ALLOWED = "OPENER_NOT_ALLOWED"
    DENY_MISSING = "DENY_MISSING"
    CARRIER_NOT_ALLOWED = "CARRIER_NOT_ALLOWED"
    CARRIER_CANNOT_BE_TAGGED = "CARRIER_CANNOT_BE_TAGGED"
    CARRIER_IN_ANOTHER_ACCOUNT = "CARRIER_IN_ANOTHER_ACCOUNT"
    TOO_MANY = "TOO_MANY"


class Opening(Struct, frozen=True):
    """A well-formed value. `normal` is the spelling by which equal values are recognised."""

    end: datetime
    reason: str
    normal: str


def read_value(value: str) -> Opening | Refusal:
    """Parse a tag's value. The current time does not matter."""
    words = value.split()
    if not words:
        return Refusal.NO_END
    end = _read_end(words[0])
    if isinstance(end, Refusal):
        return end
    if len(words) < 2:
        return Refusal.NO_REASON
    reason = " ".join(words[1:])
    return Opening(end, reason, f"{end:%Y-%m-%dT%H:%M:%SZ} {reason}")


def _read_end(word: str) -> datetime | Refusal:
    basic = _BASIC.fullmatch(word)
    extended = _RFC_3339.fullmatch(word)
    if basic:
        year, month, day, hour, minute, second, zone = basic.groups()
        text = f"{year}-{month}-{day}T{hour}:{minute}:{second}"
    elif extended:
        text, zone = f"{extended[1]}T{extended[2]}", extended[3]
    else:
        return Refusal.NO_END
    try:
        end = datetime.fromisoformat(text + (zone.upper().replace("Z", "+00:00") or "+00:00")).astimezone(UTC)
    except (ValueError, OverflowError):
        return Refusal.NO_END
    return end if zone else Refusal.NO_ZONE


def normal(value: str) -> str:
    """Return the spelling by which equal values are recognised, even of a malformed value."""
    read = read_value(value)
    return read.normal if isinstance(read, Opening) else " ".join(value.split())


def iam_values(tags: Tags, tag_key: str) -> list[str]:
    """Return the tag's values under every spelling of its key: IAM's tag keys are case-insensitive.

    Only ASCII letters are folded. Unicode folding also maps other letters to these (a Kelvin sign to a k), so a tag
    could count that no policy on the key's name denies.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_tags.html
    """
    wanted = tag_key.translate(_ASCII_LOWER)
    return [value for key, value in tags if key.translate(_ASCII_LOWER) == wanted]
