"""Export the audit log as a file with the exact bytes that were hashed, so that anyone can verify it without the guard.

docs/verify-export.md has a program that does so.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from chalicelib.auditlog.hashchain import RECORD_SORT_KEY, StoredRow, unseal


class Log(Protocol):
    """The reads of the store that this module makes."""

    def heads(self) -> Iterable[tuple[str, int, str]]:
        """(chain, seq, hash) of every chain."""

    def rows(self, target: str) -> Iterable[StoredRow]:
        """Every record of a chain, in order."""

    def row_keys(self) -> Iterable[tuple[str, str]]:
        """(chain, sort key) of every item in the table."""


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs a cell that starts with one of these as a formula."""

COLUMNS = ("kind", "target", "seq", "at", "outcome", "reason", "actor", "incident_id", "hash", "body")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an export: a record with the bytes that were hashed, or the head that follows a chain's records."""

    kind: str
    target: str
    seq: int
    hash: str
    body: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields by their names. `body` is text, so that its bytes stay as they were hashed."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document


def lines(store: Log, only: str | None = None) -> Iterator[Line]:
    """The records of every chain up to its head, then the head. For a chain without a head, only its records."""
    heads = {target: (seq, head) for target, seq, head in store.heads()}
    names = sorted({*heads, *(target for target, _ in store.row_keys())}) if only is None else [only]
    for name in names:
        head = heads.get(name)
        for row in store.rows(name):
            key = RECORD_SORT_KEY.fullmatch(row.sk)
            seq = int(key[1]) if key else 0
            if head is not None and seq > head[0]:
                break  # appended during this export; the next one has it
            yield Line("record", name, seq, row.hash, row.body.decode("utf-8", "replace"))
        if head is not None:
            yield Line("head", name, *head)


def as_json_lines(exported: Iterable[Line]) -> Iterator[str]:
    """One JSON object per line."""
    for line in exported:
        yield json.dumps(line.to_json(), ensure_ascii=False) + "\n"


def as_csv(exported: Iterable[Line]) -> Iterator[str]:
    """A header, and one row per line: the fields of JSON Lines, and some fields of the body for people."""
    yield csv_row(COLUMNS)
    for line in exported:
        fields = _fields_of(line.body)
        readable = {name: _for_spreadsheets(fields.get(name)) for name in COLUMNS}
        yield csv_row({**readable, **line.to_json()}[name] for name in COLUMNS)


def _fields_of(body: str) -> dict[str, Any]:
    try:
        record = unseal(body.encode()) if body else None
    except ValueError:
        record = None
    if record is None:
        return {}
    actor = record.cause.actor if record.cause else record.trigger.actor
    at = f"{record.at:%Y-%m-%dT%H:%M:%S.%fZ}"
    return {
        "at": at,
        "outcome": record.outcome.value,
        "reason": record.reason,
        "actor": str(actor) if actor else None,
        "incident_id": record.incident_id,
    }


def _for_spreadsheets(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def csv_row(cells: Iterable[object]) -> str:
    """One line of CSV. A cell that a spreadsheet would take for a formula begins with an apostrophe."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow(cells)
    return written.getvalue()
