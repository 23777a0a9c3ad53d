"""P1, P2, P3, P4, P8, P13: a crash just before and just after every AWS call of every scenario, found by running it."""

from __future__ import annotations

import pytest

from tests.simulation.crashing import CRASHES, MIXED, OLDEST, check, interrupted, tell
from tests.simulation.scenarios import SCENARIOS, Scenario

EVERY = pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])


@EVERY
def test_p1_to_p4_wherever_a_run_crashes_the_target_ends_as_the_rule_asks(scenario: Scenario) -> None:
    for story in interrupted(scenario, CRASHES):
        check(story)


@EVERY
def test_p1_to_p4_wherever_a_run_crashes_while_every_read_of_kms_is_four_minutes_old(scenario: Scenario) -> None:
    for story in interrupted(scenario, CRASHES, OLDEST, every_poll=False):
        check(story)


@EVERY
def test_p1_to_p4_wherever_a_run_crashes_while_some_reads_of_kms_are_older_than_others(scenario: Scenario) -> None:
    """After each call only: a crash before one is a crash after the one before it, and the hunt does both."""
    for story in interrupted(scenario, CRASHES[1:], MIXED, every_poll=False):
        check(story)


@EVERY
def test_the_crash_sweep_interrupts_every_kind_of_call_that_the_scenario_makes(scenario: Scenario) -> None:
    """The sweep finds its calls by running; that they are found at all is not taken for granted."""
    names = {name for _, name in tell(scenario).calls}
    assert {"BatchGetItem", "GetEncryptionConfig", "DescribeKey", "TransactWriteItems"} <= names
    if scenario.makes_key:
        assert {"CreateKey", "CreateAlias", "PutEncryptionConfig"} <= names
