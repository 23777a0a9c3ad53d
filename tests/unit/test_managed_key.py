"""Giving up a managed key: what waits is due at once."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import Backoff, Incident, Phase
from chalicelib.loop.managed_key import replace_key
from chalicelib.loop.reconcile import reconcile
from tests.simulation.still import still
from tests.simulation.world import HOME, Run


def test_p1_an_incident_that_waits_is_due_at_once_when_its_key_is_given_up() -> None:
    """Otherwise a failure that goes on with the next key is on the record only when the former pause is over."""
    scene = still()
    reconcile(scene.lambdas.guard(Run("sweep/1", "sweep")), HOME, Trigger(TriggerKind.SWEEP))
    in_an_hour = scene.world.clock + timedelta(hours=1)
    incident = Incident(f"{HOME}#9", scene.world.clock, None, Phase.OPEN, due=in_an_hour)
    state = replace(
        scene.tables.state(HOME), incident=incident, outcome=Outcome.FAILED, backoffs={Lane.SETTING: Backoff(9)}
    )
    scene.tables.hold(state)
    replace_key(scene.lambdas.guard(Run("operator", "operator")), HOME, Trigger(TriggerKind.OPERATOR))
    after = scene.tables.state(HOME)
    assert after.incident is not None
    assert after.incident.due == after.due == after.recheck_at
