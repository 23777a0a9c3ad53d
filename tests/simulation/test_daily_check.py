"""P6: what only the daily check reads is found within a day, whatever the sweeps between have written."""

from __future__ import annotations

from msgspec.structs import replace

from chalicelib.domain.policy import Policy
from tests.simulation.lambdas import baseline
from tests.simulation.scenarios import BARE_POLICY, stage
from tests.simulation.world import HOME

HOUR = 3600.0


def renamed(policy: Policy, rule_id: str) -> Policy:
    """The same policy with its rule under another name, which the next sweep records."""
    return replace(policy, rules=tuple(replace(rule, id=rule_id) for rule in policy.rules))


def test_p6_a_sweep_that_writes_and_does_not_read_the_keys_policy_does_not_put_off_the_daily_check() -> None:
    scene = stage()
    scene.world.user_puts(HOME, None)
    scene.lambdas.schedule()
    assert scene.converge(), scene.witness.story()
    scene.world.run(20 * HOUR)
    last_check = scene.tables.state(HOME).checked_at
    assert last_check is not None
    with scene.undelivered():
        scene.world.user_changes_key(HOME, scene.managed_key(), policy=BARE_POLICY)
    scene.lambdas.policy = renamed(baseline(), "renamed")
    scene.world.run(1.1 * HOUR)
    assert scene.tables.state(HOME).rule == "renamed", "a sweep has written since"
    left = 25.1 * HOUR - (scene.world.clock - last_check).total_seconds()
    assert scene.converge(left), scene.witness.story()
    assert scene.world.place(HOME).kms.keys[scene.managed_key()].policy != BARE_POLICY
