"""Verify a chain's stored state: against the digests in the records, its own attributes, and its key rows.

Anyone who can write to the targets table can edit a state. Each record has the digest of the protected fields before
and after its transaction, so the digests must link from record to record, and the last one must be the state's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from chalicelib.auditlog.chaincheck import Finding
from chalicelib.auditlog.keyrows import UPGRADED, named, sort_key
from chalicelib.auditlog.states import read_state
from chalicelib.domain.errors import FormatTooNew
from chalicelib.domain.formats import FORMAT
from chalicelib.domain.protected import Kept, digest_of
from chalicelib.domain.stored import GUARD_CHAIN, GuardState, TargetState
from chalicelib.domain.times import stamp


class StoredState(Struct, frozen=True):
    """A chain's state as it is stored: the attributes of its item, and the state itself as JSON.

    `due_at` is the time by which the index of due targets finds it, None if that index does not have it.
    """

    target: str
    version: int
    seq: int
    head: str
    due_at: str | None
    text: str


def verify_state(
    target: str, stored: StoredState | None, kept: Mapping[int, Kept | None], keys: Mapping[str, int]
) -> list[Finding]:
    """Findings about edits of a chain's state that the guard's own writes cannot explain, in order.

    `kept` has the digests of each record by its number, None for one that does not cover the state or is not sound.
    `keys` has the record's number of each key row by its sort key. Read the state first, then the key rows, then the
    records.

    STATE_EDITED            the protected fields were changed without a record, or the state contradicts itself
    KEY_ROW_MISSING         the state names a key that has no key row
    KEY_ROW_WITHOUT_RECORD  a key row that points at no record
    """
    findings = [Finding(target, seq, "STATE_EDITED", message) for seq, message in _broken_links(kept)]
    for key, seq in sorted(keys.items()):
        if seq not in kept and not (key == UPGRADED and seq == 0):
            message = f"the row {key[:200]!r} points to this record, which does not exist"
            findings.append(Finding(target, seq, "KEY_ROW_WITHOUT_RECORD", message))
    if stored is None:
        return findings
    state, wrong = _read(stored, keys)
    if state is not None:
        wrong += _contradictions(stored, state, kept.get(stored.seq))
        missing = [name for name in (*named(state), None) if (sort_key(name) if name else UPGRADED) not in keys]
        for each in missing:
            what = f"the key {each}, which the state names" if each else "the state as a whole"
            findings.append(Finding(target, stored.seq, "KEY_ROW_MISSING", f"there is no key row for {what}"))
    if wrong:
        findings.append(Finding(target, stored.seq, "STATE_EDITED", "; ".join(wrong)))
    return findings


def _broken_links(kept: Mapping[int, Kept | None]) -> Iterator[tuple[int, str]]:
    """Yield (seq, message) of each record whose digest before its transaction is not the one after the previous one."""
    last: tuple[int, str] | None = None
    for seq in sorted(kept):
        now = kept[seq]
        if last is not None and last[0] != seq - 1:
            last = None
        if last is not None and now is not None and now.before != last[1]:
            was = f"{now.before[:12]}…" if now.before else "none"
            yield (
                seq,
                f"the digest of the protected fields before this record is {was}, not {last[1][:12]}… as after record "
                f"{seq - 1}: somebody edited the state in between",
            )
        last = (seq, now.after) if now is not None else None


def _read(stored: StoredState, keys: Mapping[str, int]) -> tuple[TargetState | GuardState | None, list[str]]:
    """Return the state, None if this release does not protect it or cannot read it; and what is wrong with its text."""
    try:
        document: dict[str, Any] = json.loads(stored.text)
        wrong = [
            f"the attribute {name} is {getattr(stored, name)}, but the state says {document.get(name)!r}"
            for name in ("target", "version", "seq", "head")
            if document.get(name) != getattr(stored, name)
        ]
        state: TargetState | GuardState = (
            read_state(stored.text, GuardState)
            if stored.target == GUARD_CHAIN
            else read_state(stored.text, TargetState)
        )
    except FormatTooNew:
        return None, wrong
    except (ValueError, AttributeError, RecursionError):
        return None, ["the state cannot be read"]
    if state.format < FORMAT:
        if UPGRADED in keys:
            wrong.append(f"the state claims format {state.format}, but was stored in a later format before")
        return None, wrong
    return state, wrong


def _contradictions(stored: StoredState, state: TargetState | GuardState, kept: Kept | None) -> Iterator[str]:
    """Yield what contradicts the state: the last record's digest, and the time by which the index finds it."""
    digest = digest_of(json.loads(stored.text))
    if kept is not None and kept.after != digest:
        yield (
            f"the digest of the state's protected fields is {digest[:12]}…, not {kept.after[:12]}… as after this record"
        )
    due: datetime | None = state.due
    expected = stamp(due) if due else None
    if stored.due_at != expected:
        yield f"the index has the due time {stored.due_at or 'none'}, but the state's is {expected or 'none'}"
