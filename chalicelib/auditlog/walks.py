"""Walks: the rows of the log, newest first, within a budget of items and queries.

For one target, a walk reads its chain. Across targets, it reads the time index and merges its shards month by month,
back to the month before the guard's own first record, which its first run writes.

A position names a row in that order. New records come before it, so that all pages together return every record that
existed at the first page, each once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Protocol

from chalicelib.auditlog.cursors import OTHER_FILTERS, BadCursor
from chalicelib.auditlog.filters import Filter
from chalicelib.auditlog.hashchain import TIME_SHARDS, Slice, StoredRow, month_shards
from chalicelib.domain.stored import GUARD_CHAIN
from chalicelib.domain.times import CLOCK_SKEW

MOST_ITEMS = 1000
LEAST_ITEMS = 12
"""With a smaller budget, a page might not read all shards, and its cursor would be its own start."""

MOST_QUERIES = 200

HORIZON = timedelta(days=400)
"""How far back to read if the guard's own chain has no first record."""

SLACK = 2 * CLOCK_SKEW
"""How far the times in a chain may be out of order."""

RECENT = timedelta(days=62)
"""A shorter range is read without a query for the age of the log."""

MARGIN = timedelta(days=31)
"""How much older than the guard's own first record another record may be."""


class Reads(Protocol):
    """The reads of the store that this module makes."""

    def oldest(self, target: str, limit: int, first: int = 1) -> Slice:
        """Records of a chain in order."""

    def newest(self, target: str, limit: int, before: int | None = None) -> Slice:
        """Records of a chain, newest first."""

    def in_month(self, month_shard: str, after: str, before: str, limit: int) -> Slice:
        """Records of a shard of the time index, newest first."""


class Budget:
    """The items and queries that a page may still read."""

    def __init__(self, items: int, queries: int) -> None:
        if items < LEAST_ITEMS:
            raise ValueError(f"a page must be allowed to read at least {LEAST_ITEMS} items, not {items}")
        self.items = items
        self._queries = queries
        self.items_read = 0

    def allows(self, items: int) -> bool:
        """Whether the page may read so many more items, with one more query."""
        return self.items - self.items_read >= items and self._queries > 0

    def take(self, items: int) -> int:
        """Count one query; return how many of the items it may read."""
        self._queries -= 1
        return max(1, min(items, self.items - self.items_read))

    def count(self, items: int) -> None:
        """Count the items that a query returned."""
        self.items_read += items


class Walk(Protocol):
    """Rows, newest first, each with its position. After the last one, `rest` is where to continue, or None."""

    rest: str | None

    def __iter__(self) -> Iterator[tuple[str, StoredRow]]: ...


def walk_back(store: Reads, wanted: Filter, now: datetime, position: str | None, budget: Budget, limit: int) -> Walk:
    """Walk back from `position`, or from the newest row. Raises BadCursor for a position of the other kind of walk."""
    chunk = max(8, min(limit, 100))
    if wanted.chain is not None:
        return _ChainWalk(store, wanted.chain, wanted, position, budget, chunk)
    return _TimeWalk(store, wanted, now, position, budget, chunk)


class _ChainWalk:
    """Back along one chain. A position is a seq: the records before it are still to come."""

    def __init__(
        self, store: Reads, target: str, wanted: Filter, position: str | None, budget: Budget, chunk: int
    ) -> None:
        self._store = store
        self._target = target
        self._wanted = wanted
        self._budget = budget
        self._chunk = chunk
        self.rest = position
        if position is not None and not position.isdigit():
            raise BadCursor(OTHER_FILTERS)

    def __iter__(self) -> Iterator[tuple[str, StoredRow]]:
        before = int(self.rest) if self.rest is not None else self._first_position()
        while before is None or before > 1:
            if not self._budget.allows(1):
                return
            slice_ = self._store.newest(self._target, self._budget.take(self._chunk), before)
            self._budget.count(len(slice_.rows))
            for row in slice_.rows:
                if self._is_too_old(row):
                    self.rest = None
                    return
                before = _seq_of(row)
                yield str(before), row
                self.rest = str(before)
            if not slice_.more:
                break
            self._chunk = min(self._chunk * 2, 250)
        self.rest = None

    def _is_too_old(self, row: StoredRow) -> bool:
        since, at = self._wanted.since, _at_of(row)
        return since is not None and at is not None and since - at > SLACK

    def _first_position(self) -> int | None:
        """The start: the newest record, or the first one after `until`.

        That is found by binary search, because the times in a chain are nearly in order.
        """
        until = self._wanted.until
        if until is None:
            return None
        newest = self._probe(None)
        low, high = 1, (_seq_of(newest) + 1 if newest else 1)
        # Half of the budget stays for the rows. `high` is a correct start, even if the search ends early.
        while high - low > 1 and self._budget.allows(self._budget.items // 2):
            middle = (low + high) // 2
            row = self._probe(middle + 1)
            at = _at_of(row) if row else None
            if row is None or at is None or at - until < SLACK:
                low = middle
            else:
                high = middle
        return high

    def _probe(self, before: int | None) -> StoredRow | None:
        rows = self._store.newest(self._target, self._budget.take(1), before).rows
        self._budget.count(len(rows))
        return rows[0] if rows else None


class _TimeWalk:
    """Back along the time index, its shards merged. A position is an `at_key`: the rows below it are still to come."""

    def __init__(
        self, store: Reads, wanted: Filter, now: datetime, position: str | None, budget: Budget, chunk: int
    ) -> None:
        self._store = store
        self._budget = budget
        # The first reads of all shards use at most half of the budget: without all shards, nothing can be merged.
        self._chunk = min(max(4, chunk // TIME_SHARDS), max(2, budget.items // (2 * TIME_SHARDS)))
        self._since = wanted.since
        newest = min(wanted.until or now + CLOCK_SKEW, now + CLOCK_SKEW)
        self.rest: str | None = position if position is not None else _stamp(newest)
        self._now = now
        if position is not None and _month_of(position) is None:
            raise BadCursor(OTHER_FILTERS)

    def __iter__(self) -> Iterator[tuple[str, StoredRow]]:
        floor = self._floor()
        month = _month_of(self.rest or "")
        if month is not None and self.rest == _first_of(month):
            month = _month_before(month)
        while month is not None and month >= (floor.year, floor.month):
            for position, row in self._month(month, _stamp(floor)):
                yield position, row
                self.rest = position
            if self.rest is None or self._spent:
                return
            self.rest = _first_of(month)
            month = _month_before(month)
            if not self._budget.allows(1):
                return
        self.rest = None

    _spent = False

    def _month(self, month: tuple[int, int], after: str) -> Iterator[tuple[str, StoredRow]]:
        start = self.rest or ""
        shards = [_Shard(self._store, name, after, start, self._budget, self._chunk) for name in month_shards(*month)]
        while True:
            if not all(shard.fill() for shard in shards):
                self._spent = True
                return
            ahead = [shard for shard in shards if shard.rows]
            if not ahead:
                return
            shard = max(ahead, key=lambda each: _at_key(each.rows[0]))
            row = shard.rows.pop(0)
            yield _at_key(row), row

    def _floor(self) -> datetime:
        """The time to stop at: the start of the filter, or of the log according to the guard's first record."""
        if self._since is not None and self._now - self._since < RECENT:
            return self._since
        rows = self._store.oldest(GUARD_CHAIN, self._budget.take(1)).rows
        self._budget.count(len(rows))
        at = _at_of(rows[0]) if rows else None
        if at is None:
            return self._since or self._now - HORIZON
        beginning = at - MARGIN
        return max(self._since, beginning) if self._since else beginning


class _Shard:
    """One shard of a month, read in chunks that grow."""

    def __init__(self, store: Reads, name: str, after: str, before: str, budget: Budget, chunk: int) -> None:
        self._store = store
        self._name = name
        self._after = after
        self._before = before
        self._budget = budget
        self._chunk = chunk
        self._more = True
        self.rows: list[StoredRow] = []

    def fill(self) -> bool:
        """Read a row if there is one. False if the budget does not allow it."""
        while not self.rows and self._more:
            if not self._budget.allows(2):
                return False
            # The index also returns the row at the position, which was returned before.
            most = max(1, self._budget.take(self._chunk) - 1)
            slice_ = self._store.in_month(self._name, self._after, self._before, most)
            self._budget.count(len(slice_.rows) + 1)
            self._chunk = min(self._chunk * 2, 200)
            self.rows, self._more = slice_.rows, slice_.more
            if self.rows:
                self._before = _at_key(self.rows[-1])
            else:
                self._more = False
        return True


def _at_key(row: StoredRow) -> str:
    return str(row.index.get("at_key", ""))


def _at_of(row: StoredRow) -> datetime | None:
    """The time of the record according to its index attribute, which suffices to find a position."""
    try:
        return datetime.fromisoformat(_at_key(row).partition("#")[0])
    except ValueError:
        return None


def _seq_of(row: StoredRow) -> int:
    return int(row.sk.removeprefix("r#"))


def _stamp(at: datetime) -> str:
    """The prefix of `at_key` for that time: all earlier rows sort before it."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _month_of(position: str) -> tuple[int, int] | None:
    year, month = position[:4], position[5:7]
    known = year.isdigit() and month.isdigit() and position[4:5] == "-" and 1 <= int(month) <= 12 and int(year) >= 1
    return (int(year), int(month)) if known else None


def _first_of(month: tuple[int, int]) -> str:
    return _stamp(datetime(*month, 1, tzinfo=UTC))


def _month_before(month: tuple[int, int]) -> tuple[int, int]:
    year, number = month
    return (year, number - 1) if number > 1 else (year - 1, 12)
