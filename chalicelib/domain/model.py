"""The words of the guard as values: what flows between the rooms, and nothing that acts.

Everything here is frozen and knows neither boto3 nor a clock. Times are aware UTC datetimes. What is stored (records
and target state) is encoded by `msgspec`, which reads these types as they stand. They are its Structs because a
dataclass costs forty times as much to define, at every cold start (ADR 0006); `msgspec.structs.replace` changes one.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

GUARD_CHAIN = "guard"
"""The chain for what belongs to no target: sweeps, anchors, policy digests, unreadable events, pause and resume."""

GUARD_TAG_KEY = "xray-guard"
GUARD_TAG_VALUE = "managed"
NONCE_TAG_KEY = "xray-guard-nonce"
ZERO_HASH = "0" * 64
REGION_DENIED = "REGION_DENIED"
"""The reason of IGNORED where the organization denies the guard the target's Region."""


class TriggerKind(StrEnum):
    """Why we look."""

    CHANGE = "change"
    KEY = "key"
    SWEEP = "sweep"
    TICK = "tick"
    CONFIG = "config"
    OPERATOR = "operator"


class Violation(StrEnum):
    """A coded reason why an observation breaks the rule."""

    NOT_KMS = "NOT_KMS"
    AWS_MANAGED_KEY = "AWS_MANAGED_KEY"
    KEY_NOT_ALLOWED = "KEY_NOT_ALLOWED"
    KEY_NOT_FOUND = "KEY_NOT_FOUND"
    KEY_DISABLED = "KEY_DISABLED"
    KEY_PENDING_DELETION = "KEY_PENDING_DELETION"
    KEY_UNAVAILABLE = "KEY_UNAVAILABLE"
    KEY_ASYMMETRIC = "KEY_ASYMMETRIC"
    KEY_FOREIGN_ACCOUNT = "KEY_FOREIGN_ACCOUNT"
    KEY_ROTATION_OFF = "KEY_ROTATION_OFF"
    KEY_POLICY_INCOMPLETE = "KEY_POLICY_INCOMPLETE"
    ALIAS_MOVED = "ALIAS_MOVED"


class Outcome(StrEnum):
    """What a record says of the run."""

    COMPLIANT = "COMPLIANT"
    OBSERVED = "OBSERVED"
    REMEDIATING = "REMEDIATING"
    SUPPRESSED = "SUPPRESSED"
    APPLIED = "APPLIED"
    DEFERRED = "DEFERRED"
    REMEDIATED = "REMEDIATED"
    FAILED = "FAILED"
    IGNORED = "IGNORED"


class EncryptionType(StrEnum):
    """X-Ray's `Type`."""

    NONE = "NONE"
    KMS = "KMS"


class EncryptionStatus(StrEnum):
    """X-Ray's `Status`."""

    UPDATING = "UPDATING"
    ACTIVE = "ACTIVE"


class Target(Struct, frozen=True, order=True):
    """An account and Region: the unit that has one encryption setting."""

    account: str
    region: str

    def __str__(self) -> str:
        return f"{self.account}/{self.region}"

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `111122223333/us-east-1`. Raises ValueError, with what is wrong, for anything else."""
        account, slash, region = text.partition("/")
        if not (slash and len(account) == 12 and account.isascii() and account.isdigit()):
            raise ValueError(f"{text!r} is not a target: write it as 111122223333/us-east-1")
        if not is_region(region):
            raise ValueError(f"{text!r} is not a target: {region!r} is not the name of a Region, such as us-east-1")
        return cls(account, region)


def is_region(text: str) -> bool:
    """Whether the text has the shape of a Region's name; nobody's list of Regions is complete."""
    parts = text.split("-")
    return (
        3 <= len(parts) <= 5
        and len(text) <= 32
        and all(part.isascii() and part.isalnum() and part == part.lower() for part in parts)
        and parts[-1].isdigit()
    )


class Setting(Struct, frozen=True):
    """X-Ray's encryption setting as it was answered. `key_arn` is None for NONE, which normally carries no key."""

    type: EncryptionType
    key_arn: str | None = None
    status: EncryptionStatus | None = None

    def same_choice(self, other: Setting | None) -> bool:
        """Whether both name the same encryption, whatever the status."""
        return other is not None and self.type == other.type and self.key_arn == other.key_arn


class Actor(Struct, frozen=True):
    """Who did something, as CloudTrail tells it.

    `arn` is the user's, root's, federated user's or the role's IAM ARN (the role's with its path, where the record has
    it), else the service's name, else `unknown`. `session` is the role session's name, `via` the AWS service that
    called on the actor's behalf, `issued_by` the principal that issued a federated user's credentials.
    """

    arn: str
    type: str | None = None
    session: str | None = None
    via: str | None = None
    issued_by: str | None = None

    def __str__(self) -> str:
        extras = [
            text
            for text in (
                self.session and f"session {self.session}",
                self.via and f"via {self.via}",
                self.issued_by and f"issued by {self.issued_by}",
            )
            if text
        ]
        return ", ".join([self.arn, *extras])


class Trigger(Struct, frozen=True):
    """Why a run looked. Everything but `kind` is known of events only (`actor` also of operators)."""

    kind: TriggerKind
    event_id: str | None = None
    event_name: str | None = None
    event_time: datetime | None = None
    request_id: str | None = None
    actor: Actor | None = None
    source_ip: str | None = None
    user_agent: str | None = None


class ChangeEvent(Struct, frozen=True):
    """A PutEncryptionConfig call that CloudTrail told of.

    `result` is the setting that the call answered with; its `key_arn` may be a bare key id or an alias where the record
    has nothing better, and the whole is None where the record does not say. `error_code` is set for a failed call.
    """

    target: Target
    trigger: Trigger
    result: Setting | None = None
    error_code: str | None = None
    error_message: str | None = None


class KeyEvent(Struct, frozen=True):
    """A change to KMS keys, aliases or key tags that CloudTrail or KMS told of.

    `tag_keys` and `tags` are those that the call set or removed (`tags` empty for a removal).
    """

    target: Target
    trigger: Trigger
    key_arns: tuple[str, ...] = ()
    alias: str | None = None
    tag_keys: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    error_code: str | None = None


class Rejected(Struct, frozen=True):
    """An event that cannot be acted on: it names no target, or contradicts itself.

    `reason` is a stable code, `detail` says what is wrong and where, without repeating the event; `event_id` is the
    event's own, or one made from its digest, so that the same bad event is recorded once.
    """

    reason: str
    detail: str
    event_id: str


class Key(Struct, frozen=True):
    """What KMS told of a key. A None means: not read; `tags` None with `tags_error` means: could not be read."""

    arn: str
    account: str
    region: str
    state: str
    spec: str = "SYMMETRIC_DEFAULT"
    usage: str = "ENCRYPT_DECRYPT"
    manager: str = "CUSTOMER"
    origin: str = "AWS_KMS"
    description: str = ""
    made_at: datetime | None = None
    policy: str | None = None
    rotation: bool | None = None
    rotation_days: int | None = None
    tags: tuple[tuple[str, str], ...] | None = None
    tags_error: str | None = None

    def tag(self, key: str) -> str | None:
        """The tag's value, or None where it is absent or unread. KMS tag keys are case-sensitive."""
        return dict(self.tags or ()).get(key)

    @property
    def is_ours(self) -> bool:
        """Whether the key carries the tag by which its owner handed it to the guard."""
        return self.tag(GUARD_TAG_KEY) == GUARD_TAG_VALUE


def arn_part(arn: str, index: int) -> str:
    """The colon-separated part of an ARN: 1 partition, 2 service, 3 Region, 4 account; empty where there is none."""
    parts = arn.split(":", 5)
    return parts[index] if arn.startswith("arn:") and len(parts) == 6 else ""


def key_id_of(key: str) -> str:
    """The bare key id of a key ARN or key id."""
    return key.rsplit("/", 1)[-1] if key.startswith("arn:") else key


class Cause(Struct, frozen=True):
    """The change that made a drift: its time starts the exposure, its actor owns it."""

    event_id: str
    at: datetime
    actor: Actor


class Action(Struct, frozen=True):
    """One mutation that was sent. Both texts of a key policy stand in `before` and `after`."""

    name: str
    at: datetime
    key_arn: str | None = None
    before: str | None = None
    after: str | None = None
    request_id: str | None = None
    error: str | None = None


class Suppression(Struct, frozen=True):
    """A break-glass value in force or once in force; kept until its own end, so that seeing it again renews nothing.

    `carrier` is the key's ARN or the principal's; `value` is normalised. `until` is the sooner of `end` and the rule's
    cap after `first_seen`; `refused` holds the code of why it does not count. `closed` says that it no longer counts,
    and why. `drift` and `drift_at` are set where a principal carries the value: the setting it left behind, and when.
    """

    carrier: str
    value: str
    reason: str
    first_seen: datetime
    end: datetime | None
    until: datetime | None
    opened_by: Actor | None = None
    refused: str | None = None
    closed: str | None = None
    drift: Setting | None = None
    drift_at: datetime | None = None


class Problem(Struct, frozen=True):
    """Why something failed: a stable code, a sentence for people, and whether trying again can help."""

    code: str
    message: str
    retryable: bool = True


class Record(Struct, frozen=True):
    """One immutable line of the audit log. `prev_hash` is inside what is hashed; `hash` stands beside it."""

    record_id: str
    target: str
    seq: int
    at: datetime
    outcome: Outcome
    trigger: Trigger
    prev_hash: str
    incident_id: str | None = None
    attempt: int | None = None
    reason: str | None = None
    rule: str | None = None
    policy_digest: str | None = None
    violations: tuple[Violation, ...] = ()
    before: Setting | None = None
    after: Setting | None = None
    actions: tuple[Action, ...] = ()
    cause: Cause | None = None
    suppression: Suppression | None = None
    exposure_seconds: float | None = None
    error: Problem | None = None
    detail: dict[str, Any] = field(default_factory=dict)


class Lease(Struct, frozen=True):
    """The right to mutate a target, until `until` by AWS's clock. `number` grows with every taking."""

    owner: str
    number: int
    until: datetime

    def is_same(self, other: Lease) -> bool:
        """Whether both are one taking of the lease. The owner alone does not tell: Lambda repeats its request ids."""
        return (self.owner, self.number) == (other.owner, other.number)


class Phase(StrEnum):
    """Where an open incident stands."""

    OPEN = "open"  # known, and nobody acting: observed, suppressed, deferred or failed
    ACTING = "acting"  # a worker holds the lease
    APPLIED = "applied"  # the wanted key is set; waiting for ACTIVE


class Incident(Struct, frozen=True):
    """A drift, from its discovery to its end. `attempt` counts the REMEDIATING records, each closed exactly once.

    `cause` is the first change, from which the exposure counts; `latest` the last one heard of while it stands.
    `unended` says that the latest attempt has no end on the record yet, or only APPLIED; until `settles_until` a
    failure may be nothing but KMS being slow.
    """

    id: str
    opened_at: datetime
    before: Setting | None
    phase: Phase
    violations: tuple[Violation, ...] = ()
    attempt: int = 0
    lease: Lease | None = None
    due: datetime | None = None
    applied_at: datetime | None = None
    settles_until: datetime | None = None
    unended: bool = False
    cause: Cause | None = None
    latest: Cause | None = None
    mutated: bool = False


class PastIncident(Struct, frozen=True):
    """What is kept of a closed incident, so that its change event, when it comes late, can be joined to it."""

    id: str
    opened_at: datetime
    closed_at: datetime
    before: Setting | None
    cause: Cause | None = None


class Intent(Struct, frozen=True):
    """A key about to be made, by its nonce tag. Not finding the nonce proves nothing before `due`."""

    nonce: str
    due: datetime


class Backoff(Struct, frozen=True):
    """How often this target was fought over lately, and until when it is held back."""

    count: int = 0
    last_at: datetime | None = None
    until: datetime | None = None


class TargetState(Struct, frozen=True):
    """The present state of a target, the head of its chain, and what is due. `version` guards every write."""

    target: str
    version: int = 0
    seq: int = 0
    head: str = ZERO_HASH
    first_seen: datetime | None = None
    setting: Setting | None = None
    ever_used: bool = False
    outcome: Outcome | None = None
    reason: str | None = None
    violations: tuple[Violation, ...] = ()
    rule: str | None = None
    policy_digest: str | None = None
    checked_at: datetime | None = None
    good_at: datetime | None = None
    incident: Incident | None = None
    past: tuple[PastIncident, ...] = ()
    lease_number: int = 0
    managed_key: str | None = None
    keys_made: tuple[str, ...] = ()
    keys_retired: tuple[str, ...] = ()
    intent: Intent | None = None
    look: datetime | None = None
    backoff: Backoff = Backoff()
    suppressions: tuple[Suppression, ...] = ()
    watch: datetime | None = None

    @property
    def due(self) -> datetime | None:
        """When somebody must look again: the soonest of all that waits. What waits in a denied Region, waits for the
        sweep."""
        if self.reason == REGION_DENIED:
            return None
        waits = [
            self.look,
            self.watch,
            self.incident and self.incident.due,
            self.intent and self.intent.due,
        ]
        return min((wait for wait in waits if wait), default=None)

    def is_held(self, now: datetime) -> bool:
        """Whether a worker's lease keeps others from acting."""
        lease = self.incident.lease if self.incident else None
        return lease is not None and now < lease.until

    def differs_only_in_chain(self, other: TargetState) -> bool:
        """Whether nothing but records came between the two."""
        return self == replace(other, version=self.version, seq=self.seq, head=self.head)


class Pause(Struct, frozen=True):
    """The emergency brake: while it is set everything is judged and nothing is mutated."""

    at: datetime
    by: str
    reason: str


class GuardState(Struct, frozen=True):
    """The guard's own state beside the targets': its chain's head, the policy in force, the brake."""

    target: str = GUARD_CHAIN
    version: int = 0
    seq: int = 0
    head: str = ZERO_HASH
    policy_digest: str | None = None
    paused: Pause | None = None
    swept_at: datetime | None = None
    due: None = None
