"""What is stored when an attempt to remediate begins and when it ends. Pure.

Nothing is mutated before the settlement of `begin` is stored: REMEDIATING together with a lease (P3). REMEDIATED is
stored only after X-Ray reported the required key with status ACTIVE (P4).
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain import incidents, waiting
from chalicelib.domain.breakglass import Weighed
from chalicelib.domain.decide import Decision
from chalicelib.domain.echo import plan_entry
from chalicelib.domain.judge import judge, lanes_of
from chalicelib.domain.keychoice import managed_key
from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import EncryptionStatus
from chalicelib.domain.observation import Observation
from chalicelib.domain.reasons import SETTLING_CODES, Outcome, Problem, Reason, Violation
from chalicelib.domain.run import At, Known, Run
from chalicelib.domain.settlement import Settlement, SettlementDraft
from chalicelib.domain.steps import StepName, why_only_observed
from chalicelib.domain.stored import Action, Intent, Lease, Phase, Suppression, TargetState


class Attempted(Struct, frozen=True):
    """The result of an attempt. `problem` says why it stopped early, in `lane`; None if nothing was left to do.

    In the lanes `held` it took no step; `suppression` is the break-glass that held them, if one did. `mutated`: a call
    that was sent in this incident may have taken effect.
    """

    seen: Observation
    problem: Problem | None
    actions: tuple[Action, ...]
    mutated: bool
    lane: Lane = Lane.UPKEEP
    held: frozenset[Lane] = frozenset()
    suppression: Suppression | None = None


def begin(
    run: Run, known: Known, seen: Observation, glass: Weighed, decision: Decision, at: At, nonce: str
) -> Settlement:
    """Return REMEDIATING with a lease. `nonce` tags the key that may be created, so that it can be found again."""
    draft = SettlementDraft(run, known, at, seen, glass)
    state = draft.state
    incident, _ = draft.incident(seen, decision.violations)
    if incident.lease is not None:
        draft.close_lost(incident)
    incident = draft.joined(incident)
    ends = waiting.lease_end(at.now, run.setup.lease_seconds)
    lease = Lease(run.setup.worker, state.lease_number + 1, ends, at.now)
    lanes = {step.lane for step in decision.steps}
    fought = [lane for lane in lanes if not waiting.is_settling(state, lane, at.now)]
    makes_key = any(step.name is StepName.CREATE_KEY for step in decision.steps)
    incident = replace(
        incident,
        phase=Phase.ACTING,
        attempt=incident.attempt + 1,
        unended=True,
        lease=lease,
        due=lease.until,
        violations=decision.violations,
        mutated=True,
        planned=tuple(plan_entry(step) for step in decision.steps),
    )
    draft.note_setting()
    draft.set(
        incident=incident,
        lease_number=lease.number,
        intent=Intent(nonce, waiting.intent_due(lease)) if makes_key else state.intent,
        backoffs=waiting.counted(draft.state.backoffs, fought, at, run.setup.limits),
        outcome=Outcome.REMEDIATING,
        reason=None,
        violations=decision.violations,
    )
    draft.add_about(
        incident,
        Outcome.REMEDIATING,
        detail={"plan": [step.name.value for step in decision.steps]},
        suppression=glass.refusal,
        actions=(),
    )
    draft.used += tuple(step.key_arn for step in decision.steps if step.key_arn)
    return draft.settled(Outcome.REMEDIATING)


def learn_of_intent(state: TargetState, found: str | None, now: datetime) -> TargetState:
    """Return the state after the search for a key that a lost worker may have created.

    Finding the key is proof that it exists; not finding it proves nothing before the intent is due.
    """
    assert state.intent is not None
    if found:
        return replace(state, keys_made=(*state.keys_made, found), intent=None)
    return replace(state, intent=None) if now >= state.intent.due else state


def end(run: Run, known: Known, attempted: Attempted, at: At) -> Settlement:
    """Return REMEDIATED, APPLIED, DEFERRED while AWS settles, or FAILED; if violations remain, DEFERRED or OBSERVED."""
    draft = SettlementDraft(run, known, at, attempted.seen)
    draft.note_calls(attempted.actions)
    if attempted.actions:
        # The attempt may have relied on stale reads of KMS: read everything again once KMS has caught up.
        draft.set(recheck_at=waiting.recheck_after(draft.state.recheck_at, at.now))
    if attempted.problem is not None:
        return _stopped_short(draft, attempted, attempted.problem)
    assert run.rule is not None
    remaining = judge(run.target, run.rule, draft.state, attempted.seen)
    return _partly_done(draft, attempted, remaining) if remaining else _applied(draft, attempted)


def _stopped_short(draft: SettlementDraft, attempted: Attempted, problem: Problem) -> Settlement:
    state, now = draft.state, draft.now
    incident = state.incident
    assert incident is not None
    passing = problem.code in SETTLING_CODES
    until = waiting.settles_until(incident, now) if passing else incident.settles_until
    outcome, reason = Outcome.FAILED, problem.code
    if passing and until is not None and now < until:
        outcome, reason = Outcome.DEFERRED, Reason.SETTLING
    due = waiting.after_attempt(state, attempted.lane, outcome, draft.at, draft.run.setup.limits)
    due = waiting.sooner(due, waiting.free_at(state, attempted.held), now)
    # If every call was refused, the guard did not end the incident.
    incident = draft.with_safety(replace(incident, mutated=attempted.mutated), attempted.seen)
    draft.set(
        incident=replace(
            incident,
            phase=Phase.OPEN,
            lease=None,
            unended=False,
            due=due,
            settles_until=until,
            settles_in=attempted.lane,
        ),
        outcome=outcome,
        reason=reason,
    )
    draft.note_setting()
    draft.add_about(
        incident,
        outcome,
        after=attempted.seen.setting,
        error=problem,
        reason=reason,
        actions=attempted.actions,
    )
    return draft.settled(outcome, reason, mutated=True)


def _partly_done(draft: SettlementDraft, attempted: Attempted, remaining: tuple[Violation, ...]) -> Settlement:
    """Return DEFERRED until the first of the held lanes is free, or OBSERVED if the guard only observes what remains.

    Until X-Ray reports ACTIVE, nothing is remediated, and each tick reads the setting again.
    """
    former, seen = draft.state.incident, attempted.seen
    assert former is not None
    assert draft.run.rule is not None
    lanes = lanes_of(draft.run.target, draft.run.rule, draft.state, seen)
    observed = None if lanes else why_only_observed(draft.run.target, draft.run.rule, draft.state, seen)
    outcome, reason = (Outcome.OBSERVED, observed.code) if observed else (Outcome.DEFERRED, Reason.BACKOFF)
    if attempted.suppression is not None:
        outcome, reason = Outcome.SUPPRESSED, Reason.BREAK_GLASS
    held = attempted.held.intersection(lanes.values())
    active = seen.setting.status is EncryptionStatus.ACTIVE
    gone = [each for each in former.violations if each not in remaining]
    incident, _ = draft.incident(seen, remaining)
    draft.note_setting()
    draft.set(
        incident=replace(
            incident,
            phase=Phase.OPEN,
            lease=None,
            unended=False,
            due=waiting.free_at(draft.state, held) if active and outcome is not Outcome.SUPPRESSED else draft.now,
            settles_until=waiting.settles_anew(draft.state, held),
            violations=remaining,
            mutated=attempted.mutated,
        ),
        outcome=outcome,
        reason=reason,
        violations=remaining,
    )
    detail: dict[str, object] = {"remediated" if active else "applied": gone, "remains": list(remaining)}
    if held and outcome is not Outcome.SUPPRESSED:
        detail |= incidents.fight(draft.state, held)
    draft.add_about(
        incident,
        outcome,
        after=seen.setting,
        violations=remaining,
        reason=reason,
        error=observed,
        suppression=attempted.suppression,
        actions=attempted.actions,
        detail=detail,
    )
    return draft.settled(outcome, reason, mutated=True)


def _applied(draft: SettlementDraft, attempted: Attempted) -> Settlement:
    state, seen, now = draft.state, attempted.seen, draft.now
    incident = state.incident
    assert incident is not None
    assert draft.run.rule is not None
    draft.note_compliant(seen)
    if state.managed_key is None:
        draft.set(managed_key=managed_key(state, seen, draft.run.rule))
    if seen.setting.status is not EncryptionStatus.ACTIVE:
        draft.set(
            incident=replace(incident, phase=Phase.APPLIED, lease=None, due=now, applied_at=now),
            outcome=Outcome.APPLIED,
        )
        draft.add_about(incident, Outcome.APPLIED, after=seen.setting, actions=attempted.actions)
        return draft.settled(Outcome.APPLIED, mutated=True)
    draft.set(incident=None, past=incidents.remember(state, incident, now), outcome=Outcome.REMEDIATED)
    draft.add_about(
        incident,
        Outcome.REMEDIATED,
        after=seen.setting,
        actions=attempted.actions,
        exposure_seconds=incidents.exposure(incident, now),
    )
    return draft.settled(Outcome.REMEDIATED, mutated=True)
