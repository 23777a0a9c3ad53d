"""Tick: reconcile the targets that are due and those that operators requested, and record what was only counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from chalicelib.domain.actors import read_actor
from chalicelib.domain.errors import GuardError
from chalicelib.domain.model import Actor, Target, Trigger, TriggerKind
from chalicelib.domain.ports import Request, Requests
from chalicelib.domain.reasons import Problem, Reason
from chalicelib.domain.settle import CountingOver, settle
from chalicelib.domain.stored import GUARD_CHAIN, Tally
from chalicelib.loop.batch import SECONDS_FOR_ONE, Report, reach_target
from chalicelib.loop.commit import commit
from chalicelib.loop.guard import Guard

DUE_AT_ONCE = 200
"""The most that one tick handles; the next tick comes a minute later."""


def tick(guard: Guard, seconds_left: Callable[[], float]) -> Report:
    """Reconcile the targets that are due, soonest first, and those that operators requested; then close tallies.

    A few targets at a time: neither the failure of one (P11) nor a slow Region holds up the others. A request is
    attempted once; the target's record has the result, with the operator as its actor.
    """
    report = Report(paused=guard.store.load(GUARD_CHAIN).guard.paused is not None)
    jobs: dict[str, list[Callable[[], object]]] = {}
    for name in guard.store.due(guard.clock.now(), DUE_AT_ONCE):
        try:
            target = Target.parse(name)
        except ValueError as error:
            report.unreached[name] = Problem(Reason.NOT_A_TARGET, str(error), retryable=False)
            continue
        job = partial(reach_target, guard, target, Trigger(TriggerKind.TICK), report, seconds_left)
        jobs.setdefault(name, []).append(job)
    for request in _pending(guard.requests, report):
        jobs.setdefault(request.target, []).append(partial(_heed, guard, request, report, seconds_left))
    guard.fan_out([partial(_in_turn, of_one_target, seconds_left) for of_one_target in jobs.values()])
    for tally in guard.store.over(guard.clock.now(), DUE_AT_ONCE):
        if seconds_left() < SECONDS_FOR_ONE:
            break
        close_tally(guard, tally, report)
    return report


def _pending(requests: Requests, report: Report) -> Sequence[Request]:
    """Read operators' requests. If that fails, the targets that are due are reconciled all the same."""
    try:
        return requests.pending(DUE_AT_ONCE)
    except GuardError as error:
        report.unreached["requests"] = error.problem
        return ()


def _in_turn(jobs: Sequence[Callable[[], object]], seconds_left: Callable[[], float]) -> None:
    """Do the jobs of one target, one after the other, while there is time."""
    for job in jobs:
        if seconds_left() < SECONDS_FOR_ONE:
            return
        job()


def _heed(guard: Guard, request: Request, report: Report, seconds_left: Callable[[], float]) -> None:
    """Reconcile a target at an operator's request. The request stays pending if nothing could be stored."""
    arn = request.by
    actor = read_actor({"type": "AssumedRole" if ":assumed-role/" in arn else "IAMUser", "arn": arn})
    try:
        target = Target.parse(request.target)
    except ValueError:
        _done(guard.requests, request, report)  # the API does not accept such a request; keeping it would not help
        return
    problem = reach_target(guard, target, Trigger(TriggerKind.OPERATOR, actor=actor), report, seconds_left)
    if problem is None or problem.code == Reason.INTERNAL_ERROR:
        _done(guard.requests, request, report)


def close_tally(guard: Guard, tally: Tally, report: Report) -> None:
    """Record how many calls were only counted, if any. If that fails, the next tick tries again."""
    try:
        if tally.counted:
            guard.until_stored(lambda: _record_count(guard, tally), f"{tally.target}: a count of calls")
        else:
            guard.store.forget(tally)
    except GuardError as error:
        report.unreached[tally.target] = error.problem


def _record_count(guard: Guard, tally: Tally) -> None:
    """Store the number and close the tally, unless somebody else closed it meanwhile. Raises Conflict."""
    stored = guard.store.load(tally.target, tally=tally).tally
    if stored is not None and stored.since == tally.since:
        run = guard.run(Target.parse(tally.target), Trigger(TriggerKind.TICK, actor=Actor(tally.principal)))
        known = guard.known(run)
        commit(guard, run, known, settle(run, known, CountingOver(tally), guard.at()))


def _done(requests: Requests, request: Request, report: Report) -> None:
    """Remove a request. If that fails, the request is tried again later and does not delay the others."""
    try:
        requests.done(request)
    except GuardError as error:
        report.unreached[request.target] = error.problem
