"""The simulated world without threads: only the test acts, each call takes effect at once, and waiting passes time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from chalicelib.domain.policy import Policy
from tests.simulation.fakes import Tables
from tests.simulation.lambdas import Lambdas, baseline
from tests.simulation.promises import Witness
from tests.simulation.scenarios import Stage
from tests.simulation.world import World


class Still(World):
    """A world in which only the test acts, so that time passes at once. Events are never delivered."""

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def fan_out(self, jobs: Sequence[Callable[[], None]], at_once: int) -> None:
        for job in jobs:
            job()


def still(policy: Policy | None = None, **changes: Any) -> Stage:
    """An empty account and its guard, for tests that call the guard's functions themselves."""
    world = Still(**{"latency": lambda rng, name: 0.0, **changes})
    tables = Tables()
    lambdas = Lambdas(world, tables, policy or baseline())
    return Stage(world, tables, lambdas, Witness(world, tables, lambdas))
