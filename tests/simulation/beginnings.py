"""The usual start of tests: an account that was remediated long ago, where only the test makes things happen."""

from __future__ import annotations

from collections.abc import Callable

from chalicelib.domain.model import Target, Trigger, TriggerKind
from chalicelib.domain.policy import Policy
from chalicelib.domain.stored import Record
from chalicelib.loop.guard import Guard, Result
from chalicelib.loop.pause import pause, resume
from chalicelib.loop.reconcile import reconcile
from tests.simulation.lambdas import FUNCTION_SECONDS
from tests.simulation.scenarios import Stage, stage
from tests.simulation.world import HOME, Hazard, Run

OPERATOR = Trigger(TriggerKind.OPERATOR)
SWEEP = Trigger(TriggerKind.SWEEP)
TICK = Trigger(TriggerKind.TICK)


def quiet(policy: Policy | None = None) -> Stage:
    """Return a compliant target with nothing due. Events arrive and runs start only if the test makes them."""
    scene = stage(policy=policy)
    scene.world.user_puts(HOME, None)
    scene.world.run(300)
    scene.lambdas.tick()
    scene.world.run(10)
    assert scene.witness.settled(), scene.witness.story()
    assert scene.witness.right(), scene.witness.story()
    scene.world.delivery = lambda rng: []
    scene.world.run(3600)
    return scene


def settled_stage() -> Stage:
    """A guard whose target is compliant, long enough that KMS shows it everywhere."""
    scene = stage()
    scene.lambdas.schedule()
    scene.world.user_puts(HOME, None)
    assert scene.converge(), scene.witness.story()
    scene.world.run(600)
    return scene


def ticking(scene: Stage) -> Stage:
    """Add a tick every minute from now on, and no sweep."""
    scene.lambdas.schedule(first_sweep_after=None)
    return scene


def look(scene: Stage, trigger: Trigger = SWEEP, seconds: float = 30.0) -> Run:
    """Reconcile the target in one run, and let some time pass."""
    scene.lambdas.look(trigger)
    run = scene.lambdas.runs[-1]
    scene.world.run(seconds)
    return run


def worker(scene: Stage, name: str, *, timeout: float | None = FUNCTION_SECONDS) -> Run:
    """Start a run that reconciles the target under the given request id; Lambda does not retry it."""

    def work(guard: Guard, run: Run) -> Result:
        return reconcile(guard, HOME, SWEEP)

    scene.lambdas.invoke("sweep", work, retries=(), timeout=timeout, name=name)
    return scene.lambdas.runs[-1]


def stalls(scene: Stage, run: Run, call: str, seconds: float, *, after: str | None = None) -> None:
    """Delay a run once, before the call takes effect; of several equal calls, the first one after the call `after`."""
    befalls = scene.world.hazard
    waited: list[str] = []

    def hazard(of: Run, number: int, name: str) -> Hazard | None:
        if of is run and name == call and not waited and (after is None or after in of.calls):
            waited.append(name)
            scene.world.wait(seconds)
        return befalls(of, number, name)

    scene.world.hazard = hazard


def operate(scene: Stage, act: Callable[[Guard], object]) -> None:
    """An operator acts now."""
    guard = scene.lambdas.guard(Run("operator", "operator"))
    scene.world.start(lambda: act(guard))
    scene.world.run(1)


def brake(scene: Stage) -> None:
    """An operator pauses the guard."""
    operate(scene, lambda guard: pause(guard, OPERATOR, "alice", "testing"))


def release(scene: Stage) -> None:
    """An operator resumes the guard."""
    operate(scene, lambda guard: resume(guard, OPERATOR, "alice"))


def records_since(scene: Stage, count: int, target: Target = HOME) -> list[Record]:
    """Return the target's records without the first `count`."""
    return scene.tables.records(target)[count:]
