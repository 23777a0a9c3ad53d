"""The stored form of the audit log: how a record becomes the bytes that are hashed, and the keys it is stored under.

A record is stored as the very bytes that were hashed, so that verifying never depends on encoding it the same way
again. Each record carries the hash of the one before it, the first one `ZERO_HASH`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct, field

from chalicelib.domain.stored import Record

LONGEST_EVENT_ID = 256

TIME_SHARDS = 4
"""How many partitions one month of the time index is spread over. It is part of every stored row: never change it."""

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
RECORD_SORT_KEY = re.compile(r"r#([0-9]{12,18})", re.ASCII)


class StoredRow(Struct, frozen=True):
    """A record as the audit table holds it: `index` is every attribute that is not the key, the body or the hash."""

    target: str
    sk: str
    body: bytes
    hash: str
    index: Mapping[str, object] = field(default_factory=dict)


class Slice(Struct, frozen=True):
    """Rows of one query. `more`: there are others beyond, though there may be fewer here than were asked for."""

    rows: list[StoredRow]
    more: bool


def marker_key(event_id: str) -> str:
    """The sort key of an event's marker; an id longer than any of AWS's is replaced by its digest."""
    if len(event_id) > LONGEST_EVENT_ID:
        event_id = "sha256:" + hashlib.sha256(event_id.encode("utf-8", "replace")).hexdigest()
    return f"e#{event_id}"


def canonical_bytes(record: Record) -> bytes:
    """The bytes that are stored and hashed: compact UTF-8 JSON, every object's keys sorted, every field present.

    Times are RFC 3339, sets are sorted, what JSON has no number for is null. A lone surrogate, which UTF-8 cannot
    carry, becomes U+FFFD: no line of the log is lost for a character.
    """
    try:
        return msgspec.json.encode(record, order="sorted")
    except UnicodeEncodeError:
        return msgspec.json.encode(_encodable(msgspec.to_builtins(record)), order="sorted")


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return value


def digest(body: bytes) -> str:
    """The SHA-256 of a record's stored bytes, in lower-case hexadecimal."""
    return hashlib.sha256(body).hexdigest()


def seal(record: Record) -> tuple[bytes, str]:
    """The bytes to store for a record, and their hash: the next record's `prev_hash`."""
    body = canonical_bytes(record)
    return body, digest(body)


def unseal(body: bytes) -> Record:
    """The record that the stored bytes hold. Raises ValueError, saying what does not fit, if they hold none."""
    try:
        return msgspec.json.decode(body, type=Record)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"not a record: {error}") from error


def sort_key(seq: int) -> str:
    """The sort key of a record's row: zero-padded, so that the table's order is the chain's."""
    return f"r#{seq:012d}"


def month_shards(year: int, month: int) -> tuple[str, ...]:
    """Every partition key of the time index that holds records of that month (UTC)."""
    return tuple(f"{year:04d}-{month:02d}#{shard}" for shard in range(TIME_SHARDS))


def time_index(target: str, seq: int, at: datetime) -> dict[str, str]:
    """The attributes of the time index that stand beside a record: a function of the record and nothing else.

    `month_shard` spreads a month's records by target; `at_key` orders them within it, in UTC and to the microsecond.
    """
    moment = at.astimezone(UTC)
    shard = hashlib.sha256(target.encode("utf-8", "replace")).digest()[0] % TIME_SHARDS
    stamp = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {
        "month_shard": month_shards(moment.year, moment.month)[shard],
        "at_key": f"{stamp}#{target}#{seq:012d}",
    }
