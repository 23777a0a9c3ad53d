"""The two runs that no event starts: `tick` takes up what is due, `sweep` looks at every target and anchors the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct, field

from chalicelib.auditlog.anchors import anchor_digest
from chalicelib.domain.actors import read_actor
from chalicelib.domain.errors import GuardError
from chalicelib.domain.model import Target, Trigger, TriggerKind
from chalicelib.domain.ports import Asked, Requests
from chalicelib.domain.reasons import Outcome, Problem, Reason
from chalicelib.domain.stored import GUARD_CHAIN, Record
from chalicelib.loop.guard import Guard, Result, record_in_guard_chain
from chalicelib.loop.reconcile import reconcile

DUE_AT_ONCE = 200
"""As many as one tick takes up; the next tick comes a minute later."""

HEADS_PER_RECORD = 2000
"""Keeps an anchor's record well under DynamoDB's 400 KB an item."""

SECONDS_FOR_ONE = 25.0
"""A run does not begin another target with less than this left."""


class Anchors(Protocol):
    """Where the heads of all chains are written down beside the log itself."""

    def keep(self, record: Record, heads: Sequence[tuple[str, int, str]]) -> None:
        """Write down the heads that the sweep's record anchors."""


class Report(Struct):
    """What a run over several targets came to.

    `unreached` maps a target to why it was not brought to an end. `bugs` are the exceptions that nobody expected, with
    their tracebacks, for the function's log.
    """

    results: list[Result] = field(default_factory=list)
    unreached: dict[str, Problem] = field(default_factory=dict)
    bugs: list[Exception] = field(default_factory=list)
    paused: bool = False

    @property
    def outcomes(self) -> dict[str, int]:
        """How many targets ended with which outcome."""
        return dict(sorted(Counter(result.outcome.value for result in self.results).items()))


def tick(guard: Guard, seconds_left: Callable[[], float]) -> Report:
    """Reconcile what is due, soonest first, and then what operators asked for.

    One target's failure does not stop the others (P11). What is asked for is attempted once; what it comes to is on the
    target's record, with the operator as its actor.
    """
    report = Report(paused=guard.store.load(GUARD_CHAIN).guard.paused is not None)
    for name in guard.store.due(guard.clock.now(), DUE_AT_ONCE):
        if seconds_left() < SECONDS_FOR_ONE:
            break
        try:
            target = Target.parse(name)
        except ValueError as error:
            report.unreached[name] = Problem(Reason.NOT_A_TARGET, str(error), retryable=False)
            continue
        _reach(guard, target, Trigger(TriggerKind.TICK), report)
    for asked in guard.requests.asked(DUE_AT_ONCE):
        if seconds_left() < SECONDS_FOR_ONE:
            break
        _heed(guard, asked, report)
    return report


def sweep(
    guard: Guard,
    regions: Callable[[], Iterable[str]],
    anchors: Anchors | None,
    seconds_left: Callable[[], float],
) -> Report:
    """Reconcile every enabled Region of the guard's account, then anchor the heads of all chains.

    Mutates at most as many targets as the policy allows (P17). A target that could not be reached is named in the
    sweep's record; without the list of Regions there is no sweep, and the record says so.
    """
    trigger = Trigger(TriggerKind.SWEEP)
    report = Report()
    try:
        targets = [Target(guard.account, region) for region in regions()]
    except GuardError as error:
        record_in_guard_chain(guard, Outcome.FAILED, trigger, reason=Reason.NO_REGIONS, error=error.problem)
        raise
    budget = guard.policy.limits.remediations_per_sweep
    for target in _longest_unseen_first(guard, targets):
        if seconds_left() < SECONDS_FOR_ONE:
            report.unreached[str(target)] = Problem(Reason.OUT_OF_TIME, "the sweep's time was used up by other targets")
            continue
        mutated = sum(result.mutated for result in report.results)
        _reach(guard, target, trigger, report, budget_left=mutated < budget)
    _anchor(guard, trigger, report, anchors)
    return report


def _longest_unseen_first(guard: Guard, targets: Sequence[Target]) -> list[Target]:
    """So that a sweep that runs out of time begins the next one where it stopped."""
    seen: dict[str, datetime | None] = {}
    try:
        for state in guard.store.states():
            seen[state.target] = state.checked_at
    except GuardError:
        # A state that cannot be read hides those after it. Only the order suffers: its own run will say what is wrong.
        pass

    def key(target: Target) -> tuple[float, Target]:
        at = seen.get(str(target))
        return (at.timestamp() if at else 0.0, target)

    return sorted(targets, key=key)


def _heed(guard: Guard, asked: Asked, report: Report) -> None:
    """Look at a target because an operator asked. It goes on waiting where not even that could be stored."""
    arn = asked.by
    actor = read_actor({"type": "AssumedRole" if ":assumed-role/" in arn else "IAMUser", "arn": arn})
    try:
        target = Target.parse(asked.target)
    except ValueError:
        _done(guard.requests, asked, report)  # nobody can ask for that over the API; waiting would not help
        return
    _reach(guard, target, Trigger(TriggerKind.OPERATOR, actor=actor), report)
    problem = report.unreached.get(asked.target)
    if problem is None or problem.code == Reason.INTERNAL_ERROR:
        _done(guard.requests, asked, report)


def _done(requests: Requests, asked: Asked, report: Report) -> None:
    """Take a request off the list. One that stays is tried again, and does not keep the others waiting."""
    try:
        requests.answered(asked)
    except GuardError as error:
        report.unreached[asked.target] = error.problem


def _reach(guard: Guard, target: Target, trigger: Trigger, report: Report, *, budget_left: bool = True) -> None:
    try:
        report.results.append(reconcile(guard, target, trigger, budget_left=budget_left))
    except GuardError as error:
        report.unreached[str(target)] = error.problem
    except Exception as error:
        # On the target's record already; the others still get their turn, and the caller makes it loud.
        report.unreached[str(target)] = Problem(Reason.INTERNAL_ERROR, type(error).__name__)
        report.bugs.append(error)


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
        state={"swept_at": guard.clock.now()},
        reason=Reason.SWEEP,
        error=next(iter(report.unreached.values()), None),
        detail={
            "outcomes": report.outcomes,
            "unreached": {target: problem.code for target, problem in report.unreached.items()},
            "heads": parts[-1],
            "digest": anchor_digest(heads),
        },
    )
    if anchors is not None and record is not None:
        anchors.keep(record, heads)
