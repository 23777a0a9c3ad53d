"""P1 to P4, P8 and P13: a crash just before and just after every AWS call of every scenario, found by running it."""

from __future__ import annotations

import pytest

from tests.simulation.crashing import CRASHES, check, interrupted
from tests.simulation.scenarios import SCENARIOS, Scenario

EVERY = pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])


@EVERY
def test_p1_to_p4_wherever_a_run_crashes_the_target_ends_as_the_rule_asks(scenario: Scenario) -> None:
    for story in interrupted(scenario, CRASHES):
        check(story)
