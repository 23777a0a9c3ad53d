"""Break-glass values and what they come to: grammar, boundaries in time, who may open, what is remembered (P14)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chalicelib.domain.breakglass import FORGET_AFTER, MOST_REMEMBERED, Closing, Weighed, principals_to_read, weigh
from chalicelib.domain.keypolicy.wanted import initial_policy
from chalicelib.domain.model import (
    Actor,
    ChangeEvent,
    EncryptionStatus,
    EncryptionType,
    Key,
    KeyEvent,
    Setting,
    Target,
    Trigger,
    TriggerKind,
)
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Rule, parse
from chalicelib.domain.reasons import BREAK_GLASS_NOTES, Reason
from chalicelib.domain.stored import Cause, Incident, Phase, Suppression, TargetState
from chalicelib.domain.tagvalue import Opening, Refusal, Tags, read_value

ACCOUNT = "111122223333"
HOME = Target(ACCOUNT, "us-east-1")
TAG = "xray-guard-break-glass"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/managed"
ADMIN = Actor(f"arn:aws:iam::{ACCOUNT}:role/SecurityBreakGlass", "AssumedRole", session="oncall")
DEVELOPER = Actor(f"arn:aws:iam::{ACCOUNT}:role/Developer", "AssumedRole")
NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
NONE = Setting(EncryptionType.NONE, None, EncryptionStatus.ACTIVE)
GOOD = Setting(EncryptionType.KMS, KEY, EncryptionStatus.ACTIVE)

POLICY = parse((Path(__file__).parents[2] / "policies" / "policy.json").read_bytes())
(RULE,) = POLICY.rules
assert RULE.break_glass is not None
FULL = initial_policy(RULE, HOME, "aws")
WITHOUT_DENY = initial_policy(replace(RULE, break_glass=None), HOME, "aws")


def value_until(end: datetime, reason: str = "INC-1") -> str:
    return f"{end:%Y%m%dT%H%M%SZ} {reason}"


def tagging(value: str, by: Actor | None, at: datetime = NOW, key: str = KEY) -> KeyEvent:
    """TagResource, as CloudTrail tells of it."""
    trigger = Trigger(TriggerKind.KEY, "tagging", "TagResource", at, actor=by)
    return KeyEvent(HOME, trigger, (key,), tag_keys=(TAG,), tags=((TAG, value),))


def change_by(actor: Actor | None, at: datetime | None = NOW, result: Setting | None = NONE) -> ChangeEvent:
    """PutEncryptionConfig, as CloudTrail tells of it."""
    return ChangeEvent(HOME, Trigger(TriggerKind.CHANGE, "change", "PutEncryptionConfig", at, actor=actor), result)


@dataclass
class Watch:
    """One target, looked at again and again; what was remembered is carried from look to look."""

    rule: Rule = RULE
    setting: Setting = NONE
    key_value: str | None = None
    key_tag: str = TAG
    key_policy: str | None = FULL
    tags_error: str | None = None
    principals: dict[str, Tags | None] = field(default_factory=dict)
    state: TargetState = TargetState(str(HOME), managed_key=KEY)  # noqa: RUF009 - it is frozen

    def look(
        self, now: datetime, change: ChangeEvent | None = None, tagged: KeyEvent | None = None, **seen: Any
    ) -> Weighed:
        tags = ((self.key_tag, self.key_value),) if self.key_value is not None else ()
        key = Key(
            KEY,
            ACCOUNT,
            HOME.region,
            "Enabled",
            policy=self.key_policy,
            rotation=True,
            tags=None if self.tags_error else (("xray-guard", "managed"), *tags),
            tags_error=self.tags_error,
        )
        aliases = {RULE.managed_key.alias: KEY}
        observation = Observation(now, **{"setting": self.setting, "keys": {KEY: key}, "aliases": aliases, **seen})
        wanted = principals_to_read(self.rule, self.state, observation, change)
        weighed = weigh(
            HOME,
            self.rule,
            self.state,
            observation,
            now,
            principal_tags={arn: self.principals.get(arn, ()) for arn in wanted},
            change=change,
            tagging=tagged,
            partition="aws",
        )
        self.state = replace(self.state, suppressions=weighed.suppressions)
        return weighed

    def drift_by(self, actor: Actor, at: datetime = NOW) -> Weighed:
        """The event of the actor's drift arrives three seconds after the change."""
        return self.look(at + 3 * SECOND, change_by(actor, at))


def admin_tagged(value: str, key: str = TAG) -> dict[str, Tags | None]:
    return {ADMIN.arn: ((key, value),)}


def notes(weighed: Weighed) -> list[tuple[Reason, str | None]]:
    return [(reason, each.refused or each.closed) for reason, each in weighed.notes]


# --- the grammar -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "end"),
    [
        ("20261120T180000Z INC-1", datetime(2026, 11, 20, 18, tzinfo=UTC)),
        ("20261120t180000z INC-1", datetime(2026, 11, 20, 18, tzinfo=UTC)),
        ("2026-11-20T18:00:00Z INC-1", datetime(2026, 11, 20, 18, tzinfo=UTC)),
        ("2026-11-20T19:00:00+01:00 INC-1", datetime(2026, 11, 20, 18, tzinfo=UTC)),
        ("2026-11-20T12:30:00-05:30 INC-1", datetime(2026, 11, 20, 18, tzinfo=UTC)),
        ("2026-11-20T18:00:00.999Z INC-1", datetime(2026, 11, 20, 18, tzinfo=UTC)),
        ("2028-02-29T23:59:59+00:00 INC-1", datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC)),
        ("20280301T003000Z INC-1", datetime(2028, 3, 1, 0, 30, tzinfo=UTC)),
        ("2028-03-01T00:30:00+01:00 INC-1", datetime(2028, 2, 29, 23, 30, tzinfo=UTC)),
        ("99991231T235959Z INC-1", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("  20261120T180000Z \t INC-1  ", datetime(2026, 11, 20, 18, tzinfo=UTC)),
    ],
)
def test_an_end_with_a_zone_is_read_in_either_spelling_and_in_local_time(value: str, end: datetime) -> None:
    assert read_value(value) == Opening(end, "INC-1", f"{end:%Y-%m-%dT%H:%M:%SZ} INC-1")


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        ("", Refusal.NO_END),
        ("   ", Refusal.NO_END),
        ("INC-1", Refusal.NO_END),
        ("INC-1 20261120T180000Z", Refusal.NO_END),
        ("forever INC-1", Refusal.NO_END),
        ("20261120T180000Z", Refusal.NO_REASON),
        ("20261120T180000Z   ", Refusal.NO_REASON),
        ("20261120T180000 INC-1", Refusal.NO_ZONE),
        ("2026-11-20T18:00:00 INC-1", Refusal.NO_ZONE),
        ("2026-11-20 INC-1", Refusal.NO_END),
        ("2026-11-20 18:00:00Z INC-1", Refusal.NO_END),
        ("2026-11-20T18:00Z INC-1", Refusal.NO_END),
        ("20270229T120000Z INC-1", Refusal.NO_END),
        ("21000229T120000Z INC-1", Refusal.NO_END),
        ("20261120T240000Z INC-1", Refusal.NO_END),
        ("20261120T186000Z INC-1", Refusal.NO_END),
        ("20261120T180060Z INC-1", Refusal.NO_END),
        ("00001120T180000Z INC-1", Refusal.NO_END),
        ("2026-11-20T18:00:00+24:00 INC-1", Refusal.NO_END),
        ("2026-11-20T18:00:00+05:99 INC-1", Refusal.NO_END),
        ("9999-12-31T23:59:59-01:00 INC-1", Refusal.NO_END),
        ("0001-01-01T00:00:00+01:00 INC-1", Refusal.NO_END),
        ("2026\u00b91120T180000Z INC-1", Refusal.NO_END),
        ("٢٠٢٦١١٢٠T180000Z INC-1", Refusal.NO_END),
        ("20261120T180000+0100 INC-1", Refusal.NO_END),
        ("20261120T180000Z\x00 INC-1", Refusal.NO_END),
    ],
)
def test_a_value_that_is_wrong_is_refused_with_the_code_of_what_is_wrong(value: str, refusal: Refusal) -> None:
    assert read_value(value) is refusal


@given(st.text(max_size=300))
def test_no_value_whatever_breaks_the_reading(value: str) -> None:
    assert isinstance(read_value(value), Opening | Refusal)


@given(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.timezones()),
    st.integers(-23 * 60, 23 * 60),
)
def test_every_spelling_of_one_moment_is_the_same_value(at: datetime, minutes: int) -> None:
    at = at.replace(microsecond=0).astimezone(UTC)
    there = (at + timedelta(minutes=minutes)).replace(tzinfo=None).isoformat()
    sign = "-" if minutes < 0 else "+"
    local = f"{there}{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02} INC-1"
    basic = f"{at.isoformat()[:19].replace('-', '').replace(':', '')}Z INC-1"
    assert read_value(local) == read_value(basic) != Refusal.NO_END


# --- time ------------------------------------------------------------------------------------------------------------


def test_one_second_before_its_end_a_value_suppresses_and_at_its_end_it_does_not() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=2)))
    assert watch.look(NOW).in_force
    assert watch.look(NOW + timedelta(hours=2) - SECOND).in_force
    at_end = watch.look(NOW + timedelta(hours=2))
    assert at_end.in_force is None
    assert notes(at_end) == [(Reason.BREAK_GLASS_ENDED, "END")]
    assert not at_end.is_open
    assert watch.look(NOW + timedelta(hours=2) + SECOND).in_force is None


def test_a_value_first_seen_one_second_before_its_end_suppresses_for_that_second() -> None:
    watch = Watch(key_value=value_until(NOW + SECOND))
    assert watch.look(NOW).in_force
    assert watch.look(NOW + SECOND).in_force is None


def test_a_value_first_seen_at_its_end_is_past() -> None:
    weighed = Watch(key_value=value_until(NOW)).look(NOW)
    assert weighed.in_force is None
    assert notes(weighed) == [(Reason.BREAK_GLASS_REFUSED, "PAST")]


@pytest.mark.parametrize(
    "value", ["2026-11-20T19:00:00+05:00 INC-1", "2026-11-20T09:00:00-05:00 INC-1", "20261120T140000Z INC-1"]
)
def test_an_end_in_local_time_ends_at_that_moment_everywhere(value: str) -> None:
    watch = Watch(key_value=value)
    assert watch.look(NOW).in_force
    assert watch.look(NOW + timedelta(hours=2) - SECOND).in_force
    assert watch.look(NOW + timedelta(hours=2)).in_force is None


def test_a_leap_day_is_a_day() -> None:
    start = datetime(2028, 2, 29, 20, tzinfo=UTC)
    watch = Watch(key_value="2028-03-01T00:00:00Z INC-1")
    assert watch.look(start).in_force
    assert watch.look(datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC)).in_force
    assert watch.look(datetime(2028, 3, 1, tzinfo=UTC)).in_force is None


def test_a_value_is_capped_from_when_it_was_first_seen() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=48)))
    opened = watch.look(NOW)
    assert opened.in_force
    assert opened.in_force.until == NOW + timedelta(hours=12)
    assert watch.look(NOW + timedelta(hours=12) - SECOND).in_force
    capped = watch.look(NOW + timedelta(hours=12))
    assert capped.in_force is None
    assert notes(capped) == [(Reason.BREAK_GLASS_ENDED, "CAP")]


def test_a_capped_value_is_never_in_force_again_not_even_when_no_more_than_the_cap_remains() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=48)))
    watch.look(NOW)
    for hours in (12, 13, 35, 36, 37, 47, 48, 49, 72, 480):
        assert watch.look(NOW + timedelta(hours=hours)).in_force is None, hours


def test_a_capped_value_that_was_removed_and_set_again_is_not_in_force_again() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=48)))
    watch.look(NOW)
    watch.look(NOW + timedelta(hours=12))
    value, watch.key_value = watch.key_value, None
    watch.look(NOW + timedelta(hours=20))
    watch.key_value = value
    again = watch.look(NOW + timedelta(hours=36), tagged=tagging(value or "", ADMIN, NOW + timedelta(hours=36)))
    assert again.in_force is None
    assert again.refusal is not None
    assert again.refusal.closed == "CAP"


def test_year_9999_is_capped_like_any_other_and_remembered_without_harm() -> None:
    watch = Watch(key_value="99991231T235959Z INC-1")
    opened = watch.look(NOW).in_force
    assert opened
    assert opened.until == NOW + timedelta(hours=12)
    assert watch.look(NOW + timedelta(hours=12)).in_force is None
    assert watch.look(NOW + timedelta(days=20000)).in_force is None


def test_the_same_value_set_again_extends_nothing_however_it_is_spelt() -> None:
    watch = Watch(key_value="20261121T180000Z INC-1")
    first = watch.look(NOW).in_force
    assert first
    watch.key_value = "2026-11-21T19:00:00+01:00   INC-1"
    retagged = tagging(watch.key_value, ADMIN, NOW + timedelta(hours=6))
    again = watch.look(NOW + timedelta(hours=6), tagged=retagged).in_force
    assert again
    assert (again.first_seen, again.until) == (NOW, NOW + timedelta(hours=12))
    assert watch.look(NOW + timedelta(hours=12)).in_force is None


def test_removed_and_set_again_it_is_in_force_again_until_its_first_end_only() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=20)))
    watch.look(NOW)
    value, watch.key_value = watch.key_value, None
    removed = watch.look(NOW + timedelta(hours=1))
    assert removed.in_force is None
    assert notes(removed) == [(Reason.BREAK_GLASS_ENDED, "REMOVED")]
    watch.key_value = value
    again = watch.look(NOW + timedelta(hours=2))
    assert notes(again) == [(Reason.BREAK_GLASS_OPENED, None)]
    assert again.in_force
    assert again.in_force.until == NOW + timedelta(hours=12)
    assert watch.look(NOW + timedelta(hours=12)).in_force is None


@pytest.mark.parametrize("after_its_end", [timedelta(0), SECOND])
def test_removed_and_set_again_after_its_end_it_opens_not_even_for_a_moment(after_its_end: timedelta) -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=2)))
    watch.look(NOW)
    value, watch.key_value = watch.key_value, None
    watch.look(NOW + timedelta(hours=1))
    watch.key_value = value
    again = watch.look(NOW + timedelta(hours=2) + after_its_end)
    assert again.in_force is None
    assert notes(again) == []


def test_a_new_reason_or_end_is_a_new_break_glass_and_ends_the_one_before() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=2)))
    watch.look(NOW)
    watch.key_value = value_until(NOW + timedelta(hours=3), "INC-2")
    second = watch.look(NOW + timedelta(hours=1))
    assert second.in_force
    assert second.in_force.reason == "INC-2"
    assert sorted(notes(second)) == [(Reason.BREAK_GLASS_ENDED, "REMOVED"), (Reason.BREAK_GLASS_OPENED, None)]


def test_a_value_that_is_overwritten_by_a_bad_one_ends_at_once() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=2)))
    watch.look(NOW)
    watch.key_value = "20261120T180000 INC-1"
    weighed = watch.look(NOW + SECOND)
    assert weighed.in_force is None
    assert sorted(notes(weighed)) == [(Reason.BREAK_GLASS_ENDED, "REMOVED"), (Reason.BREAK_GLASS_REFUSED, "NO_ZONE")]


@pytest.mark.parametrize("skew", [timedelta(minutes=5), -timedelta(minutes=5)])
def test_two_workers_five_minutes_apart_agree_within_five_minutes_and_renew_nothing(skew: timedelta) -> None:
    end = NOW + timedelta(hours=2)
    watch = Watch(key_value=value_until(end))
    watch.look(NOW)
    for seconds in range(-600, 1300, 20):
        moment = end + timedelta(seconds=seconds)
        for clock in (moment, moment + skew):
            weighed = watch.look(clock)
            if moment >= end + timedelta(minutes=5) or watch.state.suppressions[0].closed:
                assert weighed.in_force is None
            elif moment < end - timedelta(minutes=5):
                assert weighed.in_force


def test_a_tag_forgotten_on_the_key_is_told_of_once_and_not_with_every_look() -> None:
    watch = Watch(key_value=value_until(NOW - timedelta(days=3)))
    assert notes(watch.look(NOW)) == [(Reason.BREAK_GLASS_REFUSED, "PAST")]
    for hours in range(1, 60):
        assert watch.look(NOW + timedelta(hours=hours)).notes == ()


def test_what_ended_is_forgotten_once_it_is_off_its_carrier_and_could_count_no_more() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=1)))
    watch.look(NOW)
    watch.key_value = None
    watch.look(NOW + timedelta(hours=1))
    assert watch.state.suppressions
    watch.look(NOW + timedelta(hours=1) + FORGET_AFTER + SECOND)
    assert watch.state.suppressions == ()


def test_a_rule_that_allows_less_time_shortens_what_is_open_and_one_that_allows_more_renews_nothing() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=48)))
    watch.look(NOW)
    glass = RULE.break_glass
    assert glass is not None
    watch.rule = replace(RULE, break_glass=replace(glass, max_hours=24))
    assert watch.look(NOW + timedelta(hours=11)).in_force
    assert watch.look(NOW + timedelta(hours=12)).in_force is None
    watch = Watch(key_value=value_until(NOW + timedelta(hours=48)))
    watch.look(NOW)
    watch.rule = replace(RULE, break_glass=replace(glass, max_hours=2))
    assert watch.look(NOW + timedelta(hours=2)).in_force is None


def test_a_rule_without_break_glass_closes_what_is_open_and_renews_nothing_when_it_comes_back() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=48)))
    watch.look(NOW)
    watch.rule = replace(RULE, break_glass=None)
    without = watch.look(NOW + timedelta(hours=1))
    assert without.in_force is None
    assert notes(without) == [(Reason.BREAK_GLASS_ENDED, "RULE_WITHOUT")]
    watch.rule = RULE
    assert watch.look(NOW + timedelta(hours=2)).in_force
    assert watch.look(NOW + timedelta(hours=12)).in_force is None


def test_a_flood_of_values_is_bounded_and_what_cannot_be_remembered_does_not_count() -> None:
    watch = Watch()
    for number in range(3 * MOST_REMEMBERED):
        watch.key_value = value_until(NOW + timedelta(hours=9), f"INC-{number}")
        weighed = watch.look(NOW + timedelta(seconds=number))
        assert bool(weighed.in_force) is (number < MOST_REMEMBERED)
        assert len(watch.state.suppressions) <= MOST_REMEMBERED + 2
    assert notes(weighed) == [(Reason.BREAK_GLASS_REFUSED, "TOO_MANY")]
    watch.key_value = value_until(NOW + timedelta(hours=12), "INC-later")
    assert watch.look(NOW + timedelta(hours=10)).in_force


def test_a_flood_of_forbidden_values_makes_none_of_them_count_later_and_keeps_no_admin_out() -> None:
    watch = Watch(key_policy=WITHOUT_DENY)
    for number in range(3 * MOST_REMEMBERED):
        watch.key_value = value_until(NOW + timedelta(hours=9), f"INC-{number}")
        assert watch.look(NOW + timedelta(seconds=number)).in_force is None
        assert len(watch.state.suppressions) <= MOST_REMEMBERED + 2
    watch.key_policy = FULL
    for minutes in range(4, 9 * 60, 5):
        assert watch.look(NOW + timedelta(minutes=minutes)).in_force is None
    watch.key_value = value_until(NOW + timedelta(hours=9), "INC-admin")
    assert watch.look(NOW + timedelta(hours=8), tagged=tagging(watch.key_value, ADMIN)).in_force


# --- who opened it, and on which key ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opener", "deny", "refusal"),
    [
        (ADMIN, True, None),
        (ADMIN, False, None),
        (None, True, None),
        (None, False, "DENY_MISSING"),
        (DEVELOPER, True, "OPENER_NOT_ALLOWED"),
        (DEVELOPER, False, "OPENER_NOT_ALLOWED"),
        (Actor("unknown"), True, "OPENER_NOT_ALLOWED"),
        (Actor(f"arn:aws:iam::{ACCOUNT}:root", "Root"), True, "OPENER_NOT_ALLOWED"),
        (Actor(f"arn:aws:sts::{ACCOUNT}:federated-user/SecurityBreakGlass"), True, "OPENER_NOT_ALLOWED"),
        (Actor(f"arn:aws:iam::{ACCOUNT}:role/x/SecurityBreakGlass"), True, "OPENER_NOT_ALLOWED"),
        (Actor(f"arn:aws:iam::{ACCOUNT}:role/SecurityBreakGlassX"), True, "OPENER_NOT_ALLOWED"),
    ],
)
def test_a_value_counts_by_who_opened_it_or_while_unknown_by_the_deny_of_the_key(
    opener: Actor | None, deny: bool, refusal: str | None
) -> None:
    value = value_until(NOW + timedelta(hours=2))
    watch = Watch(key_value=value, key_policy=FULL if deny else WITHOUT_DENY)
    weighed = watch.look(NOW, tagged=tagging(value, opener) if opener else None)
    assert (weighed.in_force is None) == (refusal is not None)
    assert notes(weighed) == [(Reason.BREAK_GLASS_REFUSED if refusal else Reason.BREAK_GLASS_OPENED, refusal)]
    (note,) = weighed.notes
    assert note[1].opened_by == opener


def test_an_opener_heard_later_is_put_on_the_record_of_what_is_open() -> None:
    value = value_until(NOW + timedelta(hours=2))
    watch = Watch(key_value=value)
    watch.look(NOW)
    weighed = watch.look(NOW + SECOND, tagged=tagging(value, ADMIN))
    assert weighed.in_force
    assert weighed.in_force.opened_by == ADMIN
    watch.key_policy = WITHOUT_DENY
    assert watch.look(NOW + 2 * SECOND).in_force, "who opened it is known, so that the deny is not needed"


def test_a_forbidden_opener_heard_later_ends_it_for_good() -> None:
    value = value_until(NOW + timedelta(hours=2))
    watch = Watch(key_value=value)
    assert watch.look(NOW).in_force
    weighed = watch.look(NOW + SECOND, tagged=tagging(value, DEVELOPER))
    assert weighed.in_force is None
    assert notes(weighed) == [(Reason.BREAK_GLASS_ENDED, "OPENER_NOT_ALLOWED")]
    assert watch.look(NOW + 2 * SECOND).in_force is None
    assert watch.look(NOW + 3 * SECOND, tagged=tagging(value, ADMIN)).in_force is None


def test_a_value_set_while_the_deny_was_stripped_stays_refused_once_it_is_restored() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=2)), key_policy=WITHOUT_DENY)
    assert notes(watch.look(NOW)) == [(Reason.BREAK_GLASS_REFUSED, "DENY_MISSING")]
    watch.key_policy = FULL
    for minutes in range(1, 119):
        assert watch.look(NOW + timedelta(minutes=minutes)).in_force is None


def test_a_deny_stripped_later_ends_what_an_unknown_opened() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=2)))
    assert watch.look(NOW).in_force
    watch.key_policy = WITHOUT_DENY
    assert watch.look(NOW + SECOND).in_force is None


def test_a_refused_value_that_a_stale_read_hides_for_a_while_is_still_refused() -> None:
    value = value_until(NOW + timedelta(hours=2))
    watch = Watch(key_value=value, key_policy=WITHOUT_DENY)
    watch.look(NOW)
    watch.key_value, watch.key_policy = None, FULL
    watch.look(NOW + timedelta(minutes=1))
    watch.key_value = value
    assert watch.look(NOW + timedelta(minutes=4)).in_force is None
    watch.key_value = None
    watch.look(NOW + timedelta(minutes=5))
    watch.key_value = value
    assert watch.look(NOW + timedelta(minutes=9)).in_force is None


def test_what_the_admin_closed_cannot_be_set_again_by_another_once_the_deny_is_stripped() -> None:
    value = value_until(NOW + timedelta(hours=9))
    watch = Watch(key_value=value)
    assert watch.look(NOW, tagged=tagging(value, ADMIN)).in_force
    watch.key_value = None
    watch.look(NOW + timedelta(hours=1))
    watch.key_value, watch.key_policy = value, WITHOUT_DENY
    assert watch.look(NOW + timedelta(hours=2)).in_force is None
    watch.key_policy = FULL
    assert watch.look(NOW + timedelta(hours=3)).in_force is None


def test_an_opener_whom_the_rule_names_no_more_suppresses_no_more() -> None:
    value = value_until(NOW + timedelta(hours=9))
    watch = Watch(key_value=value)
    assert watch.look(NOW, tagged=tagging(value, ADMIN)).in_force
    glass = RULE.break_glass
    assert glass is not None
    watch.rule = replace(RULE, break_glass=replace(glass, principals=("arn:*:iam::*:role/Other",)))
    assert watch.look(NOW + SECOND).in_force is None


def test_a_tagging_event_about_another_value_or_key_or_that_failed_names_no_opener() -> None:
    value = value_until(NOW + timedelta(hours=2))
    other = tagging(value_until(NOW + timedelta(hours=3)), DEVELOPER)
    elsewhere = tagging(value, DEVELOPER, key=KEY + "x")
    failed = replace(tagging(value, DEVELOPER), error_code="AccessDenied")
    for event in (other, elsewhere, failed):
        weighed = Watch(key_value=value).look(NOW, tagged=event)
        assert weighed.in_force
        assert weighed.in_force.opened_by is None


def test_a_tag_found_on_a_key_at_its_adoption_does_not_count_then_or_later() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=2)), state=TargetState(str(HOME)))
    assert notes(watch.look(NOW)) == [(Reason.BREAK_GLASS_REFUSED, "FOUND_AT_ADOPTION")]
    watch.state = replace(watch.state, managed_key=KEY)
    assert watch.look(NOW + SECOND).in_force is None
    watch.key_value = value_until(NOW + timedelta(hours=2), "INC-2")
    assert watch.look(NOW + 2 * SECOND).in_force


def test_a_key_that_the_alias_was_moved_to_suppresses_nothing_whatever_it_carries() -> None:
    brought = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/brought"
    tags = (("xray-guard", "managed"), (TAG, value_until(NOW + timedelta(hours=2))))
    keys = {
        KEY: Key(KEY, ACCOUNT, HOME.region, "Enabled", policy=FULL, rotation=True, tags=(("xray-guard", "managed"),)),
        brought: Key(brought, ACCOUNT, HOME.region, "Enabled", policy=FULL, rotation=True, tags=tags),
    }
    on_it = Setting(EncryptionType.KMS, brought, EncryptionStatus.ACTIVE)
    weighed = Watch().look(NOW, setting=on_it, keys=keys, aliases={RULE.managed_key.alias: brought})
    assert weighed.in_force is None
    assert weighed.notes == ()


@pytest.mark.parametrize("spelling", ["Xray-Guard-Break-Glass", "XRAY-GUARD-BREAK-GLASS", "xray-guard-break-glass "])
def test_on_a_key_the_tag_counts_in_its_own_case_only(spelling: str) -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=2)), key_tag=spelling)
    weighed = watch.look(NOW)
    assert weighed.in_force is None
    assert weighed.suppressions == ()


def test_tags_that_cannot_be_read_suppress_nothing_and_the_record_of_the_drift_says_so() -> None:
    watch = Watch(tags_error="AccessDeniedException")
    weighed = watch.look(NOW)
    assert weighed.in_force is None
    assert weighed.refusal is not None
    assert weighed.refusal.refused == "TAG_UNREADABLE"


def test_tags_that_cannot_be_read_any_more_end_what_was_open_until_they_can_be_read_again() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=2)))
    watch.look(NOW)
    watch.tags_error = "AccessDeniedException"
    unread = watch.look(NOW + SECOND)
    assert unread.in_force is None
    assert notes(unread) == [(Reason.BREAK_GLASS_ENDED, "TAG_UNREADABLE")]
    watch.tags_error = None
    assert watch.look(NOW + 2 * SECOND).in_force


@pytest.mark.parametrize("policy", [None, "", "not a policy", WITHOUT_DENY])
def test_a_policy_that_does_not_surely_hold_the_deny_makes_an_unknown_opener_doubtful(policy: str | None) -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=2)), key_policy=policy)
    assert notes(watch.look(NOW)) == [(Reason.BREAK_GLASS_REFUSED, "DENY_MISSING")]


# --- principals ------------------------------------------------------------------------------------------------------


def test_the_drift_of_a_tagged_principal_is_suppressed_until_its_end_by_ticks_without_the_event() -> None:
    watch = Watch(principals=admin_tagged(value_until(NOW + timedelta(hours=2))))
    opened = watch.drift_by(ADMIN)
    assert opened.in_force
    assert opened.in_force.carrier == ADMIN.arn
    assert opened.in_force.opened_by is None, "no event says who set the tag"
    assert watch.look(NOW + timedelta(hours=2) - SECOND).in_force
    assert watch.look(NOW + timedelta(hours=2)).in_force is None


@pytest.mark.parametrize("spelling", [TAG, TAG.upper(), "Xray-Guard-Break-Glass"])
def test_on_a_role_the_tag_counts_in_every_case(spelling: str) -> None:
    watch = Watch(principals=admin_tagged(value_until(NOW + timedelta(hours=2)), spelling))
    assert watch.drift_by(ADMIN).in_force


@pytest.mark.parametrize("lookalike", ["\u212a", "k\u0307"])
def test_letters_that_only_unicode_takes_for_the_same_are_another_tag(lookalike: str) -> None:
    for letter, other in (("k", lookalike), ("s", "\u017f")):
        watch = Watch(principals=admin_tagged(value_until(NOW + timedelta(hours=2)), TAG.replace(letter, other)))
        assert watch.drift_by(ADMIN).in_force is None


@pytest.mark.parametrize(
    "actor",
    [
        DEVELOPER,
        Actor(f"arn:aws:iam::{ACCOUNT}:root", "Root"),
        Actor(f"arn:aws:sts::{ACCOUNT}:federated-user/SecurityBreakGlass", "FederatedUser"),
        Actor("config.amazonaws.com", "AWSService"),
        Actor("unknown"),
    ],
)
def test_the_tag_of_a_principal_that_the_rule_does_not_name_is_not_even_read(actor: Actor) -> None:
    watch = Watch(principals={actor.arn: ((TAG, value_until(NOW + timedelta(hours=2))),)})
    weighed = watch.drift_by(actor)
    assert weighed.in_force is None
    assert weighed.notes == ()
    observation = Observation(NOW, NONE)
    assert principals_to_read(RULE, watch.state, observation, change_by(actor)) == ()


@pytest.mark.parametrize(
    ("arn", "refusal"),
    [
        (f"arn:aws:iam::{ACCOUNT}:root", "CARRIER_CANNOT_BE_TAGGED"),
        (f"arn:aws:sts::{ACCOUNT}:federated-user/anna", "CARRIER_CANNOT_BE_TAGGED"),
        (f"arn:aws:sts::{ACCOUNT}:assumed-role/Ops/anna", "CARRIER_CANNOT_BE_TAGGED"),
        (f"arn:aws:iam::{ACCOUNT}:group/ops", "CARRIER_CANNOT_BE_TAGGED"),
        ("arn:aws:iam::444455556666:role/SecurityBreakGlass", "CARRIER_IN_ANOTHER_ACCOUNT"),
    ],
)
def test_a_named_principal_that_cannot_carry_a_tag_here_is_refused_with_the_reason(arn: str, refusal: str) -> None:
    glass = RULE.break_glass
    assert glass is not None
    every = replace(RULE, break_glass=replace(glass, principals=("arn:*:*:*:*:*",)))
    watch = Watch(rule=every, principals={arn: ((TAG, value_until(NOW + timedelta(hours=2))),)})
    weighed = watch.drift_by(Actor(arn))
    assert weighed.in_force is None
    assert notes(weighed) == [(Reason.BREAK_GLASS_REFUSED, refusal)]
    assert weighed.refusal is not None
    assert weighed.refusal.refused == refusal


def test_a_user_may_carry_the_tag_as_a_role_may() -> None:
    user = Actor(f"arn:aws:iam::{ACCOUNT}:user/ops/anna", "IAMUser")
    glass = RULE.break_glass
    assert glass is not None
    rule = replace(RULE, break_glass=replace(glass, principals=("arn:*:iam::*:user/ops/*",)))
    watch = Watch(rule=rule, principals={user.arn: ((TAG, value_until(NOW + timedelta(hours=2))),)})
    assert watch.drift_by(user).in_force


@pytest.mark.parametrize(
    ("held", "refusal"),
    [
        (None, "TAG_UNREADABLE"),
        (((TAG, "20261120T180000Z"),), "NO_REASON"),
        (((TAG, "20261120T180000 INC-1"),), "NO_ZONE"),
        (((TAG, "INC-1"),), "NO_END"),
        (((TAG, "20261120T110000Z INC-1"),), "PAST"),
    ],
)
def test_a_tag_of_a_principal_that_is_wrong_is_refused_with_every_drift_and_never_piles_up(
    held: Tags | None, refusal: str
) -> None:
    watch = Watch(principals={ADMIN.arn: held})
    for hours in range(3):
        weighed = watch.drift_by(ADMIN, NOW + timedelta(hours=hours))
        assert weighed.in_force is None
        assert notes(weighed) == [(Reason.BREAK_GLASS_REFUSED, refusal)]
        assert weighed.refusal is not None
    assert watch.state.suppressions == ()


def test_a_principal_without_the_tag_is_put_right_without_a_word_of_break_glass() -> None:
    weighed = Watch(principals={ADMIN.arn: (("team", "sec"),)}).drift_by(ADMIN)
    assert (weighed.in_force, weighed.notes, weighed.refusal) == (None, (), None)


@pytest.mark.parametrize(
    ("seconds", "still"),
    [(-30, True), (-1, True), (0, False), (1, False), (600, False)],
)
def test_the_same_drift_by_another_later_or_at_the_same_time_is_not_covered_and_an_earlier_one_is(
    seconds: int, still: bool
) -> None:
    watch = Watch(principals=admin_tagged(value_until(NOW + timedelta(hours=2))))
    assert watch.drift_by(ADMIN).in_force
    other = watch.look(NOW + timedelta(minutes=11), change_by(DEVELOPER, NOW + timedelta(seconds=seconds)))
    assert bool(other.in_force) is still
    if not still:
        assert notes(other) == [(Reason.BREAK_GLASS_ENDED, "OVERTAKEN")]
    assert bool(watch.look(NOW + timedelta(minutes=12)).in_force) is still


def test_the_same_drift_by_somebody_unknown_or_at_an_unknown_time_is_not_covered() -> None:
    for change in (change_by(None, NOW + SECOND), change_by(DEVELOPER, None)):
        watch = Watch(principals=admin_tagged(value_until(NOW + timedelta(hours=2))))
        watch.drift_by(ADMIN)
        assert watch.look(NOW + timedelta(minutes=1), change).in_force is None


@pytest.mark.parametrize(("seconds", "covered"), [(-5, True), (0, False), (5, False)])
def test_an_older_change_of_the_admin_heard_after_anothers_does_not_cover_what_the_other_did(
    seconds: int, covered: bool
) -> None:
    other = Cause("other", NOW + timedelta(seconds=seconds), DEVELOPER)
    incident = Incident("i", NOW, NONE, Phase.OPEN, cause=other, latest=other)
    state = TargetState(str(HOME), managed_key=KEY, incident=incident)
    watch = Watch(principals=admin_tagged(value_until(NOW + timedelta(hours=2))), state=state)
    assert bool(watch.drift_by(ADMIN).in_force) is covered


@pytest.mark.parametrize(("seconds", "covered"), [(-1, True), (0, False), (60, False)])
def test_an_old_change_of_the_admin_does_not_cover_a_drift_made_after_all_was_well_again(
    seconds: int, covered: bool
) -> None:
    state = TargetState(str(HOME), managed_key=KEY, good_at=NOW + timedelta(seconds=seconds))
    watch = Watch(principals=admin_tagged(value_until(NOW + timedelta(hours=2))), state=state)
    assert bool(watch.drift_by(ADMIN).in_force) is covered


def test_a_change_whose_outcome_is_not_what_stands_there_covers_nothing() -> None:
    other = Setting(EncryptionType.KMS, f"arn:aws:kms:us-east-1:{ACCOUNT}:key/other", EncryptionStatus.ACTIVE)
    for result in (other, None, Setting(EncryptionType.KMS, "alias/other")):
        watch = Watch(principals=admin_tagged(value_until(NOW + timedelta(hours=2))))
        assert watch.look(NOW + SECOND, change_by(ADMIN, NOW, result)).in_force is None


def test_once_the_setting_is_another_the_principals_drift_is_over_and_the_same_one_later_is_not_covered() -> None:
    watch = Watch(principals=admin_tagged(value_until(NOW + timedelta(hours=2))))
    watch.drift_by(ADMIN)
    watch.setting = GOOD
    assert notes(watch.look(NOW + timedelta(minutes=1))) == [(Reason.BREAK_GLASS_ENDED, "OVERTAKEN")]
    watch.setting = NONE
    assert watch.look(NOW + timedelta(minutes=2)).in_force is None


def test_the_admins_own_second_drift_is_covered_until_the_first_end() -> None:
    watch = Watch(principals=admin_tagged(value_until(NOW + timedelta(hours=48))))
    watch.drift_by(ADMIN)
    watch.setting = GOOD
    watch.look(NOW + timedelta(minutes=1))
    watch.setting = NONE
    again = watch.drift_by(ADMIN, NOW + timedelta(hours=3)).in_force
    assert again
    assert again.until == NOW + 3 * SECOND + timedelta(hours=12)
    assert watch.look(NOW + timedelta(hours=12, seconds=3)).in_force is None
    assert watch.drift_by(ADMIN, NOW + timedelta(hours=36)).in_force is None


def test_a_change_that_is_as_the_rule_asks_opens_nothing_that_could_cover_what_others_do_to_the_key() -> None:
    watch = Watch(setting=GOOD, principals=admin_tagged(value_until(NOW + timedelta(hours=2))))
    weighed = watch.look(NOW + SECOND, change_by(ADMIN, NOW, GOOD))
    assert weighed.suppressions == ()
    disabled = Key(KEY, ACCOUNT, HOME.region, "Disabled", policy=FULL, tags=(("xray-guard", "managed"),))
    harmed = watch.look(NOW + 2 * SECOND, change_by(ADMIN, NOW, GOOD), keys={KEY: disabled})
    assert harmed.in_force is None


def test_a_removed_tag_of_a_principal_ends_its_suppression() -> None:
    watch = Watch(principals=admin_tagged(value_until(NOW + timedelta(hours=2))))
    watch.drift_by(ADMIN)
    watch.principals = {ADMIN.arn: ()}
    weighed = watch.look(NOW + timedelta(minutes=1))
    assert weighed.in_force is None
    assert notes(weighed) == [(Reason.BREAK_GLASS_ENDED, "REMOVED")]


def test_a_principal_whom_the_rule_names_no_more_suppresses_no_more() -> None:
    watch = Watch(principals=admin_tagged(value_until(NOW + timedelta(hours=2))))
    watch.drift_by(ADMIN)
    glass = RULE.break_glass
    assert glass is not None
    watch.rule = replace(RULE, break_glass=replace(glass, principals=("arn:*:iam::*:role/Other",)))
    assert notes(watch.look(NOW + timedelta(minutes=1))) == [(Reason.BREAK_GLASS_ENDED, "CARRIER_NOT_ALLOWED")]


def test_a_key_tag_covers_the_whole_target_whoever_made_the_drift() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=2)))
    assert watch.drift_by(DEVELOPER).in_force
    assert watch.look(NOW + timedelta(minutes=1), setting=GOOD).in_force


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30 * 3600),
            st.sampled_from(["none", "a", "a again", "b", "bad"]),
            st.booleans(),
            st.sampled_from([None, ADMIN, DEVELOPER]),
        ),
        max_size=25,
    )
)
def test_no_sequence_of_tags_keeps_one_value_in_force_longer_than_its_end_or_the_cap(
    looks: list[tuple[int, str, bool, Actor | None]],
) -> None:
    values = {
        "none": None,
        "a": "20261121T200000Z INC-1",
        "a again": "2026-11-21T21:00:00+01:00  INC-1",
        "b": "20261120T150000Z INC-2",
        "bad": "soon INC-3",
    }
    watch = Watch()
    first_seen: dict[str, datetime] = {}
    for seconds, name, deny, opener in sorted(looks, key=lambda each: each[0]):
        now = NOW + timedelta(seconds=seconds)
        watch.key_value = values[name]
        watch.key_policy = FULL if deny else WITHOUT_DENY
        event = tagging(watch.key_value, opener, now) if opener and watch.key_value else None
        in_force = watch.look(now, tagged=event).in_force
        if in_force is None:
            continue
        assert name in ("a", "a again", "b")
        assert in_force.end
        since = first_seen.setdefault(in_force.value, in_force.first_seen)
        assert since == in_force.first_seen <= now < min(in_force.end, since + timedelta(hours=12))


def test_a_suppression_is_kept_in_the_state_as_it_was_decided() -> None:
    watch = Watch(key_value=value_until(NOW + timedelta(hours=2)))
    watch.look(NOW, tagged=tagging(watch.key_value or "", ADMIN))
    assert watch.state.suppressions == (
        Suppression(
            KEY,
            "2026-11-20T14:00:00Z INC-1",
            "INC-1",
            NOW,
            NOW + timedelta(hours=2),
            NOW + timedelta(hours=2),
            ADMIN,
        ),
    )


def test_the_documentation_explains_every_code_that_a_record_may_hold() -> None:
    text = (Path(__file__).parents[2] / "docs" / "break-glass.md").read_text("utf-8")
    codes = {*Refusal, *Closing, *BREAK_GLASS_NOTES}
    assert sorted(code.value for code in codes if f"`{code.value}`" not in text) == []
