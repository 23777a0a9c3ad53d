"""What a run would do, without writing or mutating anything."""

from __future__ import annotations

from msgspec import Struct

from chalicelib.domain.decide import Decision
from chalicelib.domain.model import ChangeEvent, KeyEvent, Target, Trigger, TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Mode, Rule
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import TargetState
from chalicelib.domain.triage import Next, Triage, triage
from chalicelib.loop.guard import Guard
from chalicelib.loop.judging import judge_target
from chalicelib.loop.observe import glance, glance_reads

OPERATOR = Trigger(TriggerKind.OPERATOR)


class Assessment(Struct, frozen=True):
    """A decision with what it is based on. `seen` is None if no rule requires that the target is judged."""

    target: Target
    rule: Rule | None
    decision: Decision
    state: TargetState
    seen: Observation | None


def assess(
    guard: Guard,
    target: Target,
    trigger: Trigger = OPERATOR,
    event: ChangeEvent | KeyEvent | None = None,
) -> Assessment:
    """Observe and judge a target as a run with this trigger and event would.

    Raises AwsError if a required read fails.
    """
    run = guard.run(target, trigger, event)
    known = guard.known(run)
    rule = run.rule
    if rule is None or rule.mode is Mode.OFF:
        reason = Reason.RULE_OFF if rule else Reason.UNGOVERNED
        return Assessment(target, rule, Decision(Outcome.IGNORED, reason=reason), known.state, None)
    reach = guard.reach(target)
    first = glance(reach, guard.gather(glance_reads(reach, rule)))
    judged = judge_target(guard, reach, run, rule, known, first, deep=True)
    return Assessment(target, rule, judged.decision, known.state, judged.seen)


class Foreseen(Struct, frozen=True):
    """What a run with an event would do next.

    `audited`: the event is on the record already. `by_own_role`: the guard's role made the call, so that it is an echo,
    or the role is borrowed.
    """

    step: Triage
    audited: bool
    by_own_role: bool


def triage_event(guard: Guard, event: ChangeEvent | KeyEvent) -> Foreseen:
    """Return what a run with this event would do next."""
    run = guard.run(event.target, event.trigger, event)
    now = guard.clock.now()
    step, audited = triage(run, None, now), False
    if step.next is not Next.IGNORE:
        known = guard.known(run)
        step, audited = triage(run, known, now), known.audited
    return Foreseen(step, audited, run.is_by_own_role)
