"""P13: nobody makes the guard change a key that it did not make, or use a key that lets in others."""

from __future__ import annotations

import pytest

from chalicelib.domain.errors import GuardError
from chalicelib.domain.model import Actor, EncryptionType, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Problem, Violation
from chalicelib.domain.stored import Record
from chalicelib.loop.guard import Guard, Result
from chalicelib.loop.managed_key import adopt_key
from tests.simulation.scenarios import ALIAS, BARE_POLICY, Stage, hand_over, opened, stage
from tests.simulation.world import ACCOUNT, HOME, Hazard, Run

DEVELOPER = Actor(f"arn:aws:iam::{ACCOUNT}:role/Developer", "AssumedRole", session="laptop")
OUTSIDE = "arn:aws:iam::999988887777:root"
OPERATOR = Trigger(TriggerKind.OPERATOR)


def last(scene: Stage) -> Record:
    return scene.tables.records(HOME)[-1]


def why_refused(scene: Stage, key_arn: str) -> Problem:
    """Return why the guard refuses a key that an operator wants to hand over."""
    problems: list[Problem] = []

    def adopt(guard: Guard, run: Run) -> Result:
        try:
            return adopt_key(guard, HOME, OPERATOR, key_arn)
        except GuardError as error:
            problems.append(error.problem)
            raise

    scene.lambdas.invoke("operator", adopt, retries=())
    scene.world.run(1)
    (problem,) = problems
    return problem


def drift(scene: Stage) -> None:
    scene.lambdas.schedule(first_sweep_after=None)
    scene.world.user_puts(HOME, None, DEVELOPER)
    scene.world.run(900)


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "Disabled"},
        {"state": "PendingDeletion"},
        {"policy": BARE_POLICY},
        {"rotation": False, "rotation_days": None},
    ],
)
def test_p13_a_key_that_a_developer_tagged_and_aliased_is_not_changed(fields: dict[str, object]) -> None:
    """Security disabled it. `kms:TagResource` and `kms:CreateAlias` must not be enough to have it enabled again."""
    scene = stage()
    theirs = scene.make_key(tagged=True, **fields)
    with scene.undelivered():
        scene.world.user_sets_alias(HOME, ALIAS, theirs, DEVELOPER)
    before = scene.world.place(HOME).kms.keys[theirs]
    drift(scene)
    assert scene.world.place(HOME).kms.keys[theirs] == before
    record = last(scene)
    assert (record.outcome, record.reason) == (Outcome.FAILED, "KEY_NOT_OURS")
    assert record.error is not None
    assert f"xray-guard key adopt {HOME} {theirs}" in record.error.message
    scene.witness.check_whole()


def test_p13_a_key_of_somebody_elses_that_lets_in_others_is_not_adopted() -> None:
    scene = stage()
    theirs = scene.make_key(tagged=True, policy=opened(scene.full_policy, OUTSIDE))
    with scene.undelivered():
        scene.world.user_sets_alias(HOME, ALIAS, theirs, DEVELOPER)
    drift(scene)
    assert scene.world.setting(HOME).type is EncryptionType.NONE
    record = last(scene)
    assert (record.outcome, record.reason) == (Outcome.FAILED, "KEY_POLICY_OPEN")
    assert record.error is not None
    assert OUTSIDE in record.error.message
    assert scene.tables.state(HOME).managed_key is None
    scene.witness.check_whole()


def test_p13_a_key_that_lets_in_others_is_not_adopted_where_x_ray_uses_it_already() -> None:
    scene = stage()
    theirs = scene.make_key(tagged=True, policy=opened(scene.full_policy, OUTSIDE))
    with scene.undelivered():
        scene.world.user_sets_alias(HOME, ALIAS, theirs, DEVELOPER)
    scene.lambdas.schedule(first_sweep_after=None)
    scene.world.user_puts(HOME, theirs, DEVELOPER)
    scene.world.run(900)
    record = last(scene)
    assert (record.outcome, record.violations) == (Outcome.FAILED, (Violation.KEY_POLICY_OPEN,))
    assert scene.tables.state(HOME).managed_key is None
    scene.witness.check_whole()


def test_p13_the_key_that_the_guard_made_is_the_one_it_uses_while_somebody_keeps_moving_the_alias() -> None:
    scene = stage(rivals=True)
    scene.lambdas.schedule(first_sweep_after=None)
    theirs = scene.make_key(tagged=True)

    def moves_the_alias(run: Run, number: int, name: str) -> Hazard | None:
        if name in ("CreateAlias", "UpdateAlias", "EnableKeyRotation"):
            with scene.undelivered():
                scene.world.user_sets_alias(HOME, ALIAS, theirs, DEVELOPER)
        return None

    scene.world.hazard = moves_the_alias
    scene.world.user_puts(HOME, None, DEVELOPER)
    scene.world.run(120)
    setting, state = scene.world.setting(HOME), scene.tables.state(HOME)
    assert setting.key_arn in state.keys_made
    assert setting.key_arn == state.managed_key != theirs
    scene.world.hazard = lambda run, number, name: None
    assert scene.converge(), scene.witness.story()
    assert scene.world.place(HOME).kms.aliases[ALIAS] == setting.key_arn
    assert len(state.keys_made) == 1


def test_p13_an_alias_that_somebody_else_creates_first_does_not_decide_which_key_is_used() -> None:
    scene = stage(rivals=True)
    scene.lambdas.schedule(first_sweep_after=None)
    theirs: list[str] = []

    def creates_it_first(run: Run, number: int, name: str) -> Hazard | None:
        if name == "CreateAlias" and not theirs:
            theirs.append(scene.make_key(tagged=True))
            with scene.undelivered():
                scene.world.user_sets_alias(HOME, ALIAS, theirs[0], DEVELOPER)
        return None

    scene.world.hazard = creates_it_first
    scene.world.user_puts(HOME, None, DEVELOPER)
    assert scene.converge(), scene.witness.story()
    (own,) = scene.tables.state(HOME).keys_made
    assert scene.world.setting(HOME).key_arn == own
    moved = [action for record in scene.tables.records(HOME) for action in record.actions if action.after == ALIAS]
    assert [(each.name, each.error) for each in moved] == [
        ("CreateAlias", "AlreadyExistsException"),
        ("UpdateAlias", None),
    ]
    assert moved[-1].before == theirs[0]


class TestHandedOver:
    """`xray-guard key adopt`: its owner tags the key, an operator names it, and the record says so."""

    def test_p13_the_guard_repairs_the_key_from_then_on(self) -> None:
        scene = stage()
        theirs = scene.make_key(tagged=True, state="Disabled", policy=BARE_POLICY)
        hand_over(scene, theirs)
        record = last(scene)
        assert (record.outcome, record.reason) == (Outcome.IGNORED, "KEY_HANDED_OVER")
        assert record.detail == {"adopted": theirs, "retired": None}
        drift(scene)
        assert scene.witness.right(), scene.witness.story()
        assert scene.world.setting(HOME).key_arn == theirs
        scene.witness.check_whole()

    def test_p2_the_former_key_is_retired_and_x_ray_moves(self) -> None:
        scene = stage()
        drift(scene)
        former = scene.managed_key()
        theirs = scene.make_key(tagged=True)
        hand_over(scene, theirs)
        assert last(scene).detail == {"adopted": theirs, "retired": former}
        assert scene.converge(), scene.witness.story()
        state = scene.tables.state(HOME)
        assert (state.managed_key, state.keys_retired) == (theirs, (former,))
        assert scene.world.setting(HOME).key_arn == theirs

    def test_a_key_that_was_given_up_can_be_handed_over_again(self) -> None:
        scene = stage()
        drift(scene)
        former = scene.managed_key()
        hand_over(scene, scene.make_key(tagged=True))
        scene.world.run(900)
        hand_over(scene, former)
        assert scene.converge(), scene.witness.story()
        assert former not in scene.tables.state(HOME).keys_retired
        assert scene.world.setting(HOME).key_arn == former

    @pytest.mark.parametrize(
        ("fields", "code"),
        [
            ({"tags": ()}, "KEY_NOT_TAGGED"),
            ({"policy": opened(BARE_POLICY, OUTSIDE)}, "KEY_POLICY_OPEN"),
            ({"spec": "RSA_2048", "usage": "SIGN_VERIFY"}, "KEY_BEYOND_REPAIR"),
            ({"manager": "AWS"}, "KEY_BEYOND_REPAIR"),
        ],
    )
    def test_p13_a_key_that_cannot_be_the_managed_key_is_refused_and_nothing_is_stored(
        self, fields: dict[str, object], code: str
    ) -> None:
        scene = stage()
        theirs = scene.make_key(**{"tagged": True, **fields})  # type: ignore[arg-type]
        before = scene.tables.state(HOME)
        assert why_refused(scene, theirs).code == code
        assert scene.tables.state(HOME) == before

    def test_a_key_that_does_not_exist_is_refused(self) -> None:
        scene = stage()
        missing = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/none"
        assert why_refused(scene, missing).message == f"KMS has no key {missing} in {HOME}"

    def test_p13_removing_the_tag_takes_the_key_back(self) -> None:
        scene = stage()
        theirs = scene.make_key(tagged=True)
        hand_over(scene, theirs)
        drift(scene)
        scene.world.user_changes_key(HOME, theirs, tags=(), state="Disabled")
        scene.world.run(900)
        assert last(scene).reason == "KEY_NOT_TAGGED"
        assert scene.world.place(HOME).kms.keys[theirs].state == "Disabled"


class TestOpened:
    """`KEY_POLICY_OPEN`: somebody widens the policy of the managed key."""

    @staticmethod
    def opened_by(principal: str) -> Stage:
        scene = stage()
        drift(scene)
        scene.lambdas.schedule()
        policy = opened(scene.full_policy, principal)
        scene.world.user_changes_key(HOME, scene.managed_key(), DEVELOPER, policy=policy)
        return scene

    @pytest.mark.parametrize("principal", ["*", OUTSIDE])
    def test_p13_it_is_observed_with_the_statement_and_never_removed(self, principal: str) -> None:
        scene = self.opened_by(principal)
        scene.world.run(900)
        record = next(each for each in scene.tables.records(HOME) if each.violations == (Violation.KEY_POLICY_OPEN,))
        assert (record.outcome, record.reason) == (Outcome.OBSERVED, "KEY_POLICY_OPEN")
        assert record.error is not None
        assert "'Others'" in record.error.message
        assert principal in record.error.message
        assert record.trigger.actor == DEVELOPER
        assert principal in (scene.world.place(HOME).kms.keys[scene.managed_key()].policy or "")
        scene.witness.check_whole()

    def test_p13_it_never_keeps_x_ray_from_leaving_none(self) -> None:
        scene = self.opened_by(OUTSIDE)
        scene.world.run(900)
        scene.world.user_puts(HOME, None, DEVELOPER)
        scene.world.run(30)
        assert scene.world.setting(HOME).key_arn == scene.managed_key()

    def test_it_ends_when_the_statement_is_gone(self) -> None:
        scene = self.opened_by(OUTSIDE)
        scene.world.run(900)
        scene.world.user_changes_key(HOME, scene.managed_key(), policy=scene.full_policy)
        scene.world.run(900)
        assert last(scene).outcome is Outcome.COMPLIANT
        assert scene.tables.state(HOME).incident is None
        scene.witness.check_whole()
