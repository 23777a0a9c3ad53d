"""The stored format of the audit log: the bytes of a record that are hashed, and the keys of its row.

A record is stored as the exact bytes that were hashed, so verification does not depend on encoding it again. Each
record has the hash of the previous one; the first one has `ZERO_HASH`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct, field, structs

from chalicelib.domain.formats import FORMAT, StoredFormat
from chalicelib.domain.stored import Record

LONGEST_EVENT_ID = 256

TIME_SHARDS = 4
"""The number of partitions of one month in the time index. Every stored row depends on it: never change it."""

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
RECORD_SORT_KEY = re.compile(r"r#([0-9]{12,18})", re.ASCII)


class StoredRow(Struct, frozen=True):
    """A row of the audit table. `index` has every attribute but the key, the body and the hash."""

    target: str
    sk: str
    body: bytes
    hash: str
    index: Mapping[str, object] = field(default_factory=dict)


class Slice(Struct, frozen=True):
    """Rows of one query. `more`: there are further rows, even if these are fewer than the limit."""

    rows: list[StoredRow]
    more: bool


def marker_key(event_id: str) -> str:
    """The sort key of an event's marker. An id longer than AWS's ids is replaced by its digest."""
    if len(event_id) > LONGEST_EVENT_ID:
        event_id = "sha256:" + hashlib.sha256(event_id.encode("utf-8", "replace")).hexdigest()
    return f"e#{event_id}"


def canonical_bytes(record: Record) -> bytes:
    """The bytes that are stored and hashed: compact UTF-8 JSON with sorted keys and every field.

    Times are RFC 3339, sets are sorted, NaN and infinity are null. A lone surrogate, which UTF-8 cannot encode, becomes
    U+FFFD, so that no record is lost because of one character.
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
    """Decode a record. Raises ValueError that names the cause if the bytes are not a record.

    A record of a higher format (`is_newer`) is decoded as far as this release can: a field that it cannot read has its
    default.
    """
    try:
        return msgspec.json.decode(body, type=Record)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        try:
            return _known_fields(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ValueError(f"not a record: {error}") from error


def is_newer(body: bytes) -> bool:
    """Whether a newer release stored the record, so that this release may read it in part only."""
    try:
        return msgspec.json.decode(body, type=StoredFormat).format > FORMAT
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def _known_fields(body: bytes) -> Record:
    """Read a record of a higher format without the optional fields that cannot be read. Raises MsgspecError."""
    values = msgspec.json.decode(body, type=dict[str, object])
    if not is_newer(body):
        raise msgspec.ValidationError("the record has a known format")
    for each in structs.fields(Record):
        if not each.required and each.name in values and not _is(values[each.name], each.type):
            del values[each.name]
    return msgspec.convert(values, Record)


def _is(value: object, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def sort_key(seq: int) -> str:
    """The sort key of a record's row, zero-padded: the table's order is the order of the chain."""
    return f"r#{seq:012d}"


def month_shards(year: int, month: int) -> tuple[str, ...]:
    """The partition keys of the time index for a month (UTC)."""
    return tuple(f"{year:04d}-{month:02d}#{shard}" for shard in range(TIME_SHARDS))


def time_index(target: str, seq: int, at: datetime) -> dict[str, str]:
    """The attributes of the time index for a record. They depend only on the record.

    `month_shard` distributes a month's records by target; `at_key` orders them within a shard, in UTC and to the
    microsecond.
    """
    moment = at.astimezone(UTC)
    shard = hashlib.sha256(target.encode("utf-8", "replace")).digest()[0] % TIME_SHARDS
    stamp = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {
        "month_shard": month_shards(moment.year, moment.month)[shard],
        "at_key": f"{stamp}#{target}#{seq:012d}",
    }
