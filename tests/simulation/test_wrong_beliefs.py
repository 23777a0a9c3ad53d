"""P3, P4 and P13 where a belief of docs/aws-assumptions.md is wrong: FAILED with the remedy, and nothing is harmed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from chalicelib.domain.errors import AwsError
from chalicelib.domain.model import EncryptionType
from chalicelib.domain.reasons import Outcome, Problem
from chalicelib.domain.stored import Record
from tests.simulation.lambdas import baseline
from tests.simulation.scenarios import Stage, hand_over, stage
from tests.simulation.world import ACCOUNT, HOME, Hazard, Run

GRANT = (
    "User: arn:aws:sts::111122223333:assumed-role/xray-guard/on_change is not authorized to perform: kms:CreateGrant "
    "because no identity-based policy allows the kms:CreateGrant action"
)
TAG = GRANT.replace("CreateGrant", "TagResource")
DECRYPT = GRANT.replace("CreateGrant", "Decrypt")
ROOT = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "kms:*", "Resource": "*"}
DEFAULT_KEY_POLICY = json.dumps({"Version": "2012-10-17", "Statement": [ROOT]})
WAITS = 1800
LONGEST_BACKOFF = 2 * 3600.0


def denied(operation: str, message: str) -> Callable[[Run, int, str], Hazard | None]:
    """A world in which AWS denies the guard one operation."""
    _, _, call = operation.partition(":")

    def hazard(run: Run, number: int, name: str) -> Hazard | None:
        if name == call:
            raise AwsError(operation, "AccessDeniedException", message)
        return None

    return hazard


def allowed(run: Run, number: int, name: str) -> Hazard | None:
    return None


def recorded() -> Stage:
    """All has been well for a while."""
    scene = stage()
    scene.world.user_puts(HOME, None)
    scene.lambdas.schedule(first_sweep_after=None)
    assert scene.converge(), scene.witness.story()
    scene.world.run(1200)
    return scene


def latest(scene: Stage, outcome: Outcome) -> Record:
    return [record for record in scene.tables.records(HOME) if record.outcome is outcome][-1]


def own_mutations(scene: Stage) -> list[str]:
    return [mutation.name for mutation in scene.world.mutations if mutation.run]


def test_p13_a_grant_that_does_not_come_through_x_ray_is_failed_with_the_statement_to_widen() -> None:
    scene = recorded()
    theirs, former = scene.make_key(tagged=False), scene.managed_key()
    made = own_mutations(scene).count("CreateKey")
    scene.world.hazard = denied("xray:PutEncryptionConfig", GRANT)
    scene.world.user_puts(HOME, theirs)
    scene.world.run(WAITS)
    failed = latest(scene, Outcome.FAILED)
    assert failed.error is not None
    assert failed.error.code == "AccessDeniedException"
    assert "kms:CreateGrant" in failed.error.message
    assert "kms:GrantIsForAWSResource" in failed.error.message
    assert "statement LetXRayUseTheKey of policies/iam-guard.json" in failed.error.message
    assert scene.world.setting(HOME).key_arn == theirs, "X-Ray stays where its user put it"
    assert own_mutations(scene).count("CreateKey") == made
    scene.witness.check_whole()
    scene.world.hazard = allowed
    assert scene.converge(LONGEST_BACKOFF), scene.witness.story()
    assert scene.world.setting(HOME).key_arn == former
    scene.witness.check_whole()


def test_p2_a_grant_that_is_refused_for_a_new_key_leaves_one_key_and_x_ray_untouched() -> None:
    scene = stage(hazard=denied("xray:PutEncryptionConfig", GRANT))
    scene.lambdas.schedule(first_sweep_after=None)
    scene.world.user_puts(HOME, None)
    scene.world.run(2 * WAITS)
    failed = latest(scene, Outcome.FAILED)
    assert failed.error is not None
    assert "LetXRayUseTheKey" in failed.error.message
    assert scene.world.setting(HOME).type is EncryptionType.NONE
    assert own_mutations(scene).count("CreateKey") == 1
    scene.witness.check_whole()
    scene.world.hazard = allowed
    assert scene.converge(LONGEST_BACKOFF), scene.witness.story()
    scene.witness.check_right()
    scene.witness.check_whole()


def test_p3_tags_that_count_for_nothing_at_create_key_are_failed_with_the_remedy_and_no_intent_is_left() -> None:
    scene = stage(hazard=denied("kms:CreateKey", TAG))
    scene.lambdas.schedule(first_sweep_after=None)
    scene.world.user_puts(HOME, None)
    scene.world.run(WAITS)
    failed = latest(scene, Outcome.FAILED)
    assert failed.error is not None
    assert failed.error.code == "AccessDeniedException"
    assert "kms:TagResource" in failed.error.message
    assert "statement MakeKeysTaggedAsOwn of policies/iam-guard.json" in failed.error.message
    state = scene.tables.state(HOME)
    assert state.intent is None
    assert (state.managed_key, state.keys_made) == (None, ())
    assert scene.world.setting(HOME).type is EncryptionType.NONE
    assert own_mutations(scene) == []
    scene.witness.check_whole()


def test_a_key_that_an_operator_hands_over_is_completed_where_the_guard_may_make_none() -> None:
    scene = stage(hazard=denied("kms:CreateKey", TAG))
    scene.lambdas.schedule(first_sweep_after=None)
    scene.world.user_puts(HOME, None)
    scene.world.run(WAITS)
    key = scene.make_key(tagged=True, policy=DEFAULT_KEY_POLICY, rotation=False, rotation_days=None)
    hand_over(scene, key)
    assert scene.converge(LONGEST_BACKOFF), scene.witness.story()
    assert scene.world.setting(HOME).key_arn == key
    assert "CreateKey" not in own_mutations(scene)
    scene.witness.check_whole()


def test_p6_a_service_graph_that_may_not_be_read_counts_as_in_use_and_the_record_says_so() -> None:
    scene = stage(policy=baseline(when="in-use"), hazard=denied("xray:GetServiceGraph", DECRYPT))
    scene.world.place(HOME).in_use = False
    scene.lambdas.sweep()
    scene.lambdas.schedule(first_sweep_after=None)
    assert scene.converge(600), scene.witness.story()
    begun = latest(scene, Outcome.REMEDIATING)
    assert "not known, so judged as in use" in str(begun.detail["in_use"])
    assert "kms:Decrypt" in str(begun.detail["in_use"])
    assert "policies/iam-guard.json" in str(begun.detail["in_use"])
    scene.witness.check_right()
    scene.witness.check_whole()


def test_a_service_graph_that_may_not_be_read_makes_no_key_while_the_rule_only_observes() -> None:
    policy = baseline(when="in-use", mode="observe")
    scene = stage(policy=policy, hazard=denied("xray:GetServiceGraph", DECRYPT))
    for _ in range(3):
        scene.lambdas.sweep()
        scene.world.run(3600)
    (record,) = scene.tables.records(HOME)
    assert (record.outcome, record.reason) == (Outcome.OBSERVED, "RULE_OBSERVES")
    assert "judged as in use" in str(record.detail["in_use"])
    assert own_mutations(scene) == []


def test_p10_a_service_graph_that_is_throttled_is_failed_and_read_again_and_nothing_is_judged_by_it() -> None:
    def throttled(run: object, number: int, name: str) -> Hazard | None:
        return Hazard("throttle") if name == "GetServiceGraph" else None

    scene = stage(policy=baseline(when="in-use"), hazard=throttled)
    scene.world.place(HOME).in_use = False
    scene.lambdas.sweep()
    scene.world.run(60)
    assert scene.tables.records(HOME)[-1].reason == "ThrottlingException"
    assert own_mutations(scene) == []


def test_a_lock_out_check_that_never_sees_the_roles_right_is_failed_with_what_to_do_and_one_key_is_made() -> None:
    """The organization denies the bypass, and KMS then refuses the policy: a key of the operator's would fare alike."""
    refusal = "The new key policy will not allow you to update the key policy in the future."

    def hazard(run: Run, number: int, name: str) -> Hazard | None:
        if name == "PutKeyPolicy":
            raise AwsError("kms:PutKeyPolicy", "MalformedPolicyDocumentException", refusal)
        return None

    scene = stage(hazard=hazard, denies_bypass=True)
    scene.lambdas.schedule(first_sweep_after=None)
    scene.world.user_puts(HOME, None)
    scene.world.run(WAITS)
    failed = latest(scene, Outcome.FAILED)
    assert failed.error is not None
    assert "yourself (docs/first-hour.md" in failed.error.message
    (wanted,) = [action.after for action in failed.actions if action.name == "PutKeyPolicy"]
    (key,) = scene.tables.state(HOME).keys_made
    assert scene.world.setting(HOME).type is EncryptionType.NONE
    scene.world.user_changes_key(HOME, key, policy=wanted)
    assert scene.converge(LONGEST_BACKOFF), scene.witness.story()
    assert own_mutations(scene).count("CreateKey") == 1
    scene.witness.check_whole()


@pytest.mark.parametrize("text", ["with an explicit deny in a service control policy", "with an explicit deny"])
def test_a_denial_that_the_guards_rights_cannot_overrule_names_no_statement_to_widen(text: str) -> None:
    scene = stage(hazard=denied("kms:CreateKey", f"not authorized to perform: kms:CreateKey {text}"))
    scene.lambdas.schedule(first_sweep_after=None)
    scene.world.user_puts(HOME, None)
    scene.world.run(600)
    assert "explicit deny" in (latest(scene, Outcome.FAILED).error or Problem("", "")).message
    assert "iam-guard.json" not in "".join(
        record.error.message for record in scene.tables.records(HOME) if record.error is not None
    )
    assert scene.world.setting(HOME).type is EncryptionType.NONE
    scene.witness.check_whole()
