"""Attempts to hide a change, to have nobody named for it, or an innocent."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from chalicelib.domain.attribution import MOST_EFFECTS
from chalicelib.domain.events import MAX_TAGS, read_key_event
from chalicelib.domain.floods import tally_of
from chalicelib.domain.lastseen import value_before, with_event
from chalicelib.domain.model import Effect, KeyEvent, Subject, Trigger, TriggerKind
from chalicelib.domain.reasons import Violation
from chalicelib.domain.stored import LastSeen, PastIncident, SeenValue, TargetState
from tests.unit.runs import ACCOUNT, a_run
from tests.unit.targets import ALICE, BOB, COMPLIANT, GOOD, KEY_ARN, MINUTE, NOW, RULE, SECOND, TARGET
from tests.unit.test_attribution import DISABLED, attributed, key_change, who


def untags(keys: list[str]) -> KeyEvent:
    event = read_key_event(
        {
            "source": "aws.kms",
            "account": ACCOUNT,
            "region": "eu-west-1",
            "detail-type": "AWS API Call via CloudTrail",
            "detail": {
                "eventName": "UntagResource",
                "eventSource": "kms.amazonaws.com",
                "eventID": "untags",
                "eventTime": "2026-11-20T11:59:55Z",
                "awsRegion": "eu-west-1",
                "recipientAccountId": ACCOUNT,
                "userIdentity": {"type": "IAMUser", "arn": ALICE.arn},
                "requestParameters": {"keyId": KEY_ARN, "tagKeys": keys},
            },
        }
    )
    assert isinstance(event, KeyEvent)
    return event


def test_a_removal_of_the_guards_tag_behind_64_others_is_not_taken_for_one_of_strange_tags() -> None:
    """KMS's model sets no maximum to UntagResource's TagKeys, and keys that are not set are no error."""
    event = untags([*(f"x{number}" for number in range(MAX_TAGS)), "xray-guard"])
    assert tally_of(a_run(TARGET, RULE, event=event), NOW) is None


def test_a_removal_of_the_guards_tag_behind_64_others_is_on_the_record() -> None:
    event = untags([*(f"x{number}" for number in range(MAX_TAGS)), "xray-guard"])
    assert event.effect is not None
    assert "xray-guard" in str(event.effect.after)


def test_the_maker_is_named_though_many_harmless_calls_came_before_the_violation_was_seen() -> None:
    """BOB disables the key while another worker acts, or KMS is stale, then rotates it on 32 times."""
    rotation = Effect(Subject.KEY_ROTATION, KEY_ARN, "on every 365 days")
    harmless = (key_change(BOB, NOW - 8 * SECOND, rotation, f"harmless-{n}") for n in range(MOST_EFFECTS))
    assert who(attributed(Violation.KEY_DISABLED, key_change(BOB, NOW - 9 * SECOND, DISABLED), *harmless)) == [BOB]


def test_whose_change_the_guard_repaired_did_not_make_the_next_one() -> None:
    """ALICE disabled the key an hour ago, and the guard repaired it. Two minutes ago all was well; now it is disabled
    again, and the event has not come yet."""
    repaired_at = NOW - timedelta(minutes=59)
    past = (PastIncident("1", NOW - timedelta(minutes=60), repaired_at, GOOD),)
    well = replace(COMPLIANT, good_at=NOW - 2 * MINUTE, checked_at=NOW - 2 * MINUTE, past=past)
    an_hour_ago = key_change(ALICE, NOW - timedelta(hours=1), DISABLED)
    assert who(attributed(Violation.KEY_DISABLED, an_hour_ago, state=well, setting=GOOD)) == []


def tags_of_key(*tags: str) -> TargetState:
    text = "\n".join(sorted(tags))
    return replace(COMPLIANT, last_seen=(LastSeen(Subject.TAGS, KEY_ARN, (SeenValue(text, NOW - MINUTE),)),))


def removed(key: str) -> KeyEvent:
    trigger = Trigger(TriggerKind.KEY, "removal", "UntagResource", NOW - 5 * SECOND, actor=BOB)
    return KeyEvent(
        TARGET, trigger, (KEY_ARN,), tag_keys=(key,), effect=Effect(Subject.TAGS, KEY_ARN, f"removed {key}")
    )


def test_a_tag_whose_key_begins_like_another_ones_is_another_tag() -> None:
    """A tag key of KMS may have an equals sign: `xray-guard=0` is a key."""
    state = tags_of_key("xray-guard\tmanaged", "xray-guard=0\tnonsense")
    assert value_before(state, removed("xray-guard")) == "xray-guard=managed"


def test_a_tag_that_was_cut_off_is_not_said_to_be_not_set() -> None:
    """The list of tags was cut; after a change of another tag, that it was cut is no longer seen."""
    state = tags_of_key("a\t" + "x" * 400, "b\t" + "y" * 107 + "…")  # as `_joined` cuts it: `xray-guard` came after
    trigger = Trigger(TriggerKind.KEY, "first", "UntagResource", NOW - 9 * SECOND, actor=BOB)
    first = KeyEvent(TARGET, trigger, (KEY_ARN,), tag_keys=("a",), effect=Effect(Subject.TAGS, KEY_ARN, "removed a"))
    state = replace(state, last_seen=with_event(state, RULE, first))
    trigger = Trigger(TriggerKind.KEY, "second", "TagResource", NOW - 8 * SECOND, actor=BOB)
    second = KeyEvent(
        TARGET, trigger, (KEY_ARN,), tag_keys=("z",), tags=(("z", "1"),), effect=Effect(Subject.TAGS, KEY_ARN, "z=1")
    )
    state = replace(state, last_seen=with_event(state, RULE, second))
    assert value_before(state, removed("xray-guard")) == "xray-guard unknown"
