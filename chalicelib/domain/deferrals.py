"""What a run stores that does not act on a violation: observed, suppressed, deferred, or beyond the guard. Pure.

It is recorded when it begins and when an event must be audited, but not again while it lasts.
"""

from __future__ import annotations

from msgspec.structs import replace

from chalicelib.domain import incidents, waiting
from chalicelib.domain.breakglass import Weighed
from chalicelib.domain.decide import Decision
from chalicelib.domain.observation import Observation
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.run import Run
from chalicelib.domain.settlement import Settlement, SettlementDraft
from chalicelib.domain.stored import Incident, Phase, TargetState


def not_acted_on(draft: SettlementDraft, seen: Observation, glass: Weighed, decision: Decision) -> Settlement:
    """A violation is not remediated now: it is observed, suppressed, deferred, or the guard cannot remediate it."""
    state, now = draft.state, draft.now
    incident, is_new = draft.incident(seen, decision.violations)
    lost = incident.lease is not None
    if lost:
        draft.close_lost(incident)
        incident = replace(incident, lease=None, phase=Phase.OPEN, unended=False)
        state = draft.state
    incident, decision = _settling(incident, decision, draft)
    outcome, reason = decision.outcome, decision.reason
    goes_on = not is_new and not lost
    same = (
        goes_on
        and (outcome, reason) == (state.outcome, state.reason)
        and decision.violations == state.violations
        and seen.setting.same_choice(state.setting)
    )
    tried_again = outcome is Outcome.FAILED and (waiting.incident_due(state) or now) <= now
    # A failure that is held back stays a failure.
    still_fails = state.reason == Reason.BACKOFF or state.outcome is Outcome.FAILED
    still_backing_off = reason == Reason.BACKOFF and goes_on and still_fails
    draft.clear_recheck(seen)
    if (same or still_backing_off) and not (draft.must_audit or tried_again):
        _note_safety(draft, incident, decision)
        return draft.settled(outcome, reason, violations=decision.violations)
    incident = draft.joined(incident)
    wait = waiting.after_decision(
        state,
        outcome,
        reason,
        decision.lane,
        decision.due,
        draft.at,
        draft.run.setup.limits,
        tried=tried_again or is_new,
    )
    incident = replace(incident, phase=Phase.OPEN, unended=False, due=wait.due, violations=decision.violations)
    draft.note_setting()
    draft.set(incident=incident, backoffs=wait.backoffs)
    if not still_backing_off:
        draft.set(outcome=outcome, reason=reason, violations=decision.violations)
    draft.add_about(
        incident,
        outcome,
        before=seen.setting,
        reason=reason,
        error=decision.blocked,
        suppression=decision.suppression or glass.refusal,
        detail=_detail(draft.run, state, decision),
        attempt=None,
    )
    return draft.settled(outcome, reason)


def _note_safety(draft: SettlementDraft, incident: Incident, decision: Decision) -> None:
    """Store, without a record, since when X-Ray is safe, and when the next lane is free."""
    kept, now = draft.state.incident, draft.now
    assert kept is not None
    due = kept.due
    if decision.outcome is Outcome.OBSERVED or (decision.reason == Reason.BACKOFF and decision.due):
        due = decision.due
    overdue = due is not None and kept.due is not None and max(due, kept.due) <= now
    if (incident.safe_at is None) != (kept.safe_at is None) or (due != kept.due and not overdue):
        draft.set(incident=replace(kept, safe_at=incident.safe_at, due=due))


def _settling(incident: Incident, decision: Decision, draft: SettlementDraft) -> tuple[Incident, Decision]:
    """Limit how long the incident may be DEFERRED as settling; after that it is FAILED."""
    if decision.reason == Reason.SETTLING and decision.blocked is not None:
        until = waiting.settles_until(incident, draft.now)
        if draft.now >= until:
            decision = replace(decision, outcome=Outcome.FAILED, reason=decision.blocked.code)
        return replace(incident, settles_until=until, settles_in=decision.lane), decision
    if decision.outcome is Outcome.SUPPRESSED or decision.reason == Reason.PAUSED:
        # A person holds the guard back: afterwards the time to settle starts over.
        return replace(incident, settles_until=None), decision
    return incident, decision


def _detail(run: Run, state: TargetState, decision: Decision) -> dict[str, object]:
    """Return what the record says about why nothing was done; in a fight, also against whom and how often."""
    detail: dict[str, object] = {"message": decision.message} if decision.message else {}
    if decision.reason == Reason.BACKOFF:
        detail |= incidents.fight(state, decision.held, run.event)
    return detail
