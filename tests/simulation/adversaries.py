"""Adversaries who undo what the guard does, for a simulated day, and what that costs.

`python -m tests.simulation.adversaries` prints the figures of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from chalicelib.domain.keypolicy.judge import judge_policy
from chalicelib.domain.keypolicy.wanted import XRAY
from chalicelib.domain.model import Actor, EncryptionType
from tests.simulation.beginnings import settled_stage
from tests.simulation.promises import UPDATING
from tests.simulation.scenarios import ALIAS, BARE_POLICY, Stage
from tests.simulation.world import ACCOUNT, HOME, Mutation

DAY = 24 * 3600.0
CI = Actor(f"arn:aws:iam::{ACCOUNT}:role/ci-deploy", "AssumedRole", session="apply")


@dataclass
class Figures:
    """What a day cost. Times are seconds; `exposed`: X-Ray was not on its required key, or could not use it.

    `stretches` are the times of exposure one by one; `unrepaired` is the time in which anything was noncompliant.
    """

    puts: int = 0
    mutations: int = 0
    unrepaired: float = 0.0
    stretches: list[float] = field(default_factory=list)

    @property
    def exposed(self) -> float:
        return sum(self.stretches)

    @property
    def longest(self) -> float:
        return max(self.stretches, default=0.0)

    def row(self, name: str) -> str:
        return (
            f"| {name} | {self.puts} | {self.mutations} | {self.exposed:,.0f} s | {self.longest:,.0f} s "
            f"| {self.unrepaired:,.0f} s |"
        )


class Meter:
    """Watches a world from now on: how long X-Ray is exposed, and how long anything is wrong."""

    def __init__(self, scene: Stage) -> None:
        self.scene = scene
        self.figures = Figures()
        self._exposed_since: float | None = None
        self._wrong_since: float | None = None
        self._watched = scene.world.on_mutation
        scene.world.on_mutation = self._mutation
        self._note()

    def _mutation(self, mutation: Mutation) -> None:
        self._watched(mutation)
        if mutation.run is not None:
            self.figures.mutations += 1
            self.figures.puts += mutation.name == "PutEncryptionConfig"
        self._note()

    def _note(self) -> None:
        now, exposed = self.scene.world.now, is_exposed(self.scene)
        if exposed and self._exposed_since is None:
            self._exposed_since = now
        elif not exposed and self._exposed_since is not None:
            self.figures.stretches.append(now - self._exposed_since)
            self._exposed_since = None
        wrong = bool(set(self.scene.witness.wrong()) - {UPDATING})
        if wrong and self._wrong_since is None:
            self._wrong_since = now
        elif not wrong and self._wrong_since is not None:
            self.figures.unrepaired += now - self._wrong_since
            self._wrong_since = None

    def read(self) -> Figures:
        """The figures until now."""
        now = self.scene.world.now
        if self._exposed_since is not None:
            self.figures.stretches.append(now - self._exposed_since)
            self._exposed_since = now
        if self._wrong_since is not None:
            self.figures.unrepaired += now - self._wrong_since
            self._wrong_since = now
        return self.figures


def is_exposed(scene: Stage) -> bool:
    """Whether X-Ray is not on the managed key, or cannot use it."""
    setting = scene.world.setting(HOME)
    if setting.type is not EncryptionType.KMS or setting.key_arn != scene.managed_key():
        return True
    key = scene.world.place(HOME).kms.keys[setting.key_arn]
    verdict = judge_policy(key.policy or "", scene.witness.rule(HOME), HOME, "aws")
    return key.state != "Enabled" or XRAY in verdict.missing or bool(verdict.foreign_denies)


Undo = Callable[[Stage], None]


def puts_none(scene: Stage) -> None:
    scene.world.user_puts(HOME, None, CI)


def changes_key(scene: Stage, **changes: object) -> None:
    scene.world.user_changes_key(HOME, scene.managed_key(), CI, **changes)


disables = partial(changes_key, state="Disabled")
strips_policy = partial(changes_key, policy=BARE_POLICY)
stops_rotation = partial(changes_key, rotation=False, rotation_days=None)


def moves_alias(scene: Stage) -> None:
    kms = scene.world.place(HOME).kms
    other = next((arn for arn in kms.keys if arn != scene.managed_key()), None)
    scene.world.user_sets_alias(HOME, ALIAS, other or scene.make_key(tagged=False), CI)


@dataclass(frozen=True)
class Adversary:
    """Undoes what a mutation of the guard does, `delay` seconds later; after every `rests_after`, `rest` later.

    `strikes` are changes at fixed times of the day, which nobody repeats.
    """

    undoes: Mapping[str, Undo]
    delay: float = 5.0
    rests_after: int = 0
    rest: float = 0.0
    strikes: tuple[tuple[float, Undo], ...] = ()


COSMETIC: dict[str, Undo] = {"UpdateAlias": moves_alias, "EnableKeyRotation": stops_rotation}
HOURS = 3600.0
ADVERSARIES = {
    "sets NONE": Adversary({"PutEncryptionConfig": puts_none}),
    "sets NONE, four times, then rests for an hour": Adversary(
        {"PutEncryptionConfig": puts_none}, rests_after=4, rest=3700.0
    ),
    "disables the key": Adversary({"EnableKey": disables}),
    "disables the key, twice, then rests for two hours": Adversary({"EnableKey": disables}, rests_after=2, rest=7300.0),
    "removes X-Ray's statement": Adversary({"PutKeyPolicy": strips_policy}),
    "moves the alias": Adversary({"UpdateAlias": moves_alias}),
    "turns rotation off": Adversary({"EnableKeyRotation": stops_rotation}),
    "alias and rotation all day; disables the key three times": Adversary(
        COSMETIC, strikes=((6 * HOURS, disables), (12 * HOURS, disables), (18 * HOURS, disables))
    ),
    "alias and rotation all day; sets NONE three times": Adversary(
        COSMETIC, strikes=((6 * HOURS, puts_none), (12 * HOURS, puts_none), (18 * HOURS, puts_none))
    ),
}


def fought(adversary: Adversary, seconds: float = DAY) -> tuple[Stage, Figures]:
    """A day with an adversary. It begins with everything that the adversary undoes undone."""
    scene = settled_stage()
    world = scene.world
    meter = Meter(scene)
    watched = world.on_mutation
    undone = [0]

    def on_mutation(mutation: Mutation) -> None:
        watched(mutation)
        if mutation.run is not None and mutation.name in adversary.undoes:
            undone[0] += 1
            rests = adversary.rests_after and undone[0] % adversary.rests_after == 0
            world.later(adversary.rest if rests else adversary.delay, lambda: adversary.undoes[mutation.name](scene))

    world.on_mutation = on_mutation
    for undo in adversary.undoes.values():
        undo(scene)
    for after, strike in adversary.strikes:
        world.later(after, partial(strike, scene))
    world.run(seconds)
    return scene, meter.read()


def main() -> None:
    print("| an adversary who, all day, | Puts | mutations | exposed | longest exposure | anything unrepaired |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, adversary in ADVERSARIES.items():
        scene, figures = fought(adversary)
        scene.witness.check_whole()
        print(figures.row(name), flush=True)


if __name__ == "__main__":
    main()
