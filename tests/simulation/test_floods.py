"""Whoever floods the guard with what it must audit does not keep it from acting, and loses no line of the audit log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from chalicelib.domain.floods import MOST_IN_FULL
from chalicelib.domain.model import (
    GUARD_TAG_KEY,
    NONCE_TAG_KEY,
    Actor,
    ChangeEvent,
    Effect,
    KeyEvent,
    Subject,
)
from chalicelib.domain.reasons import Reason
from chalicelib.domain.stored import Record
from tests.simulation.beginnings import quiet, ticking
from tests.simulation.scenarios import Stage, stage
from tests.simulation.test_every_event import BOB, MALLORY
from tests.simulation.world import HOME, Hazard, Run

FLOOD_SECONDS = 60
COUNTED_WITHIN = 3600 + 60
"""Seconds: an hour from the first call, and the next tick."""
WORKERS = 40
"""More than ten are recorded in full only by workers that act at the same time."""


@pytest.mark.parametrize("refused_a_second", [2, 10, 20])
def test_a_flood_of_refused_calls_does_not_keep_x_ray_from_being_put_right(refused_a_second: int) -> None:
    """Anybody may have calls refused, and each is audited in the very chain that the remediation is recorded in."""
    scene = stage(latency=lambda rng, name: rng.uniform(0.005, 0.03) * (2 if name == "TransactWriteItems" else 1))
    scene.world.user_puts(HOME, None)
    scene.lambdas.schedule(first_sweep_after=None)
    assert scene.converge(), scene.witness.story()
    scene.world.run(1200)
    world, ends = scene.world, scene.world.now + FLOOD_SECONDS
    world.delivery = lambda rng: [rng.uniform(1, 3)]

    def flood() -> None:
        world.user_fails(HOME)
        if world.now < ends:
            world.later(world.rng.uniform(0.5, 1.5) / refused_a_second, flood)

    flood()
    world.user_puts(HOME, None)
    assert world.run(15, scene.witness.right), scene.witness.story()
    assert scene.converge(900), scene.witness.story()
    refused = {event.trigger.event_id for event in world.events if event.error_code}
    ignored = [record for record in scene.tables.records(HOME) if record.trigger.event_id in refused]
    audited = Counter(record.trigger.event_id for record in ignored)
    counted = Counter(event_id for _, event_id in scene.tables.counted)
    set_aside = Counter(
        event.trigger.event_id for event in scene.lambdas.dead_letters if isinstance(event, ChangeEvent)
    )
    assert audited + counted + set_aside == Counter(refused), (
        "each refused call is audited or counted once, or set aside"
    )
    assert MOST_IN_FULL <= len(audited) <= MOST_IN_FULL + WORKERS
    scene.witness.check_whole()


# --- what is only counted --------------------------------------------------------------------------------------------


def listening() -> Stage:
    """A compliant target, of which every event is delivered after a second."""
    scene = ticking(quiet())
    scene.world.delivery = lambda rng: [1.0]
    return scene


def own_records(scene: Stage, actor: Actor) -> list[Record]:
    return [record for record in scene.tables.records(HOME) if record.change and record.trigger.actor == actor]


def counts(scene: Stage) -> list[Record]:
    return [record for record in scene.tables.records(HOME) if record.reason == Reason.CALLS_COUNTED]


def repeated(scene: Stage, times: int, call: Callable[[], object]) -> None:
    for _ in range(times):
        call()
        scene.world.run(2)


def retags(scene: Stage, key: str, by: Actor) -> KeyEvent:
    arn = scene.managed_key()
    effect = Effect(Subject.TAGS, arn, f"{key}=x")
    return scene.world.tell_key(HOME, by, "TagResource", (arn,), effect=effect, tag_keys=(key,))


def test_p5_refused_calls_beyond_ten_are_counted_and_the_number_is_recorded_within_the_hour() -> None:
    scene = listening()
    repeated(scene, 40, lambda: scene.world.user_fails(HOME, MALLORY))
    assert len(own_records(scene, MALLORY)) == MOST_IN_FULL
    assert counts(scene) == []
    scene.world.run(COUNTED_WITHIN)
    (count,) = counts(scene)
    assert count.trigger.actor == Actor(MALLORY.arn)
    assert (count.detail["refused_calls"], count.detail["tag_changes"]) == (30, 0)
    assert str(count.detail["message"]).startswith(f"30 more refused calls by {MALLORY.arn} since ")
    scene.witness.check_whole()


def test_p5_a_counted_call_is_one_transaction_and_leaves_the_targets_state_as_it_is() -> None:
    scene = listening()
    repeated(scene, MOST_IN_FULL, lambda: scene.world.user_fails(HOME, MALLORY))
    before = scene.tables.state(HOME)
    repeated(scene, 5, lambda: scene.world.user_fails(HOME, MALLORY))
    assert scene.tables.state(HOME) == before
    assert scene.lambdas.runs[-1].calls[-2:] == ["BatchGetItem", "TransactWriteItems"]


def test_p5_a_call_that_is_delivered_twice_is_counted_once() -> None:
    scene = listening()
    events = [scene.world.user_fails(HOME, MALLORY) for _ in range(MOST_IN_FULL + 3)]
    scene.world.run(60)
    for event in events:
        scene.lambdas.deliver(event)
        scene.world.run(1)
    scene.world.run(COUNTED_WITHIN)
    (count,) = counts(scene)
    assert count.detail["refused_calls"] == 3
    scene.witness.check_whole()


def test_p5_the_sessions_of_a_role_share_a_tally_and_other_principals_have_their_own() -> None:
    scene = listening()
    sessions = [replace(MALLORY, session=f"session-{number}") for number in range(MOST_IN_FULL + 4)]
    for session in sessions:
        scene.world.user_fails(HOME, session)
        scene.world.run(2)
    event = scene.world.user_fails(HOME, BOB)
    scene.world.run(COUNTED_WITHIN)
    assert sum(len(own_records(scene, session)) for session in sessions) == MOST_IN_FULL
    assert [record.trigger.event_id for record in own_records(scene, BOB)] == [event.trigger.event_id]
    (count,) = counts(scene)
    assert count.detail["refused_calls"] == 4
    scene.witness.check_whole()


def test_p5_changes_of_other_tags_are_counted_and_changes_of_the_guards_tags_never() -> None:
    scene = listening()
    repeated(scene, MOST_IN_FULL + 5, lambda: retags(scene, "cost-center", MALLORY))
    glass = scene.witness.rule(HOME).break_glass
    assert glass is not None
    ours = [key for key in (GUARD_TAG_KEY, GUARD_TAG_KEY.upper(), NONCE_TAG_KEY, glass.tag) for _ in range(6)]
    for key in ours:
        retags(scene, key, MALLORY)
        scene.world.run(2)
    scene.world.run(COUNTED_WITHIN)
    changed = [str(record.change.after) for record in own_records(scene, MALLORY) if record.change]
    assert changed == ["cost-center=x"] * MOST_IN_FULL + [f"{key}=x" for key in ours]
    (count,) = counts(scene)
    assert (count.detail["refused_calls"], count.detail["tag_changes"]) == (0, 5)
    scene.witness.check_whole()


def test_p5_successful_changes_of_the_setting_are_never_only_counted() -> None:
    scene = listening()
    repeated(scene, 3 * MOST_IN_FULL, lambda: scene.world.user_puts(HOME, None, MALLORY))
    scene.world.run(2 * COUNTED_WITHIN)
    assert len(own_records(scene, MALLORY)) == 3 * MOST_IN_FULL
    assert counts(scene) == []
    scene.witness.check_whole()


def test_p5_after_the_hour_the_next_ten_are_recorded_in_full_again() -> None:
    scene = listening()
    repeated(scene, MOST_IN_FULL + 1, lambda: scene.world.user_fails(HOME, MALLORY))
    scene.world.run(COUNTED_WITHIN)
    repeated(scene, MOST_IN_FULL + 1, lambda: scene.world.user_fails(HOME, MALLORY))
    scene.world.run(COUNTED_WITHIN)
    assert len(own_records(scene, MALLORY)) == 2 * MOST_IN_FULL
    assert [count.detail["refused_calls"] for count in counts(scene)] == [1, 1]
    scene.witness.check_whole()


def test_p5_a_few_refused_calls_leave_no_count_and_no_tally() -> None:
    scene = listening()
    repeated(scene, MOST_IN_FULL, lambda: scene.world.user_fails(HOME, MALLORY))
    scene.world.run(COUNTED_WITHIN)
    assert (counts(scene), scene.tables.tallies) == ([], {})


@pytest.mark.parametrize("hazard", [Hazard("silence"), Hazard("silence", late=True), Hazard("crash", late=True)])
def test_p5_a_lost_answer_or_a_crash_while_counting_counts_no_call_twice_or_never(hazard: Hazard) -> None:
    scene = listening()
    repeated(scene, MOST_IN_FULL, lambda: scene.world.user_fails(HOME, MALLORY))
    struck: list[int] = []

    def once(run: Run, number: int, name: str) -> Hazard | None:
        if struck or name != "TransactWriteItems":
            return None
        struck.append(number)
        return hazard

    scene.world.hazard = once
    repeated(scene, 3, lambda: scene.world.user_fails(HOME, MALLORY))
    scene.world.run(COUNTED_WITHIN)
    assert struck
    (count,) = counts(scene)
    assert count.detail["refused_calls"] == 3
    scene.witness.check_whole()
