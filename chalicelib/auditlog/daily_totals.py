"""The amounts that a write adds to the figures, so that queries for figures do not read the log.

The amounts depend only on the state before, the state after and the new records, so they are added exactly once, in the
transaction that stores these. Each addition is an ADD of whole numbers to an item in the targets table:

figures#<day>#<shard>  incidents opened and closed on that UTC day, records by outcome, break-glass notes by kind, and
                       two histograms of the incidents closed on that day: exposure and time to remediate
actors#<day>#<shard>   incidents opened on that day, by actor
present#<shard>        the number of targets, by outcome, and of compliant targets

Figures are the sum over all shards (`summary`), so that targets that write at the same moment can use different shards.

Each bucket of a histogram is `GROWTH` times as wide as the previous one. The error of a percentile is less than
`RELATIVE_ERROR` of its value (less than `FINEST_SECONDS` for shorter durations).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from chalicelib.domain.model import TriggerKind
from chalicelib.domain.reasons import BREAK_GLASS_NOTES, Outcome
from chalicelib.domain.stored import Cause, GuardState, Incident, PastIncident, Record, TargetState
from chalicelib.domain.times import seconds

SHARDS = 4
"""The number of items for one day's figures. It may grow; if it shrank, figures would be lost."""

FIGURES, ACTORS, PRESENT = "figures", "actors", "present"

GROWTH = 1.1
RELATIVE_ERROR = (GROWTH - 1) / (GROWTH + 1)
FINEST_SECONDS = 0.1
MOST_BUCKETS = 240
"""The last bucket has all longer durations: about 26 years and more."""

LONGEST_ACTOR = 256
COMPLIANT = frozenset({Outcome.COMPLIANT, Outcome.REMEDIATED})


class Addition(NamedTuple):
    """The amounts to add to one item, by attribute. `item` has no shard: `figures#2026-11-20`."""

    item: str
    amounts: tuple[tuple[str, int], ...]


def additions(
    before: TargetState | GuardState, after: TargetState | GuardState, records: Sequence[Record]
) -> list[Addition]:
    """The amounts that this write adds to the figures; none for the guard's own chain."""
    if not isinstance(before, TargetState) or not isinstance(after, TargetState):
        return []
    sums = _Sums()
    if records and before.incident and (after.incident is None or after.incident.id != before.incident.id):
        sums.add(_day(FIGURES, records[-1].at), "closed")
    for record in records:
        sums.add(_day(FIGURES, record.at), f"outcome:{record.outcome.value}")
        if record.reason in BREAK_GLASS_NOTES:
            name = record.reason.removeprefix("BREAK_GLASS_").lower()  # opened, refused or ended
            sums.add(_day(FIGURES, record.at), f"suppression:{name}")
        if record.incident_id == record.record_id:
            sums.add(_day(FIGURES, record.at), "opened")
        if record.exposure_seconds is not None:
            _add_end(sums, before, record, record.exposure_seconds)
    for incident, cause in _newly_explained(before, after):
        sums.add(_day(ACTORS, incident.opened_at), f"actor:{_short(cause.actor.arn)}")
    _add_present(sums, before, after)
    return sums.additions()


def _add_end(sums: _Sums, before: TargetState, record: Record, exposure_seconds: float) -> None:
    """Count the duration of an incident, or correct it if the event of its cause arrives late.

    An incident that ended because its rule no longer judges the target has no exposure. If its change event arrives
    after that, the correction subtracts what was never counted; `summary` ignores negative amounts.
    """
    past = next((each for each in before.past if each.id == record.incident_id), None)
    if past is not None:
        # It was counted from its detection; now the time of the change is known.
        if past.cause is None and record.trigger.kind in (TriggerKind.CHANGE, TriggerKind.KEY, TriggerKind.HISTORY):
            day = _day(FIGURES, past.closed_at)
            sums.add(day, f"exposure:{bucket(seconds(past.closed_at - past.opened_at))}", -1)
            sums.add(day, f"exposure:{bucket(exposure_seconds)}")
        return
    day = _day(FIGURES, record.at)
    sums.add(day, f"exposure:{bucket(exposure_seconds)}")
    if record.outcome is Outcome.REMEDIATED and before.incident is not None:
        sums.add(day, f"remediate:{bucket(seconds(record.at - before.incident.opened_at))}")


def _newly_explained(before: TargetState, after: TargetState) -> Iterator[tuple[Incident | PastIncident, Cause]]:
    """The incidents whose cause becomes known with this write."""
    known = {each.id for each in _incidents(before) if each.cause is not None}
    for incident in _incidents(after):
        if incident.cause is not None and incident.id not in known:
            yield incident, incident.cause


def _incidents(state: TargetState) -> Iterator[Incident | PastIncident]:
    yield from state.past
    if state.incident is not None:
        yield state.incident


def _add_present(sums: _Sums, before: TargetState, after: TargetState) -> None:
    if before.version == 0:
        sums.add(PRESENT, "targets")
    else:
        sums.add(PRESENT, f"outcome:{before.outcome or 'UNKNOWN'}", -1)
        sums.add(PRESENT, "compliant", -is_compliant(before))
    sums.add(PRESENT, f"outcome:{after.outcome or 'UNKNOWN'}")
    sums.add(PRESENT, "compliant", +is_compliant(after))


def is_compliant(state: TargetState) -> bool:
    """Whether the setting satisfied the rule at the last check."""
    return state.outcome in COMPLIANT and state.incident is None


class _Sums:
    """Amounts by item and attribute."""

    def __init__(self) -> None:
        self._items: dict[str, Counter[str]] = {}

    def add(self, item: str, attribute: str, amount: int = 1) -> None:
        self._items.setdefault(item, Counter())[attribute] += amount

    def additions(self) -> list[Addition]:
        """The amounts that are not zero."""
        found = []
        for item, amounts in sorted(self._items.items()):
            kept = tuple(sorted((name, amount) for name, amount in amounts.items() if amount))
            if kept:
                found.append(Addition(item, kept))
        return found


def bucket(seconds: float) -> int:
    """The number of the histogram's bucket for a duration."""
    if seconds <= FINEST_SECONDS:
        return 0
    return min(MOST_BUCKETS, math.ceil(math.log(seconds / FINEST_SECONDS, GROWTH)))


def seconds_of(number: int) -> float:
    """The duration that represents a bucket: its relative distance to both ends is the same."""
    if number <= 0:
        return FINEST_SECONDS
    return FINEST_SECONDS * 2 * GROWTH**number / (GROWTH + 1)


def _day(kind: str, at: datetime) -> str:
    return f"{kind}#{at.astimezone(UTC).date().isoformat()}"


def _short(arn: str) -> str:
    """An actor as the name of an attribute. A name longer than IAM's ARNs is cut and gets a digest."""
    sent = arn.encode("utf-8", "replace")
    if len(sent) <= LONGEST_ACTOR:
        return sent.decode()
    return f"{sent[: LONGEST_ACTOR - 20].decode('utf-8', 'ignore')}…{hashlib.sha256(sent).hexdigest()[:16]}"
