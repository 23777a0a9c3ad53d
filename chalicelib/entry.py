"""Lambda's handlers, called by `app.py`. Each process creates its guard once and keeps it.

A result that cannot be stored is raised, so that Lambda retries and finally sends the event to the dead-letter queue.
Everything else is recorded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from msgspec.structs import replace

from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.domain.errors import GuardError
from chalicelib.domain.events import KEY_EVENTS, KEY_NOTICES, read_change, read_key_event
from chalicelib.domain.model import Rejected, Trigger, TriggerKind, arn_part
from chalicelib.domain.policy import PolicyError, load_stamped
from chalicelib.domain.reasons import Outcome, Problem, Reason, Violation
from chalicelib.domain.refusals import passes_by_itself
from chalicelib.domain.stored import Record
from chalicelib.loop.batch import Report
from chalicelib.loop.commit import record_in_guard_chain
from chalicelib.loop.guard import Guard, Result
from chalicelib.loop.reconcile import reconcile
from chalicelib.loop.sweep import sweep as sweep_targets
from chalicelib.loop.tick import tick as take_up_due
from chalicelib.wiring import POLICIES, make_guard

NAMESPACE = "XRayEncryptionGuard"
OBSERVED_ONLY = {
    Violation.KEY_POLICY_OPEN: "KeyPolicyOpen",
    Violation.SPANS_FORBIDDEN: "SpansForbidden",
    Violation.TRACES_COPIED: "TracesCopied",
}
"""The metric of each violation that the guard never remediates; each has an alarm."""

LEASE_OUTLIVES_SECONDS = 60

COUNTED = {Outcome.FAILED: "Failed", Outcome.REMEDIATED: "Remediated", Outcome.DEFERRED: "Deferred"}
_NO_ERROR = {"errorCode": [{"exists": False}]}
"""A failed call changed nothing."""
_OF_SPANS = {
    "$or": [
        {"logGroupName": ["aws/spans"]},
        # AssociateKmsKey and DisassociateKmsKey also take the log group's ARN.
        {"resourceIdentifier": [{"suffix": ":log-group:aws/spans"}, {"suffix": ":log-group:aws/spans:*"}]},
    ]
}
KEY_CHANGES: dict[str, Any] = {
    "detail-type": ["AWS API Call via CloudTrail", "AWS Service Event via CloudTrail", *sorted(KEY_NOTICES)],
    "$or": [
        # KMS's own notices have no event name.
        {"source": ["aws.kms"], "detail": {"eventName": [*sorted(KEY_EVENTS), {"exists": False}], **_NO_ERROR}},
        {"source": ["aws.xray"], "detail": {"eventName": ["UpdateTraceSegmentDestination"], **_NO_ERROR}},
        {
            "source": ["aws.logs"],
            "detail": {
                "eventName": ["AssociateKmsKey", "DeleteLogGroup", "DisassociateKmsKey"],
                "requestParameters": _OF_SPANS,
                **_NO_ERROR,
            },
        },
        {"source": ["aws.oam"], "detail": {"eventName": ["CreateLink", "DeleteLink", "UpdateLink"], **_NO_ERROR}},
    ],
}
"""The pattern of the events that invoke `on_key_change`: changes to keys, to where spans go and to their key, and to
links that copy traces. It is narrow, because calls of KMS and CloudWatch Logs are very frequent."""

logger = Logger(service=os.environ.get("POWERTOOLS_SERVICE_NAME", "xray-guard"))
metrics = Metrics(
    namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE", NAMESPACE),
    service=os.environ.get("POWERTOOLS_SERVICE_NAME", "xray-guard"),
)

_emitting = Lock()
"""One record is emitted at a time, because a sweep's targets share Powertools' metrics."""


class Incomplete(Exception):
    """A run over several targets could not store the results of some of them."""


class _Process:
    """What one Lambda process keeps between invocations."""

    def __init__(self) -> None:
        self.clients = Clients()
        self.guard: Guard | None = None

    def guard_for(self, context: Any) -> Guard:
        """Return the guard, with a lease that covers the rest of this invocation."""
        if self.guard is None:
            arn = context.invoked_function_arn
            self.guard = make_guard(
                self.clients,
                load_stamped(POLICIES),
                account=arn_part(arn, 4),
                partition=arn_part(arn, 1),
                region=arn_part(arn, 3),
                role_arn=os.environ["XRAY_GUARD_ROLE_ARN"],
                emit=_emit,
                lease_seconds=0,
                worker="",
                observe_only=os.environ.get("XRAY_GUARD_RIGHTS") == "observe",
            )
        lease = int(_seconds_left(context)()) + LEASE_OUTLIVES_SECONDS
        return replace(self.guard, lease_seconds=lease, worker=f"{context.function_name}/{context.aws_request_id}")


_process: _Process | None = None


def on_change(event: object, context: Any) -> dict[str, Any]:
    """Reconcile the target of a PutEncryptionConfig event, for any caller and any result of the call."""
    return _invoked(context, lambda guard: _on_change(guard, event))


def tick(event: object, context: Any) -> dict[str, Any]:
    """Reconcile the targets that are due, and those that operators requested."""
    return _invoked(context, lambda guard: _tick(guard, context))


def sweep(event: object, context: Any) -> dict[str, Any]:
    """Check every enabled Region of the account, and anchor the audit log."""
    return _invoked(context, lambda guard: _sweep(guard, context))


def event_history(event: object, context: Any) -> dict[str, Any]:
    """Record the changes that CloudTrail knows and whose events the guard did not receive."""
    return _invoked(context, lambda guard: _event_history(guard, context))


def _on_change(guard: Guard, event: object) -> dict[str, Any]:
    change = read_change(event)
    if isinstance(change, Rejected):
        return _rejected(guard, TriggerKind.CHANGE, change)
    return _told(reconcile(guard, change.target, change.trigger, change))


def on_key_change(event: object, context: Any) -> dict[str, Any]:
    """Reconcile the target of an event about a KMS key, an alias or a key's tags, about spans or about a link."""
    return _invoked(context, lambda guard: _on_key_change(guard, event))


def _on_key_change(guard: Guard, event: object) -> dict[str, Any]:
    change = read_key_event(event)
    if isinstance(change, Rejected):
        return _rejected(guard, TriggerKind.KEY, change)
    return _told(reconcile(guard, change.target, change.trigger, change))


def _tick(guard: Guard, context: Any) -> dict[str, Any]:
    report = take_up_due(guard, _seconds_left(context))
    if report.paused:
        # Every minute, so that the alarm lasts as long as the pause.
        metrics.add_metric("Paused", MetricUnit.Count, 1)
    return _reported(report)


def _sweep(guard: Guard, context: Any) -> dict[str, Any]:
    # No other function needs these, and each import costs time at a cold start.
    from chalicelib.aws.regions import enabled_regions
    from chalicelib.aws.s3_anchors import AnchorBucket

    process = _the_process()
    region = arn_part(context.invoked_function_arn, 3)
    bucket = os.environ.get("XRAY_GUARD_ANCHOR_BUCKET")
    anchors = AnchorBucket(process.clients, region, bucket) if bucket else None
    report = sweep_targets(guard, lambda: enabled_regions(process.clients, region), anchors, _seconds_left(context))
    answer = _reported(report)
    metrics.add_metric("SweepCompleted", MetricUnit.Count, 1)
    return answer


def _event_history(guard: Guard, context: Any) -> dict[str, Any]:
    # As in `_sweep`: no other function needs these.
    from chalicelib.aws.cloudtrail import EventHistoryApi
    from chalicelib.aws.regions import enabled_regions
    from chalicelib.loop.event_history import event_history as read_event_history
    from chalicelib.wiring import make_history_store

    clients, region = _the_process().clients, arn_part(context.invoked_function_arn, 3)
    assert isinstance(guard.clock, AwsClock)
    report = read_event_history(
        guard,
        lambda: enabled_regions(clients, region),
        lambda target: EventHistoryApi(clients, target.region),
        make_history_store(clients, region, guard.clock),
        _seconds_left(context),
        home_region=region,
    )
    if report.deaf:
        # Every hour, so that the alarm lasts as long as the cause.
        metrics.add_metric("Deaf", MetricUnit.Count, len(report.deaf))
    if report.targets and not report.behind:
        metrics.add_metric("EventHistoryRead", MetricUnit.Count, 1)
    if report.refused:
        logger.warning("Event history not read", extra={"targets": report.refused})
    _raise_unreached(report.bugs, report.unreached)
    return {"targets": report.targets, "events": report.events, "missed": report.missed}


def _rejected(guard: Guard, kind: TriggerKind, rejected: Rejected) -> dict[str, Any]:
    """Record an event that names no target in the guard's own chain."""
    record_in_guard_chain(
        guard,
        Outcome.FAILED,
        Trigger(kind, event_id=rejected.event_id),
        reason=rejected.reason,
        error=Problem(rejected.reason, rejected.detail, retryable=False),
    )
    return {"outcome": Outcome.FAILED.value, "reason": rejected.reason}


def _invoked(context: Any, run: Callable[[Guard], dict[str, Any]]) -> dict[str, Any]:
    """Run one invocation and flush its metrics. Without a valid policy, log the error and raise it (P12)."""
    try:
        return run(_the_process().guard_for(context))
    except PolicyError as error:
        logger.error("no valid policy, so no action", extra={"code": error.code, "problem": error.message})
        raise
    except GuardError as error:
        logger.error("run failed", extra={"code": error.problem.code, "problem": error.problem.message})
        raise
    finally:
        if metrics.metric_set:  # Powertools warns about an empty set, and most runs count nothing
            metrics.flush_metrics()


def _the_process() -> _Process:
    global _process
    if _process is None:
        _process = _Process()
    return _process


def _seconds_left(context: Any) -> Callable[[], float]:
    return lambda: context.get_remaining_time_in_millis() / 1000


def _told(result: Result) -> dict[str, Any]:
    return {
        "target": str(result.target),
        "outcome": result.outcome.value,
        "reason": result.reason,
        "record_id": result.record.record_id if result.record else None,
    }


def _reported(report: Report) -> dict[str, Any]:
    _raise_unreached(report.bugs, report.unreached)
    return {"targets": len(report.results), "outcomes": report.outcomes}


def _raise_unreached(bugs: list[Exception], unreached: dict[str, Problem]) -> None:
    """Log what failed, and raise Incomplete if the results of any target could not be stored."""
    for bug in bugs:
        # The targets' records refer to this log.
        logger.error("internal error of the guard", exc_info=bug)
    if unreached:
        first, problem = next(iter(unreached.items()))
        logger.error("targets not reached", extra={"targets": sorted(unreached), "first": problem.code})
        raise Incomplete(f"{len(unreached)} targets not reached, the first {first}: {problem.code}")


def _emit(record: Record) -> None:
    """Log a record and count it. Never log the event itself, nor any free text that came with it.

    Several threads may call it. The log has the records of one target in their order, and those of different targets,
    and of the guard's own chain, as they come.
    """
    with _emitting:
        _log_and_count(record)


def _log_and_count(record: Record) -> None:
    extra: dict[str, object] = {
        "record_id": record.record_id,
        "incident_id": record.incident_id,
        "outcome": record.outcome.value,
        "reason": record.reason,
        "violations": [violation.value for violation in record.violations],
        "actions": [action.name for action in record.actions],
        "trigger": record.trigger.kind.value,
    }
    if record.reason == Reason.SWEEP:
        extra["anchor_digest"] = record.detail.get("digest")
    logger.info("record", extra=extra)
    if record.outcome in COUNTED and not passes_by_itself(record):
        metrics.add_metric(COUNTED[record.outcome], MetricUnit.Count, 1)
    if record.outcome is Outcome.DEFERRED and record.reason == Reason.BACKOFF:
        metrics.add_metric("Flapping", MetricUnit.Count, 1)
    if record.reason == Reason.ROLE_BORROWED:
        metrics.add_metric("RoleBorrowed", MetricUnit.Count, 1)
    if record.reason == Reason.UNCONFIRMED:
        metrics.add_metric("Unconfirmed", MetricUnit.Count, 1)
    for violation, metric in OBSERVED_ONLY.items():
        if violation in record.violations:
            metrics.add_metric(metric, MetricUnit.Count, 1)
    if record.reason in (Reason.STATE_EDITED, Reason.KEY_NOT_ON_RECORD):
        metrics.add_metric("StateEdited", MetricUnit.Count, 1)
    if record.reason == Reason.REGION_DENIED and record.before is not None:
        # Alarm only for a Region that the guard could read before, not for one that was always denied.
        metrics.add_metric("RegionDenied", MetricUnit.Count, 1)
