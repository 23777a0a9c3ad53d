"""What a run stores at its end, and when its target is due again: one pure function for every end.

Compliant, ignored, observed, suppressed, deferred, still updating, failed: each is recorded when it begins and when an
event must be audited, but not again while it lasts. How an attempt begins and ends is in `attempts`.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain import attempts, floods, incidents, waiting
from chalicelib.domain.attempts import Attempted
from chalicelib.domain.breakglass import Weighed
from chalicelib.domain.decide import Decision
from chalicelib.domain.deferrals import not_acted_on
from chalicelib.domain.keychoice import adoption
from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import EncryptionStatus, EncryptionType, Setting, TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.reasons import NOT_JUDGED, Outcome, Problem, Reason
from chalicelib.domain.run import At, Known, Run
from chalicelib.domain.settlement import Settlement, SettlementDraft
from chalicelib.domain.stored import Incident, Lease, Phase, Tally, TargetState


class Ignored(Struct, frozen=True):
    """The target is not judged. `reason` says why, or is AWS's error code of a refused call."""

    reason: str
    message: str | None = None


class OnlyCounted(Struct, frozen=True):
    """The run's event is one of a flood: it is counted, and has no record of its own."""


class CountingOver(Struct, frozen=True):
    """The time of a tally is over: its number is recorded."""

    tally: Tally


class LeaseHeld(Struct, frozen=True):
    """Another worker holds the lease."""


class EchoConfirmed(Struct, frozen=True):
    """The guard's own change is in effect now. The run must not have the event: nobody else made this change."""

    setting: Setting


class Judged(Struct, frozen=True):
    """The target was observed, and this is what to do about it."""

    seen: Observation
    glass: Weighed
    decision: Decision


class RegionDenied(Struct, frozen=True):
    """A service control policy denies the guard the Region."""

    problem: Problem


class Failed(Struct, frozen=True):
    """A read or an action failed. `held` is the lease that this run took.

    Only that lease ends here: Lambda retries a run under the same request id, and so the same owner, while the first
    try may still be acting.
    """

    problem: Problem
    held: Lease | None = None


End: TypeAlias = (
    Ignored | OnlyCounted | CountingOver | LeaseHeld | EchoConfirmed | Judged | Attempted | RegionDenied | Failed
)


def settle(run: Run, known: Known, end: End, at: At) -> Settlement:
    """Return what the run stores. Judged with REMEDIATING is not an end: `attempts.begin` settles that."""
    match end:
        case Ignored(reason, message):
            return _ignored(SettlementDraft(run, known, at), reason, message)
        case OnlyCounted():
            return _only_counted(run, known, at)
        case CountingOver(tally):
            return _counting_over(SettlementDraft(run, known, at), tally)
        case LeaseHeld():
            return _lease_held(SettlementDraft(run, known, at))
        case EchoConfirmed(setting):
            draft = SettlementDraft(run, known, at)
            return _close(draft, _open_incident(known.state), setting)
        case Judged():
            return _judged(SettlementDraft(run, known, at, end.seen, end.glass), end.seen, end.glass, end.decision)
        case Attempted():
            return attempts.end(run, known, end, at)
        case RegionDenied(problem):
            return _region_denied(SettlementDraft(run, known, at), problem)
        case Failed(problem, held):
            return _failed(SettlementDraft(run, known, at), problem, held)


def _judged(draft: SettlementDraft, seen: Observation, glass: Weighed, decision: Decision) -> Settlement:
    match decision.outcome:
        case Outcome.IGNORED:
            return _ignored(draft, decision.reason or "", decision.message)
        case Outcome.COMPLIANT:
            return _compliant(draft, seen)
        case _:
            return not_acted_on(draft, seen, glass, decision)


def _ignored(draft: SettlementDraft, reason: str, message: str | None) -> Settlement:
    """Record every event once; without an event, record only that the target is no longer judged."""
    state, incident = draft.state, draft.state.incident
    # While a worker acts, its attempt must end first: the target is due when the lease ends.
    ends = reason in NOT_JUDGED and not state.is_held(draft.now)
    news = ends and (incident is not None or (state.outcome, state.reason) != (Outcome.IGNORED, reason))
    if not (draft.must_audit or (news and draft.run.event is None)):
        return draft.settled(Outcome.IGNORED, reason)
    if ends:
        if incident and incident.lease:
            draft.close_lost(incident)
        if incident:
            draft.set(incident=None, past=incidents.remember(state, incident, draft.now))
        draft.note_setting()
        draft.set(outcome=Outcome.IGNORED, reason=reason, violations=(), recheck_at=None)
    draft.add(Outcome.IGNORED, reason=reason, detail={"message": message} if message else {})
    return draft.settled(Outcome.IGNORED, reason)


def _only_counted(run: Run, known: Known, at: At) -> Settlement:
    assert run.event is not None
    assert known.tally is not None
    added = floods.only_counted(known.tally, run.event, at.now)
    return Settlement((), None, Outcome.IGNORED, Reason.CALLS_COUNTED, due=known.state.due, tally=added)


def _counting_over(draft: SettlementDraft, tally: Tally) -> Settlement:
    draft.add(Outcome.IGNORED, reason=Reason.CALLS_COUNTED, detail=floods.summary(tally))
    return replace(draft.settled(Outcome.IGNORED, Reason.CALLS_COUNTED), closes=tally)


def _lease_held(draft: SettlementDraft) -> Settlement:
    """Record a change that was made meanwhile; the target is checked again after the lease."""
    incident = _open_incident(draft.state)
    if draft.must_audit:
        draft.set(incident=draft.joined(incident), recheck_at=waiting.later(draft.state.recheck_at, draft.now))
        draft.add(Outcome.DEFERRED, incident_id=incident.id, reason=Reason.IN_PROGRESS, attributions=draft.news)
    return draft.settled(Outcome.DEFERRED, Reason.IN_PROGRESS)


# --- compliant -------------------------------------------------------------------------------------------------------


def _compliant(draft: SettlementDraft, seen: Observation) -> Settlement:
    """The target is still compliant, compliant again, or compliant as soon as X-Ray finishes UPDATING."""
    incident = draft.state.incident
    if incident is None:
        return _still_compliant(draft, seen)
    if seen.setting.type is EncryptionType.KMS and seen.setting.status is not EncryptionStatus.ACTIVE:
        return _still_updating(draft, incident, seen.setting)
    return _close(draft, incident, seen.setting)


def _still_compliant(draft: SettlementDraft, seen: Observation) -> Settlement:
    state, rule, kind = draft.state, draft.run.rule, draft.run.trigger.kind
    assert rule is not None
    adopted = adoption(state, seen, rule)
    as_before = (
        state.outcome in (Outcome.COMPLIANT, Outcome.REMEDIATED)
        and seen.setting.same_choice(state.setting)
        and state.rule == rule.id
        and seen.spans.same_place(draft.known.state.spans)
    )
    news = bool(adopted) or not as_before
    draft.clear_recheck(seen)
    moved = draft.state.recheck_at != state.recheck_at or kind is TriggerKind.KEY
    checked = seen.deep and waiting.is_deep_check_due(state, draft.now)
    if not (draft.must_audit or news or moved or checked):
        return draft.settled(Outcome.COMPLIANT)
    draft.note_compliant(seen)
    if adopted:
        draft.set(managed_key=adopted, recheck_at=waiting.recheck_after(state.recheck_at, draft.now))
    detail: dict[str, object] = {"adopted": adopted} if adopted else {}
    if draft.must_audit:
        joined = draft.joined_past()
        draft.add(Outcome.COMPLIANT, before=seen.setting, after=seen.setting, detail=detail, **joined)
    elif news:
        draft.add(Outcome.COMPLIANT, before=state.setting, after=seen.setting, detail=detail)
    return draft.settled(Outcome.COMPLIANT)


def _still_updating(draft: SettlementDraft, incident: Incident, setting: Setting) -> Settlement:
    """The required key is set and X-Ray is still UPDATING: recorded once, and as FAILED if it takes too long."""
    now, before = draft.now, draft.state
    draft.note_setting()
    if incident.phase is not Phase.APPLIED:
        # The attempt that set it was lost, or ended without knowing: from now on, wait for ACTIVE as usual.
        error = incidents.worker_lost(incident) if incident.lease is not None else None
        incident = draft.joined(incident)
        draft.set(
            incident=replace(incident, phase=Phase.APPLIED, lease=None, due=now, applied_at=now),
            outcome=Outcome.APPLIED,
            reason=None,
        )
        draft.add_about(incident, Outcome.APPLIED, after=setting, error=error)
        return draft.settled(Outcome.APPLIED)
    if waiting.is_update_overdue(incident, now):
        minutes = int((now - (incident.applied_at or now)).total_seconds() // 60)
        problem = Problem(Reason.UPDATING_TOO_LONG, f"X-Ray has been UPDATING for {minutes} minutes")
        again = waiting.after_overdue_update(now)
        draft.set(incident=replace(incident, due=again), outcome=Outcome.FAILED, reason=problem.code)
        draft.add_about(incident, Outcome.FAILED, reason=problem.code, after=setting, error=problem)
        return draft.settled(Outcome.FAILED, problem.code)
    opened_again = before.reason == Reason.REGION_DENIED
    if opened_again:
        draft.set(outcome=Outcome.APPLIED, reason=None)
    if draft.must_audit or opened_again:
        draft.set(incident=draft.joined(incident))
        news = draft.news
        draft.add(Outcome.COMPLIANT, incident_id=incident.id, after=setting, reason=Reason.UPDATING, attributions=news)
        return draft.settled(Outcome.COMPLIANT, Reason.UPDATING)
    draft.state = before
    return draft.settled(Outcome.APPLIED, Reason.UPDATING)


def _close(draft: SettlementDraft, incident: Incident, setting: Setting) -> Settlement:
    """The target is compliant again: the incident ends, remediated by the guard or by somebody else."""
    state, now = draft.state, draft.now
    incident = draft.joined(incident)
    outcome = Outcome.REMEDIATED if incident.mutated else Outcome.COMPLIANT
    if draft.seen is not None:
        draft.note_compliant(draft.seen)
    draft.set(
        incident=None,
        past=incidents.remember(state, incident, now),
        setting=setting,
        good_at=now,
        outcome=outcome,
        reason=None,
        violations=(),
    )
    draft.add_about(
        incident,
        outcome,
        after=setting,
        error=incidents.worker_lost(incident) if incident.lease is not None else None,
        exposure_seconds=incidents.exposure(incident, now),
    )
    return draft.settled(outcome)


# --- what could not be read ------------------------------------------------------------------------------------------


def _region_denied(draft: SettlementDraft, problem: Problem) -> Settlement:
    """Record it once. The next sweep checks again; everything due in the Region waits for that, too.

    `before` is the setting that was last read, None if the guard could never read the Region.
    """
    state, incident = draft.state, draft.state.incident
    if state.is_held(draft.now):
        return _lease_held(draft)
    news = state.reason != Reason.REGION_DENIED
    if not (news or draft.must_audit):
        return draft.settled(Outcome.IGNORED, Reason.REGION_DENIED)
    if incident and incident.lease:
        draft.close_lost(incident)
        incident = replace(incident, lease=None, phase=Phase.OPEN, unended=False)
    if incident:
        draft.set(incident=draft.joined(incident))
    draft.set(outcome=Outcome.IGNORED, reason=Reason.REGION_DENIED, rule=draft.run.rule_id)
    draft.add(
        Outcome.IGNORED,
        incident_id=incident.id if incident else None,
        before=state.setting if news else None,
        reason=Reason.REGION_DENIED,
        error=problem,
        attributions=draft.news,
    )
    return draft.settled(Outcome.IGNORED, Reason.REGION_DENIED)


def _failed(draft: SettlementDraft, problem: Problem, held: Lease | None) -> Settlement:
    """Record the failure, and set when the target is due again."""
    state = draft.state
    incident = state.incident or Incident(draft.next_id(), draft.now, None, Phase.OPEN)
    lease = incident.lease
    ours = lease is not None and held is not None and lease.is_same(held)
    if state.is_held(draft.now) and not ours:
        return _lease_held(draft)
    if lease is not None and not ours:
        draft.close_lost(incident)
    incident = draft.joined(incident)
    wait = waiting.after_failure(draft.state.backoffs, Lane.READING, draft.at, draft.run.setup.limits)
    applied = incident.phase is Phase.APPLIED
    failed = replace(
        incident,
        lease=None,
        phase=Phase.APPLIED if applied else Phase.OPEN,
        unended=applied and incident.unended,
        due=wait.due,
    )
    draft.set(
        incident=failed,
        backoffs=wait.backoffs,
        outcome=Outcome.FAILED,
        reason=problem.code,
        rule=draft.run.rule_id,
    )
    draft.add_about(
        incident,
        Outcome.FAILED,
        error=problem,
        reason=problem.code,
        attempt=incident.attempt if ours else None,
        detail={"tries": wait.backoffs[Lane.READING].count},
    )
    return draft.settled(Outcome.FAILED, problem.code)


def _open_incident(state: TargetState) -> Incident:
    assert state.incident is not None
    return state.incident
