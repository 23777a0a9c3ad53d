"""P5: whose change made a drift, by the time of the change and what it left behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from chalicelib.domain.incidents import owner_of_drift
from chalicelib.domain.model import Actor, ChangeEvent, EncryptionType, Setting, Target, Trigger, TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Mode, Rule
from chalicelib.domain.stored import TargetState
from tests.unit.runs import ACCOUNT, a_run, known_as

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TARGET = Target(ACCOUNT, "us-east-1")
RULE = Rule("baseline", ("*",), ("*",), Mode.ENFORCE)
NONE = Setting(EncryptionType.NONE)
OTHER = Setting(EncryptionType.KMS, f"arn:aws:kms:us-east-1:{ACCOUNT}:key/other")
TRIGGER = Trigger(TriggerKind.CHANGE, "event-1", event_time=NOW, actor=Actor(f"arn:aws:iam::{ACCOUNT}:user/Alice"))
CHANGE = ChangeEvent(TARGET, TRIGGER, NONE)
SEEN = Observation(NOW + SECOND, NONE)
STATE = TargetState(str(TARGET))


def owner(change: ChangeEvent = CHANGE, state: TargetState = STATE, *, audited: bool = False) -> ChangeEvent | None:
    return owner_of_drift(a_run(TARGET, RULE, event=change), known_as(state, audited=audited), SEEN)


@pytest.mark.parametrize(
    ("good_at", "owns"),
    [(None, True), (NOW - SECOND, True), (NOW, True), (NOW + 0.9 * SECOND, True), (NOW + SECOND, False)],
)
def test_p5_a_change_owns_the_drift_unless_the_target_was_compliant_in_a_later_second(
    good_at: datetime | None, owns: bool
) -> None:
    """CloudTrail's times are whole seconds: a change may be younger than a check made in the same second."""
    assert (owner(state=replace(STATE, good_at=good_at)) is CHANGE) is owns


def test_p5_a_change_that_left_another_setting_or_an_unknown_one_owns_nothing() -> None:
    assert owner(replace(CHANGE, result=OTHER)) is None
    assert owner(replace(CHANGE, result=None)) is None


def test_p5_a_change_that_is_on_the_record_already_owns_no_later_drift() -> None:
    assert owner(audited=True) is None
