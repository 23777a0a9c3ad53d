"""The data of each page: results of the query layer, collected for one template. Nothing is decided here."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from chalicelib.auditlog import hashchain, history, views
from chalicelib.auditlog.filters import Filter
from chalicelib.auditlog.summary import summarize
from chalicelib.auditlog.verify import verify
from chalicelib.auditlog.views import Entry, IncidentView, TargetView
from chalicelib.aws.s3_anchors import read_anchors
from chalicelib.console import charts, filters
from chalicelib.console.words import laid_out
from chalicelib.domain.model import Target
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GUARD_CHAIN, GuardState, Suppression
from chalicelib.operators.context import Operator

RANGES = (7, 30, 90)
STALE_SWEEP = timedelta(hours=2)
INCIDENTS_A_PAGE = 25
RECORDS_A_PAGE = 50
URGENCY = (Outcome.FAILED, Outcome.DEFERRED, Outcome.OBSERVED, Outcome.APPLIED, Outcome.REMEDIATING, Outcome.SUPPRESSED)


class ItemNotFound(LookupError):
    """The item in the address does not exist."""


@dataclass(frozen=True, slots=True)
class Page:
    """A template's name and its values."""

    template: str
    values: Mapping[str, Any]
    status: int = 200


@dataclass(frozen=True, slots=True)
class Frame:
    """The values that every page shows in its header and footer."""

    now: datetime
    guard: GuardState
    region: str
    caller: str

    @property
    def sweep_is_stale(self) -> bool:
        """Whether no sweep has completed for two hours."""
        return self.guard.swept_at is None or self.now - self.guard.swept_at > STALE_SWEEP


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
    """The state of all targets, the open incidents, and the figures over time."""
    days = next((days for days in RANGES if str(days) == arguments.get("days")), 30)
    targets = history.targets(operator.store.states(), around.guard, around.now)
    histories = operator.read_histories([view.target for view in targets])
    today = around.now.date()
    summary = summarize(operator.store, today - timedelta(days=days - 1), today)
    return Page(
        "overview.html",
        {
            "targets": targets,
            "judged": [view for view in targets if view.outcome is not Outcome.IGNORED],
            "open": sorted((view for view in targets if view.incident), key=_most_urgent_first),
            "deaf": {name: each.deaf_since for name, each in sorted(histories.items()) if each.deaf_since},
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
    )


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
    return Page("incidents.html", {"query": query, "found": found, **_choices()}, 400 if query.faults else 200)


def records(operator: Operator, around: Frame, arguments: Mapping[str, str]) -> Page:
    """One page of the records that match the filter."""
    query = filters.read(arguments, around.now)
    found = None
    if not query.faults:
        found = history.records(operator.store, query.wanted, around.now, RECORDS_A_PAGE, query.cursor)
    return Page("records.html", {"query": query, "found": found, **_choices()}, 400 if query.faults else 200)


def _choices() -> dict[str, Any]:
    return {"outcomes": list(Outcome), "spans": filters.SPANS}


def incident(operator: Operator, around: Frame, account: str, region: str, seq: int) -> Page:
    """One incident with its timeline. Raises ItemNotFound."""
    name = f"{account}/{region}#{seq}"
    try:
        found = history.incident_now(operator.store, name, lambda: around.now)
    except ValueError as error:
        raise ItemNotFound(str(error)) from error
    if found is None:
        raise ItemNotFound(f"Incident {name} does not exist.")
    return Page("incident.html", {"incident": found, "milestones": _milestones(found)})


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
    return Page("record.html", {"entry": entry, "body": laid_out(rows[0].body.decode("utf-8", "replace"))})


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
    return Page("target.html", {"view": views.target_view(state, around.guard, around.now), "latest": latest})


def policy(operator: Operator) -> Page:
    """The policy document, to compare with the one that the deployed guard enforces."""
    document = operator.file_policy
    text = operator.policy_file.read_text("utf-8")
    return Page("policy.html", {"policy": document, "text": text, "path": operator.policy_file})


def audit_state(operator: Operator, around: Frame, arguments: Mapping[str, str]) -> Page:
    """The chains and the last anchor; on request, the result of verifying them."""
    heads = sorted(operator.store.heads())
    latest = history.records(operator.store, Filter(target=GUARD_CHAIN), around.now, 50)
    anchors = [entry for entry in latest.entries if entry.record.reason == "SWEEP"]
    chosen = arguments.get("verify", "")
    if chosen and chosen != "all" and chosen not in {name for name, _, _ in heads}:
        raise ItemNotFound(f"Chain {chosen} does not exist.")
    report, took = None, 0.0
    bucket = os.environ.get("XRAY_GUARD_ANCHOR_BUCKET")
    if chosen:
        began = time.monotonic()
        only = None if chosen == "all" else chosen
        extra, findings = read_anchors(operator.clients, operator.region, bucket) if bucket else ([], [])
        report = verify(operator.store, extra, only=only, extra_findings=findings)
        took = time.monotonic() - began
    values = {"heads": heads, "anchors": anchors, "report": report, "took": took, "verified": chosen, "bucket": bucket}
    return Page("audit.html", values)
