"""What runs over several targets share: they reconcile one target after the other and report each result."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct, field

from chalicelib.domain.errors import GuardError
from chalicelib.domain.model import Target, Trigger
from chalicelib.domain.reasons import Problem, Reason
from chalicelib.loop.guard import Guard, Result
from chalicelib.loop.reconcile import reconcile

SECONDS_FOR_ONE = 25.0
"""A run does not begin another target if fewer seconds are left."""


class Report(Struct):
    """The result of a run over several targets.

    `unreached` maps a target to why its run did not end. `bugs` are unexpected exceptions with their tracebacks, for
    the function's log.
    """

    results: list[Result] = field(default_factory=list)
    unreached: dict[str, Problem] = field(default_factory=dict)
    bugs: list[Exception] = field(default_factory=list)
    paused: bool = False

    @property
    def outcomes(self) -> dict[str, int]:
        """The number of targets per outcome."""
        return dict(sorted(Counter(result.outcome.value for result in self.results).items()))


def reach_target(guard: Guard, target: Target, trigger: Trigger, report: Report, *, budget_left: bool = True) -> None:
    """Reconcile one target and add its result to the report; its failure does not stop the others (P11)."""
    try:
        report.results.append(reconcile(guard, target, trigger, budget_left=budget_left))
    except GuardError as error:
        report.unreached[str(target)] = error.problem
    except Exception as error:
        # It is on the target's record already. The other targets go on, and the caller logs and raises it.
        report.unreached[str(target)] = Problem(Reason.INTERNAL_ERROR, type(error).__name__)
        report.bugs.append(error)
