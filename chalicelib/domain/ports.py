"""What the loop asks of the world, as interfaces: AWS adapters keep them for real, the simulation's fakes in memory.

Each method is one AWS call (or one paginated listing); each raises `errors.AwsError` for what AWS refuses or leaves
unanswered. Mutations answer with AWS's request id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from msgspec import Struct

from chalicelib.domain.model import Key, Setting, Target
from chalicelib.domain.stored import GuardState, Record, TargetState

T = TypeVar("T")


class XRay(Protocol):
    """X-Ray's encryption setting in one target."""

    def get(self) -> Setting:
        """GetEncryptionConfig."""

    def put(self, key_arn: str) -> tuple[Setting, str | None]:
        """PutEncryptionConfig with type KMS. Answers X-Ray's answer and the request id."""

    def in_use(self, now: datetime) -> bool:
        """GetServiceGraph: whether any service was seen in the six hours before `now`."""


class Keys(Protocol):
    """KMS in one target. Keys are named by ARN; only `describe` takes an alias too."""

    def describe(self, key: str) -> Key | None:
        """DescribeKey; None where there is no such key or alias."""

    def policy(self, key_arn: str) -> str:
        """GetKeyPolicy: the text as it stands."""

    def rotation(self, key_arn: str) -> tuple[bool, int | None]:
        """GetKeyRotationStatus: on or off, and the period in days where KMS tells it."""

    def tags(self, key_arn: str) -> tuple[tuple[str, str], ...]:
        """ListResourceTags, all pages."""

    def find_by_tag(self, tag_key: str, tag_value: str, made_after: datetime) -> str | None:
        """The ARN of a customer key with this tag that was made after then. Absence proves nothing: KMS lags."""

    def create(self, description: str, policy: str | None, tags: Sequence[tuple[str, str]]) -> tuple[Key, str | None]:
        """CreateKey, sent once and never repeated by the client; without a policy the key gets KMS's default one."""

    def put_policy(self, key_arn: str, policy: str) -> str | None:
        """PutKeyPolicy."""

    def enable(self, key_arn: str) -> str | None:
        """EnableKey."""

    def cancel_deletion(self, key_arn: str) -> str | None:
        """CancelKeyDeletion; leaves the key Disabled."""

    def enable_rotation(self, key_arn: str, days: int) -> str | None:
        """EnableKeyRotation with a period of `days` days."""

    def create_alias(self, alias: str, key_arn: str) -> str | None:
        """CreateAlias."""

    def update_alias(self, alias: str, key_arn: str) -> str | None:
        """UpdateAlias."""


class Principals(Protocol):
    """IAM's tags of roles and users, in one account."""

    def tags(self, principal_arn: str) -> tuple[tuple[str, str], ...]:
        """ListRoleTags or ListUserTags, as the ARN asks."""


class Loaded(Struct, frozen=True):
    """One consistent read: a target's state, the guard's own, and whether the event was audited before."""

    state: TargetState
    guard: GuardState
    audited: bool = False


class Store(Protocol):
    """The two tables."""

    def load(self, target: str, event_id: str | None = None) -> Loaded:
        """Consistent; a target never seen has a state of version 0."""

    def commit(
        self,
        before: TargetState | GuardState,
        after: TargetState | GuardState,
        records: Sequence[tuple[Record, bytes, str]] = (),
        event_id: str | None = None,
    ) -> None:
        """One transaction: the state (if still `before.version`), the sealed records, the event's marker.

        Raises Conflict where the state moved or the event was audited meanwhile; then nothing was written.
        """

    def due(self, now: datetime, limit: int) -> list[str]:
        """Targets with something due at `now`, soonest first; the index lags, so look at the state itself."""

    def states(self) -> Iterable[TargetState]:
        """The present state of every target."""

    def heads(self) -> Iterable[tuple[str, int, str]]:
        """(chain, seq, hash) of every chain, the guard's own included."""


class Request(Struct, frozen=True):
    """An operator's word that a target be looked at; `by` is the ARN of who asked, `at` when, as it is stored."""

    target: str
    at: str
    by: str


class Requests(Protocol):
    """What operators asked for over the API, kept until it is done."""

    def pending(self, limit: int) -> Sequence[Request]:
        """What waits, oldest first."""

    def done(self, request: Request) -> None:
        """It is done; what was asked for again meanwhile still waits."""


class Clock(Protocol):
    """AWS's time, never the host's."""

    def now(self) -> datetime:
        """Aware, UTC."""


class Gather(Protocol):
    """Issue several reads together and give their answers in order; the first error is raised."""

    def __call__(self, reads: Sequence[Callable[[], T]]) -> list[T]: ...


class Reach(Struct, frozen=True):
    """The AWS services of one target, with credentials that may act there."""

    target: Target
    xray: XRay
    keys: Keys
    principals: Principals
