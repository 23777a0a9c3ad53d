"""P5: each violation is attributed to the latest event that made it, and to nobody where none did."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from chalicelib.domain.attribution import (
    MOST_EFFECTS,
    MOST_OF_ONE,
    attribute,
    effect_of,
    makers_of,
    name_makers,
    remember,
)
from chalicelib.domain.incidents import cause_of
from chalicelib.domain.model import (
    Actor,
    ChangeEvent,
    Effect,
    EncryptionType,
    KeyEvent,
    Setting,
    Subject,
    Trigger,
    TriggerKind,
)
from chalicelib.domain.observation import Observation
from chalicelib.domain.reasons import Violation
from chalicelib.domain.spans import IN_LOGS, SPANS_GROUP, Link, Links, LogGroup, Spans
from chalicelib.domain.stored import Attribution, Cause, Maker, SeenEffect, TargetState
from tests.unit.runs import a_run, known_as
from tests.unit.targets import (
    ALIAS,
    ALICE,
    BOB,
    COMPLIANT,
    KEY_ARN,
    NONE,
    NOW,
    OTHER,
    OTHER_ARN,
    RULE,
    SECOND,
    TARGET,
    a_key,
)

LINK = Link("arn:aws:oam:us-east-1:111122223333:link/1", "444455556666")
POLICY = '{"Version": "2012-10-17", "Statement": []}'


def change(actor: Actor, at: datetime, result: Setting = NONE, event_id: str = "setting") -> ChangeEvent:
    return ChangeEvent(TARGET, Trigger(TriggerKind.CHANGE, event_id, "PutEncryptionConfig", at, actor=actor), result)


def key_change(actor: Actor, at: datetime, effect: Effect, event_id: str = "key") -> KeyEvent:
    trigger = Trigger(TriggerKind.KEY, event_id, "a call", at, actor=actor)
    return KeyEvent(TARGET, trigger, (KEY_ARN,), effect=effect)


def effects(*events: ChangeEvent | KeyEvent) -> tuple[SeenEffect, ...]:
    known: tuple[SeenEffect, ...] = ()
    for event in events:
        known = remember(known, effect_of(event, cause_of(event.trigger)))
    return known


def attributed(
    violation: Violation,
    *events: ChangeEvent | KeyEvent,
    setting: Setting = NONE,
    state: TargetState = COMPLIANT,
    alias: str | None = KEY_ARN,
) -> Attribution:
    keys = {KEY_ARN: a_key(policy=POLICY, rotation_days=999)}
    spans, links = Spans(IN_LOGS, "ACTIVE", LogGroup(KEY_ARN)), Links(NOW, (LINK,))
    seen = Observation(NOW, setting, keys, {ALIAS: alias}, spans=spans, links=links)
    makers = makers_of(replace(RULE, require=replace(RULE.require, copies_to=())), known_as(state), seen, (violation,))
    (found,) = attribute(a_run(TARGET, RULE), known_as(state), effects(*events), makers, (violation,))
    return found


def who(found: Attribution) -> list[Actor]:
    return [event.actor for event in found.events]


DISABLED = Effect(Subject.KEY_STATE, KEY_ARN, "Disabled")


def test_two_peoples_violations_are_attributed_to_each_of_them() -> None:
    events = (key_change(ALICE, NOW - 9 * SECOND, DISABLED), change(BOB, NOW - 5 * SECOND))
    assert who(attributed(Violation.KEY_DISABLED, *events)) == [ALICE]
    assert who(attributed(Violation.NOT_KMS, *events)) == [BOB]


@pytest.mark.parametrize("order", [1, -1])
def test_the_latest_event_by_its_own_time_counts_in_whatever_order_it_came(order: int) -> None:
    events = (change(ALICE, NOW - 9 * SECOND), change(BOB, NOW - 5 * SECOND, event_id="another"))[::order]
    assert who(attributed(Violation.NOT_KMS, *events)) == [BOB]


def test_two_in_the_same_second_are_both_named() -> None:
    events = (change(ALICE, NOW - SECOND), change(BOB, NOW - SECOND, event_id="another"))
    assert who(attributed(Violation.NOT_KMS, *events)) == [ALICE, BOB]


def test_an_event_later_than_the_observation_made_nothing_of_it() -> None:
    events = (change(ALICE, NOW - 9 * SECOND), change(BOB, NOW + 2 * SECOND))
    assert who(attributed(Violation.NOT_KMS, *events)) == [ALICE]


def test_an_event_from_before_the_target_was_last_compliant_made_nothing_of_it() -> None:
    again = replace(COMPLIANT, good_at=NOW - 5 * SECOND)
    assert attributed(Violation.NOT_KMS, change(ALICE, NOW - 6 * SECOND), state=again).events == ()
    assert who(attributed(Violation.NOT_KMS, change(BOB, NOW - 5 * SECOND), state=again)) == [BOB]


def test_an_old_answer_of_kms_that_the_key_works_does_not_clear_who_disabled_it() -> None:
    stale = replace(COMPLIANT, good_at=NOW - SECOND)
    assert who(attributed(Violation.KEY_DISABLED, key_change(ALICE, NOW - 9 * SECOND, DISABLED), state=stale)) == [
        ALICE
    ]


def test_what_somebody_undid_before_it_was_seen_again_was_made_by_nobody_known() -> None:
    other = Setting(EncryptionType.KMS, OTHER_ARN)
    events = (change(ALICE, NOW - 9 * SECOND), change(BOB, NOW - 5 * SECOND, other, "another"))
    assert attributed(Violation.NOT_KMS, *events).events == ()
    assert who(attributed(Violation.NOT_KMS, *events, change(ALICE, NOW - SECOND, event_id="again"))) == [ALICE]


def test_an_event_with_another_effect_made_nothing_of_it() -> None:
    other, elsewhere = Setting(EncryptionType.KMS, OTHER_ARN), replace(DISABLED, resource=OTHER_ARN)
    assert attributed(Violation.NOT_KMS, change(ALICE, NOW, other)) == Attribution(Violation.NOT_KMS)
    assert attributed(Violation.KEY_DISABLED, key_change(ALICE, NOW, elsewhere)).events == ()


@pytest.mark.parametrize(
    ("violation", "effect"),
    [
        (Violation.KEY_DISABLED, DISABLED),
        (Violation.KEY_PENDING_DELETION, Effect(Subject.KEY_STATE, KEY_ARN, "PendingDeletion")),
        (Violation.KEY_NOT_FOUND, Effect(Subject.KEY_STATE, KEY_ARN, "deleted")),
        (Violation.KEY_UNAVAILABLE, Effect(Subject.KEY_STATE, KEY_ARN, "PendingImport")),
        (Violation.KEY_ROTATION_OFF, Effect(Subject.KEY_ROTATION, KEY_ARN, "off")),
        (Violation.KEY_POLICY_INCOMPLETE, Effect(Subject.KEY_POLICY, KEY_ARN, POLICY.replace(" ", ""))),
        (Violation.KEY_POLICY_OPEN, Effect(Subject.KEY_POLICY, KEY_ARN, POLICY.replace(" ", ""))),
        (Violation.ALIAS_MOVED, Effect(Subject.ALIAS, ALIAS, OTHER_ARN)),
        (Violation.KEY_ROTATION_SLOW, Effect(Subject.KEY_ROTATION, KEY_ARN, "on every 999 days")),
        (Violation.SPANS_FORBIDDEN, Effect(Subject.SPANS, None, "CloudWatchLogs")),
        (Violation.SPANS_NOT_KMS, Effect(Subject.SPANS, None, "CloudWatchLogs")),
        (Violation.SPANS_NOT_KMS, Effect(Subject.SPANS, SPANS_GROUP, "none")),
        (Violation.SPANS_KEY_NOT_ALLOWED, Effect(Subject.SPANS, SPANS_GROUP, KEY_ARN)),
        (Violation.SPANS_KEY_UNUSABLE, Effect(Subject.KEY_STATE, KEY_ARN, "Disabled")),
        (Violation.TRACES_COPIED, Effect(Subject.LINKS, LINK.arn, LINK.account)),
    ],
)
def test_each_violation_of_the_key_has_the_effect_that_makes_it(violation: Violation, effect: Effect) -> None:
    event = key_change(ALICE, NOW, effect)
    assert who(attributed(violation, event, alias=OTHER_ARN)) == [ALICE]
    undone = replace(effect, after="something else")
    assert attributed(violation, key_change(ALICE, NOW, undone), alias=OTHER_ARN).events == ()


def test_an_alias_that_is_gone_was_deleted_by_somebody() -> None:
    event = key_change(ALICE, NOW, Effect(Subject.ALIAS, ALIAS, "deleted"))
    assert who(attributed(Violation.ALIAS_MOVED, event, alias=None)) == [ALICE]


def test_what_no_event_made_may_have_been_made_by_the_rule_or_stood_there_before() -> None:
    unseen = TargetState(str(TARGET))
    assert attributed(Violation.NOT_KMS, state=unseen).before_guard
    former = replace(COMPLIANT, policy_digest="another")
    assert attributed(Violation.NOT_KMS, state=former).policy_digest == "digest"
    assert attributed(Violation.NOT_KMS) == Attribution(Violation.NOT_KMS)


def test_a_flood_forgets_the_oldest_effects_only() -> None:
    events = [change(ALICE, NOW - timedelta(minutes=each), event_id=f"e{each}") for each in range(100, 0, -1)]
    disabled = key_change(BOB, NOW - timedelta(minutes=200), DISABLED, "before")
    kept = effects(disabled, *events)
    assert [each.cause.event_id for each in kept] == ["before", *(f"e{number}" for number in range(MOST_OF_ONE, 0, -1))]


def test_a_flood_over_many_things_is_bounded() -> None:
    moves = [
        key_change(BOB, NOW, Effect(Subject.ALIAS, f"alias/{number}", "deleted"), f"e{number}") for number in range(99)
    ]
    assert len(effects(*moves)) == MOST_EFFECTS


def test_a_refused_call_has_no_effect() -> None:
    refused = replace(change(ALICE, NOW), result=None, error_code="AccessDenied")
    assert effects(refused) == ()


def test_p5_who_did_the_same_in_the_same_second_is_named_as_well_though_something_else_came_after() -> None:
    """X-Ray was read before the change that seems to undo it: the time of an observation is that of its end."""
    at = NOW - 3 * SECOND
    maker = Maker(Violation.NOT_KMS, NOW, Subject.SETTING, (), ("NONE",))
    alices, bobs = (Cause(name, at, actor) for name, actor in (("alices", ALICE), ("bobs", BOB)))
    seen = tuple(SeenEffect(cause, Subject.SETTING, None, "NONE") for cause in (alices, bobs))
    after = SeenEffect(Cause("later", NOW - 2 * SECOND, BOB), Subject.SETTING, None, str(OTHER))
    (found,) = name_makers((Attribution(Violation.NOT_KMS, (alices,)),), (maker,), (*seen, after))
    assert found.events == (alices, bobs)
    (unknown,) = name_makers((Attribution(Violation.NOT_KMS),), (maker,), (*seen, after))
    assert unknown.events == ()
