"""The audit log as a file: every chain as it was hashed, so that anyone can verify it without the guard.

docs/verify-export.md has the program that does.
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
        """(chain, sort key) of everything in the table."""


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so would be run by a spreadsheet."""

COLUMNS = ("kind", "target", "seq", "at", "outcome", "reason", "actor", "incident_id", "hash", "body")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an export: a record with its bytes as they were hashed, or, after a chain's records, its head."""

    kind: str
    target: str
    seq: int
    hash: str
    body: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields by their names; `body` is a text, so that its bytes stay as they were hashed."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        return told


def lines(store: Log, only: str | None = None) -> Iterator[Line]:
    """Every chain's records up to its head, then the head. A chain without a head ends without one."""
    heads = {target: (seq, head) for target, seq, head in store.heads()}
    names = sorted({*heads, *(target for target, _ in store.row_keys())}) if only is None else [only]
    for name in names:
        head = heads.get(name)
        for row in store.rows(name):
            place = RECORD_SORT_KEY.fullmatch(row.sk)
            seq = int(place[1]) if place else 0
            if head is not None and seq > head[0]:
                break  # appended while we read; the next export has it
            yield Line("record", name, seq, row.hash, row.body.decode("utf-8", "replace"))
        if head is not None:
            yield Line("head", name, *head)


def as_json_lines(exported: Iterable[Line]) -> Iterator[str]:
    """One JSON object a line."""
    for line in exported:
        yield json.dumps(line.to_json(), ensure_ascii=False) + "\n"


def as_csv(exported: Iterable[Line]) -> Iterator[str]:
    """A header, and one row a line: the columns of JSON Lines, and for people some of what the body says."""
    yield _row(COLUMNS)
    for line in exported:
        told = _told(line.body)
        people = {name: _for_spreadsheets(told.get(name)) for name in COLUMNS}
        yield _row({**people, **line.to_json()}[name] for name in COLUMNS)


def _told(body: str) -> dict[str, Any]:
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


def _row(cells: Iterable[object]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow(cells)
    return written.getvalue()
