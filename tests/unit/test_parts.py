"""Who has a part in a record or an incident, and which: each person once, with all their parts and changes."""

from __future__ import annotations

from datetime import UTC, datetime

from chalicelib.auditlog.filters import Filter
from chalicelib.auditlog.parts import LONGEST_VALUE, Part, Participant, Person, participants, people_of
from chalicelib.domain.model import Actor, Subject, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.stored import ZERO_HASH, Attribution, Cause, Change, Record, Suppression
from chalicelib.operators.formatting import part_text, persons_change_text

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
TARGET = "111122223333/us-east-1"
ALICE = Actor("arn:aws:iam::111122223333:user/Alice", "IAMUser")
MALLORY = Actor("arn:aws:iam::111122223333:role/Mallory", "AssumedRole", "shell")
NINA = Actor("arn:aws:iam::111122223333:role/SecurityBreakGlass", "AssumedRole", "nina")
KEY = "arn:aws:kms:us-east-1:111122223333:key/1234"


def record(seq: int, actor: Actor | None, change: Change | None = None, **fields: object) -> Record:
    trigger = Trigger(TriggerKind.KEY, f"event-{seq}", "ACall", AT, actor=actor)
    fields = {"incident_id": f"{TARGET}#1", "change": change, **fields}
    return Record(f"{TARGET}#{seq}", TARGET, seq, AT, Outcome.DEFERRED, trigger, ZERO_HASH, **fields)  # type: ignore[arg-type]


def made(violation: Violation, *actors: Actor) -> Attribution:
    return Attribution(violation, tuple(Cause(f"of {actor.arn}", AT, actor) for actor in actors))


SETTING = Change(Subject.SETTING, None, "KMS", "NONE")
DISABLED = Change(Subject.KEY_STATE, KEY, None, "Disabled")
FIRST = record(
    1,
    ALICE,
    SETTING,
    cause=Cause("event-1", AT, ALICE),
    attributions=(made(Violation.NOT_KMS, ALICE), made(Violation.KEY_DISABLED, MALLORY)),
    suppression=Suppression(KEY, "value", "reason", AT, None, None, NINA),
)


def test_everybody_in_a_record_is_named_once_with_all_their_parts() -> None:
    assert people_of(FIRST) == (
        Person(ALICE, (Part.EVENT, Part.CAUSE, Part.VIOLATION), (Violation.NOT_KMS,)),
        Person(MALLORY, (Part.VIOLATION,), (Violation.KEY_DISABLED,)),
        Person(NINA, (Part.BREAK_GLASS,)),
    )
    assert people_of(record(2, None)) == ()


def test_who_began_a_run_did_not_make_the_change_of_that_record() -> None:
    assert people_of(record(2, MALLORY)) == (Person(MALLORY, (Part.TRIGGER,)),)


def test_an_incident_lists_each_person_with_their_changes() -> None:
    found = participants([FIRST, record(2, MALLORY, DISABLED), record(3, MALLORY), record(4, ALICE, SETTING)])
    alice, mallory, nina = found
    assert [(change.record_id, change.after) for change in alice.changes] == [
        (f"{TARGET}#1", "NONE"),
        (f"{TARGET}#4", "NONE"),
    ]
    assert (mallory.actor, mallory.parts, mallory.violations) == (
        MALLORY,
        (Part.VIOLATION, Part.EVENT),
        (Violation.KEY_DISABLED,),
    )
    assert [(change.subject, change.resource, change.at) for change in mallory.changes] == [
        (Subject.KEY_STATE, KEY, AT)
    ]
    assert nina == Participant(NINA, (Part.BREAK_GLASS,), (), ())


def test_who_only_asked_for_a_check_is_listed_as_that() -> None:
    assert participants([record(1, None), record(2, MALLORY)]) == (Participant(MALLORY, (Part.TRIGGER,), (), ()),)


def test_a_long_value_is_cut_in_an_incident_and_whole_in_its_record() -> None:
    policy = Change(Subject.KEY_POLICY, KEY, None, "x" * 1000)
    ((change,),) = (person.changes for person in participants([record(1, ALICE, policy)]))
    assert change.after == "x" * LONGEST_VALUE + "…"


def test_the_filter_finds_whoever_has_a_part() -> None:
    for name in ("alice", "mallory", "nina"):
        assert Filter(actor=name).matches_actor(FIRST)
    assert not Filter(actor="bob").matches_actor(FIRST)
    assert not Filter().is_actor(ALICE)


def test_parts_and_changes_are_told_in_words() -> None:
    alice, mallory, nina = people_of(FIRST)
    assert part_text(alice) == "made the call, caused the incident, made NOT_KMS"
    assert (part_text(mallory), part_text(nina)) == ("made KEY_DISABLED", "set the break-glass tag")
    (person,) = participants([record(2, MALLORY, DISABLED)])
    assert persons_change_text(person.changes[0], TARGET) == (
        "the state of key 1234: Disabled (ACall at 2026-11-20T12:00:00Z)"
    )
