"""The protected fields of a stored state: those that change only in a transaction that also stores a record.

Each record has the digest of these fields before and after its transaction, so that `xray-guard audit verify` finds a
state that somebody else edited. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

PROTECTED = (
    "managed_key",
    "keys_made",
    "keys_retired",
    "keys_handed",
    "intent",
    "suppressions",
    "backoffs",
    "lease_number",
    "paused",
)
"""The fields of the states of targets and of the guard, as they are stored."""


class Kept(Struct, frozen=True):
    """The digests of the protected fields before and after the transaction that stored a record.

    `before` is None in the first transaction after an upgrade from a release that did not protect the state.
    """

    before: str | None
    after: str


def protected_digest(state: Struct) -> str:
    """Return the digest of a state's protected fields, as of a target's or of the guard's own state."""
    return digest_of(_protected(state))


def digest_of(stored: Mapping[str, Any]) -> str:
    """Return the digest of the protected fields of a state as it is stored, as JSON.

    SHA-256 of canonical JSON, in lower-case hexadecimal. What is empty is left out, so that an optional field that a
    later release adds does not change the digest.
    """
    kept = _without_empty({name: stored[name] for name in PROTECTED if name in stored})
    return hashlib.sha256(msgspec.json.encode(kept, order="sorted")).hexdigest()


def changed_fields(before: Struct, after: Struct) -> tuple[str, ...]:
    """Return the names of the protected fields that differ between two states."""
    was, now = _protected(before), _protected(after)
    return tuple(name for name in PROTECTED if was.get(name) != now.get(name))


def _protected(state: Struct) -> dict[str, Any]:
    return {name: msgspec.to_builtins(getattr(state, name)) for name in PROTECTED if hasattr(state, name)}


def _without_empty(value: Any) -> Any:
    if isinstance(value, Mapping):
        present = {name: _without_empty(each) for name, each in value.items()}
        return {name: each for name, each in present.items() if each}
    return [_without_empty(each) for each in value] if isinstance(value, list | tuple) else value
