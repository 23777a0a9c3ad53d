"""The hash chain of the audit log: how a record becomes the bytes that are hashed, and how tampering shows.

A record is stored as the very bytes that were hashed, so that verifying never depends on encoding it the same way
again. Each record carries the hash of the one before it, the first one `ZERO_HASH`; the head of the chain is kept
with the target's state, and anchored from time to time where the log's own writers cannot reach.

Whoever can write the table can always make a chain that is whole in itself. What gives them away is, from weak to
strong: the neighbours of what they changed, the head, and the anchors. So a finding is placed where the evidence
points, and says what the evidence is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct, field

from chalicelib.domain.stored import ZERO_HASH, Record

TIME_SHARDS = 4
LONGEST_EVENT_ID = 256
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


class Anchored(Struct, frozen=True):
    """A head that was written down elsewhere. `anchored_by` says where, for people: a sweep's record, an S3 object."""

    seq: int
    hash: str
    anchored_by: str


class Finding(Struct, frozen=True):
    """One sign of tampering: `code` is stable, `seq` the record it points at (0: a row without a place)."""

    target: str
    seq: int
    code: str
    message: str


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


def anchor_digest(heads: Iterable[tuple[str, int, str]]) -> str:
    """One hash for all heads (target, seq, hash), whatever order they come in: what a sweep writes down."""
    return digest(msgspec.json.encode(sorted(heads)))


class _Body(msgspec.Struct):
    """What the chain needs of a record. Not `Record`: a record written by a newer guard must still verify."""

    target: str
    seq: int
    at: datetime
    prev_hash: str


class _Link(Struct):
    """A row reduced to what ties it to its neighbours. `suspect`: the row is known to be wrong by itself."""

    seq: int
    digest: str
    stored: str
    prev: str | None
    suspect: bool

    def is_hash(self, claimed: str) -> bool:
        """Whether somebody who wrote down this record's hash wrote that.

        A row whose body and hash disagree is reported for that; which of the two is the true one cannot be told from
        the row, so either counts here, lest one edit be reported three times.
        """
        return claimed == self.digest or (self.suspect and claimed == self.stored)


class _Findings:
    """Findings of one chain, one for a record and code, in the order of the chain."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._found: dict[tuple[int, str], Finding] = {}

    def add(self, seq: int, code: str, message: str) -> None:
        self._found.setdefault((seq, code), Finding(self._target, seq, code, message))

    def in_order(self) -> list[Finding]:
        return sorted(self._found.values(), key=lambda finding: finding.seq)


def verify_chain(
    target: str,
    rows: Iterable[StoredRow],
    head: tuple[int, str] | None,
    anchors: Iterable[Anchored] = (),
) -> list[Finding]:
    """Everything about a target's chain that a guard's own writing cannot explain, in order; empty if it is whole.

    `rows` come in the order of their sort key, as a query answers. `head` is (seq, hash) from the target's state,
    None where there is no state. Read the head before the rows, and where a record was appended meanwhile
    (`UNKNOWN_TO_HEAD`), read again.

    BAD_KEY           a row whose key is no record's
    FOREIGN           a row or a record that belongs to another target
    UNREADABLE        a body that is no record
    EDITED            a body that does not have the hash beside it
    INDEX_EDITED      attributes beside the body that do not follow from it
    MOVED             a record under another record's key
    DUPLICATE         a second row for the same record
    OUT_OF_ORDER      a row that comes after a later one
    MISSING           records between others are not there
    BROKEN_LINK       a record that its neighbours do not know: rewritten together with its hash
    TRUNCATED         the head or an anchor tells of records after the last one
    UNKNOWN_TO_HEAD   records after the head
    HEAD_MISSING      records, but no state that knows of them
    HEAD_MISMATCH     the head tells another hash
    ANCHOR_MISMATCH   an anchor tells another hash: the chain up to there is not the one that was anchored

    Takes one small object a record in memory, not the bodies.
    """
    findings = _Findings(target)
    anchors = tuple(anchors)
    links = _read_rows(target, rows, findings)
    _check_gaps(links, findings)
    _check_links(links, head, anchors, findings)
    _check_head(links, head, findings)
    _check_anchors(links, anchors, findings)
    return findings.in_order()


def _read_rows(target: str, rows: Iterable[StoredRow], findings: _Findings) -> dict[int, _Link]:
    links: dict[int, _Link] = {}
    latest = 0
    for row in rows:
        key = RECORD_SORT_KEY.fullmatch(row.sk)
        seq = int(key[1]) if key else 0
        if seq < 1 or row.sk != sort_key(seq):
            findings.add(0, "BAD_KEY", f"the row {row.sk[:40]!r} is not a record's")
            continue
        if row.target != target:
            findings.add(seq, "FOREIGN", f"the row is filed under {row.target[:80]!r}")
            continue
        if seq in links:
            findings.add(seq, "DUPLICATE", "there is more than one row for this record")
            continue
        if seq < latest:
            findings.add(seq, "OUT_OF_ORDER", f"the row comes after record {latest}")
        latest = max(latest, seq)
        links[seq] = _read_row(target, seq, row, findings)
    return links


def _read_row(target: str, seq: int, row: StoredRow, findings: _Findings) -> _Link:
    actual = digest(row.body)
    link = _Link(seq, actual, row.hash, prev=None, suspect=False)
    if actual != row.hash:
        link.suspect = True
        findings.add(seq, "EDITED", f"the record's bytes have the hash {actual[:12]}…, not {row.hash[:12]}… as stored")
    try:
        raw = msgspec.json.decode(row.body)
        body = msgspec.convert(raw, _Body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        link.suspect = True
        findings.add(seq, "UNREADABLE", "the stored bytes are not a record")
        return link
    link.prev = body.prev_hash
    if body.target != target:
        link.suspect = True
        findings.add(seq, "FOREIGN", f"the record is of the target {body.target[:80]!r}")
    if body.seq != seq:
        link.suspect = True
        findings.add(seq, "MOVED", f"the record says that it is number {body.seq}")
    wrong = _wrong_attributes(raw, body, row.index)
    if wrong:
        findings.add(seq, "INDEX_EDITED", f"what stands beside the record does not follow from it: {', '.join(wrong)}")
    return link


def _wrong_attributes(raw: Mapping[str, object], body: _Body, index: Mapping[str, object]) -> list[str]:
    """What is missing beside the body, or not as the body says. Any other name may only repeat the body's field."""
    try:
        expected: dict[str, object] = dict(time_index(body.target, body.seq, body.at))
    except (OverflowError, ValueError):  # a time that has no UTC form: no index can follow from it
        return ["at"]
    names = expected.keys() | index.keys()
    absent, unfounded = object(), object()
    return sorted(
        str(name)[:40] for name in names if index.get(name, absent) != expected.get(name, raw.get(name, unfounded))
    )


def _check_gaps(links: Mapping[int, _Link], findings: _Findings) -> None:
    expected = 1
    for seq in sorted(links):
        if seq > expected:
            findings.add(expected, "MISSING", f"{_range(expected, seq - 1)} not there")
        expected = seq + 1


def _range(first: int, last: int) -> str:
    return f"record {first} is" if first == last else f"records {first} to {last} are"


def _check_links(
    links: Mapping[int, _Link],
    head: tuple[int, str] | None,
    anchors: tuple[Anchored, ...],
    findings: _Findings,
) -> None:
    """Each record must carry the hash of the one before it.

    Where two neighbours disagree one of them was rewritten. The later one is cleared by whoever wrote its hash down
    after it (its successor, the head, an anchor), which leaves the earlier one; so it is, too, where the earlier one is
    known to be wrong by itself. Otherwise the later one is named.
    """
    witnesses: dict[int, set[str]] = {}
    for link in links.values():
        if link.prev is not None:
            witnesses.setdefault(link.seq - 1, set()).add(link.prev)
    for seq, claimed in [head] if head else []:
        witnesses.setdefault(seq, set()).add(claimed)
    for anchor in anchors:
        witnesses.setdefault(anchor.seq, set()).add(anchor.hash)

    for seq, link in links.items():
        if link.prev is None:
            continue
        if seq == 1:
            if link.prev != ZERO_HASH:
                findings.add(1, "BROKEN_LINK", "the first record claims to have one before it")
            continue
        before = links.get(seq - 1)
        if before is None or before.is_hash(link.prev):
            continue
        if not link.suspect and (before.suspect or link.digest in witnesses.get(seq, ())):
            findings.add(seq - 1, "BROKEN_LINK", f"this is not the record that record {seq} was written after")
        else:
            findings.add(seq, "BROKEN_LINK", f"the record does not carry on from record {seq - 1}")


def _check_head(links: Mapping[int, _Link], head: tuple[int, str] | None, findings: _Findings) -> None:
    last = max(links, default=0)
    if head is None:
        if links:
            findings.add(
                last, "HEAD_MISSING", f"there are {len(links)} records, and no state of the target that knows them"
            )
        return
    seq, claimed = head
    if seq > last:
        findings.add(last + 1, "TRUNCATED", f"{_range(last + 1, seq)} not there, by the target's head")
    elif seq < last:
        findings.add(
            seq + 1, "UNKNOWN_TO_HEAD", f"{_range(seq + 1, last)} unknown to the target's head, which is at {seq}"
        )
    if seq in links and not links[seq].is_hash(claimed):
        findings.add(seq, "HEAD_MISMATCH", f"the target's head has the hash {claimed[:12]}… for this record")
    elif seq == 0 and claimed != ZERO_HASH:
        findings.add(0, "HEAD_MISMATCH", "the target's head has a hash, and no record")


def _check_anchors(links: Mapping[int, _Link], anchors: tuple[Anchored, ...], findings: _Findings) -> None:
    last = max(links, default=0)
    good = 0
    for anchor in sorted(anchors, key=lambda each: each.seq):
        if anchor.seq > last:
            findings.add(
                last + 1, "TRUNCATED", f"{_range(last + 1, anchor.seq)} not there, by {anchor.anchored_by[:200]}"
            )
        elif anchor.seq in links:
            if links[anchor.seq].is_hash(anchor.hash):
                good = anchor.seq
            else:
                findings.add(
                    anchor.seq,
                    "ANCHOR_MISMATCH",
                    f"{anchor.anchored_by[:200]} has the hash {anchor.hash[:12]}… for this record: something from "
                    f"record {good + 1} to here was rewritten",
                )
