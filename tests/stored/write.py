"""Write down what the guard stores today: `python -m tests.stored.write NAME`, once for each version.

The story has every kind of state that a later version must read: an incident under a lease, one that is deferred, past
incidents, a key made, an intent, a break-glass, backoff, a pause.
"""

from __future__ import annotations

import json
import sys

from chalicelib.domain.model import GUARD_TAG_KEY, GUARD_TAG_VALUE, Target
from tests.simulation.beginnings import brake
from tests.simulation.scenarios import Stage, stage
from tests.simulation.world import ACCOUNT, HOME, Hazard, Run
from tests.stored.tables import HERE, dumped

ACTING = Target(ACCOUNT, "eu-west-1")
INTENDED = Target(ACCOUNT, "eu-central-1")
OPENED = Target(ACCOUNT, "us-east-2")
TAG = ("xray-guard-break-glass", "20261121T000000Z INC-1234")


def answer() -> Stage:
    """The story, ended in the middle of things."""
    scene = stage()
    scene.lambdas.regions = tuple(target.region for target in (HOME, ACTING, INTENDED, OPENED))
    scene.lambdas.schedule()
    for target in (HOME, ACTING, OPENED):
        scene.world.user_puts(target, None)
    scene.world.run(700)
    key = scene.tables.state(OPENED).managed_key or ""
    tags = ((GUARD_TAG_KEY, GUARD_TAG_VALUE), TAG)
    scene.world.user_changes_key(OPENED, key, tags=tags)
    scene.world.run(120)
    for _ in range(4):
        scene.world.user_puts(HOME, None)
        scene.world.user_puts(OPENED, None)
        scene.world.run(90)
    crashes(scene, ACTING, "PutEncryptionConfig")
    scene.world.user_puts(ACTING, None)
    scene.world.run(10)
    crashes(scene, INTENDED, "CreateKey")
    scene.world.user_puts(INTENDED, None)
    scene.world.run(10)
    brake(scene)
    scene.world.run(5)
    return scene


def crashes(scene: Stage, target: Target, call: str) -> None:
    """From now on the workers of one target die at one call."""
    befalls = scene.world.hazard

    def hazard(run: Run, number: int, name: str) -> Hazard | None:
        if run.about == str(target) and name.endswith(call):
            return Hazard("crash")
        return befalls(run, number, name)

    scene.world.hazard = hazard


if __name__ == "__main__":
    scene = answer()
    (HERE / sys.argv[1]).write_text(json.dumps(dumped(scene), indent=1, sort_keys=True) + "\n", "utf-8")
    scene.world.end()
