"""The one object that the loop depends on, with the budget of a sweep, and the result of a run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from math import inf
from threading import Lock
from typing import TypeVar

from msgspec import Struct, field

from chalicelib.domain.edits import without_edits
from chalicelib.domain.errors import Busy, Conflict
from chalicelib.domain.floods import tally_of
from chalicelib.domain.model import ChangeEvent, KeyEvent, Target, Trigger
from chalicelib.domain.policy import Policy
from chalicelib.domain.ports import Clock, FanOut, Gather, Reach, Requests, Store
from chalicelib.domain.reasons import Outcome, Problem, Reason, Violation
from chalicelib.domain.run import At, Known, Run, Setup
from chalicelib.domain.stored import Record

MOST_CONFLICTS = 6

T = TypeVar("T")


class Budget:
    """How many targets a sweep may still mutate (P17). Runs that go on at the same time share it."""

    def __init__(self, most: float = inf) -> None:
        self._left = most
        self._taking = Lock()

    def take(self) -> bool:
        """Reserve one target; False if none is left."""
        with self._taking:
            if self._left < 1:
                return False
            self._left -= 1
            return True

    def give_back(self) -> None:
        """Return a reservation, of a run that certainly mutated nothing."""
        with self._taking:
            self._left += 1


class Guard(Struct, frozen=True):
    """What the loop depends on. `lease_seconds` is at least a minute longer than the function's timeout.

    `observe_only`: its credentials may change neither X-Ray nor KMS, and the loop does not try. `budget` limits how
    many targets are mutated, in a sweep.
    """

    account: str
    partition: str
    role_arn: str
    policy: Policy
    store: Store
    clock: Clock
    reach: Callable[[Target], Reach]
    gather: Gather
    fan_out: FanOut
    sleep: Callable[[float], None]
    random: Callable[[], float]
    new_id: Callable[[], str]
    emit: Callable[[Record], None]
    worker: str
    requests: Requests
    lease_seconds: int = 120
    observe_only: bool = False
    budget: Budget = field(default_factory=Budget)

    def run(self, target: Target, trigger: Trigger, event: ChangeEvent | KeyEvent | None = None) -> Run:
        """Return the input of a run on the target."""
        setup = Setup(
            self.account,
            self.partition,
            self.role_arn,
            self.policy.digest,
            self.policy.limits,
            self.worker,
            self.lease_seconds,
            self.observe_only,
        )
        return Run(target, self.policy.rule_for(target), trigger, setup, event)

    def known(self, run: Run) -> Known:
        """Load what is stored about the run's target and its event, without the values that somebody else edited."""
        loaded = self.store.load(str(run.target), run.event_id, tally_of(run, self.clock.now()))
        state, edits = without_edits(loaded.state, self.clock.now())
        return Known(loaded.state, state, loaded.guard, loaded.audited, loaded.tally, edits)

    def at(self) -> At:
        """Return time and randomness as inputs of a decision."""
        return At(self.clock.now(), self.random())

    def step_aside(self) -> None:
        """Wait a moment before retrying a write that conflicted with another writer."""
        self.sleep(0.05 + 0.2 * self.random())

    def until_stored(self, store: Callable[[], T], what: str) -> T:
        """Read and write again until the write conflicts with no other writer. Raises Busy, which names `what`."""
        for _ in range(MOST_CONFLICTS):
            try:
                return store()
            except Conflict:
                self.step_aside()
        raise Busy(Problem(Reason.BUSY, f"{what} conflicted with other writers"))


class Result(Struct, frozen=True):
    """The result of a run. `record` is the last record it stored, None if it stored none.

    `mutated`: the run stored the end of an attempt, even if AWS refused its calls. `due` is when the target must be
    checked again, None if the next sweep is soon enough.
    """

    target: Target
    outcome: Outcome
    reason: str | None = None
    violations: tuple[Violation, ...] = ()
    record: Record | None = None
    mutated: bool = False
    due: datetime | None = None
