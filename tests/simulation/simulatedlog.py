"""The simulated tables as `xray-guard audit verify` reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from chalicelib.auditlog import hashchain
from chalicelib.auditlog.chaincheck import Finding
from chalicelib.auditlog.statecheck import StoredState, verify_state
from chalicelib.auditlog.verify import Report, verify
from chalicelib.domain.times import stamp
from tests.simulation.fakes import Tables


class SimulatedLog:
    """`auditlog.verify.Log` on the simulated tables."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def heads(self) -> Iterator[tuple[str, int, str]]:
        yield from ((name, seq, head) for name, (seq, head) in self._tables.heads.items())

    def stored_state(self, target: str) -> StoredState | None:
        if target not in self._tables.heads:
            return None
        version, text, due = self._tables.states[target]
        return StoredState(target, version, *self._tables.heads[target], stamp(due) if due else None, text.decode())

    def rows(self, target: str) -> Iterator[hashchain.StoredRow]:
        yield from self._tables.rows.get(target, ())

    def markers(self, target: str) -> Iterator[tuple[str, int]]:
        """The fake store's markers have no number: that of the event's record."""
        seqs: dict[str, int] = {}
        for record in self._tables.records(target):
            if record.trigger.event_id is not None and (record.change or record.trigger.event_id not in seqs):
                seqs[record.trigger.event_id] = record.seq
        for name, event_id in sorted(self._tables.markers - self._tables.counted):
            if name == target:
                yield hashchain.marker_key(event_id), seqs.get(event_id, 0)

    def key_rows(self, target: str) -> Iterator[tuple[str, int]]:
        yield from ((row.sk, row.seq) for (name, _), row in self._tables.keys.items() if name == target)

    def row_keys(self) -> Iterator[tuple[str, str]]:
        for name in self._tables.rows:
            yield from ((name, row.sk) for row in self.rows(name))
            yield from ((name, key) for key, _ in (*self.markers(name), *self.key_rows(name)))

    def report(self) -> Report:
        """Verify everything."""
        return verify(self)

    def state_findings(self, target: str) -> list[Finding]:
        """Verify one chain's stored state."""
        kept = {record.seq: record.kept for record in self._tables.records(target)}
        return verify_state(target, self.stored_state(target), kept, dict(self.key_rows(target)))


def edit(tables: Tables, target: str, **fields: object) -> None:
    """Somebody writes the stored state of a target, or of the guard, with these fields; the index follows the state."""
    version, text, _ = tables.states[target]
    tables.states[target] = (version, json.dumps({**json.loads(text), **fields}).encode(), None)
    state = tables.guard() if target == "guard" else tables.state(target)
    tables.states[target] = (version, tables.states[target][1], state.due)
