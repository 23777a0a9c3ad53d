"""From reads to a decision: a lost worker's key is searched for, and only tags that were read are weighed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from chalicelib.domain.breakglass import Weighed
from chalicelib.domain.model import NONCE_TAG_KEY, Actor, ChangeEvent, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.run import Known
from chalicelib.domain.settle import Judged
from chalicelib.domain.stored import Intent, Suppression, TargetState
from chalicelib.domain.waiting import INTENT_AGE
from chalicelib.loop.judging import judge_target, learn
from chalicelib.loop.observe import glance, glance_reads
from chalicelib.loop.reconcile import reconcile
from tests.simulation.scenarios import Stage
from tests.simulation.still import still
from tests.simulation.world import ACCOUNT, HOME, Run

SWEEP = Trigger(TriggerKind.SWEEP)
ADMIN = Actor(f"arn:aws:iam::{ACCOUNT}:role/SecurityBreakGlass", "AssumedRole", session="oncall")
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def scene() -> Stage:
    """A target that a sweep made compliant an hour ago."""
    scene = still()
    for _ in range(2):
        reconcile(scene.lambdas.guard(Run("sweep/1", "sweep")), HOME, SWEEP)
        scene.world.run(1800)
    assert scene.witness.right(), scene.witness.story()
    return scene


def knows(scene: Stage, **changes: object) -> TargetState:
    """The target's state with these fields changed."""
    state = replace(scene.tables.state(HOME), **changes)
    scene.tables.hold(state)
    return state


def judged(scene: Stage, change: ChangeEvent | None = None) -> tuple[Run, Known, Judged]:
    """What a sweep, or the run of a change event, finds before anything of it is stored."""
    invocation = Run("run/2", "run")
    guard = scene.lambdas.guard(invocation)
    run, reach = guard.run(HOME, change.trigger if change else SWEEP, change), guard.reach(HOME)
    assert run.rule is not None
    first = glance(reach, guard.gather(glance_reads(reach, run.rule)))
    known = learn(guard, reach, guard.known(run))
    return invocation, known, judge_target(guard, reach, run, run.rule, known, first)


def test_p14_a_sweep_that_reads_no_tags_leaves_every_break_glass_as_it_was(scene: Stage) -> None:
    now, arn = scene.world.clock, scene.managed_key()
    glass = Suppression(arn, "20261120T230000Z INC-1", "INC-1", now, now + HOUR, now + HOUR)
    knows(scene, suppressions=(glass,), outcome=Outcome.COMPLIANT)
    _, _, found = judged(scene)
    assert not found.seen.deep
    assert found.glass == Weighed((glass,), None)


@pytest.mark.parametrize(("older", "found"), [(SECOND, False), (0 * SECOND, True), (-SECOND, True)])
def test_p2_a_lost_workers_key_is_searched_for_among_those_as_young_as_the_intent(
    scene: Stage, older: timedelta, found: bool
) -> None:
    """The intent is due after the lease and all stale reads: a key made before it is another's."""
    due = scene.world.clock + timedelta(minutes=3)
    made_at = due - INTENT_AGE - older
    lost = scene.make_key(tagged=True, tags=((NONCE_TAG_KEY, "nonce-lost"),), made_at=made_at)
    before = knows(scene, intent=Intent("nonce-lost", due))
    invocation, known, _ = judged(scene)
    assert "ListKeys" in invocation.calls
    assert known.state.keys_made[len(before.keys_made) :] == ((lost,) if found else ())
    assert (known.state.intent is None) is found
    assert known.stored == before, "what was learned is stored with what the run writes at its end"
    assert "TransactWriteItems" not in invocation.calls


@pytest.mark.parametrize("audited", [False, True], ids=["first", "duplicate"])
def test_p14_only_the_first_delivery_of_a_change_opens_its_actors_break_glass(scene: Stage, audited: bool) -> None:
    """Whoever sets the tag after the drift is on the record does not suspend its remediation by a duplicate."""
    until = scene.world.clock + HOUR
    change = scene.world.user_puts(HOME, None, ADMIN)
    scene.world.principal_tags[ADMIN.arn] = (("xray-guard-break-glass", f"{until:%Y%m%dT%H%M%SZ} INC-1"),)
    if audited:
        scene.tables.markers.add((str(HOME), change.trigger.event_id or ""))
    _, _, found = judged(scene, change)
    expected = Outcome.REMEDIATING if audited else Outcome.SUPPRESSED
    assert (found.decision.outcome, len(found.glass.suppressions)) == (expected, 0 if audited else 1)
