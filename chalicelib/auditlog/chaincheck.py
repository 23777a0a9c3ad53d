"""How tampering with one chain shows: in its rows, its head and its anchors.

Anyone who can write the table can make a chain that is whole in itself. What exposes them is, from weak to strong: the
neighbours of what they changed, the head, and the anchors. So a finding is placed where the evidence points, and says
what the evidence is.
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
    """One sign of tampering: `code` is stable, `seq` the record it points at (0: a row without a place)."""

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
