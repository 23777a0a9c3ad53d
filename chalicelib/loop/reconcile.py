"""The loop: triage, observe, decide, act, record. One function for every trigger.

An event is only a hint to check the target. A run reads the target's state and its live setting, and decides. It stores
one record, or none if nothing changed, or it remediates: it stores REMEDIATING with a lease, sends one mutation after
the other, and stores how the attempt ended. Nothing is mutated before REMEDIATING is stored (P3) or after the lease's
end (P8). REMEDIATED is stored only after X-Ray reported the required key with status ACTIVE (P4).

A crash leaves a REMEDIATING without its end. After the lease, another run may take over, and records that end.

Everything between reading and writing is a pure function of `chalicelib.domain`: `triage`, `reading`, `decide`,
`attempts` and `settle`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain.attempts import begin
from chalicelib.domain.decide import decide
from chalicelib.domain.echo import is_own
from chalicelib.domain.errors import (
    AwsError,
    Busy,
    Conflict,
    GuardError,
    KeyNotOnRecord,
    LeaseOver,
    StateEdited,
    StoreError,
    denies_region,
)
from chalicelib.domain.model import ChangeEvent, KeyEvent, Target, Trigger
from chalicelib.domain.policy import Policy
from chalicelib.domain.ports import Reach
from chalicelib.domain.reasons import UNRECORDED, Outcome, Problem, Reason
from chalicelib.domain.run import Known, Run
from chalicelib.domain.settle import (
    EchoConfirmed,
    End,
    Failed,
    Ignored,
    Judged,
    LeaseHeld,
    OnlyCounted,
    RegionDenied,
    settle,
)
from chalicelib.domain.stored import Lease
from chalicelib.domain.triage import Next, Triage, triage, triage_echo
from chalicelib.loop.addendum import note_addendum
from chalicelib.loop.attempt import Attempt
from chalicelib.loop.commit import commit, record_in_guard_chain
from chalicelib.loop.guard import MOST_CONFLICTS, Guard, Result
from chalicelib.loop.judging import judge_target, learn
from chalicelib.loop.observe import glance, glance_reads

MOST_STORE_ERRORS = 1

LONGEST_DOCUMENT = 300_000
"""In bytes of JSON, the form in which a record is stored. An item of DynamoDB holds at most 400 KB."""


class _Found(Struct, frozen=True):
    """What a run knows after its reads, and what follows.

    `end` is a Result if nothing needs to be stored; Judged with REMEDIATING if the run begins an attempt; else its end.
    """

    known: Known
    end: End | Result


def reconcile(
    guard: Guard,
    target: Target,
    trigger: Trigger,
    event: ChangeEvent | KeyEvent | None = None,
) -> Result:
    """Make one target compliant, or record why not. Of an addendum, then record what it says.

    Raises `Busy` if every attempt conflicted with another writer, and any error that kept the record from being stored.
    Other errors are recorded, and the target is due again.
    """
    run = guard.run(target, trigger, event)
    result = _reconcile(guard, run)
    if event is not None and event.addendum_id is not None:
        note_addendum(guard, run)
    return result


def _reconcile(guard: Guard, run: Run) -> Result:
    store_errors = 0
    reserved = False
    for _ in range(MOST_CONFLICTS):
        lease: Lease | None = None
        try:
            found = _find_out(guard, run)
            if found is None:
                # Our own event, but somebody else changed the setting later; the event does not say who.
                run = run.without_event()
                found = _find_out(guard, run)
            if not isinstance(found, _Found):
                assert found is not None
                return found
            known, end = found.known, found.end
            if isinstance(end, Result):
                result = end
            elif not (isinstance(end, Judged) and end.decision.outcome is Outcome.REMEDIATING):
                result = _settle(guard, run, known, end)
            elif not (reserved or guard.budget.take()):
                result = _settle(guard, run, known, _beyond_budget(guard, run, known, end))
            else:
                before, reserved = reserved, True
                try:
                    begun = _begin(guard, run, known, end)
                except Conflict:
                    if not before:
                        guard.budget.give_back()
                    reserved = before
                    raise
                incident = begun.state.incident
                assert incident is not None
                assert incident.lease is not None
                lease = incident.lease
                acted_before = known.state.incident is not None and known.state.incident.mutated
                keys = frozenset(step.key_arn for step in end.decision.steps if step.key_arn)
                decision = end.decision
                attempt = Attempt(
                    guard, run, begun, lease, keys, decision.held, decision.suppression, mutated=acted_before
                )
                result = attempt.act(end.seen)
        except Conflict:
            guard.step_aside()
        except StoreError:
            # It is unknown whether the write was stored: check again, and if that fails too, let Lambda retry.
            store_errors += 1
            if store_errors > MOST_STORE_ERRORS:
                raise
        except GuardError as error:
            try:
                return _fail(guard, run, error, lease)
            except Conflict:
                continue
        except LeaseOver:
            return Result(run.target, Outcome.DEFERRED, Reason.LEASE_OVER)
        except Exception as error:
            problem = Problem(Reason.INTERNAL_ERROR, f"{type(error).__name__} in the guard; see the function's log")
            _settle(guard, run, guard.known(run), Failed(problem, lease))
            raise
        else:
            # An error here is not a failure of the target, so it is raised and not recorded there.
            _announce_policy(guard, run, known)
            return result
    raise Busy(Problem(Reason.BUSY, f"{run.target}: {MOST_CONFLICTS} attempts conflicted with other writers"))


def _find_out(guard: Guard, run: Run) -> _Found | Result | None:
    """Triage, read and decide.

    A Result if not even the state had to be read. None means that the run must start again without its event.
    """
    step = triage(run, None, guard.clock.now())
    if step.next is Next.IGNORE:
        return _ignored(guard, run, step, None)
    reach = guard.reach(run.target)
    reads = glance_reads(reach, run.rule) if run.rule else []
    answers = []
    if step.next is Next.READ_TOGETHER:
        known, *answers = guard.gather([lambda: guard.known(run), *reads])
    else:
        known = guard.known(run)
    state = known.state
    step = triage(run, known, guard.clock.now())
    match step.next:
        case Next.IGNORE:
            return _ignored(guard, run, step, known)
        case Next.COUNT:
            return _Found(known, OnlyCounted())
        case Next.NOT_DUE:
            return _Found(known, Result(run.target, state.outcome or Outcome.IGNORED, Reason.NOT_DUE, due=state.due))
        case Next.IN_PROGRESS:
            return _Found(known, LeaseHeld())
        case Next.CONFIRM_ECHO:
            return _confirm_echo(reach, run, known)
    assert run.rule is not None
    if state.incident or not answers:
        # Reads made together with the state may be older than the state. Only later reads may close an incident.
        answers = guard.gather(reads)
    first = glance(reach, answers)
    known = learn(guard, reach, known)
    return _Found(known, judge_target(guard, reach, run, run.rule, known, first))


def _ignored(guard: Guard, run: Run, step: Triage, known: Known | None) -> _Found | Result:
    reason = step.reason or ""
    if reason in UNRECORDED:
        result = Result(run.target, Outcome.IGNORED, reason)
        return _Found(known, result) if known else result
    return _Found(known or guard.known(run), Ignored(reason, step.message))


def _confirm_echo(reach: Reach, run: Run, known: Known) -> _Found | None:
    """Handle the event of the guard's own change: end an APPLIED incident, or observe if another setting is found."""
    echo = _Found(known, Result(run.target, Outcome.IGNORED, Reason.ECHO))
    try:
        setting = reach.xray.get()
    except AwsError:
        # An APPLIED incident has its own due time, and any other change has its own event.
        return echo
    match triage_echo(known.state, setting).next:
        case Next.CLOSE:
            return _Found(known, EchoConfirmed(setting))
        case Next.OBSERVE:
            return None
    return echo


def _settle(guard: Guard, run: Run, known: Known, end: End) -> Result:
    """Settle and store. The event of the guard's own call is no part of what is stored."""
    if is_own(run, known.state):
        run = run.without_event()
    return commit(guard, run, known, settle(run, known, end, guard.at()))[1]


def _fail(guard: Guard, run: Run, error: GuardError, lease: Lease | None) -> Result:
    """Record the failure, also in a state that only claims to be of an earlier release."""
    end = RegionDenied(error.problem) if denies_region(error) else Failed(error.problem, lease)
    known = guard.known(run)
    intent = known.state.intent
    if isinstance(error, KeyNotOnRecord) and intent is not None and error.key == intent.nonce:
        # Otherwise each check would find the stranger's key again.
        known = replace(known, state=replace(known.state, intent=None))
    try:
        return _settle(guard, run, known, end)
    except StateEdited as edited:
        return _settle(guard, run, known.as_of_this_format(), Failed(edited.problem, lease))


def _beyond_budget(guard: Guard, run: Run, known: Known, judged: Judged) -> Judged:
    """Decide again, now that the sweep may mutate no other target. Only a run that would mutate takes of the budget."""
    beyond = replace(run, budget_left=False)
    return replace(judged, decision=decide(beyond, known, judged.seen, judged.glass.in_force, guard.clock.now()))


def _begin(guard: Guard, run: Run, known: Known, judged: Judged) -> Known:
    """Store REMEDIATING with a lease. If only records were added meanwhile, the observation is still valid.

    Otherwise anybody could keep the guard observing forever by sending refused calls, because each of them is recorded.
    Raises Conflict if anything else changed.
    """
    for _ in range(MOST_CONFLICTS):
        settlement = begin(run, known, judged.seen, judged.glass, judged.decision, guard.at(), guard.new_id())
        try:
            return commit(guard, run, known, settlement)[0]
        except Conflict:
            fresh = guard.known(run)
            paused_since = fresh.guard.paused != known.guard.paused
            if paused_since or not fresh.stored.differs_only_in_chain(known.stored):
                raise
            stored = fresh.stored
            state = replace(known.state, version=stored.version, seq=stored.seq, head=stored.head)
            known = replace(fresh, state=state)
    raise Conflict(str(run.target))


def _document(policy: Policy) -> dict[str, Any]:
    """The policy's text for the record, or its size where it would not fit into an item of DynamoDB's."""
    size = len(msgspec.json.encode(policy.document))
    return {"document": policy.document} if size <= LONGEST_DOCUMENT else {"document_bytes": size}


def _announce_policy(guard: Guard, run: Run, known: Known) -> None:
    """Record a new policy digest in the guard's own chain, once, with the first run under that policy."""
    digest = guard.policy.digest
    if known.guard.policy_digest != digest:
        record_in_guard_chain(
            guard,
            Outcome.IGNORED,
            Trigger(run.trigger.kind),
            reason=Reason.POLICY_IN_FORCE,
            detail=_document(guard.policy),
            unless=lambda state: state.policy_digest == digest,
            state=lambda record: {"policy_digest": digest, "policy_seq": record.seq},
        )
