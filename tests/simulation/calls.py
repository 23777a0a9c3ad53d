"""Count the AWS calls of each path of the guard by running it. `docs/calls.md` shows the result.

python -m tests.simulation.calls > docs/calls.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.domain.model import ChangeEvent, Trigger, TriggerKind
from tests.simulation.scenarios import ALIAS, Stage, stage
from tests.simulation.world import HOME, MUTATIONS, Hazard, Run

READS_OF_THE_STORE = ("BatchGetItem", "Query", "Scan")
TRANSACTION = "TransactWriteItems"
WRITES_OF_THE_STORE = (TRANSACTION, "PutItem")


@dataclass(frozen=True)
class Path:
    """One path: the run that took it, and how many records it stored."""

    name: str
    run: Run
    records: int

    @property
    def transactions(self) -> int:
        return sum(call in WRITES_OF_THE_STORE for call in self.run.calls)

    @property
    def mutations(self) -> tuple[str, ...]:
        return tuple(call for call in self.run.calls if call in MUTATIONS)

    @property
    def store_reads(self) -> int:
        return sum(call in READS_OF_THE_STORE for call in self.run.calls)

    @property
    def reads(self) -> Counter[str]:
        """Reads of X-Ray, KMS, CloudWatch Logs, links, IAM and CloudTrail, by name."""
        others = (*MUTATIONS, *READS_OF_THE_STORE, *WRITES_OF_THE_STORE)
        return Counter(call for call in self.run.calls if call not in others)


def well() -> Stage:
    """Return a target that was remediated long ago; events arrive only if the path delivers them."""
    scene = stage()
    scene.world.user_puts(HOME, None)
    scene.lambdas.schedule(first_sweep_after=None)
    assert scene.converge(), scene.witness.story()
    scene.world.run(1200)
    scene.world.run(60 - scene.world.now % 60 + 30)  # halfway between two ticks
    scene.world.delivery = lambda rng: []
    return scene


def taken(name: str, scene: Stage, act: Callable[[Stage], None], seconds: float = 20.0) -> Path:
    """Return the path of the first run that `act` starts."""
    runs, records = len(scene.lambdas.runs), len(scene.tables.records(HOME))
    act(scene)
    scene.world.run(seconds)
    return Path(name, scene.lambdas.runs[runs], len(scene.tables.records(HOME)) - records)


def paths() -> list[Path]:
    """Return every path, taken once."""
    return [make() for make in PATHS]


def own_echo() -> Path:
    scene = well()
    echo = [event for event in scene.world.events if isinstance(event, ChangeEvent)][-1]
    return taken("own echo", scene, lambda scene: scene.lambdas.deliver(echo))


def own_echo_closing() -> Path:
    scene = well()
    scene.world.settling = lambda rng: 15.0
    drift = scene.world.user_puts(HOME, None)
    scene.lambdas.deliver(drift)
    scene.world.run(16)
    return taken("own echo that finds ACTIVE", scene, lambda scene: scene.lambdas.deliver(scene.world.events[-1]))


def compliant_change() -> Path:
    scene = well()
    event = scene.world.user_puts(HOME, scene.managed_key())
    return taken("compliant change", scene, lambda scene: scene.lambdas.deliver(event))


def duplicate() -> Path:
    scene = well()
    event = scene.world.user_puts(HOME, scene.managed_key())
    scene.lambdas.deliver(event)
    scene.world.run(20)
    return taken("duplicate of an audited change", scene, lambda scene: scene.lambdas.deliver(event))


def failed_call() -> Path:
    scene = well()
    event = scene.world.user_fails(HOME)
    return taken("failed call", scene, lambda scene: scene.lambdas.deliver(event))


def drift_with_healthy_key() -> Path:
    scene = well()
    event = scene.world.user_puts(HOME, None)
    scene.world.settling = lambda rng: 0.0
    scene.world.place(HOME).settles_at = 0.0
    return taken("drift, healthy key", scene, lambda scene: scene.lambdas.deliver(event))


def drift_without_key() -> Path:
    scene = well()
    fresh = stage(delivery=lambda rng: [], settling=lambda rng: 0.0)
    fresh.tables.states |= {name: kept for name, kept in scene.tables.states.items() if name == "guard"}
    event = fresh.world.user_puts(HOME, None)
    return taken("drift, no key", fresh, lambda scene: scene.lambdas.deliver(event))


def drift_with_key_to_adopt() -> Path:
    scene = well()
    fresh = stage(delivery=lambda rng: [], settling=lambda rng: 0.0)
    fresh.tables.states |= {name: kept for name, kept in scene.tables.states.items() if name == "guard"}
    fresh.world.user_sets_alias(HOME, ALIAS, fresh.make_key(tagged=True))
    event = fresh.world.user_puts(HOME, None)
    return taken("drift, key to adopt behind the alias", fresh, lambda scene: scene.lambdas.deliver(event))


def with_spans() -> Stage:
    """Return a target that stores spans under the managed key, long since."""
    scene = well()
    scene.lambdas.deliver(scene.world.user_sends_spans(HOME))
    assert scene.converge(), scene.witness.story()
    scene.world.run(60 - scene.world.now % 60 + 30)
    return scene


def spans_without_key() -> Path:
    scene = well()
    event = scene.world.user_sends_spans(HOME)
    return taken("spans in CloudWatch Logs without a key", scene, lambda scene: scene.lambdas.deliver(event))


def drift_with_spans() -> Path:
    scene = with_spans()
    event = scene.world.user_puts(HOME, None)
    scene.world.settling = lambda rng: 0.0
    scene.world.place(HOME).settles_at = 0.0
    return taken("drift, healthy key, spans in CloudWatch Logs", scene, lambda scene: scene.lambdas.deliver(event))


def swept_with_spans() -> Path:
    return taken(
        "sweep, as before, spans in CloudWatch Logs",
        with_spans(),
        lambda scene: scene.lambdas.look(Trigger(TriggerKind.SWEEP)),
    )


def disabled_key() -> Path:
    scene = well()
    scene.world.delivery = lambda rng: [1.0]
    key = scene.managed_key()
    return taken("managed key disabled", scene, lambda scene: scene.world.user_changes_key(HOME, key, state="Disabled"))


def other_key() -> Path:
    scene = well()
    scene.world.delivery = lambda rng: [1.0]
    key = scene.make_key(tagged=False)
    return taken(
        "change to a key that is none of ours",
        scene,
        lambda scene: scene.world.user_changes_key(HOME, key, state="Disabled"),
    )


def _applied(settles: float) -> Stage:
    scene = well()
    scene.world.settling = lambda rng: settles
    event = scene.world.user_puts(HOME, None)
    scene.lambdas.deliver(event)
    scene.world.run(20)
    return scene


def confirming() -> Path:
    scene = _applied(30.0)
    scene.world.run(20)
    return taken("confirming: ACTIVE", scene, lambda scene: scene.lambdas.look(Trigger(TriggerKind.TICK)))


def still_updating() -> Path:
    scene = _applied(3000.0)
    return taken("confirming: still UPDATING", scene, lambda scene: scene.lambdas.look(Trigger(TriggerKind.TICK)))


def _died() -> Stage:
    scene = well()
    died: list[str] = []

    def dies(run: Run, number: int, name: str) -> Hazard | None:
        if name == "PutEncryptionConfig" and not died:
            died.append(run.name)
            return Hazard("crash")
        return None

    scene.world.hazard = dies
    scene.world.user_puts(HOME, None)
    scene.lambdas.look(Trigger(TriggerKind.SWEEP))
    scene.world.run(20)
    return scene


def lost_race() -> Path:
    return taken(
        "lost race: another worker holds the lease",
        _died(),
        lambda scene: scene.lambdas.look(Trigger(TriggerKind.SWEEP)),
    )


def retry_while_held() -> Path:
    return taken(
        "tick while a dead worker's lease lasts",
        _died(),
        lambda scene: scene.lambdas.look(Trigger(TriggerKind.TICK)),
    )


def take_over() -> Path:
    scene = _died()
    scene.world.settling = lambda rng: 0.0
    scene.world.run(101)
    return taken("take-over of an expired lease", scene, lambda scene: scene.lambdas.look(Trigger(TriggerKind.SWEEP)))


def swept_as_before() -> Path:
    return taken("sweep, as before", well(), lambda scene: scene.lambdas.look(Trigger(TriggerKind.SWEEP)))


def swept_daily() -> Path:
    scene = well()
    scene.world.run(25 * 3600)
    return taken("sweep, once a day", scene, lambda scene: scene.lambdas.look(Trigger(TriggerKind.SWEEP)))


def history_as_before() -> Path:
    scene = well()
    scene.lambdas.event_history()
    scene.world.run(3600)
    return taken("Event history of one Region, nothing missed", scene, lambda scene: scene.lambdas.event_history())


def history_with_a_missed_event() -> Path:
    scene = well()
    scene.lambdas.event_history()
    scene.world.user_puts(HOME, scene.managed_key())
    scene.world.run(3600)
    return taken("Event history of one Region, one missed event", scene, lambda scene: scene.lambdas.event_history())


PATHS: tuple[Callable[[], Path], ...] = (
    own_echo,
    own_echo_closing,
    compliant_change,
    duplicate,
    failed_call,
    drift_with_healthy_key,
    drift_without_key,
    drift_with_key_to_adopt,
    spans_without_key,
    drift_with_spans,
    disabled_key,
    other_key,
    confirming,
    still_updating,
    lost_race,
    retry_while_held,
    take_over,
    swept_as_before,
    swept_with_spans,
    swept_daily,
    history_as_before,
    history_with_a_missed_event,
)

HEAD = """# The AWS calls of each path

Counted by running the loop on the simulated AWS (`tests/simulation`), and checked by `tests/simulation/test_calls.py`.
To generate this page: `python -m tests.simulation.calls > docs/calls.md`.

Reads issued together take one round trip. Unless a path says otherwise, X-Ray is ACTIVE at once; each poll while it is
UPDATING is one more `GetEncryptionConfig`.

| path | round trips | table reads | other reads | mutations | table writes | records |
| --- | --- | --- | --- | --- | --- | --- |
"""


def table() -> str:
    """Return the content of `docs/calls.md`."""
    lines = [
        f"| {path.name} | {path.run.rounds} | {path.store_reads} | {_counted(path.reads)} "
        f"| {', '.join(path.mutations) or '–'} | {path.transactions or '–'} | {path.records or '–'} |"
        for path in paths()
    ]
    return HEAD + "\n".join(lines) + "\n"


def _counted(calls: Counter[str]) -> str:
    return ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in sorted(calls.items())) or "–"


if __name__ == "__main__":
    print(table(), end="")
