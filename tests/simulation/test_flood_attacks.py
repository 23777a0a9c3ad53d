"""Attacks on the log by many calls: none keeps its number, or somebody else's change, off the record."""

from __future__ import annotations

from msgspec.structs import replace

from chalicelib.domain.floods import MOST_IN_FULL
from chalicelib.loop.batch import Report
from chalicelib.loop.tick import close_tally
from tests.simulation.beginnings import operate
from tests.simulation.scenarios import stage
from tests.simulation.test_every_event import BOB, MALLORY
from tests.simulation.test_floods import counts, listening, own_records, repeated
from tests.simulation.world import HOME, Hazard, Run


def test_the_number_of_a_flood_that_goes_on_is_recorded_all_the_same() -> None:
    """Calls come 20 times a second, for two hours: at the latest after the first hour there must be a number."""
    scene = listening()
    repeated(scene, MOST_IN_FULL + 5, lambda: scene.world.user_fails(HOME, MALLORY))
    scene.world.run(3500)
    ends = scene.world.now + 900

    def flood() -> None:
        scene.world.user_fails(HOME, MALLORY)
        if scene.world.now < ends:
            scene.world.later(0.05, flood)

    flood()
    scene.world.run(900)
    assert counts(scene), "no number of the flood is on the record, fifteen minutes after its hour was over"


def test_a_call_while_a_tally_is_closed_does_not_fail_the_tick() -> None:
    """ADR 0011: "A call that comes meanwhile is in the next number"."""
    scene = listening()
    repeated(scene, MOST_IN_FULL + 5, lambda: scene.world.user_fails(HOME, MALLORY))
    struck: list[int] = []

    def meanwhile(run: Run, number: int, name: str) -> Hazard | None:
        store = scene.tables
        if name == "TransactWriteItems" and not struck and "tick" in run.name and store.tallies:
            (tally,) = store.tallies.values()
            if tally.closes_at <= scene.world.clock:
                struck.append(number)
                store.tallies[tally.name] = replace(tally, seen=tally.seen + 1, refused=tally.refused + 1)
        return None

    scene.world.hazard = meanwhile
    scene.world.run(3600 + 50)
    assert struck
    failed = [run for run in scene.lambdas.runs if getattr(run, "error", None)]
    assert (len(counts(scene)), failed) == (1, [])


def test_a_call_that_straddles_the_close_of_a_tally_begins_a_new_hour() -> None:
    """A worker reads the tally before a tick closes it, and adds to it after: the old `since` comes back. The next tick
    closes it again, after a minute and not an hour, and ten more calls are recorded in full each time."""
    scene = stage(latency=lambda rng, name: rng.uniform(0.005, 0.03) * (2 if name == "TransactWriteItems" else 1))
    scene.world.user_puts(HOME, None)
    scene.lambdas.schedule(first_sweep_after=None)
    assert scene.converge()
    scene.world.run(1200)
    scene.world.delivery = lambda rng: [1.0]
    repeated(scene, MOST_IN_FULL + 5, lambda: scene.world.user_fails(HOME, MALLORY))
    scene.world.run(3400)
    ends = scene.world.now + 1200

    def flood() -> None:
        scene.world.user_fails(HOME, MALLORY)
        if scene.world.now < ends:
            scene.world.later(scene.world.rng.uniform(0.5, 1.5) / 10, flood)

    flood()
    scene.world.run(1210)
    sinces = [record.detail["since"] for record in counts(scene)]
    full = len(own_records(scene, MALLORY))
    assert (len(sinces), full <= 2 * MOST_IN_FULL + 5) == (1, True), (sinces, full)


def test_a_flood_of_grants_keeps_no_event_about_the_setting_off_the_record() -> None:
    """KMS lets an account make 50 grants a second; each has the whole target observed and its state written."""
    scene = stage(latency=lambda rng, name: rng.uniform(0.005, 0.03) * (2 if name == "TransactWriteItems" else 1))
    scene.world.user_puts(HOME, None)
    scene.lambdas.schedule(first_sweep_after=None)
    assert scene.converge()
    scene.world.run(1200)
    scene.world.delivery = lambda rng: [rng.uniform(1, 3)]
    arn, ends, puts = scene.managed_key(), scene.world.now + 60, []

    def flood() -> None:
        scene.world.user_creates_grant(HOME, arn, MALLORY, MALLORY.arn)
        if scene.world.now < ends:
            scene.world.later(scene.world.rng.uniform(0.5, 1.5) / 20, flood)

    def change() -> None:
        puts.append(scene.world.user_puts(HOME, None, BOB))
        if scene.world.now < ends:
            scene.world.later(5, change)

    flood()
    change()
    scene.converge(900)
    scene.world.run(900)
    recorded = {record.trigger.event_id for record in scene.tables.records(HOME)}
    missing = [event.trigger.event_id for event in puts if event.trigger.event_id not in recorded]
    assert (len(missing), len(scene.lambdas.dead_letters)) == (0, 0), f"of {len(puts)} changes of the setting"


def test_two_ticks_at_once_close_a_tally_without_an_error() -> None:
    """The slower one must find that the tally is closed, and not fail: `tick` raises Incomplete, which is an alarm."""
    scene = listening()
    repeated(scene, MOST_IN_FULL + 5, lambda: scene.world.user_fails(HOME, MALLORY))
    (tally,) = scene.tables.tallies.values()
    scene.world.run(3700)
    assert len(counts(scene)) == 1
    report = Report()
    operate(scene, lambda guard: close_tally(guard, tally, report))
    scene.world.run(30)
    assert (len(counts(scene)), report.unreached) == (1, {})
