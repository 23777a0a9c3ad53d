"""Which calls are only counted once their caller has made many, so that nobody can fill the log with them. Pure.

Calls that AWS refused, and changes to tags that mean nothing to the guard, are cheap to make and change nothing that
matters. Of one actor and target, the first ten within an hour are recorded in full. Every further one is counted in a
`Tally`, apart from the target's versioned state, and `tick` records the number when the hour is over. Everything else
is always recorded in full.
"""

from __future__ import annotations

from datetime import datetime

from chalicelib.domain.events import MAX_REMOVED
from chalicelib.domain.model import GUARD_TAG_KEY, NONCE_TAG_KEY, ChangeEvent, KeyEvent, Subject
from chalicelib.domain.policy import Rule
from chalicelib.domain.run import Known, Run, must_audit
from chalicelib.domain.stored import Tally

MOST_IN_FULL = 10


def tally_of(run: Run, now: datetime) -> Tally | None:
    """Return an empty tally for the run's event; None if such an event is always recorded in full.

    The sessions of a role share a tally, and so do the users that one principal federates: both can be made at will.
    """
    event = run.event
    actor = event.trigger.actor if event else None
    if event is None or actor is None or run.is_by_own_role:
        return None
    countable = _is_refused(event) or (isinstance(event, KeyEvent) and _are_strange_tags(event, run.rule))
    return Tally(str(run.target), actor.issued_by or actor.arn, now) if countable else None


def is_flood(run: Run, known: Known) -> bool:
    """Whether the run's event is only counted."""
    return must_audit(run, known) and known.tally is not None and known.tally.seen >= MOST_IN_FULL


def in_full(tally: Tally, now: datetime) -> Tally:
    """Return what a call adds to the tally that is recorded in full."""
    return Tally(tally.target, tally.principal, now, seen=1)


def only_counted(tally: Tally, event: ChangeEvent | KeyEvent, now: datetime) -> Tally:
    """Return what a call adds to the tally that has no record of its own."""
    refused = _is_refused(event)
    return Tally(tally.target, tally.principal, now, 1, int(refused), int(not refused))


def summary(tally: Tally) -> dict[str, object]:
    """Return the detail of the record that closes a tally."""
    refused, tag_changes = tally.refused, tally.tag_changes
    parts = [f"{refused} more refused {'call' if refused == 1 else 'calls'}"] if refused else []
    parts += [f"{tag_changes} more {'change' if tag_changes == 1 else 'changes'} of other tags"] if tag_changes else []
    return {
        "message": f"{' and '.join(parts)} by {tally.principal} since {tally.since:%Y-%m-%dT%H:%M:%SZ}",
        "refused_calls": refused,
        "tag_changes": tag_changes,
        "since": f"{tally.since:%Y-%m-%dT%H:%M:%SZ}",
    }


def _is_refused(event: ChangeEvent | KeyEvent) -> bool:
    return event.error_code is not None


def _are_strange_tags(event: KeyEvent, rule: Rule | None) -> bool:
    """Whether the event only changed tags that neither the guard nor the rule knows. IAM ignores a tag key's case."""
    if event.effect is None or event.effect.subject is not Subject.TAGS or not event.tag_keys or rule is None:
        return False
    glass = (rule.break_glass.tag,) if rule.break_glass else ()
    if len(event.tag_keys) >= MAX_REMOVED:
        return False
    known = {key.lower() for key in (GUARD_TAG_KEY, NONCE_TAG_KEY, *glass, *rule.managed_key.tags)}
    return known.isdisjoint(key.lower() for key in event.tag_keys)
