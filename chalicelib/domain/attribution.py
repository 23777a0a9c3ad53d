"""Who made each violation: the latest event whose effect is the value that violates the rule. Pure.

Events tell whole seconds, so two of the same second are both named. What no event explains is unknown until an event
claims it; a rule that changed explains it, too, and so does a target that was noncompliant when the guard first saw it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec.structs import replace

from chalicelib.domain.judge import OF_SPANS, forbidden_links
from chalicelib.domain.model import ChangeEvent, Effect, KeyEvent, Setting, Subject, key_id_of
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Rule, sha256_of
from chalicelib.domain.reasons import Violation
from chalicelib.domain.run import Known, Run
from chalicelib.domain.spans import IN_LOGS, SPANS_GROUP
from chalicelib.domain.stored import Attribution, Cause, Maker, SeenEffect
from chalicelib.domain.waiting import STALE_READS

MOST_EFFECTS = 32
"""Keeps a target's state small, whoever floods it with events; older events stay on the record."""

MOST_OF_ONE = 6
"""Of the effects on one key's state, policy or rotation, on one alias, or on the setting."""

MOST_TIED = 8
"""The events of one second that are named for a violation."""

LONGEST_VALUE = 256
ONE_SECOND = timedelta(seconds=1)

OF_THE_SETTING = frozenset(
    {
        Violation.NOT_KMS,
        Violation.AWS_MANAGED_KEY,
        Violation.KEY_NOT_ALLOWED,
        Violation.KEY_FOREIGN_ACCOUNT,
        Violation.KEY_ASYMMETRIC,
    }
)
"""The violations that a choice of the setting makes. All others are in `judge.OF_THE_KEY`."""

KEY_STATES = {
    Violation.KEY_DISABLED: ("Disabled",),
    Violation.KEY_PENDING_DELETION: ("PendingDeletion",),
    Violation.KEY_NOT_FOUND: ("deleted",),
    Violation.KEY_UNAVAILABLE: ("PendingImport", "deleted"),
}


def effect_of(event: ChangeEvent | KeyEvent, cause: Cause | None) -> SeenEffect | None:
    """What the event changed, to be compared; None for a refused call, and for what makes no violation."""
    effect = event.effect
    if effect is None or effect.subject in (Subject.GRANTS, Subject.TAGS) or cause is None:
        return None
    return SeenEffect(cause, effect.subject, effect.resource, _comparable(effect))


def remember(known: tuple[SeenEffect, ...], effect: SeenEffect | None) -> tuple[SeenEffect, ...]:
    """The effects with this one at their end.

    Of one thing only so many are kept, so that many harmless changes of it do not displace what was done to another.
    """
    if effect is None:
        return known
    same = [each for each in known if (each.subject, each.resource) == (effect.subject, effect.resource)]
    oldest = same[0] if len(same) >= MOST_OF_ONE else None
    return (*(each for each in known if each is not oldest), effect)[-MOST_EFFECTS:]


def attribute(
    run: Run, known: Known, effects: tuple[SeenEffect, ...], makers: tuple[Maker, ...], violations: Iterable[Violation]
) -> tuple[Attribution, ...]:
    """Each violation with the events that made it, or what else explains it."""
    found = name_makers(tuple(map(Attribution, violations)), makers, effects)
    return tuple(_explained(each, run, known) for each in found)


def name_makers(
    found: tuple[Attribution, ...], makers: Iterable[Maker], effects: tuple[SeenEffect, ...]
) -> tuple[Attribution, ...]:
    """The attributions with the events that made the violations, as far as they are known by now."""
    by_violation = {maker.violation: maker for maker in makers}
    return tuple(
        _named(each, by_violation[each.violation], effects) if each.violation in by_violation else each
        for each in found
    )


def _named(found: Attribution, maker: Maker, effects: tuple[SeenEffect, ...]) -> Attribution:
    """The latest events whose effect the guard saw; none that another change undid before."""
    of_it = [effect for effect in effects if _concerns(effect, maker)]
    undone = [
        effect.cause.at
        for effect in of_it
        if effect.after not in maker.values and effect.cause.at + ONE_SECOND <= maker.seen_at
    ]
    made = {event.event_id: event for event in found.events}
    made |= {effect.cause.event_id: effect.cause for effect in of_it if effect.after in maker.values}
    last = max((event.at for event in made.values()), default=None)
    if last is None:
        return found
    if any(at > last for at in undone):
        if not found.events:
            return found
        last = found.events[0].at  # it is not known to be undone; who did the same in that second is named as well
    return Attribution(found.violation, tuple(event for event in made.values() if event.at == last)[:MOST_TIED])


def _concerns(effect: SeenEffect, maker: Maker) -> bool:
    """Whether the event changed what the violation is about, between the last time it was right and the observation."""
    resource = key_id_of(effect.resource) if effect.resource else None
    return (
        effect.subject is maker.subject
        and (not maker.resources or resource in maker.resources)
        and effect.cause.at <= maker.seen_at + ONE_SECOND
        and (maker.since is None or effect.cause.at >= maker.since.replace(microsecond=0))
    )


def _explained(found: Attribution, run: Run, known: Known) -> Attribution:
    """Where no event made it, perhaps the rule did, or it was there before the guard."""
    stored = known.stored
    if found.events:
        return found
    if stored.first_seen is None:
        return Attribution(found.violation, before_guard=True)
    if stored.incident is None and stored.policy_digest not in (None, run.setup.policy_digest):
        return Attribution(found.violation, policy_digest=run.setup.policy_digest)
    return found


def makers_of(rule: Rule, known: Known, seen: Observation, violations: Iterable[Violation]) -> tuple[Maker, ...]:
    """What made each violation: none where it is better unknown than attributed to the wrong actor."""
    return tuple(maker for each in violations if (maker := _maker_of(each, rule, known, seen)))


def _maker_of(violation: Violation, rule: Rule, known: Known, seen: Observation) -> Maker | None:
    keys = tuple(sorted({key_id_of(arn) for arn in (seen.setting.key_arn, known.state.managed_key) if arn}))
    good_at, checked_at = known.stored.good_at, known.stored.checked_at
    if violation in OF_THE_SETTING:
        since = known.stored.good_setting_at or good_at
        return Maker(violation, seen.at, Subject.SETTING, (), _spellings(seen.setting), since)
    # KMS may show what was repaired lately. What was repaired earlier, it shows no more.
    oldest = seen.at - STALE_READS
    repaired = max((past.closed_at for past in known.stored.past if past.closed_at < oldest), default=None)
    good_at, checked_at = (at - STALE_READS if at and at < oldest else repaired for at in (good_at, checked_at))
    if violation is Violation.ALIAS_MOVED:
        alias = rule.managed_key.alias
        return Maker(violation, seen.at, Subject.ALIAS, (alias,), (seen.aliases.get(alias) or "deleted",), good_at)
    if violation in OF_SPANS or violation is Violation.SPANS_FORBIDDEN:
        return _maker_of_spans(violation, seen, good_at)
    if violation is Violation.TRACES_COPIED:
        links = forbidden_links(rule, known.state, seen)
        resources = tuple(sorted(key_id_of(link.arn) for link in links))
        accounts = tuple(sorted({link.account for link in links}))
        # The links are listed once a day, so that the target was compliant later proves nothing.
        return Maker(violation, seen.at, Subject.LINKS, resources, (*accounts, "another account")) if links else None
    if not keys:
        return None
    if violation in KEY_STATES:
        return Maker(violation, seen.at, Subject.KEY_STATE, keys, KEY_STATES[violation], good_at)
    if violation is Violation.KEY_ROTATION_OFF:
        return Maker(violation, seen.at, Subject.KEY_ROTATION, keys, ("off",), checked_at)
    if violation is Violation.KEY_ROTATION_SLOW:
        periods = {key.rotation_days for key in seen.keys.values() if key and key_id_of(key.arn) in keys}
        values = tuple(sorted(f"on every {days} days" for days in periods if days))
        return Maker(violation, seen.at, Subject.KEY_ROTATION, keys, (*values, "on"), checked_at)
    if violation in (Violation.KEY_POLICY_INCOMPLETE, Violation.KEY_POLICY_OPEN):
        policies = (key.policy for arn, key in seen.keys.items() if key and key.policy and key_id_of(arn) in keys)
        values = tuple(sorted(map(canonical_digest, policies)))
        return Maker(violation, seen.at, Subject.KEY_POLICY, keys, values, checked_at)
    return None


def _maker_of_spans(violation: Violation, seen: Observation, good_at: datetime | None) -> Maker | None:
    """Spans without a key were made by taking it off, or by sending spans to a log group that has none."""
    spans = seen.spans
    group = spans.group
    match violation:
        case Violation.SPANS_FORBIDDEN:
            return Maker(violation, seen.at, Subject.SPANS, (), (IN_LOGS,), good_at)
        case Violation.SPANS_NOT_KMS:
            return Maker(violation, seen.at, Subject.SPANS, (), (IN_LOGS, "none"), good_at)
        case _ if group is None or group.key_arn is None:
            return None
        case Violation.SPANS_KEY_NOT_ALLOWED:
            return Maker(violation, seen.at, Subject.SPANS, (key_id_of(SPANS_GROUP),), (group.key_arn,), good_at)
    states = tuple(dict.fromkeys(state for each in KEY_STATES.values() for state in each))
    return Maker(violation, seen.at, Subject.KEY_STATE, (key_id_of(group.key_arn),), states, good_at)


def _spellings(setting: Setting) -> tuple[str, ...]:
    """The setting as an event may name it: by the key's ARN or by its id."""
    bare = replace(setting, key_arn=key_id_of(setting.key_arn)) if setting.key_arn else setting
    return tuple(dict.fromkeys(str(each)[:LONGEST_VALUE] for each in (setting, bare)))


def _comparable(effect: Effect) -> str | None:
    if effect.subject is Subject.KEY_POLICY and effect.after is not None:
        return canonical_digest(effect.after)
    return effect.after[:LONGEST_VALUE] if effect.after else effect.after


def canonical_digest(policy: str) -> str:
    """A digest of a key policy that does not depend on the spacing and the order in which JSON is written."""
    try:
        text = json.dumps(json.loads(policy), sort_keys=True)
    except (ValueError, RecursionError):
        text = policy
    return sha256_of(text.encode("utf-8", "replace"))
