"""A table on a terminal shows every column of every row, however narrow the terminal."""

from __future__ import annotations

import re

import pytest

from chalicelib.cli.history import HISTORY_COLUMNS
from chalicelib.operators.output import Table, print_table

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ROW = [
    "2026-11-21T00:27:26Z",
    "123456789012/us-east-1",
    "REMEDIATED",
    "InvalidRequestException",
    "role/PlatformAdmin (jdoe)",
    "key 224aa1f4-b237-456e-8da1-9b30b8760834 → key 50d25897-e73e-4e70-b10d-c8523df63bfb",
    "1h15m",
]


@pytest.mark.parametrize("width", [80, 100, 120, 160, 240])
def test_who_and_what_are_told_whole_on_a_terminal_of_any_usual_width(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(Table(HISTORY_COLUMNS, [ROW], ""), rich=True)
    lines = [COLOUR.sub("", line) for line in capsys.readouterr().out.splitlines()]
    assert max(len(line) for line in lines) <= width
    answer = columns_of(lines)
    assert answer == [cell.replace(" ", "") for cell in [*ROW[:5], "key 224aa1f4… → key 50d25897…", ROW[6]]]


def columns_of(lines: list[str]) -> list[str]:
    """The text of each column of a table with one row, its folded lines joined and its spaces left out."""
    head = next(number for number, line in enumerate(lines) if line.strip())
    gaps = [match.start() for match in re.finditer(r"\S+", lines[head])]
    assert len(gaps) == len(HISTORY_COLUMNS)
    ends = [*gaps[1:], None]
    return [
        "".join(line[start:end].replace(" ", "") for line in lines[head + 2 :])
        for start, end in zip(gaps, ends, strict=True)
    ]
