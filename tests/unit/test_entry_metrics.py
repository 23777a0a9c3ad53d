"""Which records are counted for an alarm: those because of which a person must act."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib import entry
from chalicelib.domain.model import EncryptionType, Setting, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Problem, Violation
from chalicelib.domain.stored import ZERO_HASH, Record

HERE = "111122223333/us-east-1"


@pytest.fixture(autouse=True)
def emptied() -> Iterator[None]:
    entry.metrics.clear_metrics()
    yield
    entry.metrics.clear_metrics()


def counted(outcome: Outcome, reason: str | None, **fields: Any) -> set[str]:
    """The names of the metrics that a record adds to."""
    trigger = Trigger(TriggerKind.SWEEP)
    at = datetime(2026, 11, 20, tzinfo=UTC)
    entry._emit(Record(f"{HERE}#1", HERE, 1, at, outcome, trigger, ZERO_HASH, reason=reason, **fields))
    return set(entry.metrics.metric_set)


def test_a_failure_that_needs_a_person_counts_as_failed() -> None:
    assert counted(Outcome.FAILED, "KEY_BEYOND_REPAIR") == {"Failed"}


def test_a_lost_worker_whose_attempt_another_took_over_does_not_count_as_failed() -> None:
    assert counted(Outcome.FAILED, "WORKER_LOST") == set()


@pytest.mark.parametrize(("tries", "names"), [(1, set()), (2, set()), (3, {"Failed"}), (9, {"Failed"})])
def test_a_call_that_aws_throttles_counts_as_failed_from_the_third_try_on(tries: int, names: set[str]) -> None:
    throttled = Problem("ThrottlingException", "too many requests")
    assert counted(Outcome.FAILED, throttled.code, error=throttled, detail={"tries": tries}) == names


def test_a_refusal_that_trying_again_cannot_change_counts_at_once() -> None:
    denied = Problem("AccessDeniedException", "no", retryable=False)
    assert counted(Outcome.FAILED, denied.code, error=denied, detail={"tries": 1}) == {"Failed"}


def test_what_settles_by_itself_counts_neither_as_failed_nor_as_flapping() -> None:
    assert counted(Outcome.DEFERRED, "SETTLING") == {"Deferred"}


def test_a_call_by_the_guards_role_that_is_not_the_guards_is_counted() -> None:
    assert counted(Outcome.IGNORED, "ROLE_BORROWED") == {"RoleBorrowed"}


def test_a_key_policy_that_lets_in_others_is_counted() -> None:
    opened = (Violation.NOT_KMS, Violation.KEY_POLICY_OPEN)
    assert counted(Outcome.OBSERVED, "KEY_POLICY_OPEN", violations=opened) == {"KeyPolicyOpen"}


def test_p16_an_edit_of_the_stored_state_is_counted() -> None:
    assert counted(Outcome.IGNORED, "STATE_EDITED") == {"StateEdited"}
    assert counted(Outcome.FAILED, "KEY_NOT_ON_RECORD") == {"StateEdited", "Failed"}


def test_a_region_is_counted_as_denied_only_if_it_could_be_read_before() -> None:
    assert counted(Outcome.IGNORED, "REGION_DENIED") == set()
    assert counted(Outcome.IGNORED, "REGION_DENIED", before=Setting(EncryptionType.NONE)) == {"RegionDenied"}


def test_an_unconfirmed_event_counts_as_such() -> None:
    assert counted(Outcome.IGNORED, "UNCONFIRMED") == {"Unconfirmed"}


@pytest.mark.parametrize("reason", ["MISSED_EVENT", "DEAF", "RECEIVING", "EVENT_HISTORY"])
def test_other_notes_about_event_history_count_nothing(reason: str) -> None:
    """Deafness is counted every hour while it lasts."""
    assert counted(Outcome.IGNORED, reason) == set()
