"""The timeline of an incident has one line for equal failures in a row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from chalicelib.auditlog.views import Entry
from chalicelib.console.timeline import stretches
from chalicelib.domain.model import Actor, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Problem, Reason
from chalicelib.domain.stored import ZERO_HASH, Record

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
TICK = Trigger(TriggerKind.TICK)
ALICE = Actor("arn:aws:iam::111122223333:user/Alice")
EVENT = Trigger(TriggerKind.CHANGE, "e1", "PutEncryptionConfig", T0, actor=ALICE)
DENIED = Problem("AccessDeniedException", "not authorized")


def entry(seq: int, outcome: Outcome = Outcome.FAILED, **fields: Any) -> Entry:
    target = "111122223333/us-east-1"
    whole = {"trigger": TICK, "error": DENIED if outcome is Outcome.FAILED else None, **fields}
    at = T0 + timedelta(minutes=seq)
    return Entry(Record(f"{target}#{seq}", target, seq, at, outcome, prev_hash=ZERO_HASH, **whole), "")


def lines(*entries: Entry) -> list[list[int]]:
    return [[each.record.seq for each in line.repeats] for line in stretches(entries)]


def test_eight_equal_failures_are_one_line_with_the_first_and_the_last() -> None:
    (line,) = stretches([entry(seq) for seq in range(1, 9)])
    assert len(line.repeats) == 8
    assert (line.repeats[0].record.at, line.entry.record.at) == (T0 + timedelta(minutes=1), T0 + timedelta(minutes=8))


def test_failures_with_their_attempts_are_two_lines() -> None:
    pairs = [entry(seq, Outcome.REMEDIATING if seq % 2 else Outcome.FAILED) for seq in range(1, 7)]
    assert lines(*pairs, entry(7, Outcome.REMEDIATED)) == [[1, 3, 5], [2, 4, 6], [7]]


def test_an_event_is_always_a_line_of_its_own() -> None:
    assert lines(entry(1, trigger=EVENT), entry(2, trigger=EVENT), entry(3), entry(4)) == [[1], [2], [3, 4]]


def test_another_error_or_reason_begins_another_line() -> None:
    other = entry(3, error=Problem("ThrottlingException", "rate exceeded"))
    held = entry(4, Outcome.DEFERRED, reason=Reason.BACKOFF)
    assert lines(entry(1), entry(2), other, held) == [[1, 2], [3], [4]]


def test_what_is_no_failure_is_never_joined() -> None:
    assert lines(entry(1, Outcome.OBSERVED), entry(2, Outcome.OBSERVED)) == [[1], [2]]


def test_a_run_of_nothing_has_no_lines() -> None:
    assert stretches([]) == []
