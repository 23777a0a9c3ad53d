"""Cursors: the place in the log where a page ended, as a text that the caller sends back.

A cursor carries the question's time range and a digest of its other filters, so that it leads on in the same question
only. It holds nothing secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from chalicelib.auditlog.filters import Filter

LONGEST_CURSOR = 4096
CURSOR_VERSION = 1


class BadCursor(ValueError):
    """The cursor is none of ours, or was given for another question."""


@dataclass(frozen=True, slots=True)
class _Cursor:
    version: int
    question: str
    asked: str
    place: str
    since: datetime | None
    until: datetime | None


def write_cursor(question: str, wanted: Filter, place: str | None) -> str | None:
    """Return the cursor that leads on from `place`; None where there is nothing more."""
    if place is None:
        return None
    body = _Cursor(CURSOR_VERSION, question, _asked(wanted), place, wanted.since, wanted.until)
    return base64.urlsafe_b64encode(msgspec.json.encode(body)).decode().rstrip("=")


def read_cursor(cursor: str | None, question: str, wanted: Filter) -> tuple[Filter, str | None]:
    """Return the filter with the time range of the first page, and the place where the last page ended.

    Raises BadCursor.
    """
    if cursor is None:
        return wanted, None
    if len(cursor) > LONGEST_CURSOR:
        raise BadCursor("the cursor is longer than any that was given out")
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        body = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=_Cursor)
    except (ValueError, binascii.Error, RecursionError) as error:
        raise BadCursor("the cursor cannot be read: take it as it was given, or begin without one") from error
    if body.version != CURSOR_VERSION:
        raise BadCursor("the cursor is of another version: begin without one")
    if body.question != question or body.asked != _asked(wanted):
        raise BadCursor("the cursor was given for another question: repeat the filters it came with, or begin without")
    for at in (body.since, body.until):
        if at is not None and at.tzinfo is None:
            raise BadCursor("the cursor cannot be read: a time in it has no zone")
    return replace(wanted, since=body.since, until=body.until), body.place


def _asked(wanted: Filter) -> str:
    """What of a filter must be the same from page to page: all but the time range, which the cursor carries."""
    text = msgspec.json.encode(replace(wanted, since=None, until=None))
    return hashlib.sha256(text).hexdigest()[:16]
