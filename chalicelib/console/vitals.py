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

RECORDS_SEARCHED = (20, 100)
"""How many of the newest records are searched for one of an event: few at first, because one is usually among them."""

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
    event_at, searched = _last_event(operator, now)
    # The guard checks a suppressed target every minute without changing its due time.
    waits = [view for view in targets if view.due and view.outcome is not Outcome.SUPPRESSED]
    oldest = min(waits, key=lambda view: view.due or now, default=None)
    histories = operator.read_histories([view.target for view in targets])
    dead_letters, problem = _dead_letters(operator)
    return Vitals(
        swept_at=guard.swept_at,
        sweep_is_stale=guard.swept_at is None or now - guard.swept_at > LONGEST_WITHOUT_SWEEP,
        event_at=event_at,
        searched=searched,
        oldest_due=oldest,
        is_overdue=oldest is not None and oldest.due is not None and now - oldest.due > LONGEST_OVERDUE,
        deaf={name: each.deaf_since for name, each in sorted(histories.items()) if each.deaf_since},
        dead_letters=dead_letters,
        problem=problem,
    )


def _last_event(operator: Operator, now: datetime) -> tuple[datetime | None, int]:
    """When the newest record of an event was written, and how many records were searched for it."""
    searched = 0
    for most in RECORDS_SEARCHED:
        latest = history.records(operator.store, Filter(), now, most).entries
        for entry in latest:
            if entry.record.trigger.kind in (TriggerKind.CHANGE, TriggerKind.KEY):
                return entry.record.at, len(latest)
        searched = len(latest)
    return None, searched


def _time(at: datetime | None) -> str | None:
    return time_text(at) if at else None


def _dead_letters(operator: Operator) -> tuple[int | None, str | None]:
    try:
        return Queue(operator).length(), None
    except (AwsError, OperatorError) as error:
        known = error if isinstance(error, OperatorError) else operator_error(error)
        return None, known.message
