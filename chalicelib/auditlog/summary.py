"""The figures over the log: sums by day, which each write updates (`daily_totals`).

The cost of a query is days times shards, however large the log is. Counts are exact. Percentiles come from histograms;
their error is less than `daily_totals.RELATIVE_ERROR`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Protocol

import msgspec

from chalicelib.auditlog.daily_totals import ACTORS, FIGURES, PRESENT, RELATIVE_ERROR, seconds_of
from chalicelib.domain.reasons import Outcome

LONGEST_RANGE = timedelta(days=400)
TOP_ACTORS = 10
PERCENTILES = (50, 90, 99)


class Reads(Protocol):
    """The read of the store that this module makes."""

    def sums(self, items: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        """The amounts of each item, summed over its shards. An item without amounts may be missing."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of durations: their number, and percentiles in seconds; None if there are none."""

    count: int
    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day: incidents opened and closed, and the median exposure in seconds of those closed."""

    day: date
    opened: int
    closed: int
    remediated: int
    failed: int
    exposure_p50: float | None


@dataclass(frozen=True, slots=True)
class ActorCount:
    """The number of incidents that an actor caused on these days."""

    actor: str
    incidents: int


@dataclass(frozen=True, slots=True)
class Present:
    """The current state of the targets. `governed`: those that a rule judges; `share`: the compliant part of them."""

    targets: int
    governed: int
    compliant: int
    share: float | None
    by_outcome: dict[str, int]


@dataclass(frozen=True, slots=True)
class Suppressions:
    """The break-glass notes of these days, by kind."""

    opened: int
    refused: int
    ended: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of whole UTC days from `since` to `until`, inclusive. `targets` is the current state."""

    since: date
    until: date
    opened: int
    closed: int
    unexplained: int
    records: dict[str, int]
    exposure: Spread
    time_to_remediate: Spread
    relative_error: float
    top_actors: tuple[ActorCount, ...]
    suppressions: Suppressions
    targets: Present
    days: tuple[Day, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields by their names, times in seconds."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document


def summarize(store: Reads, since: date, until: date) -> Summary:
    """The figures of the UTC days from `since` to `until`, at most the last `LONGEST_RANGE` of them."""
    since = max(since, until - min(LONGEST_RANGE - timedelta(days=1), until - date.min))
    days = [since + timedelta(days=number) for number in range(max(0, (until - since).days + 1))]
    items = [f"{kind}#{day.isoformat()}" for day in days for kind in (FIGURES, ACTORS)]
    sums = store.sums([PRESENT, *items])
    by_day = {day: sums.get(f"{FIGURES}#{day.isoformat()}", {}) for day in days}
    whole = _sum(by_day.values())
    actors = _under("actor:", _sum(sums.get(f"{ACTORS}#{day.isoformat()}", {}) for day in days))
    opened = whole.get("opened", 0)
    suppressions = _under("suppression:", whole)
    return Summary(
        since=since,
        until=until,
        opened=opened,
        closed=whole.get("closed", 0),
        unexplained=max(0, opened - sum(actors.values())),
        records=_under("outcome:", whole),
        exposure=_spread(whole, "exposure:"),
        time_to_remediate=_spread(whole, "remediate:"),
        relative_error=round(RELATIVE_ERROR, 4),
        top_actors=tuple(
            ActorCount(actor, count)
            for actor, count in sorted(actors.items(), key=lambda each: (-each[1], each[0]))[:TOP_ACTORS]
        ),
        suppressions=Suppressions(*(suppressions.get(name, 0) for name in ("opened", "refused", "ended"))),
        targets=_present(sums.get(PRESENT, {})),
        days=tuple(_day(day, amounts) for day, amounts in by_day.items()),
    )


def _day(day: date, amounts: Mapping[str, int]) -> Day:
    return Day(
        day=day,
        opened=amounts.get("opened", 0),
        closed=amounts.get("closed", 0),
        remediated=amounts.get(f"outcome:{Outcome.REMEDIATED}", 0),
        failed=amounts.get(f"outcome:{Outcome.FAILED}", 0),
        exposure_p50=_spread(amounts, "exposure:").p50,
    )


def _present(amounts: Mapping[str, int]) -> Present:
    by_outcome = _under("outcome:", amounts)
    governed = sum(by_outcome.values()) - by_outcome.get(Outcome.IGNORED, 0)
    compliant = amounts.get("compliant", 0)
    share = round(compliant / governed, 4) if governed > 0 else None
    return Present(amounts.get("targets", 0), governed, compliant, share, by_outcome)


def _sum(items: Iterable[Mapping[str, int]]) -> dict[str, int]:
    whole: Counter[str] = Counter()
    for item in items:
        whole.update(item)
    return dict(whole)


def _under(prefix: str, amounts: Mapping[str, int]) -> dict[str, int]:
    found = {name.removeprefix(prefix): amount for name, amount in amounts.items() if name.startswith(prefix)}
    return {name: amount for name, amount in sorted(found.items()) if amount > 0}


def _spread(amounts: Mapping[str, int], prefix: str) -> Spread:
    counts = sorted((int(name), count) for name, count in _under(prefix, amounts).items())
    return Spread(sum(count for _, count in counts), *(_percentile(counts, each) for each in PERCENTILES))


def _percentile(counts: Sequence[tuple[int, int]], percent: int) -> float | None:
    """The duration that `percent` percent do not exceed (nearest rank); None without durations."""
    rank = math.ceil(percent * sum(count for _, count in counts) / 100)
    reached = 0
    for number, count in counts:
        reached += count
        if reached >= rank:
            return round(seconds_of(number), 3)
    return None
