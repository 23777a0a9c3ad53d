"""P6: what CloudTrail's Event history knows is on the record, whatever became of the event."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from random import Random

import msgspec
import pytest
from msgspec.structs import replace

from chalicelib.domain.eventhistory import could_be_received
from chalicelib.domain.model import (
    Actor,
    ChangeEvent,
    Effect,
    EncryptionType,
    KeyEvent,
    Setting,
    Subject,
    Target,
    Trigger,
    TriggerKind,
)
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import GUARD_CHAIN, Record
from chalicelib.loop.event_history import HistoryReport
from tests.simulation.beginnings import quiet, ticking
from tests.simulation.crashing import CRASHES, LOST_ANSWERS
from tests.simulation.scenarios import ALIAS, BARE_POLICY, Stage, stage
from tests.simulation.test_break_glass import ADMIN, open_on_role, tag_key, value
from tests.simulation.world import ACCOUNT, ALICE, HOME, Hazard, Run

HOUR, MINUTE = 3600.0, 60.0
BOB = Actor(f"arn:aws:iam::{ACCOUNT}:role/deployer", "AssumedRole", session="bob")
AWAY = Target(ACCOUNT, "eu-west-1")


def reading(scene: Stage, seconds: float = 280.0, timeout: float = 300.0) -> HistoryReport:
    """Read Event history now, and return the run's report."""
    scene.lambdas.event_history(timeout)
    scene.world.run(seconds)
    (*_, report) = [result for result in scene.lambdas.results if isinstance(result, HistoryReport)]
    return report


def hourly(scene: Stage, hours: int) -> None:
    for _ in range(hours):
        scene.world.run(HOUR - 280)
        reading(scene)


def events_recorded(scene: Stage, target: Target = HOME) -> list[Record]:
    """The records of events, in order."""
    return [record for record in scene.tables.records(target) if record.change is not None]


def noted(scene: Stage, reason: Reason, target: Target | str = HOME) -> list[Record]:
    return [record for record in scene.tables.records(target) if record.reason == reason]


def once(scene: Stage, *events: ChangeEvent | KeyEvent, target: Target = HOME) -> None:
    """Each of these events has one record of its own, under its own actor."""
    counts = Counter(record.trigger.event_id for record in events_recorded(scene, target))
    assert [counts[event.trigger.event_id] for event in events] == [1] * len(events)
    actors = {record.trigger.event_id: record.trigger.actor for record in events_recorded(scene, target)}
    assert [actors[event.trigger.event_id] for event in events] == [event.trigger.actor for event in events]
    scene.witness.check_whole()


def delivered_after(scene: Stage, delays: list[float]) -> None:
    scene.world.delivery = lambda rng: delays


def toggled(scene: Stage, target: Target = HOME) -> tuple[ChangeEvent, ChangeEvent]:
    """Two changes between two sweeps that leave everything as it was; their events are lost."""
    before = scene.world.setting(target).key_arn
    with scene.undelivered():
        off = scene.world.user_puts(target, None, ALICE)
        scene.world.run(90)
        on = scene.world.user_puts(target, before, BOB)
    return off, on


# --- missed events ---------------------------------------------------------------------------------------------------


def test_p6_a_lost_toggle_between_two_sweeps_is_recorded_twice_with_its_actors_and_times() -> None:
    scene = quiet()
    events = toggled(scene)
    since = len(scene.tables.records(HOME))
    scene.world.run(30 * MINUTE)
    reading(scene)
    found = scene.tables.records(HOME)[since:]
    own = [record for record in found if record.change]
    assert [(each.trigger.event_id, each.trigger.actor, each.trigger.event_time) for each in own] == [
        (event.trigger.event_id, event.trigger.actor, event.trigger.event_time) for event in events
    ]
    assert {each.trigger.kind for each in own} == {TriggerKind.HISTORY}
    notes = [record for record in found if record.reason == Reason.MISSED_EVENT]
    assert [each.trigger.event_id for each in notes] == [event.trigger.event_id for event in events]
    assert all(note.seq + 1 == record.seq for note, record in zip(notes, own, strict=True))
    hourly(scene, 4)
    once(scene, *events)


def test_p6_nothing_is_missed_before_it_is_twenty_minutes_old() -> None:
    scene = quiet()
    since = len(scene.tables.records(HOME))
    events = toggled(scene)
    scene.world.run(16 * MINUTE)
    reading(scene, 60)
    assert scene.tables.records(HOME)[since:] == []
    scene.world.run(5 * MINUTE)
    reading(scene)
    once(scene, *events)


def test_p6_a_missed_change_that_still_stands_is_remediated_and_owned() -> None:
    scene = quiet()
    with scene.undelivered():
        event = scene.world.user_puts(HOME, None, BOB)
    scene.world.run(30 * MINUTE)
    scene.world.delivery = lambda rng: [2.0]
    reading(scene)
    assert scene.world.setting(HOME).type is EncryptionType.KMS
    (remediated,) = noted_outcomes(scene, Outcome.REMEDIATED)[1:]
    assert remediated.cause is not None
    assert remediated.cause.actor == BOB
    once(scene, event)


def noted_outcomes(scene: Stage, outcome: Outcome) -> list[Record]:
    return [record for record in scene.tables.records(HOME) if record.outcome is outcome]


def test_p6_a_drift_that_the_sweep_remediated_gets_its_actor_from_event_history() -> None:
    scene = quiet()
    with scene.undelivered():
        event = scene.world.user_puts(HOME, None, BOB)
    scene.lambdas.sweep()
    scene.world.run(40 * MINUTE)
    reading(scene)
    (record,) = [each for each in events_recorded(scene) if each.trigger.event_id == event.trigger.event_id]
    assert record.cause is not None
    assert record.cause.actor == BOB
    assert record.exposure_seconds is not None
    assert record.incident_id == scene.tables.state(HOME).past[-1].id
    once(scene, event)


@pytest.mark.parametrize("delays", [[2.0, 5.0, 900.0], [1000.0], [3600.0], [2 * HOUR, 3 * HOUR]])
def test_p6_p5_late_and_doubled_events_are_recorded_once(delays: list[float]) -> None:
    scene = quiet()
    key = scene.managed_key()
    scene.world.delivery = lambda rng: delays
    event = scene.world.user_puts(HOME, key, BOB)
    hourly(scene, 5)
    once(scene, event)
    assert not noted(scene, Reason.UNCONFIRMED)


@pytest.mark.parametrize("requests", [True, False])
def test_p6_ids_that_differ_on_both_ways_are_matched_by_request_or_by_time_actor_and_result(requests: bool) -> None:
    scene = quiet()
    scene.lambdas.shown.ids = lambda event_id: f"other-{event_id}"
    if not requests:
        scene.lambdas.shown.requests = lambda request_id: (
            request_id if request_id in scene.world.guards_requests else None
        )
    scene.world.delivery = lambda rng: [2.0]
    events = [scene.world.user_puts(HOME, scene.managed_key(), actor) for actor in (ALICE, BOB)]
    events.append(scene.world.user_fails(HOME, BOB))
    hourly(scene, 5)
    once(scene, *events)
    assert not noted(scene, Reason.UNCONFIRMED)
    assert not noted(scene, Reason.MISSED_EVENT)
    progress = scene.lambdas.histories.of(HOME)
    assert progress.matched_by_id == 0
    assert progress.matched_otherwise > 0


def test_p7_calls_of_the_guard_itself_are_not_missed() -> None:
    scene = quiet()
    reading(scene)
    assert not noted(scene, Reason.MISSED_EVENT)
    assert not noted(scene, Reason.ROLE_BORROWED)
    assert [each.trigger.actor for each in events_recorded(scene)] == [ALICE]
    assert scene.lambdas.histories.of(HOME).missed_in_a_row == 0


def test_p7_a_call_whose_worker_died_before_its_record_is_not_missed() -> None:
    scene = ticking(quiet())
    scene.world.delivery = lambda rng: [2.0]
    died: list[str] = []

    def dies(run: Run, number: int, name: str) -> Hazard | None:
        if name == "PutEncryptionConfig" and not died:
            died.append(run.name)
            return Hazard("crash", late=True)
        return None

    scene.world.hazard = dies
    scene.world.user_puts(HOME, None)
    scene.world.run(30 * MINUTE)
    assert died
    own = [each for each in scene.world.events if each.trigger.request_id in scene.world.guards_requests]
    known = {action.request_id for record in scene.tables.records(HOME) for action in record.actions}
    assert {each.trigger.request_id for each in own if isinstance(each, ChangeEvent)} - known, (
        "one call is on no record"
    )
    assert reading(scene).missed == 0
    assert scene.lambdas.histories.of(HOME).missed_in_a_row == 0
    scene.witness.check_whole()


def test_p5_refused_calls_that_were_only_counted_are_not_missed() -> None:
    scene = quiet()
    scene.world.delivery = lambda rng: [2.0]
    for _ in range(30):
        scene.world.user_fails(HOME, BOB)
        scene.world.run(5)
    since = len(scene.tables.records(HOME))
    scene.world.run(30 * MINUTE)
    assert reading(scene).missed == 0
    assert len(scene.tables.records(HOME)) == since
    scene.witness.check_whole()


def test_p11_an_event_that_cannot_be_read_is_recorded_once_and_the_others_are_processed() -> None:
    scene = quiet()
    events = toggled(scene)
    broken = events[0].trigger.event_id or ""
    scene.lambdas.shown.texts = lambda text: "{" if broken in text else text
    hourly(scene, 3)
    once(scene, events[1])
    (rejected,) = [each for each in scene.tables.records(GUARD_CHAIN) if each.trigger.event_id == broken]
    assert (rejected.outcome, rejected.reason) == (Outcome.FAILED, Reason.DETAIL_MISSING)


def test_p11_an_event_of_another_account_in_event_history_is_rejected() -> None:
    scene = quiet()
    toggled(scene)
    since = len(scene.tables.records(HOME))
    scene.lambdas.shown.texts = lambda text: text.replace(
        f'"recipientAccountId": "{ACCOUNT}"', '"recipientAccountId": "999988887777"'
    )
    hourly(scene, 1)
    assert scene.tables.records(HOME)[since:] == []
    assert Target("999988887777", HOME.region) not in scene.world.places
    assert {each.reason for each in scene.tables.records(GUARD_CHAIN) if each.outcome is Outcome.FAILED} == {
        Reason.TARGET_MISMATCH
    }


# --- what no event explains -----------------------------------------------------------------------------------------


def broken(scene: Stage, how: str) -> KeyEvent:
    """BOB does something to the managed key or its alias; the event is lost."""
    world, key = scene.world, scene.managed_key()
    with scene.undelivered():
        match how:
            case "alias":
                world.user_sets_alias(HOME, ALIAS, None, BOB)
            case "rotation":
                world.user_changes_key(HOME, key, BOB, rotation=False)
            case "policy":
                world.user_changes_key(HOME, key, BOB, policy=BARE_POLICY)
            case state:
                world.user_changes_key(HOME, key, BOB, state=state)
    *_, event = [each for each in world.events if isinstance(each, KeyEvent)]
    assert event.trigger.actor == BOB
    return event


@pytest.mark.parametrize("how", ["Disabled", "PendingDeletion", "rotation", "policy", "alias"])
def test_p6_who_broke_the_key_is_found_in_event_history_if_no_event_says_so(how: str) -> None:
    scene = ticking(quiet())
    scene.world.run(10 * MINUTE)
    reading(scene)
    event = broken(scene, how)
    scene.world.run(MINUTE)
    for _ in range(25):  # the key's policy and rotation are read once a day
        scene.lambdas.sweep()
        hourly(scene, 1)
    (*_, drift) = [record for record in scene.tables.records(HOME) if record.outcome is Outcome.REMEDIATING]
    assert drift.trigger.kind is TriggerKind.SWEEP
    (found,) = [each for each in events_recorded(scene) if each.trigger.event_id == event.trigger.event_id]
    assert found.trigger.kind is TriggerKind.HISTORY
    assert found.incident_id == drift.incident_id
    assert [cause.actor for each in found.attributions for cause in each.events] == [BOB]
    assert len(noted(scene, Reason.MISSED_EVENT)) == 1
    assert not noted(scene, Reason.UNCONFIRMED)
    scene.witness.check_whole()


def test_p6_what_an_event_explains_is_not_searched_for() -> None:
    scene = ticking(quiet())
    scene.world.delivery = lambda rng: [2.0]
    scene.world.user_disables_key(HOME, scene.managed_key(), BOB)
    scene.world.run(40 * MINUTE)
    reading(scene)
    assert len(scene.lambdas.shown.sent_at) == 1
    assert not noted(scene, Reason.MISSED_EVENT)


def test_p6_a_call_that_event_history_does_not_have_is_searched_for_by_three_runs() -> None:
    scene = ticking(quiet())
    scene.lambdas.shown.loses = {broken(scene, "Disabled").trigger.event_id or ""}
    scene.lambdas.sweep()
    hourly(scene, 8)
    calls = {"DisableKey", "CancelKeyDeletion"}  # both leave a key disabled
    assert len(scene.lambdas.shown.sent_at) == 8 + 3 * len(calls)
    assert not noted(scene, Reason.MISSED_EVENT)


@pytest.mark.parametrize(("page", "found"), [(3, True), (1, False)])
def test_p6_a_search_reads_all_pages_as_long_as_requests_are_left(page: int, found: bool) -> None:
    scene = ticking(quiet())
    others = [scene.world.user_makes_key(HOME) for _ in range(9)]
    event = broken(scene, "Disabled")
    scene.lambdas.shown.page = page
    with scene.undelivered():
        for other in others:
            scene.world.user_disables_key(HOME, other, ALICE)
            scene.world.run(2)
    scene.lambdas.sweep()
    hourly(scene, 1)
    assert [each.trigger.event_id for each in events_recorded(scene)].count(event.trigger.event_id) == found
    assert ("unsearched" in noted(scene, Reason.EVENT_HISTORY, GUARD_CHAIN)[-1].detail) is not found


def test_p6_lookups_by_id_leave_requests_for_searches() -> None:
    scene = ids_known(ticking(quiet()))
    event = broken(scene, "alias")
    scene.world.run(MINUTE)
    scene.lambdas.sweep()
    for number in range(100):
        key_event(scene, f"{number:08x}-1111-4111-8111-111111111111")
    hourly(scene, 4)
    once(scene, event)


def test_p6_changes_of_other_keys_are_not_recorded_by_a_search() -> None:
    scene = ticking(quiet())
    other = scene.world.user_makes_key(HOME)
    broken(scene, "Disabled")
    with scene.undelivered():
        scene.world.user_disables_key(HOME, other, ALICE)
    scene.lambdas.sweep()
    hourly(scene, 2)
    assert [each.trigger.actor for each in events_recorded(scene) if each.trigger.kind is TriggerKind.HISTORY] == [BOB]
    (run,) = [each for each in noted(scene, Reason.EVENT_HISTORY, GUARD_CHAIN) if each.detail["missed"]]
    assert run.detail["missed"] == 1


# --- what stops a run ------------------------------------------------------------------------------------------------


def test_p10_refused_lookups_cost_nothing_but_an_entry_in_the_runs_record() -> None:
    scene = quiet()
    scene.lambdas.regions = (HOME.region, AWAY.region)
    scene.lambdas.shown.refuses = lambda target: "AccessDeniedException" if target == AWAY else None
    events = toggled(scene)
    scene.world.run(30 * MINUTE)
    since = len(scene.tables.records(HOME))
    reading(scene)
    once(scene, *events)
    (run,) = noted(scene, Reason.EVENT_HISTORY, GUARD_CHAIN)
    assert run.detail["refused"] == {str(AWAY): "AccessDeniedException"}
    assert (run.detail["targets"], run.detail["missed"], run.detail["unfinished"]) == (2, 2, [])
    assert len(scene.tables.records(HOME)) > since
    assert scene.tables.records(AWAY) == []
    assert not scene.lambdas.dead_letters


def test_p10_a_throttled_lookup_is_taken_up_by_the_next_run() -> None:
    scene = quiet()
    events = toggled(scene)
    scene.world.run(30 * MINUTE)
    throttled = iter([True])
    scene.lambdas.shown.refuses = lambda target: "ThrottlingException" if next(throttled, False) else None
    reading(scene)
    assert noted(scene, Reason.EVENT_HISTORY, GUARD_CHAIN)[-1].detail["refused"] == {str(HOME): "ThrottlingException"}
    hourly(scene, 1)
    once(scene, *events)


def test_p10_the_guard_sends_one_lookup_a_second_at_most() -> None:
    scene = quiet()
    scene.lambdas.shown.page = 2
    scene.lambdas.regions = (HOME.region, AWAY.region)
    for _ in range(9):
        scene.world.user_fails(HOME)
    scene.world.run(30 * MINUTE)
    assert reading(scene).missed == 9
    sent = [at for _, at in scene.lambdas.shown.sent_at]
    assert len(sent) >= 6
    assert all(later - earlier >= 1.0 for earlier, later in pairwise(sent))


def test_p6_a_region_that_was_not_read_for_three_hours_is_behind_unless_its_reading_is_denied() -> None:
    scene = quiet()
    scene.lambdas.regions = (HOME.region, AWAY.region)
    scene.lambdas.shown.refuses = lambda target: "AccessDeniedException"
    assert reading(scene).behind == [str(HOME)], "the guard may always read its own Region"
    scene.lambdas.shown.refuses = lambda target: "ThrottlingException" if target == AWAY else None
    assert reading(scene).behind == [str(AWAY)]
    scene.lambdas.shown.refuses = lambda target: None
    assert reading(scene).behind == []
    scene.lambdas.shown.refuses = lambda target: "ThrottlingException"
    scene.world.run(2 * HOUR)
    assert reading(scene).behind == []
    scene.world.run(HOUR)
    assert set(reading(scene).behind) == {str(HOME), str(AWAY)}


def test_p6_a_flood_of_counted_calls_in_one_region_does_not_keep_another_one_unread() -> None:
    scene = quiet()
    scene.world.delivery = lambda rng: [2.0]
    for _ in range(300):
        scene.world.user_fails(HOME, BOB)
        scene.world.run(1)
    scene.lambdas.regions = (HOME.region, AWAY.region)
    with scene.undelivered():
        lost = scene.world.user_puts(AWAY, None, BOB)
    scene.world.run(30 * MINUTE)
    scene.world.latency = lambda rng, name: 1.0 if name == "BatchGetItem" else 0.02
    assert reading(scene).unfinished == []
    once(scene, lost, target=AWAY)


def test_p6_a_region_for_which_the_time_did_not_suffice_is_read_last_by_the_next_run() -> None:
    scene = quiet()
    scene.lambdas.regions = (HOME.region, AWAY.region)
    reading(scene)
    many(scene, 60)
    scene.world.run(30 * MINUTE)
    scene.world.latency = lambda rng, name: 0.8
    assert reading(scene, timeout=110).unfinished == [str(HOME)]
    scene.lambdas.shown.sent_at.clear()
    reading(scene)
    assert [target for target, _ in scene.lambdas.shown.sent_at][:2] == [AWAY, HOME]


def many(scene: Stage, count: int) -> list[ChangeEvent]:
    """Changes whose events are lost, a second apart."""
    made = []
    with scene.undelivered():
        for number in range(count):
            made.append(scene.world.user_puts(HOME, scene.managed_key() if number % 2 else None, BOB))
            scene.world.run(1)
    return made


def test_p6_a_run_that_is_out_of_time_leaves_what_is_older_to_the_next_one() -> None:
    scene = quiet()
    scene.lambdas.shown.page = 2
    events = many(scene, 20)
    scene.world.run(30 * MINUTE)
    report = reading(scene, timeout=106)
    assert report.unfinished == [str(HOME)]
    look = scene.lambdas.histories.of(HOME).look
    assert look is not None
    assert look.down_to in [event.trigger.event_time for event in events]
    hourly(scene, 2)
    assert scene.lambdas.histories.of(HOME).look is None
    once(scene, *events)


def test_p6_a_token_that_expired_during_a_run_costs_a_page_and_no_event() -> None:
    scene = quiet()
    scene.lambdas.shown.page = 2
    events = many(scene, 20)
    scene.world.run(30 * MINUTE)
    scene.lambdas.shown.tokens_end = True
    for _ in range(22):
        reading(scene)
    once(scene, *events)
    until = scene.lambdas.histories.of(HOME).until
    assert until is not None
    assert until > (events[-1].trigger.event_time or until)


def test_p6_a_flood_of_more_calls_than_runs_can_read_hides_nothing_once_it_ends() -> None:
    """Each run reads twenty pages of two events; the flood is sixty calls an hour for six hours."""
    scene = quiet()
    scene.world.delivery = lambda rng: [0.5]
    scene.lambdas.shown.page = 2
    lost: list[ChangeEvent] = []
    for hour in range(6):
        for number in range(60):
            scene.world.user_fails(HOME, BOB)
            scene.world.run(50)
            if (hour, number) == (1, 30):
                lost += toggled(scene)
                event = forged(scene, ADMIN, Setting(EncryptionType.KMS, scene.managed_key()))
        reading(scene, timeout=121)
    assert scene.lambdas.histories.of(HOME).look is not None, "the flood is too much for the runs"
    for _ in range(16):
        scene.world.run(HOUR - 280)
        report = reading(scene, timeout=121)
    assert not report.behind
    once(scene, *lost)
    assert [note.trigger.event_id for note in noted(scene, Reason.UNCONFIRMED)] == [event.trigger.event_id]


def test_p6_a_run_without_time_for_all_missed_events_leaves_the_rest_to_the_next_one() -> None:
    scene = quiet()
    events = many(scene, 40)
    scene.world.run(30 * MINUTE)
    scene.world.latency = lambda rng, name: 0.5
    report = reading(scene, timeout=120)
    assert 0 < report.missed < 40
    assert report.unfinished == [str(HOME)]
    hourly(scene, 1)
    once(scene, *events)


def test_p6_a_region_that_was_not_read_is_read_first() -> None:
    scene = quiet()
    scene.lambdas.regions = (AWAY.region, HOME.region)
    reading(scene)
    scene.lambdas.shown.refuses = lambda target: "AccessDeniedException" if target == HOME else None
    hourly(scene, 1)
    scene.lambdas.shown.refuses = lambda target: None
    scene.lambdas.shown.sent_at.clear()
    hourly(scene, 1)
    assert [target for target, _ in scene.lambdas.shown.sent_at] == [HOME, AWAY]


# --- deaf ------------------------------------------------------------------------------------------------------------


def test_p6_two_missed_events_in_a_row_make_the_home_region_deaf_until_the_next_received_one() -> None:
    scene = quiet()
    reading(scene)
    toggled(scene)
    scene.world.run(30 * MINUTE)
    assert reading(scene).deaf == [str(HOME)]
    assert scene.lambdas.histories.of(HOME).deaf_since is not None
    hourly(scene, 3)
    (note,) = noted(scene, Reason.DEAF)
    assert note.trigger.kind is TriggerKind.HISTORY
    scene.world.delivery = lambda rng: [2.0]
    scene.world.user_puts(HOME, scene.managed_key())
    scene.world.run(10 * MINUTE)
    assert reading(scene).deaf == []
    hourly(scene, 3)
    assert len(noted(scene, Reason.RECEIVING)) == 1
    assert len(noted(scene, Reason.DEAF)) == 1
    assert scene.lambdas.histories.of(HOME).deaf_since is None
    scene.witness.check_whole()


def test_p6_two_missed_events_of_one_second_make_a_region_deaf_and_count_once() -> None:
    scene = quiet()
    with scene.undelivered():
        for _ in range(2):
            scene.world.user_puts(HOME, scene.managed_key())
    hourly(scene, 3)
    assert len(noted(scene, Reason.DEAF)) == 1
    assert scene.lambdas.histories.of(HOME).missed_in_a_row == 2


@pytest.mark.parametrize("crash", [False, True])
def test_p6_calls_that_the_run_itself_only_counted_do_not_show_that_events_are_received(crash: bool) -> None:
    scene = quiet()
    reading(scene)
    with scene.undelivered():
        for _ in range(40):
            scene.world.user_fails(HOME, BOB)
            scene.world.run(1)
    scene.world.run(30 * MINUTE)
    died: list[str] = []

    def dies(run: Run, number: int, name: str) -> Hazard | None:
        if name != "PutItem" or died or not crash:
            return None
        died.append(name)
        return Hazard("crash")

    scene.world.hazard = dies
    scene.lambdas.event_history()
    scene.world.run(600)
    hourly(scene, 2)
    assert len(noted(scene, Reason.DEAF)) == 1
    assert not noted(scene, Reason.RECEIVING)
    assert scene.lambdas.histories.of(HOME).deaf_since is not None


def test_p6_one_missed_event_between_received_ones_is_not_deafness() -> None:
    scene = quiet()
    for delays in ([2.0], [], [2.0], [], [2.0]):
        delivered_after(scene, delays)
        scene.world.user_puts(HOME, scene.managed_key())
        scene.world.run(2 * MINUTE)
    hourly(scene, 4)
    assert len(noted(scene, Reason.MISSED_EVENT)) == 2
    delivered_after(scene, [])
    scene.world.user_puts(HOME, scene.managed_key())
    hourly(scene, 3)
    assert len(noted(scene, Reason.MISSED_EVENT)) == 3
    assert not noted(scene, Reason.DEAF)


def test_p6_a_region_that_never_sent_an_event_is_not_deaf_but_its_events_are_recorded() -> None:
    scene = quiet()
    scene.lambdas.regions = (HOME.region, AWAY.region)
    events = toggled(scene, AWAY)
    hourly(scene, 2)
    once(scene, *events, target=AWAY)
    assert not noted(scene, Reason.DEAF, AWAY)
    scene.world.delivery = lambda rng: [2.0]
    scene.world.user_puts(AWAY, None)
    hourly(scene, 1)
    toggled(scene, AWAY)
    hourly(scene, 2)
    assert len(noted(scene, Reason.DEAF, AWAY)) == 1


def test_p6_events_from_before_the_guard_was_there_are_recorded_and_do_not_make_a_region_deaf() -> None:
    scene = stage(delivery=lambda rng: [])
    events = [scene.world.user_puts(HOME, None, BOB)]
    scene.world.run(10 * MINUTE)
    events.append(scene.world.user_puts(HOME, None, ALICE))
    scene.world.run(10 * MINUTE)
    scene.lambdas.sweep()
    hourly(scene, 3)
    once(scene, *events)
    assert not noted(scene, Reason.DEAF)


def test_p6_an_event_of_the_second_in_which_the_guard_first_saw_the_target_may_make_it_deaf() -> None:
    scene = quiet()
    first_seen = scene.tables.state(HOME).first_seen
    event, _ = toggled(scene)
    assert first_seen is not None
    same_second = replace(event, trigger=replace(event.trigger, event_time=first_seen.replace(microsecond=0)))
    assert could_be_received(same_second, first_seen.replace(microsecond=999_999))


def test_p16_a_progress_that_was_edited_into_the_future_hides_no_deafness() -> None:
    scene = quiet()
    reading(scene)
    later = scene.world.clock + timedelta(days=3000)
    edited = replace(scene.lambdas.histories.of(HOME), until=later, judged_at=later)
    scene.lambdas.histories.items[str(HOME)] = msgspec.json.encode(edited)
    events = toggled(scene)
    hourly(scene, 2)
    once(scene, *events)
    assert len(noted(scene, Reason.DEAF)) == 1


# --- unconfirmed -----------------------------------------------------------------------------------------------------


def forged(scene: Stage, actor: Actor, setting: Setting, seconds_ago: float = 0.0, event_id: str = "") -> ChangeEvent:
    """Somebody invokes the function with an event that AWS never sent."""
    world = scene.world
    trigger = Trigger(
        TriggerKind.CHANGE,
        event_id or world.new_id("event"),
        "PutEncryptionConfig",
        world.clock.replace(microsecond=0) - timedelta(seconds=seconds_ago),
        world.new_id("request"),
        actor,
    )
    event = ChangeEvent(HOME, trigger, setting)
    scene.lambdas.deliver(event)
    return event


@pytest.mark.parametrize("forged_after", [0, 7, 8, 20])
@pytest.mark.parametrize("pages", [1, 2, 4])
def test_p14_a_look_of_several_runs_refutes_the_forged_record_and_no_genuine_one(forged_after: int, pages: int) -> None:
    scene = quiet()
    scene.world.delivery = lambda rng: [0.5]
    for number in range(21):
        if number == forged_after:
            event = forged(scene, ADMIN, Setting(EncryptionType.KMS, scene.managed_key()))
        for _ in range(1 + number % 2):
            scene.world.user_puts(HOME, scene.managed_key())
        scene.world.run(2)
    scene.lambdas.shown.page = 4
    scene.world.run(3 * HOUR)
    runs = 0
    while reading(scene, timeout=100 + 1.1 * pages).unfinished:
        scene.world.run(MINUTE)
        assert (runs := runs + 1) < 20
    assert runs > 0
    assert [note.trigger.event_id for note in noted(scene, Reason.UNCONFIRMED)] == [event.trigger.event_id]
    scene.lambdas.shown.page = 50
    hourly(scene, 3)
    assert len(noted(scene, Reason.UNCONFIRMED)) == 1


def test_p14_a_forged_event_is_unconfirmed_and_its_suppression_ends() -> None:
    scene = ticking(quiet())
    open_on_role(scene, 10)
    with scene.undelivered():
        scene.world.user_puts(HOME, None, ALICE)
    scene.world.run(2)
    event = forged(scene, ADMIN, Setting(EncryptionType.NONE))
    scene.world.run(HOUR)
    assert scene.world.setting(HOME).type is EncryptionType.NONE, "the break-glass suppresses the remediation"
    hourly(scene, 3)
    scene.world.run(5 * MINUTE)
    (note,) = noted(scene, Reason.UNCONFIRMED)
    (record,) = [each for each in events_recorded(scene) if each.trigger.event_id == event.trigger.event_id]
    assert note.detail == {"record_id": record.record_id, "event_id": event.trigger.event_id}
    (ended,) = [each.suppression for each in noted(scene, Reason.BREAK_GLASS_ENDED)]
    assert ended is not None
    assert (ended.carrier, ended.closed) == (ADMIN.arn, "UNCONFIRMED")
    assert scene.world.setting(HOME).type is EncryptionType.KMS, scene.witness.story()
    assert scene.witness.settled(), scene.tables.state(HOME)
    hourly(scene, 3)
    assert len(noted(scene, Reason.UNCONFIRMED)) == 1


@pytest.mark.parametrize("seconds_ago", [-30 * HOUR, 0.0, 3 * HOUR, 3000 * HOUR])
def test_a_forged_event_of_any_time_is_unconfirmed_once_ids_are_known_to_be_equal(seconds_ago: float) -> None:
    scene = quiet()
    scene.world.delivery = lambda rng: [2.0]
    genuine = scene.world.user_puts(HOME, scene.managed_key())
    hourly(scene, 1)
    event = forged(scene, ADMIN, Setting(EncryptionType.KMS, scene.managed_key()), seconds_ago)
    hourly(scene, 5)
    assert [note.trigger.event_id for note in noted(scene, Reason.UNCONFIRMED)] == [event.trigger.event_id]
    once(scene, genuine)


def test_a_forged_key_event_that_opens_a_break_glass_is_unconfirmed() -> None:
    scene = ticking(quiet())
    scene.world.delivery = lambda rng: [2.0]
    scene.world.user_puts(HOME, scene.managed_key())
    scene.world.run(10)
    tag_key(scene, value(scene, 10), ADMIN)
    scene.world.run(10)
    scene.world.user_puts(HOME, None, ALICE)
    scene.world.run(10)
    assert scene.world.setting(HOME).type is EncryptionType.NONE
    hourly(scene, 4)
    (note,) = noted(scene, Reason.UNCONFIRMED)
    assert note.trigger.event_name == "TagResource"
    assert scene.world.setting(HOME).type is EncryptionType.KMS, scene.witness.story()


def test_genuine_key_events_are_confirmed_by_their_ids_twelve_a_run_at_most() -> None:
    scene = quiet()
    scene.world.delivery = lambda rng: [2.0]
    scene.world.user_puts(HOME, scene.managed_key())
    for number in range(30):
        scene.world.user_changes_key(HOME, scene.managed_key(), tags=((f"t{number}", "x"),))
        scene.world.run(20)
        scene.world.user_creates_grant(HOME, scene.managed_key())
    for _ in range(8):
        scene.world.run(HOUR - 280)
        scene.lambdas.shown.sent_at.clear()
        reading(scene)
        assert len(scene.lambdas.shown.sent_at) <= 13
    assert not noted(scene, Reason.UNCONFIRMED)
    counts = [each.detail for each in noted(scene, Reason.EVENT_HISTORY, GUARD_CHAIN)]
    assert any("unchecked" in detail for detail in counts)
    assert "unchecked" not in counts[-1]
    assert any(isinstance(event, KeyEvent) for event in scene.world.events)


def test_p14_more_forged_key_events_than_one_run_looks_up_are_all_unconfirmed() -> None:
    scene = ids_known(quiet())
    ids = [f"{number:08x}-1111-4111-8111-111111111111" for number in range(50)]
    for event_id in ids:
        key_event(scene, event_id)
        scene.world.run(5)
    hourly(scene, 8)
    assert sorted(note.trigger.event_id or "" for note in noted(scene, Reason.UNCONFIRMED)) == ids
    assert not scene.lambdas.histories.of(HOME).to_look_up


def test_p6_a_record_whose_lookup_is_always_refused_waits_for_a_day_while_the_region_is_read_on() -> None:
    scene = ids_known(quiet())
    scene.lambdas.shown.refuses_id = scene.world.new_id("event")
    key_event(scene, scene.lambdas.shown.refuses_id)
    hourly(scene, 30)
    counts = [each.detail for each in noted(scene, Reason.EVENT_HISTORY, GUARD_CHAIN)]
    assert [detail["never_checked"] for detail in counts if "never_checked" in detail] == [1]
    assert 20 <= len([detail for detail in counts if detail.get("unchecked") == 1]) <= 24
    progress = scene.lambdas.histories.of(HOME)
    assert not progress.to_look_up
    assert progress.until is not None
    assert scene.world.clock - progress.until < timedelta(hours=1)
    assert not noted(scene, Reason.UNCONFIRMED)


def addendum_of(event: ChangeEvent, original: str) -> tuple[ChangeEvent, Callable[[str], str]]:
    """The event as an addendum of another, and how Event history shows it."""
    own = event.trigger.event_id or ""

    def shows(text: str) -> str:
        record = json.loads(text)
        if record["eventID"] == own:
            record["addendum"] = {"originalEventID": original, "originalRequestID": record["requestID"]}
        return json.dumps(record)

    return replace(event, trigger=replace(event.trigger, event_id=original), addendum_id=own), shows


@pytest.mark.parametrize("is_forged", [True, False])
def test_an_event_about_spans_is_confirmed_by_its_id_or_unconfirmed_like_any_other(is_forged: bool) -> None:
    scene = ids_known(ticking(quiet()))
    with scene.undelivered():
        event = scene.world.user_sends_spans(HOME, "XRay", ADMIN)
    if is_forged:
        scene.lambdas.shown.loses.add(event.trigger.event_id or "")
    scene.lambdas.deliver(event)
    hourly(scene, 4)
    ids = [note.trigger.event_id for note in noted(scene, Reason.UNCONFIRMED)]
    assert ids == ([event.trigger.event_id] if is_forged else [])


def test_p14_an_addendum_confirms_its_original_and_a_genuine_break_glass_stays_open() -> None:
    scene = ids_known(ticking(quiet()))
    open_on_role(scene, 10)
    with scene.undelivered():
        event = scene.world.user_puts(HOME, None, ADMIN)
    addendum, scene.lambdas.shown.texts = addendum_of(event, scene.world.new_id("event"))
    scene.lambdas.deliver(addendum)
    hourly(scene, 5)
    assert not noted(scene, Reason.UNCONFIRMED)
    assert scene.world.setting(HOME).type is EncryptionType.NONE, scene.witness.story()


def test_p6_an_addendum_is_recorded_and_does_not_show_that_events_are_received() -> None:
    scene = quiet()
    reading(scene)
    _, on = toggled(scene)
    scene.world.run(30 * MINUTE)
    assert reading(scene).deaf == [str(HOME)]
    with scene.undelivered():
        event = scene.world.user_puts(HOME, scene.managed_key(), BOB)
    _, scene.lambdas.shown.texts = addendum_of(event, on.trigger.event_id or "")
    hourly(scene, 3)
    assert [note.trigger.event_id for note in noted(scene, Reason.ADDENDUM)] == [event.trigger.event_id]
    assert not noted(scene, Reason.RECEIVING)


def ids_known(scene: Stage) -> Stage:
    """Event history has shown an event under the id of its record."""
    scene.world.delivery = lambda rng: [2.0]
    scene.world.user_puts(HOME, scene.managed_key())
    hourly(scene, 1)
    assert scene.lambdas.histories.of(HOME).matched_by_id > 0
    return scene


def test_p14_a_false_actor_under_the_id_of_a_real_event_is_unconfirmed_and_its_break_glass_ends() -> None:
    scene = ids_known(ticking(quiet()))
    open_on_role(scene, 11)
    with scene.undelivered():
        real = scene.world.user_puts(HOME, None, ALICE)
    scene.lambdas.deliver(replace(real, trigger=replace(real.trigger, actor=ADMIN)))
    hourly(scene, 5)
    assert [note.trigger.event_id for note in noted(scene, Reason.UNCONFIRMED)] == [real.trigger.event_id]
    assert scene.world.setting(HOME).type is EncryptionType.KMS, scene.witness.story()


def test_p14_a_false_actor_under_the_id_of_a_real_key_event_is_unconfirmed() -> None:
    scene = ids_known(quiet())
    with scene.undelivered():
        scene.world.user_changes_key(HOME, scene.managed_key(), tags=(("team", "x"),))
    real = next(each for each in reversed(scene.world.events) if isinstance(each, KeyEvent))
    scene.lambdas.deliver(replace(real, trigger=replace(real.trigger, actor=ADMIN)))
    hourly(scene, 5)
    assert [note.trigger.event_id for note in noted(scene, Reason.UNCONFIRMED)] == [real.trigger.event_id]


def test_p6_a_forged_event_with_the_request_id_of_a_real_one_does_not_hide_it() -> None:
    scene = ids_known(quiet())
    with scene.undelivered():
        real = scene.world.user_puts(HOME, None, ALICE)
    false = replace(real.trigger, event_id=scene.world.new_id("event"), actor=BOB)
    scene.lambdas.deliver(replace(real, trigger=false))
    hourly(scene, 5)
    once(scene, real)
    assert [note.trigger.event_id for note in noted(scene, Reason.UNCONFIRMED)] == [false.event_id]


def key_event(scene: Stage, event_id: str) -> None:
    """Somebody invokes the function with a key event that AWS never sent."""
    at = scene.world.clock.replace(microsecond=0)
    trigger = Trigger(TriggerKind.KEY, event_id, "DisableKey", at, scene.world.new_id("request"), ADMIN)
    scene.lambdas.deliver(KeyEvent(HOME, trigger, (scene.managed_key(),)))


def test_p14_an_id_that_aws_would_never_give_is_unconfirmed_without_a_lookup() -> None:
    scene = ids_known(quiet())
    key_event(scene, "not-a-uuid")
    scene.lambdas.shown.refuses_id = "not-a-uuid"
    hourly(scene, 4)
    assert [note.trigger.event_id for note in noted(scene, Reason.UNCONFIRMED)] == ["not-a-uuid"]


def other_call(scene: Stage, name: str) -> KeyEvent:
    """A genuine call of ADMIN that is about another key; the guard does not record it."""
    world, at = scene.world, scene.world.clock.replace(microsecond=0)
    trigger = Trigger(TriggerKind.KEY, world.new_id("event"), name, at, world.new_id("request"), ADMIN)
    event = KeyEvent(HOME, trigger, (scene.managed_key().replace("key/", "key/other-"),))
    world.history.append((world.now, event))
    return event


@pytest.mark.parametrize("name", ["Decrypt", "DisableKey"])
def test_p14_a_forged_key_event_under_the_id_of_another_genuine_call_is_unconfirmed(name: str) -> None:
    scene = ids_known(quiet())
    event_id = other_call(scene, name).trigger.event_id or ""
    key_event(scene, event_id)
    hourly(scene, 5)
    assert [note.trigger.event_id for note in noted(scene, Reason.UNCONFIRMED)] == [event_id]


def test_p14_a_forged_old_change_under_the_id_of_another_genuine_call_is_unconfirmed() -> None:
    scene = ids_known(quiet())
    event_id = other_call(scene, "Decrypt").trigger.event_id or ""
    event = forged(scene, ADMIN, Setting(EncryptionType.KMS, scene.managed_key()), 5 * HOUR, event_id)
    hourly(scene, 5)
    assert [note.trigger.event_id for note in noted(scene, Reason.UNCONFIRMED)] == [event.trigger.event_id]


def test_p14_genuine_events_of_keys_alone_show_that_ids_are_equal() -> None:
    """Nobody but the guard ever changes the setting, as in most accounts."""
    scene = stage()
    scene.lambdas.schedule()
    scene.world.delivery = lambda rng: [2.0]
    scene.world.run(HOUR)
    hourly(scene, 1)
    assert scene.lambdas.histories.of(HOME).matched_by_id == 0
    scene.lambdas.deliver(removed_tags(scene, 1))
    key_event(scene, "ffffffff-1111-4111-8111-111111111111")
    hourly(scene, 6)
    assert scene.lambdas.histories.of(HOME).matched_by_id > 0
    assert [note.trigger.event_id for note in noted(scene, Reason.UNCONFIRMED)] == [
        "ffffffff-1111-4111-8111-111111111111"
    ]


def removed_tags(scene: Stage, number: int) -> KeyEvent:
    """A genuine call of BOB that removes tags with names as long as may be; Event history has it."""
    world, key = scene.world, scene.managed_key()
    event_id = f"{number:08x}-1111-4111-8111-111111111111"
    at = world.clock.replace(microsecond=0)
    trigger = Trigger(TriggerKind.KEY, event_id, "UntagResource", at, world.new_id("request"), BOB)
    tags = tuple(f"{number}-{tag:05d}" for tag in range(2048))
    text = ("removed " + ", ".join(tags) * 2)[:32_768]
    event = KeyEvent(HOME, trigger, (key,), tag_keys=tags, effect=Effect(Subject.TAGS, key, text))
    world.history.append((world.now, event))
    return event


def test_p6_records_that_wait_for_their_lookup_fit_into_an_item() -> None:
    scene = ids_known(quiet())
    for number in range(40):
        scene.lambdas.deliver(removed_tags(scene, number))
        scene.world.run(5)
    key_event(scene, "ffffffff-1111-4111-8111-111111111111")
    sizes = []
    for _ in range(8):
        hourly(scene, 1)
        sizes.append(len(scene.lambdas.histories.items[str(HOME)]))
    assert 5_000 < max(sizes) < 60_000
    assert [note.trigger.event_id for note in noted(scene, Reason.UNCONFIRMED)] == [
        "ffffffff-1111-4111-8111-111111111111"
    ]


def test_p10_a_run_without_time_for_all_its_notes_leaves_the_rest_to_the_next_one() -> None:
    scene = ids_known(quiet())
    ids = []
    for number in range(40):
        ids.append(f"none-{number:04d}")
        key_event(scene, ids[-1])
        scene.world.run(1)
    scene.world.run(3 * HOUR)
    scene.world.latency = lambda rng, name: 1.0
    assert reading(scene, timeout=130).unfinished == [str(HOME)]
    scene.world.latency = lambda rng, name: 0.02
    hourly(scene, 1)
    assert sorted(note.trigger.event_id or "" for note in noted(scene, Reason.UNCONFIRMED)) == ids


# --- crashes ---------------------------------------------------------------------------------------------------------


def _interrupted(hazard: Hazard | None, at: int) -> tuple[Stage, tuple[ChangeEvent, ...], list[str]]:
    """A deaf Region with a forged event: the run is interrupted at its call number `at`, and retried."""
    scene = quiet()
    scene.world.delivery = lambda rng: [2.0]
    first = scene.world.user_puts(HOME, scene.managed_key())
    forged(scene, ADMIN, Setting(EncryptionType.KMS, scene.managed_key()))
    scene.world.run(2.5 * HOUR)
    scene.world.delivery = lambda rng: []
    events = (first, *toggled(scene))
    scene.world.run(30 * MINUTE)
    calls: list[str] = []

    def befall(run: Run, number: int, name: str) -> Hazard | None:
        calls.append(name)
        return hazard if len(calls) - 1 == at else None

    scene.world.hazard = befall
    scene.lambdas.event_history()
    scene.world.run(600)
    hourly(scene, 1)
    return scene, events, calls


def _stories() -> Iterator[tuple[Hazard, int]]:
    _, _, calls = _interrupted(None, -1)
    first = calls.index("PutItem") + 2
    yield from ((hazard, at) for at in range(first) for hazard in (*CRASHES, *LOST_ANSWERS[1:]))


def test_p6_wherever_a_run_crashes_the_next_one_records_every_event_and_note_once() -> None:
    for hazard, at in _stories():
        scene, events, calls = _interrupted(hazard, at)
        try:
            once(scene, *events)
            counts = {
                reason: len(noted(scene, reason))
                for reason in (Reason.MISSED_EVENT, Reason.DEAF, Reason.RECEIVING, Reason.UNCONFIRMED)
            }
            assert counts == {Reason.MISSED_EVENT: 2, Reason.DEAF: 1, Reason.RECEIVING: 0, Reason.UNCONFIRMED: 1}
        except AssertionError as error:
            raise AssertionError(f"{hazard} at call {at} ({calls[at]}): {error}\n{scene.witness.story()}") from error


# --- a storm ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_p6_in_a_storm_over_five_regions_every_change_is_on_the_record_once_within_two_hours(seed: int) -> None:
    """A tenth of the events is lost, a tenth doubled and a tenth late."""

    def delivery(rng: Random) -> list[float]:
        drawn = rng.random()
        if drawn < 0.1:
            return []
        if drawn < 0.2:
            return [rng.uniform(1, 30), rng.uniform(1, 600)]
        return [rng.uniform(600, 900)] if drawn < 0.3 else [rng.uniform(1, 10)]

    scene = stage(seed, delivery=delivery, settling=lambda rng: 1.0, appearing=lambda rng: rng.uniform(10, 900))
    world, lambdas = scene.world, scene.lambdas
    targets = [
        Target(ACCOUNT, region) for region in ("us-east-1", "us-east-2", "us-west-2", "eu-central-1", "eu-west-1")
    ]
    lambdas.regions = tuple(target.region for target in targets)
    lambdas.schedule()
    lambdas.schedule_event_history()
    actors = [Actor(f"arn:aws:iam::{ACCOUNT}:user/{name}", "IAMUser") for name in ("Ann", "Ben", "Cem")]
    rng = Random(seed)
    made: list[ChangeEvent] = []
    for _ in range(60):
        target = rng.choice(targets)
        made.append(world.user_puts(target, None, rng.choice(actors)))
        world.run(rng.uniform(5, 120))
    world.run(2 * HOUR)
    for target in targets:
        once(scene, *(event for event in made if event.target == target), target=target)
    lost = [each for target in targets for each in noted(scene, Reason.MISSED_EVENT, target)]
    assert lost, "a tenth of the events was lost"
    assert not [each for target in targets for each in noted(scene, Reason.UNCONFIRMED, target)]
