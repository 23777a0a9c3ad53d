"""P5: the record of a change to a key, its alias or its tags holds what stood there before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.domain.attribution import canonical_digest
from chalicelib.domain.model import Actor, Effect, KeyEvent, Subject
from chalicelib.domain.stored import Change
from tests.simulation.beginnings import OPERATOR, look, quiet
from tests.simulation.lambdas import baseline
from tests.simulation.scenarios import Stage
from tests.simulation.world import ACCOUNT, HOME

BOB = Actor(f"arn:aws:iam::{ACCOUNT}:user/Bob", "IAMUser")
ALIAS = "alias/xray-encryption"
POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "kms:*"}]}'
SAME_POLICY = POLICY.replace(": ", ":").replace(", ", ",")
MINUTE = 60.0


def observed() -> Stage:
    """A compliant target that the guard only observes from now on."""
    scene = quiet()
    scene.lambdas.policy = baseline(mode="observe")
    return scene


def does(scene: Stage, name: str, subject: Subject, after: str, **changed: Any) -> KeyEvent:
    """Somebody changes the managed key. The event is returned, and not delivered."""
    key = scene.managed_key()
    kms = scene.world.place(HOME).kms
    scene.world.set_kms(HOME, kms.with_key(replace(kms.keys[key], **changed)))
    return scene.world.tell_key(HOME, BOB, name, (key,), effect=Effect(subject, key, after))


def disables(scene: Stage) -> KeyEvent:
    return does(scene, "DisableKey", Subject.KEY_STATE, "Disabled", state="Disabled")


def enables(scene: Stage) -> KeyEvent:
    return does(scene, "EnableKey", Subject.KEY_STATE, "Enabled", state="Enabled")


def schedules_deletion(scene: Stage) -> KeyEvent:
    return does(scene, "ScheduleKeyDeletion", Subject.KEY_STATE, "PendingDeletion", state="PendingDeletion")


def puts_policy(scene: Stage, text: str, shown: str) -> KeyEvent:
    return does(scene, "PutKeyPolicy", Subject.KEY_POLICY, text, policy=shown)


def tags(scene: Stage, given: dict[str, str]) -> KeyEvent:
    now = {**dict(scene.world.place(HOME).kms.keys[scene.managed_key()].tags or ()), **given}
    text = ", ".join(f"{key}={value}" for key, value in given.items())
    event = does(scene, "TagResource", Subject.TAGS, text, tags=tuple(now.items()))
    return replace(event, tag_keys=tuple(given), tags=tuple(given.items()))


def untags(scene: Stage, *keys: str) -> KeyEvent:
    now = scene.world.place(HOME).kms.keys[scene.managed_key()].tags or ()
    left = tuple(tag for tag in now if tag[0] not in keys)
    event = does(scene, "UntagResource", Subject.TAGS, f"removed {', '.join(keys)}", tags=left)
    return replace(event, tag_keys=keys)


def moves_alias(scene: Stage, arn: str | None) -> KeyEvent:
    scene.world.set_kms(HOME, scene.world.place(HOME).kms.with_alias(ALIAS, arn))
    effect = Effect(Subject.ALIAS, ALIAS, arn or "deleted")
    name = "UpdateAlias" if arn else "DeleteAlias"
    return scene.world.tell_key(HOME, BOB, name, (arn or scene.managed_key(),), ALIAS, effect=effect)


def delivered(scene: Stage, *events: KeyEvent) -> list[tuple[str | None, str | None]]:
    """What the records of the events hold: the value before, and the one after."""
    for event in events:
        scene.lambdas.deliver(event)
        scene.world.run(30)
    found = [change_of(scene, event) for event in events]
    return [(change.before, change.after) for change in found]


def change_of(scene: Stage, event: KeyEvent) -> Change:
    (change,) = [
        record.change
        for record in scene.tables.records(HOME)
        if record.change and record.trigger.event_id == event.trigger.event_id
    ]
    return change


def test_the_state_of_a_key() -> None:
    scene = observed()
    changes = delivered(scene, disables(scene))
    scene.world.run(5 * MINUTE)
    changes += delivered(scene, enables(scene))
    assert changes == [("Enabled", "Disabled"), ("Disabled", "Enabled")]


def test_the_rotation_of_a_key() -> None:
    scene = observed()
    changes = delivered(scene, stops_rotation(scene))
    scene.world.run(5 * MINUTE)
    on = {"rotation": True, "rotation_days": 90}
    changes += delivered(scene, does(scene, "EnableKeyRotation", Subject.KEY_ROTATION, "on every 90 days", **on))
    assert changes == [("on every 365 days", "off"), ("off", "on every 90 days")]


def test_the_key_policy_as_a_digest_that_does_not_depend_on_its_spacing() -> None:
    scene = observed()
    former = scene.world.place(HOME).kms.keys[scene.managed_key()].policy or ""
    changes = delivered(scene, puts_policy(scene, POLICY, SAME_POLICY))
    scene.world.run(5 * MINUTE)
    changes += delivered(scene, puts_policy(scene, former, former))
    assert changes == [
        (f"sha256:{canonical_digest(former)}", POLICY),
        (f"sha256:{canonical_digest(SAME_POLICY)}", former),
    ]


def test_the_tags_that_were_set_or_removed() -> None:
    scene = observed()
    changes = delivered(scene, tags(scene, {"team": "a", "owner": "b"}))
    changes += delivered(scene, tags(scene, {"team": "c"}))
    changes += delivered(scene, untags(scene, "owner", "team"))
    assert changes == [
        ("team not set, owner not set", "team=a, owner=b"),
        ("team=a", "team=c"),
        ("owner=b, team=c", "removed owner, team"),
    ]


def test_the_key_behind_an_alias() -> None:
    scene = observed()
    ours, theirs = scene.managed_key(), scene.make_key(tagged=False)
    changes = delivered(scene, moves_alias(scene, theirs))
    changes += delivered(scene, moves_alias(scene, None))
    changes += delivered(scene, moves_alias(scene, ours))
    assert changes == [(ours, theirs), (theirs, "deleted"), ("none", ours)]


def test_two_changes_whose_events_come_after_the_guard_saw_the_result() -> None:
    scene = observed()
    first = disables(scene)
    scene.world.run(5)
    second = schedules_deletion(scene)
    scene.world.run(5)
    look(scene, OPERATOR)
    assert delivered(scene, first, second) == [("Enabled", "Disabled"), ("Disabled", "PendingDeletion")]


def test_two_changes_whose_events_come_in_the_wrong_order() -> None:
    scene = observed()
    first = disables(scene)
    scene.world.run(5)
    second = schedules_deletion(scene)
    scene.world.run(5)
    # Nothing is known of the first change when the second event arrives.
    assert delivered(scene, second, first) == [("Enabled", "PendingDeletion"), ("Enabled", "Disabled")]


@pytest.mark.parametrize("stale", [0.0, 200.0])
def test_what_kms_is_slow_to_show_is_not_taken_for_a_change_back(stale: float) -> None:
    scene = observed()
    scene.world.run(5 * MINUTE)
    scene.world.staleness = lambda rng: stale
    changes = delivered(scene, disables(scene))
    changes += delivered(scene, schedules_deletion(scene))
    assert changes == [("Enabled", "Disabled"), ("Disabled", "PendingDeletion")]


def stops_rotation(scene: Stage) -> KeyEvent:
    return does(scene, "DisableKeyRotation", Subject.KEY_ROTATION, "off", rotation=False)


def strips_policy(scene: Stage) -> KeyEvent:
    return puts_policy(scene, POLICY, POLICY)


def deletes_alias(scene: Stage) -> KeyEvent:
    return moves_alias(scene, None)


@pytest.mark.parametrize("deed", [disables, stops_rotation, strips_policy, deletes_alias])
def test_what_the_guard_repaired_is_known_as_repaired(deed: Callable[[Stage], KeyEvent]) -> None:
    scene = quiet()
    delivered(scene, deed(scene))
    assert scene.witness.right(), scene.witness.story()
    kms = scene.world.place(HOME).kms
    policy = kms.keys[scene.managed_key()].policy or ""
    before: dict[Callable[[Stage], KeyEvent], str] = {
        disables: "Enabled",
        stops_rotation: "on every 365 days",
        strips_policy: f"sha256:{canonical_digest(policy)}",
        deletes_alias: scene.managed_key(),
    }
    ((found, _),) = delivered(scene, deed(scene))
    assert found == before[deed]


def test_nothing_is_known_of_a_key_before_the_guard_saw_it() -> None:
    scene = observed()
    theirs = scene.make_key(tagged=False)
    scene.world.user_puts(HOME, theirs)
    look(scene)
    early = scene.world.user_disables_key(HOME, theirs, BOB)
    early = replace(early, trigger=replace(early.trigger, event_time=scene.world.clock.replace(year=2020)))
    assert delivered(scene, early) == [(None, "Disabled")]
    scene.world.user_puts(HOME, None)
    look(scene)
    assert {each.resource for each in scene.tables.state(HOME).last_seen} == {None, ALIAS, scene.managed_key()}


def test_an_event_that_follows_a_change_seen_without_an_event_has_the_setting_from_before() -> None:
    scene = observed()
    event = scene.world.user_puts(HOME, None, BOB)
    scene.world.run(5)
    look(scene)
    scene.lambdas.deliver(event)
    scene.world.run(30)
    (change,) = [
        record.change for record in scene.tables.records(HOME) if record.change and record.trigger.actor == BOB
    ]
    assert (change.before, change.after) == (f"KMS {scene.managed_key()}", "NONE")


def test_an_unchanged_target_stores_nothing_more_than_before() -> None:
    scene = quiet()
    version = scene.tables.state(HOME).version
    scene.world.staleness = lambda rng: 200.0
    for _ in range(3):
        look(scene)
    assert scene.tables.state(HOME).version == version


def test_what_is_kept_stays_small_whatever_is_changed() -> None:
    scene = observed()
    for number in range(9):
        value = f"{number:03}" * 80
        delivered(scene, tags(scene, {f"tag-{number}": value, "same": value}))
    kept = scene.tables.state(HOME).last_seen
    assert max(len(each.values) for each in kept) == 3
    assert max(len(value.value) for each in kept for value in each.values) == 512
