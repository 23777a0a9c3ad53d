"""Fit a table to a width: shorten columns, leave columns out, and wrap text between words. No word is split."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.operators.formatting import NOTHING

BETWEEN = "  "

TOGETHER = "\u00a0"
"""Keeps two words on one line."""

LONGEST_WORD = 24
"""A longer word of a text that wraps, such as the ARN of another account, loses its middle."""

COMFORTABLE = 12
"""A text that wraps gets at least so many columns, if it has them."""

KEY_ID = re.compile(r"\bkey ([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
ACCOUNT = re.compile(r"\b[0-9]{12}(?=/[a-z])")
YEAR = re.compile(r"^[0-9]{4}-(?=[0-9]{2}-[0-9]{2}T)")

Cells = Sequence[str]


def without_account(cells: Cells) -> list[str]:
    """Shorten targets and ids to the Region, if all are of one account: every verb takes them so."""
    accounts = {found[0] for cell in cells if (found := ACCOUNT.match(cell))}
    return [ACCOUNT.sub("", cell, count=1).removeprefix("/") for cell in cells] if len(accounts) == 1 else list(cells)


def without_year(cells: Cells) -> list[str]:
    """Shorten times to month, day and time, if all are of one year."""
    years = {found[0] for cell in cells if (found := YEAR.match(cell))}
    if len(years) != 1:
        return list(cells)
    return [YEAR.sub("", cell).replace("T", " ") if YEAR.match(cell) else cell for cell in cells]


def to_the_minute(cells: Cells) -> list[str]:
    """Shorten times by their seconds, and by their year if all are of one year."""
    return [re.sub(r":[0-9]{2}Z$", "Z", cell) for cell in without_year(cells)]


class Column(Struct, frozen=True):
    """A column: `wraps` if its text may take several lines, `short` is a shorter form of its cells.

    `sample` is a cell of a usual length, for rows that are printed before the next ones are known.
    """

    name: str
    wraps: bool = False
    short: Callable[[Cells], list[str]] | None = None
    sample: str = ""


class Shorten(Struct, frozen=True):
    """Use the short form of a column's cells."""

    column: str


class LeaveOut(Struct, frozen=True):
    """Do not show a column. Where the column `into` has nothing, its cell stands there."""

    column: str
    into: str | None = None


Concession = Shorten | LeaveOut


class Table(Struct, frozen=True):
    """Columns and rows of text. `empty` is the message if there are no rows.

    `concessions` are what to give up on a narrow terminal, one after the other until the table fits.
    """

    columns: Sequence[Column]
    rows: Sequence[Cells]
    empty: str
    concessions: Sequence[Concession] = ()


class Fitted(Struct, frozen=True):
    """A table as it is printed: the columns shown with their widths, each row's cells as lines, what is left out."""

    columns: tuple[Column, ...]
    widths: tuple[int, ...]
    rows: tuple[tuple[tuple[str, ...], ...], ...]
    left_out: tuple[str, ...] = ()

    @property
    def header(self) -> tuple[str, ...]:
        """The columns' names, padded to their widths."""
        return tuple(column.name.upper().ljust(width) for column, width in zip(self.columns, self.widths, strict=True))

    def lines(self, row: tuple[tuple[str, ...], ...]) -> list[tuple[str, ...]]:
        """The lines of a row: its cells, padded to the columns' widths."""
        height = max(len(cell) for cell in row)
        return [
            tuple(
                (cell[number] if number < len(cell) else "").ljust(width)
                for cell, width in zip(row, self.widths, strict=True)
            )
            for number in range(height)
        ]


def fit(table: Table, width: int | None) -> Fitted:
    """Fit a table to `width` columns of a terminal; None shows every cell whole, on one line."""
    cells = {column.name: [row[number] for row in table.rows] for number, column in enumerate(table.columns)}
    shown = list(table.columns)
    if width is None or _total([_whole(column, cells) for column in shown]) <= width:
        return _printed(shown, cells, [_whole(column, cells) for column in shown], ())
    cells = {name: [KEY_ID.sub(f"key{TOGETHER}\\1…", cell) for cell in column] for name, column in cells.items()}
    left_out: list[str] = []
    for concession in table.concessions:
        if _total([_least(column, cells) for column in shown]) <= width:
            break
        column = next(column for column in table.columns if column.name == concession.column)
        if isinstance(concession, LeaveOut):
            shown.remove(column)
            if concession.into is None:
                left_out.append(column.name)
            else:
                both = zip(cells[concession.into], cells[column.name], strict=True)
                cells[concession.into] = [cell if cell != NOTHING else instead for cell, instead in both]
        elif column.short is not None:
            cells[column.name] = column.short(cells[column.name])
    return _printed(shown, cells, _shared(shown, cells, width), left_out)


def _printed(shown: Sequence[Column], cells: dict[str, list[str]], widths: Sequence[int], left_out: Cells) -> Fitted:
    wrapped = [[_wrapped(cell, width) for cell in cells[one.name]] for one, width in zip(shown, widths, strict=True)]
    return Fitted(tuple(shown), tuple(widths), tuple(zip(*wrapped, strict=True)), tuple(left_out))


def _wrapped(cell: str, width: int) -> tuple[str, ...]:
    import textwrap

    if len(cell) <= width:
        return (cell.replace(TOGETHER, " "),)
    words = " ".join(_elided(word, width) for word in cell.split(" "))
    lines = textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False)
    return tuple(line.replace(TOGETHER, " ") for line in lines) or ("",)


def _elided(word: str, width: int) -> str:
    """A word without its middle, if it is too long."""
    if len(word) <= max(width, 1):
        return word
    tail = (width - 1) * 2 // 3
    return f"{word[: width - 1 - tail]}…{word[len(word) - tail :]}"


def _whole(column: Column, cells: dict[str, list[str]]) -> int:
    """The width at which every cell is one line."""
    return max(len(column.name), *(len(cell) for cell in cells[column.name]), 0)


def _least(column: Column, cells: dict[str, list[str]]) -> int:
    """The width below which the column cannot be read."""
    whole = _whole(column, cells)
    if not column.wraps:
        return whole
    longest = max((_shortest(word) for cell in cells[column.name] for word in cell.split(" ")), default=0)
    return max(len(column.name), longest, min(whole, COMFORTABLE))


def _shortest(word: str) -> int:
    """The length of a word of a text that wraps, after it lost its middle; a target or an id keeps it."""
    return len(word) if ACCOUNT.match(word) else min(len(word), LONGEST_WORD)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(BETWEEN) * (len(widths) - 1)


def _shared(columns: Sequence[Column], cells: dict[str, list[str]], width: int) -> list[int]:
    """Share the width: each column its least, and the rest first to those that lack least of their whole.

    If even the least is too much, the widest texts that wrap give way, and long words lose more of their middle.
    """
    widths, whole = [_least(column, cells) for column in columns], [_whole(column, cells) for column in columns]
    for _ in range(width - _total(widths)):
        lacking = [number for number in range(len(columns)) if widths[number] < whole[number]]
        if not lacking:
            break
        widths[min(lacking, key=lambda each: whole[each] - widths[each])] += 1
    while _total(widths) > width:
        number = max(range(len(columns)), key=lambda each: widths[each] if columns[each].wraps else 0)
        if widths[number] <= COMFORTABLE or not columns[number].wraps:
            break
        widths[number] -= 1
    return widths


class Stream:
    """Fit rows that arrive one after the other to the same columns; `table` has none of them yet."""

    def __init__(self, table: Table, width: int | None) -> None:
        self._table = table
        self._width = width
        self._widest: Cells = [column.sample for column in table.columns]
        self._last: tuple[tuple[str, ...], tuple[int, ...]] | None = None

    def fit(self, rows: Sequence[Cells]) -> tuple[Fitted, bool]:
        """Fit the next rows. Also returns whether the header must be printed (again), because the columns changed."""
        self._widest = [max(cells, key=len) for cells in zip(self._widest, *rows, strict=True)]
        fitted = fit(replace(self._table, rows=[*rows, self._widest]), self._width)
        columns = (tuple(column.name for column in fitted.columns), fitted.widths)
        anew, self._last = columns != self._last, columns
        return replace(fitted, rows=fitted.rows[:-1]), anew
