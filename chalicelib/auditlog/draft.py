"""A draft: one transaction's records and the state that goes with them, built before anything is stored."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from chalicelib.auditlog import hashchain
from chalicelib.domain.model import Outcome, Record, Trigger


class Draft:
    """One transaction in the making: `before` as it was read, `after` as it will stand, and the sealed records."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.after = before
        self.records: list[tuple[Record, bytes, str]] = []

    def set(self, **changes: Any) -> None:
        """Change fields of the state that will be stored."""
        self.after = replace(self.after, **changes)

    def add(self, at: datetime, outcome: Outcome, trigger: Trigger, **fields: Any) -> Record:
        """Append a record to the chain; `fields` are Record's own."""
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
        self.after = replace(self.after, seq=seq, head=digest)
        return record

    def next_id(self) -> str:
        """The id that an incident gets whose first record is the next one."""
        return f"{self.after.target}#{self.after.seq + 1}"
