"""P6, P13 and P14: a sweep reads as much as it acts on, and an end of a break-glass says why it ended."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from chalicelib.domain.model import Actor
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import Record
from tests.simulation.beginnings import SWEEP, TICK, look, quiet, records_since
from tests.simulation.scenarios import Stage
from tests.simulation.world import ACCOUNT, HOME, Hazard

TAG = "xray-guard-break-glass"
ADMIN = Actor(f"arn:aws:iam::{ACCOUNT}:role/SecurityBreakGlass", "AssumedRole", session="oncall")


def value(scene: Stage) -> str:
    return f"{scene.world.clock + timedelta(hours=9):%Y%m%dT%H%M%SZ} INC-1"


def tag_key(scene: Stage, tags: tuple[tuple[str, str], ...]) -> None:
    """The managed key has the guard's tag and these; no event is delivered."""
    kms = scene.world.place(HOME).kms
    key = kms.keys[scene.managed_key()]
    ours = tuple(pair for pair in key.tags or () if pair[0] != TAG)
    scene.world.set_kms(HOME, kms.with_key(replace(key, tags=(*ours, *tags))))


def ended(scene: Stage, count: int) -> list[str | None]:
    """Why break-glasses ended since the target had so many records."""
    found: list[Record] = [each for each in records_since(scene, count) if each.reason == "BREAK_GLASS_ENDED"]
    return [each.suppression.closed for each in found if each.suppression]


def test_p13_a_sweep_that_finds_the_key_disabled_reads_the_rest_and_repairs_it_in_one_run() -> None:
    scene = quiet()
    count = len(scene.tables.records(HOME))
    scene.world.user_changes_key(HOME, scene.managed_key(), state="Disabled")
    look(scene, SWEEP)
    assert scene.witness.right(), scene.witness.story()
    assert [each.outcome for each in records_since(scene, count)] == [Outcome.REMEDIATING, Outcome.REMEDIATED]


def test_p14_a_sweep_sees_that_a_break_glass_was_removed_though_no_tick_comes() -> None:
    scene = quiet()
    scene.world.run(25 * 3600)
    tag_key(scene, ((TAG, value(scene)),))
    look(scene, SWEEP)
    assert scene.tables.state(HOME).watch is not None
    count = len(scene.tables.records(HOME))
    tag_key(scene, ())
    look(scene, SWEEP)
    assert ended(scene, count) == ["REMOVED"]


def test_p14_a_tag_that_cannot_be_read_ends_a_break_glass_and_is_not_said_to_be_removed() -> None:
    scene = quiet()
    scene.world.principal_tags[ADMIN.arn] = ((TAG, value(scene)),)
    scene.lambdas.deliver(scene.world.user_puts(HOME, None, ADMIN))
    scene.world.run(30)
    assert scene.tables.state(HOME).outcome is Outcome.SUPPRESSED, scene.witness.story()
    count = len(scene.tables.records(HOME))
    scene.world.hazard = lambda run, number, name: Hazard("throttle") if name == "ListRoleTags" else None
    look(scene, TICK)
    assert ended(scene, count) == ["TAG_UNREADABLE"]
    assert scene.witness.right(), scene.witness.story()
