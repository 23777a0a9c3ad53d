"""What each path costs in AWS calls, counted by running it; `docs/calls.md` shows the same figures."""

from __future__ import annotations

from pathlib import Path as File

import pytest

from tests.simulation import calls
from tests.simulation.calls import Path

SHOWN = File(__file__).parents[2] / "docs" / "calls.md"


def test_the_documented_calls_are_those_that_are_made() -> None:
    assert SHOWN.read_text() == calls.table(), "python -m tests.simulation.calls > docs/calls.md"


def test_p7_an_own_echo_reads_twice_at_most_mutates_nothing_and_writes_no_record() -> None:
    path = calls.own_echo()
    assert len(path.run.calls) <= 2
    assert (path.mutations, path.transactions, path.records) == ((), 0, 0)


def test_p7_an_own_echo_that_finds_active_closes_the_incident_with_one_transaction() -> None:
    path = calls.own_echo_closing()
    assert len(path.run.calls) <= 3
    assert (path.mutations, path.transactions, path.records) == ((), 1, 1)


def test_a_compliant_change_costs_one_write_transaction() -> None:
    path = calls.compliant_change()
    assert (path.mutations, path.transactions, path.records) == ((), 1, 1)
    assert path.run.rounds <= 3


def test_a_duplicate_costs_reads_only() -> None:
    path = calls.duplicate()
    assert (path.mutations, path.transactions, path.records) == ((), 0, 0)


def test_a_failed_call_costs_one_read_and_one_transaction() -> None:
    path = calls.failed_call()
    assert path.run.calls == ["BatchGetItem", "TransactWriteItems"]
    assert path.records == 1


def test_a_drift_with_a_healthy_key_costs_one_remediating_and_one_closing_transaction() -> None:
    path = calls.drift_with_healthy_key()
    assert path.mutations == ("PutEncryptionConfig",)
    assert (path.transactions, path.records) == (2, 2)
    assert path.run.rounds <= 6


def test_a_drift_without_a_key_makes_exactly_one_and_puts_x_ray_on_it_before_any_upkeep() -> None:
    path = calls.drift_without_key()
    assert path.mutations == ("CreateKey", "PutEncryptionConfig", "EnableKeyRotation", "CreateAlias")
    assert path.records == 4, "REMEDIATING, the key made, the key adopted, REMEDIATED"
    assert path.run.rounds <= 11


def test_a_change_to_a_key_that_is_none_of_ours_costs_one_read() -> None:
    assert calls.other_key().run.calls == ["BatchGetItem"]


@pytest.mark.parametrize("path", [calls.lost_race, calls.retry_while_held, calls.still_updating, calls.swept_as_before])
def test_what_has_nothing_to_say_writes_nothing(path: object) -> None:
    assert callable(path)
    taken = path()
    assert isinstance(taken, Path)
    assert (taken.mutations, taken.transactions, taken.records) == ((), 0, 0)


def test_event_history_of_a_region_with_nothing_missed_costs_one_lookup_and_one_record_of_the_run() -> None:
    path = calls.history_as_before()
    assert path.run.calls == [
        "BatchGetItem",
        "LookupEvents",
        "Query",
        "PutItem",
        "BatchGetItem",
        "BatchGetItem",
        "TransactWriteItems",
    ]
    assert path.records == 0


def test_a_take_over_ends_the_lost_attempt_and_begins_its_own_in_one_transaction() -> None:
    path = calls.take_over()
    assert (path.transactions, path.records) == (2, 3)
    assert path.mutations == ("PutEncryptionConfig",)
