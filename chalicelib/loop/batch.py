"""What runs over several targets share: they reconcile a few targets at a time and report each result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from msgspec import Struct, field

from chalicelib.domain.errors import GuardError
from chalicelib.domain.model import Target, Trigger
from chalicelib.domain.reasons import Problem, Reason
from chalicelib.loop.guard import Guard, Result
from chalicelib.loop.reconcile import reconcile

SECONDS_FOR_ONE = 25.0
"""A run does not begin another target if fewer seconds are left."""


class Span(Struct, frozen=True):
    """How many seconds the function had left when the run on a target began, and when it ended."""

    target: str
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long the run on the target took."""
        return self.began - self.ended


class Report(Struct):
    """The result of a run over several targets.

    `unreached` maps a target to why its run did not end. `bugs` are unexpected exceptions with their tracebacks, for
    the function's log. Runs that go on at the same time add to it; each addition is one atomic step.
    """

    results: list[Result] = field(default_factory=list)
    unreached: dict[str, Problem] = field(default_factory=dict)
    bugs: list[Exception] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    paused: bool = False

    @property
    def outcomes(self) -> dict[str, int]:
        """The number of targets per outcome."""
        return dict(sorted(Counter(result.outcome.value for result in self.results).items()))


def reach_target(
    guard: Guard, target: Target, trigger: Trigger, report: Report, seconds_left: Callable[[], float]
) -> Problem | None:
    """Reconcile one target and add its result to the report; its failure does not stop the others (P11).

    Returns why the run did not end, if so.
    """
    began = seconds_left()
    problem = None
    try:
        report.results.append(reconcile(guard, target, trigger))
    except GuardError as error:
        problem = error.problem
    except Exception as error:
        # It is on the target's record already. The other targets go on, and the caller logs and raises it.
        problem = Problem(Reason.INTERNAL_ERROR, type(error).__name__)
        report.bugs.append(error)
    if problem is not None:
        report.unreached[str(target)] = problem
    report.spans.append(Span(str(target), began, seconds_left()))
    return problem


def figures(spans: Sequence[Span]) -> dict[str, object]:
    """Return how many targets were reached in how many seconds, how many at the same time, and which was slowest."""
    if not spans:
        return {"targets": 0}
    slowest = max(spans, key=lambda span: span.seconds)
    # As seconds left count down, the later of two moments is the smaller number.
    at_once = max(sum(other is span or other.ended < span.began <= other.began for other in spans) for span in spans)
    return {
        "targets": len(spans),
        "seconds": round(max(span.began for span in spans) - min(span.ended for span in spans), 3),
        "at_once": at_once,
        "slowest": slowest.target,
        "slowest_seconds": round(slowest.seconds, 3),
    }
