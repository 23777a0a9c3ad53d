"""The crash sweep: one scenario, run once for every call that it makes, with a crash before or after that call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from chalicelib.domain.reasons import Outcome
from tests.simulation.lambdas import LEASE_SECONDS
from tests.simulation.scenarios import Scenario, Stage, stage
from tests.simulation.world import HOME, MUTATIONS, Hazard, Run

Staleness = Callable[[Random], float]

FRESH: Staleness = lambda rng: 0.0  # noqa: E731
OLDEST: Staleness = lambda rng: 240.0  # noqa: E731
MIXED: Staleness = lambda rng: rng.choice((0.0, 0.0, rng.uniform(0, 240), 240.0))  # noqa: E731

CRASHES = (Hazard("crash"), Hazard("crash", late=True))
LOST_ANSWERS = (Hazard("throttle"), Hazard("silence"), Hazard("silence", late=True))


TICK_SECONDS = 60
STALE_SECONDS = 250
"""After this time KMS shows a change everywhere: four minutes, and a margin."""

ANSWERS_SECONDS = 15
"""The time of a run's calls, and of the ten seconds that it waits for ACTIVE."""


@dataclass(frozen=True)
class Updating:
    """How long X-Ray is UPDATING after a change, and whether it refuses another change meanwhile."""

    seconds: float
    refuses: bool


SOON = Updating(1.0, refuses=False)


@dataclass(frozen=True)
class Story:
    """One story: where it was interrupted, and how it ended. `seconds`: from the change until the target is compliant.

    `calls` are the calls from the change on, as (run, name).
    """

    scenario: Scenario
    staleness: Staleness
    updating: Updating
    hazard: Hazard | None
    at: int
    call: str
    calls: tuple[tuple[str, str], ...]
    seconds: float
    stage: Stage

    @property
    def longest_seconds(self) -> float:
        """P1's bound on a run that was interrupted once.

        The lease must end before another worker may act, in a tick. If the run may have created a key, the time of
        stale reads must pass. If reads are stale, that time must also pass for each change that KMS must show before
        the next step, with one tick for each.
        """
        seconds: float = LEASE_SECONDS + TICK_SECONDS + ANSWERS_SECONDS
        if self.scenario.makes_key:
            seconds += STALE_SECONDS
        if self.staleness is not FRESH:
            seconds += self.scenario.shown * (STALE_SECONDS + TICK_SECONDS)
        if self.updating.refuses:
            seconds += self.updating.seconds + TICK_SECONDS
        return seconds

    def __str__(self) -> str:
        where = f"{self.hazard.kind} {'after' if self.hazard.late else 'before'}" if self.hazard else "nothing before"
        return f"{self.scenario.name}, {where} call {self.at} ({self.call}): {self.seconds:.0f} s"


def tell(
    scenario: Scenario,
    *,
    hazard: Hazard | None = None,
    at: int = -1,
    staleness: Staleness = FRESH,
    updating: Updating = SOON,
    seed: int = 1,
) -> Story:
    """Run a scenario, with the hazard at its call number `at`, counted from the change on."""
    calls: list[tuple[str, str]] | None = None

    def befall(run: Run, number: int, name: str) -> Hazard | None:
        if calls is None:
            return None
        calls.append((run.name, name))
        return hazard if len(calls) - 1 == at else None

    scene = stage(seed, hazard=befall)
    world = scene.world
    scene.lambdas.schedule()
    scenario.before(scene)
    # What the story's first part left pending does not count for this part.
    world.staleness = staleness
    world.settling = lambda rng: updating.seconds
    world.refuses_while_updating = updating.refuses
    scene.witness.fresh = staleness is FRESH
    calls = []
    since = world.now
    scenario.change(scene)
    if scenario.refused:
        world.run(1800)
    else:
        scene.converge(7200)
    right = scene.witness.right_since.get(HOME)
    seconds = right - since if right is not None else float("inf")
    call = "{1} of {0}".format(*calls[at]) if 0 <= at < len(calls) else "-"
    story = Story(scenario, staleness, updating, hazard, at, call, tuple(calls), seconds, scene)
    world.run(900, lambda: scene.lambdas.idle and scene.tables.state(HOME).incident is None)
    world.end()
    return story


def check(story: Story) -> None:
    """Check what must hold wherever the story was interrupted. Raises AssertionError with the story."""
    scene, scenario = story.stage, story.scenario
    try:
        scene.witness.check_whole()
        if scenario.refused:
            state = scene.tables.state(HOME)
            assert (state.outcome, state.reason) == (Outcome.FAILED, scenario.refused), state
            assert not any(mutation.run for mutation in scene.world.mutations), "X-Ray or a key was touched"
            assert scene.witness.keys_made[HOME] == 0
        else:
            scene.witness.check_right(keys=scenario.keys_made)
            if story.hazard is None or story.hazard.kind == "crash":
                assert story.seconds <= story.longest_seconds, f"right only after {story.seconds:.0f} s"
    except AssertionError as error:
        raise AssertionError(f"{story}\n{error}\n{scene.witness.story()}") from error


def interrupted(
    scenario: Scenario,
    hazards: tuple[Hazard, ...],
    staleness: Staleness = FRESH,
    seed: int = 1,
    *,
    every_poll: bool = True,
    updating: Updating = SOON,
) -> Iterator[Story]:
    """Run the scenario once without a hazard, which finds its calls, then once for each call and hazard.

    Without `every_poll`, reads that a run repeats while it waits for KMS are interrupted only in their first round.
    """
    whole = tell(scenario, staleness=staleness, updating=updating, seed=seed)
    yield whole
    for at in range(len(whole.calls)):
        if every_poll or not _is_repeated(whole.calls, at):
            for hazard in hazards:
                yield tell(scenario, hazard=hazard, at=at, staleness=staleness, updating=updating, seed=seed)


def _is_repeated(calls: tuple[tuple[str, str], ...], at: int) -> bool:
    """Whether the same run made the same read before, and only reads since."""
    run, name = calls[at]
    for other, earlier in reversed(calls[:at]):
        if other == run and earlier in (*MUTATIONS, "TransactWriteItems"):
            return False
        if (other, earlier) == (run, name):
            return name not in MUTATIONS
    return False
