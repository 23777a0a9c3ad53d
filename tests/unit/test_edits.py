"""The longest times that the guard can store: what is within them is obeyed, what is beyond is an edit."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from chalicelib.domain import waiting
from chalicelib.domain.breakglass import LONGEST_BREAK_GLASS
from chalicelib.domain.edits import without_edits
from chalicelib.domain.lanes import Lane
from chalicelib.domain.stored import Backoff, Incident, Intent, Lease, Phase, Suppression, TargetState
from chalicelib.domain.times import CLOCK_SKEW
from chalicelib.entry import LEASE_OUTLIVES_SECONDS
from tests.unit.targets import NOW, TARGET

PROJECT = Path(__file__).parents[2]
SECOND = timedelta(seconds=1)
LONGEST_FUNCTION = 900
"""Lambda's longest timeout, in seconds."""


def test_p16_the_bounds_are_those_of_lambda_and_of_the_policys_schema() -> None:
    schema = json.loads((PROJECT / "policies" / "policy.schema.json").read_text("utf-8"))
    assert timedelta(seconds=LONGEST_FUNCTION + LEASE_OUTLIVES_SECONDS) == waiting.LONGEST_LEASE
    minutes = schema["$defs"]["limits"]["properties"]["max_backoff_minutes"]["maximum"]
    assert timedelta(minutes=minutes) == waiting.LONGEST_BACKOFF
    hours = schema["$defs"]["break_glass"]["properties"]["max_hours"]["maximum"]
    assert timedelta(hours=hours) == LONGEST_BREAK_GLASS


def full(beyond: timedelta) -> TargetState:
    """A state with each time at its maximum, and so much more."""
    late = NOW + CLOCK_SKEW + beyond
    lease = Lease("sweep/1", 1, late + waiting.LONGEST_LEASE, NOW)
    incident = Incident(
        f"{TARGET}#1",
        NOW,
        None,
        Phase.ACTING,
        lease=lease,
        due=late + waiting.LONGEST_INCIDENT,
        settles_until=late + waiting.LONGEST_SETTLING,
    )
    return TargetState(
        str(TARGET),
        incident=incident,
        intent=Intent("nonce", late + waiting.LONGEST_INTENT),
        recheck_at=late + waiting.STALE_READS,
        watch=late,
        backoffs={Lane.KEY: Backoff(3, NOW, late + waiting.LONGEST_BACKOFF)},
        suppressions=(Suppression("key", "v", "r", NOW, None, NOW + LONGEST_BREAK_GLASS + beyond),),
    )


def test_p1_p16_a_time_at_its_maximum_is_obeyed() -> None:
    state = full(timedelta())
    assert without_edits(state, NOW) == (state, ())


def test_p16_each_time_beyond_its_maximum_is_named_and_not_obeyed() -> None:
    state, edits = without_edits(full(SECOND), NOW)
    assert {edit.field for edit in edits} == {
        "incident.lease.until",
        "incident.due",
        "incident.settles_until",
        "intent.due",
        "recheck_at",
        "watch",
        "backoffs.key.until",
        "suppressions.until",
    }
    assert not state.is_held(NOW)
    assert state.due == NOW
    assert state.backoffs == {Lane.KEY: Backoff(3, NOW, None)}
    assert [each.closed for each in state.suppressions] == ["EDITED"]
    assert without_edits(state, NOW) == (state, ())


@pytest.mark.parametrize("closed", ["END", "EDITED"])
def test_a_break_glass_that_is_over_is_left_as_it_is(closed: str) -> None:
    over = Suppression("key", "v", "r", NOW, None, None, closed=closed)
    state = TargetState(str(TARGET), suppressions=(over, replace(over, closed=None, refused="PAST")))
    assert without_edits(state, NOW) == (state, ())


def test_p16_a_break_glass_of_the_future_and_a_time_without_a_zone_are_edits() -> None:
    future = Suppression("key", "v", "r", NOW + CLOCK_SKEW + SECOND, None, NOW + timedelta(hours=1))
    _, edits = without_edits(TargetState(str(TARGET), suppressions=(future,)), NOW)
    assert [edit.field for edit in edits] == ["suppressions.first_seen"]
    _, edits = without_edits(TargetState(str(TARGET), recheck_at=NOW.replace(tzinfo=None)), NOW)
    assert [edit.field for edit in edits] == ["recheck_at"]
