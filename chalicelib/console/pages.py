"""What each page tells: the answers of the query layer, put together for one template. Nothing is decided here."""

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
from chalicelib.cli.session import Operator
from chalicelib.console import asking, pictures
from chalicelib.console.words import laid_out
from chalicelib.domain.model import Target
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GUARD_CHAIN, GuardState, Suppression

RANGES = (7, 30, 90)
STALE_SWEEP = timedelta(hours=2)
INCIDENTS_A_PAGE = 25
RECORDS_A_PAGE = 50
URGENCY = (Outcome.FAILED, Outcome.DEFERRED, Outcome.OBSERVED, Outcome.APPLIED, Outcome.REMEDIATING, Outcome.SUPPRESSED)


class NotThere(LookupError):
    """What the address names does not exist; the text says what does not."""


@dataclass(frozen=True, slots=True)
class Page:
    """A template's name and what it is given."""

    template: str
    told: Mapping[str, Any]
    status: int = 200


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around every page."""

    now: datetime
    guard: GuardState
    region: str
    caller: str

    @property
    def sweep_is_stale(self) -> bool:
        """Whether the hourly sweep has not been heard of for two hours."""
        return self.guard.swept_at is None or self.now - self.guard.swept_at > STALE_SWEEP


@dataclass(frozen=True, slots=True)
class Break:
    """A break-glass in force, and where."""

    target: TargetView
    suppression: Suppression


def frame(operator: Operator) -> Frame:
    """One read of the guard's own state; raises what the read raises."""
    guard = operator.guard_state()
    return Frame(operator.now(), guard, operator.region, operator.identity.arn)


def overview(operator: Operator, around: Frame, arguments: Mapping[str, str]) -> Page:
    """How all targets stand, what is open, and the figures over time."""
    days = next((days for days in RANGES if str(days) == arguments.get("days")), 30)
    targets = history.targets(operator.store.states())
    today = around.now.date()
    summary = summarize(operator.store, today - timedelta(days=days - 1), today)
    return Page(
        "overview.html",
        {
            "targets": targets,
            "judged": [view for view in targets if view.outcome is not Outcome.IGNORED],
            "open": sorted((view for view in targets if view.incident), key=_most_urgent_first),
            "breaks": [Break(view, one) for view in targets for one in view.suppressions],
            "accounts": sorted({view.account for view in targets}),
            "regions": sorted({view.region for view in targets}),
            "cells": {(view.account, view.region): view for view in targets},
            "summary": summary,
            "incident_chart": pictures.incidents(summary.days),
            "exposure_chart": pictures.exposures(summary.days),
            "days": days,
            "ranges": RANGES,
        },
    )


def _most_urgent_first(view: TargetView) -> tuple[int, datetime]:
    rank = URGENCY.index(view.outcome) if view.outcome in URGENCY else len(URGENCY)
    assert view.exposed_since is not None, "only open incidents are sorted"
    return rank, view.exposed_since


def incidents(operator: Operator, around: Frame, arguments: Mapping[str, str]) -> Page:
    """The incidents that are asked for, a page of them."""
    asked = asking.read(arguments, around.now)
    found = None
    if not asked.faults:
        found = history.incidents(operator.store, asked.wanted, around.now, INCIDENTS_A_PAGE, asked.cursor)
    return Page("incidents.html", {"asked": asked, "found": found, **_choices()}, 400 if asked.faults else 200)


def records(operator: Operator, around: Frame, arguments: Mapping[str, str]) -> Page:
    """The records that are asked for, a page of them."""
    asked = asking.read(arguments, around.now)
    found = None
    if not asked.faults:
        found = history.records(operator.store, asked.wanted, around.now, RECORDS_A_PAGE, asked.cursor)
    return Page("records.html", {"asked": asked, "found": found, **_choices()}, 400 if asked.faults else 200)


def _choices() -> dict[str, Any]:
    return {"outcomes": list(Outcome), "spans": asking.SPANS}


def incident(operator: Operator, account: str, region: str, seq: int) -> Page:
    """One incident with its timeline. Raises NotThere."""
    name = f"{account}/{region}#{seq}"
    try:
        found = history.incident(operator.store, name)
    except ValueError as error:
        raise NotThere(str(error)) from error
    if found is None:
        raise NotThere(f"There is no incident {name}.")
    return Page("incident.html", {"incident": found, "milestones": _milestones(found)})


def _milestones(found: IncidentView) -> list[tuple[str, datetime]]:
    """What happened when, in short: the change, the first look, each mutation of X-Ray's setting, the end."""
    told = [("changed", found.cause.at)] if found.cause else []
    told.append(("found", found.opened_at))
    records = [entry.record for entry in found.entries]
    told += [
        ("applied", action.at)
        for record in records
        for action in record.actions
        if action.name == "PutEncryptionConfig" and action.error is None
    ]
    if found.closed_at:
        told.append(("active" if found.outcome is Outcome.REMEDIATED else "closed", found.closed_at))
    return sorted(told, key=lambda each: each[1])


def record(operator: Operator, chain_name: str, seq: int) -> Page:
    """One record as it was hashed. Raises NotThere."""
    if seq < 1:
        raise NotThere(f"There is no record {chain_name}#{seq}.")
    rows = operator.store.oldest(chain_name, 1, seq).rows
    try:
        entry = Entry(hashchain.unseal(rows[0].body), rows[0].hash) if rows else None
    except ValueError as error:
        raise NotThere(f"The record {chain_name}#{seq} cannot be read: {error}. Verify the log.") from error
    if entry is None or entry.record.seq != seq:
        raise NotThere(f"There is no record {chain_name}#{seq}.")
    return Page("record.html", {"entry": entry, "body": laid_out(rows[0].body.decode("utf-8", "replace"))})


def target(operator: Operator, around: Frame, account: str, region: str) -> Page:
    """The present of one target and its latest incidents. Raises NotThere."""
    try:
        named = Target.parse(f"{account}/{region}")
    except ValueError as error:
        raise NotThere(str(error)) from error
    state = operator.store.load(str(named)).state
    if state.version == 0:
        raise NotThere(f"The guard has not seen {named} yet.")
    latest = history.incidents(operator.store, Filter(target=str(named)), around.now, 10)
    return Page("target.html", {"view": views.target_view(state), "latest": latest})


def policy(operator: Operator) -> Page:
    """The policy document, and whether it is the one that the deployed guard runs."""
    document = operator.policy
    text = operator.policy_file.read_text("utf-8")
    return Page("policy.html", {"policy": document, "text": text, "path": operator.policy_file})


def audit_state(operator: Operator, around: Frame, arguments: Mapping[str, str]) -> Page:
    """The chains and their last anchor; on demand, what verifying them finds."""
    heads = sorted(operator.store.heads())
    latest = history.records(operator.store, Filter(target=GUARD_CHAIN), around.now, 50)
    anchors = [entry for entry in latest.entries if entry.record.reason == "SWEEP"]
    asked = arguments.get("verify", "")
    if asked and asked != "all" and asked not in {name for name, _, _ in heads}:
        raise NotThere(f"There is no chain {asked}.")
    report, took = None, 0.0
    bucket = os.environ.get("XRAY_GUARD_ANCHOR_BUCKET")
    if asked:
        began = time.monotonic()
        only = None if asked == "all" else asked
        extra, odd = read_anchors(operator.clients, operator.region, bucket) if bucket else ([], [])
        report = verify(operator.store, extra, only=only, extra_findings=odd)
        took = time.monotonic() - began
    told = {"heads": heads, "anchors": anchors, "report": report, "took": took, "verified": asked, "bucket": bucket}
    return Page("audit.html", told)
