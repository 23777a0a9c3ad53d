"""P13, P16: somebody edits a stored state. The guard never acts on the edit, and verification finds it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest

from chalicelib.domain.attempts import begin
from chalicelib.domain.model import GUARD_TAG_KEY, GUARD_TAG_VALUE, NONCE_TAG_KEY, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import GUARD_CHAIN, Backoff, Intent, Lease, Pause, Record, Suppression
from chalicelib.domain.tagvalue import normal
from chalicelib.loop.attempt import Attempt
from chalicelib.loop.commit import commit
from chalicelib.loop.judging import judge_target
from chalicelib.loop.managed_key import replace_key
from chalicelib.loop.observe import glance, glance_reads
from chalicelib.loop.reconcile import reconcile
from tests.simulation.beginnings import OPERATOR, brake, operate, quiet, records_since, release, ticking
from tests.simulation.scenarios import ALIAS, Stage, stage
from tests.simulation.simulatedlog import SimulatedLog, edit
from tests.simulation.still import still
from tests.simulation.test_stored_format import TARGETS, loaded
from tests.simulation.world import HOME, Hazard, Run

NONCE = "nonce-of-a-stranger"


@pytest.fixture
def scene() -> Stage:
    """A compliant target with the guard's own key, and nothing due."""
    return edited_later(quiet())


def edited_later(scene: Stage) -> Stage:
    scene.witness.follows_key_rows = False
    return ticking(scene)


def strangers_key(scene: Stage) -> str:
    """A healthy key with the guard's tags that somebody else made: only the log says that it is not the guard's."""
    arn = scene.make_key(tagged=True, tags=((GUARD_TAG_KEY, GUARD_TAG_VALUE), (NONCE_TAG_KEY, NONCE)))
    scene.world.run(600)
    return arn


def found(scene: Stage) -> set[tuple[str, str]]:
    """What `audit verify` finds, as (chain, code)."""
    return {(finding.target, finding.code) for finding in SimulatedLog(scene.tables).report().findings}


EDITED = (str(HOME), "STATE_EDITED")


def drifts(scene: Stage, seconds: float = 1800) -> list[Record]:
    """Somebody turns encryption off, and the guard hears of it; return the records of the next half hour."""
    count = len(scene.tables.records(HOME))
    scene.world.delivery = lambda rng: [2.0]
    scene.world.user_puts(HOME, None)
    scene.world.run(seconds)
    return records_since(scene, count)


def never_touched(scene: Stage, arn: str) -> None:
    """X-Ray is not on the key, and the guard neither set it nor changed the key."""
    assert scene.world.setting(HOME).key_arn != arn, scene.witness.story()
    touched = [each for each in scene.world.mutations if each.run is not None and each.key_arn == arn]
    assert touched == [], scene.witness.story()


def test_p16_nothing_is_found_where_nobody_edited_anything(scene: Stage) -> None:
    drifts(scene)
    report = SimulatedLog(scene.tables).report()
    assert (report.findings, report.uncovered) == ((), 0)
    assert report.keys > 0
    scene.witness.check_whole()


# --- keys ------------------------------------------------------------------------------------------------------------


def managed_key(scene: Stage, arn: str) -> None:
    edit(scene.tables, str(HOME), managed_key=arn)


def key_made(scene: Stage, arn: str) -> None:
    """With the alias gone, the latest key that the guard made would be the managed one."""
    scene.world.user_sets_alias(HOME, ALIAS, None)
    edit(scene.tables, str(HOME), managed_key=None, keys_made=[arn])


def key_handed(scene: Stage, arn: str) -> None:
    """The guard would change the key behind the alias, which somebody else made."""
    scene.world.user_sets_alias(HOME, ALIAS, arn)
    scene.world.user_changes_key(HOME, arn, state="Disabled")
    edit(scene.tables, str(HOME), managed_key=None, keys_made=[], keys_handed=[arn])


def intent(scene: Stage, arn: str) -> None:
    """The guard would find the key by the nonce, and take it for its own."""
    scene.world.user_sets_alias(HOME, ALIAS, None)
    nonce = msgspec.to_builtins(Intent(NONCE, scene.world.clock + timedelta(minutes=5)))
    edit(scene.tables, str(HOME), managed_key=None, keys_made=[], intent=nonce)


@pytest.mark.parametrize("forge", [managed_key, key_made, key_handed, intent])
def test_p13_p16_the_guard_never_moves_x_ray_to_a_key_that_somebody_wrote_into_its_state(
    scene: Stage, forge: Callable[[Stage, str], None]
) -> None:
    arn = strangers_key(scene)
    forge(scene, arn)
    assert EDITED in found(scene)
    records = drifts(scene)
    never_touched(scene, arn)
    failed = [record for record in records if record.reason == Reason.KEY_NOT_ON_RECORD]
    assert failed, scene.witness.story()
    assert {record.outcome for record in failed} == {Outcome.FAILED}
    assert failed[0].error is not None
    assert not failed[0].error.retryable, "alarmed at once"
    assert len(failed) < 12, "it backs off"
    if forge is intent:
        assert scene.tables.state(HOME).intent is None, "it is not searched for again"
    else:
        assert not [record for record in records if record.outcome is Outcome.REMEDIATING]
    assert EDITED in found(scene), "also after the guard stored the state again"
    assert not scene.lambdas.dead_letters


def test_p13_p16_the_nonce_of_a_key_that_the_guard_made_brings_no_other_key(scene: Stage) -> None:
    """Anybody who may read the tags of the managed key knows the nonce."""
    own = scene.managed_key()
    nonce = dict(scene.world.place(HOME).kms.keys[own].tags or ())[NONCE_TAG_KEY]
    scene.world.run(7200)
    tags = ((GUARD_TAG_KEY, GUARD_TAG_VALUE), (NONCE_TAG_KEY, nonce))
    arn = scene.make_key(tagged=True, made_at=scene.world.clock, state="Disabled", tags=tags)
    scene.world.run(600)
    due = scene.world.clock + timedelta(seconds=60)
    edit(scene.tables, str(HOME), managed_key=None, keys_made=[], intent=msgspec.to_builtins(Intent(nonce, due)))
    records = drifts(scene)
    never_touched(scene, arn)
    assert Reason.KEY_NOT_ON_RECORD in {record.reason for record in records}


def test_p13_p16_a_key_that_was_only_adopted_cannot_be_edited_into_one_that_the_guard_may_change() -> None:
    scene = stage()
    scene.witness.follows_key_rows = False
    theirs = scene.make_key(tagged=True)
    with scene.undelivered():
        scene.world.user_sets_alias(HOME, ALIAS, theirs)
    ticking(scene)
    scene.world.user_puts(HOME, None)
    scene.world.run(600)
    assert scene.managed_key() == theirs
    scene.world.user_changes_key(HOME, theirs, state="Disabled")
    scene.world.run(60)
    edit(scene.tables, str(HOME), keys_made=[theirs])
    scene.world.run(1800)
    assert scene.world.place(HOME).kms.keys[theirs].state == "Disabled", scene.witness.story()
    assert scene.tables.records(HOME)[-1].reason == Reason.KEY_NOT_ON_RECORD


def test_p13_p16_a_key_that_an_operator_gave_up_cannot_be_edited_back(scene: Stage) -> None:
    given_up = scene.managed_key()
    operate(scene, lambda guard: replace_key(guard, HOME, OPERATOR))
    scene.world.run(600)
    assert scene.managed_key() != given_up
    edit(scene.tables, str(HOME), managed_key=given_up, keys_retired=[])
    drifts(scene)
    assert scene.world.setting(HOME).key_arn != given_up, scene.witness.story()


def test_p16_an_operator_gives_up_the_forged_key_and_the_guard_remediates_with_its_own(scene: Stage) -> None:
    own, arn = scene.managed_key(), strangers_key(scene)
    managed_key(scene, arn)
    drifts(scene)
    operate(scene, lambda guard: replace_key(guard, HOME, OPERATOR))
    scene.world.run(600)
    never_touched(scene, arn)
    assert scene.world.setting(HOME).key_arn == own, scene.witness.story()
    assert EDITED in found(scene), "what happened stays found"


@pytest.mark.parametrize("call", ["EnableKey", "PutEncryptionConfig"])
def test_p13_p16_a_key_that_is_forged_during_an_attempt_is_not_used_either(scene: Stage, call: str) -> None:
    """The attempt reads the state again, because another write was faster."""
    own, arn = scene.managed_key(), strangers_key(scene)
    befalls = scene.world.hazard

    def hazard(run: Run, number: int, name: str) -> Hazard | None:
        if name == call and run.of(HOME).lease_number is not None and scene.tables.state(HOME).managed_key == own:
            version, text, due = scene.tables.states[str(HOME)]
            forged = {**json.loads(text), "managed_key": arn, "version": version + 1}
            scene.tables.states[str(HOME)] = (version + 1, json.dumps(forged).encode(), due)
        return befalls(run, number, name)

    scene.world.hazard = hazard
    scene.world.user_changes_key(HOME, own, state="Disabled")
    drifts(scene)
    never_touched(scene, arn)
    assert EDITED in found(scene)


def test_p13_p16_an_attempt_changes_no_key_that_was_not_in_its_plan_whatever_the_state_names() -> None:
    """The state that it reads again after a conflict may have been edited."""
    scene = still()
    sweep, invocation = Trigger(TriggerKind.SWEEP), Run("sweep/2", "sweep")
    reconcile(scene.lambdas.guard(Run("sweep/1", "sweep")), HOME, sweep)
    scene.world.run(1800)
    scene.world.user_puts(HOME, None)
    guard = scene.lambdas.guard(invocation)
    run, reach = guard.run(HOME, sweep), guard.reach(HOME)
    assert run.rule is not None
    known = guard.known(run)
    first = glance(reach, guard.gather(glance_reads(reach, run.rule)))
    judged = judge_target(guard, reach, run, run.rule, known, first)
    begun, _ = commit(
        guard, run, known, begin(run, known, judged.seen, judged.glass, judged.decision, guard.at(), "nonce")
    )
    assert begun.state.incident is not None
    assert begun.state.incident.lease is not None
    mutations = len(scene.world.mutations)
    result = Attempt(guard, run, begun, begun.state.incident.lease, frozenset(), frozenset(), None, mutated=False).act(
        judged.seen
    )
    assert (result.outcome, result.reason) == (Outcome.FAILED, Reason.KEY_NOT_ON_RECORD)
    assert len(scene.world.mutations) == mutations, scene.witness.story()


# --- what would silence the guard ------------------------------------------------------------------------------------


def far(scene: Stage, **delta: float) -> str:
    return (scene.world.clock + timedelta(**delta)).isoformat().replace("+00:00", "Z")


def incident_of(scene: Stage) -> dict[str, object]:
    state = scene.tables.state(HOME)
    assert state.incident is not None
    document: dict[str, object] = msgspec.to_builtins(state.incident)
    return document


def lease(scene: Stage) -> str:
    mine = msgspec.to_builtins(Lease("sweep/x", 99, scene.world.clock + timedelta(days=3650), scene.world.clock))
    edit(scene.tables, str(HOME), incident={**incident_of(scene), "phase": "acting", "lease": mine, "unended": True})
    return "incident.lease.until"


def backoff(scene: Stage) -> str:
    until = scene.world.clock + timedelta(days=3650)
    edit(scene.tables, str(HOME), backoffs={"setting": msgspec.to_builtins(Backoff(3, scene.world.clock, until))})
    return "backoffs.setting.until"


def due(scene: Stage) -> str:
    edit(scene.tables, str(HOME), incident={**incident_of(scene), "due": far(scene, days=3650)})
    return "incident.due"


def recheck(scene: Stage) -> str:
    edit(scene.tables, str(HOME), look=far(scene, hours=1))
    return "recheck_at"


def watch(scene: Stage) -> str:
    edit(scene.tables, str(HOME), watch=far(scene, hours=1))
    return "watch"


def checked(scene: Stage) -> str:
    edit(scene.tables, str(HOME), checked_at=far(scene, days=3650))
    return "checked_at"


def settling(scene: Stage) -> str:
    incident = {**incident_of(scene), "settles_until": far(scene, hours=1)}
    edit(scene.tables, str(HOME), incident=incident, outcome="DEFERRED", reason="SETTLING")
    return "incident.settles_until"


@pytest.mark.parametrize("forge", [lease, backoff, due, recheck, watch, checked, settling])
def test_p9_p16_a_time_beyond_what_the_guard_can_set_is_not_obeyed_and_is_recorded(
    forge: Callable[[Stage], str],
) -> None:
    scene = quiet()
    scene.witness.follows_key_rows = False
    scene.world.hazard = lambda run, number, name: Hazard("throttle") if name == "GetEncryptionConfig" else None
    scene.lambdas.sweep()
    scene.world.run(60)
    scene.world.hazard = lambda run, number, name: None
    assert scene.tables.state(HOME).incident is not None
    scene.world.user_puts(HOME, None)
    field = forge(scene)
    count = len(scene.tables.records(HOME))
    scene.lambdas.sweep()
    scene.world.run(600)
    records = records_since(scene, count)
    edited = [record for record in records if record.reason == Reason.STATE_EDITED]
    assert [(record.outcome, record.detail["field"]) for record in edited] == [(Outcome.IGNORED, field)], field
    assert scene.witness.right(), scene.witness.story()
    ended = [record for record in records if record.outcome is Outcome.REMEDIATED]
    assert len(ended) == 1, scene.witness.story()
    if forge is backoff:
        assert EDITED in found(scene)


def test_p2_p16_an_intent_that_never_ends_ends_at_the_latest_time_that_the_guard_could_set(scene: Stage) -> None:
    """It is not ended at once: the key may exist, and a second one would be created."""
    nonce = msgspec.to_builtins(Intent("nonce", scene.world.clock + timedelta(days=3650)))
    edit(scene.tables, str(HOME), intent=nonce)
    assert EDITED in found(scene)
    records = drifts(scene, 3600)
    assert "intent.due" in {each.detail.get("field") for each in records if each.reason == Reason.STATE_EDITED}
    assert scene.tables.state(HOME).intent is None
    assert scene.witness.right(), scene.witness.story()


TAG = "xray-guard-break-glass"


@pytest.mark.parametrize("until", [timedelta(days=3650), None], ids=["far", "never"])
def test_p14_p16_a_break_glass_that_lasts_longer_than_any_policy_allows_is_not_in_force(
    scene: Stage, until: timedelta | None
) -> None:
    key, now = scene.managed_key(), scene.world.clock
    value = normal(f"{now + timedelta(days=3650):%Y%m%dT%H%M%SZ} INC-1")
    scene.world.user_changes_key(HOME, key, tags=((GUARD_TAG_KEY, GUARD_TAG_VALUE), (TAG, value)))
    end = now + timedelta(days=3650)
    forged = Suppression(key, value, "INC-1", now, end, now + until if until else None)
    edit(scene.tables, str(HOME), suppressions=[msgspec.to_builtins(forged)])
    assert EDITED in found(scene)
    records = drifts(scene)
    assert [r.detail["field"] for r in records if r.reason == Reason.STATE_EDITED] == ["suppressions.until"]
    assert scene.witness.right(), scene.witness.story()
    (kept,) = scene.tables.state(HOME).suppressions
    assert kept.closed == "EDITED", "it is remembered, so that the tag does not open it again"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("managed_key", "arn:of-another"),
        ("keys_made", ["arn:of-another"]),
        ("keys_retired", ["arn:of-another"]),
        ("intent", {"nonce": "n", "due": "2026-11-20T12:00:00Z"}),
        ("suppressions", [msgspec.to_builtins(Suppression("carrier", "v", "r", quiet().world.clock, None, None))]),
        ("keys_handed", ["arn:of-another"]),
        ("backoffs", {"key": {"count": 1}}),
        ("lease_number", 77),
        ("requests", ["request-of-a-stranger"]),
        ("windows", [{"since": None, "until": "2999-01-01T00:00:00Z"}]),
    ],
)
def test_p16_an_edit_of_each_protected_field_is_found_before_and_after_the_guard_stores_the_state_again(
    scene: Stage, name: str, value: object
) -> None:
    assert found(scene) == set()
    edit(scene.tables, str(HOME), **{name: value})
    assert EDITED in found(scene)
    drifts(scene, 60)
    assert EDITED in found(scene)


@pytest.mark.parametrize("paused", [True, False])
def test_p16_an_edited_pause_is_found_in_the_guards_own_chain(scene: Stage, paused: bool) -> None:
    scene.lambdas.sweep()
    scene.world.run(60)
    value = msgspec.to_builtins(Pause(scene.world.clock, "nobody", "none")) if paused else None
    if not paused:
        brake(scene)
    assert found(scene) == set()
    edit(scene.tables, GUARD_CHAIN, paused=value)
    assert (GUARD_CHAIN, "STATE_EDITED") in found(scene)
    scene.lambdas.sweep()
    scene.world.run(60)
    assert (GUARD_CHAIN, "STATE_EDITED") in found(scene)


# --- upgrades --------------------------------------------------------------------------------------------------------


def upgraded(version: str) -> Stage:
    """The tables of an earlier release, that this one continued for two hours."""
    scene = loaded(version)
    scene.lambdas.schedule()
    release(scene)
    scene.world.run(13 * 3600)
    return scene


@pytest.mark.parametrize("version", ["version-1.json", "version-2.json"])
def test_p16_upgraded_tables_verify_whole_and_what_no_release_covered_is_counted(version: str) -> None:
    scene = loaded(version)
    before = SimulatedLog(scene.tables).report()
    assert before.findings == ()
    assert before.uncovered == before.records
    assert before.keys == 0
    scene = upgraded(version)
    after = SimulatedLog(scene.tables).report()
    assert (after.findings, after.uncovered) == ((), before.records)
    for target in TARGETS:
        state = scene.tables.state(target)
        assert (str(target), f"k#{state.managed_key}") in scene.tables.keys
        first = next(record for record in scene.tables.records(target) if record.kept)
        assert first.kept is not None
        assert first.kept.before is None
        assert scene.witness.right(target)


@pytest.mark.parametrize("format_claimed", [1, 2])
def test_p13_p16_a_forged_state_that_claims_an_earlier_format_gets_no_row_for_its_key(
    scene: Stage, format_claimed: int
) -> None:
    arn = strangers_key(scene)
    edit(scene.tables, str(HOME), managed_key=arn, format=format_claimed)
    assert EDITED in found(scene)
    records = drifts(scene)
    never_touched(scene, arn)
    assert (str(HOME), f"k#{arn}") not in scene.tables.keys
    reasons = [record.reason for record in records if record.outcome is Outcome.FAILED]
    assert reasons[0] == Reason.STATE_EDITED
    assert set(reasons[1:]) == {Reason.KEY_NOT_ON_RECORD}
    assert {EDITED, (str(HOME), "KEY_ROW_MISSING")} <= found(scene)
    assert not scene.lambdas.dead_letters


def test_p16_the_guards_own_state_that_claims_an_earlier_format_is_stored_and_found(scene: Stage) -> None:
    edit(scene.tables, GUARD_CHAIN, paused=None, swept_at=None, format=2)
    assert (GUARD_CHAIN, "STATE_EDITED") in found(scene)
    scene.lambdas.sweep()
    scene.world.run(60)
    assert scene.tables.guard().swept_at is not None, "sweeps are still recorded"


# --- the rows and the attributes -------------------------------------------------------------------------------------


def test_p16_a_key_row_that_is_gone_or_points_nowhere_is_found(scene: Stage) -> None:
    place = (str(HOME), f"k#{scene.managed_key()}")
    row = scene.tables.keys.pop(place)
    assert found(scene) == {(str(HOME), "KEY_ROW_MISSING")}
    scene.tables.keys[place] = msgspec.structs.replace(row, seq=99)
    assert found(scene) == {(str(HOME), "KEY_ROW_WITHOUT_RECORD")}
    scene.tables.keys[place] = row
    del scene.tables.keys[str(HOME), "k#upgraded"]
    assert found(scene) == {(str(HOME), "KEY_ROW_MISSING")}


def test_p16_an_index_that_hides_what_is_due_is_found(scene: Stage) -> None:
    scene.world.user_puts(HOME, None)
    scene.lambdas.sweep()
    scene.world.run(1)
    version, text, due = scene.tables.states[str(HOME)]
    assert due is not None
    scene.tables.states[str(HOME)] = (version, text, None)
    (finding,) = SimulatedLog(scene.tables).report().findings
    assert finding.code == "STATE_EDITED"
    assert "the index has the due time none" in finding.message


@pytest.mark.parametrize("name", ["version", "seq", "head"])
def test_p16_an_attribute_that_contradicts_the_state_is_found(scene: Stage, name: str) -> None:
    document = json.loads(scene.tables.states[str(HOME)][1])
    edit(scene.tables, str(HOME), **{name: "0" * 64 if name == "head" else document[name] - 1})
    assert EDITED in found(scene)
