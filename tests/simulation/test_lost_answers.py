"""P1, P3, P4, P7 and P10: any call is throttled, or its answer is lost, before or after it had its effect."""

from __future__ import annotations

import pytest

from tests.simulation.crashing import LOST_ANSWERS, MIXED, check, interrupted
from tests.simulation.scenarios import SCENARIOS, Scenario

CHOSEN = (
    "two workers, empty account",
    "two workers, key recorded",
    "key disabled",
    "alias moved",
    "rotation off",
    "policy stripped under X-Ray",
)
SOME = [scenario for scenario in SCENARIOS if scenario.name in CHOSEN]


@pytest.mark.parametrize("scenario", SOME, ids=[scenario.name for scenario in SOME])
def test_p10_whichever_call_is_throttled_or_loses_its_answer_the_target_ends_as_the_rule_asks(
    scenario: Scenario,
) -> None:
    for story in interrupted(scenario, LOST_ANSWERS):
        check(story)


def test_p1_a_key_event_whose_reads_fail_is_looked_at_again_when_stale_reads_have_passed() -> None:
    (scenario,) = (each for each in SCENARIOS if each.name == "policy stripped under X-Ray")
    for story in interrupted(scenario, LOST_ANSWERS, MIXED):
        check(story)
