"""Who made each violation: the latest event whose effect is the value that violates the rule. Pure.

Events tell whole seconds, so two of the same second are both named. What no event explains is unknown until an event
claims it; a rule that changed explains it, too, and so does a target that was noncompliant when the guard first saw it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import timedelta

from chalicelib.domain.model import ChangeEvent, Effect, KeyEvent, Subject, key_id_of
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Rule, sha256_of
from chalicelib.domain.reasons import Violation
from chalicelib.domain.run import Known, Run
from chalicelib.domain.stored import Attribution, Cause, SeenEffect

MOST_EFFECTS = 32
"""Keeps a target's state small, whoever floods it with events; older events stay on the record."""

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


def remember(
    known: tuple[SeenEffect, ...], event: ChangeEvent | KeyEvent, cause: Cause | None
) -> tuple[SeenEffect, ...]:
    """The effects with the event's own at their end; a refused call has none, and a grant makes no violation."""
    effect = event.effect
    if effect is None or effect.subject is Subject.GRANTS or cause is None:
        return known
    return (*known, SeenEffect(cause, effect.subject, effect.resource, _comparable(effect)))[-MOST_EFFECTS:]


def attribute(
    run: Run, known: Known, effects: Iterable[SeenEffect], seen: Observation, violations: tuple[Violation, ...]
) -> tuple[Attribution, ...]:
    """Each violation with the events that made it."""
    assert run.rule is not None
    in_time = [each for each in effects if each.cause.at <= seen.at + ONE_SECOND]
    found = []
    for violation in violations:
        fits = _maker_of(violation, run.rule, known, seen)
        made = [each.cause for each in in_time if fits(each)]
        last = max((cause.at for cause in made), default=None)
        found.append(Attribution(violation, tuple(cause for cause in made if cause.at == last)))
    return tuple(_explained(each, run, known) for each in found)


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


def _maker_of(violation: Violation, rule: Rule, known: Known, seen: Observation) -> Callable[[SeenEffect], bool]:
    """Whether an effect is the value that the violation is about."""
    keys = {key_id_of(arn) for arn in (seen.setting.key_arn, known.state.managed_key) if arn}

    def of_setting(each: SeenEffect) -> bool:
        return each.subject is Subject.SETTING and each.after == str(seen.setting)

    def of_key(each: SeenEffect) -> bool:
        return each.resource is not None and key_id_of(each.resource) in keys

    if violation in OF_THE_SETTING:
        return of_setting
    if violation in KEY_STATES:
        states = KEY_STATES[violation]
        return lambda each: each.subject is Subject.KEY_STATE and of_key(each) and each.after in states
    if violation is Violation.KEY_ROTATION_OFF:
        return lambda each: each.subject is Subject.KEY_ROTATION and of_key(each) and each.after == "off"
    if violation is Violation.KEY_POLICY_INCOMPLETE:
        shown = {
            canonical_digest(key.policy)
            for arn, key in seen.keys.items()
            if key and key.policy and key_id_of(arn) in keys
        }
        return lambda each: each.subject is Subject.KEY_POLICY and of_key(each) and each.after in shown
    if violation is Violation.ALIAS_MOVED:
        alias = rule.managed_key.alias
        value = seen.aliases.get(alias) or "deleted"
        return lambda each: each.subject is Subject.ALIAS and each.resource == alias and each.after == value
    return lambda each: False  # rather unknown than the wrong actor


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
