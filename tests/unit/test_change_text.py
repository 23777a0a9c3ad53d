"""What an event changed, as people read it, and whose row its record is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chalicelib.auditlog.views import Entry
from chalicelib.domain.model import Actor, Subject, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.stored import ZERO_HASH, Action, Attribution, Cause, Change, Record
from chalicelib.operators.formatting import (
    LONGEST_VALUE,
    SUBJECTS,
    action_change_text,
    attribution_text,
    event_change_text,
)

HERE = "111122223333/us-east-1"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEY = "arn:aws:kms:us-east-1:111122223333:key/1234"
ALICE = Actor("arn:aws:iam::111122223333:user/Alice")
MALLORY = Actor("arn:aws:iam::111122223333:user/Mallory")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (Change(), "nothing that the event names"),
        (Change(Subject.SETTING, None, f"KMS {KEY}", "NONE"), f"the setting: KMS {KEY} → NONE"),
        (Change(Subject.SETTING, None, None, "NONE"), "the setting: NONE"),
        (Change(Subject.KEY_STATE, KEY, None, "Disabled"), "the state of key 1234: Disabled"),
        (Change(Subject.KEY_POLICY, KEY, None, None), "the key policy of key 1234: unknown"),
        (Change(Subject.ALIAS, "alias/xray", None, "deleted"), "the target of alias/xray: deleted"),
        (Change(Subject.KEY_STATE, KEY, "Enabled", "Disabled"), "the state of key 1234: Enabled → Disabled"),
        (
            Change(Subject.KEY_POLICY, KEY, f"sha256:{'0123456789abcdef' * 4}", "{}"),
            "the key policy of key 1234: policy sha256:0123456789ab → {}",
        ),
        (
            Change(Subject.ALIAS, "alias/xray", KEY, KEY.replace("1234", "5678")),
            "the target of alias/xray: key 1234 → key 5678",
        ),
        (Change(Subject.ALIAS, "alias/xray", "none", KEY), "the target of alias/xray: none → key 1234"),
        (Change(Subject.TAGS, KEY, "a=b, c not set", "a=d, c=e"), "the tags of key 1234: a=b, c not set → a=d, c=e"),
        (
            Change(Subject.GRANTS, KEY, None, "granted to arn:p: Decrypt (grant abcd)"),
            "the grants of key 1234: granted to arn:p: Decrypt (grant abcd)",
        ),
        (Change(Subject.TAGS, KEY, None, "a=\u202eb"), "the tags of key 1234: a=\ufffdb"),
    ],
)
def test_a_change_is_one_line_and_safe_to_show(change: Change, text: str) -> None:
    assert event_change_text(change, HERE) == text


def test_a_long_value_is_cut() -> None:
    shown = event_change_text(Change(Subject.KEY_POLICY, KEY, None, "x" * 32_768), HERE)
    assert shown.endswith("x…")
    assert len(shown) < LONGEST_VALUE + 50
    both = event_change_text(Change(Subject.TAGS, KEY, "x" * 32_768, "y" * 32_768), HERE)
    assert len(both) < 2 * LONGEST_VALUE + 50


@pytest.mark.parametrize(
    ("attribution", "text"),
    [
        (Attribution(Violation.NOT_KMS), "NOT_KMS by an unknown change"),
        (Attribution(Violation.NOT_KMS, (Cause("e", NOON, ALICE),)), "NOT_KMS by user/Alice"),
        (
            Attribution(Violation.NOT_KMS, (Cause("e", NOON, ALICE), Cause("f", NOON, MALLORY))),
            "NOT_KMS by user/Alice and user/Mallory",
        ),
        (
            Attribution(Violation.NOT_KMS, policy_digest="0123456789abcdef"),
            "NOT_KMS by a new policy, digest 0123456789ab",
        ),
        (Attribution(Violation.NOT_KMS, before_guard=True), "NOT_KMS already there when the guard first checked"),
    ],
)
def test_a_violation_says_who_made_it(attribution: Attribution, text: str) -> None:
    assert attribution_text(attribution, HERE) == text


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (Action("UpdateAlias", NOON, KEY, f"{KEY[:-4]}9999", "alias/xray"), "alias/xray: key 9999 → key 1234"),
        (Action("CreateAlias", NOON, KEY, None, "alias/xray"), "alias/xray: no key → key 1234"),
        (Action("PutEncryptionConfig", NOON, KEY, "NONE", KEY), f"NONE → {KEY}"),
        (Action("EnableKey", NOON, KEY), ""),
    ],
)
def test_an_action_says_what_it_changed(action: Action, text: str) -> None:
    assert action_change_text(action, HERE) == text


def test_every_subject_has_its_words() -> None:
    assert set(SUBJECTS) == set(Subject)


@pytest.mark.parametrize(("change", "actor"), [(Change(), MALLORY), (None, ALICE)])
def test_a_row_of_an_event_names_its_own_actor_and_any_other_the_drifts(change: Change | None, actor: Actor) -> None:
    trigger = Trigger(TriggerKind.CHANGE, "second", actor=MALLORY)
    cause = Cause("first", NOON, ALICE)
    record = Record(f"{HERE}#1", HERE, 1, NOON, Outcome.DEFERRED, trigger, ZERO_HASH, cause=cause, change=change)
    assert Entry(record, "").actor == actor
