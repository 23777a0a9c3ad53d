"""Walks: rows of the log newest first, within a budget of items and queries.

Of one target the chain itself is read; across targets the time index, its shards merged month by month, back to the
month before the guard's own first record (the first run of all writes one).

A place names a row in that order. New records come before it, so that what was there when the first page was read is
returned once, and nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Protocol

from chalicelib.auditlog.cursors import BadCursor
from chalicelib.auditlog.filters import Filter
from chalicelib.auditlog.hashchain import TIME_SHARDS, Slice, StoredRow, month_shards
from chalicelib.domain.stored import GUARD_CHAIN
from chalicelib.domain.times import CLOCK_SKEW

MOST_ITEMS = 1000
LEAST_ITEMS = 12
"""A page that may read fewer items than this might read none of every shard, and lead back to where it began."""

MOST_QUERIES = 200

HORIZON = timedelta(days=400)
"""How far back is looked where not even the guard's own chain tells when it began."""

SLACK = 2 * CLOCK_SKEW
"""By how much the times within a chain may be out of order."""

RECENT = timedelta(days=62)
"""So little is walked back without asking whether the log is that old."""

MARGIN = timedelta(days=31)
"""How much older than the guard's own first record any record might be."""


class Reads(Protocol):
    """The reads of the store that this module makes."""

    def oldest(self, target: str, limit: int, first: int = 1) -> Slice:
        """Records of a chain in order."""

    def newest(self, target: str, limit: int, before: int | None = None) -> Slice:
        """Records of a chain, newest first."""

    def in_month(self, month_shard: str, after: str, before: str, limit: int) -> Slice:
        """Records of a shard of the time index, newest first."""


class Budget:
    """What a page may still read."""

    def __init__(self, items: int, queries: int) -> None:
        if items < LEAST_ITEMS:
            raise ValueError(f"a page reads {LEAST_ITEMS} items at least, not {items}")
        self.items = items
        self._queries = queries
        self.items_read = 0

    def allows(self, items: int) -> bool:
        """Whether as many items may still be read, and one more query made."""
        return self.items - self.items_read >= items and self._queries > 0

    def take(self, items: int) -> int:
        """One query, for as many of the items as there is budget for."""
        self._queries -= 1
        return max(1, min(items, self.items - self.items_read))

    def count(self, items: int) -> None:
        """What the query answered with."""
        self.items_read += items


class Walk(Protocol):
    """Rows newest first, each with its place. `rest`, when all are read or the budget is spent: where to go on."""

    rest: str | None

    def __iter__(self) -> Iterator[tuple[str, StoredRow]]: ...


def walk_back(store: Reads, wanted: Filter, now: datetime, position: str | None, budget: Budget, limit: int) -> Walk:
    """Walk back from `position`, or else from the newest row. Raises BadCursor for a place of another walk."""
    chunk = max(8, min(limit, 100))
    if wanted.chain is not None:
        return _ChainWalk(store, wanted.chain, wanted, position, budget, chunk)
    return _TimeWalk(store, wanted, now, position, budget, chunk)


class _ChainWalk:
    """Back along one chain. A place is a seq: what is older than that record is still to come."""

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
            raise BadCursor("the cursor was given for another question")

    def __iter__(self) -> Iterator[tuple[str, StoredRow]]:
        before = int(self.rest) if self.rest is not None else self._first_place()
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

    def _first_place(self) -> int | None:
        """Where to begin: at the newest record, or by halving at the first of after `until`; a chain is nearly in
        the order of its times."""
        until = self._wanted.until
        if until is None:
            return None
        newest = self._probe(None)
        low, high = 1, (_seq_of(newest) + 1 if newest else 1)
        # Half of the budget stays for what is looked for; `high` is a place to begin at however far the search came.
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
    """Back along the time index, its shards merged. A place is an `at_key`: what is below it is still to come."""

    def __init__(
        self, store: Reads, wanted: Filter, now: datetime, position: str | None, budget: Budget, chunk: int
    ) -> None:
        self._store = store
        self._budget = budget
        # The first read of every shard takes half of the budget at most: a page that cannot merge them gets nowhere.
        self._chunk = min(max(4, chunk // TIME_SHARDS), max(2, budget.items // (2 * TIME_SHARDS)))
        self._since = wanted.since
        newest = min(wanted.until or now + CLOCK_SKEW, now + CLOCK_SKEW)
        self.rest: str | None = position if position is not None else _stamp(newest)
        self._now = now
        if position is not None and _month_of(position) is None:
            raise BadCursor("the cursor was given for another question")

    def __iter__(self) -> Iterator[tuple[str, StoredRow]]:
        floor = self._floor()
        month = _month_of(self.rest or "")
        if month is not None and self.rest == _first_of(month):
            month = _month_before(month)
        while month is not None and month >= (floor.year, floor.month):
            for place, row in self._month(month, _stamp(floor)):
                yield place, row
                self.rest = place
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
        """A time before which nothing is asked for, or else there is nothing: the guard's first record tells."""
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
    """One shard of a month, read in growing pieces."""

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
        """Have a row at hand if there is one; False where the budget does not allow to look."""
        while not self.rows and self._more:
            if not self._budget.allows(2):
                return False
            # The index answers with the place itself, too, which was told before.
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
    """When the record was written, by the index beside it: good enough for finding a place."""
    try:
        return datetime.fromisoformat(_at_key(row).partition("#")[0])
    except ValueError:
        return None


def _seq_of(row: StoredRow) -> int:
    return int(row.sk.removeprefix("r#"))


def _stamp(at: datetime) -> str:
    """How `at_key` begins for that moment: everything before it is smaller."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _month_of(place: str) -> tuple[int, int] | None:
    year, month = place[:4], place[5:7]
    known = year.isdigit() and month.isdigit() and place[4:5] == "-" and 1 <= int(month) <= 12 and int(year) >= 1
    return (int(year), int(month)) if known else None


def _first_of(month: tuple[int, int]) -> str:
    return _stamp(datetime(*month, 1, tzinfo=UTC))


def _month_before(month: tuple[int, int]) -> tuple[int, int]:
    year, number = month
    return (year, number - 1) if number > 1 else (year - 1, 12)
