"""Whether the guard itself works: what it stored last, what is overdue, and its dead-letter queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from chalicelib.auditlog import history
from chalicelib.auditlog.filters import Filter
from chalicelib.auditlog.views import TargetView
from chalicelib.domain.errors import AwsError
from chalicelib.domain.model import TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GuardState
from chalicelib.operators.context import Operator
from chalicelib.operators.dead_letters import Queue
from chalicelib.operators.errors import OperatorError, operator_error
from chalicelib.operators.findings import LONGEST_WITHOUT_SWEEP
from chalicelib.operators.formatting import time_text

RECORDS_SEARCHED = 100
LONGEST_OVERDUE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Vitals:
    """The signs of the guard's life.

    `event_at` is when the newest event was recorded, None if none of the `searched` newest records is of an event.
    `oldest_due` is the target whose check is due first, as long as nothing suspends it. `dead_letters` is the length of
    the queue, None if it is unknown because of `problem`.
    """

    swept_at: datetime | None
    sweep_is_stale: bool
    event_at: datetime | None
    searched: int
    oldest_due: TargetView | None
    is_overdue: bool
    deaf: Mapping[str, datetime]
    dead_letters: int | None
    problem: str | None

    @property
    def alive(self) -> bool:
        """Whether nothing of all that is wrong."""
        return not (self.sweep_is_stale or self.is_overdue or self.deaf or self.dead_letters)

    def to_json(self) -> dict[str, Any]:
        """The fields for a program; `oldest_due` is the target and its time."""
        due = self.oldest_due
        return {
            "alive": self.alive,
            "swept_at": _time(self.swept_at),
            "event_at": _time(self.event_at),
            "oldest_due": {"target": due.target, "due": _time(due.due)} if due else None,
            "deaf": {target: _time(since) for target, since in self.deaf.items()},
            "dead_letters": self.dead_letters,
        }


def vitals(operator: Operator, guard: GuardState, targets: Sequence[TargetView], now: datetime) -> Vitals:
    """Read the signs of life. What AWS denies is unknown; any other error of the log's reads is raised."""
    latest = history.records(operator.store, Filter(), now, RECORDS_SEARCHED, most_items=RECORDS_SEARCHED)
    kinds = (TriggerKind.CHANGE, TriggerKind.KEY)
    events = [entry.record.at for entry in latest.entries if entry.record.trigger.kind in kinds]
    # The guard checks a suppressed target every minute without changing its due time.
    waits = [view for view in targets if view.due and view.outcome is not Outcome.SUPPRESSED]
    oldest = min(waits, key=lambda view: view.due or now, default=None)
    histories = operator.read_histories([view.target for view in targets])
    dead_letters, problem = _dead_letters(operator)
    return Vitals(
        swept_at=guard.swept_at,
        sweep_is_stale=guard.swept_at is None or now - guard.swept_at > LONGEST_WITHOUT_SWEEP,
        event_at=events[0] if events else None,
        searched=len(latest.entries),
        oldest_due=oldest,
        is_overdue=oldest is not None and oldest.due is not None and now - oldest.due > LONGEST_OVERDUE,
        deaf={name: each.deaf_since for name, each in sorted(histories.items()) if each.deaf_since},
        dead_letters=dead_letters,
        problem=problem,
    )


def _time(at: datetime | None) -> str | None:
    return time_text(at) if at else None


def _dead_letters(operator: Operator) -> tuple[int | None, str | None]:
    try:
        return Queue(operator).length(), None
    except (AwsError, OperatorError) as error:
        known = error if isinstance(error, OperatorError) else operator_error(error)
        return None, known.message
