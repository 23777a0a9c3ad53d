"""What the guard last saw of the setting, the keys and the aliases that matter to a target, and since when. Pure.

It is what the record of an event gives as the value before the change. Each value is kept with the time from which it
is known, because events come late and in any order: an observation may show the effect of an event that comes after it.
Values come from what a run observed, from events that were recorded, and from the guard's own calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TypeAlias

from msgspec.structs import replace

from chalicelib.domain.attribution import ONE_SECOND, canonical_digest
from chalicelib.domain.model import ChangeEvent, EncryptionType, Key, KeyEvent, Setting, Subject
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Rule
from chalicelib.domain.spans import IN_LOGS, SPANS_GROUP
from chalicelib.domain.steps import StepName
from chalicelib.domain.stored import Action, LastSeen, SeenValue, TargetState
from chalicelib.domain.waiting import STALE_READS

MOST_VALUES = 3
"""The latest values of each thing: of two people's changes, both may arrive after the guard saw the result."""

MOST_ALIASES = 3
LONGEST_VALUE = 512
"""The longest text kept of a value, such as a key's tags, in characters."""

SEPARATOR, ASSIGNS = "\n", "\t"
"""Between the tags of a key, and between a tag's key and value: they are in no tag, while `=` may be."""

CUT = "…"
"""At the end of tags of which some were left out."""

Shown: TypeAlias = tuple[Subject, str | None, str]
"""A subject, its key or alias, and its value."""


def value_before(state: TargetState, event: ChangeEvent | KeyEvent) -> str | None:
    """Return the value that was last seen before the event; None if none was seen, or the event says nothing.

    Of tags, only those that the event set or removed: `team=a, owner not set`.
    """
    effect, at = event.effect, event.trigger.event_time
    if effect is None:
        return None
    seen = _find(state.last_seen, effect.subject, effect.resource)
    if seen is None:  # a former version kept only the setting
        return str(state.setting) if effect.subject is Subject.SETTING and state.setting else None
    value = _value_at(seen, at, _comparable(effect.subject, effect.after) if effect.after else None)
    return _touched(value, event.tag_keys) if value is not None and isinstance(event, KeyEvent) else value


def with_event(state: TargetState, rule: Rule | None, event: ChangeEvent | KeyEvent) -> tuple[LastSeen, ...]:
    """Return what was last seen, with the value that a recorded event set as far as it says so."""
    effect, at = event.effect, event.trigger.event_time
    if effect is None or effect.after is None or at is None or effect.subject in (Subject.GRANTS, Subject.LINKS):
        return state.last_seen
    value = _comparable(effect.subject, effect.after)
    if isinstance(event, KeyEvent) and effect.subject is Subject.TAGS:
        seen = _find(state.last_seen, effect.subject, effect.resource)
        before = _value_at(seen, at) if seen else None
        if before is None:
            return state.last_seen
        value = _with_tags(before, event)
    return _kept(_with(state.last_seen, (effect.subject, effect.resource, value), at), state, rule)


def with_observation(state: TargetState, rule: Rule | None, seen: Observation, now: datetime) -> tuple[LastSeen, ...]:
    """Return what was last seen, with what the observation shows. `state` has the observed setting already.

    `now` is a time after the reads, so that no value counts as older than the change that made it.
    """
    last_seen = state.last_seen
    for shown in _shown(seen):
        if not _may_be_stale(_find(last_seen, *shown[:2]), shown, now):
            last_seen = _with(last_seen, shown, now)
    return _kept(last_seen, state, rule)


def with_actions(state: TargetState, rule: Rule | None, actions: Iterable[Action]) -> tuple[LastSeen, ...]:
    """Return what was last seen, with the values that the guard's own calls set."""
    last_seen = state.last_seen
    for action in actions:
        made = _made(action)
        if made is not None and action.error is None:
            last_seen = _with(last_seen, made, action.at)
    return _kept(last_seen, state, rule)


# --- values ----------------------------------------------------------------------------------------------------------


def _shown(seen: Observation) -> Iterator[Shown]:
    yield Subject.SETTING, None, str(seen.setting)
    if seen.spans.are_in_logs:
        yield Subject.SPANS, None, IN_LOGS
        if seen.spans.group is not None:
            yield Subject.SPANS, SPANS_GROUP, seen.spans.group.key_arn or "none"
    for alias, arn in seen.aliases.items():
        yield Subject.ALIAS, alias, arn or "none"
    for arn, key in seen.keys.items():
        yield Subject.KEY_STATE, arn, key.state if key else "deleted"
        if key is not None:
            yield from _details(key)


def _details(key: Key) -> Iterator[Shown]:
    """Yield what a deep observation shows; nothing of what KMS did not return."""
    if key.policy is not None:
        yield Subject.KEY_POLICY, key.arn, _comparable(Subject.KEY_POLICY, key.policy)
    if key.rotation is not None:
        every = f" every {key.rotation_days} days" if key.rotation_days else ""
        yield Subject.KEY_ROTATION, key.arn, f"on{every}" if key.rotation else "off"
    if key.tags is not None:
        yield Subject.TAGS, key.arn, _joined(f"{tag}{ASSIGNS}{value}" for tag, value in key.tags)


def _made(action: Action) -> Shown | None:
    match action.name:
        case StepName.PUT_SETTING if action.after is not None:
            return Subject.SETTING, None, str(Setting(EncryptionType.KMS, action.after))
        case StepName.ASSOCIATE_KEY if action.key_arn is not None:
            return Subject.SPANS, SPANS_GROUP, action.key_arn
        case StepName.ENABLE_KEY:
            return Subject.KEY_STATE, action.key_arn, "Enabled"
        case StepName.CANCEL_DELETION:
            return Subject.KEY_STATE, action.key_arn, "Disabled"
        case StepName.ENABLE_ROTATION if action.after is not None:
            return Subject.KEY_ROTATION, action.key_arn, f"on every {action.after}"
        case StepName.PUT_KEY_POLICY if action.after is not None:
            return Subject.KEY_POLICY, action.key_arn, _comparable(Subject.KEY_POLICY, action.after)
        case StepName.CREATE_ALIAS | StepName.UPDATE_ALIAS if action.key_arn is not None:
            return Subject.ALIAS, action.after, action.key_arn
    return None


def _comparable(subject: Subject, value: str) -> str:
    """Return the value as it is kept: of a key policy a digest, of an alias that was deleted `none`."""
    if subject is Subject.KEY_POLICY:
        return f"sha256:{canonical_digest(value)}"
    return "none" if subject is Subject.ALIAS and value == "deleted" else value[:LONGEST_VALUE]


def _may_be_stale(known: LastSeen | None, shown: Shown, now: datetime) -> bool:
    """Whether KMS may still show the value from before the latest change. X-Ray's setting is never stale."""
    subject, _, value = shown
    if known is None or len(known.values) < 2 or subject is Subject.SETTING:
        return False
    former, latest = known.values[-2:]
    return value == former.value and now < latest.since + STALE_READS


# --- tags ------------------------------------------------------------------------------------------------------------


def _joined(tags: Iterable[str]) -> str:
    text = SEPARATOR.join(sorted(tags))
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}{CUT}"


def _with_tags(before: str, event: KeyEvent) -> str:
    kept = (tag for tag in before.removesuffix(CUT).split(SEPARATOR) if tag and not _names(tag, event.tag_keys))
    after = _joined((*kept, *(f"{tag}{ASSIGNS}{value}" for tag, value in event.tags)))
    return f"{after}{CUT}" if before.endswith(CUT) and not after.endswith(CUT) else after


def _touched(value: str, keys: tuple[str, ...]) -> str:
    """Return the former values of a call's tags; the value itself if the call is not about tags."""
    if not keys:
        return value
    tags = value.split(SEPARATOR)
    absent = "unknown" if value.endswith(CUT) else "not set"
    former = (next((tag for tag in tags if _names(tag, (key,))), f"{key} {absent}") for key in keys)
    return ", ".join(tag.replace(ASSIGNS, "=") for tag in former)


def _names(tag: str, keys: tuple[str, ...]) -> bool:
    return any(tag.startswith(f"{key}{ASSIGNS}") for key in keys)


# --- what is kept ----------------------------------------------------------------------------------------------------


def _find(last_seen: tuple[LastSeen, ...], subject: Subject, resource: str | None) -> LastSeen | None:
    return next((each for each in last_seen if (each.subject, each.resource) == (subject, resource)), None)


def _value_at(seen: LastSeen, at: datetime | None, after: str | None = None) -> str | None:
    """Return the value at a time, by what is known now; the latest one if the time is unknown.

    Event times have whole seconds: what is known from the event's own second was before it, unless it is `after`, what
    the event made.
    """
    values = [each.value for each in seen.values if at is None or each.since <= at or _same_second(each, at, after)]
    return values[-1] if values else None


def _same_second(each: SeenValue, at: datetime, after: str | None) -> bool:
    return after is not None and each.value != after and each.since < at + ONE_SECOND


def _with(last_seen: tuple[LastSeen, ...], shown: Shown, at: datetime) -> tuple[LastSeen, ...]:
    subject, resource, value = shown
    known = _find(last_seen, subject, resource)
    if known is None:
        return (*last_seen, LastSeen(subject, resource, (SeenValue(value, at),)))
    former = tuple(each for each in known.values if each.since <= at)
    later = known.values[len(former) :]
    if former and former[-1].value == value:
        return last_seen
    if later and later[0].value == value:
        later = later[1:]
    changed = replace(known, values=(*former, SeenValue(value, at), *later)[-MOST_VALUES:])
    return tuple(changed if each is known else each for each in last_seen)


def _kept(last_seen: tuple[LastSeen, ...], state: TargetState, rule: Rule | None) -> tuple[LastSeen, ...]:
    """Return only what is about the setting, spans, the managed key, the setting's key or an alias of the rule."""
    keys = (state.managed_key, state.setting.key_arn if state.setting else None)
    aliases = rule.aliases[:MOST_ALIASES] if rule else ()
    kept = {None, SPANS_GROUP, *keys, *aliases}
    return tuple(
        each for each in last_seen if each.resource in kept or (rule is None and each.subject is Subject.ALIAS)
    )
