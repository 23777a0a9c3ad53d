"""Key rows: one in the audit table for each key that a target's state names, which cannot be changed with the state.

A row is written in the transaction that first names the key. Before the guard changes a key, or sets X-Ray to it, the
transaction of REMEDIATING checks that its row exists. A key that somebody wrote into the stored state has none.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from chalicelib.domain.formats import FORMAT
from chalicelib.domain.stored import GuardState, TargetState

PREFIX = "k#"
UPGRADED = f"{PREFIX}upgraded"
"""The sort key of the row that says that a chain's state is protected. It is written once, and never again."""


class KeyRow(Struct, frozen=True):
    """A key row. `seq` is the latest record when it was written, `how` the field of the state that names the key."""

    sk: str
    seq: int
    how: str


class KeyWrites(Struct, frozen=True):
    """What a transaction writes to the key rows, and the sort keys of those that must exist.

    `marks`: it writes the row `UPGRADED`, on the condition that there is none.
    """

    rows: tuple[KeyRow, ...]
    checks: tuple[str, ...]
    marks: KeyRow | None


def named(state: TargetState | GuardState) -> dict[str, str]:
    """Return what the state names that the guard may act on: key ARNs and an intent's nonce, each with its field."""
    if not isinstance(state, TargetState):
        return {}
    found = dict.fromkeys(state.keys_retired, "keys_retired")
    found |= dict.fromkeys(state.keys_made, "keys_made")
    found |= dict.fromkeys(state.keys_handed, "keys_handed")
    if state.managed_key:
        found[state.managed_key] = "managed_key"
    if state.intent:
        found[state.intent.nonce] = "intent"
    return found


def key_writes(
    before: TargetState | GuardState, after: TargetState | GuardState, used: Iterable[str] = ()
) -> KeyWrites:
    """Return the writes and checks of a transaction. `used` are the keys and nonces that the run relies on.

    The first transaction of a state, or the first one after an upgrade, writes the rows of all keys and checks none.
    """
    first = before.version == 0 or before.format < FORMAT
    known = {} if first else named(before)
    return KeyWrites(
        tuple(KeyRow(sort_key(name), after.seq, how) for name, how in named(after).items() if name not in known),
        tuple(sort_key(name) for name in dict.fromkeys(used) if name in known),
        KeyRow(UPGRADED, after.seq, "state") if first else None,
    )


def sort_key(name: str) -> str:
    """The sort key of a key's row, by its ARN, or of an intent's, by its nonce."""
    return f"{PREFIX}{name}"
