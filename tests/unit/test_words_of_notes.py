"""What the faces say of refused calls, of calls that were only counted, and of addenda."""

from __future__ import annotations

from chalicelib.auditlog.filters import Filter
from chalicelib.auditlog.parts import people_of
from chalicelib.auditlog.views import Entry
from chalicelib.cli.history import _row
from chalicelib.cli.show import _details
from chalicelib.domain.floods import summary
from chalicelib.domain.model import Actor, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import ZERO_HASH, Change, Record, Tally
from chalicelib.operators.formatting import event_change_text, part_text
from tests.unit.test_parts import AT, MALLORY, TARGET

COUNT = Record(
    f"{TARGET}#9",
    TARGET,
    9,
    AT,
    Outcome.IGNORED,
    Trigger(TriggerKind.TICK, actor=Actor(MALLORY.arn)),
    ZERO_HASH,
    reason=Reason.CALLS_COUNTED,
    detail=summary(Tally(TARGET, MALLORY.arn, AT, 41, 31, 0)),
)
ADDENDUM = Record(
    f"{TARGET}#9",
    TARGET,
    9,
    AT,
    Outcome.IGNORED,
    Trigger(TriggerKind.CHANGE, "addendum", "PutEncryptionConfig", AT, actor=MALLORY),
    ZERO_HASH,
    reason=Reason.ADDENDUM,
    detail={
        "message": "completes or corrects event the-original",
        "original_event_id": "the-original",
        "subject": "setting",
        "resource": None,
        "after": "NONE",
    },
)
REFUSED = Record(
    f"{TARGET}#9",
    TARGET,
    9,
    AT,
    Outcome.IGNORED,
    Trigger(TriggerKind.CHANGE, "refused", "PutEncryptionConfig", AT, actor=MALLORY),
    ZERO_HASH,
    reason="AccessDenied",
    detail={"message": "no"},
    change=Change(),
)


def test_history_by_actor_does_not_say_that_a_refused_call_made_a_change() -> None:
    (person,) = people_of(REFUSED)
    assert part_text(person) != "made the change"


def test_a_refused_call_is_not_said_to_have_made_an_unknown_change() -> None:
    assert REFUSED.change is not None
    assert event_change_text(REFUSED.change) != "the event does not say"


def test_whose_calls_were_counted_did_not_begin_the_scheduled_check() -> None:
    (person,) = people_of(COUNT)
    assert part_text(person) != "began the check"


def test_history_as_a_table_says_how_many_calls_were_counted() -> None:
    """codes.md: "The record says how many". `show` knows only records of incidents, so the table is the only face."""
    assert "31" in " ".join(_row(Entry(COUNT, "hash"), Filter()))


def test_the_command_line_prints_what_an_addendum_says() -> None:
    assert "the-original" in str(_details(ADDENDUM)) + " ".join(_row(Entry(ADDENDUM, "hash"), Filter()))


def test_one_call_is_not_calls() -> None:
    assert "1 more refused call by" in str(summary(Tally(TARGET, MALLORY.arn, AT, 11, 1, 0))["message"])
