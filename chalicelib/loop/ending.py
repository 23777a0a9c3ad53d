"""How a run ends that mutates nothing: the one record it writes, if there is news, and when it is due again.

Compliant, ignored, observed, suppressed, deferred, still updating, failed before anything was sent: each is written
once, when it begins or when somebody's change must be audited, and goes on in silence. An attempt that mutates ends in
`attempt`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from chalicelib.auditlog.draft import Draft
from chalicelib.domain import incidents, waiting
from chalicelib.domain.decide import Decision
from chalicelib.domain.keychoice import adoption
from chalicelib.domain.model import EncryptionStatus, EncryptionType, Setting, TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Rule
from chalicelib.domain.reasons import NOT_JUDGED, Outcome, Problem, Reason
from chalicelib.domain.stored import Incident, Lease, Phase, Suppression, TargetState
from chalicelib.loop.attempt import SETTLING_PAUSE, settles_until
from chalicelib.loop.guard import Result
from chalicelib.loop.journal import Journal, worker_lost
from chalicelib.loop.look import DEEP_EVERY

LONGEST_UPDATE = timedelta(minutes=30)


class Ending:
    """What one run writes instead of acting."""

    def __init__(self, journal: Journal) -> None:
        self.guard = journal.guard
        self.target = journal.target
        self.journal = journal

    def ignored(self, reason: str, message: str | None) -> Result:
        """Write down what is not ours to judge: every change event once, a sweep's finding when it is news."""
        loaded = self.journal.loaded or self.journal.load()
        state = loaded.state
        draft = Draft(state)
        now = self.guard.clock.now()
        # While a worker is at it, its attempt must get its end first: it is due when the lease is over.
        judged_rule = reason in NOT_JUDGED and not state.is_held(now)
        news = judged_rule and (state.incident or (state.outcome, state.reason) != (Outcome.IGNORED, reason))
        wanted = self.journal.unheard() or (news and not self.journal.event)
        if not wanted:
            return Result(self.target, Outcome.IGNORED, reason)
        if judged_rule:
            if state.incident and state.incident.lease:
                self.journal.close_lost(draft, state.incident, now)
            if state.incident:
                draft.set(incident=None, past=incidents.remember(state, state.incident, now))
            draft.set(outcome=Outcome.IGNORED, reason=reason, violations=(), look=None)
            self.journal.note_setting(draft, now)
        self.journal.add(draft, Outcome.IGNORED, now, reason=reason, detail={"message": message} if message else {})
        return self.journal.commit(draft, Outcome.IGNORED, reason)

    def step_back(self, state: TargetState, now: datetime) -> Result:
        """Another worker holds the lease. What was heard meanwhile must be looked at again after it: a look is left."""
        incident = state.incident
        assert incident is not None
        draft = Draft(state)
        if self.journal.unheard():
            draft.set(incident=self.journal.joined(incident), look=waiting.later(state.look, now))
            self.journal.add(draft, Outcome.DEFERRED, now, incident_id=incident.id, reason=Reason.IN_PROGRESS)
        elif self.journal.trigger.kind is not TriggerKind.KEY:
            return Result(self.target, Outcome.DEFERRED, Reason.IN_PROGRESS)
        return self.journal.commit(draft, Outcome.DEFERRED, Reason.IN_PROGRESS)

    def compliant(self, rule: Rule, state: TargetState, seen: Observation) -> Result:
        """All is as the rule asks: as before, or at last, or as soon as X-Ray has done with it."""
        now = self.guard.clock.now()
        incident = state.incident
        if incident is None:
            return self._still_good(rule, state, seen, now)
        if seen.setting.type is EncryptionType.KMS and seen.setting.status is not EncryptionStatus.ACTIVE:
            return self._still_updating(state, incident, now)
        return self.close_good(incident, seen.setting, now)

    def _still_good(self, rule: Rule, state: TargetState, seen: Observation, now: datetime) -> Result:
        draft = Draft(state)
        adopted = adoption(state, seen, rule)
        as_before = (
            state.outcome in (Outcome.COMPLIANT, Outcome.REMEDIATED)
            and seen.setting.same_choice(state.setting)
            and state.rule == self.journal.rule_id
        )
        self.journal.note_good(draft, seen, now)
        if adopted:
            draft.set(managed_key=adopted, look=waiting.later(state.look, now + waiting.STALE_READS))
        detail = {"adopted": adopted} if adopted else {}
        if self.journal.unheard():
            joined = self.journal.join_past(draft)
            self.journal.add(
                draft, Outcome.COMPLIANT, now, before=seen.setting, after=seen.setting, detail=detail, **joined
            )
        elif not as_before or adopted:
            self.journal.add(draft, Outcome.COMPLIANT, now, before=state.setting, after=seen.setting, detail=detail)
        elif not self._worth_saving(state, draft.after, seen, now):
            return Result(self.target, Outcome.COMPLIANT)
        return self.journal.commit(draft, Outcome.COMPLIANT, None)

    def _worth_saving(self, state: TargetState, after: TargetState, seen: Observation, now: datetime) -> bool:
        """Whether the state moved in a way that must be kept though there is nothing to record."""
        stale = state.checked_at is None or now - state.checked_at >= DEEP_EVERY
        moved = after.look != state.look or self.journal.trigger.kind is TriggerKind.KEY
        return moved or after.intent != state.intent or (seen.deep and stale)

    def _still_updating(self, state: TargetState, incident: Incident, now: datetime) -> Result:
        """The wanted key is set and X-Ray still works on it: wait, say so once, and after half an hour loudly."""
        assert self.journal.seen is not None
        draft = Draft(state)
        self.journal.note_setting(draft, now)
        if incident.phase is not Phase.APPLIED:
            # The attempt that set it was lost, or could not tell: from here on it is waited for like any other.
            lost = incident.lease is not None
            if self.journal.unheard():
                incident = self.journal.joined(incident)
            draft.set(
                incident=replace(incident, phase=Phase.APPLIED, lease=None, due=now, applied_at=now),
                outcome=Outcome.APPLIED,
                reason=None,
            )
            self.journal.add_about(
                draft,
                incident,
                Outcome.APPLIED,
                now,
                after=self.journal.seen.setting,
                error=worker_lost(incident) if lost else None,
            )
            return self.journal.commit(draft, Outcome.APPLIED, None)
        overdue = incident.applied_at is not None and now - incident.applied_at > LONGEST_UPDATE
        if overdue and incident.due is not None and incident.due <= now:
            minutes = int((now - (incident.applied_at or now)).total_seconds() // 60)
            problem = Problem(Reason.UPDATING_TOO_LONG, f"X-Ray has been UPDATING for {minutes} minutes")
            again = now + timedelta(minutes=self.guard.policy.limits.max_backoff_minutes)
            draft.set(incident=replace(incident, due=again), outcome=Outcome.FAILED, reason=problem.code)
            after = self.journal.seen.setting
            self.journal.add_about(
                draft, incident, Outcome.FAILED, now, reason=problem.code, after=after, error=problem
            )
            return self.journal.commit(draft, Outcome.FAILED, problem.code)
        opened_again = state.reason == Reason.REGION_DENIED
        if opened_again:
            draft.set(outcome=Outcome.APPLIED, reason=None)
        if self.journal.unheard() or opened_again:
            draft.set(incident=self.journal.joined(incident))
            self.journal.add(
                draft,
                Outcome.COMPLIANT,
                now,
                incident_id=incident.id,
                after=self.journal.seen.setting,
                reason=Reason.UPDATING,
            )
            return self.journal.commit(draft, Outcome.COMPLIANT, Reason.UPDATING)
        return Result(self.target, Outcome.APPLIED, Reason.UPDATING)

    def close_good(self, incident: Incident, setting: Setting, now: datetime) -> Result:
        """All is as the rule asks, and was not: the incident ends, by our doing or by somebody else's."""
        assert self.journal.loaded is not None
        state = self.journal.loaded.state
        draft = Draft(state)
        if self.journal.unheard():
            incident = self.journal.joined(incident)
        outcome = Outcome.REMEDIATED if incident.mutated else Outcome.COMPLIANT
        if self.journal.seen is not None:
            self.journal.note_good(draft, self.journal.seen, now)
        draft.set(
            incident=None,
            past=incidents.remember(state, incident, now),
            setting=setting,
            good_at=now,
            outcome=outcome,
            reason=None,
            violations=(),
        )
        error = worker_lost(incident) if incident.lease is not None else None
        self.journal.add_about(
            draft,
            incident,
            outcome,
            now,
            after=setting,
            error=error,
            exposure_seconds=incidents.exposure(incident, now),
        )
        return self.journal.commit(draft, outcome, None)

    def held(self, state: TargetState, seen: Observation, decision: Decision, refusal: Suppression | None) -> Result:
        """A violation that is not put right now: observed, suppressed, deferred, or beyond what can be done."""
        now = self.guard.clock.now()
        draft = Draft(state)
        incident, is_new = self.journal.incident(draft, seen, decision.violations, now)
        lost = incident.lease is not None
        if lost:
            self.journal.close_lost(draft, incident, now)
            incident = replace(incident, lease=None, phase=Phase.OPEN, unended=False)
        if decision.reason == Reason.SETTLING and decision.blocked is not None:
            incident = replace(incident, settles_until=settles_until(incident, now))
            if now >= settles_until(incident, now):
                decision = replace(decision, outcome=Outcome.FAILED, reason=decision.blocked.code)
        if decision.outcome is Outcome.SUPPRESSED or decision.reason == "PAUSED":
            # A person holds the guard back: what comes after that has its own time to settle.
            incident = replace(incident, settles_until=None)
        same = (
            not is_new
            and not lost
            and (decision.outcome, decision.reason) == (state.outcome, state.reason)
            and decision.violations == state.violations
            and seen.setting.same_choice(state.setting)
        )
        tried_again = decision.outcome is Outcome.FAILED and (_due_of(state) or now) <= now
        # A Region that was denied and is open again must say so, or it would count as denied until the next sweep.
        still_held_back = (
            decision.reason == Reason.BACKOFF and not is_new and not lost and state.reason != Reason.REGION_DENIED
        )
        heard = self.journal.unheard()
        if heard:
            incident = self.journal.joined(incident)
        self.journal.clear_look(draft, seen)
        if not (heard or tried_again) and (same or still_held_back):
            # Nothing new: what waits goes on waiting.
            if draft.after.look == state.look and self.journal.trigger.kind is not TriggerKind.KEY:
                return Result(self.target, decision.outcome, decision.reason, decision.violations)
            return self.journal.commit(draft, decision.outcome, decision.reason)
        due = self._held_due(draft, state, decision, now, tried_again or is_new)
        incident = replace(incident, phase=Phase.OPEN, unended=False, due=due, violations=decision.violations)
        self.journal.note_setting(draft, now)
        draft.set(incident=incident)
        if not still_held_back:
            draft.set(outcome=decision.outcome, reason=decision.reason, violations=decision.violations)
        self.journal.add_about(
            draft,
            incident,
            decision.outcome,
            now,
            before=seen.setting,
            reason=decision.reason,
            error=decision.blocked,
            suppression=decision.suppression or refusal,
            detail=self._held_detail(state, decision),
            attempt=None,
        )
        return self.journal.commit(draft, decision.outcome, decision.reason)

    def _held_detail(self, state: TargetState, decision: Decision) -> dict[str, Any]:
        """What the record says of why nothing was done; of a fight, against whom and how often."""
        detail: dict[str, Any] = {"message": decision.message} if decision.message else {}
        if decision.reason == Reason.BACKOFF:
            detail |= {"attempts": state.backoff.count, "against": self._rivals(state)}
        return detail

    def _rivals(self, state: TargetState) -> list[str]:
        """The ARNs of those who made the drifts of this fight, as far as they are known."""
        event = self.journal.event
        # Each attempt ended one incident at most; what came before them is no part of the fight.
        fought = state.past[-state.backoff.count :]
        causes = [past.cause for past in fought] + ([state.incident.cause] if state.incident else [])
        arns = {cause.actor.arn for cause in causes if cause}
        if event is not None and event.trigger.actor is not None:
            arns.add(event.trigger.actor.arn)
        return sorted(arns)

    def _held_due(
        self, draft: Draft[TargetState], state: TargetState, decision: Decision, now: datetime, attempted: bool
    ) -> datetime | None:
        most = self.guard.policy.limits.max_backoff_minutes
        if decision.outcome is Outcome.FAILED:
            if not attempted:
                return _due_of(state) or now
            backoff = waiting.backoff_after_attempt(state.backoff, now, self.guard.random(), most)
            draft.set(backoff=backoff)
            return waiting.retry_after(backoff, now, self.guard.random(), most)
        if decision.reason == Reason.SETTLING:
            return now + SETTLING_PAUSE
        if decision.outcome is Outcome.DEFERRED:
            # A pause ends with the operator's word, so the next tick asks again; a budget returns with the next sweep.
            return decision.due or (now if decision.reason == Reason.PAUSED else None)
        return now if decision.outcome is Outcome.SUPPRESSED else None

    def region_denied(self, problem: Problem) -> Result:
        """The organization denies the Region: said once, and looked at again by the next sweep.

        What waits there goes on waiting. `before` is the setting that was last read, None where the Region was never
        open to the guard.
        """
        state = self.journal.load().state
        now = self.guard.clock.now()
        if state.is_held(now):
            return self.step_back(state, now)
        draft = Draft(state)
        incident = state.incident
        if incident and incident.lease:
            self.journal.close_lost(draft, incident, now)
            draft.set(incident=replace(incident, lease=None, phase=Phase.OPEN, unended=False))
        news = state.reason != Reason.REGION_DENIED
        if not (news or self.journal.unheard()):
            return Result(self.target, Outcome.IGNORED, Reason.REGION_DENIED)
        draft.set(outcome=Outcome.IGNORED, reason=Reason.REGION_DENIED, rule=self.journal.rule_id)
        self.journal.add(
            draft,
            Outcome.IGNORED,
            now,
            incident_id=incident.id if incident else None,
            before=state.setting if news else None,
            reason=Reason.REGION_DENIED,
            error=problem,
        )
        return self.journal.commit(draft, Outcome.IGNORED, Reason.REGION_DENIED)

    def failed(self, problem: Problem, held: Lease | None = None) -> Result:
        """What could not be read or done: on the record, and due again. `held` is the lease that this run took.

        Only that very lease ends here: Lambda tries a run again under the same request id, and so the same owner, while
        the first may still be acting.
        """
        loaded = self.journal.load()
        state = loaded.state
        now = self.guard.clock.now()
        incident = state.incident or Incident(f"{self.target}#{state.seq + 1}", now, None, Phase.OPEN)
        lease = incident.lease
        ours = lease is not None and held is not None and lease.is_same(held)
        if state.is_held(now) and not ours:
            return self.step_back(state, now)
        draft = Draft(state)
        most = self.guard.policy.limits.max_backoff_minutes
        backoff = waiting.backoff_after_attempt(state.backoff, now, self.guard.random(), most)
        due = waiting.retry_after(backoff, now, self.guard.random(), most)
        if lease is not None and not ours:
            self.journal.close_lost(draft, incident, now)
        applied = incident.phase is Phase.APPLIED
        phase = Phase.APPLIED if applied else Phase.OPEN
        failed = replace(incident, lease=None, phase=phase, unended=applied and incident.unended, due=due)
        draft.set(
            incident=failed, backoff=backoff, outcome=Outcome.FAILED, reason=problem.code, rule=self.journal.rule_id
        )
        self.journal.add_about(
            draft,
            incident,
            Outcome.FAILED,
            now,
            error=problem,
            reason=problem.code,
            attempt=incident.attempt if ours else None,
            detail={"tries": backoff.count},
        )
        return self.journal.commit(draft, Outcome.FAILED, problem.code)


def _due_of(state: TargetState) -> datetime | None:
    return state.incident.due if state.incident else None
