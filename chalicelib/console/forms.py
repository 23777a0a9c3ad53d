"""The other forms of a page: JSON, tables as CSV, and the command that says the same."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from chalicelib.auditlog.export import csv_row
from chalicelib.auditlog.summary import Summary
from chalicelib.auditlog.views import Entry, IncidentView, TargetView
from chalicelib.operators.context import Operator
from chalicelib.operators.formatting import actor_text, event_change_text, time_text

OPTIONS = {"region": "target-region"}
"""The fields of a filter that are called differently on the command line."""


class CsvTable(NamedTuple):
    """A table of a page: the names of its columns, and its rows."""

    columns: Sequence[str]
    rows: Iterable[Sequence[object]]

    def text(self) -> str:
        """The table as CSV. A cell that a spreadsheet would take for a formula begins with an apostrophe."""
        return "".join(csv_row(row) for row in (self.columns, *self.rows))


def command(*words: str, written: Mapping[str, str] | None = None) -> str:
    """A command line, with a filter as it was written."""
    options = [text for name, value in (written or {}).items() for text in (f"--{OPTIONS.get(name, name)}", value)]
    return shlex.join(("xray-guard", *words, *options))


def with_options(line: str, operator: Operator) -> str:
    """A command line with the options with which the console was started."""
    given = {"--profile": operator.profile, "--home-region": operator.home_region or operator.region_name}
    return " ".join([line, *(f"{name} {shlex.quote(value)}" for name, value in given.items() if value)])


def targets_table(views: Iterable[TargetView]) -> CsvTable:
    """The state of targets."""
    rows = [
        (
            view.target,
            view.outcome or "",
            view.reason or "",
            " ".join(view.violations),
            view.incident.id if view.incident else "",
            _time(view.exposed_since),
            _time(view.good_at),
            view.waiting.text if view.waiting else "",
        )
        for view in views
    ]
    columns = ("target", "outcome", "reason", "violations", "incident", "exposed_since", "last_compliant", "waiting")
    return CsvTable(columns, rows)


def incidents_table(views: Iterable[IncidentView]) -> CsvTable:
    """Incidents, one row each."""
    rows = [
        (
            view.id,
            view.target,
            "open" if view.open else "closed",
            view.outcome,
            view.reason or "",
            " ".join(view.violations),
            actor_text(view.actor, view.target) if view.actor else "",
            event_change_text(view.changed, view.target) if view.changed else "",
            _time(view.opened_at),
            _time(view.closed_at),
            "" if view.exposure_seconds is None else view.exposure_seconds,
        )
        for view in views
    ]
    columns = ("incident", "target", "state", "outcome", "reason", "violations", "who", "changed", "opened", "closed")
    return CsvTable((*columns, "exposure_seconds"), rows)


def records_table(entries: Iterable[Entry]) -> CsvTable:
    """Records, one row each, with their hashes."""
    rows = [
        (
            entry.record.record_id,
            _time(entry.record.at),
            entry.record.outcome,
            entry.record.reason or "",
            " ".join(entry.record.violations),
            entry.record.trigger.kind,
            actor_text(entry.actor, entry.record.target) if entry.actor else "",
            event_change_text(entry.record.change, entry.record.target) if entry.record.change else "",
            entry.record.incident_id or "",
            entry.hash,
        )
        for entry in entries
    ]
    columns = ("record", "at", "outcome", "reason", "violations", "trigger", "who", "changed", "incident", "hash")
    return CsvTable(columns, rows)


def days_table(summary: Summary) -> CsvTable:
    """The figures of each day."""
    rows = [(day.day, day.opened, day.closed, day.failed, day.exposure_p50 or "") for day in summary.days]
    return CsvTable(("day", "opened", "closed", "failed", "median_exposure_seconds"), rows)


def _time(at: Any) -> str:
    return time_text(at) if at else ""
