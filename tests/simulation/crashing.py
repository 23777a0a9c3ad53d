"""The crash sweep: one scenario, told once for every call that it makes, with a crash before or after that call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from chalicelib.model import Outcome
from tests.simulation.scenarios import Scenario, Stage, stage
from tests.simulation.world import HOME, Hazard, Run

Staleness = Callable[[Random], float]

FRESH: Staleness = lambda rng: 0.0  # noqa: E731
OLDEST: Staleness = lambda rng: 240.0  # noqa: E731
MIXED: Staleness = lambda rng: rng.choice((0.0, 0.0, rng.uniform(0, 240), 240.0))  # noqa: E731

CRASHES = (Hazard("crash"), Hazard("crash", late=True))
LOST_ANSWERS = (Hazard("throttle"), Hazard("silence"), Hazard("silence", late=True))


@dataclass(frozen=True)
class Story:
    """One telling: where it was interrupted, and how it ended. `seconds` is from the change until all was right."""

    scenario: Scenario
    hazard: Hazard | None
    at: int
    call: str
    calls: int
    seconds: float
    stage: Stage

    def __str__(self) -> str:
        where = f"{self.hazard.kind} {'after' if self.hazard.late else 'before'}" if self.hazard else "nothing before"
        return f"{self.scenario.name}, {where} call {self.at} ({self.call}): {self.seconds:.0f} s"


def tell(
    scenario: Scenario, *, hazard: Hazard | None = None, at: int = -1, staleness: Staleness = FRESH, seed: int = 1
) -> Story:
    """Tell a scenario, with the hazard at its call number `at`, counted from the change on."""
    begun: list[int] = []
    hit: list[str] = []

    def befall(run: Run, number: int, name: str) -> Hazard | None:
        if begun and number - begun[0] == at:
            hit.append(f"{name} of {run.name}")
            return hazard
        return None

    told = stage(seed, hazard=befall)
    world = told.world
    told.lambdas.schedule()
    scenario.before(told)
    # Nothing that a former part of the story left waiting shall be counted to this one.
    world.staleness = staleness
    told.witness.fresh = staleness is FRESH
    begun.append(world.calls)
    since = world.now
    scenario.change(told)
    if scenario.refused:
        world.run(1800)
    else:
        told.converge(7200)
    right = told.witness.right_since.get(HOME)
    seconds = right - since if right is not None else float("inf")
    story = Story(scenario, hazard, at, hit[0] if hit else "-", world.calls - begun[0], seconds, told)
    world.run(900, lambda: told.lambdas.idle and told.tables.state(HOME).incident is None)
    world.end()
    return story


def check(story: Story) -> None:
    """What must hold however the story was interrupted. Raises AssertionError with the story's own words."""
    told, scenario = story.stage, story.scenario
    try:
        told.witness.check_whole()
        if scenario.refused:
            state = told.tables.state(HOME)
            assert (state.outcome, state.reason) == (Outcome.FAILED, scenario.refused), state
            assert not any(mutation.run for mutation in told.world.mutations), "X-Ray or a key was touched"
            assert told.witness.keys_made[HOME] == 0
        else:
            told.witness.check_right(keys=scenario.keys_made)
    except AssertionError as error:
        raise AssertionError(f"{story}\n{error}\n{told.witness.story()}") from error


def interrupted(
    scenario: Scenario, hazards: tuple[Hazard, ...], staleness: Staleness = FRESH, seed: int = 1
) -> Iterator[Story]:
    """The scenario told once without a hazard, which finds its calls, and then once for each call and hazard."""
    whole = tell(scenario, staleness=staleness, seed=seed)
    yield whole
    for at in range(whole.calls):
        for hazard in hazards:
            yield tell(scenario, hazard=hazard, at=at, staleness=staleness, seed=seed)
