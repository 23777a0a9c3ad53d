"""P1 to P8 and P13 over random schedules. A longer hunt: `python -m tests.simulation.hunt`."""

from __future__ import annotations

import pytest

from tests.simulation.hunt import check_schedule, schedule

SCHEDULES = 300
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_p1_to_p8_hold_over_random_schedules(part: int) -> None:
    for seed in range(part, SCHEDULES, PARTS):
        try:
            check_schedule(schedule(seed))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}:\n{error}") from error
