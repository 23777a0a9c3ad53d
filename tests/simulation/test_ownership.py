"""P5 and P7: whose change an incident is laid to, however late the event comes, and what is our own and what is not."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from chalicelib.domain.model import Actor, ChangeEvent, Effect, EncryptionType, KeyEvent, Subject, Target
from chalicelib.domain.ports import Reach
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import Cause, PastIncident, Record
from chalicelib.loop.reconcile import reconcile
from tests.simulation.beginnings import TICK, brake, look, quiet, records_since, stalls, ticking
from tests.simulation.lambdas import baseline
from tests.simulation.scenarios import BARE_POLICY, Stage
from tests.simulation.world import ACCOUNT, ALICE, GUARD_ROLE, HOME, Hazard, Run

BOB = Actor(f"arn:aws:iam::{ACCOUNT}:user/Bob", "IAMUser")
CAROL = Actor(f"arn:aws:iam::{ACCOUNT}:user/Carol", "IAMUser")
OUR_ROLE_VIA_A_SERVICE = Actor(GUARD_ROLE, "AssumedRole", session="stack", via="cloudformation.amazonaws.com")


def last_past(scene: Stage) -> PastIncident:
    return scene.tables.state(HOME).past[-1]


def cause(scene: Stage) -> Cause | None:
    """Who caused the latest incident that ended."""
    return last_past(scene).cause


def last(scene: Stage, outcome: Outcome) -> Record:
    return [record for record in scene.tables.records(HOME) if record.outcome is outcome][-1]


# --- a new drift -----------------------------------------------------------------------------------------------------


def test_p5_an_event_older_than_the_last_repair_is_not_blamed_for_a_new_drift() -> None:
    """Alice's change was put right by a sweep. Bob makes the same change, and only then Alice's event arrives."""
    scene = quiet()
    alices = scene.world.user_puts(HOME, None, ALICE)
    scene.world.run(600)
    look(scene)
    assert scene.witness.right(), scene.witness.story()
    bobs = scene.world.user_puts(HOME, None, BOB)
    scene.lambdas.deliver(alices)
    scene.world.run(30)
    assert scene.witness.right(), scene.witness.story()
    assert cause(scene) is None
    scene.lambdas.deliver(bobs)
    scene.world.run(30)
    blamed = cause(scene)
    assert blamed is not None
    assert blamed.actor == BOB, scene.witness.story()
    scene.witness.check_whole()


def test_p5_a_change_made_in_the_second_of_the_last_repair_owns_its_drift() -> None:
    """CloudTrail gives whole seconds, so the change seems to be older than the repair."""
    scene = quiet()
    scene.world.user_puts(HOME, None)
    look(scene)
    repaired_at = scene.tables.state(HOME).good_at
    assert repaired_at is not None
    scene.world.run(600)
    drift = scene.world.user_puts(HOME, None, BOB)
    same_second = replace(drift.trigger, event_time=repaired_at.replace(microsecond=0))
    scene.lambdas.deliver(replace(drift, trigger=same_second))
    scene.world.run(30)
    blamed = cause(scene)
    assert blamed is not None
    assert blamed.actor == BOB


def test_p5_an_event_that_left_another_setting_behind_is_not_blamed() -> None:
    """Alice set a key of AWS's, Bob then NONE. Alice's event arrives first."""
    scene = quiet()
    aws_managed = scene.world.user_makes_key(HOME, manager="AWS", rotation=True, policy=BARE_POLICY)
    alices = scene.world.user_puts(HOME, aws_managed, ALICE)
    scene.world.run(5)
    bobs = scene.world.user_puts(HOME, None, BOB)
    for event in (alices, bobs):
        scene.lambdas.deliver(event)
        scene.world.run(30)
    blamed = cause(scene)
    assert blamed is not None
    assert blamed.actor == BOB, scene.witness.story()
    scene.witness.check_whole()


def test_p5_who_changes_the_key_is_not_blamed_for_the_setting() -> None:
    scene = quiet()
    scene.world.user_puts(HOME, None, BOB)
    scene.world.delivery = lambda rng: [1.0]
    scene.world.user_changes_key(HOME, scene.managed_key(), description="Alice changes a word")
    scene.world.run(30)
    assert scene.witness.right(), scene.witness.story()
    assert last(scene, Outcome.REMEDIATED).cause is None


def test_p5_who_disables_the_key_is_named_as_the_cause() -> None:
    scene = quiet()
    scene.world.delivery = lambda rng: [1.0]
    scene.world.user_changes_key(HOME, scene.managed_key(), state="Disabled")
    scene.world.run(30)
    blamed = last(scene, Outcome.REMEDIATED).cause
    assert blamed is not None
    assert blamed.actor == ALICE


# --- an open incident ------------------------------------------------------------------------------------------------


def test_p5_an_event_is_joined_to_the_drift_that_a_rule_only_observes() -> None:
    scene = quiet()
    scene.lambdas.policy = baseline(mode="observe")
    drift = scene.world.user_puts(HOME, None, BOB)
    look(scene)
    scene.lambdas.deliver(drift)
    scene.world.run(10)
    record = scene.tables.records(HOME)[-1]
    assert record.outcome is Outcome.OBSERVED
    assert record.cause is not None
    assert record.cause.actor == BOB
    incident = scene.tables.state(HOME).incident
    assert incident is not None
    assert incident.cause == record.cause


def test_p5_an_event_is_joined_to_the_drift_that_was_held_back_before_it_came() -> None:
    """A failed read opened the incident; what the setting was is known only by the run that puts it right."""
    scene = quiet()
    drift = scene.world.user_puts(HOME, None, BOB)
    scene.world.hazard = lambda run, number, name: Hazard("throttle") if name == "GetEncryptionConfig" else None
    look(scene)
    assert last(scene, Outcome.FAILED)
    scene.world.hazard = lambda run, number, name: None
    scene.lambdas.deliver(drift)
    scene.world.run(30)
    for outcome in (Outcome.REMEDIATING, Outcome.REMEDIATED):
        blamed = last(scene, outcome).cause
        assert blamed is not None, outcome
        assert blamed.actor == BOB
    scene.witness.check_whole()


def test_p14_the_latest_change_during_an_incident_is_remembered_beside_its_cause() -> None:
    scene = quiet()
    brake(scene)
    alices = scene.world.user_puts(HOME, None, ALICE)
    scene.world.run(5)
    bobs = scene.world.user_puts(HOME, None, BOB)
    for event in (alices, bobs):
        scene.lambdas.deliver(event)
        scene.world.run(10)
    incident = scene.tables.state(HOME).incident
    assert incident is not None
    assert incident.cause is not None
    assert incident.latest is not None
    assert (incident.cause.actor, incident.latest.actor) == (ALICE, BOB)


# --- an incident that has ended --------------------------------------------------------------------------------------


def test_p5_a_late_event_is_joined_to_an_incident_that_began_with_a_failed_read() -> None:
    scene = quiet()
    drift = scene.world.user_puts(HOME, None, BOB)
    scene.world.hazard = lambda run, number, name: Hazard("throttle") if name == "GetEncryptionConfig" else None
    look(scene)
    scene.world.hazard = lambda run, number, name: None
    look(scene, seconds=600)
    assert cause(scene) is None
    scene.lambdas.deliver(drift)
    scene.world.run(10)
    blamed = cause(scene)
    assert blamed is not None
    assert blamed.actor == BOB


def test_p5_a_late_event_is_joined_to_the_newest_incident_that_it_fits_and_that_keeps_it() -> None:
    """Two incidents within a minute; Bob's event fits either by its time, and Carol's must not displace him."""
    scene = quiet()
    scene.world.user_puts(HOME, None, ALICE)
    look(scene, seconds=40)
    bobs = scene.world.user_puts(HOME, None, BOB)
    carols = scene.world.user_puts(HOME, None, CAROL)
    look(scene, seconds=60)
    count = len(scene.tables.records(HOME))
    newest = last_past(scene)
    for event in (bobs, carols):
        scene.lambdas.deliver(event)
        scene.world.run(10)
    blamed = cause(scene)
    assert blamed is not None
    assert blamed.actor == BOB
    joined, other = records_since(scene, count)
    assert joined.incident_id == newest.id
    assert other.incident_id != newest.id


@pytest.mark.parametrize("ended_by", ["somebody's repair", "a rule turned off"])
def test_p5_a_late_event_is_joined_to_an_incident_that_ended_without_a_remediation(ended_by: str) -> None:
    scene = quiet()
    key = scene.managed_key()
    brake(scene)
    drift = scene.world.user_puts(HOME, None, BOB)
    look(scene)
    if ended_by == "a rule turned off":
        scene.lambdas.policy = baseline(mode="off")
        look(scene)
        scene.lambdas.policy = baseline()
    scene.world.user_puts(HOME, key, CAROL)
    scene.world.run(2)
    look(scene, seconds=600)
    state = scene.tables.state(HOME)
    assert (state.outcome, state.incident) == (Outcome.COMPLIANT, None), scene.witness.story()
    scene.lambdas.deliver(drift)
    scene.world.run(10)
    record = scene.tables.records(HOME)[-1]
    assert record.cause is not None
    assert record.cause.actor == BOB
    assert record.incident_id == last_past(scene).id
    assert record.exposure_seconds is not None
    assert record.exposure_seconds > 0
    scene.witness.check_whole()


def test_p5_a_late_event_is_joined_to_an_incident_that_waited_for_active() -> None:
    scene = quiet()
    scene.world.settling = lambda rng: 30.0
    drift = scene.world.user_puts(HOME, None, BOB)
    look(scene, seconds=60)
    look(scene, TICK, seconds=600)
    assert scene.tables.records(HOME)[-1].outcome is Outcome.REMEDIATED
    scene.lambdas.deliver(drift)
    scene.world.run(10)
    blamed = cause(scene)
    assert blamed is not None
    assert blamed.actor == BOB


# --- our own ---------------------------------------------------------------------------------------------------------


def test_p7_a_change_that_a_service_made_with_our_role_is_no_echo_and_is_put_on_the_record() -> None:
    scene = quiet()
    drift = scene.world.user_puts(HOME, None, OUR_ROLE_VIA_A_SERVICE)
    scene.lambdas.deliver(drift)
    scene.world.run(30)
    assert scene.witness.right(), scene.witness.story()
    blamed = cause(scene)
    assert blamed is not None
    assert blamed.actor == OUR_ROLE_VIA_A_SERVICE


def test_p7_a_key_changed_by_a_service_with_our_role_is_no_echo_and_is_repaired() -> None:
    scene = quiet()
    scene.world.delivery = lambda rng: [1.0]
    key = scene.managed_key()
    kms = scene.world.place(HOME).kms
    scene.world.set_kms(HOME, kms.with_key(replace(kms.keys[key], state="Disabled")))
    scene.world.tell_key(HOME, OUR_ROLE_VIA_A_SERVICE, "DisableKey", (key,))
    scene.world.run(30)
    assert scene.witness.right(), scene.witness.story()


def test_p7_what_we_changed_of_the_key_ourselves_is_an_echo_and_causes_nothing() -> None:
    scene = quiet()
    count = len(scene.tables.records(HOME))
    ours = [event for event in scene.world.events if isinstance(event, KeyEvent)]
    assert [event.trigger.event_name for event in ours] == ["CreateGrant", "EnableKeyRotation", "CreateAlias"]
    for event in ours:
        scene.lambdas.deliver(event)
        scene.world.run(30)
        assert scene.lambdas.runs[-1].calls == ["BatchGetItem"]
    assert len(scene.tables.records(HOME)) == count


BORROWED = Actor(GUARD_ROLE, "AssumedRole", session="stolen")


@pytest.mark.parametrize("name", ["PutKeyPolicy", "DisableKeyRotation", "EnableKey"])
def test_p7_a_call_by_the_guards_role_that_the_guard_did_not_make_is_recorded_and_all_is_read_again(name: str) -> None:
    scene = ticking(quiet())
    count = len(scene.tables.records(HOME))
    effect = Effect(Subject.KEY_POLICY, scene.managed_key(), BARE_POLICY)
    event = scene.world.tell_key(HOME, BORROWED, name, (scene.managed_key(),), effect=effect)
    scene.lambdas.deliver(event)
    scene.world.run(30)
    note, own = scene.tables.records(HOME)[count:]
    assert (note.reason, note.trigger.actor, note.change) == ("ROLE_BORROWED", BORROWED, None)
    assert (own.trigger.actor, own.change is not None) == (BORROWED, True)
    assert "GetKeyPolicy" in scene.lambdas.runs[-1].calls
    scene.witness.check_whole()


def test_p7_a_setting_made_with_the_guards_role_is_remediated_and_its_session_named() -> None:
    scene = ticking(quiet())
    count = len(scene.tables.records(HOME))
    scene.lambdas.deliver(scene.world.user_puts(HOME, None, BORROWED))
    scene.world.run(600)
    records = scene.tables.records(HOME)[count:]
    assert [record.reason or record.outcome for record in records] == ["ROLE_BORROWED", "REMEDIATING", "REMEDIATED"]
    assert records[-1].cause is not None
    assert records[-1].cause.actor == BORROWED
    scene.witness.check_whole()


def test_p7_an_echo_that_meets_a_fault_of_the_guard_is_not_taken_for_a_strangers_call() -> None:
    scene = ticking(quiet())
    count = len(scene.tables.records(HOME))
    ours = next(each for each in scene.world.events if isinstance(each, ChangeEvent) and is_the_guards(scene, each))
    guard = scene.lambdas.guard(Run("on_change/1", "on_change"))

    def broken(target: Target) -> Reach:
        raise RuntimeError("a fault")

    def live() -> None:
        with pytest.raises(RuntimeError):
            reconcile(replace(guard, reach=broken), ours.target, ours.trigger, ours)

    scene.world.start(live)
    scene.world.run(5)
    (record,) = scene.tables.records(HOME)[count:]
    assert (record.reason, record.trigger.event_id) == ("INTERNAL_ERROR", None)


def is_the_guards(scene: Stage, event: ChangeEvent) -> bool:
    return event.trigger.request_id in scene.world.guards_requests


def test_p7_a_key_policy_of_another_text_is_no_echo_even_while_the_guard_repairs_the_policy() -> None:
    scene = ticking(quiet())
    key = scene.managed_key()
    scene.world.user_changes_key(HOME, key, policy=BARE_POLICY)
    scene.lambdas.deliver(scene.world.events[-1])
    stalls(scene, scene.lambdas.runs[-1], "PutKeyPolicy", 20)
    scene.world.run(5)
    assert scene.tables.state(HOME).is_held(scene.world.clock)
    effect = Effect(Subject.KEY_POLICY, key, BARE_POLICY)
    scene.lambdas.deliver(scene.world.tell_key(HOME, BORROWED, "PutKeyPolicy", (key,), effect=effect))
    scene.world.run(600)
    assert [record.reason for record in scene.tables.records(HOME)].count("ROLE_BORROWED") == 1
    scene.witness.check_whole()


def test_p7_while_x_ray_is_updating_our_own_put_received_again_closes_nothing() -> None:
    scene = quiet()
    scene.world.settling = lambda rng: 300.0
    scene.world.user_puts(HOME, None)
    look(scene)
    ours = scene.world.events[-1]
    assert ours.trigger.actor is not None
    assert ours.trigger.actor.arn == GUARD_ROLE
    scene.lambdas.deliver(ours)
    scene.world.run(10)
    state = scene.tables.state(HOME)
    assert state.incident is not None
    assert state.outcome is Outcome.APPLIED


# --- what each key event wakes ---------------------------------------------------------------------------------------


def test_p6_a_change_to_an_allowed_key_that_x_ray_is_on_is_looked_at_though_it_is_not_ours() -> None:
    require = {"key": "customer", "allowed_keys": ["alias/xray-encryption", "arn:*:kms:*:*:key/*"]}
    scene = quiet(baseline(require={**require, "same_account": True, "rotation": True}))
    theirs = scene.make_key(tagged=False)
    scene.world.user_puts(HOME, theirs)
    look(scene)
    assert scene.world.setting(HOME).key_arn == theirs
    scene.world.delivery = lambda rng: [1.0]
    scene.world.user_changes_key(HOME, theirs, state="Disabled")
    scene.world.run(30)
    assert scene.world.setting(HOME).key_arn == scene.managed_key(), scene.witness.story()
    assert scene.witness.right(), scene.witness.story()


def test_p6_an_alias_moved_between_keys_that_the_guard_never_saw_is_looked_at() -> None:
    scene = quiet()
    scene.world.delivery = lambda rng: [1.0]
    other = scene.make_key(tagged=False)
    kms = scene.world.place(HOME).kms
    scene.world.set_kms(HOME, kms.with_alias("alias/xray-encryption", other))
    scene.world.tell_key(HOME, ALICE, "UpdateAlias", (other,), "alias/xray-encryption")
    scene.world.run(30)
    assert scene.witness.right(), scene.witness.story()


def test_p6_a_change_to_a_key_that_was_made_here_and_is_not_in_use_yet_is_looked_at() -> None:
    scene = quiet()
    made = scene.managed_key()
    state = scene.tables.state(HOME)
    # As after a crash between CreateKey and the alias: the key is known as made here, and nothing else is.
    scene.world.set_kms(HOME, scene.world.place(HOME).kms.with_alias("alias/xray-encryption", None))
    scene.world.place(HOME).type, scene.world.place(HOME).key_arn = EncryptionType.NONE, None
    lost = replace(state, managed_key=None, setting=None, keys_made=(made,))
    scene.tables.hold(lost)
    scene.world.delivery = lambda rng: [1.0]
    scene.world.user_changes_key(HOME, made, description="a word")
    scene.world.run(30)
    assert scene.world.setting(HOME).key_arn == made, scene.witness.story()
