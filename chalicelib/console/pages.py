"""The data of each page: results of the query layer, collected for one template. Nothing is decided here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from chalicelib.auditlog import hashchain, history, views
from chalicelib.auditlog.filters import Filter
from chalicelib.auditlog.summary import summarize
from chalicelib.auditlog.views import Entry, IncidentView, TargetView
from chalicelib.console import charts, filters, forms
from chalicelib.console.anchors import anchors_of
from chalicelib.console.forms import CsvTable, command
from chalicelib.console.timeline import stretches
from chalicelib.console.verifying import Progress, verification
from chalicelib.console.vitals import vitals
from chalicelib.console.words import laid_out
from chalicelib.domain.model import Target
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GuardState, Suppression
from chalicelib.operators.context import Operator

RANGES = (7, 30, 90)
INCIDENTS_A_PAGE = 25
RECORDS_A_PAGE = 50
URGENCY = (Outcome.FAILED, Outcome.DEFERRED, Outcome.OBSERVED, Outcome.APPLIED, Outcome.REMEDIATING, Outcome.SUPPRESSED)


class ItemNotFound(LookupError):
    """The item in the address does not exist."""


@dataclass(frozen=True, slots=True)
class Page:
    """A template's name and its values, and the same as JSON, as CSV tables by name, and as a command.

    `runs`: the page shows its progress while it is written, so it is sent in parts, and nobody reads it repeatedly.
    """

    template: str
    values: Mapping[str, Any]
    status: int = 200
    command: str = ""
    document: Callable[[], Mapping[str, Any]] = dict
    tables: Mapping[str, Callable[[], CsvTable]] = field(default_factory=dict)
    runs: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """The values that every page shows in its header and footer."""

    now: datetime
    guard: GuardState
    region: str
    caller: str


@dataclass(frozen=True, slots=True)
class BreakGlassInForce:
    """A break-glass in force, with its target."""

    target: TargetView
    suppression: Suppression


def frame(operator: Operator) -> Frame:
    """Read the guard's own state. Raises the errors of that read."""
    guard = operator.guard_state()
    return Frame(operator.now(), guard, operator.region, operator.identity.arn)


def overview(operator: Operator, around: Frame, arguments: Mapping[str, str]) -> Page:
    """What an operator asks first, then the state of all targets, the open incidents, and the figures over time."""
    days = next((days for days in RANGES if str(days) == arguments.get("days")), 30)
    targets = history.targets(operator.store.states(), around.guard, around.now)
    alive = vitals(operator, around.guard, targets, around.now)
    today = around.now.date()
    summary = summarize(operator.store, today - timedelta(days=days - 1), today)
    found = sorted((view for view in targets if view.incident), key=_most_urgent_first)
    judged = [view for view in targets if view.outcome is not Outcome.IGNORED]
    return Page(
        "overview.html",
        {
            "targets": targets,
            "judged": judged,
            "compliant": sum(view.compliant for view in judged),
            "open": found,
            "waiting": sorted((view for view in found if view.waiting), key=lambda view: _until(view, around.now)),
            "alive": alive,
            "breaks": [BreakGlassInForce(view, one) for view in targets for one in view.suppressions],
            "accounts": sorted({view.account for view in targets}),
            "regions": sorted({view.region for view in targets}),
            "cells": {(view.account, view.region): view for view in targets},
            "summary": summary,
            "incident_chart": charts.incidents(summary.days),
            "exposure_chart": charts.exposures(summary.days),
            "days": days,
            "ranges": RANGES,
        },
        command=command("status"),
        document=lambda: {
            "targets": [view.to_json() for view in targets],
            "guard": {
                "policy_digest": around.guard.policy_digest,
                "paused": msgspec.to_builtins(around.guard.paused),
                **alive.to_json(),
            },
            "summary": summary.to_json(),
        },
        tables={"targets": lambda: forms.targets_table(targets), "days": lambda: forms.days_table(summary)},
    )


def _until(view: TargetView, now: datetime) -> datetime:
    """Until when the guard waits. What depends on a person is last."""
    return (view.waiting.until if view.waiting else None) or now + timedelta(days=3650)


def _most_urgent_first(view: TargetView) -> tuple[int, datetime]:
    rank = URGENCY.index(view.outcome) if view.outcome in URGENCY else len(URGENCY)
    assert view.exposed_since is not None, "only open incidents are sorted"
    return rank, view.exposed_since


def incidents(operator: Operator, around: Frame, arguments: Mapping[str, str]) -> Page:
    """One page of the incidents that match the filter."""
    query = filters.read(arguments, around.now)
    found = None
    if not query.faults:
        found = history.incidents(operator.store, query.wanted, around.now, INCIDENTS_A_PAGE, query.cursor)
    return Page(
        "incidents.html",
        {"query": query, "found": found, **_choices()},
        400 if query.faults else 200,
        command("incidents", written=query.as_options),
        lambda: found.to_json() if found else _faults(query),
        {"incidents": lambda: forms.incidents_table(found.incidents if found else ())},
    )


def records(operator: Operator, around: Frame, arguments: Mapping[str, str]) -> Page:
    """One page of the records that match the filter."""
    query = filters.read(arguments, around.now)
    found = None
    if not query.faults:
        found = history.records(operator.store, query.wanted, around.now, RECORDS_A_PAGE, query.cursor)
    return Page(
        "records.html",
        {"query": query, "found": found, **_choices()},
        400 if query.faults else 200,
        command("history", written=query.as_options),
        lambda: found.to_json() if found else _faults(query),
        {"records": lambda: forms.records_table(found.entries if found else ())},
    )


def _faults(query: filters.Query) -> dict[str, Any]:
    return {"error": {"title": "Invalid filter", "fields": dict(query.faults)}}


def _choices() -> dict[str, Any]:
    return {"outcomes": list(Outcome), "spans": filters.SPANS}


def incident(operator: Operator, around: Frame, name: str) -> Page:
    """One incident with its timeline, by its id, or that of one of its records. Raises ItemNotFound."""
    try:
        found = history.incident_now(operator.store, name, lambda: around.now)
    except ValueError as error:
        raise ItemNotFound(str(error)) from error
    if found is None:
        raise ItemNotFound(f"Incident {name} does not exist.")
    return Page(
        "incident.html",
        {"incident": found, "milestones": _milestones(found), "stretches": stretches(found.entries)},
        command=command("show", found.id),
        document=lambda: found.to_json(timeline=True),
        tables={"records": lambda: forms.records_table(found.entries)},
    )


def _milestones(found: IncidentView) -> list[tuple[str, datetime]]:
    """The milestones of an incident: the change, its detection, each Put by the guard, the end."""
    milestones = [("changed", found.cause.at)] if found.cause else []
    milestones.append(("detected", found.opened_at))
    records = [entry.record for entry in found.entries]
    milestones += [
        ("applied", action.at)
        for record in records
        for action in record.actions
        if action.name == "PutEncryptionConfig" and action.error is None
    ]
    if found.closed_at:
        milestones.append(("active" if found.outcome is Outcome.REMEDIATED else "closed", found.closed_at))
    return sorted(milestones, key=lambda each: each[1])


def record(operator: Operator, chain_name: str, seq: int) -> Page:
    """One record, with the bytes that were hashed. Raises ItemNotFound."""
    if seq < 1:
        raise ItemNotFound(f"Record {chain_name}#{seq} does not exist.")
    rows = operator.store.oldest(chain_name, 1, seq).rows
    try:
        entry = Entry(hashchain.unseal(rows[0].body), rows[0].hash) if rows else None
    except ValueError as error:
        raise ItemNotFound(
            f"Record {chain_name}#{seq} cannot be read: {error}. Verify the audit log on the page Audit."
        ) from error
    if entry is None or entry.record.seq != seq:
        raise ItemNotFound(f"Record {chain_name}#{seq} does not exist.")
    shown, found = laid_out(rows[0].body.decode("utf-8", "replace")), entry.record
    written = {"target": chain_name, "since": _second(found.at), "until": _second(found.at + timedelta(seconds=1))}
    line = command("show", found.record_id) if found.incident_id else command("history", written=written)
    return Page("record.html", {"entry": entry, "body": shown}, command=line, document=entry.to_json)


def _second(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def target(operator: Operator, around: Frame, account: str, region: str) -> Page:
    """The state of one target and its latest incidents. Raises ItemNotFound."""
    try:
        named = Target.parse(f"{account}/{region}")
    except ValueError as error:
        raise ItemNotFound(str(error)) from error
    state = operator.store.load(str(named)).state
    if state.version == 0:
        raise ItemNotFound(f"The guard has not seen {named} yet.")
    latest = history.incidents(operator.store, Filter(target=str(named)), around.now, 10)
    view = views.target_view(state, around.guard, around.now)
    return Page(
        "target.html",
        {"view": view, "latest": latest},
        command=command("status", written={"account": account, "region": region}),
        document=lambda: {**view.to_json(), **latest.to_json()},
        tables={"incidents": lambda: forms.incidents_table(latest.incidents)},
    )


def policy(operator: Operator) -> Page:
    """The policy document, to compare with the one that the deployed guard enforces."""
    document = operator.file_policy
    text = operator.policy_file.read_text("utf-8")
    return Page(
        "policy.html",
        {"policy": document, "text": text, "path": operator.policy_file},
        command=command("policy", "show"),
        document=lambda: {"digest": document.digest, "document": json.loads(text)},
    )


def audit_state(operator: Operator, arguments: Mapping[str, str]) -> Page:
    """The chains and the anchors; on request, the result of verifying them. Raises ItemNotFound."""
    heads = sorted(operator.store.heads())
    chosen = arguments.get("verify", "")
    if chosen and chosen != "all" and chosen not in {name for name, _, _ in heads}:
        raise ItemNotFound(f"Chain {chosen} does not exist.")
    anchors = anchors_of(operator)
    only = None if chosen == "all" else chosen
    chain = {"chain": only} if only else {}
    bucket = {"anchor-bucket": anchors.bucket} if anchors.bucket else {}

    def steps() -> Iterator[Progress]:
        return verification(operator, only, anchors.bucket, len(heads))

    def document() -> dict[str, Any]:
        listed = {"chains": [{"chain": name, "records": seq, "head": head} for name, seq, head in heads]}
        whole = {**listed, "anchors": msgspec.to_builtins(anchors)}
        if not chosen:
            return whole
        *_, last = steps()
        if last.error:
            raise last.error
        assert last.report is not None, "a verification ends with a report or an error"
        return {**whole, "verification": last.report.to_json()}

    return Page(
        "audit.html",
        {"heads": heads, "anchors": anchors, "steps": steps if chosen else None, "verified": chosen},
        command=command("audit", "verify", written={**chain, **bucket}),
        document=document,
        tables={"chains": lambda: CsvTable(("chain", "records", "head"), heads)},
        runs=bool(chosen),
    )
