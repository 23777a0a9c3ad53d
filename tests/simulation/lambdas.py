"""EventBridge and Lambda for the guard's functions: deliver, retry, tick and sweep, on the virtual clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from chalicelib.domain.errors import GuardError
from chalicelib.domain.model import ChangeEvent, KeyEvent, Target, Trigger
from chalicelib.domain.policy import Mode, Policy, parse
from chalicelib.domain.ports import Reach
from chalicelib.domain.stored import Record
from chalicelib.domain.triage import concerns
from chalicelib.loop.batch import Report
from chalicelib.loop.event_history import HistoryReport
from chalicelib.loop.event_history import event_history as read_event_history
from chalicelib.loop.guard import Guard, Result
from chalicelib.loop.reconcile import reconcile
from chalicelib.loop.sweep import sweep as sweep_targets
from chalicelib.loop.tick import tick as take_up_due
from tests.simulation.eventhistory import FakeHistory, FakeHistoryStore, HistoryItems, Shown
from tests.simulation.fakes import (
    FakeClock,
    FakeKeys,
    FakeLinks,
    FakeLogs,
    FakePrincipals,
    FakeRequests,
    FakeStore,
    FakeXRay,
    FannedOut,
    Gathered,
    Tables,
)
from tests.simulation.world import ACCOUNT, GUARD_ROLE, HOME, Crash, Run, World

FUNCTION_SECONDS = 60
LEASE_SECONDS = FUNCTION_SECONDS + 60
HISTORY_SECONDS = 300
RETRIES_AFTER_SECONDS = (60, 120)
"""Lambda's two retries of a failed asynchronous invocation."""

BASELINE = (Path(__file__).parents[2] / "policies" / "policy.json").read_bytes()


def baseline(**changes: object) -> Policy:
    """Return the repository's policy, with `when: always`, so that an unused target is judged like any other.

    `changes` overrides fields of its rule.
    """
    document = json.loads(BASELINE)
    document["rules"] = [{**rule, "when": "always", **changes} for rule in document["rules"]]
    return parse(json.dumps(document).encode())


class Lambdas:
    """The guard, deployed in the simulated account."""

    def __init__(self, world: World, tables: Tables, policy: Policy, *, shuffled: bool = False) -> None:
        self.world = world
        self.tables = tables
        self.policy = policy
        self.shuffled = shuffled
        self.regions: tuple[str, ...] = (HOME.region,)
        self.observe_only = False
        self.at_once = 8
        self.emitted: list[Record] = []
        self.runs: list[Run] = []
        self.results: list[Result | Report | HistoryReport] = []
        self.shown = Shown()
        self.histories = HistoryItems()
        self.surprises: list[BaseException] = []
        self.dead_letters: list[object] = []
        self.to_record: list[ChangeEvent | KeyEvent] = []
        self.pending = 0
        world.on_event = self.deliver

    # --- one invocation --------------------------------------------------------------------------------------------

    def guard(self, run: Run, lease_seconds: int = LEASE_SECONDS) -> Guard:
        """Return the guard for one invocation."""
        world = self.world

        def reach(target: Target) -> Reach:
            return Reach(
                target,
                FakeXRay(world, run, target),
                FakeKeys(world, run, target),
                FakePrincipals(world, run),
                FakeLogs(world, run, target),
                FakeLinks(world, run, target),
            )

        return Guard(
            account=ACCOUNT,
            partition="aws",
            role_arn=GUARD_ROLE,
            policy=self.policy,
            store=FakeStore(world, run, self.tables),
            clock=FakeClock(world, world.rng.random()),
            reach=reach,
            gather=Gathered(world, run, shuffled=self.shuffled),
            fan_out=FannedOut(world, self.at_once),
            sleep=world.wait,
            random=world.rng.random,
            new_id=lambda: world.new_id("nonce"),
            emit=self.emitted.append,
            worker=run.name,
            requests=FakeRequests(),
            lease_seconds=lease_seconds,
            observe_only=self.observe_only,
        )

    def invoke(
        self,
        function: str,
        work: Callable[[Guard, Run], Result | Report | HistoryReport],
        *,
        retries: tuple[int, ...] = RETRIES_AFTER_SECONDS,
        timeout: float | None = FUNCTION_SECONDS,
        name: str | None = None,
        payload: object = None,
    ) -> None:
        """Start a function now. If it fails or dies, retry it as Lambda does, under the same request id."""
        world = self.world
        run = Run(
            name or f"{function}/{world.new_id('invocation')}",
            function,
            deadline=timeout and world.now + timeout,
            begun_at=world.now,
        )
        self.runs.append(run)
        self.pending += 1

        def live() -> None:
            again = False
            try:
                self.results.append(work(self.guard(run), run))
            except (Crash, GuardError):
                again = True
            except Exception as error:
                self.surprises.append(error)
                again = True
            self.pending -= 1
            if not again:
                return
            if not retries:
                self.dead_letters.append(payload)
                return
            self.pending += 1

            def retry() -> None:
                self.pending -= 1
                self.invoke(function, work, retries=retries[1:], timeout=timeout, name=run.name, payload=payload)

            world.later(retries[0], retry)

        world.start(live, timeout)

    # --- the functions ---------------------------------------------------------------------------------------------

    def deliver(self, event: ChangeEvent | KeyEvent) -> None:
        """Deliver an event to its function."""
        function = "on_change" if isinstance(event, ChangeEvent) else "on_key_change"
        if self._must_be_recorded(event):
            self.to_record.append(event)
        self.invoke(function, lambda guard, run: reconcile(guard, event.target, event.trigger, event), payload=event)

    def _is_own(self, event: ChangeEvent | KeyEvent) -> bool:
        """Whether the guard made the call, by what happened and not by what the event says."""
        return event.trigger.request_id in self.world.guards_requests

    def _must_be_recorded(self, event: ChangeEvent | KeyEvent) -> bool:
        """Whether the event is of somebody else's about a governed target, or about its keys and aliases."""
        rule = self.policy.rule_for(event.target)
        if rule is None or rule.mode is Mode.OFF or event.target.account != ACCOUNT:
            return isinstance(event, ChangeEvent) and not self._is_own(event)
        if isinstance(event, ChangeEvent) or self._is_own(event):
            return not self._is_own(event)
        return not event.error_code and concerns(event, rule, self.tables.state(str(event.target)))

    def look(self, trigger: Trigger, target: Target = HOME, *, timeout: float | None = FUNCTION_SECONDS) -> None:
        """Reconcile one target for a trigger without an event."""
        self.invoke(
            str(trigger.kind), lambda guard, run: reconcile(guard, target, trigger), retries=(), timeout=timeout
        )

    def tick(self) -> None:
        self.invoke("tick", lambda guard, run: take_up_due(guard, self._seconds_left(run)))

    def sweep(self) -> None:
        self.invoke(
            "sweep", lambda guard, run: sweep_targets(guard, lambda: self.regions, None, self._seconds_left(run))
        )

    def event_history(self, timeout: float = HISTORY_SECONDS) -> None:
        """Read Event history of every Region."""
        world = self.world
        self.invoke(
            "event_history",
            lambda guard, run: read_event_history(
                guard,
                lambda: self.regions,
                lambda target: FakeHistory(world, run, target, self.shown),
                FakeHistoryStore(world, run, self.tables, self.histories),
                self._seconds_left(run),
                home_region=HOME.region,
            ),
            timeout=timeout,
        )

    def _seconds_left(self, run: Run) -> Callable[[], float]:
        deadline = run.deadline
        return lambda: deadline - self.world.now if deadline is not None else 1e9

    def schedule(self, *, first_sweep_after: float | None = 3600.0) -> None:
        """Tick every minute and sweep every hour from now on. Ticks with nothing due are skipped."""

        def minute() -> None:
            now = self.world.clock
            over = any(tally.closes_at <= now for tally in self.tables.tallies.values())
            if over or any(due and due <= now for _, _, due in self.tables.states.values()):
                self.tick()
            self.world.later(60, minute)

        def hour() -> None:
            self.sweep()
            self.world.later(3600, hour)

        self.world.later(self.world.rng.uniform(1, 60), minute)
        if first_sweep_after is not None:
            self.world.later(first_sweep_after, hour)

    def schedule_event_history(self) -> None:
        """Read Event history every hour from now on."""

        def hour() -> None:
            self.event_history()
            self.world.later(3600, hour)

        self.world.later(self.world.rng.uniform(1, 3600), hour)

    @property
    def idle(self) -> bool:
        """Whether nothing runs and no retry is pending."""
        return self.pending == 0 and self.world.running == 0
