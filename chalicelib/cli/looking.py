"""The loop's surroundings for one who only looks: reads go through, writes end here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from chalicelib.domain.model import Target
from chalicelib.domain.ports import Loaded, Reach, Store
from chalicelib.domain.stored import GuardState, Record, TargetState

READS = frozenset({"describe", "policy", "rotation", "tags", "find_by_tag", "get", "in_use"})


class LookingStore:
    """`ports.Store` that stores nothing. Without tables every target is as if seen for the first time."""

    def __init__(self, store: Store | None) -> None:
        self._store = store

    def load(self, target: str, event_id: str | None = None) -> Loaded:
        """As the tables have it."""
        return self._store.load(target, event_id) if self._store else Loaded(TargetState(target), GuardState())

    def commit(
        self,
        before: TargetState | GuardState,
        after: TargetState | GuardState,
        records: Sequence[tuple[Record, bytes, str]] = (),
        event_id: str | None = None,
    ) -> None:
        """What would be written is not."""

    def due(self, now: datetime, limit: int) -> list[str]:
        """As the tables have it."""
        return self._store.due(now, limit) if self._store else []

    def states(self) -> Iterable[TargetState]:
        """As the tables have it."""
        return self._store.states() if self._store else ()

    def heads(self) -> Iterable[tuple[str, int, str]]:
        """As the tables have it."""
        return self._store.heads() if self._store else ()


class _ReadsOnly:
    """An adapter whose mutations cannot be reached. That they are not is what the loop promises; this makes it so."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def __getattr__(self, name: str) -> Any:
        if name not in READS:
            raise AssertionError(f"{name} was asked of one who only looks")
        return getattr(self._adapter, name)


def looking_reach(reach: Callable[[Target], Reach]) -> Callable[[Target], Reach]:
    """The same AWS services, without their mutations."""

    def looking(target: Target) -> Reach:
        real = reach(target)
        xray: Any = _ReadsOnly(real.xray)
        keys: Any = _ReadsOnly(real.keys)
        return replace(real, xray=xray, keys=keys)

    return looking
