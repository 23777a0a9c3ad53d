"""Break-glass: which tag values suppress remediation, since when and until when. Pure; any doubt means enforce (P14).

A value is `<UTC end> <ticket or reason>`, the end as `20261120T180000Z` or RFC 3339 with a zone. It sits on the managed
key of the target, and then suppresses the whole target, or on the IAM role or user that made a change, and then
suppresses that principal's drift. It is in force from the moment it was first seen until its end or the rule's cap,
whichever is sooner. A value once seen is remembered until its own end, so that seeing it again renews nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from chalicelib import keypolicy
from chalicelib.decide import Observation, managed_key
from chalicelib.model import Actor, ChangeEvent, Key, KeyEvent, Setting, Suppression, Target, TargetState, arn_part
from chalicelib.policy import BreakGlass, Rule, arn_matches

Tags = tuple[tuple[str, str], ...]

MOST_REMEMBERED = 32
FORGET_AFTER = timedelta(minutes=10)
"""Longer than any two clocks are apart: an ended value is kept this much longer than its end."""

_BASIC = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(Z|)", re.ASCII)
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.\d+)?([Zz]|[+-]\d\d:\d\d|)",
    re.ASCII,
)


class Refusal(StrEnum):
    """Why a value, or what carries it, does not suppress."""

    NO_END = "NO_END"
    NO_ZONE = "NO_ZONE"
    NO_REASON = "NO_REASON"
    PAST = "PAST"
    TAG_UNREADABLE = "TAG_UNREADABLE"
    FOUND_AT_ADOPTION = "FOUND_AT_ADOPTION"
    OPENER_NOT_ALLOWED = "OPENER_NOT_ALLOWED"
    DENY_MISSING = "DENY_MISSING"
    CARRIER_CANNOT_BE_TAGGED = "CARRIER_CANNOT_BE_TAGGED"
    CARRIER_IN_ANOTHER_ACCOUNT = "CARRIER_IN_ANOTHER_ACCOUNT"


class Closing(StrEnum):
    """Why a break-glass that was in force no longer is."""

    END = "END"
    CAP = "CAP"
    REMOVED = "REMOVED"
    OVERTAKEN = "OVERTAKEN"


class NoteReason(StrEnum):
    """What the record says of a break-glass."""

    OPENED = "BREAK_GLASS_OPENED"
    ENDED = "BREAK_GLASS_ENDED"
    REFUSED = "BREAK_GLASS_REFUSED"


@dataclass(frozen=True, slots=True)
class Opening:
    """A well-formed value. `normal` is the one spelling by which equal values are recognised."""

    end: datetime
    reason: str
    normal: str


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the tags come to: what to remember, what suppresses now (if anything), and what the record must say."""

    suppressions: tuple[Suppression, ...]
    in_force: Suppression | None
    notes: tuple[tuple[NoteReason, Suppression], ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether any value may still suppress, so that its tag must be read again every minute."""
        return any(each.refused is None and each.closed is None for each in self.suppressions)


def read_value(value: str) -> Opening | Refusal:
    """Read a tag's value by the grammar, whatever the time is now."""
    words = value.split()
    if not words:
        return Refusal.NO_END
    end = _read_end(words[0])
    if isinstance(end, Refusal):
        return end
    if len(words) < 2:
        return Refusal.NO_REASON
    reason = " ".join(words[1:])
    return Opening(end, reason, f"{end:%Y-%m-%dT%H:%M:%SZ} {reason}")


def _read_end(word: str) -> datetime | Refusal:
    basic = _BASIC.fullmatch(word)
    extended = _RFC_3339.fullmatch(word)
    if basic:
        year, month, day, hour, minute, second, zone = basic.groups()
        text = f"{year}-{month}-{day}T{hour}:{minute}:{second}"
    elif extended:
        text, zone = f"{extended[1]}T{extended[2]}", extended[3].upper()
    else:
        return Refusal.NO_END
    if not zone:
        return Refusal.NO_ZONE
    try:
        return datetime.fromisoformat(text + zone.replace("Z", "+00:00")).astimezone(UTC)
    except (ValueError, OverflowError):
        return Refusal.NO_END


def may_open(actor: Actor, glass: BreakGlass) -> bool:
    """Whether the rule names this principal among those who may open a break-glass."""
    return any(arn_matches(pattern, actor.arn) for pattern in glass.principals)


def principals_to_read(
    rule: Rule, state: TargetState, seen: Observation, change: ChangeEvent | None
) -> tuple[str, ...]:
    """The ARNs of the principals whose tags decide something: who made this change, and who is suppressed already."""
    if rule.break_glass is None:
        return ()
    wanted = [each.carrier for each in state.suppressions if _is_open(each) and each.drift is not None]
    owner = _owner(change, seen)
    if owner is not None and may_open(owner, rule.break_glass) and _carrier_refusal(owner, state.target) is None:
        wanted.append(owner.arn)
    return tuple(dict.fromkeys(wanted))


def _owner(change: ChangeEvent | None, seen: Observation) -> Actor | None:
    """Who owns the drift that stands there: the change's actor, only if it is what the change left behind."""
    if change is None or change.result is None or not seen.setting.same_choice(change.result):
        return None
    return change.trigger.actor


def _carrier_refusal(actor: Actor, target: str) -> Refusal | None:
    kind = actor.arn.split(":", 5)[-1].partition("/")[0]
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
    """Weigh every tag that was read. `principal_tags` maps a principal to its tags, None where they cannot be read.

    Asks a deep observation: what was not read is doubt, and doubt enforces.
    """
    glass = rule.break_glass
    if glass is None:
        return Weighed((), None)
    ledger = _Remembered(state, glass, now)
    ledger.key_tag(target, rule, state, seen, tagging, partition)
    ledger.principal_tags(principal_tags, seen, change)
    ledger.principal_of_change(principal_tags, seen, change)
    ledger.expire()
    return ledger.weighed(seen.setting)


class _Remembered:
    """The values seen so far, by carrier and spelling, while new ones are weighed in."""

    def __init__(self, state: TargetState, glass: BreakGlass, now: datetime) -> None:
        self._state = state
        self._glass = glass
        self._now = now
        self._cap = timedelta(hours=glass.max_hours)
        self._notes: list[tuple[NoteReason, Suppression]] = []
        self._seen = {
            (each.carrier, each.value): each
            for each in state.suppressions
            if each.end is None or now <= each.end + FORGET_AFTER
        }

    def key_tag(
        self,
        target: Target,
        rule: Rule,
        state: TargetState,
        seen: Observation,
        tagging: KeyEvent | None,
        partition: str,
    ) -> None:
        """The tag on the managed key. Only the recorded key counts."""
        arn = managed_key(state, seen, rule)
        key = seen.keys.get(arn) if arn else None
        value = key.tag(self._glass.tag) if key else None
        current = None
        if key is not None and value is not None:
            opener = self._opener(key, value, tagging)
            refusal = self._key_refusal(key, opener, target, rule, partition)
            current = self._see(key.arn, value, opener, refusal, None, None)
        unreadable = key is not None and key.tags is None
        for entry in list(self._seen.values()):
            if entry.drift is None and _is_open(entry) and (entry.carrier, entry.value) != current:
                self._close(entry, Refusal.TAG_UNREADABLE if unreadable else Closing.REMOVED)

    def _opener(self, key: Key, value: str, tagging: KeyEvent | None) -> Actor | None:
        if tagging is None or key.arn not in tagging.key_arns or tagging.error_code:
            return None
        told = dict(tagging.tags).get(self._glass.tag)
        return tagging.trigger.actor if told is not None and _normal(told) == _normal(value) else None

    def _key_refusal(
        self, key: Key, opener: Actor | None, target: Target, rule: Rule, partition: str
    ) -> Refusal | None:
        if self._state.managed_key != key.arn:
            return Refusal.FOUND_AT_ADOPTION
        if opener is not None:
            return None if may_open(opener, self._glass) else Refusal.OPENER_NOT_ALLOWED
        verdict = keypolicy.judge(key.policy or "", rule, target, partition)
        return Refusal.DENY_MISSING if keypolicy.BREAK_GLASS in verdict.missing else None

    def principal_tags(self, tags: Mapping[str, Tags | None], seen: Observation, change: ChangeEvent | None) -> None:
        """The tags of principals whose drift is suppressed already: still there, and the drift still theirs?"""
        owner = _owner(change, seen)
        for entry in list(self._seen.values()):
            if entry.drift is None or not _is_open(entry):
                continue
            held = tags.get(entry.carrier)
            if held is None:
                self._close(entry, Refusal.TAG_UNREADABLE)
            elif entry.value not in {_normal(value) for value in _iam_values(held, self._glass.tag)}:
                self._close(entry, Closing.REMOVED)
            elif not entry.drift.same_choice(seen.setting) or self._is_overtaken(entry, owner, change):
                self._close(entry, Closing.OVERTAKEN)

    def _is_overtaken(self, entry: Suppression, owner: Actor | None, change: ChangeEvent | None) -> bool:
        """Whether somebody else made the same change later; a tie, or a time not known, enforces."""
        if owner is None or change is None or owner.arn == entry.carrier:
            return False
        at = change.trigger.event_time
        return at is None or entry.drift_at is None or at >= entry.drift_at

    def principal_of_change(
        self, tags: Mapping[str, Tags | None], seen: Observation, change: ChangeEvent | None
    ) -> None:
        """The tag of the principal that made this very change, if the rule lets it open a break-glass."""
        owner = _owner(change, seen)
        if owner is None or change is None or not may_open(owner, self._glass):
            return
        refusal = _carrier_refusal(owner, self._state.target)
        if refusal:
            self._refuse(owner, refusal)
            return
        held = tags.get(owner.arn)
        if held is None:
            self._refuse(owner, Refusal.TAG_UNREADABLE)
            return
        for value in _iam_values(held, self._glass.tag):
            self._see(owner.arn, value, owner, None, seen.setting, change.trigger.event_time)

    def _refuse(self, owner: Actor, refusal: Refusal) -> None:
        self._see(owner.arn, "", owner, refusal, None, None)

    def _see(
        self,
        carrier: str,
        value: str,
        opener: Actor | None,
        refusal: Refusal | None,
        drift: Setting | None,
        drift_at: datetime | None,
    ) -> tuple[str, str]:
        read = read_value(value)
        key = (carrier, read.normal if isinstance(read, Opening) else " ".join(value.split()))
        entry = self._seen.get(key)
        if entry is not None:
            self._see_again(key, entry, opener, refusal, drift, drift_at)
            return key
        if isinstance(read, Refusal):
            refusal = refusal or read
            entry = Suppression(carrier, key[1], "", self._now, None, None, opener, refusal)
        else:
            refusal = refusal or (Refusal.PAST if read.end <= self._now else None)
            until = min(read.end, self._now + self._cap)
            entry = Suppression(
                carrier, key[1], read.reason, self._now, read.end, until, opener, refusal, None, drift, drift_at
            )
        self._seen[key] = entry
        self._notes.append((NoteReason.REFUSED if refusal else NoteReason.OPENED, entry))
        return key

    def _see_again(
        self,
        key: tuple[str, str],
        entry: Suppression,
        opener: Actor | None,
        refusal: Refusal | None,
        drift: Setting | None,
        drift_at: datetime | None,
    ) -> None:
        if entry.refused:
            return
        if opener is not None and entry.opened_by is None:
            entry = replace(entry, opened_by=opener)
        # An opener once known to be allowed needs no deny; an unknown one needs it every time.
        doubts = refusal if refusal is not Refusal.DENY_MISSING or entry.opened_by is None else None
        if doubts:
            self._seen[key] = entry
            self._close(entry, doubts, refused=doubts)
            return
        if drift is not None:
            entry = replace(entry, drift=drift, drift_at=drift_at)
        resumed = entry.closed in (Closing.REMOVED, Closing.OVERTAKEN, Refusal.TAG_UNREADABLE)
        if resumed and entry.until is not None and self._now < entry.until:
            entry = replace(entry, closed=None)
            self._notes.append((NoteReason.OPENED, entry))
        self._seen[key] = entry

    def _close(self, entry: Suppression, why: StrEnum, refused: Refusal | None = None) -> None:
        closed = replace(entry, closed=None if refused else why.value, refused=refused)
        self._seen[entry.carrier, entry.value] = closed
        self._notes.append((NoteReason.ENDED, closed))

    def expire(self) -> None:
        """Close what has reached its end or its cap."""
        for entry in list(self._seen.values()):
            if _is_open(entry) and entry.until is not None and self._now >= entry.until:
                self._close(entry, Closing.END if entry.until == entry.end else Closing.CAP)

    def weighed(self, setting: Setting) -> Weighed:
        """The outcome, the key's suppression before a principal's."""
        kept = sorted(self._seen.values(), key=lambda each: each.first_seen)
        refused = [each for each in kept if each.refused is not None and each.end is None][:-MOST_REMEMBERED]
        kept = [each for each in kept if each not in refused]
        valid = [each for each in kept if _is_open(each)]
        in_force = next((each for each in valid if each.drift is None), None) or next(
            (each for each in valid if each.drift is not None and each.drift.same_choice(setting)), None
        )
        return Weighed(tuple(kept), in_force, tuple(self._notes))


def _is_open(entry: Suppression) -> bool:
    return entry.refused is None and entry.closed is None


def _normal(value: str) -> str:
    read = read_value(value)
    return read.normal if isinstance(read, Opening) else " ".join(value.split())


def _iam_values(tags: Tags, tag_key: str) -> list[str]:
    """IAM's tag keys are case-insensitive: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_tags.html"""
    return [value for key, value in tags if key.casefold() == tag_key.casefold()]
