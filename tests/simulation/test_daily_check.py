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
    told = stage()
    told.world.user_puts(HOME, None)
    told.lambdas.schedule()
    assert told.converge(), told.witness.story()
    told.world.run(20 * HOUR)
    last_check = told.tables.state(HOME).checked_at
    assert last_check is not None
    with told.unheard():
        told.world.user_changes_key(HOME, told.managed_key(), policy=BARE_POLICY)
    told.lambdas.policy = renamed(baseline(), "renamed")
    told.world.run(1.1 * HOUR)
    assert told.tables.state(HOME).rule == "renamed", "a sweep has written since"
    left = 25.1 * HOUR - (told.world.clock - last_check).total_seconds()
    assert told.converge(left), told.witness.story()
    assert told.world.place(HOME).kms.keys[told.managed_key()].policy != BARE_POLICY
