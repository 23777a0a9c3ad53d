"""Verify one chain: its rows, its head and its anchors.

Anyone who can write to the table can forge a chain that is consistent in itself. The evidence against a forgery is,
from weak to strong: the neighbours of the changed record, the head, and the anchors. A finding names the record that
the evidence points to, and the evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec
from msgspec import Struct

from chalicelib.auditlog.anchors import Anchored
from chalicelib.auditlog.hashchain import RECORD_SORT_KEY, StoredRow, digest, sort_key, time_index
from chalicelib.domain.stored import ZERO_HASH


class Finding(Struct, frozen=True):
    """One sign of tampering. `code` is stable; `seq` is the record that it points to (0: a row without a position)."""

    target: str
    seq: int
    code: str
    message: str


def verify_chain(
    target: str,
    rows: Iterable[StoredRow],
    head: tuple[int, str] | None,
    anchors: Iterable[Anchored] = (),
) -> list[Finding]:
    """Findings about a target's chain that the guard's own writes cannot explain, in order. Empty if it is whole.

    `rows` are in the order of their sort keys, as a query returns them. `head` is (seq, hash) from the target's state,
    or None without a state. Read the head before the rows. If a record was appended meanwhile (`UNKNOWN_TO_HEAD`), read
    both again.

    BAD_KEY           the key of a row is not the key of a record
    FOREIGN           a row or a record belongs to another target
    UNREADABLE        a body is not a record
    EDITED            a body does not have the stored hash
    INDEX_EDITED      the attributes of a row contradict its body
    MOVED             a record has the key of another record
    DUPLICATE         there is a second row for the same record
    OUT_OF_ORDER      a row comes after a later one
    MISSING           records between others are missing
    BROKEN_LINK       a record does not match its neighbours: it was rewritten together with its hash
    TRUNCATED         according to the head or an anchor, records after the last one are missing
    UNKNOWN_TO_HEAD   there are records after the head
    HEAD_MISSING      there are records, but no state with a head
    HEAD_MISMATCH     the head has another hash
    ANCHOR_MISMATCH   an anchor has another hash: the chain up to this record is not the one that was anchored

    Keeps one small object per record in memory, not the bodies.
    """
    findings = _Findings(target)
    anchors = tuple(anchors)
    links = _read_rows(target, rows, findings)
    _check_gaps(links, findings)
    _check_links(links, head, anchors, findings)
    _check_head(links, head, findings)
    _check_anchors(links, anchors, findings)
    return findings.in_order()


class _Body(msgspec.Struct):
    """The fields that link records. Not `Record`: a record of a newer guard must verify, too."""

    target: str
    seq: int
    at: datetime
    prev_hash: str


class _Link(Struct):
    """The fields of a row that link it to its neighbours. `suspect`: the row by itself is known to be wrong."""

    seq: int
    digest: str
    stored: str
    prev: str | None
    suspect: bool

    def is_hash(self, claimed: str) -> bool:
        """Whether `claimed` can be the hash of this record.

        A row whose body and hash disagree has a finding of its own. The row does not show which of the two is original,
        so both count here; otherwise one edit would have three findings.
        """
        return claimed == self.digest or (self.suspect and claimed == self.stored)


class _Findings:
    """Findings about one chain, one for each record and code, in the order of the chain."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._found: dict[tuple[int, str], Finding] = {}

    def add(self, seq: int, code: str, message: str) -> None:
        self._found.setdefault((seq, code), Finding(self._target, seq, code, message))

    def in_order(self) -> list[Finding]:
        return sorted(self._found.values(), key=lambda finding: finding.seq)


def _read_rows(target: str, rows: Iterable[StoredRow], findings: _Findings) -> dict[int, _Link]:
    links: dict[int, _Link] = {}
    latest = 0
    for row in rows:
        key = RECORD_SORT_KEY.fullmatch(row.sk)
        seq = int(key[1]) if key else 0
        if seq < 1 or row.sk != sort_key(seq):
            findings.add(0, "BAD_KEY", f"the key {row.sk[:40]!r} is not the key of a record")
            continue
        if row.target != target:
            findings.add(seq, "FOREIGN", f"the row belongs to the chain {row.target[:80]!r}")
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
        findings.add(seq, "FOREIGN", f"the record belongs to the target {body.target[:80]!r}")
    if body.seq != seq:
        link.suspect = True
        findings.add(seq, "MOVED", f"according to its content, this is record {body.seq}")
    wrong = _wrong_attributes(raw, body, row.index)
    if wrong:
        findings.add(seq, "INDEX_EDITED", f"attributes of the row contradict the record: {', '.join(wrong)}")
    return link


def _wrong_attributes(raw: Mapping[str, object], body: _Body, index: Mapping[str, object]) -> list[str]:
    """The attributes that are missing or contradict the body. An attribute outside the index must equal its field."""
    try:
        expected: dict[str, object] = dict(time_index(body.target, body.seq, body.at))
    except (OverflowError, ValueError):  # the time has no UTC form, so it has no index
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
            findings.add(expected, "MISSING", f"{_range(expected, seq - 1)} missing")
        expected = seq + 1


def _range(first: int, last: int) -> str:
    return f"record {first} is" if first == last else f"records {first} to {last} are"


def _check_links(
    links: Mapping[int, _Link],
    head: tuple[int, str] | None,
    anchors: tuple[Anchored, ...],
    findings: _Findings,
) -> None:
    """Each record must have the hash of the previous one.

    If two neighbours disagree, one of them was rewritten. The finding names the earlier one if the later one's hash is
    confirmed (by its successor, the head or an anchor), or if the earlier one by itself is known to be wrong. Otherwise
    it names the later one.
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
                findings.add(1, "BROKEN_LINK", "the first record has the hash of a previous one")
            continue
        before = links.get(seq - 1)
        if before is None or before.is_hash(link.prev):
            continue
        if not link.suspect and (before.suspect or link.digest in witnesses.get(seq, ())):
            findings.add(seq - 1, "BROKEN_LINK", f"record {seq} has another hash for this record")
        else:
            findings.add(seq, "BROKEN_LINK", f"this record has another hash for record {seq - 1}")


def _check_head(links: Mapping[int, _Link], head: tuple[int, str] | None, findings: _Findings) -> None:
    last = max(links, default=0)
    if head is None:
        if links:
            findings.add(
                last, "HEAD_MISSING", f"there are {len(links)} records, but the target has no state with a head"
            )
        return
    seq, claimed = head
    if seq > last:
        findings.add(last + 1, "TRUNCATED", f"{_range(last + 1, seq)} missing, according to the target's head")
    elif seq < last:
        findings.add(
            seq + 1, "UNKNOWN_TO_HEAD", f"{_range(seq + 1, last)} after the target's head, which is at record {seq}"
        )
    if seq in links and not links[seq].is_hash(claimed):
        findings.add(seq, "HEAD_MISMATCH", f"the target's head has the hash {claimed[:12]}… for this record")
    elif seq == 0 and claimed != ZERO_HASH:
        findings.add(0, "HEAD_MISMATCH", "the target's head has a hash, but no record")


def _check_anchors(links: Mapping[int, _Link], anchors: tuple[Anchored, ...], findings: _Findings) -> None:
    last = max(links, default=0)
    good = 0
    for anchor in sorted(anchors, key=lambda each: each.seq):
        if anchor.seq > last:
            missing = _range(last + 1, anchor.seq)
            findings.add(last + 1, "TRUNCATED", f"{missing} missing, according to {anchor.anchored_by[:200]}")
        elif anchor.seq in links:
            if links[anchor.seq].is_hash(anchor.hash):
                good = anchor.seq
            else:
                findings.add(
                    anchor.seq,
                    "ANCHOR_MISMATCH",
                    f"{anchor.anchored_by[:200]} has the hash {anchor.hash[:12]}… for this record: at least one "
                    f"of the records {good + 1} to {anchor.seq} was rewritten",
                )
