"""A draft: the records of one transaction and the state to store with them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, TypedDict, TypeVar, Unpack

from msgspec.structs import replace

from chalicelib.auditlog import hashchain
from chalicelib.domain.model import Setting, Trigger
from chalicelib.domain.reasons import Outcome, Problem, Violation
from chalicelib.domain.stored import Action, Cause, GuardState, Record, Suppression, TargetState

State = TypeVar("State", TargetState, GuardState)
"""The state of a target, or the guard's own."""


class RecordFields(TypedDict, total=False):
    """The fields of a record that the caller sets."""

    incident_id: str | None
    attempt: int | None
    reason: str | None
    rule: str | None
    policy_digest: str | None
    violations: tuple[Violation, ...]
    before: Setting | None
    after: Setting | None
    actions: tuple[Action, ...]
    cause: Cause | None
    suppression: Suppression | None
    exposure_seconds: float | None
    error: Problem | None
    detail: dict[str, Any]


class Draft(Generic[State]):
    """A transaction to store: `before` is the state as read, `after` the state to store, `records` are sealed."""

    def __init__(self, before: State) -> None:
        self.before: State = before
        self.after: State = before
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
            **fields,
        )
        body, digest = hashchain.seal(record)
        self.records.append((record, body, digest))
        self.set(seq=seq, head=digest)
        return record

    def next_id(self) -> str:
        """The id of an incident whose first record is the next one."""
        return f"{self.after.target}#{self.after.seq + 1}"
