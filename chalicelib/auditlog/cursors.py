"""Cursors: the position in the log where a page ended, as a text that the caller sends back for the next page.

A cursor has the time range of the first page and a digest of the other filters, so it is only valid for the same query.
It contains no secrets.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import replace
from datetime import datetime

import msgspec
from msgspec import Struct

from chalicelib.auditlog.filters import Filter

LONGEST_CURSOR = 4096
CURSOR_VERSION = 1
OTHER_FILTERS = "the page token belongs to other filters: repeat the filters of its page, or start without it"


class BadCursor(ValueError):
    """The cursor is not valid, or belongs to another query."""


class _Cursor(Struct, frozen=True, rename={"query": "question", "filter_digest": "asked", "position": "place"}):
    version: int
    query: str
    filter_digest: str
    position: str
    since: datetime | None
    until: datetime | None


def write_cursor(query: str, wanted: Filter, position: str | None) -> str | None:
    """Return the cursor for the page that starts at `position`; None if there is none. `query` names the function."""
    if position is None:
        return None
    body = _Cursor(CURSOR_VERSION, query, _digest(wanted), position, wanted.since, wanted.until)
    return base64.urlsafe_b64encode(msgspec.json.encode(body)).decode().rstrip("=")


def read_cursor(cursor: str | None, query: str, wanted: Filter) -> tuple[Filter, str | None]:
    """Return the filter with the time range of the first page, and the position where the last page ended.

    Raises BadCursor.
    """
    if cursor is None:
        return wanted, None
    if len(cursor) > LONGEST_CURSOR:
        raise BadCursor("the page token is too long: use it exactly as returned, or start without one")
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        body = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=_Cursor)
    except (ValueError, binascii.Error, RecursionError) as error:
        raise BadCursor("the page token is not valid: use it exactly as returned, or start without one") from error
    if body.version != CURSOR_VERSION:
        raise BadCursor("the page token has another version: start without one")
    if body.query != query or body.filter_digest != _digest(wanted):
        raise BadCursor(OTHER_FILTERS)
    for at in (body.since, body.until):
        if at is not None and at.tzinfo is None:
            raise BadCursor("the page token is not valid: a time in it has no zone")
    return replace(wanted, since=body.since, until=body.until), body.position


def _digest(wanted: Filter) -> str:
    """A digest of the filters that must be the same on every page: all but the time range, which the cursor has."""
    text = msgspec.json.encode(replace(wanted, since=None, until=None))
    return hashlib.sha256(text).hexdigest()[:16]
