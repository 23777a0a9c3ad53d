"""One target with its rule, its key, its states and its events, as the tests of the pure loop begin with them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from chalicelib.domain.keypolicy.wanted import initial_policy
from chalicelib.domain.model import (
    Actor,
    ChangeEvent,
    EncryptionStatus,
    EncryptionType,
    Key,
    KeyEvent,
    Setting,
    Target,
    Trigger,
    TriggerKind,
)
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import ManagedKey, Mode, Require, Rule, When
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.stored import Incident, Lease, Phase, TargetState
from tests.unit.runs import ACCOUNT, ROLE, SETUP

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)

TARGET = Target(ACCOUNT, "eu-west-1")
ALIAS = "alias/xray-encryption"
KEY_ARN = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/11111111-1111-1111-1111-111111111111"
OTHER_ARN = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/22222222-2222-2222-2222-222222222222"
FOREIGN_ARN = "arn:aws:kms:eu-west-1:444455556666:key/33333333-3333-3333-3333-333333333333"
RULE = Rule(
    id="baseline",
    accounts=("*",),
    regions=("*",),
    mode=Mode.ENFORCE,
    when=When.ALWAYS,
    require=Require(allowed_keys=(ALIAS, "alias/theirs")),
    managed_key=ManagedKey(alias=ALIAS),
)

NONE = Setting(EncryptionType.NONE, None, EncryptionStatus.ACTIVE)
GOOD = Setting(EncryptionType.KMS, KEY_ARN, EncryptionStatus.ACTIVE)
UPDATING = Setting(EncryptionType.KMS, KEY_ARN, EncryptionStatus.UPDATING)
OTHER = Setting(EncryptionType.KMS, OTHER_ARN, EncryptionStatus.ACTIVE)

ALICE = Actor(f"arn:aws:iam::{ACCOUNT}:user/Alice", "IAMUser")
BOB = Actor(f"arn:aws:iam::{ACCOUNT}:role/Bob", "AssumedRole")
GUARD = Actor(ROLE, "AssumedRole", session="tick")

NOT_KMS = (Violation.NOT_KMS,)
FIRST_RECORD = f"{TARGET}#5"
"""The id of the next record of COMPLIANT's chain, and so of an incident that begins with it."""

COMPLIANT = TargetState(
    str(TARGET),
    version=7,
    seq=4,
    first_seen=NOW - 100 * HOUR,
    setting=GOOD,
    ever_used=True,
    outcome=Outcome.COMPLIANT,
    rule=RULE.id,
    policy_digest=SETUP.policy_digest,
    checked_at=NOW - HOUR,
    good_at=NOW - HOUR,
    managed_key=KEY_ARN,
    requests=("the guard's",),
)
"""A target that was compliant an hour ago, with nothing to wait for."""


def a_lease(until: datetime = NOW + MINUTE, owner: str = "other/1", number: int = 3) -> Lease:
    """Another worker's lease, held for another minute."""
    return Lease(owner, number, until)


def an_incident(phase: Phase = Phase.OPEN, **changes: Any) -> Incident:
    """A drift to NONE that was discovered ten minutes ago."""
    return replace(Incident(f"{TARGET}#4", NOW - 10 * MINUTE, NONE, phase, NOT_KMS), **changes)


def acting(lease: Lease, **changes: Any) -> Incident:
    """An incident that a worker attempts to remediate, or a lost worker did."""
    fields = {"lease": lease, "due": lease.until, "attempt": 1, "unended": True, "mutated": True, **changes}
    return an_incident(Phase.ACTING, **fields)


def applied(at: datetime = NOW - MINUTE, **changes: Any) -> Incident:
    """An incident whose wanted key is set; X-Ray was UPDATING when it was last read."""
    fields = {"applied_at": at, "due": at, "attempt": 1, "unended": True, "mutated": True, **changes}
    return an_incident(Phase.APPLIED, **fields)


def drifted(incident: Incident, outcome: Outcome, reason: str | None = None, **changes: Any) -> TargetState:
    """A noncompliant target."""
    fields = {"setting": NONE, "violations": incident.violations, **changes}
    return replace(COMPLIANT, incident=incident, outcome=outcome, reason=reason, **fields)


def a_key(arn: str = KEY_ARN, **changes: Any) -> Key:
    """A healthy key with the guard's tag, as a deep observation shows it."""
    key = Key(
        arn,
        arn.split(":")[4],
        TARGET.region,
        "Enabled",
        policy=initial_policy(RULE, TARGET, SETUP.partition),
        rotation=True,
        rotation_days=365,
        tags=(("xray-guard", "managed"),),
    )
    return replace(key, **changes)


def seen_as(setting: Setting = GOOD, *keys: Key, at: datetime = NOW, **changes: Any) -> Observation:
    """A deep observation; the managed key is healthy where no keys are named, and the alias points to it."""
    shown = {key.arn: key for key in (keys or (a_key(),))}
    return replace(Observation(at, setting, shown, {ALIAS: KEY_ARN, "alias/theirs": None}), **changes)


def change_event(
    result: Setting | None = NONE,
    *,
    at: datetime | None = NOW - 5 * SECOND,
    actor: Actor | None = ALICE,
    event_id: str = "event-1",
    error: str | None = None,
) -> ChangeEvent:
    """A PutEncryptionConfig call; with `error`, one that AWS refused."""
    trigger = Trigger(TriggerKind.CHANGE, event_id, "PutEncryptionConfig", at, _request(actor), actor)
    return ChangeEvent(TARGET, trigger, result, error, f"refused: {error}" if error else None)


def key_event(
    *key_arns: str, alias: str | None = None, actor: Actor | None = ALICE, error: str | None = None
) -> KeyEvent:
    """A change to keys or to an alias."""
    trigger = Trigger(TriggerKind.KEY, "event-2", "DisableKey", NOW - 5 * SECOND, _request(actor), actor)
    return KeyEvent(TARGET, trigger, key_arns, alias, error_code=error)


def _request(actor: Actor | None) -> str:
    """The request id of a call: the guard knows its own."""
    return "the guard's" if actor == GUARD else "somebody's"
