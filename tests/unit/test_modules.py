"""A module is short enough to be read in one go."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_LINES = 400


def test_no_module_is_longer_than_it_may_be() -> None:
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in sorted((ROOT / "chalicelib").rglob("*.py"))
    }
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}, "cut these"
