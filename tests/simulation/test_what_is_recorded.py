"""P3, P4 and P13: what the record says was done, by whom, to what, and what stood there before."""

from __future__ import annotations

from msgspec.structs import replace

from chalicelib.domain.model import EncryptionStatus, Target, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.stored import Action, Record
from chalicelib.loop.dry_run import assess
from chalicelib.loop.reconcile import reconcile
from tests.simulation.beginnings import (
    OPERATOR,
    SWEEP,
    TICK,
    brake,
    look,
    operate,
    quiet,
    records_since,
    stalls,
    ticking,
    worker,
)
from tests.simulation.lambdas import LEASE_SECONDS, baseline
from tests.simulation.scenarios import ALIAS, BARE_POLICY, Stage, stage
from tests.simulation.world import HOME, MUTATIONS, Hazard, Run


def last(scene: Stage) -> Record:
    return scene.tables.records(HOME)[-1]


def action(scene: Stage, name: str) -> Action:
    """The one action of this name in the last record that has any."""
    record = [each for each in scene.tables.records(HOME) if each.actions][-1]
    (found,) = [each for each in record.actions if each.name == name]
    return found


def dies_after(scene: Stage, call: str) -> None:
    """The next worker to make the call is lost when it has had its effect."""
    died: list[Run] = []

    def hazard(run: Run, number: int, name: str) -> Hazard | None:
        if name == call and not died:
            died.append(run)
            return Hazard("crash", late=True)
        return None

    scene.world.hazard = hazard


# --- actions ---------------------------------------------------------------------------------------------------------


def test_p13_the_former_and_the_new_key_policy_are_on_the_record() -> None:
    scene = quiet()
    key = scene.managed_key()
    scene.world.user_changes_key(HOME, key, policy=BARE_POLICY)
    look(scene, OPERATOR)
    put = action(scene, "PutKeyPolicy")
    assert (put.key_arn, put.before) == (key, BARE_POLICY)
    assert put.after == scene.world.place(HOME).kms.keys[key].policy != BARE_POLICY
    assert scene.witness.right(), scene.witness.story()


def test_p13_the_policy_that_a_key_was_made_with_is_on_the_record() -> None:
    scene = stage()
    scene.world.user_puts(HOME, None)
    scene.world.run(30)
    made = action(scene, "CreateKey")
    assert made.key_arn == scene.managed_key()
    assert made.after == scene.world.place(HOME).kms.keys[scene.managed_key()].policy
    assert made.before is None


def test_p3_each_mutation_is_on_the_record_with_its_request_id_and_in_the_order_that_it_was_made() -> None:
    scene = stage()
    scene.world.user_puts(HOME, None)
    scene.world.run(30)
    actions = last(scene).actions
    assert [each.name for each in actions] == [each.name for each in scene.world.mutations if each.run]
    assert len({each.request_id for each in actions if each.request_id}) == len(actions) == 4
    assert [each.at for each in actions] == sorted(each.at for each in actions)


def test_p3_what_x_ray_was_moved_away_from_and_to_is_on_the_record() -> None:
    scene = quiet()
    other = scene.make_key(tagged=False)
    scene.world.user_puts(HOME, other)
    look(scene)
    put = action(scene, "PutEncryptionConfig")
    assert (put.before, put.after) == (other, scene.managed_key())


def test_p3_a_mutation_that_was_refused_is_on_the_record_with_its_error() -> None:
    scene = quiet()
    key = scene.managed_key()
    scene.world.user_changes_key(HOME, key, state="Disabled")
    scene.world.hazard = lambda run, number, name: Hazard("throttle") if name == "EnableKey" else None
    look(scene, OPERATOR)
    refused = action(scene, "EnableKey")
    assert (refused.key_arn, refused.error) == (key, "ThrottlingException")
    assert last(scene).error is not None


def test_p10_a_mutation_that_kms_is_slow_to_show_is_sent_once_an_attempt() -> None:
    scene = quiet()
    scene.world.user_changes_key(HOME, scene.managed_key(), state="Disabled")
    scene.world.run(600)
    scene.world.staleness = lambda rng: 240.0
    run = look(scene, OPERATOR)
    assert [call for call in run.calls if call in MUTATIONS] == ["EnableKey"]
    assert ticking(scene).converge(1200), scene.witness.story()
    scene.witness.check_whole()


# --- a key that was not made -----------------------------------------------------------------------------------------


def test_p1_after_a_refused_create_key_the_key_is_made_without_waiting_for_a_lost_one() -> None:
    scene = stage()
    scene.world.hazard = lambda run, number, name: Hazard("throttle") if name == "CreateKey" else None
    scene.world.user_puts(HOME, None)
    scene.world.run(20)
    assert scene.tables.state(HOME).intent is None
    scene.world.hazard = lambda run, number, name: None
    look(scene, OPERATOR)
    assert scene.witness.right(), scene.witness.story()
    scene.witness.check_whole()


def test_p2_no_second_key_is_made_while_kms_may_not_show_the_one_of_a_lost_worker() -> None:
    scene = stage(delivery=lambda rng: [])
    scene.world.staleness = lambda rng: 240.0
    scene.world.user_puts(HOME, None)
    dies_after(scene, "CreateKey")
    look(scene)
    assert ticking(scene).converge(1200), scene.witness.story()
    scene.witness.check_right()
    scene.witness.check_whole()


def test_p2_the_key_of_a_lost_worker_is_remembered_though_another_key_is_put_to_use_meanwhile() -> None:
    """A user puts a key behind the alias before KMS lists the lost one; the guard uses that, and goes on searching."""
    scene = stage(delivery=lambda rng: [], rivals=True)
    scene.world.user_puts(HOME, None)
    dies_after(scene, "CreateKey")
    look(scene)
    (lost,) = scene.world.place(HOME).kms.keys

    def lists_keys_late(run: Run, number: int, name: str) -> None:
        scene.world.staleness = lambda rng: 240.0 if name == "ListKeys" else 0.0

    scene.world.hazard = lists_keys_late
    theirs = scene.make_key(tagged=True)
    scene.world.user_sets_alias(HOME, ALIAS, theirs)
    ticking(scene)
    assert scene.world.run(LEASE_SECONDS + 90, scene.witness.right), scene.witness.story()
    scene.world.run(600)
    state = scene.tables.state(HOME)
    assert (state.managed_key, state.keys_made, state.intent) == (theirs, (lost,), None)
    scene.witness.check_whole()


# --- records ---------------------------------------------------------------------------------------------------------


def test_a_remediation_says_what_it_plans_before_it_begins() -> None:
    scene = stage()
    scene.world.user_puts(HOME, None)
    scene.world.run(30)
    (begun,) = [each for each in scene.tables.records(HOME) if each.outcome is Outcome.REMEDIATING]
    assert begun.detail["plan"] == [each.name for each in scene.world.mutations if each.run]


def test_p4_a_repair_whose_worker_was_lost_is_recorded_as_remediated_and_names_the_lost_worker() -> None:
    scene = quiet()
    changed_at = scene.world.clock
    scene.world.user_puts(HOME, None)
    dies_after(scene, "PutEncryptionConfig")
    lost = worker(scene, "sweep/lost")
    scene.world.run(LEASE_SECONDS + 10)
    look(scene, TICK)
    record = last(scene)
    assert record.outcome is Outcome.REMEDIATED
    assert record.error is not None
    assert record.error.code == "WORKER_LOST"
    assert lost.name in record.error.message
    assert record.exposure_seconds is not None
    assert LEASE_SECONDS <= record.exposure_seconds <= (scene.world.clock - changed_at).total_seconds()
    scene.witness.check_whole()


def test_p4_somebody_elses_repair_is_recorded_as_compliant_and_not_as_ours() -> None:
    scene = quiet()
    key = scene.managed_key()
    brake(scene)
    scene.world.user_puts(HOME, None)
    look(scene)
    scene.world.user_puts(HOME, key)
    scene.world.run(5)
    look(scene)
    record = last(scene)
    assert (record.outcome, record.actions) == (Outcome.COMPLIANT, ())
    assert record.exposure_seconds is not None
    assert record.exposure_seconds > 0
    scene.witness.check_whole()


def test_p4_an_incident_stays_open_while_x_ray_is_updating_whoever_set_the_key() -> None:
    scene = quiet()
    key = scene.managed_key()
    brake(scene)
    scene.world.user_puts(HOME, None)
    look(scene)
    scene.world.settling = lambda rng: 400.0
    scene.world.user_puts(HOME, key)
    look(scene, seconds=120)
    assert scene.tables.state(HOME).incident is not None, scene.witness.story()
    scene.world.run(300)
    look(scene)
    assert scene.tables.state(HOME).incident is None
    record = last(scene)
    assert record.after is not None
    assert record.after.status is EncryptionStatus.ACTIVE


def test_p3_an_attempt_whose_worker_died_gets_its_end_though_the_guard_was_paused_meanwhile() -> None:
    scene = quiet()
    scene.world.user_puts(HOME, None)
    scene.world.hazard = lambda run, number, name: (
        Hazard("crash") if name == "PutEncryptionConfig" and run.function == "sweep" else None
    )
    look(scene)
    brake(scene)
    scene.world.run(LEASE_SECONDS + 10)
    look(scene, TICK)
    assert [each.reason for each in scene.tables.records(HOME)][-2:] == ["WORKER_LOST", "PAUSED"]
    scene.witness.check_whole()


def test_a_change_of_the_rule_that_governs_is_on_the_record_of_a_compliant_target() -> None:
    scene = quiet()
    count = len(scene.tables.records(HOME))
    scene.lambdas.policy = baseline(id="strict")
    for _ in range(2):
        look(scene)
    assert [(each.outcome, each.rule) for each in records_since(scene, count)] == [(Outcome.COMPLIANT, "strict")]


def test_an_observed_drift_that_gets_worse_is_recorded_again() -> None:
    scene = quiet()
    key = scene.managed_key()
    scene.lambdas.policy = baseline(mode="observe")
    count = len(scene.tables.records(HOME))
    for changes in ({"policy": BARE_POLICY}, {"state": "Disabled"}):
        scene.world.user_changes_key(HOME, key, **changes)
        for _ in range(2):
            look(scene, OPERATOR)
    assert [each.violations[0] for each in records_since(scene, count)] == [
        Violation.KEY_POLICY_INCOMPLETE,
        Violation.KEY_DISABLED,
    ]


def test_an_observed_drift_that_moves_to_another_wrong_key_is_recorded_again() -> None:
    scene = quiet()
    scene.lambdas.policy = baseline(mode="observe")
    count = len(scene.tables.records(HOME))
    keys = [scene.make_key(tagged=False) for _ in range(2)]
    for key in keys:
        scene.world.user_puts(HOME, key)
        for _ in range(2):
            look(scene)
    assert [each.before and each.before.key_arn for each in records_since(scene, count)] == keys


def test_every_record_of_a_target_raises_its_metrics_once() -> None:
    scene = ticking(quiet())
    scene.world.delivery = lambda rng: [2.0]
    tags = scene.world.place(HOME).kms.keys[scene.managed_key()].tags or ()
    end = f"{scene.world.clock.replace(microsecond=0):%Y1231T%H%M%SZ} INC-1"
    scene.world.user_changes_key(HOME, scene.managed_key(), tags=(*tags, ("xray-guard-break-glass", end)))
    scene.world.run(60)
    scene.world.user_puts(HOME, None)
    scene.world.run(60)
    reasons = {each.reason for each in scene.tables.records(HOME)}
    assert "BREAK_GLASS_OPENED" in reasons
    emitted = [each.record_id for each in scene.lambdas.emitted if each.target == str(HOME)]
    assert emitted == [each.record_id for each in scene.tables.records(HOME)]


# --- what writes nothing ---------------------------------------------------------------------------------------------


def test_explaining_a_target_writes_nothing_though_a_lost_worker_left_a_key() -> None:
    scene = stage(delivery=lambda rng: [])
    scene.world.user_puts(HOME, None)
    dies_after(scene, "CreateKey")
    look(scene, seconds=LEASE_SECONDS + 10)
    state = scene.tables.state(HOME)
    assert state.intent is not None
    mutations = len(scene.world.mutations)
    operate(scene, lambda guard: assess(guard, HOME))
    assert scene.tables.state(HOME) == state
    assert len(scene.world.mutations) == mutations


def test_p17_a_target_of_another_account_is_neither_read_nor_changed() -> None:
    scene = quiet()
    elsewhere = Target("999999999999", "us-east-1")
    run = Run("sweep/1", "sweep")
    guard = scene.lambdas.guard(run)
    scene.world.start(lambda: reconcile(guard, elsewhere, Trigger(TriggerKind.SWEEP)))
    scene.world.run(30)
    assert not [mutation for mutation in scene.world.mutations if mutation.target == elsewhere]
    assert not {"GetEncryptionConfig", "DescribeKey"}.intersection(run.calls)


def test_a_target_keeps_the_time_when_it_was_first_seen() -> None:
    scene = quiet()
    first_seen = scene.tables.state(HOME).first_seen
    assert first_seen is not None
    scene.world.user_puts(HOME, None)
    look(scene)
    assert scene.tables.state(HOME).first_seen == first_seen


def test_p6_a_target_that_was_ever_encrypted_is_put_right_though_nobody_uses_it() -> None:
    scene = quiet()
    scene.lambdas.policy = baseline(when="in-use", mode="observe")
    scene.world.place(HOME).in_use = False
    drift = scene.world.user_puts(HOME, None)
    scene.lambdas.deliver(drift)
    scene.world.run(30)
    assert last(scene).outcome is Outcome.OBSERVED
    scene.lambdas.policy = baseline(when="in-use", mode="off")
    look(scene)
    scene.lambdas.policy = baseline(when="in-use")
    look(scene)
    assert scene.witness.right(), scene.witness.story()


# --- what is looked at again -----------------------------------------------------------------------------------------


def test_p1_an_adopted_key_is_looked_at_again_when_stale_reads_have_passed() -> None:
    """When X-Ray was found on the key, KMS still showed the statements that it had just lost."""
    scene = stage(delivery=lambda rng: [])
    key = scene.make_key(tagged=True)
    scene.world.user_sets_alias(HOME, ALIAS, key)
    scene.world.user_puts(HOME, key)
    scene.world.run(600)
    scene.world.user_changes_key(HOME, key, policy=BARE_POLICY)
    scene.world.run(5)
    scene.world.staleness = lambda rng: 240.0
    ticking(scene)
    look(scene)
    assert scene.managed_key() == key
    assert last(scene).outcome is Outcome.COMPLIANT
    scene.world.run(250 + 60 + 15)
    assert last(scene).violations == (Violation.KEY_POLICY_INCOMPLETE,), scene.witness.story()


def test_p1_what_kms_was_slow_to_show_when_a_key_event_came_is_seen_and_repaired() -> None:
    scene = ticking(quiet())
    scene.world.staleness = lambda rng: 240.0
    scene.world.delivery = lambda rng: [1.0]
    disabled_at = scene.world.now
    scene.world.user_changes_key(HOME, scene.managed_key(), policy=BARE_POLICY)
    assert scene.converge(1000), scene.witness.story()
    right_since = scene.witness.right_since[HOME]
    assert right_since is not None
    assert right_since - disabled_at <= 250 + 60 + 15


def test_p10_the_sweep_after_a_daily_check_does_not_read_everything_again() -> None:
    scene = quiet()
    scene.world.run(25 * 3600)
    checks = [look(scene, SWEEP, seconds=3600).calls.count("GetKeyPolicy") for _ in range(3)]
    assert checks == [1, 0, 0]


def test_p6_a_day_later_a_sweep_reads_everything_though_it_was_swept_every_hour() -> None:
    scene = quiet()
    scene.world.user_changes_key(HOME, scene.managed_key(), policy=BARE_POLICY)
    for _ in range(25):
        look(scene, SWEEP, seconds=3600)
    assert scene.witness.right(), scene.witness.story()


def test_p6_the_daily_check_is_due_though_a_sweep_wrote_a_record_meanwhile() -> None:
    """Under a rule of another name a sweep records COMPLIANT, and has read no policy for that."""
    scene = quiet()
    scene.world.user_changes_key(HOME, scene.managed_key(), policy=BARE_POLICY)
    scene.world.run(12 * 3600)
    scene.lambdas.policy = baseline(id="strict")
    look(scene, SWEEP, seconds=12 * 3600)
    assert last(scene).rule == "strict"
    look(scene, SWEEP)
    assert scene.witness.right(), scene.witness.story()


def test_p1_a_sweep_that_reads_no_policy_does_not_end_the_wait_for_what_kms_shows() -> None:
    scene = quiet()
    strip_while_kms_is_slow(scene)
    scene.world.run(300)
    scene.world.staleness = lambda rng: 0.0
    look(scene, SWEEP)
    look(scene, TICK)
    assert scene.witness.right(), scene.witness.story()


def test_p1_an_operators_look_does_not_end_the_wait_for_what_kms_shows() -> None:
    scene = quiet()
    strip_while_kms_is_slow(scene)
    scene.world.run(100)
    look(scene, OPERATOR)
    assert not scene.witness.right()
    ticking(scene)
    assert scene.world.run(250, scene.witness.right), scene.witness.story()


def strip_while_kms_is_slow(scene: Stage) -> None:
    """The key loses its statements, its event arrives, and KMS does not show the loss for four minutes."""
    scene.world.staleness = lambda rng: 240.0
    scene.world.delivery = lambda rng: [1.0]
    scene.world.user_changes_key(HOME, scene.managed_key(), policy=BARE_POLICY)
    scene.world.run(30)
    scene.world.delivery = lambda rng: []


def test_p4_a_failed_read_does_not_begin_the_wait_for_active_anew() -> None:
    scene = quiet()
    scene.world.settling = lambda rng: 7200.0
    scene.world.user_puts(HOME, None)
    look(scene, seconds=60)
    applied = scene.tables.state(HOME).incident
    assert applied is not None
    scene.world.hazard = lambda run, number, name: Hazard("throttle") if name == "GetEncryptionConfig" else None
    look(scene)
    scene.world.hazard = lambda run, number, name: None
    waiting = scene.tables.state(HOME).incident
    assert waiting is not None
    assert (waiting.phase, waiting.applied_at) == (applied.phase, applied.applied_at)
    look(scene)
    waiting = scene.tables.state(HOME).incident
    assert waiting is not None
    assert replace(waiting, due=None) == replace(applied, due=None), scene.witness.story()


def test_p3_what_was_done_is_on_the_record_though_x_ray_cannot_be_asked_again_after_a_conflict() -> None:
    scene = quiet()
    count = len(scene.tables.records(HOME))
    scene.world.settling = lambda rng: 0.0
    scene.world.user_puts(HOME, None)
    acting = worker(scene, "sweep/acting")

    def again(run: Run, number: int, name: str) -> Hazard | None:
        request = run.calls.count("GetEncryptionConfig") if "PutEncryptionConfig" in run.calls else 0
        return Hazard("throttle") if run is acting and name == "GetEncryptionConfig" and request > 2 else None

    scene.world.hazard = again
    stalls(scene, acting, "GetEncryptionConfig", 10, after="PutEncryptionConfig")
    scene.world.later(3, lambda: scene.lambdas.deliver(scene.world.user_fails(HOME)))
    scene.world.run(30)
    end = records_since(scene, count)[-1]
    assert (end.outcome, end.reason) == (Outcome.FAILED, "ThrottlingException"), scene.witness.story()
    assert [sent.name for sent in end.actions] == ["PutEncryptionConfig"]
    scene.witness.check_whole()
