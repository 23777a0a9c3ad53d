"""Triage: how far a run goes for its trigger, first without the target's state and then with it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chalicelib.domain.floods import MOST_IN_FULL, in_full, tally_of
from chalicelib.domain.model import (
    GUARD_TAG_KEY,
    NONCE_TAG_KEY,
    Actor,
    ChangeEvent,
    Effect,
    EncryptionStatus,
    EncryptionType,
    KeyEvent,
    Setting,
    Subject,
    Target,
    TriggerKind,
)
from chalicelib.domain.policy import BreakGlass, Mode, Require, Rule
from chalicelib.domain.reasons import UNRECORDED, Outcome, Reason
from chalicelib.domain.run import At, Known, Run
from chalicelib.domain.settle import OnlyCounted, settle
from chalicelib.domain.stored import Incident, Phase, Tally, TargetState
from chalicelib.domain.triage import Next, Triage, triage, triage_echo
from tests.unit.runs import ROLE, a_run, known_as
from tests.unit.targets import (
    ALIAS,
    ALICE,
    BOB,
    COMPLIANT,
    FOREIGN_ARN,
    GOOD,
    GUARD,
    HOUR,
    KEY_ARN,
    NONE,
    NOW,
    OTHER,
    OTHER_ARN,
    RULE,
    SECOND,
    TARGET,
    UPDATING,
    a_lease,
    acting,
    an_incident,
    applied,
    change_event,
    drifted,
    key_event,
)

ELSEWHERE = Target("444455556666", "eu-west-1")
OFF = replace(RULE, mode=Mode.OFF)
SERVICE = replace(GUARD, via="config.amazonaws.com")
HELD = drifted(acting(a_lease(NOW + SECOND)), Outcome.REMEDIATING)
EXPIRED = drifted(acting(a_lease(NOW)), Outcome.REMEDIATING)
DUE = replace(COMPLIANT, recheck_at=NOW)


def run_of(
    kind: TriggerKind, rule: Rule | None = RULE, event: ChangeEvent | KeyEvent | None = None, target: Target = TARGET
) -> Run:
    """A run for this kind of trigger, with an event where the kind has one."""
    if event is None and kind is TriggerKind.CHANGE:
        event = change_event()
    if event is None and kind is TriggerKind.KEY:
        event = key_event(KEY_ARN)
    return a_run(target, rule, kind, event)


def known(state: TargetState | None) -> Known | None:
    """What a run knows once it read the state; None before."""
    return known_as(state) if state else None


def first(run: Run) -> Triage:
    return triage(run, None, NOW)


def second(run: Run, state: TargetState = COMPLIANT) -> Triage:
    return triage(run, known(state), NOW)


# --- without the target's state --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (TriggerKind.CHANGE, Next.READ_TOGETHER),
        (TriggerKind.SWEEP, Next.READ_TOGETHER),
        (TriggerKind.TICK, Next.NEED_STATE),
        (TriggerKind.OPERATOR, Next.NEED_STATE),
        (TriggerKind.KEY, Next.NEED_STATE),
    ],
)
def test_each_trigger_reads_the_state_first_or_state_and_setting_together(kind: TriggerKind, expected: Next) -> None:
    assert first(run_of(kind)) == Triage(expected)


def test_a_change_whose_event_was_dropped_is_read_like_a_change() -> None:
    run = run_of(TriggerKind.CHANGE, event=change_event(actor=GUARD)).without_event()
    assert first(run).next is Next.READ_TOGETHER
    assert second(run).next is Next.OBSERVE


# --- what is ignored, with and without the state ---------------------------------------------------------------------


@pytest.mark.parametrize("state", [None, COMPLIANT, HELD], ids=["no state", "compliant", "held"])
class TestIgnored:
    """Decided by the run alone, so that nothing must be read of the target."""

    @pytest.mark.parametrize("kind", [TriggerKind.CHANGE, TriggerKind.SWEEP, TriggerKind.TICK])
    def test_p17_a_target_of_another_account(self, state: TargetState | None, kind: TriggerKind) -> None:
        found = triage(run_of(kind, target=ELSEWHERE), known(state), NOW)
        assert (found.next, found.reason) == (Next.IGNORE, Reason.ACCOUNT_NOT_OURS)
        assert found.message == f"this guard acts in account {TARGET.account}"

    @pytest.mark.parametrize("kind", [TriggerKind.CHANGE, TriggerKind.SWEEP, TriggerKind.TICK, TriggerKind.OPERATOR])
    def test_a_target_that_no_rule_governs(self, state: TargetState | None, kind: TriggerKind) -> None:
        found = triage(run_of(kind, rule=None), known(state), NOW)
        assert (found.next, found.reason) == (Next.IGNORE, Reason.UNGOVERNED)

    @pytest.mark.parametrize("kind", [TriggerKind.CHANGE, TriggerKind.SWEEP, TriggerKind.TICK, TriggerKind.OPERATOR])
    def test_a_target_whose_rule_is_off_by_the_rules_name(self, state: TargetState | None, kind: TriggerKind) -> None:
        expected = Triage(Next.IGNORE, Reason.RULE_OFF, "rule baseline is off")
        assert triage(run_of(kind, rule=OFF), known(state), NOW) == expected

    @pytest.mark.parametrize(
        "run",
        [
            run_of(TriggerKind.KEY, rule=None),
            run_of(TriggerKind.KEY, rule=OFF),
            run_of(TriggerKind.KEY, target=ELSEWHERE),
            run_of(TriggerKind.KEY, event=key_event(KEY_ARN, error="AccessDenied")),
        ],
        ids=["no rule", "rule off", "another account", "refused"],
    )
    def test_a_change_to_a_key_where_no_key_matters(self, state: TargetState | None, run: Run) -> None:
        assert triage(run, known(state), NOW) == Triage(Next.IGNORE, Reason.NOT_OURS)


# --- what is ignored or only counted, with the state -----------------------------------------------------------------

REFUSED = change_event(error="AccessDeniedException")
RETAGGED = replace(key_event(KEY_ARN), tag_keys=("cost-center",), effect=Effect(Subject.TAGS, KEY_ARN, "cost-center=x"))


def seen(count: int) -> Known:
    """What a run knows whose caller already made so many calls that may only be counted."""
    return replace(known_as(COMPLIANT), tally=Tally(COMPLIANT.target, ALICE.arn, NOW, seen=count))


def test_p5_a_call_that_aws_refused_is_recorded_with_its_code_and_message() -> None:
    run = run_of(TriggerKind.CHANGE, event=REFUSED)
    assert triage(run, None, NOW).next is Next.NEED_STATE
    for state in (COMPLIANT, HELD):
        expected = Triage(Next.IGNORE, "AccessDeniedException", "refused: AccessDeniedException")
        assert triage(run, known(state), NOW) == expected


@pytest.mark.parametrize("event", [REFUSED, RETAGGED], ids=["refused", "other tags"])
def test_p5_beyond_ten_a_refused_call_or_a_change_of_other_tags_is_only_counted(event: ChangeEvent | KeyEvent) -> None:
    run = run_of(event.trigger.kind, event=event)
    assert triage(run, seen(MOST_IN_FULL - 1), NOW).next in (Next.IGNORE, Next.OBSERVE)
    assert triage(run, seen(MOST_IN_FULL), NOW) == Triage(Next.COUNT, Reason.CALLS_COUNTED)
    assert triage(run, replace(seen(MOST_IN_FULL), audited=True), NOW).next is not Next.COUNT


@pytest.mark.parametrize("key", [GUARD_TAG_KEY, "XRAY-GUARD", NONCE_TAG_KEY, "Break-Glass", "team"])
def test_p5_a_change_that_touches_one_tag_that_matters_is_always_recorded_in_full(key: str) -> None:
    glass = BreakGlass("break-glass", 8, ("*",))
    rule = replace(RULE, break_glass=glass, managed_key=replace(RULE.managed_key, tags={"team": "sec"}))
    event = replace(RETAGGED, tag_keys=("cost-center", key))
    assert tally_of(run_of(TriggerKind.KEY, rule, event), NOW) is None
    assert tally_of(run_of(TriggerKind.KEY, rule, RETAGGED), NOW) is not None


def test_p5_what_changes_something_or_is_made_by_the_guards_role_is_always_recorded_in_full() -> None:
    for event in (change_event(), key_event(KEY_ARN), replace(RETAGGED, tag_keys=())):
        assert tally_of(run_of(event.trigger.kind, event=event), NOW) is None
    refused = change_event(error="AccessDeniedException", actor=GUARD)
    assert tally_of(run_of(TriggerKind.CHANGE, event=refused), NOW) is None


def test_p5_users_that_one_principal_federates_share_a_tally() -> None:
    names = set()
    for number in range(3):
        user = Actor(f"arn:aws:sts::111122223333:federated-user/u{number}", "FederatedUser", issued_by=BOB.arn)
        tally = tally_of(run_of(TriggerKind.CHANGE, event=change_event(error="AccessDenied", actor=user)), NOW)
        assert tally is not None
        names.add(tally.name)
    assert len(names) == 1


# --- with the target's state -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in TriggerKind if kind is not TriggerKind.TICK])
def test_whatever_concerns_a_target_that_nobody_acts_on_is_observed(kind: TriggerKind) -> None:
    assert second(run_of(kind)) == Triage(Next.OBSERVE)


@pytest.mark.parametrize("kind", list(TriggerKind))
def test_p8_only_one_worker_acts(kind: TriggerKind) -> None:
    due = replace(HELD, recheck_at=NOW)
    assert second(run_of(kind), due) == Triage(Next.IN_PROGRESS, Reason.IN_PROGRESS)


@pytest.mark.parametrize("kind", list(TriggerKind))
def test_p1_a_lease_that_has_ended_is_taken_over(kind: TriggerKind) -> None:
    assert second(run_of(kind), EXPIRED).next is Next.OBSERVE


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (COMPLIANT, Next.NOT_DUE),
        (replace(COMPLIANT, recheck_at=NOW + SECOND), Next.NOT_DUE),
        (DUE, Next.OBSERVE),
        (drifted(an_incident(due=NOW), Outcome.FAILED), Next.OBSERVE),
        (drifted(an_incident(due=NOW), Outcome.IGNORED, Reason.REGION_DENIED), Next.NOT_DUE),
        (drifted(an_incident(), Outcome.OBSERVED), Next.NOT_DUE),
    ],
    ids=["nothing waits", "a second early", "recheck", "incident", "denied Region", "incident that waits for nothing"],
)
def test_p1_a_tick_takes_up_what_is_due_and_nothing_else(state: TargetState, expected: Next) -> None:
    assert second(run_of(TriggerKind.TICK), state).next is expected


@pytest.mark.parametrize("kind", [kind for kind in TriggerKind if kind is not TriggerKind.TICK])
def test_only_a_tick_waits_until_the_target_is_due(kind: TriggerKind) -> None:
    assert second(run_of(kind), replace(COMPLIANT, recheck_at=NOW + HOUR)).next is Next.OBSERVE


# --- changes to keys -------------------------------------------------------------------------------------------------


def through_xray(event: KeyEvent, actor: Actor = ALICE) -> KeyEvent:
    """The grant that X-Ray makes while it carries out somebody's PutEncryptionConfig."""
    actor = replace(actor, via="xray.amazonaws.com")
    return replace(event, trigger=replace(event.trigger, event_name="CreateGrant", actor=actor))


THEIRS = replace(RULE, require=Require(allowed_keys=(ALIAS, "alias/theirs", OTHER_ARN)))


@pytest.mark.parametrize(
    ("event", "state"),
    [
        (key_event(KEY_ARN), COMPLIANT),
        (key_event(OTHER_ARN, KEY_ARN), COMPLIANT),
        (key_event(OTHER_ARN), replace(COMPLIANT, keys_made=(OTHER_ARN,))),
        (key_event(OTHER_ARN), replace(COMPLIANT, setting=OTHER)),
        (through_xray(key_event(OTHER_ARN)), COMPLIANT),
        (key_event(FOREIGN_ARN, alias=ALIAS), COMPLIANT),
        (key_event(alias="alias/theirs"), COMPLIANT),
        (key_event(alias=ALIAS), TargetState(str(TARGET))),
    ],
    ids=[
        "managed",
        "one of several",
        "made here",
        "in use",
        "of a new setting",
        "managed alias",
        "allowed alias",
        "never seen",
    ],
)
def test_a_change_to_a_key_or_alias_that_matters_here_is_observed(event: KeyEvent, state: TargetState) -> None:
    assert second(run_of(TriggerKind.KEY, THEIRS, event), state).next is Next.OBSERVE


@pytest.mark.parametrize("state", [COMPLIANT, HELD, TargetState(str(TARGET))], ids=["compliant", "held", "never seen"])
@pytest.mark.parametrize("event", [key_event(OTHER_ARN), key_event(alias="alias/else"), key_event()])
def test_a_change_to_any_other_key_is_ignored(event: KeyEvent, state: TargetState) -> None:
    assert second(run_of(TriggerKind.KEY, THEIRS, event), state) == Triage(Next.IGNORE, Reason.NOT_OURS)


def test_a_change_to_a_key_by_an_aws_service_with_the_guards_role_is_not_the_guards_own() -> None:
    run = run_of(TriggerKind.KEY, event=key_event(KEY_ARN, actor=SERVICE))
    assert first(run).next is Next.NEED_STATE
    assert second(run).next is Next.OBSERVE


# --- the guard's own change ------------------------------------------------------------------------------------------

ECHO = run_of(TriggerKind.CHANGE, event=change_event(GOOD, actor=GUARD))


def test_p7_the_guards_own_change_needs_the_state_and_then_only_the_setting() -> None:
    assert first(ECHO).next is Next.NEED_STATE
    assert second(ECHO).next is Next.CONFIRM_ECHO
    assert second(ECHO, EXPIRED).next is Next.CONFIRM_ECHO


def test_p7_a_worker_that_still_acts_confirms_its_change_by_itself() -> None:
    assert second(ECHO, HELD) == Triage(Next.IGNORE, Reason.ECHO)


@pytest.mark.parametrize("state", [COMPLIANT, HELD], ids=["compliant", "held"])
@pytest.mark.parametrize(
    "run",
    [
        run_of(TriggerKind.CHANGE, event=change_event(actor=GUARD, error="InvalidRequestException")),
        run_of(TriggerKind.KEY, event=key_event(KEY_ARN, actor=GUARD)),
    ],
    ids=["a refused change", "a change to the key"],
)
def test_p7_any_other_call_of_the_guards_is_an_echo_by_its_request_id(run: Run, state: TargetState) -> None:
    assert first(run).next is Next.NEED_STATE
    assert second(run, state) == Triage(Next.IGNORE, Reason.ECHO)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (change_event(actor=GUARD), Next.OBSERVE),
        (key_event(KEY_ARN, actor=GUARD), Next.OBSERVE),
        (key_event(OTHER_ARN, actor=GUARD), Next.OBSERVE),
        (change_event(actor=GUARD, error="AccessDenied"), Next.IGNORE),
    ],
    ids=["setting", "key", "another key", "refused"],
)
def test_p7_a_call_by_the_guards_role_that_is_not_the_guards_is_treated_as_anybodys(
    event: ChangeEvent | KeyEvent, expected: Next
) -> None:
    unknown = replace(COMPLIANT, requests=())
    kind = TriggerKind.CHANGE if isinstance(event, ChangeEvent) else TriggerKind.KEY
    found = second(run_of(kind, event=event), unknown)
    assert found.next is expected
    assert found.reason != Reason.ECHO


@pytest.mark.parametrize("rule", [None, OFF], ids=["no rule", "rule off"])
def test_p7_the_guards_own_change_is_no_news_where_the_rule_is_gone(rule: Rule | None) -> None:
    assert second(replace(ECHO, rule=rule)).next is Next.CONFIRM_ECHO


@pytest.mark.parametrize("actor", [ALICE, SERVICE, replace(GUARD, arn=f"{ROLE}-2"), None])
def test_a_change_by_anybody_else_is_not_the_guards_own(actor: Actor | None) -> None:
    assert first(run_of(TriggerKind.CHANGE, event=change_event(actor=actor))).next is Next.READ_TOGETHER


@pytest.mark.parametrize(
    ("incident", "setting", "expected"),
    [
        (applied(), GOOD, Next.CLOSE),
        (applied(), UPDATING, Next.IGNORE),
        (applied(), replace(GOOD, status=None), Next.IGNORE),
        (None, GOOD, Next.IGNORE),
        (an_incident(), GOOD, Next.IGNORE),
        (acting(a_lease(NOW)), GOOD, Next.IGNORE),
        (applied(), NONE, Next.OBSERVE),
        (applied(), OTHER, Next.OBSERVE),
        (None, NONE, Next.OBSERVE),
    ],
)
def test_p4_p7_an_echo_closes_what_waits_for_active_and_observes_another_setting(
    incident: Incident | None, setting: Setting, expected: Next
) -> None:
    found = triage_echo(replace(COMPLIANT, incident=incident), setting)
    assert found == (Triage(Next.IGNORE, Reason.ECHO) if expected is Next.IGNORE else Triage(expected))


def test_p7_without_a_managed_key_no_setting_is_the_guards_own() -> None:
    unknown = replace(COMPLIANT, managed_key=None, incident=applied())
    assert triage_echo(unknown, NONE).next is Next.OBSERVE
    assert triage_echo(unknown, GOOD).next is Next.OBSERVE


# --- for every run and state -----------------------------------------------------------------------------------------

times = st.none() | st.sampled_from([NOW - HOUR, NOW, NOW + SECOND])
actors = st.sampled_from([ALICE, GUARD, SERVICE, None])
arns = st.sampled_from([KEY_ARN, OTHER_ARN, FOREIGN_ARN])
errors = st.none() | st.sampled_from(["AccessDeniedException", "ThrottlingException"])
settings = st.sampled_from([None, NONE, GOOD, UPDATING, OTHER])


@st.composite
def runs(draw: st.DrawFn) -> Run:
    kind = draw(st.sampled_from(list(TriggerKind)))
    event: ChangeEvent | KeyEvent | None = None
    if kind is TriggerKind.CHANGE and draw(st.booleans()):
        event = change_event(draw(settings), at=draw(times), actor=draw(actors), error=draw(errors))
    if kind is TriggerKind.KEY:
        alias = draw(st.sampled_from([None, ALIAS, "alias/theirs", "alias/else"]))
        event = key_event(*draw(st.sets(arns)), alias=alias, actor=draw(actors), error=draw(errors))
    rule = draw(st.sampled_from([None, OFF, RULE, THEIRS, replace(RULE, mode=Mode.OBSERVE)]))
    return a_run(draw(st.sampled_from([TARGET, TARGET, ELSEWHERE])), rule, kind, event)


@st.composite
def states(draw: st.DrawFn) -> TargetState:
    incident = None
    if draw(st.booleans()):
        until: datetime | None = draw(times)
        phase = draw(st.sampled_from(list(Phase)))
        incident = an_incident(phase, lease=a_lease(until) if until else None, due=draw(times))
    fields: dict[str, Any] = {
        "setting": draw(settings),
        "outcome": draw(st.none() | st.sampled_from(list(Outcome))),
        "reason": draw(st.sampled_from([None, Reason.REGION_DENIED, Reason.UNGOVERNED, Reason.BACKOFF])),
        "managed_key": draw(st.none() | arns),
        "keys_made": tuple(draw(st.sets(arns))),
        "recheck_at": draw(times),
        "watch": draw(times),
    }
    return replace(COMPLIANT, incident=incident, **fields)


@given(runs(), states())
def test_an_answer_without_the_state_never_contradicts_the_one_with_it(run: Run, state: TargetState) -> None:
    early = triage(run, None, NOW)
    if early.next is Next.IGNORE:
        assert triage(run, known(state), NOW) == early


@given(runs(), states())
def test_what_needs_the_state_is_only_asked_for_without_it(run: Run, state: TargetState) -> None:
    assert triage(run, None, NOW).next in (Next.IGNORE, Next.READ_TOGETHER, Next.NEED_STATE)
    assert triage(run, known(state), NOW).next not in (Next.READ_TOGETHER, Next.NEED_STATE)


@given(runs(), states())
def test_p8_nobody_observes_a_target_that_a_worker_acts_on(run: Run, state: TargetState) -> None:
    if state.is_held(NOW):
        assert triage(run, known(state), NOW).next not in (Next.OBSERVE, Next.CONFIRM_ECHO)


@given(runs(), st.none() | states())
def test_an_event_about_a_key_is_ignored_only_for_reasons_that_are_not_recorded(
    run: Run, state: TargetState | None
) -> None:
    found = triage(run, known(state), NOW)
    if isinstance(run.event, KeyEvent) and found.next is Next.IGNORE:
        assert found.reason in UNRECORDED


@given(states(), settings.filter(lambda setting: setting is not None))
def test_p4_an_echo_closes_an_incident_only_on_the_managed_key_in_active(state: TargetState, setting: Setting) -> None:
    if triage_echo(state, setting).next is Next.CLOSE:
        assert setting.type is EncryptionType.KMS
        assert setting.key_arn == state.managed_key
        assert setting.status is EncryptionStatus.ACTIVE
        assert state.incident is not None
        assert state.incident.phase is Phase.APPLIED


def test_p5_what_a_call_adds_to_a_tally_begins_now_and_not_when_the_tally_was_read() -> None:
    read = Tally(COMPLIANT.target, ALICE.arn, NOW - HOUR, seen=12)
    assert in_full(read, NOW) == Tally(COMPLIANT.target, ALICE.arn, NOW, 1, 0, 0)
    settlement = settle(run_of(TriggerKind.CHANGE, event=REFUSED), seen(12), OnlyCounted(), At(NOW + HOUR))
    assert settlement.tally == Tally(COMPLIANT.target, ALICE.arn, NOW + HOUR, 1, 1, 0)
