"""Output to stdout: a table, one JSON document, or JSON Lines."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from chalicelib.operators.formatting import clean

KEY_ID = re.compile(r"\b([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
"""Terminals are narrow, so a drawn table shows the first eight characters. Every other format shows the whole id."""

UNBROKEN_CHARS = 26
"""A column with no value longer than a target or a time is not folded if the table fits without that."""

LEAST_CHARS = 8
"""The minimum width of a column, so that a table of seven columns fits a terminal of eighty."""

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
"""Colour only repeats what the word says."""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows of text. `empty` is the message if there are no rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str


def emit(output: str, document: dict[str, Any], items: str | None, table: Callable[[], None]) -> None:
    """Print the result in the chosen format. `items` names the list that becomes JSON Lines."""
    if output == "json":
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    elif output == "jsonl":
        emit_lines(document[items] if items else [document])
    else:
        table()


def emit_lines(items: Iterable[dict[str, Any]]) -> None:
    """Print one JSON object per line."""
    for item in items:
        click.echo(json.dumps(item, ensure_ascii=False))


def is_rich() -> bool:
    """Whether stdout is a terminal that supports colour."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_table(table: Table, *, rich: bool | None = None) -> None:
    """Print the table to stdout, drawn on a terminal and plain elsewhere; if empty, print its message to stderr."""
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
    """Format aligned columns, two spaces apart, without truncation."""
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
    """The columns not to fold: the short ones, as long as the others keep their minimum width."""
    whole = {number for number, chars in enumerate(longest) if chars <= UNBROKEN_CHARS}
    free = width - BETWEEN_CHARS * len(longest)
    while whole:
        folded = sum(min(chars, LEAST_CHARS) for number, chars in enumerate(longest) if number not in whole)
        if sum(longest[number] for number in whole) + folded <= free:
            break
        whole.remove(max(whole, key=lambda number: longest[number]))
    return whole


class Progress:
    """One progress line on stderr if it is a terminal; otherwise nothing."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def __call__(self, text: str) -> None:
        """Replace the line."""
        if self._shown:
            click.echo(f"\r\x1b[2K{clean(text)[:100]}", err=True, nl=False)

    def done(self) -> None:
        """Remove the line."""
        if self._shown:
            click.echo("\r\x1b[2K", err=True, nl=False)


def say(text: str = "") -> None:
    """Print a message to stderr; stdout is for data only."""
    click.echo(text, err=True)
