"""Where spans are stored, and which accounts receive copies of traces, as values.

X-Ray's encryption setting covers neither: with Transaction Search, X-Ray sends all spans to a log group of CloudWatch
Logs, and a link of CloudWatch's observability access manager copies traces to another account.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-Transaction-Search.html
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain.reasons import Problem

SPANS_GROUP = "aws/spans"
"""The log group in which CloudWatch Logs stores all spans. Only X-Ray can create it."""

WITH_TRACES, IN_LOGS = "XRay", "CloudWatchLogs"
"""X-Ray's `Destination` of spans: X-Ray itself, under its encryption setting, or CloudWatch Logs."""

TRACES = "AWS::XRay::Trace"
"""The resource type of a link that copies traces."""


class LogGroup(Struct, frozen=True):
    """The log group of the spans. `key_arn` is None without a KMS key, `retention_days` if events never expire."""

    key_arn: str | None = None
    retention_days: int | None = None


class Spans(Struct, frozen=True):
    """Where a target's spans are stored.

    `destination` and `status` are X-Ray's: None if X-Ray offers no destination here, or if `problem` says why it is not
    known. `group` is None if spans are stored with the traces, or none are stored yet.
    """

    destination: str | None = None
    status: str | None = None
    group: LogGroup | None = None
    problem: Problem | None = None

    @property
    def are_in_logs(self) -> bool:
        """Whether X-Ray sends spans to CloudWatch Logs."""
        return self.destination == IN_LOGS

    @property
    def are_with_traces(self) -> bool:
        """Whether X-Ray's encryption setting covers the spans, for certain."""
        return self.problem is None and not self.are_in_logs

    @property
    def will_be_known(self) -> bool:
        """Whether another reading is likely to say more: this one failed for a reason that passes, or X-Ray changes."""
        return self.status == "PENDING" if self.problem is None else self.problem.retryable

    def same_place(self, other: Spans | None) -> bool:
        """Whether both are stored in the same place under the same key, as far as known. None: with the traces."""
        return self._place == (other or Spans())._place

    @property
    def _place(self) -> tuple[bool, LogGroup | None, str | None]:
        return self.are_in_logs, self.group, self.problem.code if self.problem else None

    def __str__(self) -> str:
        if self.problem is not None:
            return f"not known where spans are stored: {self.problem.message}"
        if not self.are_in_logs:
            return "with the traces"
        if self.group is None:
            return f"in CloudWatch Logs; none are stored yet, because the log group {SPANS_GROUP} does not exist"
        days = self.group.retention_days
        kept = f"kept for {days} days" if days else "kept for ever"
        under = f"under {self.group.key_arn}" if self.group.key_arn else "without a KMS key"
        return f"in CloudWatch Logs, log group {SPANS_GROUP}, {under}, {kept}"


class Link(Struct, frozen=True):
    """A link to another account. `types` are the resource types that it shares."""

    arn: str
    account: str
    types: tuple[str, ...] = ()


class Links(Struct, frozen=True):
    """The links that copy traces, as they were at `at`. `problem`: why they could not be read."""

    at: datetime
    found: tuple[Link, ...] = ()
    problem: Problem | None = None

    def after(self, known: Links | None) -> Links:
        """Return what is known after this reading: if it failed, the links and the time of the one before."""
        return replace(known, problem=self.problem) if self.problem is not None and known is not None else self

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts that receive copies."""
        return tuple(dict.fromkeys(link.account for link in self.found))


def of_traces(links: Iterable[Link]) -> tuple[Link, ...]:
    """Return the links that copy traces."""
    return tuple(link for link in links if TRACES in link.types)
