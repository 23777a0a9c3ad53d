"""Whether the whole audit log is untampered.

Every chain is checked against its head, against the anchors that the sweeps wrote (in the guard's own chain, and in a
bucket with Object Lock where there is one), and against the event markers. Everything is read once, a chain at a time;
what is kept of a record is its place and its hash.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain as chain_of
from typing import Any, Protocol

import msgspec

from chalicelib.auditlog.anchors import Anchored, anchored_heads
from chalicelib.auditlog.chaincheck import Finding, verify_chain
from chalicelib.auditlog.hashchain import RECORD_SORT_KEY, StoredRow, marker_key, unseal
from chalicelib.domain.model import TriggerKind
from chalicelib.domain.reasons import BREAK_GLASS_NOTES
from chalicelib.domain.stored import GUARD_CHAIN, Record

MOST_READS = 4
"""How often a chain is read again because records were appended in between."""

LATE = frozenset({"UNKNOWN_TO_HEAD", "HEAD_MISSING", "MARKER_MISSING"})
"""What an honest append between two reads looks like, too."""


class Log(Protocol):
    """The reads of the store that this module makes."""

    def heads(self) -> Iterable[tuple[str, int, str]]:
        """(chain, seq, hash) of every chain."""

    def head(self, target: str) -> tuple[int, str] | None:
        """(seq, hash) of one chain's head."""

    def rows(self, target: str) -> Iterable[StoredRow]:
        """Every record of a chain, in order."""

    def markers(self, target: str) -> Iterable[tuple[str, int]]:
        """(sort key, seq) of every event marker of a chain."""

    def row_keys(self) -> Iterable[tuple[str, str]]:
        """(chain, sort key) of everything in the table."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of verifying. The log is whole exactly when there is no finding."""

    chains: int
    records: int
    markers: int
    anchors: int
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """The fields by their names."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        return {"whole": self.whole, **told}


class NoSuchChain(LookupError):
    """Neither a state, nor a row, nor an anchor names the chain: there is nothing to verify."""


def verify(
    store: Log,
    extra_anchors: Iterable[tuple[str, Anchored]] = (),
    on_chain: Callable[[str], None] = lambda name: None,
    only: str | None = None,
    extra_findings: Iterable[Finding] = (),
) -> Report:
    """Hold the log against everything that vouches for it.

    `extra_anchors` are (chain, head) from outside the table, and `extra_findings` what was wrong with those; `on_chain`
    hears of each chain before it is read; `only` verifies one chain. Beside the codes of `chaincheck.verify_chain`:

    UNKNOWN_ROW            a row that is neither a record nor an event's marker
    MARKER_MISSING         a change's record without the marker that keeps the change from being recorded twice
    MARKER_WITHOUT_RECORD  a marker that points at no record
    MARKER_OF_ANOTHER      a marker that points at another event's record

    Raises NoSuchChain where `only` names a chain that nothing knows.
    """
    heads = {target: (seq, head) for target, seq, head in store.heads()}
    present, findings = _present(store)
    findings += extra_findings
    anchors: dict[str, list[Anchored]] = defaultdict(list)
    for target, anchored in chain_of.from_iterable((anchored_heads(_readable(store.rows(GUARD_CHAIN))), extra_anchors)):
        known = anchors[target]
        # Most sweeps find a chain where the last one left it: one witness is enough.
        if not known or (known[-1].seq, known[-1].hash) != (anchored.seq, anchored.hash):
            known.append(anchored)
    names = sorted({*heads, *anchors, *present})
    if only is not None:
        if only not in names:
            raise NoSuchChain(only)
        names = [only]
    records = markers = 0
    for name in names:
        on_chain(name)
        one = _Chain(store, name, heads.get(name))
        findings += one.verify(anchors[name])
        records += one.records
        markers += one.markers
    return Report(
        chains=len(names),
        records=records,
        markers=markers,
        anchors=sum(len(anchors[name]) for name in names),
        findings=tuple(
            sorted(
                (finding for finding in findings if finding.target in names),
                key=lambda finding: (finding.target, finding.seq, finding.code),
            )
        ),
    )


def _present(store: Log) -> tuple[set[str], list[Finding]]:
    """Every chain that has a row, known to a state or not, and the rows that are nothing of ours."""
    present: set[str] = set()
    findings = []
    for target, sort_key in store.row_keys():
        present.add(target)
        if not sort_key.startswith(("r#", "e#")):
            message = f"the row {sort_key[:40]!r} is neither a record nor an event's marker"
            findings.append(Finding(target, 0, "UNKNOWN_ROW", message))
    return present, findings


def _readable(rows: Iterable[StoredRow]) -> Iterator[Record]:
    for row in rows:
        try:
            yield unseal(row.body)
        except ValueError:
            continue  # the chain's own verification names it


class _Trigger(msgspec.Struct):
    kind: str = ""
    event_id: str | None = None


class _Triggered(msgspec.Struct):
    """What the markers need of a record. Not `Record`: a record written by a newer guard must still verify."""

    trigger: _Trigger
    reason: str | None = None
    change: object = None


class _Chain:
    """One chain as it is read: first its head, then the markers, then the rows, which hold what both tell of."""

    def __init__(self, store: Log, name: str, head: tuple[int, str] | None) -> None:
        self._store = store
        self._name = name
        self._head = head
        self._markers_of_records: dict[int, tuple[str | None, bool]] = {}
        self.records = 0
        self.markers = 0

    def verify(self, anchors: list[Anchored]) -> list[Finding]:
        findings: list[Finding] = []
        for _ in range(MOST_READS):
            markers = dict(self._store.markers(self._name))
            self.markers = len(markers)
            findings = verify_chain(self._name, self._rows(), self._head, anchors) + self._hold_against(markers)
            if LATE.isdisjoint(finding.code for finding in findings):
                break
            # Somebody may have appended since the head was read, so read again from there.
            self._head = self._store.head(self._name)
        return findings

    def _rows(self) -> Iterator[StoredRow]:
        """The rows; what the markers need of them is noted on the way."""
        self._markers_of_records, self.records = {}, 0
        for row in self._store.rows(self._name):
            self.records += 1
            marker, is_change = _marker_of(row)
            place = RECORD_SORT_KEY.fullmatch(row.sk)
            if place:
                self._markers_of_records[int(place[1])] = (marker, is_change)
            yield row

    def _hold_against(self, markers: dict[str, int]) -> list[Finding]:
        findings = []
        for marker, seq in markers.items():
            of_record, _ = self._markers_of_records.get(seq, (None, False))
            if seq not in self._markers_of_records:
                findings.append(self._finding(seq, "MARKER_WITHOUT_RECORD", f"{marker} tells of record {seq}"))
            elif of_record != marker:
                findings.append(self._finding(seq, "MARKER_OF_ANOTHER", f"{marker} is not this record's event"))
        told: set[str] = set()
        for seq, (of_record, is_change) in self._markers_of_records.items():
            if is_change and of_record is not None and of_record not in markers and of_record not in told:
                told.add(of_record)
                message = f"{of_record} is not there, which keeps the event from being recorded again"
                findings.append(self._finding(seq, "MARKER_MISSING", message))
        return findings

    def _finding(self, seq: int, code: str, message: str) -> Finding:
        return Finding(self._name, seq, code, message[:400])


def _marker_of(row: StoredRow) -> tuple[str | None, bool]:
    """The sort key of the marker of a record's event, None without one, and whether the marker must be there.

    It must be for changes. What is noted of a break-glass is stored before the event that told of it is audited, and
    where the worker was lost in between, the event may never be.
    """
    try:
        record = msgspec.json.decode(row.body, type=_Triggered)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None, False
    trigger = record.trigger
    marker = marker_key(trigger.event_id) if trigger.event_id is not None else None
    return marker, record.change is not None or (
        trigger.kind == TriggerKind.CHANGE and record.reason not in BREAK_GLASS_NOTES
    )
