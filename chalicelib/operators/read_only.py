"""Read-only versions of the loop's store and adapters: reads pass through, writes are dropped or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from chalicelib.domain.model import Target
from chalicelib.domain.ports import Loaded, Reach, Store
from chalicelib.domain.stored import GuardState, Record, Tally, TargetState

READS = frozenset(
    {"describe", "policy", "rotation", "tags", "find_by_tag", "get", "in_use", "spans_destination", "group", "all"}
)


class ReadOnlyStore:
    """A `ports.Store` that drops writes. Without tables, every target has the state of a first sight."""

    def __init__(self, store: Store | None) -> None:
        self._store = store

    def load(self, target: str, event_id: str | None = None, tally: Tally | None = None) -> Loaded:
        """Read from the tables."""
        if self._store is None:
            return Loaded(TargetState(target), GuardState(), tally=tally)
        return self._store.load(target, event_id, tally)

    def commit(
        self,
        before: TargetState | GuardState,
        after: TargetState | GuardState,
        records: Sequence[tuple[Record, bytes, str]] = (),
        event_id: str | None = None,
        tally: Tally | None = None,
        closes: Tally | None = None,
        used: Sequence[str] = (),
    ) -> None:
        """Drop the write."""

    def count(self, event_id: str, tally: Tally) -> None:
        """Drop the write."""

    def over(self, now: datetime, limit: int) -> Sequence[Tally]:
        """Read from the tables."""
        return self._store.over(now, limit) if self._store else ()

    def forget(self, tally: Tally) -> None:
        """Drop the write."""

    def due(self, now: datetime, limit: int) -> list[str]:
        """Read from the tables."""
        return self._store.due(now, limit) if self._store else []

    def states(self) -> Iterable[TargetState]:
        """Read from the tables."""
        return self._store.states() if self._store else ()

    def heads(self) -> Iterable[tuple[str, int, str]]:
        """Read from the tables."""
        return self._store.heads() if self._store else ()


class _ReadOnly:
    """An adapter that refuses mutations. The loop promises not to send any in a dry run; this enforces it."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def __getattr__(self, name: str) -> Any:
        if name not in READS:
            raise AssertionError(f"a read-only run called {name}")
        return getattr(self._adapter, name)


def read_only_reach(reach: Callable[[Target], Reach]) -> Callable[[Target], Reach]:
    """The same AWS services, without their mutations."""

    def read_only(target: Target) -> Reach:
        real = reach(target)
        xray: Any = _ReadOnly(real.xray)
        keys: Any = _ReadOnly(real.keys)
        logs: Any = _ReadOnly(real.logs)
        links: Any = _ReadOnly(real.links)
        return replace(real, xray=xray, keys=keys, logs=logs, links=links)

    return read_only
