"""Key rows: one in the audit table for each key that a target's state names, which cannot be changed with the state.

A row is written in the transaction that first names the key, and again when the key's part in the state changes. Before
the guard changes a key, or sets X-Ray to it, the transaction of REMEDIATING checks that its row says the same part as
the state. A key that somebody wrote into the stored state has no row, or one with another part: a key that was only
adopted is not one that the guard made, a retired one is not in use, and a nonce is used once.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from chalicelib.domain.formats import FORMAT
from chalicelib.domain.stored import GuardState, TargetState

PREFIX = "k#"
SPENT = "spent"
"""The part of a nonce whose intent is closed."""

UPGRADED = f"{PREFIX}upgraded"
"""The sort key of the row that says that a chain's state is protected. It is written once, and never again."""


class KeyRow(Struct, frozen=True):
    """A key row. `seq` is the latest record when it was written, `how` the key's part: the field that names it."""

    sk: str
    seq: int
    how: str


class KeyCheck(Struct, frozen=True):
    """A row that must say this part; `becomes` replaces it in the same write, which takes one operation on each row."""

    sk: str
    how: str
    becomes: KeyRow | None = None


class KeyWrites(Struct, frozen=True):
    """What a transaction writes to the key rows, and those that must be there.

    `marks`: it writes the row `UPGRADED`, on the condition that there is none.
    """

    rows: tuple[KeyRow, ...]
    checks: tuple[KeyCheck, ...]
    marks: KeyRow | None


def named(state: TargetState | GuardState) -> dict[str, str]:
    """Return what the state names that the guard may act on: key ARNs and an intent's nonce, each with its part."""
    if not isinstance(state, TargetState):
        return {}
    found = {state.managed_key: "managed_key"} if state.managed_key else {}
    found |= dict.fromkeys(state.keys_handed, "keys_handed")
    found |= dict.fromkeys(state.keys_made, "keys_made")
    found |= dict.fromkeys(state.keys_retired, "keys_retired")
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
    parts = dict.fromkeys(known, SPENT) | named(after)
    rows = {name: KeyRow(sort_key(name), after.seq, how) for name, how in parts.items() if known.get(name) != how}
    relied_on = [name for name in dict.fromkeys(used) if name in known]
    return KeyWrites(
        tuple(row for name, row in rows.items() if name not in relied_on),
        tuple(KeyCheck(sort_key(name), known[name], rows.get(name)) for name in relied_on),
        KeyRow(UPGRADED, after.seq, "state") if first else None,
    )


def sort_key(name: str) -> str:
    """The sort key of a key's row, by its ARN, or of an intent's, by its nonce."""
    return f"{PREFIX}{name}"
