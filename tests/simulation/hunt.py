"""The hunt: random schedules, each given by its seed, up to a number of schedules or of seconds.

    python -m tests.simulation.hunt --schedules 20000 --seconds 600 [--first 0]

A schedule has a rough period: users and rivals change X-Ray, the key and the alias; events arrive late, twice, in any
order or never; calls are slow, throttled or unanswered; workers die or freeze; KMS reads are stale. Then it is quiet,
and within a day the target must be compliant. `--crashes` interrupts every call of every scenario instead.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from random import Random

from chalicelib.domain.model import Actor, Key, Trigger, TriggerKind
from chalicelib.domain.ownership import is_own
from tests.simulation.crashing import CRASHES, FRESH, LOST_ANSWERS, MIXED, OLDEST, check, interrupted
from tests.simulation.scenarios import ALIAS, BARE_POLICY, FOREIGN_KEY, SCENARIOS, Stage, stage
from tests.simulation.world import ACCOUNT, ALICE, HOME, MUTATIONS, Hazard, Run

ONLY_ITS_OWNER = ("KEY_NOT_TAGGED", "KEY_NOT_OURS", "KEY_POLICY_OPEN")
"""Reasons for which only the owner of a key can help."""

ROUGH_SECONDS = 5400.0
QUIET_SECONDS = 26 * 3600.0
"""A sweep reads policy, rotation and tags once a day: a change whose event was lost is found by then."""

Act = Callable[[Stage, Random], None]


def schedule(seed: int) -> Stage:
    """Run one random schedule to its end, and return its stage, to be checked."""
    dice = Random(seed)
    trouble = dice.choice((0.0, 0.005, 0.02, 0.06))
    sluggish = dice.choice((0.0, 0.02, 0.1))
    lossy = dice.choice((0.0, 0.1, 0.4))
    stale = dice.choice((FRESH, FRESH, MIXED, OLDEST))
    settles = dice.choice((1.0, 30.0, 300.0))
    with_alias = dice.random() < 0.3
    rough = [True]

    def hazard(run: Run, number: int, name: str) -> Hazard | None:
        if not rough[0] or dice.random() >= trouble:
            return None
        return dice.choice((*CRASHES, *CRASHES, *LOST_ANSWERS))

    def latency(rng: Random, name: str) -> float:
        if not rough[0] or rng.random() >= sluggish:
            return rng.uniform(0.005, 0.06)
        # A mutation's client gives up after eleven seconds; a process may freeze for longer anywhere else.
        return rng.uniform(0.5, 5.0 if name in MUTATIONS else 20.0)

    def delivery(rng: Random) -> list[float]:
        if rough[0] and rng.random() < lossy:
            return []
        copies = 1 if rng.random() < 0.75 else rng.randint(2, 3)
        return [rng.choice((1.0, 3.0, rng.uniform(1, 60), rng.uniform(1, 900))) for _ in range(copies)]

    scene = stage(
        seed,
        rivals=with_alias,
        shuffled=True,
        hazard=hazard,
        latency=latency,
        staleness=stale,
        delivery=delivery,
        settling=lambda rng: rng.uniform(0, settles),
    )
    # A user may change the key between its read and the Put: only KMS's last response counts.
    scene.witness.fresh = False
    scene.witness.follows_attributions = True
    world = scene.world
    world.user_puts(HOME, None)
    scene.lambdas.schedule(first_sweep_after=dice.uniform(60, 3600))
    acts = [*SETTING_ACTS, *KEY_ACTS, *SPANS_ACTS, *WORKER_ACTS, *(ALIAS_ACTS if with_alias else ())]
    for _ in range(dice.randint(1, 14)):
        act = dice.choice(acts)
        # Often close together, because concurrent changes are the ones that go wrong.
        at = dice.choice((dice.uniform(0, 10), dice.uniform(0, 400), dice.uniform(0, ROUGH_SECONDS)))
        world.later(at, partial(act, scene, dice))
    world.run(ROUGH_SECONDS)
    rough[0] = False
    world.staleness = FRESH
    world.run(1000)
    # If the guard may not change the key for lack of a tag, only its owner can help: stop waiting.
    world.run(
        QUIET_SECONDS,
        lambda: (
            scene.lambdas.idle
            and (
                scene.tables.state(HOME).reason in ONLY_ITS_OWNER or (scene.witness.settled() and scene.witness.right())
            )
        ),
    )
    world.end()
    return scene


def check_schedule(scene: Stage) -> None:
    """Check what must hold after any schedule. Raises AssertionError."""
    scene.witness.check_whole()
    state = scene.tables.state(HOME)
    if state.reason in ONLY_ITS_OWNER:
        key = scene.world.place(HOME).kms.keys[state.managed_key or scene.world.place(HOME).kms.aliases[ALIAS]]
        assert not (key.is_ours and is_own(key.arn, state)), scene.witness.story()
        assert state.incident is not None, "refused, and never checked again"
        assert state.incident.due is not None, "refused, and never checked again"
        return
    scene.witness.check_right(keys=3 if scene.witness.rivals else 1)


# --- what happens ----------------------------------------------------------------------------------------------------

PEOPLE = (
    ALICE,
    Actor(f"arn:aws:iam::{ACCOUNT}:user/Bob", "IAMUser"),
    Actor(f"arn:aws:iam::{ACCOUNT}:role/Mallory", "AssumedRole", session="shell"),
    Actor(f"arn:aws:iam::{ACCOUNT}:role/Mallory", "AssumedRole", session="pipeline"),
)


def _own_key(scene: Stage) -> Key | None:
    """Return the managed key's actual state, if it exists and the guard may change it."""
    key = scene.world.place(HOME).kms.keys.get(scene.tables.state(HOME).managed_key or "")
    return key if key is not None and key.is_ours and is_own(key.arn, scene.tables.state(HOME)) else None


def _puts_none(scene: Stage, dice: Random) -> None:
    scene.world.user_puts(HOME, None, dice.choice(PEOPLE))


def _puts_aws_managed(scene: Stage, dice: Random) -> None:
    key = scene.world.user_makes_key(HOME, manager="AWS", rotation=True, policy=BARE_POLICY)
    scene.world.user_puts(HOME, key, dice.choice(PEOPLE))


def _puts_other_key(scene: Stage, dice: Random) -> None:
    scene.world.user_puts(HOME, scene.make_key(tagged=False), dice.choice(PEOPLE))


def _puts_it_back(scene: Stage, dice: Random) -> None:
    key = _own_key(scene)
    if key is not None and key.state == "Enabled":
        scene.world.user_puts(HOME, key.arn, dice.choice(PEOPLE))


def _changes(**changes: object) -> Act:
    def act(scene: Stage, dice: Random) -> None:
        key = _own_key(scene)
        if key is not None and not (key.state == "PendingDeletion" and changes.get("state") == "Disabled"):
            scene.world.user_changes_key(HOME, key.arn, dice.choice(PEOPLE), **changes)

    return act


def _moves_alias(scene: Stage, dice: Random) -> None:
    scene.world.user_sets_alias(HOME, ALIAS, scene.make_key(tagged=dice.random() < 0.7), dice.choice(PEOPLE))


def _deletes_alias(scene: Stage, dice: Random) -> None:
    scene.world.user_sets_alias(HOME, ALIAS, None, dice.choice(PEOPLE))


def _adds_a_tag(scene: Stage, dice: Random) -> None:
    key = _own_key(scene)
    if key is not None:
        tags = tuple(dict([*(key.tags or ()), ("team", str(dice.randint(1, 9)))]).items())
        scene.world.user_changes_key(HOME, key.arn, dice.choice(PEOPLE), tags=tags)


def _sends_spans(scene: Stage, dice: Random) -> None:
    scene.world.user_sends_spans(HOME, actor=dice.choice(PEOPLE), exists=dice.random() < 0.8)


def _takes_spans_back(scene: Stage, dice: Random) -> None:
    if dice.random() < 0.5:
        scene.world.user_sends_spans(HOME, "XRay", dice.choice(PEOPLE))
    elif scene.world.place(HOME).group is not None:
        scene.world.user_deletes_group(HOME, dice.choice(PEOPLE))


def _associates_another(scene: Stage, dice: Random) -> None:
    if scene.world.place(HOME).group is not None:
        arn = dice.choice((FOREIGN_KEY, scene.make_key(tagged=False)))
        scene.world.user_associates(HOME, arn, dice.choice(PEOPLE))


def _takes_key_off(scene: Stage, dice: Random) -> None:
    if scene.world.place(HOME).group is not None:
        scene.world.user_associates(HOME, None, dice.choice(PEOPLE))


def _links_and_unlinks(scene: Stage, dice: Random) -> None:
    scene.world.user_links(HOME, "444455556666", dice.choice(PEOPLE))
    who = dice.choice(PEOPLE)

    def unlink() -> None:
        scene.world.user_unlinks(HOME, who)

    scene.world.later(dice.uniform(1, 3000), unlink)


def _hears_again(scene: Stage, dice: Random) -> None:
    scene.lambdas.deliver(dice.choice(scene.world.events))


def _sweeps(scene: Stage, dice: Random) -> None:
    scene.lambdas.sweep()


def _freezes(scene: Stage, dice: Random) -> None:
    """An operator's process, which has no timeout, freezes for minutes between two of its calls."""
    world = scene.world
    frozen_at = dice.randint(0, 12)
    begun: list[Run] = []
    awake = world.latency

    def latency(rng: Random, name: str) -> float:
        run = begun[0] if begun else None
        # Not between reading the clock and sending a mutation: no process can guard against that.
        if run is not None and len(run.calls) == frozen_at and name not in MUTATIONS and run.calls[-1] == name:
            begun.clear()
            return dice.uniform(60, 400)
        return awake(rng, name)

    world.latency = latency
    scene.lambdas.look(Trigger(TriggerKind.OPERATOR), timeout=None)
    begun.append(scene.lambdas.runs[-1])


SETTING_ACTS: tuple[Act, ...] = (_puts_none, _puts_aws_managed, _puts_other_key, _puts_it_back)
KEY_ACTS: tuple[Act, ...] = (
    _changes(state="Disabled"),
    _changes(state="PendingDeletion"),
    _changes(state="Enabled"),
    _changes(policy=BARE_POLICY),
    _changes(rotation=False, rotation_days=None),
    _changes(rotation=True, rotation_days=2560),
    _adds_a_tag,
)
SPANS_ACTS: tuple[Act, ...] = (_sends_spans, _takes_spans_back, _associates_another, _takes_key_off, _links_and_unlinks)
ALIAS_ACTS: tuple[Act, ...] = (_moves_alias, _deletes_alias)
WORKER_ACTS: tuple[Act, ...] = (_hears_again, _sweeps, _freezes)


# --- the command -----------------------------------------------------------------------------------------------------


def hunt(first: int, schedules: int, seconds: float) -> int:
    """Run schedules from `first` on. Print the failed ones with their seeds, and return their number."""
    until = time.monotonic() + seconds
    failed = done = 0
    for seed in range(first, first + schedules):
        if time.monotonic() > until:
            break
        done += 1
        try:
            check_schedule(schedule(seed))
        except AssertionError as error:
            failed += 1
            print(f"seed {seed}:\n{error}\n", flush=True)
    print(f"{done} schedules, {failed} failed")
    return failed


def sweep_crashes() -> int:
    """Interrupt every call of every scenario in every way, with fresh, mixed and oldest reads."""
    failed = done = 0
    for scenario in SCENARIOS:
        for staleness in (FRESH, MIXED, OLDEST):
            for story in interrupted(scenario, (*CRASHES, *LOST_ANSWERS), staleness):
                done += 1
                try:
                    check(story)
                except AssertionError as error:
                    failed += 1
                    print(f"{error}\n", flush=True)
    print(f"{done} stories, {failed} failed")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--crashes", action="store_true")
    options = parser.parse_args()
    failed = sweep_crashes() if options.crashes else hunt(options.first, options.schedules, options.seconds)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
