"""The scenarios: each one is a world before, and what a user then does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from chalicelib.domain.keypolicy.wanted import initial_policy
from chalicelib.domain.model import GUARD_TAG_KEY, GUARD_TAG_VALUE, Trigger, TriggerKind
from chalicelib.domain.policy import Policy
from chalicelib.loop.managed_key import adopt_key
from tests.simulation.fakes import Tables
from tests.simulation.lambdas import Lambdas, baseline
from tests.simulation.promises import Witness
from tests.simulation.world import ACCOUNT, HOME, Hazard, Run, World

ALIAS = "alias/xray-encryption"
BARE_POLICY = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::'
    + ACCOUNT
    + ':root"}, "Action": "kms:*", "Resource": "*"}]}'
)


@dataclass
class Stage:
    """A world with a deployed guard, and a witness."""

    world: World
    tables: Tables
    lambdas: Lambdas
    witness: Witness

    @property
    def full_policy(self) -> str:
        """A key policy that says all that the rule requires."""
        return initial_policy(self.witness.rule(HOME), HOME, "aws")

    def managed_key(self) -> str:
        """Return the managed key's ARN."""
        arn = self.tables.state(HOME).managed_key
        assert arn is not None
        return arn

    def make_key(self, *, tagged: bool, **fields: object) -> str:
        """A user creates a healthy key; return its ARN."""
        tags = ((GUARD_TAG_KEY, GUARD_TAG_VALUE),) if tagged else ()
        whole = {"policy": self.full_policy, "rotation": True, "rotation_days": 365, "tags": tags, **fields}
        return self.world.user_makes_key(HOME, **whole)

    @contextmanager
    def undelivered(self) -> Iterator[None]:
        """Lose all events of changes made meanwhile."""
        delivery, self.world.delivery = self.world.delivery, lambda rng: []
        yield
        self.world.delivery = delivery

    def converge(self, seconds: float = 3000.0) -> bool:
        """Run the world until the target is compliant and the guard is done; return whether it is."""
        return self.world.run(seconds, lambda: self.lambdas.idle and self.witness.settled() and self.witness.right())


def stage(
    seed: int = 0,
    *,
    policy: Policy | None = None,
    rivals: bool = False,
    shuffled: bool = False,
    hazard: Callable[[Run, int, str], Hazard | None] = lambda run, number, name: None,
    latency: Callable[[Random, str], float] = lambda rng, name: 0.02,
    staleness: Callable[[Random], float] = lambda rng: 0.0,
    delivery: Callable[[Random], list[float]] = lambda rng: [2.0],
    settling: Callable[[Random], float] = lambda rng: 1.0,
    refuses_while_updating: bool = False,
    denies_bypass: bool = False,
    appearing: Callable[[Random], float] = lambda rng: 60.0,
) -> Stage:
    """Return an empty account, its guard and a witness. See `World` for the parameters."""
    world = World(
        seed,
        hazard=hazard,
        latency=latency,
        staleness=staleness,
        delivery=delivery,
        settling=settling,
        refuses_while_updating=refuses_while_updating,
        denies_bypass=denies_bypass,
        appearing=appearing,
    )
    tables = Tables()
    lambdas = Lambdas(world, tables, policy or baseline(), shuffled=shuffled)
    return Stage(world, tables, lambdas, Witness(world, tables, lambdas, rivals=rivals))


@dataclass(frozen=True)
class Scenario:
    """`before` sets up the world, and `change` is what then happens.

    `refused` is the code of an expected FAILED. `keys_made` is the most keys that may be created in the whole story,
    `makes_key` says that one is created after the change, and `shown` counts the changes that KMS must show in
    sequence.
    """

    name: str
    before: Callable[[Stage], None]
    change: Callable[[Stage], None]
    refused: str | None = None
    keys_made: int = 1
    makes_key: bool = False
    shown: int = 0


def _nothing(stage: Stage) -> None:
    """An empty account."""


def _recorded(stage: Stage) -> None:
    """The guard has created its key, long enough ago that KMS shows it everywhere."""
    stage.world.user_puts(HOME, None)
    assert stage.converge(), stage.witness.story()
    stage.world.run(600)


def _aliased(*, tagged: bool, **fields: object) -> Callable[[Stage], None]:
    def before(stage: Stage) -> None:
        with stage.undelivered():
            stage.world.user_sets_alias(HOME, ALIAS, stage.make_key(tagged=tagged, **fields))
        stage.world.run(600)

    return before


def _handed_over(**fields: object) -> Callable[[Stage], None]:
    def before(stage: Stage) -> None:
        hand_over(stage, stage.make_key(tagged=True, **fields))
        stage.world.run(600)

    return before


def hand_over(stage: Stage, arn: str) -> None:
    """An operator hands the key over, with `xray-guard key adopt`."""
    operator = Trigger(TriggerKind.OPERATOR)
    stage.lambdas.invoke("operator", lambda guard, run: adopt_key(guard, HOME, operator, arn), retries=())
    stage.world.run(1)


def opened(policy: str, principal: str = "*") -> str:
    """Return the key policy with a statement that lets in the principal."""
    document = json.loads(policy)
    allow = {"Sid": "Others", "Effect": "Allow", "Principal": {"AWS": principal}, "Action": "kms:*", "Resource": "*"}
    return json.dumps({**document, "Statement": [*document["Statement"], allow]})


def _drift(stage: Stage) -> None:
    stage.world.user_puts(HOME, None)


def _key_and_drift(**changes: object) -> Callable[[Stage], None]:
    def change(stage: Stage) -> None:
        stage.world.user_changes_key(HOME, stage.managed_key(), **changes)
        stage.world.user_puts(HOME, None)

    return change


def _key_alone(**changes: object) -> Callable[[Stage], None]:
    """X-Ray's setting does not change, so only the key's event reports the change."""

    def change(stage: Stage) -> None:
        stage.world.user_changes_key(HOME, stage.managed_key(), **changes)

    return change


def _alias_to(other: bool) -> Callable[[Stage], None]:
    def change(stage: Stage) -> None:
        arn = stage.make_key(tagged=False) if other else None
        stage.world.user_sets_alias(HOME, ALIAS, arn)
        stage.world.user_puts(HOME, arn)

    return change


def _two_workers(stage: Stage) -> None:
    stage.world.user_puts(HOME, None)
    stage.world.later(2.0, stage.lambdas.sweep)


def _aws_managed(stage: Stage) -> None:
    arn = stage.world.user_makes_key(HOME, manager="AWS", rotation=True, policy=BARE_POLICY)
    stage.world.user_puts(HOME, arn)


def _bypass_denied(stage: Stage) -> None:
    stage.world.denies_bypass = True


def _with_spans(stage: Stage) -> None:
    """The guard's key encrypts traces and spans, for longer than a fight is remembered."""
    _recorded(stage)
    stage.world.user_sends_spans(HOME)
    assert stage.converge(), stage.witness.story()
    stage.world.run(3700)


def _spans(stage: Stage) -> None:
    stage.world.user_sends_spans(HOME)


def _drift_and_spans(stage: Stage) -> None:
    stage.world.user_puts(HOME, None)
    stage.world.user_sends_spans(HOME)


def _other_key_of_spans(key_arn: str | None, **changes: object) -> Callable[[Stage], None]:
    def change(stage: Stage) -> None:
        stage.world.user_associates(HOME, key_arn)
        if changes:
            stage.world.user_changes_key(HOME, stage.managed_key(), **changes)

    return change


FOREIGN_KEY = "arn:aws:kms:us-east-1:444455556666:key/theirs"

SCENARIOS = (
    Scenario("empty account", _nothing, _drift, makes_key=True, shown=1),
    Scenario("empty account, bypass of the lock-out check denied", _bypass_denied, _drift, makes_key=True, shown=2),
    Scenario("empty account, AWS managed key", _nothing, _aws_managed, makes_key=True, shown=1),
    Scenario("two workers, empty account", _nothing, _two_workers, makes_key=True, shown=1),
    Scenario("key recorded", _recorded, _drift),
    Scenario("two workers, key recorded", _recorded, _two_workers),
    Scenario("key behind the alias, tagged, not recorded", _aliased(tagged=True), _drift, keys_made=0),
    Scenario(
        "bare key behind the alias, tagged",
        _aliased(tagged=True, policy=BARE_POLICY, rotation=False),
        _drift,
        refused="KEY_NOT_OURS",
        keys_made=0,
    ),
    Scenario(
        "bare key, handed over",
        _handed_over(policy=BARE_POLICY, rotation=False),
        _drift,
        keys_made=0,
        shown=1,
    ),
    Scenario("disabled key, handed over", _handed_over(state="Disabled"), _drift, keys_made=0, shown=1),
    Scenario("key disabled", _recorded, _key_and_drift(state="Disabled"), shown=2),
    Scenario("key disabled under X-Ray", _recorded, _key_alone(state="Disabled"), shown=2),
    Scenario("key pending deletion", _recorded, _key_and_drift(state="PendingDeletion"), shown=3),
    Scenario("key pending deletion under X-Ray", _recorded, _key_alone(state="PendingDeletion"), shown=3),
    Scenario("alias of an untagged healthy key", _aliased(tagged=False), _drift, keys_made=0),
    Scenario(
        "alias of a tagged disabled key",
        _aliased(tagged=True, state="Disabled"),
        _drift,
        refused="KEY_NOT_OURS",
        keys_made=0,
    ),
    Scenario(
        "alias of a tagged open key",
        _aliased(tagged=True, policy=opened(BARE_POLICY)),
        _drift,
        refused="KEY_POLICY_OPEN",
        keys_made=0,
    ),
    Scenario("alias moved", _recorded, _alias_to(other=True), shown=1),
    Scenario("alias deleted", _recorded, _alias_to(other=False), shown=1),
    Scenario("policy stripped", _recorded, _key_and_drift(policy=BARE_POLICY), shown=1),
    Scenario("policy stripped under X-Ray", _recorded, _key_alone(policy=BARE_POLICY), shown=1),
    Scenario("rotation off", _recorded, _key_and_drift(rotation=False, rotation_days=None), shown=1),
    Scenario("rotation off under X-Ray", _recorded, _key_alone(rotation=False, rotation_days=None), shown=1),
    Scenario("rotation slow under X-Ray", _recorded, _key_alone(rotation=True, rotation_days=2560), shown=1),
    Scenario("spans without a key", _recorded, _spans, shown=1),
    Scenario("empty account, drift and spans", _nothing, _drift_and_spans, makes_key=True, shown=2),
    Scenario("key of spans taken off", _with_spans, _other_key_of_spans(None), shown=1),
    Scenario("key of spans taken off, key disabled", _with_spans, _other_key_of_spans(None, state="Disabled"), shown=2),
    Scenario("key of another account for spans", _with_spans, _other_key_of_spans(FOREIGN_KEY), shown=1),
    Scenario("policy stripped under spans", _with_spans, _key_alone(policy=BARE_POLICY), shown=2),
)
