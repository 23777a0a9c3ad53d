"""`app.py` wires and does nothing else, and hands events on as they came."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import app
from chalicelib import entry


def test_app_knows_chalice_and_the_entry_points_only(project: Path) -> None:
    tree = ast.parse((project / "app.py").read_text("utf-8"))
    named: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            named.add(str(node.module))
    assert named == {"__future__", "typing", "chalice.app", "chalicelib", "chalicelib.api"}


@pytest.mark.parametrize("name", ["on_change", "on_key_change", "tick", "sweep", "event_history"])
@pytest.mark.parametrize(
    "event",
    [{}, {"detail": None}, [], None, "text", 7, {"version": "0", "account": ["x"]}],
    ids=["empty", "no-detail", "list", "null", "text", "number", "wrong-types"],
)
def test_a_malformed_event_reaches_the_entry_point_as_it_came(
    name: str, event: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[object, object]] = []
    context = object()

    def witness(event: object, context: object) -> dict[str, Any]:
        seen.append((event, context))
        return {"called": name}

    monkeypatch.setattr(entry, name, witness)
    assert getattr(app, name)(event, context) == {"called": name}
    ((event_seen, context_seen),) = seen
    assert event_seen is event
    assert context_seen is context
