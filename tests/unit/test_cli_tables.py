"""Tables fit the terminal: no word, id, time or outcome is split, and what is left out is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from chalicelib.operators.layout import (
    BETWEEN,
    Column,
    LeaveOut,
    Shorten,
    Stream,
    Table,
    fit,
    to_the_minute,
    without_account,
    without_year,
)
from chalicelib.operators.output import width_of
from tests.unit.cli_screens import ACCOUNT, FOLDER, VERBS, WIDTHS, every, screen

VERBS_AND_WIDTHS = [(name, width) for name in (*VERBS, "check") for width in WIDTHS]
COLUMNS = (
    Column("time", short=without_year, sample="2026-11-20T18:00:00Z"),
    Column("target", short=without_account),
    Column("who", wraps=True),
    Column("note", wraps=True),
)
ROWS = (
    ("2026-11-21T00:27:26Z", f"{ACCOUNT}/us-east-1", "role/PlatformAdmin (jdoe)", "one two three four five"),
    ("2026-11-21T00:27:27Z", "guard", "-", "-"),
)
TABLE = Table(COLUMNS, ROWS, "nothing", (Shorten("target"), LeaveOut("note"), Shorten("time")))


def printed(table: Table, width: int | None) -> list[str]:
    fitted = fit(table, width)
    rows = [BETWEEN.join(line).rstrip() for row in fitted.rows for line in fitted.lines(row)]
    return [BETWEEN.join(fitted.header).rstrip(), *rows]


@pytest.mark.parametrize(
    ("file", "text"), list(every()), ids=lambda value: value.stem if isinstance(value, Path) else ""
)
def test_a_screen_is_as_it_was_looked_at(file: Path, text: str) -> None:
    assert text == file.read_text("utf-8"), "look at it, then: .venv/bin/python -m tests.unit.cli_screens"


def test_no_file_of_a_screen_is_left_over() -> None:
    assert sorted(FOLDER.iterdir()) == sorted(file for file, _ in every())


@pytest.mark.parametrize(("name", "width"), VERBS_AND_WIDTHS)
def test_a_table_fits_its_terminal_and_splits_no_word(name: str, width: int) -> None:
    narrow = screen(name, width).partition("\n\n")[0]
    whole = set(screen(name, 1000).partition("\n\n")[0].split())
    assert max(map(len, narrow.splitlines())) <= width
    for word in narrow.split():
        # A word is one of the whole table, one that says that it is shortened, or a short form that every verb takes.
        short = {each.removeprefix(f"{ACCOUNT}/") for each in whole} | {
            part for each in whole for part in short_times(each)
        }
        assert word in whole | short or "…" in word, word


def short_times(word: str) -> list[str]:
    """What a whole time is shortened to, in words."""
    return [part for text in (*without_year([word]), *to_the_minute([word])) for part in text.split()]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_ids_of_incidents_and_the_outcomes_are_on_every_screen(width: int) -> None:
    for name in ("status", "history", "incidents"):
        text = screen(name, width)
        for incident in ("ap-southeast-2#1", "us-west-2#5"):
            assert re.search(rf"(^|[ /]){incident}( |$)", text, re.MULTILINE), (name, incident)
        for outcome in ("FAILED", "SUPPRESSED", "DEFERRED"):
            assert outcome in text


def test_what_fits_is_shown_whole_on_one_line() -> None:
    assert printed(TABLE, 200) == printed(TABLE, None)
    assert printed(TABLE, None)[1].split(BETWEEN) == [each.strip() for each in ROWS[0]]


def test_text_is_wrapped_between_words_before_a_column_is_left_out() -> None:
    lines = printed(TABLE, 70)
    assert lines[0].split() == ["TIME", "TARGET", "WHO", "NOTE"]
    assert max(map(len, lines)) <= 70
    assert "us-east-1" in lines[1]
    assert ACCOUNT not in lines[1]


def test_a_column_is_left_out_in_the_order_of_the_concessions_and_named() -> None:
    fitted = fit(TABLE, 55)
    assert (fitted.left_out, [column.name for column in fitted.columns]) == (("note",), ["time", "target", "who"])
    assert printed(TABLE, 50)[1].startswith("11-21 00:27:26Z")


def test_a_column_that_gives_way_to_another_fills_its_gaps() -> None:
    rows = [(f"{ACCOUNT}/us-east-1", f"{ACCOUNT}/us-east-1#7"), (f"{ACCOUNT}/eu-west-1", "-")]
    table = Table((Column("target"), Column("incident")), rows, "", (LeaveOut("target", into="incident"),))
    fitted = fit(table, 30)
    assert [row[0][0] for row in fitted.rows] == [f"{ACCOUNT}/us-east-1#7", f"{ACCOUNT}/eu-west-1"]
    assert fitted.left_out == ()


def test_an_account_or_a_year_is_kept_where_there_are_two() -> None:
    targets = [f"{ACCOUNT}/us-east-1", "444455556666/us-east-1"]
    assert without_account(targets) == targets
    assert without_account([f"{ACCOUNT}/us-east-1#7", "guard", "-"]) == ["us-east-1#7", "guard", "-"]
    times = ["2026-11-21T00:27:26Z", "2025-11-21T00:27:26Z"]
    assert without_year(times) == times
    assert to_the_minute(times[:1]) == ["11-21 00:27Z"]


def test_a_long_word_of_a_text_loses_its_middle_and_says_so() -> None:
    arn = f"arn:aws:iam::444455556666:role/{'x' * 80}/Deployer"
    (line,) = printed(Table((Column("who", wraps=True), Column("when")), [(arn, "now")], ""), 40)[1:]
    assert len(line) <= 40
    assert line.startswith("arn:aws")
    assert line.endswith("/Deployer  now")


def test_rows_that_arrive_later_stand_under_the_same_header() -> None:
    stream = Stream(replace(TABLE, rows=()), 80)
    first, header = stream.fit(ROWS[1:])
    assert header
    second, again = stream.fit(ROWS[1:])
    assert (second.widths, again) == (first.widths, False)
    wider, anew = stream.fit([(*ROWS[0][:2], "role/AVeryLongNameOfARole", "-")])
    assert anew == (wider.widths != first.widths)
    assert len(wider.rows) == 1


def test_the_first_header_comes_before_any_row() -> None:
    empty, header = Stream(replace(TABLE, rows=()), None).fit([])
    assert (header, empty.rows) == (True, ())


def test_a_pipe_and_wide_get_every_column_and_columns_sets_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert width_of("table") is None, "stdout is no terminal here"
    monkeypatch.setenv("COLUMNS", "80")
    assert (width_of("table"), width_of("wide")) == (80, None)
