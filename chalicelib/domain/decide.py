"""Decide what to do about an observation. Pure, and the same for every trigger.

`decide` weighs everything that may hold a remediation back, and returns a decision.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain.judge import judge, lanes_of
from chalicelib.domain.lanes import HARM, OF_STEPS, Lane
from chalicelib.domain.model import EncryptionStatus, EncryptionType, TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Mode, Rule, When
from chalicelib.domain.reasons import SETTLING_CODES, Outcome, Problem, Reason, Violation
from chalicelib.domain.run import Known, Run
from chalicelib.domain.steps import Blocked, Step, StepName, plan, why_only_observed
from chalicelib.domain.stored import Suppression, TargetState
from chalicelib.domain.waiting import free_at, held_lanes


class Decision(Struct, frozen=True):
    """What to do about an observation, and why.

    `steps` is the expected plan of a remediation, without what waits for the lanes in `held`. `blocked` is what stops
    it, in `lane`.
    """

    outcome: Outcome
    violations: tuple[Violation, ...] = ()
    reason: str | None = None
    message: str | None = None
    steps: tuple[Step, ...] = ()
    blocked: Problem | None = None
    suppression: Suppression | None = None
    due: datetime | None = None
    held: frozenset[Lane] = frozenset()
    lane: Lane = Lane.UPKEEP


def decide(run: Run, known: Known, seen: Observation, suppression: Suppression | None, now: datetime) -> Decision:
    """Return what to do about the observation. If several things hold a remediation back, the most deliberate is named.

    `suppression` is the break-glass in force. The run's target must have a rule.
    """
    assert run.rule is not None
    target, rule, state, trigger = run.target, run.rule, known.state, run.trigger.kind
    if is_idle(rule, state, seen, trigger):
        return Decision(Outcome.IGNORED, reason=Reason.IDLE, message="never encrypted, and no traces in six hours")
    violations = judge(target, rule, state, seen)
    if not violations:
        return Decision(Outcome.COMPLIANT)
    if rule.mode is Mode.OBSERVE:
        return Decision(Outcome.OBSERVED, violations, reason=Reason.RULE_OBSERVES)
    if run.setup.observe_only:
        return Decision(Outcome.OBSERVED, violations, reason=Reason.RIGHTS_OBSERVE)
    lanes = frozenset(lanes_of(target, rule, state, seen).values())
    if suppression is not None:
        suppressed = Decision(Outcome.SUPPRESSED, violations, reason=Reason.BREAK_GLASS, suppression=suppression)
        if suppression.drift is None or Lane.SPANS not in lanes:
            return suppressed
        # A principal's tag covers the setting that it made, and not where spans are stored.
        acts = _decided(run, known, seen, violations, lanes, frozenset(OF_STEPS) - {Lane.SPANS}, now)
        is_about_spans = acts.outcome is Outcome.REMEDIATING or (acts.lane is Lane.SPANS and acts.blocked is not None)
        return replace(acts, suppression=suppression) if is_about_spans else suppressed
    return _decided(run, known, seen, violations, lanes, frozenset(), now)


def _decided(
    run: Run,
    known: Known,
    seen: Observation,
    violations: tuple[Violation, ...],
    lanes: frozenset[Lane],
    spared: frozenset[Lane],
    now: datetime,
) -> Decision:
    """Decide what no rule, role or break-glass suppresses. In the lanes `spared` no step is taken."""
    assert run.rule is not None
    target, rule, state, trigger, partition = run.target, run.rule, known.state, run.trigger.kind, run.setup.partition
    # As long as X-Ray completes the guard's change, each tick reads the setting, whatever else must wait.
    updates = seen.setting.status is not EncryptionStatus.ACTIVE and HARM.isdisjoint(lanes)
    if not lanes:
        found = why_only_observed(target, rule, state, seen)
        assert found is not None
        due = now if updates else None
        return Decision(Outcome.OBSERVED, violations, found.code, found.message, blocked=found, due=due)
    paused = known.guard.paused
    if paused is not None:
        return Decision(Outcome.DEFERRED, violations, Reason.PAUSED, f"paused by {paused.by}: {paused.reason}")
    held = lanes & (held_lanes(state, now) if trigger is not TriggerKind.OPERATOR else frozenset[Lane]())
    held |= lanes & spared
    held_back = _held_back(violations, state, held, now if updates else None)
    if lanes == held:
        return held_back
    if not run.budget_left:
        return Decision(Outcome.DEFERRED, violations, Reason.BLAST_RADIUS, "this sweep reached its remediation limit")
    steps, blocked = plan(target, rule, state, seen, partition, held)
    if state.intent and now < state.intent.due and any(step.name is StepName.CREATE_KEY for step in steps):
        uncertain = Problem(
            Reason.KEY_CREATION_UNCERTAIN,
            f"the response to CreateKey was lost, so a key may exist; known at {state.intent.due:%H:%M:%SZ}",
        )
        return _stopped(violations, Blocked(uncertain, lane=steps[0].lane), free_at(state, held))
    if steps:
        stops = blocked.problem if blocked else None
        return Decision(Outcome.REMEDIATING, violations, steps=steps, blocked=stops, held=held)
    if blocked is None and held:
        return held_back
    if blocked is None:
        raise AssertionError(f"next_step returns neither a step nor a reason for {', '.join(violations)}")
    if blocked.left:
        problem = blocked.problem
        return Decision(Outcome.OBSERVED, violations, problem.code, problem.message, blocked=problem)
    return _stopped(violations, blocked, free_at(state, held))


def _held_back(
    violations: tuple[Violation, ...], state: TargetState, held: frozenset[Lane], due: datetime | None
) -> Decision:
    until = free_at(state, held)
    message = f"held back until {until:%Y-%m-%dT%H:%M:%SZ}" if until else None
    return Decision(Outcome.DEFERRED, violations, Reason.BACKOFF, message, due=due or until, held=held)


def _stopped(violations: tuple[Violation, ...], blocked: Blocked, due: datetime | None) -> Decision:
    """Return DEFERRED if the problem passes by itself, else FAILED: a person must act. `due`: a held lane is free."""
    problem, lane = blocked.problem, blocked.lane
    outcome, reason = Outcome.FAILED, problem.code
    if problem.code in SETTLING_CODES:
        outcome, reason = Outcome.DEFERRED, Reason.SETTLING
    return Decision(outcome, violations, reason, problem.message, blocked=problem, lane=lane, due=due)


def is_idle(rule: Rule, state: TargetState, seen: Observation, trigger: TriggerKind) -> bool:
    """Whether X-Ray is unused here, and only a sweep or a tick checks: any other trigger is judged anyway."""
    return (
        rule.when is When.IN_USE
        and trigger in (TriggerKind.SWEEP, TriggerKind.TICK)
        and state.incident is None
        and seen.setting.type is EncryptionType.NONE
        and not state.ever_used
        and seen.in_use is False
        and seen.spans.group is None
    )
