"""Tick: take up what is due, and what operators requested."""

from __future__ import annotations

from collections.abc import Callable

from chalicelib.domain.actors import read_actor
from chalicelib.domain.errors import GuardError
from chalicelib.domain.model import Target, Trigger, TriggerKind
from chalicelib.domain.ports import Request, Requests
from chalicelib.domain.reasons import Problem, Reason
from chalicelib.domain.stored import GUARD_CHAIN
from chalicelib.loop.batch import SECONDS_FOR_ONE, Report, reach_target
from chalicelib.loop.guard import Guard

DUE_AT_ONCE = 200
"""As many as one tick takes up; the next tick comes a minute later."""


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
        reach_target(guard, target, Trigger(TriggerKind.TICK), report)
    for request in guard.requests.pending(DUE_AT_ONCE):
        if seconds_left() < SECONDS_FOR_ONE:
            break
        _heed(guard, request, report)
    return report


def _heed(guard: Guard, request: Request, report: Report) -> None:
    """Look at a target because an operator asked. It goes on waiting where not even that could be stored."""
    arn = request.by
    actor = read_actor({"type": "AssumedRole" if ":assumed-role/" in arn else "IAMUser", "arn": arn})
    try:
        target = Target.parse(request.target)
    except ValueError:
        _done(guard.requests, request, report)  # nobody can ask for that over the API; waiting would not help
        return
    reach_target(guard, target, Trigger(TriggerKind.OPERATOR, actor=actor), report)
    problem = report.unreached.get(request.target)
    if problem is None or problem.code == Reason.INTERNAL_ERROR:
        _done(guard.requests, request, report)


def _done(requests: Requests, request: Request, report: Report) -> None:
    """Take a request off the list. One that stays is tried again, and does not keep the others waiting."""
    try:
        requests.done(request)
    except GuardError as error:
        report.unreached[request.target] = error.problem
