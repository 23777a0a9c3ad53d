"""Spans in CloudWatch Logs, copies of traces and slow rotation: what the guard does about what flows round the key."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.domain.incidents import exposed_since, exposure, past_exposure
from chalicelib.domain.keypolicy.judge import judge_for_logs
from chalicelib.domain.model import Actor, EncryptionType
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Policy
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.spans import LogGroup
from chalicelib.domain.steps import Blocked, next_step
from chalicelib.domain.stored import Record
from tests.simulation.beginnings import SWEEP, look, records_since, settled_stage, ticking
from tests.simulation.lambdas import baseline
from tests.simulation.scenarios import ALIAS, Stage, stage
from tests.simulation.world import ACCOUNT, ALICE, HOME, Hazard, Run

OTHER_ACCOUNT = "444455556666"
FOREIGN_KEY = f"arn:aws:kms:us-east-1:{OTHER_ACCOUNT}:key/theirs"
TAG = "xray-guard-break-glass"
GLASS = Actor(f"arn:aws:iam::{ACCOUNT}:role/SecurityBreakGlass", "AssumedRole")


def ruled(**require: Any) -> Policy:
    """The repository's policy with other requirements of spans and copies."""
    given = {"key": "customer", "allowed_keys": ["alias/xray-encryption"], **require}
    return baseline(require=given)


def settled_stage_under(policy: Policy) -> Stage:
    """A guard with this policy, whose target is compliant."""
    scene = stage(policy=policy)
    scene.lambdas.schedule()
    scene.world.user_puts(HOME, None)
    assert scene.converge(), scene.witness.story()
    scene.world.run(600)
    return scene


def encrypted() -> Stage:
    """A guard whose target stores spans under the managed key, long since."""
    scene = settled_stage()
    scene.world.user_sends_spans(HOME)
    assert scene.converge(), scene.witness.story()
    scene.world.run(600)
    return scene


def refuse(scene: Stage, kind: str, *names: str) -> None:
    """From now on AWS refuses these calls, and those that it refused before."""
    former = scene.world.hazard

    def hazard(run: Run, number: int, name: str) -> Hazard | None:
        return Hazard(kind) if name in names else former(run, number, name)

    scene.world.hazard = hazard


def happened(scene: Stage, count: int) -> list[Record]:
    """The records since then, after everything went on for a while; the witness has seen it all."""
    scene.world.run(900)
    scene.witness.check_whole()
    return records_since(scene, count)


def calls(records: list[Record]) -> list[str]:
    return [action.name for record in records for action in record.actions]


def test_p4_spans_without_a_key_are_encrypted_with_the_managed_key_and_the_record_says_how_long_that_takes() -> None:
    scene = settled_stage()
    count = len(scene.tables.records(HOME))
    former = scene.world.place(HOME).kms.keys[scene.managed_key()].policy or ""

    scene.world.user_sends_spans(HOME)
    since = scene.world.now
    scene.converge()

    right_since = scene.witness.right_since[HOME]
    assert right_since is not None
    assert right_since - since < 10, scene.witness.story()
    assert not scene.witness.wrong()
    group = scene.world.place(HOME).group
    assert group is not None
    assert group.key_arn == scene.managed_key()
    policy = scene.world.place(HOME).kms.keys[scene.managed_key()].policy or ""
    statements, before = json.loads(policy)["Statement"], json.loads(former)["Statement"]
    assert statements[: len(before)] == before, "the merge removes nothing"
    assert len(statements) == len(before) + 1
    records = happened(scene, count)
    assert [record.outcome for record in records[:2]] == [Outcome.REMEDIATING, Outcome.REMEDIATED]
    assert records[0].violations == (Violation.SPANS_NOT_KMS,)
    assert calls(records) == ["PutKeyPolicy", "AssociateKmsKey"]
    assert "five more minutes" in str(records[1].detail["association"])
    assert scene.managed_key() in str(records[1].detail["spans"])


@pytest.mark.parametrize("mends", ["disassociated", "a key of another account", "the destination again"])
def test_p1_whatever_is_done_to_the_key_of_the_spans_is_remediated_in_seconds(mends: str) -> None:
    scene = encrypted()
    count = len(scene.tables.records(HOME))
    if mends == "disassociated":
        scene.world.user_associates(HOME, None)
    elif mends == "a key of another account":
        scene.world.user_associates(HOME, FOREIGN_KEY)
    else:
        scene.world.user_deletes_group(HOME)
        scene.world.user_sends_spans(HOME)
    assert scene.witness.wrong()
    scene.world.run(10)
    assert not scene.witness.wrong(), scene.witness.story()
    records = happened(scene, count)
    assert Outcome.REMEDIATED in [record.outcome for record in records]
    assert calls(records) == ["AssociateKmsKey"]
    made = [each for record in records for each in record.attributions]
    assert {cause.actor for each in made for cause in each.events} == {ALICE}


def test_p2_a_target_without_a_key_gets_one_key_for_traces_and_spans() -> None:
    scene = stage()
    scene.lambdas.schedule()
    scene.world.user_puts(HOME, None)
    scene.world.user_sends_spans(HOME)
    assert scene.converge(), scene.witness.story()
    scene.witness.check_whole()
    scene.witness.check_right()
    group = scene.world.place(HOME).group
    assert group is not None
    assert group.key_arn == scene.world.place(HOME).key_arn == scene.managed_key()


def test_p13_x_ray_is_encrypted_though_every_call_about_spans_is_refused() -> None:
    scene = settled_stage()
    with scene.undelivered():
        scene.world.user_sends_spans(HOME)
    refuse(scene, "denied", "AssociateKmsKey", "DescribeLogGroups", "GetTraceSegmentDestination", "ListLinks")
    count = len(scene.tables.records(HOME))
    scene.world.user_puts(HOME, None)
    scene.world.run(10)
    assert scene.world.place(HOME).type is EncryptionType.KMS
    (record,) = [each for each in records_since(scene, count) if each.outcome is Outcome.REMEDIATED]
    assert "GetTraceSegmentDestination" in str(record.detail["spans"])
    scene.witness.check_whole()


def test_p9_a_refused_association_fails_and_neither_x_ray_nor_upkeep_waits_for_it() -> None:
    scene = settled_stage()
    refuse(scene, "denied", "AssociateKmsKey")
    count = len(scene.tables.records(HOME))
    scene.world.user_sends_spans(HOME)
    scene.world.user_changes_key(HOME, scene.managed_key(), rotation=False, rotation_days=None)
    scene.world.user_puts(HOME, None)
    scene.world.run(10)
    assert scene.world.place(HOME).type is EncryptionType.KMS
    records = happened(scene, count)
    assert (Outcome.FAILED, "AccessDeniedException") in [(each.outcome, each.reason) for each in records]
    assert scene.world.place(HOME).kms.keys[scene.managed_key()].rotation, "held back, the spans hold up no upkeep"
    scene.world.hazard = lambda run, number, name: None
    assert scene.converge(7200), scene.witness.story()


@pytest.mark.parametrize("deny", ['"Service": "logs.us-east-1.amazonaws.com"', '"AWS": "*"'])
def test_p13_a_statement_that_may_deny_logs_the_key_is_named_and_x_ray_and_upkeep_go_on(deny: str) -> None:
    scene = settled_stage()
    key = scene.managed_key()
    text = scene.world.place(HOME).kms.keys[key].policy or ""
    document = json.loads(text)
    principal = json.loads("{" + deny + "}")
    condition = {"StringEquals": {"kms:ViaService": "logs.us-east-1.amazonaws.com"}}
    statement = {"Effect": "Deny", "Principal": principal, "Action": "kms:Decrypt", "Resource": "*"}
    document["Statement"].append({**statement, "Condition": condition} if "AWS" in principal else statement)
    with scene.undelivered():
        scene.world.user_changes_key(HOME, key, policy=json.dumps(document), rotation=False, rotation_days=None)
    scene.world.user_sends_spans(HOME)
    scene.world.user_puts(HOME, None)
    scene.world.run(60)
    assert scene.world.place(HOME).key_arn == key
    assert scene.world.place(HOME).kms.keys[key].rotation
    state = scene.tables.state(HOME)
    assert (state.outcome, state.reason) == (Outcome.FAILED, "KEY_POLICY_DENIES")
    assert scene.world.place(HOME).group is not None
    assert "AssociateKmsKey" not in [each.name for each in scene.world.mutations if each.run]


def test_a_rule_that_forbids_spans_in_logs_alarms_and_touches_nothing_and_x_ray_is_still_remediated() -> None:
    scene = settled_stage_under(ruled(spans="forbid"))
    count = len(scene.tables.records(HOME))
    scene.world.user_sends_spans(HOME)
    records = happened(scene, count)
    assert (records[0].outcome, records[0].reason) == (Outcome.OBSERVED, "SPANS_FORBIDDEN")
    assert "update-trace-segment-destination" in str(records[0].error)
    assert calls(records) == []
    scene.world.user_puts(HOME, None)
    scene.world.run(10)
    assert scene.world.place(HOME).type is EncryptionType.KMS
    scene.world.user_sends_spans(HOME, "XRay")
    scene.world.run(600)
    assert scene.tables.state(HOME).outcome is Outcome.REMEDIATED or scene.witness.settled(), scene.witness.story()
    assert "AssociateKmsKey" not in [each.name for each in scene.world.mutations]
    scene.witness.check_whole()


def test_p4_spans_where_the_rule_forbids_them_count_as_exposed_for_as_long_as_they_go_there() -> None:
    scene = settled_stage_under(ruled(spans="forbid"))
    scene.lambdas.schedule()
    scene.world.user_sends_spans(HOME)
    scene.world.run(2 * 3600)
    incident = scene.tables.state(HOME).incident
    assert incident is not None
    assert exposure(incident, scene.world.clock) > 7000
    scene.world.user_sends_spans(HOME, "XRay")
    scene.world.run(3600)
    assert scene.tables.state(HOME).incident is None
    (past,) = [each for each in scene.tables.state(HOME).past if each.id == incident.id]
    assert past_exposure(past, exposed_since(incident)) > 7000


def test_a_link_to_another_account_alarms_and_is_left_and_its_removal_is_seen() -> None:
    scene = settled_stage()
    count = len(scene.tables.records(HOME))
    link = scene.world.user_links(HOME, OTHER_ACCOUNT)
    records = happened(scene, count)
    assert (records[0].outcome, records[0].reason) == (Outcome.OBSERVED, "TRACES_COPIED")
    assert OTHER_ACCOUNT in str(records[0].detail["copies"])
    assert [each.events[0].actor for each in records[0].attributions] == [ALICE]
    assert len(scene.world.place(HOME).links) == 1, link
    scene.world.user_unlinks(HOME)
    scene.world.run(600)
    assert scene.witness.settled(), scene.witness.story()


def test_a_link_whose_event_was_lost_is_found_within_a_day_and_its_removal_within_the_hour() -> None:
    scene = settled_stage()
    scene.world.delivery = lambda rng: []
    scene.world.user_links(HOME, OTHER_ACCOUNT)
    scene.world.run(26 * 3600)
    assert scene.tables.state(HOME).violations == (Violation.TRACES_COPIED,)
    scene.world.user_unlinks(HOME)
    scene.world.run(3700)
    assert scene.witness.settled(), scene.witness.story()


@pytest.mark.parametrize("allowed", [["4444*"], None])
def test_links_that_the_rule_allows_and_links_without_traces_are_only_shown(allowed: list[str] | None) -> None:
    scene = settled_stage_under(ruled(spans="encrypt", **({} if allowed is None else {"copies_to": allowed})))
    scene.world.user_links(HOME, OTHER_ACCOUNT)
    scene.world.user_links(HOME, "999988887777", types=("AWS::Logs::LogGroup",))
    scene.world.run(600)
    state = scene.tables.state(HOME)
    assert state.outcome in (Outcome.COMPLIANT, Outcome.REMEDIATED)
    assert state.links is not None
    assert state.links.accounts == (OTHER_ACCOUNT,)


def test_spans_without_a_log_group_are_no_violation_and_the_record_says_that_none_are_stored() -> None:
    scene = settled_stage()
    count = len(scene.tables.records(HOME))
    scene.world.user_sends_spans(HOME, exists=False)
    records = happened(scene, count)
    assert {record.outcome for record in records} == {Outcome.COMPLIANT}
    assert "none are stored yet" in str(records[0].detail["spans"])
    assert scene.witness.settled()


@pytest.mark.parametrize(("kind", "said"), [("denied", True), ("not offered", False)])
def test_where_spans_cannot_be_read_x_ray_is_judged_and_the_record_says_so_unless_there_is_no_such_call(
    kind: str, said: bool
) -> None:
    scene = stage()
    refuse(scene, kind, "GetTraceSegmentDestination", "ListLinks")
    scene.lambdas.schedule()
    scene.world.user_puts(HOME, None)
    assert scene.converge(), scene.witness.story()
    (record,) = [each for each in scene.tables.records(HOME) if each.outcome is Outcome.REMEDIATED]
    assert ("spans" in record.detail) == said
    scene.world.run(3700)  # the first sweep lists the links
    scene.world.user_puts(HOME, None)
    scene.world.run(10)
    assert ("copies" in scene.tables.records(HOME)[-1].detail) == said


def test_p4_an_open_violation_of_spans_stays_open_while_they_cannot_be_read() -> None:
    scene = settled_stage()
    refuse(scene, "throttle", "AssociateKmsKey")
    scene.world.user_sends_spans(HOME)
    scene.world.run(30)
    refuse(scene, "throttle", "DescribeLogGroups")
    scene.world.run(1800)
    assert scene.tables.state(HOME).incident is not None
    scene.world.hazard = lambda run, number, name: None
    assert scene.converge(7200), scene.witness.story()
    scene.witness.check_whole()


def test_p14_the_managed_keys_tag_covers_spans_and_a_principals_tag_does_not() -> None:
    scene = settled_stage()
    glass = f"{scene.world.clock + timedelta(hours=2):%Y%m%dT%H%M%SZ} INC-1"
    key = scene.world.place(HOME).kms.keys[scene.managed_key()]
    tagged = (*(key.tags or ()), (TAG, glass))
    scene.world.user_changes_key(HOME, key.arn, GLASS, tags=tagged)
    scene.world.run(5)
    scene.world.user_sends_spans(HOME)
    scene.world.run(120)
    assert scene.tables.state(HOME).outcome is Outcome.SUPPRESSED
    assert scene.world.place(HOME).group == LogGroup()
    scene.world.user_changes_key(HOME, key.arn, GLASS, tags=key.tags)
    assert scene.converge(), scene.witness.story()

    scene.world.principal_tags[GLASS.arn] = ((TAG, f"{scene.world.clock + timedelta(hours=2):%Y%m%dT%H%M%SZ} INC-2"),)
    scene.world.user_puts(HOME, None, GLASS)
    scene.world.run(10)
    assert scene.tables.state(HOME).outcome is Outcome.SUPPRESSED
    count = len(scene.tables.records(HOME))
    scene.world.user_associates(HOME, None, GLASS)
    scene.world.run(10)
    group = scene.world.place(HOME).group
    assert group is not None
    assert group.key_arn == scene.managed_key()
    assert scene.world.place(HOME).type is EncryptionType.NONE, "the principal's own change of the setting stays"
    state, records = scene.tables.state(HOME), records_since(scene, count)
    assert (state.outcome, state.reason) == (Outcome.SUPPRESSED, "BREAK_GLASS")
    assert [each.outcome for each in records] == [Outcome.REMEDIATING, Outcome.SUPPRESSED], scene.witness.story()
    assert records[-1].suppression is not None
    scene.world.run(3 * 3600)
    assert scene.converge(), scene.witness.story()
    scene.witness.check_whole()


def test_p7_the_events_of_the_guards_own_association_make_no_record() -> None:
    scene = settled_stage()
    scene.world.user_sends_spans(HOME)
    assert scene.converge()
    count = len(scene.tables.records(HOME))
    for event in [each for each in scene.world.events if each.trigger.event_name == "AssociateKmsKey"]:
        scene.lambdas.deliver(event)
    scene.world.run(600)
    assert records_since(scene, count) == []


def test_a_sweep_finds_spans_without_a_key_whose_event_was_lost() -> None:
    scene = settled_stage()
    scene.world.delivery = lambda rng: []
    scene.world.user_sends_spans(HOME)
    scene.world.run(3700)
    assert not scene.witness.wrong(), scene.witness.story()


def test_spans_make_a_target_used_that_never_was_encrypted_and_whose_service_graph_is_empty() -> None:
    """With Transaction Search, X-Ray may index only a share of the spans, or none, for its service graph."""
    scene = stage(policy=baseline(when="in-use"))
    scene.world.place(HOME).in_use = False
    scene.world.delivery = lambda rng: []
    look(scene, SWEEP)
    assert scene.tables.state(HOME).reason == "IDLE"
    scene.world.user_sends_spans(HOME)
    look(scene, SWEEP)
    ticking(scene)
    assert scene.converge(), scene.witness.story()


@pytest.mark.parametrize(("days", "calls_made"), [(2560, ["EnableKeyRotation"]), (365, []), (90, [])])
def test_a_key_that_rotates_more_seldom_than_the_rule_asks_is_rotated_as_often(
    days: int, calls_made: list[str]
) -> None:
    scene = settled_stage()
    count = len(scene.tables.records(HOME))
    scene.world.user_changes_key(HOME, scene.managed_key(), rotation=True, rotation_days=days)
    records = happened(scene, count)
    assert calls(records) == calls_made
    assert scene.world.place(HOME).kms.keys[scene.managed_key()].rotation_days == min(days, 365)


@pytest.mark.parametrize("changes", [{"is_replica": True}, {"origin": "EXTERNAL"}])
def test_a_key_that_cannot_rotate_here_is_named_and_not_called_upon(changes: dict[str, Any]) -> None:
    scene = settled_stage()
    kms = scene.world.place(HOME).kms
    slow = replace(kms.keys[scene.managed_key()], rotation_days=2560, **changes)
    found = next_step(
        HOME,
        scene.witness.rule(HOME),
        scene.tables.state(HOME),
        Observation(scene.world.clock, scene.world.setting(HOME), {slow.arn: slow}, {ALIAS: slow.arn}),
        "aws",
    )
    assert isinstance(found, Blocked)
    assert found.problem.code == "KEY_NOT_ROTATABLE"


def test_p13_a_later_completion_of_the_key_policy_keeps_the_statement_of_logs() -> None:
    scene = encrypted()
    key = scene.world.place(HOME).kms.keys[scene.managed_key()]
    document = json.loads(key.policy or "")
    document["Statement"] = [each for each in document["Statement"] if each["Sid"] != "TraceReadersThroughXRay"]
    scene.world.user_changes_key(HOME, key.arn, policy=json.dumps(document))
    assert scene.converge(), scene.witness.story()
    policy = scene.world.place(HOME).kms.keys[key.arn].policy or ""
    assert judge_for_logs(policy, HOME, "aws").complete
    assert [each for each in json.loads(policy)["Statement"] if each not in document["Statement"]], "the readers' one"


def test_p7_an_association_whose_worker_died_before_it_knew_is_the_guards_own() -> None:
    """The plan could not name the key, because the same attempt created it."""
    scene = stage()
    died: list[str] = []

    def dies(run: Run, number: int, name: str) -> Hazard | None:
        if name == "AssociateKmsKey" and not died:
            died.append(run.name)
            return Hazard("crash", late=True)
        return None

    scene.world.hazard = dies
    scene.lambdas.schedule()
    scene.world.user_puts(HOME, None)
    scene.world.user_sends_spans(HOME)
    assert scene.converge(), scene.witness.story()
    assert died
    assert "ROLE_BORROWED" not in [record.reason for record in scene.tables.records(HOME)]
    scene.witness.check_whole()
