"""The list of planted bugs is kept up with the code, or it would prove nothing."""

from __future__ import annotations

from tests.planted.bugs import PROJECT, read_bugs


def test_every_planted_bug_fits_the_code_as_it_stands() -> None:
    assert [problem for bug in read_bugs() if (problem := bug.why_it_does_not_fit(PROJECT))] == []


def test_no_two_planted_bugs_have_one_name() -> None:
    names = [bug.name for bug in read_bugs()]
    assert len(names) == len(set(names))


def test_every_planted_bug_leaves_code_that_can_be_compiled() -> None:
    for bug in read_bugs():
        text = (PROJECT / bug.file).read_text("utf-8")
        if bug.file.endswith(".py"):
            compile(text.replace(bug.before, bug.after), bug.name, "exec")
