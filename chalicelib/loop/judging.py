"""From the glance at a target to a decision: read what is planned, weigh the break-glass, decide.

Only reads. What a run learns here is stored together with its end.
"""

from __future__ import annotations

from msgspec.structs import replace

from chalicelib.domain.attempts import learn_of_intent
from chalicelib.domain.breakglass import Weighed, principals_to_read, weigh
from chalicelib.domain.decide import decide
from chalicelib.domain.incidents import owner_of_drift
from chalicelib.domain.model import NONCE_TAG_KEY, KeyEvent
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Rule
from chalicelib.domain.ports import Reach
from chalicelib.domain.reading import Glance, plan_reads, wants_more
from chalicelib.domain.run import Known, Run
from chalicelib.domain.settle import Judged
from chalicelib.domain.waiting import INTENT_AGE
from chalicelib.loop.guard import Guard
from chalicelib.loop.observe import observe, principal_tags


def judge_target(
    guard: Guard, reach: Reach, run: Run, rule: Rule, known: Known, first: Glance, *, deep: bool | None = None
) -> Judged:
    """Observe the rest and decide. If a shallow observation finds anything, observe again deeply.

    Raises AwsError if a required read fails.
    """
    seen = _observed(guard, reach, run, rule, known, first, deep=deep)
    if not seen.deep and wants_more(run.target, rule, known.state, seen):
        seen = _observed(guard, reach, run, rule, known, first, deep=True)
    glass = _weighed(guard, reach, run, rule, known, seen)
    return Judged(seen, glass, decide(run, known, seen, glass.in_force, guard.clock.now()))


def learn(guard: Guard, reach: Reach, known: Known) -> Known:
    """Search for the key that a lost worker may have created."""
    intent = known.state.intent
    if intent is None:
        return known
    found = reach.keys.find_by_tag(NONCE_TAG_KEY, intent.nonce, intent.due - INTENT_AGE)
    return replace(known, state=learn_of_intent(known.state, found, guard.clock.now()))


def _observed(
    guard: Guard, reach: Reach, run: Run, rule: Rule, known: Known, first: Glance, *, deep: bool | None
) -> Observation:
    now = guard.clock.now()
    plan = plan_reads(run.target, rule, known.state, first, run.trigger.kind, now, deep=deep, event=run.event)
    return observe(guard.gather, reach, rule, known.state, first, plan, now)


def _weighed(guard: Guard, reach: Reach, run: Run, rule: Rule, known: Known, seen: Observation) -> Weighed:
    """Weigh the break-glass tags. A shallow observation did not read them: what was in force stays in force."""
    if not seen.deep:
        return Weighed(known.state.suppressions, None)
    change = owner_of_drift(run, known, seen)
    return weigh(
        run.target,
        rule,
        known.state,
        seen,
        guard.clock.now(),
        principal_tags=principal_tags(reach, principals_to_read(rule, known.state, seen, change)),
        change=change,
        tagging=run.event if isinstance(run.event, KeyEvent) else None,
        partition=run.setup.partition,
    )
