"""An audit log in memory that keeps the store's interface, for what reads the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from chalicelib.auditlog import hashchain
from chalicelib.auditlog.hashchain import Slice, marker_key
from chalicelib.auditlog.statecheck import StoredState
from chalicelib.domain.formats import FIRST_FORMAT
from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.ports import Loaded
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import ZERO_HASH, GuardState, Record, TargetState


class Logbook:
    """Rows by chain and sort key. `items_read` and `queries` count what the paged reads answered with."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], hashchain.StoredRow] = {}
        self.marked: dict[tuple[str, str], int] = {}
        self.ends: dict[str, tuple[int, str]] = {}
        self.present: dict[str, TargetState] = {}
        self.guard = GuardState()
        self.items_read = 0
        self.queries = 0
        self.most_per_query: int | None = None

    def add(
        self, target: str, at: datetime, outcome: Outcome = Outcome.IGNORED, trigger: Trigger | None = None, **more: Any
    ) -> Record:
        """Append a record, and its event's marker if it is a change that is not marked yet."""
        seq, prev = self.ends.get(target, (0, ZERO_HASH))
        trigger = trigger or Trigger(TriggerKind.SWEEP)
        record = Record(f"{target}#{seq + 1}", target, seq + 1, at, outcome, trigger, prev, **more)
        body, digest = hashchain.seal(record)
        index = hashchain.time_index(target, record.seq, at)
        self.put(hashchain.StoredRow(target, hashchain.sort_key(record.seq), body, digest, index))
        self.ends[target] = (record.seq, digest)
        if trigger.kind is TriggerKind.CHANGE and trigger.event_id is not None:
            self.marked.setdefault((target, marker_key(trigger.event_id)), record.seq)
        return record

    def put(self, row: hashchain.StoredRow) -> None:
        """Write a row as it is."""
        self.stored[(row.target, row.sk)] = row

    # --- the store's reads -----------------------------------------------------------------------------------------

    def load(self, target: str) -> Loaded:
        return Loaded(self.present.get(target, TargetState(target)), self.guard)

    def heads(self) -> Iterator[tuple[str, int, str]]:
        yield from ((target, seq, head) for target, (seq, head) in list(self.ends.items()))

    def stored_state(self, target: str) -> StoredState | None:
        """The state as a release stored it that did not protect it."""
        if target not in self.ends:
            return None
        seq, head = self.ends[target]
        text = json.dumps({"target": target, "version": seq, "seq": seq, "head": head, "format": FIRST_FORMAT})
        return StoredState(target, seq, seq, head, None, text)

    def key_rows(self, target: str) -> Iterator[tuple[str, int]]:
        yield from ()

    def rows(self, target: str) -> Iterator[hashchain.StoredRow]:
        yield from self._chain(target)

    def markers(self, target: str) -> Iterator[tuple[str, int]]:
        yield from ((key, seq) for (name, key), seq in list(self.marked.items()) if name == target)

    def row_keys(self) -> Iterator[tuple[str, str]]:
        yield from [*self.stored, *self.marked]

    def oldest(self, target: str, limit: int, first: int = 1) -> Slice:
        return self._slice([row for row in self._chain(target) if row.sk >= hashchain.sort_key(first)], limit)

    def newest(self, target: str, limit: int, before: int | None = None) -> Slice:
        found = [row for row in self._chain(target) if before is None or row.sk < hashchain.sort_key(before)]
        return self._slice(found[::-1], limit)

    def in_month(self, month_shard: str, after: str, before: str, limit: int) -> Slice:
        found = [
            row
            for row in self.stored.values()
            if row.index["month_shard"] == month_shard and after <= str(row.index["at_key"]) < before
        ]
        return self._slice(sorted(found, key=lambda row: str(row.index["at_key"]), reverse=True), limit)

    def _chain(self, target: str) -> list[hashchain.StoredRow]:
        return sorted((row for row in self.stored.values() if row.target == target), key=lambda row: row.sk)

    def _slice(self, found: list[hashchain.StoredRow], limit: int) -> Slice:
        most = min(limit, self.most_per_query or limit)
        self.queries += 1
        self.items_read += len(found[:most])
        return Slice(found[:most], more=len(found) > most)
