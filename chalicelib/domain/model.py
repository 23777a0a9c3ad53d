"""AWS's settings, keys, principals and events as values, as the guard read them.

All values are frozen and independent of boto3 and of any clock. Times are aware UTC datetimes. These types are msgspec
Structs because a dataclass costs forty times as much to define, at every cold start (ADR 0006);
`msgspec.structs.replace` returns a changed copy.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Self

from msgspec import Struct

GUARD_TAG_KEY = "xray-guard"
GUARD_TAG_VALUE = "managed"
NONCE_TAG_KEY = "xray-guard-nonce"


class TriggerKind(StrEnum):
    """Why a run began. `label` says it to people."""

    label: str

    CHANGE = "change", "change event (X-Ray setting)"
    KEY = "key", "change event (KMS key)"
    SWEEP = "sweep", "sweep (every hour)"
    TICK = "tick", "scheduled check (every minute)"
    OPERATOR = "operator", "operator"
    HISTORY = "history", "Event history (every hour)"

    def __new__(cls, value: str, label: str) -> Self:
        """Make a member that is its value, with a label."""
        member = str.__new__(cls, value)
        member._value_, member.label = value, label
        return member


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
    """Whether the text has the form of a Region's name. It is not looked up: no list of Regions is complete."""
    parts = text.split("-")
    return (
        3 <= len(parts) <= 5
        and len(text) <= 32
        and all(part.isascii() and part.isalnum() and part == part.lower() for part in parts)
        and parts[-1].isdigit()
    )


class Setting(Struct, frozen=True):
    """X-Ray's encryption setting, as X-Ray returned it. `key_arn` is None for NONE, which normally has no key."""

    type: EncryptionType
    key_arn: str | None = None
    status: EncryptionStatus | None = None

    def __str__(self) -> str:
        return f"{self.type.value} {self.key_arn}" if self.key_arn else self.type.value

    def same_choice(self, other: Setting | None) -> bool:
        """Whether both have the same type and key, regardless of the status."""
        return other is not None and self.type == other.type and self.key_arn == other.key_arn


class Actor(Struct, frozen=True):
    """Who did something, according to CloudTrail.

    `arn` is the ARN of the user, root, federated user or role (the role's IAM ARN, with its path if the record has it),
    else the service's name, else `unknown`. `session` is the role session's name, `via` the AWS service that called on
    the actor's behalf, `issued_by` the principal that issued a federated user's credentials, `delegate` the account of
    the product provider that used permissions the actor delegated to it.
    """

    arn: str
    type: str | None = None
    session: str | None = None
    via: str | None = None
    issued_by: str | None = None
    delegate: str | None = None

    def __str__(self) -> str:
        extras = [
            text
            for text in (
                self.session and f"session {self.session}",
                self.via and f"via {self.via}",
                self.issued_by and f"issued by {self.issued_by}",
                self.delegate and f"through delegate account {self.delegate}",
            )
            if text
        ]
        return ", ".join([self.arn, *extras])


class Trigger(Struct, frozen=True):
    """Why a run began. Only events set more than `kind`; an operator's request also sets `actor`."""

    kind: TriggerKind
    event_id: str | None = None
    event_name: str | None = None
    event_time: datetime | None = None
    request_id: str | None = None
    actor: Actor | None = None
    source_ip: str | None = None
    user_agent: str | None = None


class Subject(StrEnum):
    """What an event changed."""

    SETTING = "setting"
    KEY_STATE = "key-state"
    KEY_POLICY = "key-policy"
    KEY_ROTATION = "key-rotation"
    TAGS = "tags"
    ALIAS = "alias"
    GRANTS = "grants"
    SPANS = "spans"
    LINKS = "links"


class Effect(Struct, frozen=True):
    """What an event says that it changed. `resource` is a key ARN or an alias, None for the setting.

    Of spans, `resource` is the log group for its key, None for their destination; of links, the link's ARN.
    `after` is the new value as text, as far as the event has it: events carry no former value.
    """

    subject: Subject
    resource: str | None = None
    after: str | None = None


class ChangeEvent(Struct, frozen=True):
    """A PutEncryptionConfig call that CloudTrail reported.

    `result` is the setting that the call returned, None if the record does not have it; its `key_arn` is a bare key id
    or an alias if the record has no ARN. `error_code` is set for a failed call. `addendum_id` is set if CloudTrail sent
    the event again to complete it: it is the id of that addendum, and the trigger's `event_id` that of the original.
    """

    target: Target
    trigger: Trigger
    result: Setting | None = None
    error_code: str | None = None
    error_message: str | None = None
    addendum_id: str | None = None

    @property
    def effect(self) -> Effect | None:
        """What the call changed; None for a refused call, or where the event does not say."""
        return Effect(Subject.SETTING, after=str(self.result)) if self.result and not self.error_code else None


class KeyEvent(Struct, frozen=True):
    """A change to KMS keys, their grants, aliases or tags, to spans or to links, that CloudTrail or KMS reported.

    `tag_keys` and `tags` are those that the call set or removed (`tags` empty for a removal). `effect` is None where
    the event does not say what it changed. `addendum_id` is as in a ChangeEvent.
    """

    target: Target
    trigger: Trigger
    key_arns: tuple[str, ...] = ()
    alias: str | None = None
    tag_keys: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    error_code: str | None = None
    effect: Effect | None = None
    addendum_id: str | None = None

    @property
    def is_about_grants(self) -> bool:
        """Whether the event changed only who may use the key, which no violation is about."""
        return self.effect is not None and self.effect.subject is Subject.GRANTS


class Rejected(Struct, frozen=True):
    """An event that cannot be acted on: it names no target, or contradicts itself.

    `reason` is a stable code. `detail` says what is wrong and where, without repeating the event. `event_id` is the
    event's own id, or one made from its digest, so that the same bad event is recorded only once.
    """

    reason: str
    detail: str
    event_id: str


class Key(Struct, frozen=True):
    """A key as KMS returned it. None means that a field was not read; `tags_error` says why `tags` is unreadable."""

    arn: str
    account: str
    region: str
    state: str
    spec: str = "SYMMETRIC_DEFAULT"
    usage: str = "ENCRYPT_DECRYPT"
    manager: str = "CUSTOMER"
    origin: str = "AWS_KMS"
    is_replica: bool = False
    description: str = ""
    made_at: datetime | None = None
    policy: str | None = None
    rotation: bool | None = None
    rotation_days: int | None = None
    tags: tuple[tuple[str, str], ...] | None = None
    tags_error: str | None = None

    def tag(self, key: str) -> str | None:
        """Return the tag's value, or None if it is absent or unread. KMS tag keys are case-sensitive."""
        return dict(self.tags or ()).get(key)

    @property
    def is_ours(self) -> bool:
        """Whether the key has the tag by which its owner gives it to the guard."""
        return self.tag(GUARD_TAG_KEY) == GUARD_TAG_VALUE


def arn_part(arn: str, index: int) -> str:
    """Return a part of an ARN: 1 partition, 2 service, 3 Region, 4 account, 5 resource. Empty if there is none."""
    parts = arn.split(":", 5)
    return parts[index] if arn.startswith("arn:") and len(parts) == 6 else ""


def key_id_of(key: str) -> str:
    """Return the bare key id of a key ARN or key id."""
    return key.rsplit("/", 1)[-1] if key.startswith("arn:") else key
