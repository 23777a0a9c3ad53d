"""Verify the integrity of the whole audit log.

Every chain is compared with its state, with the anchors that the sweeps stored (in the guard's own chain, and in a
bucket with Object Lock if there is one), with the event markers and with the key rows. Every record is read once, one
chain at a time; only its position and its hashes stay in memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain as chain_of
from typing import Any, Protocol

import msgspec

from chalicelib.auditlog.anchors import Anchored, anchored_heads
from chalicelib.auditlog.chaincheck import Finding, verify_chain
from chalicelib.auditlog.hashchain import RECORD_SORT_KEY, StoredRow, digest, is_newer, marker_key, unseal
from chalicelib.auditlog.keyrows import PREFIX
from chalicelib.auditlog.statecheck import StoredState, verify_state
from chalicelib.domain.model import TriggerKind
from chalicelib.domain.protected import Kept
from chalicelib.domain.reasons import BREAK_GLASS_NOTES
from chalicelib.domain.stored import GUARD_CHAIN, Record

MOST_READS = 4
"""How often a chain is read if records were appended meanwhile."""

LATE = frozenset({"UNKNOWN_TO_HEAD", "HEAD_MISSING", "MARKER_MISSING"})
"""The findings that a regular append between two reads also causes."""


class Log(Protocol):
    """The reads of the store that this module makes."""

    def heads(self) -> Iterable[tuple[str, int, str]]:
        """(chain, seq, hash) of every chain."""

    def stored_state(self, target: str) -> StoredState | None:
        """One chain's state as it is stored, with its head."""

    def rows(self, target: str) -> Iterable[StoredRow]:
        """Every record of a chain, in order."""

    def markers(self, target: str) -> Iterable[tuple[str, int]]:
        """(sort key, seq) of every event marker of a chain."""

    def key_rows(self, target: str) -> Iterable[tuple[str, int]]:
        """(sort key, seq) of every key row of a chain."""

    def row_keys(self) -> Iterable[tuple[str, str]]:
        """(chain, sort key) of every item in the table."""


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a verification. The log is whole exactly if there is no finding.

    `newer` counts the records that a newer release stored: their hashes and links are verified like all others, but
    anchors in them may be in a form that this release cannot read. `uncovered` counts the records that do not cover the
    state: edits of the state before the first record that does are not found. `keys` counts the key rows.
    """

    chains: int
    records: int
    markers: int
    anchors: int
    findings: tuple[Finding, ...]
    newer: int = 0
    uncovered: int = 0
    keys: int = 0

    @property
    def whole(self) -> bool:
        """Whether there is no finding."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """The fields by their names."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return {"whole": self.whole, **document}


class NoSuchChain(LookupError):
    """Neither a state, nor a row, nor an anchor names the chain: there is nothing to verify."""


def verify(
    store: Log,
    extra_anchors: Iterable[tuple[str, Anchored]] = (),
    on_chain: Callable[[str], None] = lambda name: None,
    only: str | None = None,
    extra_findings: Iterable[Finding] = (),
) -> Report:
    """Verify all chains, or with `only` one chain.

    `extra_anchors` are (chain, head) from outside the table, and `extra_findings` are findings about them. `on_chain`
    is called with the name of each chain before it is read. Codes, besides those of `chaincheck.verify_chain` and
    `statecheck.verify_state`:

    UNKNOWN_ROW            a row that is neither a record nor an event's marker nor a key row
    MARKER_MISSING         a change's record without the marker that keeps the change from being recorded twice
    MARKER_WITHOUT_RECORD  a marker that points at no record
    MARKER_OF_ANOTHER      a marker that points at another event's record

    Raises NoSuchChain where `only` names a chain that nothing knows.
    """
    stored = {target for target, _, _ in store.heads()}
    present, findings = _present(store)
    findings += extra_findings
    anchors: dict[str, list[Anchored]] = defaultdict(list)
    for target, anchored in chain_of.from_iterable((anchored_heads(_readable(store.rows(GUARD_CHAIN))), extra_anchors)):
        known = anchors[target]
        # Most sweeps find a chain unchanged since the previous one: one anchor is enough.
        if not known or (known[-1].seq, known[-1].hash) != (anchored.seq, anchored.hash):
            known.append(anchored)
    names = sorted({*stored, *anchors, *present})
    if only is not None:
        if only not in names:
            raise NoSuchChain(only)
        names = [only]
    counts: Counter[str] = Counter()
    for name in names:
        on_chain(name)
        one = _Chain(store, name)
        findings += one.verify(anchors[name])
        counts.update(one.counts)
    return Report(
        chains=len(names),
        records=counts["records"],
        markers=counts["markers"],
        anchors=sum(len(anchors[name]) for name in names),
        findings=tuple(
            sorted(
                (finding for finding in findings if finding.target in names),
                key=lambda finding: (finding.target, finding.seq, finding.code),
            )
        ),
        newer=counts["newer"],
        uncovered=counts["uncovered"],
        keys=counts["keys"],
    )


def _present(store: Log) -> tuple[set[str], list[Finding]]:
    """The chains that have a row, with or without a state, and findings for rows of an unknown kind."""
    present: set[str] = set()
    findings = []
    for target, sort_key in store.row_keys():
        present.add(target)
        if not sort_key.startswith(("r#", "e#", PREFIX)):
            message = f"the row {sort_key[:40]!r} is neither a record nor an event marker nor a key row"
            findings.append(Finding(target, 0, "UNKNOWN_ROW", message))
    return present, findings


def _readable(rows: Iterable[StoredRow]) -> Iterator[Record]:
    for row in rows:
        try:
            yield unseal(row.body)
        except ValueError:
            continue  # the verification of the chain reports it


class _Trigger(msgspec.Struct):
    kind: str = ""
    event_id: str | None = None


class _Triggered(msgspec.Struct):
    """The fields that markers depend on. Not `Record`: a record of a newer guard must verify, too."""

    trigger: _Trigger
    reason: str | None = None
    change: object = None
    kept: Kept | None = None


class _Chain:
    """One chain. The state is read first, then the markers and the key rows, then the rows of records.

    So the rows include every record that the others point to.
    """

    def __init__(self, store: Log, name: str) -> None:
        self._store = store
        self._name = name
        self._markers_of_records: dict[int, tuple[str | None, bool]] = {}
        self._kept: dict[int, Kept | None] = {}
        self.counts: Counter[str] = Counter()

    def verify(self, anchors: list[Anchored]) -> list[Finding]:
        findings: list[Finding] = []
        for _ in range(MOST_READS):
            state = self._store.stored_state(self._name)
            markers = dict(self._store.markers(self._name))
            keys = dict(self._store.key_rows(self._name))
            self.counts = Counter(markers=len(markers), keys=len(keys))
            head = (state.seq, state.head) if state else None
            findings = verify_chain(self._name, self._rows(), head, anchors) + self._compare_markers(markers)
            findings += verify_state(self._name, state, self._kept, keys)
            if LATE.isdisjoint(finding.code for finding in findings):
                break
            # A record may have been appended since the state was read: read the state and the chain again.
        return findings

    def _rows(self) -> Iterator[StoredRow]:
        """The rows. Collects what the comparison with markers, state and key rows needs."""
        self._markers_of_records, self._kept = {}, {}
        for row in self._store.rows(self._name):
            self.counts["records"] += 1
            self.counts["newer"] += is_newer(row.body)
            record = _triggered(row)
            key = RECORD_SORT_KEY.fullmatch(row.sk)
            if key:
                self._markers_of_records[int(key[1])] = _marker_of(record)
            if key:
                sound = record is not None and digest(row.body) == row.hash
                self._kept[int(key[1])] = record.kept if sound and record else None
                self.counts["uncovered"] += sound and self._kept[int(key[1])] is None
            yield row

    def _compare_markers(self, markers: dict[str, int]) -> list[Finding]:
        findings = []
        for marker, seq in markers.items():
            of_record, _ = self._markers_of_records.get(seq, (None, False))
            if seq not in self._markers_of_records:
                message = f"the marker {marker} points to this record, which does not exist"
                findings.append(self._finding(seq, "MARKER_WITHOUT_RECORD", message))
            elif of_record != marker:
                message = f"the marker {marker} points to this record, which is about another event"
                findings.append(self._finding(seq, "MARKER_OF_ANOTHER", message))
        reported: set[str] = set()
        for seq, (of_record, is_change) in self._markers_of_records.items():
            if is_change and of_record is not None and of_record not in markers and of_record not in reported:
                reported.add(of_record)
                message = f"the marker {of_record} is missing; it prevents a second record of the event"
                findings.append(self._finding(seq, "MARKER_MISSING", message))
        return findings

    def _finding(self, seq: int, code: str, message: str) -> Finding:
        return Finding(self._name, seq, code, message[:400])


def _triggered(row: StoredRow) -> _Triggered | None:
    """The fields of a record's row that are verified here; None if its body is not a record."""
    try:
        return msgspec.json.decode(row.body, type=_Triggered)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _marker_of(record: _Triggered | None) -> tuple[str | None, bool]:
    """The sort key of the marker of the record's event, None without an event, and whether the marker must exist.

    It must for changes. A note about a break-glass is stored before its event is audited, and if the worker is lost in
    between, the event may never be.
    """
    if record is None:
        return None, False
    trigger = record.trigger
    marker = marker_key(trigger.event_id) if trigger.event_id is not None else None
    return marker, record.change is not None or (
        trigger.kind == TriggerKind.CHANGE and record.reason not in BREAK_GLASS_NOTES
    )
