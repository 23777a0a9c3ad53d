"""P5 and P7: who may use the key is on the record, and what X-Ray does for the guard's own calls is not."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from chalicelib.domain.model import Actor, KeyEvent, Subject
from chalicelib.domain.reasons import Violation
from chalicelib.domain.stored import Change, Record
from tests.simulation.beginnings import look, quiet, records_since, ticking
from tests.simulation.scenarios import Stage
from tests.simulation.world import ACCOUNT, GUARD_ROLE, HOME

BOB = Actor(f"arn:aws:iam::{ACCOUNT}:user/Bob", "IAMUser")
XRAY = "xray.amazonaws.com"
GRANTED = "granted to xray.amazonaws.com: Decrypt, GenerateDataKey"
DAY = 24 * 3600.0


def delivered(scene: Stage, event: KeyEvent, seconds: float = 30.0) -> list[Record]:
    """The records that the event causes."""
    count = len(scene.tables.records(HOME))
    scene.lambdas.deliver(event)
    scene.world.run(seconds)
    return records_since(scene, count)


@pytest.mark.parametrize("actor", [BOB, replace(BOB, via=XRAY), replace(BOB, via="ec2.amazonaws.com")])
def test_p5_a_grant_on_the_managed_key_is_recorded_once_under_its_actor(actor: Actor) -> None:
    scene = ticking(quiet())
    event = scene.world.user_creates_grant(HOME, scene.managed_key(), actor)
    (record,) = delivered(scene, event)
    assert record.change == Change(Subject.GRANTS, scene.managed_key(), None, GRANTED)
    assert (record.trigger.actor, record.violations) == (actor, ())
    assert delivered(scene, event) == []
    scene.witness.check_whole()


def test_a_grant_is_recorded_without_a_check_of_the_target() -> None:
    scene = ticking(quiet())
    event = scene.world.user_creates_grant(HOME, scene.managed_key(), BOB)
    runs = len(scene.lambdas.runs)
    delivered(scene, event, DAY)
    checks = [run for run in scene.lambdas.runs[runs:] if "GetEncryptionConfig" in run.calls]
    assert checks == []
    assert scene.witness.settled()


def test_p5_x_rays_grant_on_a_key_that_becomes_the_settings_is_recorded_though_its_event_comes_first() -> None:
    scene = quiet()
    theirs = scene.make_key(tagged=False)
    (record,) = delivered(scene, scene.world.user_creates_grant(HOME, theirs, replace(BOB, via=XRAY)))
    assert record.trigger.actor == replace(BOB, via=XRAY)
    assert delivered(scene, scene.world.user_creates_grant(HOME, theirs, BOB)) == [], "no key of the target's"
    abroad = replace(BOB, arn="arn:aws:iam::444455556666:user/Eve", via=XRAY)
    assert delivered(scene, scene.world.user_creates_grant(HOME, theirs, abroad)) == [], "another account's setting"
    scene.witness.check_whole()


def test_p7_the_grant_that_x_ray_makes_for_the_guard_is_an_echo_and_causes_nothing() -> None:
    scene = ticking(quiet())
    scene.world.delivery = lambda rng: [2.0]
    count = len(scene.tables.records(HOME))
    scene.world.user_puts(HOME, None)
    scene.world.run(3600)
    grant = next(
        event
        for event in reversed(scene.world.events)
        if event.trigger.event_name == "CreateGrant" and event.trigger.actor and event.trigger.actor.arn == GUARD_ROLE
    )
    outcomes = [record.outcome.value for record in records_since(scene, count)]
    assert outcomes == ["REMEDIATING", "REMEDIATED"], scene.witness.story()
    assert isinstance(grant, KeyEvent)
    assert delivered(scene, grant) == []
    assert scene.lambdas.runs[-1].calls == ["BatchGetItem"]
    scene.witness.check_whole()


@pytest.mark.parametrize(
    ("via", "own_key", "reasons"),
    [
        (None, True, ["ROLE_BORROWED", None]),
        (None, False, ["ROLE_BORROWED", None]),
        ("ec2.amazonaws.com", True, ["GRANTS_CHANGED"]),
        (XRAY, False, ["GRANTS_CHANGED"]),
    ],
)
def test_p7_any_other_grant_by_the_guards_role_is_recorded(
    via: str | None, own_key: bool, reasons: list[str | None]
) -> None:
    scene = ticking(quiet())
    actor = Actor(GUARD_ROLE, "AssumedRole", session="stolen", via=via)
    key = scene.managed_key() if own_key else scene.make_key(tagged=False)
    records = delivered(scene, scene.world.user_creates_grant(HOME, key, actor))
    assert [record.reason for record in records] == reasons
    assert records[-1].change is not None
    assert records[-1].change.resource == key
    scene.witness.check_whole()


def test_p5_nobody_is_named_for_a_violation_because_of_a_grant() -> None:
    scene = quiet()
    count = len(scene.tables.records(HOME))
    with scene.undelivered():
        scene.world.user_disables_key(HOME, scene.managed_key())
    delivered(scene, scene.world.user_creates_grant(HOME, scene.managed_key(), BOB))
    scene.lambdas.tick()
    look(scene)
    records = records_since(scene, count)
    assert [record.reason for record in records[:1]] == ["GRANTS_CHANGED"]
    assert records[-1].violations == (Violation.KEY_DISABLED,)
    assert {record.cause for record in records} == {None}
    assert {each.events for record in records for each in record.attributions} == {()}
