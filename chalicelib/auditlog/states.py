"""Read a stored state of any format, or refuse it."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec.structs import replace

from chalicelib.domain.errors import FormatTooNew
from chalicelib.domain.formats import FORMAT, StoredFormat
from chalicelib.domain.stored import GuardState, TargetState

AnyState = TypeVar("AnyState", TargetState, GuardState)


def read_state(text: str | bytes, kind: type[AnyState]) -> AnyState:
    """Read a state. It keeps the format in which it was stored until it is stored again.

    Raises FormatTooNew if a newer release stored it, and ValueError if the text is not a state. The format is read
    first: a state of a higher format may be unreadable, or readable with another meaning.
    """
    stored = msgspec.json.decode(text, type=StoredFormat)
    if stored.format > FORMAT:
        raise FormatTooNew(stored.target, stored.format, FORMAT)
    state = msgspec.json.decode(text, type=kind)
    return replace(state, format=stored.format)
