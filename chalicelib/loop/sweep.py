"""Sweep: check every target, and anchor the audit log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol

from msgspec.structs import replace

from chalicelib.auditlog.anchors import anchor_digest
from chalicelib.domain.errors import GuardError
from chalicelib.domain.model import Target, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Problem, Reason
from chalicelib.domain.stored import Record
from chalicelib.loop.batch import SECONDS_FOR_ONE, Report, figures, reach_target
from chalicelib.loop.commit import record_in_guard_chain
from chalicelib.loop.guard import Budget, Guard

HEADS_PER_RECORD = 2000
"""Keeps an anchor's record well below DynamoDB's limit of 400 KB per item."""


class Anchors(Protocol):
    """Where the heads of all chains are stored in addition to the log itself."""

    def keep(self, record: Record, heads: Sequence[tuple[str, int, str]]) -> None:
        """Store the heads that the sweep's record anchors."""


def sweep(
    guard: Guard,
    regions: Callable[[], Iterable[str]],
    anchors: Anchors | None,
    seconds_left: Callable[[], float],
) -> Report:
    """Reconcile every enabled Region of the guard's account, a few at a time, then anchor the heads of all chains.

    Mutates at most as many targets as the policy allows (P17). The sweep's record names every target that it could not
    reach. If the Regions cannot be listed, there is no sweep, and the record says so.
    """
    trigger = Trigger(TriggerKind.SWEEP)
    report = Report()
    try:
        targets = [Target(guard.account, region) for region in regions()]
    except GuardError as error:
        record_in_guard_chain(guard, Outcome.FAILED, trigger, reason=Reason.NO_REGIONS, error=error.problem)
        raise
    limited = replace(guard, budget=Budget(guard.policy.limits.remediations_per_sweep))

    def check(target: Target) -> None:
        if seconds_left() < SECONDS_FOR_ONE:
            report.unreached[str(target)] = Problem(Reason.OUT_OF_TIME, "the sweep ran out of time before this target")
        else:
            reach_target(limited, target, trigger, report, seconds_left)

    guard.fan_out([partial(check, target) for target in _longest_unseen_first(guard, targets)])
    _anchor(guard, trigger, report, anchors)
    return report


def _longest_unseen_first(guard: Guard, targets: Sequence[Target]) -> list[Target]:
    """Sort the targets so that after a sweep ran out of time, the next one begins where it stopped."""
    seen: dict[str, datetime | None] = {}
    try:
        for state in guard.store.states():
            seen[state.target] = state.checked_at
    except GuardError:
        # An unreadable state hides those after it. This affects only the order: the target's own run reports the error.
        pass

    def key(target: Target) -> tuple[float, Target]:
        at = seen.get(str(target))
        return (at.timestamp() if at else 0.0, target)

    return sorted(targets, key=key)


def _anchor(guard: Guard, trigger: Trigger, report: Report, anchors: Anchors | None) -> None:
    heads = sorted(guard.store.heads())
    parts = [heads[first : first + HEADS_PER_RECORD] for first in range(0, len(heads), HEADS_PER_RECORD)] or [[]]
    for part in parts[:-1]:
        record_in_guard_chain(guard, Outcome.IGNORED, trigger, reason=Reason.ANCHOR, detail={"heads": part})
    outcome = Outcome.FAILED if report.unreached else Outcome.IGNORED
    record = record_in_guard_chain(
        guard,
        outcome,
        trigger,
        state=lambda record: {"swept_at": record.at},
        reason=Reason.SWEEP,
        error=next(iter(report.unreached.values()), None),
        detail={
            "outcomes": report.outcomes,
            "run": figures(report.spans),
            "unreached": {target: problem.code for target, problem in report.unreached.items()},
            "heads": parts[-1],
            "digest": anchor_digest(heads),
        },
    )
    if anchors is not None and record is not None:
        anchors.keep(record, heads)
