"""What a fresh reader broke: spans and links that held X-Ray up, were forgotten, or were silenced."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from chalicelib.aws.oam import TraceLinksApi
from chalicelib.domain.errors import AwsError
from chalicelib.domain.keypolicy.wanted import initial_policy
from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import EncryptionType, Key
from chalicelib.domain.policy import Policy
from chalicelib.domain.reasons import Outcome, Violation
from tests.simulation.beginnings import records_since, settled_stage
from tests.simulation.scenarios import ALIAS, Stage, stage
from tests.simulation.test_spans import (
    GLASS,
    OTHER_ACCOUNT,
    TAG,
    encrypted,
    refuse,
    ruled,
    settled_stage_under,
)
from tests.simulation.world import ACCOUNT, HOME

HOUR = 3600.0
TEAMS_KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/team"


def allow_everything(scene: Stage) -> None:
    scene.world.hazard = lambda run, number, name: None


class OddLinks:
    """An OAM that returns a link without its sink."""

    def reading(self, service: str, region: str) -> OddLinks:
        return self

    def list_links(self, **parameters: object) -> dict[str, object]:
        return {"Items": [{"Arn": "arn:aws:oam:us-east-1:1:link/x", "ResourceTypes": ["AWS::XRay::Trace"]}]}


def test_p13_a_link_without_its_sink_is_a_refused_call_and_not_a_bug() -> None:
    with pytest.raises(AwsError, match="without its own ARN or that of its sink"):
        TraceLinksApi(OddLinks(), "us-east-1").all()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["denied", "throttle"])
def test_p4_links_that_cannot_be_listed_for_a_while_are_as_they_were_read_last(kind: str) -> None:
    scene = settled_stage()
    scene.world.user_links(HOME, OTHER_ACCOUNT)
    scene.world.run(900)
    assert scene.tables.state(HOME).violations == (Violation.TRACES_COPIED,)
    refuse(scene, kind, "ListLinks")
    for hours in (2, 6):
        scene.world.run(hours * HOUR)
        assert scene.tables.state(HOME).violations == (Violation.TRACES_COPIED,)
        allow_everything(scene)


def test_p4_a_link_whose_event_met_a_throttled_listing_is_found_soon() -> None:
    scene = settled_stage()
    scene.world.run(HOUR)
    refuse(scene, "throttle", "ListLinks")
    scene.world.user_links(HOME, OTHER_ACCOUNT)
    scene.world.run(30)
    allow_everything(scene)
    scene.world.run(600)
    assert scene.tables.state(HOME).violations == (Violation.TRACES_COPIED,)


def test_p10_spans_that_could_not_be_read_when_their_key_was_taken_off_are_read_again_soon() -> None:
    scene = encrypted()
    refuse(scene, "throttle", "DescribeLogGroups")
    scene.world.user_associates(HOME, None)
    scene.world.run(40 * 60)
    allow_everything(scene)
    scene.world.run(330)
    group = scene.world.place(HOME).group
    assert group is not None
    assert group.key_arn == scene.managed_key()


def test_p9_refused_spans_delay_no_retry_of_the_setting() -> None:
    """NONE is set four times just before the backoff of the spans ends: the lane of the setting is free sooner."""
    waits = []
    for spans in (False, True):
        scene = settled_stage_under(ruled(spans="encrypt"))
        scene.world.run(1000)
        refuse(scene, "denied", "AssociateKmsKey")
        if spans:
            scene.world.user_sends_spans(HOME)
            scene.world.run(3 * HOUR)
            until = scene.tables.state(HOME).backoffs[Lane.SPANS].until
            assert until is not None
            scene.world.run(max(0.0, (until - scene.world.clock).total_seconds() - 14))
        for _ in range(4):
            scene.world.user_puts(HOME, None)
            scene.world.run(4)
        since = scene.world.now
        while scene.world.place(HOME).type is EncryptionType.NONE:
            scene.world.run(5)
        waits.append(scene.world.now - since)
    without, refused = waits
    assert refused <= without + 60, waits


def test_p14_a_principals_tag_does_not_hide_that_spans_cannot_be_encrypted() -> None:
    scene = encrypted()
    key = scene.managed_key()
    ends = scene.world.clock + timedelta(hours=10)
    scene.world.principal_tags[GLASS.arn] = ((TAG, f"{ends:%Y%m%dT%H%M%SZ} INC-2"),)
    scene.world.user_puts(HOME, None, GLASS)
    scene.world.run(10)
    text = scene.world.place(HOME).kms.keys[key].policy or ""
    document = json.loads(text)
    logs = {"Service": "logs.us-east-1.amazonaws.com"}
    document["Statement"].append({"Effect": "Deny", "Principal": logs, "Action": "kms:*", "Resource": "*"})
    count = len(scene.tables.records(HOME))
    scene.world.user_changes_key(HOME, key, policy=json.dumps(document))
    scene.world.user_associates(HOME, None)
    scene.world.run(HOUR)
    assert scene.world.place(HOME).type is EncryptionType.NONE, "the tag covers the setting"
    failed = [each.error.code for each in records_since(scene, count) if each.outcome is Outcome.FAILED and each.error]
    assert "KEY_POLICY_DENIES" in failed


def test_p9_a_rival_who_disables_the_key_of_spans_gets_no_second_backoff() -> None:
    scene = encrypted()
    key, count = scene.managed_key(), len(scene.world.mutations)
    end = scene.world.now + 24 * HOUR
    while scene.world.now < end:
        if scene.world.place(HOME).kms.keys[key].state == "Enabled":
            scene.world.user_changes_key(HOME, key, state="Disabled")
        scene.world.run(5)
    enabled = [each for each in scene.world.mutations[count:] if each.run and each.name == "EnableKey"]
    assert len(enabled) <= 330


def on_teams_key(policy: Policy, **fields: object) -> Stage:
    """X-Ray uses a team's own key that the rule allows, with what the fields say."""
    scene = stage(policy=policy)
    whole = {"rotation": True, "rotation_days": 365, "tags": (), **fields}
    text = initial_policy(policy.rules[0], HOME, "aws")
    key = Key(TEAMS_KEY, ACCOUNT, HOME.region, "Enabled", policy=text, **whole)  # type: ignore[arg-type]
    place = scene.world.place(HOME)
    place.history[-1] = place.history[-1].with_key(key)
    place.type, place.key_arn = EncryptionType.KMS, TEAMS_KEY
    return scene


@pytest.mark.parametrize("fields", [{}, {"is_replica": True}], ids=["a team's key", "a replica"])
def test_a_key_of_others_that_rotates_slowly_is_observed_and_rings_no_alarm(fields: dict[str, object]) -> None:
    scene = on_teams_key(ruled(spans="report"), rotation_days=730, **fields)
    place = scene.world.place(HOME)
    place.history[-1] = place.history[-1].with_alias(ALIAS, TEAMS_KEY)
    scene.lambdas.schedule()
    scene.world.run(26 * HOUR)
    records = scene.tables.records(HOME)
    assert {each.outcome for each in records} == {Outcome.OBSERVED}
    assert len(records) < 5


def test_the_managed_key_is_kept_whole_while_it_encrypts_only_spans() -> None:
    scene = on_teams_key(ruled(spans="encrypt", allowed_keys=["alias/xray-encryption", TEAMS_KEY]))
    scene.lambdas.schedule()
    scene.world.user_sends_spans(HOME)
    scene.world.run(HOUR)
    place = scene.world.place(HOME)
    assert place.key_arn == TEAMS_KEY
    assert place.group is not None
    key = place.kms.keys[place.group.key_arn or ""]
    assert key.rotation is True
    document = json.loads(key.policy or "")
    stranger = {"AWS": "arn:aws:iam::999988887777:root"}
    document["Statement"].append({"Effect": "Allow", "Principal": stranger, "Action": "kms:*", "Resource": "*"})
    scene.world.user_changes_key(HOME, key.arn, policy=json.dumps(document), rotation=False, rotation_days=None)
    scene.world.run(2 * HOUR)
    assert place.kms.keys[key.arn].rotation is True
    assert Violation.KEY_POLICY_OPEN in scene.tables.state(HOME).violations


def test_p4_an_association_that_cloudwatch_logs_does_not_show_is_not_called_remediated() -> None:
    scene = settled_stage()
    count = len(scene.tables.records(HOME))
    scene.world.place(HOME).hides_encrypted_group = True
    scene.world.user_sends_spans(HOME)
    scene.world.run(30)
    outcomes = [each.outcome for each in records_since(scene, count)]
    assert outcomes == [Outcome.REMEDIATING, Outcome.DEFERRED]
