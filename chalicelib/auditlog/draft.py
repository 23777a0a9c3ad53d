"""A draft: the records of one transaction and the state to store with them."""

from __future__ import annotations

from datetime import datetime
from typing import Generic, TypeVar, Unpack

from msgspec.structs import replace

from chalicelib.auditlog import hashchain
from chalicelib.domain.formats import FORMAT
from chalicelib.domain.model import Trigger
from chalicelib.domain.protected import Kept, changed_fields, protected_digest
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.settlement import RecordFields
from chalicelib.domain.stored import ZERO_HASH, GuardState, Record, TargetState

State = TypeVar("State", TargetState, GuardState)
"""The state of a target, or the guard's own."""


class Draft(Generic[State]):
    """A transaction to store: `before` is the state as read, `after` the state to store, `records` are sealed.

    Records are sealed only when the whole transaction is known: each has the digests of the protected fields before and
    after it (`Kept`). A transaction without a record cannot change these fields.
    """

    def __init__(self, before: State, after: State | None = None) -> None:
        self.before: State = before
        state = before if after is None else after
        self._state: State = replace(state, format=FORMAT)
        self._lines: list[Record] = []
        self._sealed: list[tuple[Record, bytes, str]] | None = None

    def set(self, **changes: object) -> None:
        """Change fields of the state that will be stored."""
        self._state = replace(self._state, **changes)
        self._sealed = None

    def add(self, at: datetime, outcome: Outcome, trigger: Trigger, **fields: Unpack[RecordFields]) -> Record:
        """Append a record to the chain, and return it as it is before it is sealed."""
        seq = self._state.seq + len(self._lines) + 1
        record = Record(
            record_id=f"{self._state.target}#{seq}",
            target=self._state.target,
            seq=seq,
            at=at,
            outcome=outcome,
            trigger=trigger,
            prev_hash=ZERO_HASH,
            format=FORMAT,
            **fields,
        )
        self._lines.append(record)
        self._sealed = None
        return record

    def next_id(self) -> str:
        """The id of an incident whose first record is the next one."""
        return f"{self._state.target}#{self._state.seq + len(self._lines) + 1}"

    @property
    def changed(self) -> tuple[str, ...]:
        """The names of the protected fields that this transaction changes."""
        return changed_fields(self.before, self._state)

    @property
    def records(self) -> list[tuple[Record, bytes, str]]:
        """The sealed records, each with the bytes to store and their hash."""
        if self._sealed is None:
            self._sealed = self._seal()
        return self._sealed

    @property
    def after(self) -> State:
        """The state to store. Raises ValueError if protected fields change without a record."""
        if not self._lines:
            if self.changed:
                raise ValueError(f"{self._state.target}: {', '.join(self.changed)} may only change with a record")
            return self._state
        last, _, head = self.records[-1]
        return replace(self._state, seq=last.seq, head=head)

    def _seal(self) -> list[tuple[Record, bytes, str]]:
        """Seal the records. A state of a release that did not protect it has no digest before the transaction."""
        after = protected_digest(self._state)
        before = protected_digest(self.before) if self.before.format >= FORMAT else None
        sealed, head = [], self._state.head
        for line in self._lines:
            record = replace(line, prev_hash=head, kept=Kept(before, after))
            body, digest = hashchain.seal(record)
            sealed.append((record, body, digest))
            before, head = after, digest
        return sealed
