"""Break-glasses as they are at a moment: in force, refused or ended, whatever the states still say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.auditlog import breakglasses, history
from chalicelib.domain.model import Actor, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import Suppression, TargetState
from tests.unit.logbook import Logbook

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HERE = "111122223333/us-east-1"
NINA = Actor("arn:aws:iam::111122223333:role/SecurityBreakGlass", session="nina")
KEY = "arn:aws:kms:us-east-1:111122223333:key/k1"
GLASS = Suppression(KEY, "2026-11-21T14:00:00Z INC-1", "INC-1", NOW - 60 * SECOND, None, None, NINA)
SWEEP = Trigger(TriggerKind.SWEEP)
MONTH = NOW - timedelta(days=30)


def ends(until: datetime, end: datetime | None = None, **more: Any) -> Suppression:
    return replace(GLASS, until=until, end=end or until, **more)


@pytest.mark.parametrize(
    ("suppression", "status"),
    [
        (ends(NOW + SECOND), "open"),
        (ends(NOW), "ended: END"),
        (ends(NOW - SECOND), "ended: END"),
        (ends(NOW - SECOND, NOW + 60 * SECOND), "ended: CAP"),
        (ends(NOW + SECOND, closed="REMOVED"), "ended: REMOVED"),
        (ends(NOW + SECOND, refused="PAST"), "refused: PAST"),
    ],
)
def test_p14_a_break_glass_is_open_until_its_last_second_and_not_in_the_next(
    suppression: Suppression, status: str
) -> None:
    assert breakglasses.status_of(suppression, NOW) == status
    listed = breakglasses.in_force(Logbook(), [TargetState(HERE, suppressions=(suppression,))], NOW)
    assert [view.status for view in listed] == (["open"] if status == "open" else [])


def test_p14_refused_and_former_values_come_from_the_log_where_the_states_forgot_them() -> None:
    log = Logbook()
    former = replace(ends(NOW - timedelta(days=2)), value="former")
    refused = replace(GLASS, carrier="arn:aws:iam::111122223333:user/Alice", refused="CARRIER_NOT_ALLOWED")
    ages_ago = replace(former, value="ages ago")
    for reason, each, days in (
        ("BREAK_GLASS_OPENED", ages_ago, 60),
        ("BREAK_GLASS_OPENED", former, 3),
        ("BREAK_GLASS_ENDED", replace(former, closed="REMOVED"), 2),
        ("BREAK_GLASS_REFUSED", refused, 1),
        ("BREAK_GLASS_OPENED", GLASS, 0),
    ):
        outcome = Outcome.SUPPRESSED if reason.endswith("OPENED") else Outcome.IGNORED
        log.add(HERE, NOW - timedelta(days=days, seconds=1), outcome, SWEEP, reason=reason, suppression=each)
    present = ends(NOW + SECOND)
    found = breakglasses.every(log, [TargetState(HERE, suppressions=(present,))], NOW, MONTH)
    assert {(view.suppression.carrier, view.suppression.value): view.status for view in found} == {
        (KEY, GLASS.value): "open",
        (KEY, "former"): "ended: REMOVED",
        (refused.carrier, refused.value): "refused: CARRIER_NOT_ALLOWED",
    }


def test_p14_a_long_log_is_read_to_the_start_of_the_range() -> None:
    log = Logbook()
    log.add(HERE, NOW - timedelta(days=5), Outcome.IGNORED, SWEEP, reason="BREAK_GLASS_REFUSED", suppression=GLASS)
    for number in range(1200):
        log.add(HERE, NOW - timedelta(hours=40) + number * SECOND, Outcome.IGNORED, SWEEP, reason="SWEEP")
    assert len(breakglasses.every(log, [], NOW, MONTH)) == 1


def test_an_incident_shows_only_the_break_glass_that_suspended_its_remediation() -> None:
    def incident(outcome: Outcome) -> Suppression | None:
        log = Logbook()
        about: dict[str, Any] = {"incident_id": f"{HERE}#1", "suppression": replace(GLASS, refused="PAST")}
        log.add(HERE, NOW, Outcome.REMEDIATING, SWEEP, **about)
        log.add(HERE, NOW, outcome, SWEEP, incident_id=f"{HERE}#1", suppression=GLASS)
        view = history.incident(log, f"{HERE}#1")
        assert view is not None
        return view.suppression

    assert incident(Outcome.SUPPRESSED) == GLASS
    assert incident(Outcome.DEFERRED) is None


def test_p14_a_change_counts_whose_record_is_earlier_by_another_workers_clock() -> None:
    log, glass = Logbook(), ends(NOW + SECOND)
    about: dict[str, Any] = {"incident_id": f"{HERE}#1", "suppression": glass}
    log.add(HERE, glass.first_seen - SECOND, Outcome.SUPPRESSED, SWEEP, **about)
    (view,) = breakglasses.in_force(log, [TargetState(HERE, suppressions=(glass,))], NOW)
    assert view.let_through == 1
