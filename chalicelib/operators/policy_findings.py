"""A finding about a policy document: where, which value, and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

_LONGEST_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding: `path` is a JSON Pointer, `value` the value there as text, `message` says what is allowed.

    A document with warnings only is valid.
    """

    path: str
    value: str
    message: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{'warning: ' if self.warning else ''}{self.path or '(whole document)'}: {self.value} - {self.message}"


def pointer(path: Iterable[str | int]) -> str:
    """The JSON Pointer (RFC 6901) to a value."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def shown(value: object) -> str:
    """The value as JSON, cut if it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
