"""A draft: the records of one transaction and the state to store with them."""

from __future__ import annotations

from datetime import datetime
from typing import Generic, TypeVar, Unpack

from msgspec.structs import replace

from chalicelib.auditlog import hashchain
from chalicelib.domain.model import Trigger
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.settlement import RecordFields
from chalicelib.domain.stored import FORMAT, GuardState, Record, TargetState

State = TypeVar("State", TargetState, GuardState)
"""The state of a target, or the guard's own."""


class Draft(Generic[State]):
    """A transaction to store: `before` is the state as read, `after` the state to store, `records` are sealed."""

    def __init__(self, before: State, after: State | None = None) -> None:
        self.before: State = before
        self.after: State = before if after is None else after
        self.records: list[tuple[Record, bytes, str]] = []

    def set(self, **changes: object) -> None:
        """Change fields of the state that will be stored."""
        self.after = replace(self.after, **changes)

    def add(self, at: datetime, outcome: Outcome, trigger: Trigger, **fields: Unpack[RecordFields]) -> Record:
        """Append a record to the chain, and return it."""
        seq = self.after.seq + 1
        record = Record(
            record_id=f"{self.after.target}#{seq}",
            target=self.after.target,
            seq=seq,
            at=at,
            outcome=outcome,
            trigger=trigger,
            prev_hash=self.after.head,
            format=FORMAT,
            **fields,
        )
        body, digest = hashchain.seal(record)
        self.records.append((record, body, digest))
        self.set(seq=seq, head=digest)
        return record

    def next_id(self) -> str:
        """The id of an incident whose first record is the next one."""
        return f"{self.after.target}#{self.after.seq + 1}"
