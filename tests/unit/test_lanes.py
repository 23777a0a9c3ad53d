"""Lanes: what may hold back what. Each lane has its own backoff, and harm goes first."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.domain import waiting
from chalicelib.domain.judge import lanes_of
from chalicelib.domain.keypolicy.judge import judge_policy
from chalicelib.domain.lanes import HARM, LANES, OF_STEPS, ONLY_OBSERVED, Lane
from chalicelib.domain.model import TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import KeyKind, Limits, Require, Rule
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.run import At
from chalicelib.domain.steps import Blocked, Step, StepName, next_step, plan
from chalicelib.domain.stored import Backoff, Incident, Lease, Phase, TargetState
from tests.unit.test_decide import (
    NO_READERS,
    NONE,
    NOW,
    OTHER,
    OURS,
    POLICY,
    RULE,
    TARGET,
    decided,
    key,
    nothing_made,
    on,
    seen,
    state,
)

MINUTE = timedelta(minutes=1)
LIMITS = Limits()
NO_XRAY = '{"Statement": []}'
NO_ROOT = json.dumps({"Version": "2012-10-17", "Statement": json.loads(POLICY)["Statement"][1:]})
ENSURED = replace(RULE, managed_key=replace(RULE.managed_key, ensure=True))


def held(*lanes: Lane, minutes: int = 1) -> dict[Lane, Backoff]:
    return {lane: Backoff(3, NOW, NOW + minutes * MINUTE) for lane in lanes}


# --- which lane ------------------------------------------------------------------------------------------------------


def test_every_violation_has_a_lane_or_is_only_observed() -> None:
    assert set(LANES) | ONLY_OBSERVED == set(Violation)
    assert not set(LANES) & ONLY_OBSERVED
    assert set(LANES.values()) == set(OF_STEPS)
    assert {*OF_STEPS, Lane.READING} == set(Lane)


def test_a_lanes_name_is_stored_and_stays() -> None:
    assert [lane.value for lane in Lane] == ["setting", "key", "spans", "upkeep", "reading"]


@pytest.mark.parametrize(
    ("observation", "rule", "lanes"),
    [
        (seen(on(OURS), key()), RULE, {}),
        (seen(NONE, key()), RULE, {Violation.NOT_KMS: Lane.SETTING}),
        (seen(NONE, key(state="Disabled")), RULE, {Violation.NOT_KMS: Lane.SETTING}),
        (seen(on(OURS), key(state="Disabled")), RULE, {Violation.KEY_DISABLED: Lane.KEY}),
        (seen(on(OURS), key(policy=NO_XRAY)), RULE, {Violation.KEY_POLICY_INCOMPLETE: Lane.KEY}),
        (seen(on(OURS), key(policy=NO_READERS)), RULE, {Violation.KEY_POLICY_INCOMPLETE: Lane.UPKEEP}),
        (seen(on(OURS), key(policy=NO_ROOT)), RULE, {Violation.KEY_POLICY_INCOMPLETE: Lane.UPKEEP}),
        (seen(on(OURS), key(policy="not a policy")), RULE, {Violation.KEY_POLICY_INCOMPLETE: Lane.KEY}),
        (seen(on(OURS), key(rotation=False)), RULE, {Violation.KEY_ROTATION_OFF: Lane.UPKEEP}),
        (seen(on(OURS), key(), alias=OTHER), RULE, {Violation.ALIAS_MOVED: Lane.UPKEEP}),
        # Only another setting repairs what is wrong with somebody else's key.
        (
            seen(on(OTHER), key(), key(OTHER, state="Disabled"), theirs=OTHER),
            RULE,
            {Violation.KEY_DISABLED: Lane.SETTING},
        ),
        (
            seen(on(OTHER), key(), key(OTHER, rotation=False), theirs=OTHER),
            RULE,
            {Violation.KEY_ROTATION_OFF: Lane.UPKEEP},
        ),
        # A managed key that X-Ray does not use harms nobody yet.
        (
            seen(on(OTHER), key(state="Disabled"), key(OTHER), theirs=OTHER),
            ENSURED,
            {Violation.KEY_DISABLED: Lane.UPKEEP},
        ),
        (
            seen(NONE, key(state="Disabled")),
            ENSURED,
            {Violation.NOT_KMS: Lane.SETTING, Violation.KEY_DISABLED: Lane.UPKEEP},
        ),
    ],
)
def test_the_lane_of_a_violation_says_what_repairs_it_and_whom_it_harms(
    observation: Observation, rule: Rule, lanes: dict[Violation, Lane]
) -> None:
    assert lanes_of(TARGET, rule, state(), observation) == lanes


@pytest.mark.parametrize(
    ("policy", "lets_xray", "proved", "complete"),
    [
        (POLICY, True, True, True),
        (NO_READERS, True, True, False),
        (NO_ROOT, True, False, False),
        (NO_XRAY, False, False, False),
        ("not a policy", False, False, False),
    ],
)
def test_p13_x_ray_may_be_set_to_a_key_whose_policy_has_its_statement_and_the_accounts(
    policy: str, lets_xray: bool, proved: bool, complete: bool
) -> None:
    verdict = judge_policy(policy, RULE, TARGET, "aws")
    assert (verdict.lets_xray, verdict.proved, verdict.complete) == (lets_xray, proved, complete)


# --- the next step ---------------------------------------------------------------------------------------------------

EVERYTHING: dict[str, Any] = {"rotation": False, "policy": NO_READERS}


def names(observation: Observation, *without: Lane, of: TargetState | None = None) -> list[str]:
    steps, _ = plan(TARGET, RULE, of or state(), observation, "aws", frozenset(without))
    return [step.name.value for step in steps]


def test_harm_goes_first_and_upkeep_follows_the_move() -> None:
    everything = seen(NONE, key(state="Disabled", **EVERYTHING), alias=OTHER)
    steps, blocked = plan(TARGET, RULE, state(), everything, "aws")
    assert [(step.name, step.lane) for step in steps] == [
        (StepName.ENABLE_KEY, Lane.SETTING),
        (StepName.PUT_SETTING, Lane.SETTING),
        (StepName.PUT_KEY_POLICY, Lane.UPKEEP),
        (StepName.ENABLE_ROTATION, Lane.UPKEEP),
        (StepName.UPDATE_ALIAS, Lane.UPKEEP),
    ]
    assert blocked is None


def test_a_key_that_x_ray_uses_is_repaired_before_any_upkeep() -> None:
    everything = seen(on(OURS), key(state="PendingDeletion", **EVERYTHING), alias=OTHER)
    assert names(everything) == [
        "CancelKeyDeletion",
        "EnableKey",
        "PutKeyPolicy",
        "EnableKeyRotation",
        "UpdateAlias",
    ]


def test_a_held_lane_takes_no_step_and_the_others_go_on() -> None:
    everything = seen(NONE, key(**EVERYTHING), alias=OTHER)
    assert names(everything, Lane.UPKEEP) == ["PutEncryptionConfig"]
    assert names(everything, Lane.SETTING) == ["UpdateAlias"], "of a key that X-Ray does not use, only the alias counts"
    assert names(everything, *OF_STEPS) == []


def test_a_move_brings_the_repairs_that_it_depends_on_though_the_keys_lane_is_held() -> None:
    for broken, repair in ((key(state="Disabled"), "EnableKey"), (key(policy=NO_ROOT), "PutKeyPolicy")):
        assert names(seen(NONE, broken), Lane.KEY, Lane.UPKEEP) == [repair, "PutEncryptionConfig"]


def test_while_x_ray_cannot_use_its_key_and_that_lane_is_held_there_is_no_upkeep() -> None:
    everything = seen(on(OURS), key(state="Disabled", **EVERYTHING), alias=OTHER)
    assert names(everything, Lane.KEY) == []


def test_a_reason_names_its_lane() -> None:
    unavailable = next_step(TARGET, RULE, state(), seen(on(OURS), key(state="Unavailable")), "aws")
    assert isinstance(unavailable, Blocked)
    assert unavailable.lane is Lane.KEY
    external = next_step(TARGET, RULE, state(), seen(on(OURS), key(rotation=False, origin="EXTERNAL")), "aws")
    assert isinstance(external, Blocked)
    assert external.lane is Lane.UPKEEP


def test_the_move_to_a_new_key_is_planned_before_its_alias_even_if_upkeep_is_held() -> None:
    assert names(seen(NONE, alias=None), Lane.UPKEEP, of=nothing_made()) == [
        "CreateKey",
        "PutEncryptionConfig",
    ]


def test_what_x_ray_does_not_use_is_not_touched_for_the_sake_of_others_rotation() -> None:
    observation = seen(on(OTHER), key(state="Disabled"), key(OTHER, rotation=False), theirs=OTHER)
    found = next_step(TARGET, RULE, state(), observation, "aws")
    assert isinstance(found, Blocked)
    assert (found.left, found.problem.code) == (True, "KEY_NOT_OURS")


def test_a_key_that_is_wanted_in_any_case_is_repaired_though_x_ray_uses_another_that_does_not_rotate() -> None:
    observation = seen(on(OTHER), key(state="Disabled"), key(OTHER, rotation=False), theirs=OTHER)
    found = next_step(TARGET, ENSURED, state(), observation, "aws")
    assert found == Step(StepName.ENABLE_KEY, OURS, "Disabled", "Enabled", Lane.UPKEEP)


def test_a_foreign_key_that_only_a_held_move_repairs_is_not_called_left_alone() -> None:
    rule = replace(RULE, require=Require(key=KeyKind.CUSTOMER, allowed_keys=(*RULE.require.allowed_keys, OTHER)))
    observation = seen(on(OTHER), key(), key(OTHER, rotation=False, policy=NO_XRAY))
    assert next_step(TARGET, rule, state(), observation, "aws", frozenset({Lane.SETTING})) is None


# --- decisions -------------------------------------------------------------------------------------------------------

BOTH = seen(on(OURS), key(state="Disabled"), alias=OTHER)


def test_p9_if_every_lane_is_held_the_target_waits_for_the_first_one() -> None:
    decision = decided(BOTH, state(backoffs=held(Lane.KEY, minutes=2) | held(Lane.UPKEEP, minutes=1)))
    assert (decision.outcome, decision.reason, decision.due) == (Outcome.DEFERRED, "BACKOFF", NOW + MINUTE)
    assert decision.held == {Lane.KEY, Lane.UPKEEP}


def test_p9_lanes_that_are_not_violated_hold_nothing_back() -> None:
    decision = decided(seen(on(OURS), key(state="Disabled")), state(backoffs=held(Lane.SETTING, Lane.UPKEEP)))
    assert (decision.outcome, decision.held) == (Outcome.REMEDIATING, frozenset())


def test_p9_the_lanes_that_are_not_held_are_remediated() -> None:
    decision = decided(BOTH, state(backoffs=held(Lane.UPKEEP)))
    assert decision.outcome is Outcome.REMEDIATING
    assert decision.held == {Lane.UPKEEP}
    assert [step.name for step in decision.steps] == [StepName.ENABLE_KEY]


def test_p9_upkeep_waits_with_the_key_that_is_held_back() -> None:
    decision = decided(BOTH, state(backoffs=held(Lane.KEY)))
    assert (decision.outcome, decision.reason, decision.due) == (Outcome.DEFERRED, "BACKOFF", NOW + MINUTE)


def test_an_operator_waits_for_no_lane() -> None:
    decision = decided(BOTH, state(backoffs=held(*OF_STEPS)), trigger=TriggerKind.OPERATOR)
    assert (decision.outcome, decision.held) == (Outcome.REMEDIATING, frozenset())
    assert [step.name for step in decision.steps] == [StepName.ENABLE_KEY, StepName.UPDATE_ALIAS]


def test_failed_reads_hold_no_lane_back() -> None:
    assert waiting.held_lanes(state(backoffs=held(*Lane)), NOW) == set(OF_STEPS)
    assert decided(BOTH, state(backoffs=held(Lane.READING))).outcome is Outcome.REMEDIATING


# --- counting --------------------------------------------------------------------------------------------------------


def test_p9_an_attempt_counts_in_its_lanes_only() -> None:
    known = held(Lane.UPKEEP)
    counted = waiting.counted(known, {Lane.KEY, Lane.SETTING}, At(NOW), LIMITS)
    assert counted == known | {Lane.KEY: Backoff(1, NOW), Lane.SETTING: Backoff(1, NOW)}


def test_p9_a_lost_worker_counts_once_in_every_lane() -> None:
    lease = Lease("other", 1, NOW, NOW - 2 * MINUTE)
    begun = {Lane.KEY: Backoff(1, lease.since), Lane.UPKEEP: Backoff(1, NOW - 5 * MINUTE)}
    after = waiting.after_lost(begun, lease, At(NOW), LIMITS)
    assert {lane: each.count for lane, each in after.items()} == {
        Lane.SETTING: 1,
        Lane.KEY: 1,
        Lane.SPANS: 1,
        Lane.UPKEEP: 2,
    }


def test_the_first_lane_that_is_free_decides_when_the_target_is_due() -> None:
    waits = state(backoffs=held(Lane.KEY, minutes=3) | held(Lane.UPKEEP, minutes=2) | {Lane.SETTING: Backoff(1, NOW)})
    assert waiting.free_at(waits, [Lane.KEY, Lane.UPKEEP, Lane.SETTING]) == NOW + 2 * MINUTE
    assert waiting.free_at(waits, [Lane.SETTING]) is None


def settling(lane: Lane, **backoffs: Backoff) -> TargetState:
    """The last attempt was stopped in this lane by what passes by itself."""
    incident = Incident("1", NOW, NONE, Phase.OPEN, settles_until=NOW + MINUTE, settles_in=lane)
    fought = {Lane(name): backoff for name, backoff in backoffs.items()}
    return state(incident=incident, outcome=Outcome.DEFERRED, reason="SETTLING", backoffs=fought)


def test_p1_the_lane_that_waits_for_aws_is_not_held_and_the_ones_that_are_fought_about_are() -> None:
    fought = Backoff(4, NOW, NOW + MINUTE)
    waits = settling(Lane.KEY, key=fought, upkeep=fought, setting=Backoff(2, NOW))
    assert waiting.held_lanes(waits, NOW) == {Lane.UPKEEP}
    assert [waiting.is_settling(waits, lane, NOW) for lane in OF_STEPS] == [True, True, True, False]
    assert not waiting.is_settling(replace(waits, reason="BACKOFF"), Lane.KEY, NOW)
    assert not waiting.is_settling(waits, Lane.KEY, NOW + MINUTE)


def test_p9_after_a_partial_end_the_time_to_settle_begins_anew_unless_another_lane_is_fought_about() -> None:
    fought = Backoff(3, NOW, NOW + MINUTE)
    held_back = settling(Lane.KEY, upkeep=fought, key=Backoff(2, NOW))
    assert waiting.settles_anew(held_back, frozenset({Lane.UPKEEP})) is None
    both = settling(Lane.KEY, upkeep=fought, key=fought)
    assert waiting.settles_anew(both, frozenset({Lane.UPKEEP})) == NOW + MINUTE


def test_the_lanes_by_which_x_ray_loses_traces_go_first() -> None:
    assert set(OF_STEPS[:2]) == HARM
