"""Codes are listed in one place, each with its meaning, and the page for operators is what that place says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chalicelib.domain.meanings import REASONS
from chalicelib.domain.outcome_meanings import OUTCOMES, VIOLATIONS
from chalicelib.domain.reasons import NOTES, Outcome, Problem, Reason, Violation
from chalicelib.operators.codes import page

PROJECT = Path(__file__).parents[2]
CODE = sorted([*PROJECT.glob("chalicelib/domain/**/*.py"), *PROJECT.glob("chalicelib/loop/*.py")])
CODES_BY_CALL = {"Problem": 0, "PolicyError": 0, "Rejected": 0, "_reject": 1, "_read": 1}
"""The calls that take a code of the guard's own, and at which place."""


@pytest.mark.parametrize(("codes", "meanings"), [(Outcome, OUTCOMES), (Violation, VIOLATIONS), (Reason, REASONS)])
def test_every_code_has_a_label_a_meaning_and_a_remedy_in_whole_sentences(codes: type[StrEnum], meanings: Any) -> None:
    assert list(meanings) == list(codes), f"the meanings must have each {codes.__name__}, in the order of reasons.py"
    assert [
        code
        for code, (label, text, remedy) in meanings.items()
        if not (label and text.endswith(".") and remedy.endswith("."))
    ] == []


def test_the_page_of_codes_is_what_the_code_says() -> None:
    written = (PROJECT / "docs" / "codes.md").read_text("utf-8")
    assert written == page(), "generate it: .venv/bin/python -m chalicelib.operators.codes > docs/codes.md"


def literal_codes(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        given = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
        place = CODES_BY_CALL.get(node.func.id) if isinstance(node.func, ast.Name) else None
        given += node.args[place : place + 1] if place is not None else []
        for each in given:
            for part in ast.walk(each):
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.isupper():
                    yield f"{path.name}:{part.lineno}: {part.value}"


def test_no_code_of_the_guards_own_is_written_outside_the_list() -> None:
    assert [found for path in CODE for found in literal_codes(path)] == []


def test_a_reason_is_stored_as_bare_text() -> None:
    assert msgspec.json.encode(Problem(Reason.BUSY, "x")) == b'{"code":"BUSY","message":"x","retryable":true}'
    assert f"{Reason.BUSY}" == "BUSY"


def test_a_reason_read_from_a_table_is_found_among_the_notes() -> None:
    assert "SWEEP" in NOTES
    assert "AccessDeniedException" not in NOTES
    assert None not in NOTES
