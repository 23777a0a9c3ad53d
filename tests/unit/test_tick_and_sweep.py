"""The two runs that no event starts: whom they reach, in which order and time, and what they leave written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.auditlog import hashchain
from chalicelib.auditlog.anchors import anchor_digest, anchored_heads
from chalicelib.auditlog.verify import verify
from chalicelib.domain.errors import AwsError, Conflict, StoreError
from chalicelib.domain.model import EncryptionType, Target, Trigger, TriggerKind
from chalicelib.domain.ports import Request
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GUARD_CHAIN, GuardState, Record, TargetState
from chalicelib.loop.batch import Span, figures
from chalicelib.loop.guard import MOST_CONFLICTS, Guard
from chalicelib.loop.pause import pause
from chalicelib.loop.sweep import sweep
from chalicelib.loop.tick import tick
from tests.simulation.fakes import OPERATOR_ARN, FakeRequests, FakeStore
from tests.simulation.lambdas import baseline
from tests.simulation.scenarios import Stage
from tests.simulation.still import still
from tests.simulation.world import ACCOUNT, HOME, Hazard, Run
from tests.unit.logbook import Logbook

REGIONS = ("eu-central-1", "eu-west-1", "us-east-1")
TARGETS = tuple(Target(ACCOUNT, region) for region in REGIONS)
AN_HOUR = 3600.0
LONG = 1000.0


class Bucket:
    """`sweep.Anchors` in memory."""

    def __init__(self) -> None:
        self.kept: list[tuple[Record, list[tuple[str, int, str]]]] = []

    def keep(self, record: Record, heads: Sequence[tuple[str, int, str]]) -> None:
        self.kept.append((record, list(heads)))


def guard_of(scene: Stage, **changes: object) -> Guard:
    return replace(scene.lambdas.guard(Run("test/1", "test")), **changes)


def remember(scene: Stage, target: Target | str, **fields: object) -> None:
    """Put a target's state into the tables as it is."""
    state = TargetState(str(target), **{"version": 1, **fields})  # type: ignore[arg-type]
    scene.tables.hold(state)


def all_due(scene: Stage) -> None:
    for target in TARGETS:
        remember(scene, target, recheck_at=scene.world.clock - timedelta(minutes=1))


def put_right(scene: Stage) -> list[Target]:
    return [target for target in TARGETS if scene.world.setting(target).type is EncryptionType.KMS]


def time_for(scene: Stage, targets: int) -> Callable[[], float]:
    """The seconds left: a minute, until so many targets are put right."""
    return lambda: 60.0 if len(put_right(scene)) < targets else 24.0


def the_sweep(scene: Stage) -> Record:
    return next(record for record in reversed(scene.tables.records(GUARD_CHAIN)) if record.reason == "SWEEP")


# --- P10 -------------------------------------------------------------------------------------------------------------


def test_p10_a_tick_begins_no_target_that_its_function_may_not_live_to_end() -> None:
    """A remediation polls X-Ray for ten seconds, and a call of its may take eleven."""
    scene = still()
    all_due(scene)
    report = tick(guard_of(scene), time_for(scene, 1))
    assert len(report.results) == 1
    assert len(put_right(scene)) == 1
    waiting = [target for target in TARGETS if scene.tables.state(target).recheck_at is not None]
    assert len(waiting) >= 2, "what was not begun is still due"


def test_p10_a_tick_whose_time_is_used_up_leaves_requests_waiting() -> None:
    scene, requests = still(), FakeRequests(*map(str, TARGETS))
    tick(guard_of(scene, requests=requests), time_for(scene, 1))
    assert [each.target for each in requests.waiting] == [str(target) for target in TARGETS[1:]]
    assert len(put_right(scene)) == 1


def test_p10_a_sweep_says_which_targets_its_time_did_not_suffice_for() -> None:
    scene = still()
    sweep(guard_of(scene), lambda: REGIONS, None, time_for(scene, 1))
    assert len(put_right(scene)) == 1
    record = the_sweep(scene)
    assert record.outcome is Outcome.FAILED
    assert record.error is not None
    assert record.detail["unreached"] == {
        str(target): "OUT_OF_TIME" for target in TARGETS if target not in put_right(scene)
    }


def test_p6_a_sweep_begins_with_the_target_that_was_not_looked_at_for_longest() -> None:
    """So that one that never gets to its end reaches every target in turn; one never seen comes first of all."""
    scene = still()
    hours_ago = {TARGETS[0]: 1, TARGETS[1]: 30}
    for target, hours in hours_ago.items():
        remember(scene, target, checked_at=scene.world.clock - timedelta(hours=hours))
    order: list[Target] = []
    for _ in TARGETS:
        fresh = still()
        fresh.tables.states.update(scene.tables.states)
        sweep(guard_of(fresh), lambda: REGIONS, None, time_for(fresh, len(order) + 1))
        (new,) = set(put_right(fresh)) - set(order)
        order.append(new)
    assert order == [TARGETS[2], TARGETS[1], TARGETS[0]]


# --- P11 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bug", "throttle"])
@pytest.mark.parametrize("call", ["BatchGetItem", "GetEncryptionConfig", "TransactWriteItems"])
@pytest.mark.parametrize("function", ["tick", "sweep", "requests"])
def test_p11_a_target_that_fails_at_any_call_costs_only_itself(function: str, call: str, kind: str) -> None:
    scene = still()
    poisoned, *others = TARGETS
    scene.world.hazard = lambda run, number, name: Hazard(kind) if run.about == str(poisoned) and name == call else None
    if function == "sweep":
        report = sweep(guard_of(scene), lambda: REGIONS, None, lambda: LONG)
    elif function == "tick":
        all_due(scene)
        report = tick(guard_of(scene), lambda: LONG)
    else:
        report = tick(guard_of(scene, requests=FakeRequests(*map(str, TARGETS))), lambda: LONG)
    assert put_right(scene) == others
    if kind == "bug":
        assert [type(bug) for bug in report.bugs] == [RuntimeError]
    if kind == "bug" or call != "GetEncryptionConfig":
        assert list(report.unreached) == [str(poisoned)], "the caller makes it loud"


def test_p11_a_due_name_that_is_no_target_costs_a_tick_only_itself() -> None:
    scene = still()
    all_due(scene)
    remember(scene, "ask#nobody", recheck_at=scene.world.clock - timedelta(hours=1))
    report = tick(guard_of(scene), lambda: LONG)
    assert put_right(scene) == list(TARGETS)
    assert {name: problem.code for name, problem in report.unreached.items()} == {"ask#nobody": "NOT_A_TARGET"}


# --- what operators requested ----------------------------------------------------------------------------------------


class Down(FakeStore):
    """Tables that cannot be written."""

    def commit(self, *written: object, **more: object) -> None:
        raise StoreError("dynamodb:TransactWriteItems", "ThrottlingException", "too many requests")


def test_a_request_waits_until_what_came_of_it_is_stored() -> None:
    scene, requests = still(), FakeRequests(str(HOME))
    guard = guard_of(scene, requests=requests)
    tick(replace(guard, store=Down(scene.world, Run("test/1", "test"), scene.tables)), lambda: LONG)
    assert [each.target for each in requests.waiting] == [str(HOME)]
    assert not scene.world.mutations
    tick(guard, lambda: LONG)
    assert requests.waiting == []
    first = scene.tables.records(HOME)[0]
    assert first.trigger.kind is TriggerKind.OPERATOR
    assert first.trigger.actor is not None
    assert first.trigger.actor.arn == OPERATOR_ARN


def test_a_request_that_ended_in_a_fault_of_the_guards_own_is_not_repeated_every_minute() -> None:
    scene, requests = still(), FakeRequests(str(HOME))
    scene.world.hazard = lambda run, number, name: Hazard("bug") if name == "GetEncryptionConfig" else None
    tick(guard_of(scene, requests=requests), lambda: LONG)
    assert requests.waiting == []
    assert scene.tables.records(HOME)[-1].outcome is Outcome.FAILED


def test_p11_a_request_that_cannot_be_taken_off_the_list_does_not_keep_the_others_waiting() -> None:
    class Stubborn(FakeRequests):
        def done(self, request: Request) -> None:
            if request.target == str(TARGETS[0]):
                raise StoreError("dynamodb:PutItem", "ThrottlingException", "too many requests")
            super().done(request)

    scene, requests = still(), Stubborn(*map(str, TARGETS[:3]))
    report = tick(guard_of(scene, requests=requests), lambda: 60.0)
    assert put_right(scene) == list(TARGETS[:3])
    assert [each.target for each in requests.waiting] == [str(TARGETS[0])]
    assert list(report.unreached) == [str(TARGETS[0])], "said aloud, for it will be done again"


def test_p11_while_requests_cannot_be_read_what_is_due_is_done_all_the_same() -> None:
    class Unreadable(FakeRequests):
        def pending(self, limit: int) -> Sequence[Request]:
            raise StoreError("dynamodb:Query", "ThrottlingException", "too many requests")

    scene = still()
    all_due(scene)
    report = tick(guard_of(scene, requests=Unreadable()), lambda: 60.0)
    assert put_right(scene) == list(TARGETS)
    assert {name: problem.code for name, problem in report.unreached.items()} == {"requests": "ThrottlingException"}


def test_a_request_for_what_is_no_target_does_not_wait_for_ever() -> None:
    scene, requests = still(), FakeRequests("us-east-1", str(HOME))
    tick(guard_of(scene, requests=requests), lambda: LONG)
    assert requests.waiting == []
    assert put_right(scene) == [HOME]


# --- P16: anchors ----------------------------------------------------------------------------------------------------


def test_p16_every_head_is_anchored_in_the_log_and_in_the_bucket_however_many_there_are() -> None:
    scene, bucket = still(), Bucket()
    many = {f"111122223333/eu-west-{number}": (number, f"{number:064x}") for number in range(1, 4501)}
    scene.tables.heads.update(many)
    sweep(guard_of(scene), list, bucket, lambda: LONG)
    records = scene.tables.records(GUARD_CHAIN)
    anchored = {target: (head.seq, head.hash) for target, head in anchored_heads(records)}
    assert anchored.items() >= many.items()
    ((record, heads),) = bucket.kept
    assert {target: (seq, head) for target, seq, head in heads} == many
    assert record.detail["digest"] == anchor_digest(heads), "what is read back is held against the digest"
    for row in scene.tables.rows[GUARD_CHAIN]:
        assert len(row.body) < 390_000, "DynamoDB takes 400 KB an item"


def test_p16_verification_holds_every_part_of_an_anchor_against_its_chain() -> None:
    book, at = Logbook(), still().world.clock
    first, last = (f"{ACCOUNT}/{region}" for region in ("eu-west-1", "us-east-1"))
    for target in (first, last):
        book.add(target, at)
    heads = sorted(book.heads())
    book.add(GUARD_CHAIN, at, reason="ANCHOR", detail={"heads": heads[:1]})
    book.add(GUARD_CHAIN, at, reason="SWEEP", detail={"heads": heads[1:], "digest": anchor_digest(heads)})
    for target in (first, last):
        del book.stored[(target, hashchain.sort_key(1))]
        del book.ends[target]
    found = {(finding.target, finding.code) for finding in verify(book).findings}
    assert found == {(first, "TRUNCATED"), (last, "TRUNCATED")}


# --- P17 -------------------------------------------------------------------------------------------------------------


def test_p17_a_remediation_that_lost_a_race_before_it_began_takes_one_place_of_the_budget() -> None:
    """Another writer is faster than its REMEDIATING; it observes again and begins once more."""

    class Raced(FakeStore):
        lost = False

        def commit(self, before: TargetState, after: TargetState, *written: Any, **more: Any) -> None:  # type: ignore[override]
            if not self.lost and after.target == str(TARGETS[0]):
                self.lost = True
                remember(scene, TARGETS[0], good_at=scene.world.clock)
            super().commit(before, after, *written, **more)

    scene = still(replace(baseline(), limits=replace(baseline().limits, remediations_per_sweep=2)))
    store = Raced(scene.world, Run("test/1", "test"), scene.tables)
    sweep(guard_of(scene, store=store), lambda: REGIONS, None, lambda: LONG)
    assert store.lost
    assert put_right(scene) == list(TARGETS[:2])


def test_p17_a_target_that_was_mutated_counts_though_its_run_begins_again_and_loses_a_race() -> None:
    """The answer to its last transaction is lost, and the setting changes again before the run has looked."""

    class Lossy(FakeStore):
        answer_lost = False
        races_lost = 0

        def commit(self, before: TargetState, after: TargetState, *written: Any, **more: Any) -> None:  # type: ignore[override]
            outcome = after.outcome if after.target == str(TARGETS[0]) else None
            if outcome is Outcome.REMEDIATING and self.answer_lost and self.races_lost < MOST_CONFLICTS:
                self.races_lost += 1
                raise Conflict(after.target)
            super().commit(before, after, *written, **more)
            if outcome is Outcome.REMEDIATED and not self.answer_lost:
                self.answer_lost = True
                scene.world.set_xray(TARGETS[0], EncryptionType.NONE, None)
                raise StoreError("dynamodb:TransactWriteItems", "NoAnswer", "ReadTimeoutError")

    scene = still(replace(baseline(), limits=replace(baseline().limits, remediations_per_sweep=1)))
    store = Lossy(scene.world, Run("test/1", "test"), scene.tables)
    sweep(guard_of(scene, store=store), lambda: REGIONS, None, lambda: LONG)
    assert store.races_lost == MOST_CONFLICTS
    assert put_right(scene) == [TARGETS[0]]


# --- what a sweep writes down ----------------------------------------------------------------------------------------


def test_a_sweep_says_how_long_its_targets_took_and_which_was_the_slowest() -> None:
    spans = [Span("a", 100.0, 99.5), Span("b", 99.9, 97.25), Span("c", 99.5, 97.0), Span("d", 97.25, 96.75)]
    assert figures(spans) == {
        "targets": 4,
        "seconds": 3.25,
        "at_once": 2,
        "slowest": "b",
        "slowest_seconds": 2.65,
    }
    assert figures([]) == {"targets": 0}
    scene = still(latency=lambda rng, name: 0.25)
    sweep(guard_of(scene), lambda: REGIONS, None, lambda: LONG - scene.world.now)
    run: Any = the_sweep(scene).detail["run"]
    assert (run["targets"], run["at_once"]) == (3, 1)
    assert run["seconds"] > run["slowest_seconds"] > 1


def test_without_the_list_of_regions_there_is_no_sweep_and_the_log_says_so() -> None:
    scene = still()

    def refused() -> list[str]:
        raise AwsError("ec2:DescribeRegions", "UnauthorizedOperation", "no")

    with pytest.raises(AwsError):
        sweep(guard_of(scene), refused, None, lambda: LONG)
    (record,) = [each for each in scene.tables.records(GUARD_CHAIN) if each.reason != "POLICY_IN_FORCE"]
    assert (record.outcome, record.reason) == (Outcome.FAILED, "NO_REGIONS")
    assert record.error is not None
    assert record.error.code == "UnauthorizedOperation"
    assert scene.tables.guard().swept_at is None


def test_a_sweep_leaves_when_it_was_and_what_it_found() -> None:
    scene = still()
    sweep(guard_of(scene), lambda: REGIONS, None, lambda: LONG)
    guard: GuardState = scene.tables.guard()
    assert guard.swept_at is not None
    assert abs(guard.swept_at - scene.world.clock) < timedelta(seconds=2)
    record = the_sweep(scene)
    assert record.outcome is Outcome.IGNORED
    assert record.detail["outcomes"] == {"REMEDIATED": len(TARGETS)}
    assert record.detail["unreached"] == {}


def test_p13_a_tick_tells_of_the_brake_and_pulls_none_itself() -> None:
    scene = still()
    assert tick(guard_of(scene), lambda: LONG).paused is False
    pause(guard_of(scene), Trigger(TriggerKind.OPERATOR), OPERATOR_ARN, "migration")
    assert tick(guard_of(scene), lambda: LONG).paused is True
