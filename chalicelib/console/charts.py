"""The two charts over time, as shapes in a box of 100 by 100 that the page stretches to its width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from chalicelib.auditlog.summary import Day

SCALES = {
    "minute": (60.0, ("second", "ten", "minute")),
    "hour": (3600.0, ("second", "minute", "hour")),
    "day": (86400.0, ("second", "minute", "hour", "day")),
    "week": (7 * 86400.0, ("second", "minute", "hour", "day")),
}
"""The logarithmic scales of the exposure: the seconds at the top (the bottom is one second), and the lines."""

MARKS = {"second": (1.0, "1 s"), "ten": (10.0, "10 s"), "minute": (60.0, "1 min"), "hour": (3600.0, "1 h")}
MARKS["day"] = (86400.0, "1 d")
GAP = 0.25


@dataclass(frozen=True, slots=True)
class Bar:
    """One shape: its position from the upper left corner, its size, its day and its value."""

    x: float
    y: float
    width: float
    height: float
    day: date
    value: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Shapes and the heights of the lines; `top` is the value at the upper edge.

    A logarithmic chart also has the name of its scale, and a name and text for each line.
    """

    bars: tuple[Bar, ...]
    lines: tuple[float, ...]
    top: float
    scale: str = ""
    marks: tuple[tuple[str, str], ...] = ()


def incidents(days: Sequence[Day]) -> Chart:
    """Incidents opened: one bar per day, from zero."""
    top = _round_up(max((day.opened for day in days), default=0))
    bars = tuple(
        Bar(x, round(100 - 100 * day.opened / top, 2), width, round(100 * day.opened / top, 2), day.day, day.opened)
        for (x, width), day in zip(_columns(len(days)), days, strict=True)
        if day.opened
    )
    return Chart(bars, (0.0, 50.0, 100.0), top)


def exposures(days: Sequence[Day]) -> Chart:
    """The median exposure of the incidents closed on a day: one mark per day, on a logarithmic scale."""
    longest = max((day.exposure_p50 or 0.0 for day in days), default=0.0)
    scale = next((name for name, (top, _) in SCALES.items() if longest <= top), "week")
    top, marks = SCALES[scale]
    bars = tuple(
        Bar(x, round(max(0.0, 100 - height(day.exposure_p50, top) - 2), 2), width, 4, day.day, day.exposure_p50)
        for (x, width), day in zip(_columns(len(days)), days, strict=True)
        if day.exposure_p50 is not None
    )
    lines = tuple(round(100 - height(MARKS[mark][0], top), 2) for mark in marks)
    return Chart(bars, lines, top, scale, tuple((mark, MARKS[mark][1]) for mark in marks))


def height(seconds: float, top: float) -> float:
    """The height, 0 to 100, of a duration on the logarithmic scale from one second to `top` seconds."""
    return 100 * math.log(min(max(seconds, 1.0), top)) / math.log(top)


def _columns(count: int) -> list[tuple[float, float]]:
    step = 100 / count if count else 0
    return [(round(step * (at + GAP / 2), 3), round(step * (1 - GAP), 3)) for at in range(count)]


def _round_up(value: int) -> int:
    """The next even number that is 2, 4, 6, 8 or 10 times a power of ten: half of it is a whole number too."""
    power = 1
    while power * 10 < value:
        power *= 10
    return next(each * power for each in (2, 4, 6, 8, 10) if each * power >= value)
