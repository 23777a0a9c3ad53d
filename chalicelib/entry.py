"""Lambda's entry points: what `app.py` calls. Placeholders until the loop is wired in."""

from __future__ import annotations

from typing import Any


def on_change(event: object, context: Any) -> dict[str, Any]:
    """Reconcile the event's target."""
    raise NotImplementedError("the loop is not wired in yet")


def tick(event: object, context: Any) -> dict[str, Any]:
    """Take up what is due."""
    raise NotImplementedError("the loop is not wired in yet")


def sweep(event: object, context: Any) -> dict[str, Any]:
    """Look at every target."""
    raise NotImplementedError("the loop is not wired in yet")
