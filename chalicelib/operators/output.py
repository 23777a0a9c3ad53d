"""Output to stdout: a table, one JSON or YAML document, or JSON Lines."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import click
from msgspec.structs import replace

from chalicelib.operators.formatting import clean
from chalicelib.operators.layout import BETWEEN, Fitted, Table, fit

STYLES: dict[str, dict[str, Any]] = {
    "COMPLIANT": {"fg": "green"},
    "REMEDIATED": {"fg": "green"},
    "good": {"fg": "green"},
    "FAILED": {"fg": "red", "bold": True},
    "bad": {"fg": "red", "bold": True},
    "OBSERVED": {"fg": "yellow"},
    "SUPPRESSED": {"fg": "magenta"},
    "DEFERRED": {"fg": "yellow"},
    "REMEDIATING": {"fg": "cyan"},
    "APPLIED": {"fg": "cyan"},
    "unknown": {"fg": "yellow"},
    "IGNORED": {"dim": True},
}
"""Colour only repeats what the word says."""

USUAL_WIDTH = 80

STATUS = re.compile(r"[ ,(]")
"""What follows the word that says how a target, an incident or a check is."""


def emit(output: str, document: dict[str, Any], items: str | None, table: Callable[[], None]) -> None:
    """Print the result in the chosen format. `items` names the list that becomes JSON Lines."""
    if output == "json":
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    elif output == "yaml":
        import yaml

        plain = json.loads(json.dumps(document))  # YAML takes exact types only, not codes
        click.echo(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120), nl=False)
    elif output == "jsonl":
        emit_lines(document[items] if items else [document])
    else:
        table()


def emit_lines(items: Iterable[dict[str, Any]]) -> None:
    """Print one JSON object per line."""
    for item in items:
        click.echo(json.dumps(item, ensure_ascii=False))


def emit_stream(output: str, items: Iterable[dict[str, Any]]) -> None:
    """Print items as they arrive: one YAML document each, or one JSON object per line."""
    if output == "yaml":
        for item in items:
            click.echo("---")
            emit(output, item, None, lambda: None)
    else:
        emit_lines(items)


def is_coloured() -> bool:
    """Whether stdout is a terminal that supports colour."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width_of(output: str) -> int | None:
    """The width that tables must fit: COLUMNS, or that of the terminal. None with `-o wide` and in a pipe."""
    columns = os.environ.get("COLUMNS", "")
    if output == "wide":
        return None
    if columns.isdigit() and int(columns):
        return int(columns)
    # A terminal that does not know its width says 0.
    return (os.get_terminal_size(sys.stdout.fileno()).columns or USUAL_WIDTH) if sys.stdout.isatty() else None


def print_table(output: str, table: Table) -> None:
    """Print the table to stdout, as wide as `output` and the terminal allow; if empty, its message to stderr."""
    if not table.rows:
        click.echo(table.empty, err=True)
        return
    fitted = fit(replace(table, rows=[[clean(cell) for cell in row] for row in table.rows]), width_of(output))
    print_rows(fitted, True)
    if fitted.left_out:
        say(f"Too narrow for: {', '.join(fitted.left_out)}. To see every column, add -o wide.")


def print_rows(fitted: Fitted, header: bool, *, colour: bool | None = None) -> None:
    """Print rows in aligned columns; in colour on a terminal, or as `colour` says."""
    colour = is_coloured() if colour is None else colour
    if header:
        line = BETWEEN.join(fitted.header).rstrip()
        click.echo(click.style(line, bold=True) if colour else line)
    for row in fitted.rows:
        styles = [STYLES.get(STATUS.split(cell[0])[0], {}) if colour else {} for cell in row]
        for cells in fitted.lines(row):
            styled = [click.style(cell, **style) if style else cell for cell, style in zip(cells, styles, strict=True)]
            click.echo(BETWEEN.join(styled).rstrip())


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
