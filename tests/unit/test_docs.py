"""The documentation is held to the code: what it names exists, and each promise is named by a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
PROMISES = [f"P{number}" for number in range(1, 18)]


def text_of_tests(folder: str) -> str:
    return "\n".join(path.read_text("utf-8") for path in sorted((ROOT / folder).rglob("test_*.py")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_into_the_project_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("promise", PROMISES)
def test_every_promise_is_told_to_users_and_named_by_a_test_where_the_page_says(promise: str) -> None:
    rows = [line for line in (ROOT / "docs/promises.md").read_text("utf-8").splitlines() if line.startswith("| P")]
    (row,) = [line for line in rows if line.startswith(f"| {promise} |")]
    folders = re.findall(r"`(tests/\w+)`", row)
    assert folders
    for folder in folders:
        assert re.search(rf"\b{promise}\b", text_of_tests(folder)), f"no test in {folder} names {promise}"


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text("utf-8"))))
)
def test_every_make_command_that_the_readme_names_exists(command: str) -> None:
    assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def test_the_numbers_of_decisions_run_without_a_gap() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs/adr").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
