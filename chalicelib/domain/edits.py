"""Find values in a stored state that the guard never stores: somebody else edited it. Pure.

A lease, a backoff or a due time in the far future would keep the guard from acting, and a break-glass could be in force
for longer than any policy allows. Each has a maximum. A value beyond it is not used.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from chalicelib.domain import waiting
from chalicelib.domain.breakglass import LONGEST_BREAK_GLASS, Closing
from chalicelib.domain.run import Edit
from chalicelib.domain.stored import Incident, Suppression, TargetState
from chalicelib.domain.times import CLOCK_SKEW


def without_edits(state: TargetState, now: datetime) -> tuple[TargetState, tuple[Edit, ...]]:
    """Return the state as the guard may use it, and the values that it does not use.

    A lease ends now, so that another worker takes over. What was due is due now. An intent is due after its maximum:
    not finding its key earlier proves nothing. A break-glass is closed.
    """
    found = _Edits(now)
    changes: dict[str, object] = {}
    if state.incident is not None:
        changes["incident"] = _incident(state.incident, found)
    if state.intent is not None and found.is_late("intent.due", state.intent.due, waiting.LONGEST_INTENT):
        changes["intent"] = replace(state.intent, due=now + waiting.LONGEST_INTENT)
    if found.is_late("recheck_at", state.recheck_at, waiting.STALE_READS):
        changes["recheck_at"] = now
    if found.is_late("watch", state.watch, timedelta()):
        changes["watch"] = now
    changes["backoffs"] = {
        lane: replace(each, until=None)
        if found.is_late(f"backoffs.{lane}.until", each.until, waiting.LONGEST_BACKOFF)
        else each
        for lane, each in state.backoffs.items()
    }
    for name in ("checked_at", "good_at", "good_setting_at"):
        if found.is_late(name, getattr(state, name), timedelta()):
            changes[name] = None
    if state.links is not None and found.is_late("links.at", state.links.at, timedelta()):
        changes["links"] = None
    changes["suppressions"] = tuple(found.checked(each) for each in state.suppressions)
    return (replace(state, **changes) if found.edits else state), tuple(found.edits)


def _incident(incident: Incident, found: _Edits) -> Incident:
    lease = incident.lease
    if lease is not None and found.is_late("incident.lease.until", lease.until, waiting.LONGEST_LEASE):
        incident = replace(incident, lease=replace(lease, until=found.now))
    if found.is_late("incident.due", incident.due, waiting.LONGEST_INCIDENT):
        incident = replace(incident, due=found.now)
    if found.is_late("incident.settles_until", incident.settles_until, waiting.LONGEST_SETTLING):
        incident = replace(incident, settles_until=None)
    return incident


class _Edits:
    """The edits found so far, at one moment."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.edits: list[Edit] = []

    def is_late(self, field: str, at: datetime | None, longest: timedelta) -> bool:
        """Whether a time is further away than the guard ever sets it. The guard's times have a time zone."""
        if at is None or (at.tzinfo is not None and at <= self.now + longest + CLOCK_SKEW):
            return False
        self.edits.append(Edit(field, at.isoformat()))
        return True

    def checked(self, each: Suppression) -> Suppression:
        """Return a break-glass, closed if it is in force for longer than any policy allows."""
        if each.closed is not None or each.refused is not None:
            return each
        if self.is_late("suppressions.first_seen", each.first_seen, timedelta()):
            return replace(each, closed=Closing.EDITED.value)
        if each.until is not None and each.until.tzinfo and each.until <= each.first_seen + LONGEST_BREAK_GLASS:
            return each
        self.edits.append(Edit("suppressions.until", each.until.isoformat() if each.until else "none"))
        return replace(each, closed=Closing.EDITED.value)
