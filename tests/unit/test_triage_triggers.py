"""Which triggers lead to reads of the target: due ticks, somebody's changes to keys that matter, overtaken echoes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from chalicelib.domain.model import (
    Actor,
    EncryptionStatus,
    EncryptionType,
    KeyEvent,
    Setting,
    Target,
    Trigger,
    TriggerKind,
)
from chalicelib.domain.policy import Mode, Rule
from chalicelib.domain.run import Known
from chalicelib.domain.stored import TargetState
from chalicelib.domain.triage import ECHO, NOT_OURS, Next, triage, triage_echo
from tests.unit.runs import ACCOUNT, a_run, known_as

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TARGET = Target(ACCOUNT, "us-east-1")
RULE = Rule("baseline", ("*",), ("*",), Mode.ENFORCE)
KEY_ARN = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/11111111-1111-1111-1111-111111111111"
OTHER_ARN = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/22222222-2222-2222-2222-222222222222"
STATE = TargetState(str(TARGET), managed_key=KEY_ARN)
ALICE = Actor(f"arn:aws:iam::{ACCOUNT}:user/Alice")
SECOND = timedelta(seconds=1)
DISABLED = KeyEvent(TARGET, Trigger(TriggerKind.KEY, "event-1", actor=ALICE), (KEY_ARN,))


def known(state: TargetState | None) -> Known | None:
    """What a run knows once it read the state; None before."""
    return known_as(state) if state else None


@pytest.mark.parametrize(("state", "then"), [(None, Next.NEED_STATE), (STATE, Next.OBSERVE)], ids=["before", "after"])
def test_p6_a_change_to_the_managed_key_is_checked(state: TargetState | None, then: Next) -> None:
    assert triage(a_run(TARGET, RULE, event=DISABLED), known(state), NOW).next is then


@pytest.mark.parametrize("state", [None, STATE], ids=["before the state is read", "after it"])
def test_p10_a_refused_call_about_a_key_leads_to_no_read(state: TargetState | None) -> None:
    refused = replace(DISABLED, error_code="AccessDenied")
    assert triage(a_run(TARGET, RULE, event=refused), known(state), NOW) == NOT_OURS


@pytest.mark.parametrize("state", [None, STATE], ids=["before the state is read", "after it"])
def test_p17_a_key_event_that_names_another_account_leads_to_no_read(state: TargetState | None) -> None:
    other = Target("444455556666", TARGET.region)
    assert triage(a_run(other, RULE, event=replace(DISABLED, target=other)), known(state), NOW) == NOT_OURS


@pytest.mark.parametrize(
    ("recheck_at", "then"),
    [(None, Next.NOT_DUE), (NOW + SECOND, Next.NOT_DUE), (NOW, Next.OBSERVE), (NOW - SECOND, Next.OBSERVE)],
)
def test_p10_a_tick_reads_the_state_and_then_only_what_is_due(recheck_at: datetime | None, then: Next) -> None:
    run = a_run(TARGET, RULE, TriggerKind.TICK)
    assert triage(run, None, NOW).next is Next.NEED_STATE
    assert triage(run, known_as(replace(STATE, recheck_at=recheck_at)), NOW).next is then


@pytest.mark.parametrize(
    "setting",
    [Setting(EncryptionType.NONE), Setting(EncryptionType.KMS, OTHER_ARN, EncryptionStatus.ACTIVE)],
    ids=["turned off", "another key"],
)
def test_p1_the_guards_own_event_leads_to_a_check_if_somebody_changed_the_setting_since(setting: Setting) -> None:
    assert triage_echo(STATE, setting).next is Next.OBSERVE
    assert triage_echo(STATE, Setting(EncryptionType.KMS, KEY_ARN, EncryptionStatus.ACTIVE)) == ECHO
