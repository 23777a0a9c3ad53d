"""Keep a target's state small enough to be stored, whatever somebody does to make it grow. Pure.

An item of DynamoDB holds at most 400 KB. A state that does not fit could not be stored: no record, no lease, no
remediation. What is left out here only helps to name who made a violation, and is on the record.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from chalicelib.domain.stored import TargetState

MOST_BYTES = 300_000
"""Of the state as JSON. Its item also has the name, the head and the index."""

FEW_WINDOWS = 8


def fitted(state: TargetState) -> TargetState:
    """Return the state, without what matters least if it is too large."""
    for without in LEAST_FIRST:
        if len(msgspec.json.encode(state)) <= MOST_BYTES:
            break
        state = without(state)
    return state


def _past_makers(state: TargetState) -> TargetState:
    return replace(state, past=tuple(replace(each, attributions=(), makers=()) for each in state.past))


def _effects(state: TargetState) -> TargetState:
    return replace(state, effects=())


def _makers(state: TargetState) -> TargetState:
    if state.incident is None:
        return state
    named = tuple(replace(each, events=each.events[:1]) for each in state.incident.attributions)
    return replace(state, incident=replace(state.incident, attributions=named, earlier=()))


def _windows(state: TargetState) -> TargetState:
    return replace(state, windows=state.windows[-FEW_WINDOWS:], last_seen=())


LEAST_FIRST: tuple[Callable[[TargetState], TargetState], ...] = (_past_makers, _effects, _makers, _windows)
