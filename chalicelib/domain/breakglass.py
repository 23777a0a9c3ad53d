"""Break-glass: which tag suspends remediation, who set it, and from when until when. Pure.

The tag's value is `<end> <ticket or reason>`, such as `20261120T180000Z INC-1234`. A tag on the target's managed key
suppresses the whole target. A tag on the IAM role or user that made a change suppresses that principal's drift. The
value is in force from the moment it was first seen until its end or the rule's cap, whichever is sooner. A value once
in force is remembered until its own end, so that seeing it again does not renew it.

In doubt the guard enforces: a tag that cannot be read, an opener who is known not to be allowed, a change that somebody
else may have made, too many values.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain.judge import OF_THE_KEY, judge
from chalicelib.domain.keychoice import managed_key
from chalicelib.domain.keypolicy.judge import judge_policy
from chalicelib.domain.keypolicy.wanted import BREAK_GLASS
from chalicelib.domain.model import Actor, ChangeEvent, Key, KeyEvent, Setting, Target, arn_part
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import BreakGlass, Rule, arn_matches
from chalicelib.domain.reasons import Reason
from chalicelib.domain.stored import Suppression, TargetState
from chalicelib.domain.tagvalue import Refusal, Tags, iam_values, normal, read_value

MOST_REMEMBERED = 64
"""Keeps a target's state far below DynamoDB's limit of 400 KB per item, even if somebody floods a key with values."""

LONGEST_BREAK_GLASS = timedelta(hours=168)
"""The largest `max_hours` that the policy's schema allows."""

FORGET_AFTER = timedelta(minutes=10)
"""Longer than the difference between any two clocks, and longer than a stale read of KMS."""


class Closing(StrEnum):
    """Why a break-glass that was in force no longer is."""

    END = "END"
    CAP = "CAP"
    REMOVED = "REMOVED"
    OVERTAKEN = "OVERTAKEN"
    RULE_WITHOUT = "RULE_WITHOUT"
    EDITED = "EDITED"


RESUMABLE = frozenset({Closing.REMOVED, Closing.OVERTAKEN, Closing.RULE_WITHOUT, Refusal.TAG_UNREADABLE})
"""Why a value was closed that may come into force again, within its first period, if the tag is set again."""


class Weighed(Struct, frozen=True):
    """The result of weighing the tags: what to remember, what is in force now (if anything), and what to record.

    `refusal` is a present value that does not count, with the code of the reason. If nothing is in force, it says why a
    drift was remediated in spite of a tag.
    """

    suppressions: tuple[Suppression, ...]
    in_force: Suppression | None
    notes: tuple[tuple[Reason, Suppression], ...] = ()
    refusal: Suppression | None = None

    @property
    def is_open(self) -> bool:
        """Whether any value may still suppress remediation, so that its tag must be read again every minute."""
        return any(_is_open(each) for each in self.suppressions)


def may_open(actor: Actor, glass: BreakGlass) -> bool:
    """Whether the rule allows this principal to open a break-glass."""
    return _is_named(actor.arn, glass)


def _is_named(arn: str, glass: BreakGlass) -> bool:
    return any(arn_matches(pattern, arn) for pattern in glass.principals)


def principals_to_read(
    rule: Rule, state: TargetState, seen: Observation, change: ChangeEvent | None
) -> tuple[str, ...]:
    """Return the ARNs of the principals whose tags matter: who made this change, and whose drift is suppressed."""
    if rule.break_glass is None:
        return ()
    wanted = [each.carrier for each in state.suppressions if _is_open(each) and each.drift is not None]
    owner = _owner(change, state, seen)
    if owner is not None and may_open(owner, rule.break_glass) and _carrier_refusal(owner, state.target) is None:
        wanted.append(owner.arn)
    return tuple(dict.fromkeys(wanted))


def _owner(change: ChangeEvent | None, state: TargetState, seen: Observation) -> Actor | None:
    """Return who owns the present drift: the change's actor, but only if that change certainly caused it."""
    if change is None or change.result is None or not seen.setting.same_choice(change.result):
        return None
    actor, at = change.trigger.actor, change.trigger.event_time
    if actor is None or at is None:
        return None
    # The target was compliant after this change, or somebody else made a later change (a tie enforces): the present
    # setting is not this actor's, even if it is the same.
    if state.good_at is not None and at <= state.good_at:
        return None
    latest = state.incident.latest if state.incident else None
    if latest is not None and latest.actor.arn != actor.arn and at <= latest.at:
        return None
    return actor


def _carrier_refusal(actor: Actor, target: str) -> Refusal | None:
    kind = arn_part(actor.arn, 5).partition("/")[0]
    if arn_part(actor.arn, 2) != "iam" or kind not in ("role", "user"):
        return Refusal.CARRIER_CANNOT_BE_TAGGED
    if arn_part(actor.arn, 4) != Target.parse(target).account:
        return Refusal.CARRIER_IN_ANOTHER_ACCOUNT
    return None


def weigh(
    target: Target,
    rule: Rule,
    state: TargetState,
    seen: Observation,
    now: datetime,
    *,
    principal_tags: Mapping[str, Tags | None],
    change: ChangeEvent | None = None,
    tagging: KeyEvent | None = None,
    partition: str,
) -> Weighed:
    """Weigh every tag that was read. `principal_tags` maps a principal to its tags, None if they cannot be read.

    `change` is an event that is not on the record yet: a recorded one was weighed before. Needs a deep observation: in
    doubt the guard enforces, and what was not read is in doubt.
    """
    weighing = _Weighing(target, rule, state, seen, now)
    if rule.break_glass is None:
        weighing.close_all(Closing.RULE_WITHOUT)
    else:
        weighing.shorten()
        weighing.key_tag(rule.break_glass, tagging, partition)
        weighing.principals_known(rule.break_glass, principal_tags, change)
        weighing.principal_of_change(rule.break_glass, principal_tags, change)
        weighing.expire()
    return weighing.weighed()


class _Weighing:
    """The values seen so far, by carrier and spelling, updated with what was read now."""

    def __init__(self, target: Target, rule: Rule, state: TargetState, seen: Observation, now: datetime) -> None:
        self._target = target
        self._rule = rule
        self._state = state
        self._seen = seen
        self._now = now
        self._cap = timedelta(hours=rule.break_glass.max_hours if rule.break_glass else 0)
        self._values = {(each.carrier, each.value): each for each in state.suppressions}
        self._here: set[tuple[str, str]] = set()
        self._notes: list[tuple[Reason, Suppression]] = []
        self._refusal: Suppression | None = None

    def shorten(self) -> None:
        """Shorten open values if the rule now allows less time. If it allows more, nothing is renewed."""
        for which, each in self._values.items():
            if _is_open(each) and each.until is not None:
                self._values[which] = replace(each, until=min(each.until, each.first_seen + self._cap))

    # --- the key ---------------------------------------------------------------------------------------------------

    def key_tag(self, glass: BreakGlass, tagging: KeyEvent | None, partition: str) -> None:
        """Weigh the tag on the managed key. Only the recorded key counts."""
        arn = managed_key(self._state, self._seen, self._rule)
        key = self._seen.keys.get(arn) if arn else None
        unreadable = key is not None and key.tags is None
        value = key.tag(glass.tag) if key else None
        if key is not None and value is not None:
            opener = _opener(key, value, glass, tagging)
            self._see(key.arn, value, opener, self._key_refusal(key, value, opener, glass, partition))
        elif key is not None and key.tags_error:
            self._refusal = self._unread(key.arn, Refusal.TAG_UNREADABLE)
        for which, each in list(self._values.items()):
            if each.drift is not None or which in self._here:
                continue
            if _is_open(each):
                self._close(each, Refusal.TAG_UNREADABLE if unreadable else Closing.REMOVED)
            elif each.refused and not each.closed and each.until is None and not unreadable:
                # It was never in force: keep it only while KMS may still show it. If set again, it is judged again.
                gone = replace(each, closed=Closing.REMOVED.value, until=self._now + FORGET_AFTER)
                self._values[which] = gone

    def _key_refusal(
        self, key: Key, value: str, opener: Actor | None, glass: BreakGlass, partition: str
    ) -> Refusal | None:
        if self._state.managed_key != key.arn:
            return Refusal.FOUND_AT_ADOPTION
        known = self._values.get((key.arn, normal(value)))
        if opener is None and known is not None and _is_open(known):
            opener = known.opened_by
        if opener is not None:
            # A known opener needs no Deny in the key policy, but the rule must still name the opener.
            return None if may_open(opener, glass) else Refusal.OPENER_NOT_ALLOWED
        verdict = judge_policy(key.policy or "", self._rule, self._target, partition)
        return Refusal.DENY_MISSING if BREAK_GLASS in verdict.missing else None

    # --- principals ------------------------------------------------------------------------------------------------

    def principals_known(self, glass: BreakGlass, tags: Mapping[str, Tags | None], change: ChangeEvent | None) -> None:
        """Check principals whose drift is suppressed: is the tag still set, and is the drift still theirs?"""
        for each in list(self._values.values()):
            if each.drift is None or not _is_open(each):
                continue
            held = tags.get(each.carrier)
            if not _is_named(each.carrier, glass):
                self._close(each, Refusal.CARRIER_NOT_ALLOWED)
            elif held is None:
                self._close(each, Refusal.TAG_UNREADABLE)
            elif each.value not in {normal(value) for value in iam_values(held, glass.tag)}:
                self._close(each, Closing.REMOVED)
            elif not each.drift.same_choice(self._seen.setting) or self._is_overtaken(each, change):
                self._close(each, Closing.OVERTAKEN)

    def _is_overtaken(self, each: Suppression, change: ChangeEvent | None) -> bool:
        """Whether somebody else made the same change later. A tie or an unknown time enforces."""
        if change is None or change.result is None or not change.result.same_choice(self._seen.setting):
            return False
        actor, at = change.trigger.actor, change.trigger.event_time
        if actor is not None and actor.arn == each.carrier:
            return False
        return at is None or each.drift_at is None or at >= each.drift_at

    def principal_of_change(
        self, glass: BreakGlass, tags: Mapping[str, Tags | None], change: ChangeEvent | None
    ) -> None:
        """Weigh the tag of the principal that made this change, if the rule allows it to open a break-glass.

        Only a drift opens one: the setting that the change chose must itself violate the rule.
        """
        owner = _owner(change, self._state, self._seen)
        if owner is None or change is None or not may_open(owner, glass) or not self._choice_is_wrong():
            return
        held = tags.get(owner.arn)
        refusal = _carrier_refusal(owner, self._state.target)
        if refusal or held is None:
            self._add(self._unread(owner.arn, refusal or Refusal.TAG_UNREADABLE))
            return
        for value in iam_values(held, glass.tag):
            # The guard does not know who set the tag: IAM's events are delivered in one Region only.
            self._see(owner.arn, value, None, None, self._seen.setting, change.trigger.event_time)

    def _choice_is_wrong(self) -> bool:
        """Whether the chosen setting violates the rule, and not only the state of its key."""
        return not OF_THE_KEY.issuperset(judge(self._target, self._rule, self._state, self._seen))

    # --- one value -------------------------------------------------------------------------------------------------

    def _see(
        self,
        carrier: str,
        value: str,
        opener: Actor | None,
        refusal: Refusal | None,
        drift: Setting | None = None,
        drift_at: datetime | None = None,
    ) -> None:
        which = (carrier, normal(value))
        self._here.add(which)
        known = self._values.get(which)
        if known is not None:
            self._values[which] = self._seen_again(known, opener, refusal, drift, drift_at)
            return
        read = read_value(value)
        new = Suppression(carrier, which[1], "", self._now, None, None, opener, refusal, None, drift, drift_at)
        if isinstance(read, Refusal):
            self._add(replace(new, refused=refusal or read))
            return
        refusal = refusal or (Refusal.PAST if read.end <= self._now else None)
        until = None if refusal else min(read.end, self._now + self._cap)
        self._add(replace(new, reason=read.reason, end=read.end, until=until, refused=refusal))

    def _add(self, new: Suppression) -> None:
        """Add a value never seen before. A refused value of a principal is not kept: it is noted with each drift."""
        has_room = self._make_room()
        if not (new.refused or has_room):
            # A value that is not remembered could be renewed.
            new = replace(new, refused=Refusal.TOO_MANY, until=None)
        if new.refused:
            self._refusal = new
        if not new.refused or arn_part(new.carrier, 2) == "kms":
            self._values[new.carrier, new.value] = new
        self._notes.append((Reason.BREAK_GLASS_REFUSED if new.refused else Reason.BREAK_GLASS_OPENED, new))

    def _make_room(self) -> bool:
        """If too many values are remembered, drop those that may go, then the oldest refused ones whose tag is gone."""
        if len(self._values) >= MOST_REMEMBERED:
            self._values = {which: each for which, each in self._values.items() if self._is_kept(each)}
            gone = [which for which, each in self._values.items() if each.refused and each.closed]
            for which in gone[: len(self._values) - MOST_REMEMBERED + 1]:
                del self._values[which]
        return len(self._values) < MOST_REMEMBERED

    def _seen_again(
        self,
        known: Suppression,
        opener: Actor | None,
        refusal: Refusal | None,
        drift: Setting | None,
        drift_at: datetime | None,
    ) -> Suppression:
        if known.refused:
            self._refusal = replace(known, closed=None, until=None) if known.closed else known
            return self._refusal
        if known.closed and not self._may_resume(known):
            self._refusal = known
            return known
        if refusal:
            self._refusal = replace(known, refused=refusal, opened_by=opener or known.opened_by, closed=None)
            self._notes.append(
                (Reason.BREAK_GLASS_REFUSED if known.closed else Reason.BREAK_GLASS_ENDED, self._refusal)
            )
            return self._refusal
        again = replace(known, drift=drift or known.drift, drift_at=drift_at or known.drift_at)
        if known.closed:
            # It was set again, maybe by somebody else.
            again = replace(again, closed=None, opened_by=opener)
            self._notes.append((Reason.BREAK_GLASS_OPENED, again))
            return again
        return replace(again, opened_by=known.opened_by or opener)

    def _may_resume(self, known: Suppression) -> bool:
        return known.closed in RESUMABLE and known.until is not None and self._now < known.until

    def _unread(self, carrier: str, refusal: Refusal) -> Suppression:
        return Suppression(carrier, "", "", self._now, None, None, refused=refusal)

    # --- the end ---------------------------------------------------------------------------------------------------

    def _close(self, each: Suppression, why: StrEnum) -> None:
        closed = replace(each, closed=why.value)
        self._values[each.carrier, each.value] = closed
        self._notes.append((Reason.BREAK_GLASS_ENDED, closed))

    def close_all(self, why: Closing) -> None:
        """Close whatever is open."""
        for each in list(self._values.values()):
            if _is_open(each):
                self._close(each, why)

    def expire(self) -> None:
        """Close what has reached its end or its cap."""
        for each in list(self._values.values()):
            if _is_open(each) and each.until is not None and self._now >= each.until:
                self._close(each, Closing.END if each.until == each.end else Closing.CAP)

    def weighed(self) -> Weighed:
        """Return the result; the key's suppression takes precedence over a principal's."""
        kept = [each for which, each in self._values.items() if which in self._here or self._is_kept(each)]
        kept.sort(key=lambda each: (each.first_seen, each.carrier, each.value))
        in_force = self._in_force([each for each in kept if _is_open(each)])
        return Weighed(tuple(kept), in_force, tuple(self._notes), None if in_force else self._refusal)

    def _in_force(self, valid: list[Suppression]) -> Suppression | None:
        for each in valid:
            if each.drift is None:
                return each
        theirs = [each for each in valid if each.drift is not None and each.drift.same_choice(self._seen.setting)]
        return theirs[0] if theirs and self._choice_is_wrong() else None

    def _is_kept(self, each: Suppression) -> bool:
        """Whether a value must be remembered after its tag is gone: otherwise it would count again if set again."""
        if each.refused and each.closed:
            return each.until is None or self._now < each.until
        return _is_open(each) or each.end is None or self._now - FORGET_AFTER <= each.end


def _is_open(each: Suppression) -> bool:
    return each.refused is None and each.closed is None


def _opener(key: Key, value: str, glass: BreakGlass, tagging: KeyEvent | None) -> Actor | None:
    """Return who set this value, if the tagging event says so."""
    if tagging is None or key.arn not in tagging.key_arns or tagging.error_code:
        return None
    set_value = dict(tagging.tags).get(glass.tag)
    return tagging.trigger.actor if set_value is not None and normal(set_value) == normal(value) else None
