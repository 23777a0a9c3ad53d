"""The interfaces through which the loop reaches AWS. The AWS adapters and the simulation's fakes implement them.

Each method is one AWS call (or one paginated listing). It raises `errors.AwsError` if AWS refuses the call or does not
answer. Mutations return AWS's request id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from msgspec import Struct

from chalicelib.domain.model import Key, Setting, Target
from chalicelib.domain.spans import Link, LogGroup
from chalicelib.domain.stored import GuardState, Record, Tally, TargetState

T = TypeVar("T")


class XRay(Protocol):
    """X-Ray's encryption setting in one target."""

    def get(self) -> Setting:
        """GetEncryptionConfig."""

    def put(self, key_arn: str) -> tuple[Setting, str | None]:
        """PutEncryptionConfig with type KMS. Returns the setting in the response, and the request id."""

    def in_use(self, now: datetime) -> bool:
        """GetServiceGraph: whether any service was seen in the six hours before `now`."""

    def spans_destination(self) -> tuple[str | None, str | None]:
        """GetTraceSegmentDestination: the destination of spans, and its status."""


class SpanLogs(Protocol):
    """The log group of the spans, in one target."""

    def group(self) -> LogGroup | None:
        """DescribeLogGroups of exactly `aws/spans`; None if it does not exist."""

    def associate(self, key_arn: str) -> str | None:
        """AssociateKmsKey with `aws/spans`. For new events only; it takes up to five minutes."""


class TraceLinks(Protocol):
    """The links of one target to other accounts."""

    def all(self) -> tuple[Link, ...]:
        """ListLinks, all pages."""


class Keys(Protocol):
    """KMS in one target. Keys are named by ARN; only `describe` takes an alias too."""

    def describe(self, key: str) -> Key | None:
        """DescribeKey; None if there is no such key or alias."""

    def policy(self, key_arn: str) -> str:
        """GetKeyPolicy: the text, unchanged."""

    def rotation(self, key_arn: str) -> tuple[bool, int | None]:
        """GetKeyRotationStatus: whether rotation is on, and the period in days if KMS returns it."""

    def tags(self, key_arn: str) -> tuple[tuple[str, str], ...]:
        """ListResourceTags, all pages."""

    def find_by_tag(self, tag_key: str, tag_value: str, made_after: datetime) -> str | None:
        """The ARN of a customer key with this tag, created after `made_after`. None proves nothing: KMS may lag."""

    def create(self, description: str, policy: str | None, tags: Sequence[tuple[str, str]]) -> tuple[Key, str | None]:
        """CreateKey, sent once and never retried by the client. Without a policy the key gets KMS's default policy."""

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
        """ListRoleTags or ListUserTags, depending on the ARN."""


class Loaded(Struct, frozen=True):
    """One consistent read: a target's state, the guard's own state, whether the event was audited before, the tally."""

    state: TargetState
    guard: GuardState
    audited: bool = False
    tally: Tally | None = None


class Store(Protocol):
    """The two tables."""

    def load(self, target: str, event_id: str | None = None, tally: Tally | None = None) -> Loaded:
        """Consistent read. A target never seen before has a state of version 0, a new tally is returned as it is."""

    def commit(
        self,
        before: TargetState | GuardState,
        after: TargetState | GuardState,
        records: Sequence[tuple[Record, bytes, str]] = (),
        event_id: str | None = None,
        tally: Tally | None = None,
        closes: Tally | None = None,
        used: Sequence[str] = (),
    ) -> None:
        """One transaction: the state (if the version is still `before`'s), the sealed records, the event's marker.

        Adds `tally` to the stored one. Takes `closes` off its stored one, whose next time begins then. Writes a key row
        for each key that `after` names and `before` does not. Raises Conflict if the state changed, the event was
        audited or the tally was closed meanwhile; KeyNotOnRecord if `before` names a key of `used` that has no key row;
        StateEdited if `before` claims an earlier release's format and is of a later one. Then nothing was written.
        """

    def count(self, event_id: str, tally: Tally) -> None:
        """One transaction: the event's marker, and `tally` added to the stored one. Raises Conflict like `commit`."""

    def over(self, now: datetime, limit: int) -> Sequence[Tally]:
        """The tallies whose time is over at `now`, oldest first."""

    def forget(self, tally: Tally) -> None:
        """Empty a tally, unless calls were added since it was read."""

    def due(self, now: datetime, limit: int) -> list[str]:
        """Targets that are due at `now`, soonest first. The index lags, so check the state itself."""

    def states(self) -> Iterable[TargetState]:
        """The present state of every target."""

    def heads(self) -> Iterable[tuple[str, int, str]]:
        """(chain, seq, hash) of every chain, the guard's own included."""


class Request(Struct, frozen=True):
    """An operator's request to check a target. `by` is the operator's ARN, `at` the time of the request, as stored."""

    target: str
    at: str
    by: str


class Requests(Protocol):
    """Operators' requests from the API, kept until they are done."""

    def pending(self, limit: int) -> Sequence[Request]:
        """The pending requests, oldest first."""

    def done(self, request: Request) -> None:
        """Remove the request. If the target was requested again meanwhile, that request stays pending."""


class Clock(Protocol):
    """AWS's time, never the host's."""

    def now(self) -> datetime:
        """Aware, UTC."""


class Gather(Protocol):
    """Issue several reads together and return their results in order; raise the first error."""

    def __call__(self, reads: Sequence[Callable[[], T]], /) -> list[T]: ...


class FanOut(Protocol):
    """Run jobs over several targets, a few at a time. They begin in their order; it returns when all have ended.

    A job raises nothing.
    """

    def __call__(self, jobs: Sequence[Callable[[], None]], /) -> object: ...


class Reach(Struct, frozen=True):
    """The AWS services of one target, with credentials that may act there."""

    target: Target
    xray: XRay
    keys: Keys
    principals: Principals
    logs: SpanLogs
    links: TraceLinks
