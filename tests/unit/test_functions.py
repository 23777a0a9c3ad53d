"""The functions as Lambda calls them: with whose echo, lease and worker, and with which metrics they end."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib import entry
from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import Actor, EncryptionType, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.stored import GUARD_CHAIN, Backoff, Record
from chalicelib.loop.guard import Guard
from chalicelib.loop.pause import pause
from tests.simulation.lambdas import baseline
from tests.simulation.scenarios import ALIAS, Stage
from tests.simulation.still import still
from tests.simulation.world import ACCOUNT, GUARD_ROLE, HOME, Hazard, Run
from tests.unit.endpoint import Endpoint

OTHER_ALIAS = "alias/xray-traces"
OPERATOR = f"arn:aws:iam::{ACCOUNT}:user/Ops"
REQUEST = "11111111-2222-3333-4444-555555555555"


class Context:
    """Lambda's context of one invocation."""

    def __init__(self, seconds_left: float = 900.0, request_id: str = REQUEST, function: str = "xray-guard-tick"):
        self.function_name = function
        self.aws_request_id = request_id
        self.invoked_function_arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{function}"
        self._seconds_left = seconds_left

    def get_remaining_time_in_millis(self) -> int:
        return int(self._seconds_left * 1000)


class Bucket:
    """AWS's answers to a sweep: the enabled Regions, and a bucket that takes anchors."""

    def __call__(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if operation == "DescribeRegions":
            return {"Regions": [{"RegionName": HOME.region}]}
        return {}


@pytest.fixture
def scene() -> Iterator[Stage]:
    """An account whose guard lives in a warm process of this test's."""
    scene = still()
    warm(scene)
    yield scene
    entry._process = None
    entry.metrics.clear_metrics()


def warm(scene: Stage, **changes: object) -> Guard:
    """Keep the stage's guard in the process, as the invocation before left it."""
    process = entry._Process()
    process.clients = Endpoint(Bucket()).clients
    process.guard = replace(scene.lambdas.guard(Run("before", "before")), emit=entry._emit, **changes)
    entry._process = process
    return process.guard


@pytest.fixture
def counted(capsys: pytest.CaptureFixture[str]) -> Callable[[], dict[str, float]]:
    """What the function has sent to CloudWatch since the last call: the sum of each metric."""

    def read() -> dict[str, float]:
        assert not entry.metrics.metric_set, "what is not sent with this invocation is counted with another"
        sums: dict[str, float] = {}
        for line in capsys.readouterr().out.splitlines():
            sent = json.loads(line) if line.startswith("{") else {}
            for group in sent.get("_aws", {}).get("CloudWatchMetrics", ()):
                for metric in group["Metrics"]:
                    values = sent[metric["Name"]]
                    sums[metric["Name"]] = sums.get(metric["Name"], 0.0) + sum(values)
        return sums

    return read


# --- P8: the lease and its owner -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds_left", [60.0, 59.9, 899.5])
def test_p8_a_lease_outlives_its_function_by_a_minute(scene: Stage, seconds_left: float) -> None:
    """The clocks of two workers are AWS's, which tell whole seconds."""
    guard = entry._the_process().guard_for(Context(seconds_left))
    assert guard.lease_seconds >= seconds_left - 1 + 60


def test_p8_a_lease_that_is_taken_is_still_held_when_its_function_has_been_ended(scene: Stage) -> None:
    scene.world.hazard = lambda run, number, name: Hazard("bug") if name == "PutEncryptionConfig" else None
    leases: list[datetime] = []

    def note(run: Run, before: object, after: Any, records: list[Record]) -> None:
        if getattr(after, "incident", None) and after.incident.lease:
            leases.append(after.incident.lease.until)

    scene.tables.on_commit = note
    began = scene.world.clock
    with pytest.raises(RuntimeError):
        entry.on_change(change(ALICE), Context(60.0))
    assert leases[0] >= began + timedelta(seconds=60 + 58)


def test_p8_two_invocations_are_two_workers_and_a_retry_has_the_name_of_its_predecessor(scene: Stage) -> None:
    process = entry._the_process()

    def worker(request_id: str, function: str = "xray-guard-tick") -> str:
        return process.guard_for(Context(request_id=request_id, function=function)).worker

    other = "22222222-2222-3333-4444-555555555555"
    assert len({worker(REQUEST), worker(other), worker(REQUEST, "xray-guard-sweep")}) == 3
    assert worker(REQUEST) == worker(REQUEST)


# --- P7: whose echo --------------------------------------------------------------------------------------------------

ALICE: dict[str, Any] = {"type": "IAMUser", "arn": f"arn:aws:iam::{ACCOUNT}:user/Alice"}
SELF = f"arn:aws:iam::{ACCOUNT}:role/xray-guard"
SAME_NAME = {
    "another account": "arn:aws:iam::444455556666:role/xray-guard",
    "another path": f"arn:aws:iam::{ACCOUNT}:role/team/xray-guard",
    "another partition": f"arn:aws-us-gov:iam::{ACCOUNT}:role/xray-guard",
    "a longer name": f"arn:aws:iam::{ACCOUNT}:role/xray-guard-api",
}


def role(arn: str, **more: object) -> dict[str, Any]:
    """The `userIdentity` of a role's session. CloudTrail leaves the path out of the session's ARN."""
    _, partition, _, _, account, resource = arn.split(":")
    name = resource.rsplit("/", 1)[-1]
    return {
        "type": "AssumedRole",
        "principalId": "AROAEXAMPLE:session",
        "arn": f"arn:{partition}:sts::{account}:assumed-role/{name}/session",
        "accountId": account,
        "sessionContext": {"sessionIssuer": {"type": "Role", "arn": arn, "accountId": account, "userName": name}},
        **more,
    }


def cloudtrail(source: str, name: str, identity: dict[str, Any], **detail: Any) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "11111111-2222-3333-4444-555555555555",
        "detail-type": "AWS API Call via CloudTrail",
        "source": f"aws.{source}",
        "account": ACCOUNT,
        "time": "2026-11-20T12:00:00Z",
        "region": HOME.region,
        "detail": {
            "userIdentity": identity,
            "eventTime": "2026-11-20T12:00:00Z",
            "eventSource": f"{source}.amazonaws.com",
            "eventName": name,
            "awsRegion": HOME.region,
            "eventID": f"event-{name}",
            "recipientAccountId": ACCOUNT,
            **detail,
        },
    }


def change(identity: dict[str, Any]) -> dict[str, Any]:
    """Somebody turned encryption off."""
    answer = {"encryptionConfig": {"type": "NONE", "status": "UPDATING"}}
    return cloudtrail("xray", "PutEncryptionConfig", identity, responseElements=answer)


def key_change(name: str, identity: dict[str, Any], *arns: str, alias: str | None = None) -> dict[str, Any]:
    """Somebody called KMS about these keys."""
    request = {"aliasName": alias} if alias else {"keyId": arns[0]}
    listed = [{"type": "AWS::KMS::Key", "ARN": arn} for arn in arns]
    return cloudtrail("kms", name, identity, requestParameters=request, resources=listed)


def on_key(scene: Stage, arn: str) -> None:
    """X-Ray is on a key, and the guard has seen that it is well."""
    scene.world.set_xray(HOME, EncryptionType.KMS, arn)
    scene.world.run(10)
    entry.on_change(cloudtrail("xray", "PutEncryptionConfig", ALICE, responseElements=None), Context())
    assert scene.tables.state(HOME).outcome in (Outcome.COMPLIANT, Outcome.REMEDIATED), scene.witness.story()


@pytest.mark.parametrize("arn", SAME_NAME.values(), ids=SAME_NAME)
def test_p7_a_change_by_a_role_of_the_guards_name_is_somebody_elses(scene: Stage, arn: str) -> None:
    entry.on_change(change(role(arn)), Context())
    assert scene.world.setting(HOME).type is EncryptionType.KMS
    first = scene.tables.records(HOME)[0]
    assert first.trigger.actor is not None
    assert first.trigger.actor.arn == arn
    assert first.cause is not None
    assert first.cause.actor.arn == arn


def test_p7_a_change_that_a_service_made_with_the_guards_role_is_on_the_record(scene: Stage) -> None:
    entry.on_change(change(role(SELF, invokedBy="cloudformation.amazonaws.com")), Context())
    first = scene.tables.records(HOME)[0]
    assert first.trigger.actor == Actor(SELF, "AssumedRole", "session", via="cloudformation.amazonaws.com")


def test_p7_the_guards_own_change_is_an_echo_and_leaves_no_record_of_its_own(scene: Stage) -> None:
    assert SELF == GUARD_ROLE
    entry.on_change(change(ALICE), Context())
    before = scene.tables.records(HOME)
    put = next(action for action in before[-1].actions if action.name == "PutEncryptionConfig")
    own = cloudtrail("xray", put.name, role(SELF), eventID="own", requestID=put.request_id, responseElements=None)
    assert entry.on_change(own, Context())["reason"] == "ECHO"
    assert scene.tables.records(HOME) == before


@pytest.mark.parametrize("arn", SAME_NAME.values(), ids=SAME_NAME)
def test_p7_a_key_disabled_by_a_role_of_the_guards_name_is_enabled_again(scene: Stage, arn: str) -> None:
    entry.on_change(change(ALICE), Context())
    key = scene.managed_key()
    scene.world.user_changes_key(HOME, key, state="Disabled")
    entry.on_key_change(key_change("DisableKey", role(arn), key), Context())
    assert scene.world.place(HOME).kms.keys[key].state == "Enabled"


# --- P6: which keys' events count ------------------------------------------------------------------------------------


@pytest.fixture
def two_aliases() -> Iterator[tuple[Stage, str]]:
    """A rule that allows the key behind a second alias, too; X-Ray is on that key."""
    scene = still(baseline(require={"key": "customer", "allowed_keys": [ALIAS, OTHER_ALIAS]}))
    warm(scene)
    theirs = scene.make_key(tagged=False)
    scene.world.user_sets_alias(HOME, OTHER_ALIAS, theirs)
    on_key(scene, theirs)
    yield scene, theirs
    entry._process = None
    entry.metrics.clear_metrics()


def test_p6_an_event_of_the_key_that_x_ray_is_on_counts_though_it_is_not_the_managed_one(
    two_aliases: tuple[Stage, str],
) -> None:
    scene, theirs = two_aliases
    scene.world.user_changes_key(HOME, theirs, state="Disabled")
    entry.on_key_change(key_change("DisableKey", ALICE, theirs), Context())
    setting = scene.world.setting(HOME)
    assert setting.key_arn not in (None, theirs), "traces are lost while X-Ray is on a disabled key"


@pytest.mark.parametrize("named", [True, False], ids=["the new key is named", "no key is named"])
def test_p6_an_event_of_any_alias_that_the_rule_allows_counts(two_aliases: tuple[Stage, str], named: bool) -> None:
    scene, theirs = two_aliases
    other = scene.make_key(tagged=False)
    scene.world.user_sets_alias(HOME, OTHER_ALIAS, other)
    moved = key_change("UpdateAlias", ALICE, *([other] if named else []), alias=OTHER_ALIAS)
    entry.on_key_change(moved, Context())
    state = scene.tables.state(HOME)
    assert scene.world.setting(HOME).key_arn not in (theirs, other), "the alias no longer allows that key"
    assert any(Violation.KEY_NOT_ALLOWED in record.violations for record in scene.tables.records(HOME))
    assert state.managed_key is not None


def test_an_event_of_a_key_that_is_nobodys_here_writes_nothing(two_aliases: tuple[Stage, str]) -> None:
    scene, _ = two_aliases
    before = scene.tables.records(HOME)
    answer = entry.on_key_change(key_change("DisableKey", ALICE, scene.make_key(tagged=False)), Context())
    assert (answer["outcome"], answer["reason"]) == ("IGNORED", "NOT_OURS")
    assert scene.tables.records(HOME) == before


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_the_brake_is_counted_with_every_tick_for_as_long_as_it_is_pulled(
    scene: Stage, counted: Callable[[], dict[str, float]]
) -> None:
    entry.tick({}, Context())
    assert "Paused" not in counted()
    pause(entry._the_process().guard_for(Context()), Trigger(TriggerKind.OPERATOR), OPERATOR, "migration")
    for _ in range(2):
        entry.tick({}, Context())
        assert counted()["Paused"] == 1


def test_p9_an_attempt_held_back_in_a_fight_is_counted_as_flapping(
    scene: Stage, counted: Callable[[], dict[str, float]]
) -> None:
    entry.on_change(change(ALICE), Context())
    assert "Flapping" not in counted()
    state = scene.tables.state(HOME)
    fought = replace(
        state, backoffs={Lane.SETTING: Backoff(9, scene.world.clock, scene.world.clock + timedelta(minutes=20))}
    )
    scene.lambdas.guard(Run("test", "test")).store.commit(state, replace(fought, version=state.version + 1))
    scene.world.set_xray(HOME, EncryptionType.NONE, None)
    again = {**change(ALICE)}
    again["detail"] = {**again["detail"], "eventID": "again"}
    entry.on_change(again, Context())
    assert (scene.tables.state(HOME).outcome, scene.tables.state(HOME).reason) == (Outcome.DEFERRED, "BACKOFF")
    sums = counted()
    assert (sums["Flapping"], sums["Deferred"]) == (1, 1)


def test_what_ends_and_what_fails_is_counted(scene: Stage, counted: Callable[[], dict[str, float]]) -> None:
    entry.on_change(change(ALICE), Context())
    assert counted() == {"Remediated": 1}
    assert entry.on_change({"detail": None}, Context())["outcome"] == "FAILED"
    assert counted() == {"Failed": 1}


def test_a_sweep_is_counted_as_completed_only_if_it_reached_every_target(
    scene: Stage, counted: Callable[[], dict[str, float]]
) -> None:
    entry.sweep({}, Context())
    assert counted()["SweepCompleted"] == 1
    scene.world.hazard = lambda run, number, name: (
        Hazard("throttle") if run.about == str(HOME) and name == "BatchGetItem" else None
    )
    with pytest.raises(entry.Incomplete, match=str(HOME)):
        entry.sweep({}, Context())
    assert "SweepCompleted" not in counted()


def test_p16_where_a_bucket_is_configured_a_sweep_leaves_its_anchor_there(
    scene: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XRAY_GUARD_ANCHOR_BUCKET", "anchors")
    endpoint = Endpoint(Bucket())
    entry._the_process().clients = endpoint.clients
    entry.sweep({}, Context())
    (put,) = [request for request in endpoint.requests if request.operation == "PutObject"]
    record = next(each for each in scene.tables.records(GUARD_CHAIN) if each.reason == "SWEEP")
    body = json.loads(put.parameters["Body"].read())
    assert (body["record_id"], body["digest"]) == (record.record_id, record.detail["digest"])
    assert body["heads"] == record.detail["heads"]


def test_p16_the_functions_log_vouches_for_the_heads_as_well(scene: Stage) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(entry.logger.registered_formatter)
    logging.getLogger(entry.logger.name).addHandler(handler)
    entry.sweep({}, Context())
    logging.getLogger(entry.logger.name).removeHandler(handler)
    record = next(each for each in scene.tables.records(GUARD_CHAIN) if each.reason == "SWEEP")
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["anchor_digest"] for line in lines if "anchor_digest" in line] == [record.detail["digest"]]


# --- once ------------------------------------------------------------------------------------------------------------


def test_p5_an_event_that_names_no_target_is_recorded_once_however_often_it_comes(scene: Stage) -> None:
    for _ in range(3):
        entry.on_change({"detail": {}}, Context())
    records = [each for each in scene.tables.records(GUARD_CHAIN) if each.outcome is Outcome.FAILED]
    assert [record.reason for record in records] == ["NOT_OUR_EVENT"]
    assert records[0].error is not None
    assert records[0].error.retryable is False


def test_p12_the_first_run_under_another_policy_announces_its_digest_and_no_later_one_does(scene: Stage) -> None:
    def announced() -> list[str | None]:
        records = scene.tables.records(GUARD_CHAIN)
        return [record.policy_digest for record in records if record.reason == "POLICY_IN_FORCE"]

    for _ in range(2):
        entry.on_change(change(ALICE), Context())
    first = scene.lambdas.policy
    assert announced() == [first.digest]
    other = replace(baseline(mode="observe"), digest="ab" * 32)
    warm(scene, policy=other)
    for _ in range(2):
        entry.on_change(change(ALICE), Context())
    assert announced() == [first.digest, other.digest]
    assert scene.tables.guard().policy_digest == other.digest
