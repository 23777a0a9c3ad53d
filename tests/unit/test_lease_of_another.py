"""An attempt ends only under the very lease with which it began."""

from __future__ import annotations

from msgspec.structs import replace

from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import Lease
from chalicelib.loop.reconcile import reconcile
from tests.simulation.still import still
from tests.simulation.world import HOME, Hazard, Run


def test_p8_a_lease_of_the_same_number_and_another_owner_is_not_the_attempts_own() -> None:
    """The number grows with every lease of one table. A table that was restored from a backup repeats numbers."""
    scene = still()
    restored: list[Lease] = []

    def restores(run: Run, number: int, name: str) -> Hazard | None:
        if name == "PutEncryptionConfig" and not restored:
            state = scene.tables.state(HOME)
            assert state.incident is not None
            assert state.incident.lease is not None
            restored.append(replace(state.incident.lease, owner="sweep/2"))
            incident = replace(state.incident, lease=restored[0])
            state = replace(state, version=state.version + 1, incident=incident)
            scene.tables.hold(state)
        return None

    scene.world.hazard = restores
    result = reconcile(scene.lambdas.guard(Run("sweep/1", "sweep")), HOME, Trigger(TriggerKind.SWEEP))
    assert (result.outcome, result.reason) == (Outcome.DEFERRED, Reason.LEASE_OVER)
    incident = scene.tables.state(HOME).incident
    assert incident is not None
    assert incident.lease == restored[0]
