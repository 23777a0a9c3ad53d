"""What an incident changed: what the event made that began it, not what the guard saw or made afterwards."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from chalicelib.auditlog import history
from chalicelib.auditlog.views import IncidentView
from chalicelib.console.words import changed_word
from chalicelib.domain.model import Subject
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.stored import Attribution, Cause, Change
from tests.unit.logbook import Logbook
from tests.unit.test_history import ALICE, HERE, KEY, NONE, T0, change

ARN = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
TO_NONE = Change(Subject.SETTING, None, f"KMS {ARN}", "NONE")
MOVED = Change(Subject.ALIAS, "alias/xray", ARN, ARN.replace("1234abcd", "9999abcd"))


def view_of(*records: dict[str, Any]) -> IncidentView:
    log = Logbook()
    for number, fields in enumerate(records):
        about = {"incident_id": f"{HERE}#1", "violations": (Violation.NOT_KMS,), **fields}
        log.add(HERE, T0 + timedelta(seconds=number), about.pop("outcome", Outcome.FAILED), **about)
    found = history.incident(log, f"{HERE}#1")
    assert found is not None
    return found


def test_from_and_to_are_the_change_that_began_the_incident_also_where_the_guard_made_another_one() -> None:
    cause = Cause("e1", T0, ALICE)
    view = view_of(
        {"trigger": change("e0", ALICE, T0), "change": MOVED, "before": KEY},
        {"trigger": change("e1", ALICE, T0), "change": TO_NONE, "cause": cause, "before": NONE},
        {"trigger": change("e1", ALICE, T0), "cause": cause, "outcome": Outcome.REMEDIATED, "after": KEY},
    )
    assert view.changed == TO_NONE
    assert changed_word(view.changed) == "key 1234abcd… → NONE"
    assert view.after == KEY


def test_without_a_cause_it_is_the_latest_event_that_made_a_violation() -> None:
    made = Attribution(Violation.ALIAS_MOVED, (Cause("e2", T0, ALICE),))
    view = view_of(
        {"trigger": change("e1", ALICE, T0), "change": TO_NONE},
        {"trigger": change("e2", ALICE, T0), "change": MOVED, "attributions": (made,)},
    )
    assert view.changed == MOVED
    assert changed_word(view.changed) == "alias/xray: key 1234abcd… → key 9999abcd…"


def test_a_drift_that_no_event_explains_has_no_change() -> None:
    view = view_of({"before": NONE})
    assert view.changed is None
    assert changed_word(None, view.before) == "unknown → NONE"


def test_a_change_of_nothing_that_the_event_names_is_none() -> None:
    view = view_of({"trigger": change("e1", ALICE, T0), "change": Change(), "cause": Cause("e1", T0, ALICE)})
    assert view.changed is None
