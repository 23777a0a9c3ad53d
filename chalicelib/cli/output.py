"""What goes to stdout: a table, a JSON document, or a JSON object a line."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from chalicelib.cli.wording import clean

KEY_ID = re.compile(r"\b([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
"""Drawn as its first eight characters, for a terminal is narrow; the whole stands in every other form of output."""

UNBROKEN_CHARS = 26
"""A column with nothing longer than a target or a time is not folded, where there is room."""

LEAST_CHARS = 8
"""What every column keeps, so that all of a table's seven stand on eighty columns."""

BETWEEN_CHARS = 3

STYLES = {
    "COMPLIANT": "green",
    "REMEDIATED": "green",
    "good": "green",
    "FAILED": "bold red",
    "bad": "bold red",
    "OBSERVED": "yellow",
    "SUPPRESSED": "magenta",
    "DEFERRED": "yellow",
    "REMEDIATING": "cyan",
    "APPLIED": "cyan",
    "unknown": "yellow",
    "IGNORED": "dim",
}
"""Colour is never the only sign: the word is there, too."""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows of text. `empty` is said where there is no row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str


def emit(output: str, told: dict[str, Any], items: str | None, table: Callable[[], None]) -> None:
    """The answer in the form that was asked for. `items` names the list that JSON Lines are made of."""
    if output == "json":
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
    elif output == "jsonl":
        emit_lines(told[items] if items else [told])
    else:
        table()


def emit_lines(items: Iterable[dict[str, Any]]) -> None:
    """One JSON object a line."""
    for item in items:
        click.echo(json.dumps(item, ensure_ascii=False))


def is_rich() -> bool:
    """Whether stdout is a terminal that may be given colour."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_table(table: Table, *, rich: bool | None = None) -> None:
    """The table to stdout, drawn on a terminal and plain elsewhere; its being empty to stderr."""
    if not table.rows:
        click.echo(table.empty, err=True)
        return
    rows = [[clean(cell) for cell in row] for row in table.rows]
    if is_rich() if rich is None else rich:
        _print_rich(table.columns, rows)
    else:
        for line in plain_lines(table.columns, rows):
            click.echo(line)


def plain_lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns, two spaces apart, nothing cut off."""
    every = [[name.upper() for name in columns], *rows]
    widths = [max(len(row[number]) for row in every) for number in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in every]


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    console = Console(file=sys.stdout, force_terminal=True)
    drawn = Drawn(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    shown = [[KEY_ID.sub("\\1…", cell) for cell in row] for row in rows]
    longest = [max(len(name), *(len(row[number]) for row in shown)) for number, name in enumerate(columns)]
    whole = unbroken(longest, console.width)
    for number, name in enumerate(columns):
        least = longest[number] if number in whole else min(longest[number], LEAST_CHARS)
        drawn.add_column(name, overflow="fold", min_width=least, no_wrap=number in whole)
    for row in shown:
        drawn.add_row(*(Text(cell, style=STYLES.get(cell.split(" ")[0], "")) for cell in row))
    console.print(drawn)


def unbroken(longest: Sequence[int], width: int) -> set[int]:
    """The columns that need not be folded: the short ones, as far as the others keep a width that can be read."""
    whole = {number for number, chars in enumerate(longest) if chars <= UNBROKEN_CHARS}
    free = width - BETWEEN_CHARS * len(longest)
    while whole:
        folded = sum(min(chars, LEAST_CHARS) for number, chars in enumerate(longest) if number not in whole)
        if sum(longest[number] for number in whole) + folded <= free:
            break
        whole.remove(max(whole, key=lambda number: longest[number]))
    return whole


class Progress:
    """One line on stderr that is written over, where stderr is a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def __call__(self, text: str) -> None:
        """Show what is being done now."""
        if self._shown:
            click.echo(f"\r\x1b[2K{clean(text)[:100]}", err=True, nl=False)

    def done(self) -> None:
        """Take the line away."""
        if self._shown:
            click.echo("\r\x1b[2K", err=True, nl=False)
