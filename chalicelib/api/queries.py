"""The query parameters of each operation: one Struct for each set of parameters, with the constraints and descriptions.

msgspec decodes and validates requests with these types, and `openapi` derives the document's parameters from them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from chalicelib.api.moments import Moment
from chalicelib.auditlog.cursors import LONGEST_CURSOR
from chalicelib.auditlog.filters import Filter
from chalicelib.domain.reasons import Outcome

ACCOUNT = r"[0-9]{12}"
REGION = r"[a-z0-9]+(-[a-z0-9]+){1,3}-[0-9]+"
LONGEST_REGION = 32
MOST_LIMIT = 200

# Patterns end with \Z, because Python's $ also matches before a final newline.
Account = Annotated[str, Meta(pattern=rf"\A{ACCOUNT}\Z", description="an account id of twelve digits")]
Region = Annotated[
    str,
    Meta(pattern=rf"\A{REGION}\Z", max_length=LONGEST_REGION, description="the name of a Region, such as us-east-1"),
]
TargetName = Annotated[
    str,
    Meta(
        pattern=rf"\A(guard|{ACCOUNT}/{REGION})\Z",
        max_length=13 + LONGEST_REGION,
        description="a target such as 111122223333/us-east-1, or `guard` for the guard's own chain",
    ),
]
IncidentId = Annotated[
    str,
    Meta(
        pattern=rf"\A{ACCOUNT}\.{REGION}\.[1-9][0-9]{{0,11}}\Z",
        max_length=64,
        description="the incident's id with dots in place of `/` and `#`: 111122223333.us-east-1.7",
    ),
]
Outcomes = Annotated[
    tuple[Outcome, ...],
    Meta(min_length=1, max_length=len(Outcome), description="one of these outcomes; may be repeated"),
]
ActorPattern = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        description="part of the actor's ARN, session or service, or a glob for the whole with * and ?",
    ),
]
RuleId = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,64}\Z", max_length=64, description="the id of a rule")]
Since = Annotated[
    Moment,
    Meta(description="a time, a date (UTC), or an age such as 90s, 30m, 24h, 7d, 2w; selects items at or after it"),
]
Until = Annotated[Moment, Meta(description="a time, a date (UTC), or an age, as in `since`; selects items before it")]
Limit = Annotated[
    int,
    Meta(
        ge=1,
        le=MOST_LIMIT,
        description="maximum number of items; a page reads a bounded part of the log, so it may have fewer and still a "
        "`next_token`",
    ),
]
NextToken = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9_-]+\Z",
        min_length=1,
        max_length=LONGEST_CURSOR,
        description="the `next_token` of the previous page, with the same filters",
        extra_json_schema={"format": "next-token"},
    ),
]


class NoQuery(Struct, frozen=True):
    """An operation without query parameters."""


class LogQuery(Struct, frozen=True, kw_only=True):
    """A page of incidents or records."""

    target: TargetName | None = None
    account: Account | None = None
    region: Region | None = None
    outcome: Outcomes = ()
    actor: ActorPattern | None = None
    rule: RuleId | None = None
    since: Since | None = None
    until: Until | None = None
    limit: Limit = 50
    next_token: NextToken | None = None

    def filter(self, now: datetime) -> Filter:
        """The filter for the query layer; ages count from `now`."""
        return Filter(
            target=self.target,
            account=self.account,
            region=self.region,
            outcomes=self.outcome,
            actor=self.actor,
            rule=self.rule,
            since=self.since.at(now) if self.since else None,
            until=self.until.at(now) if self.until else None,
        )


class TargetsQuery(Struct, frozen=True, kw_only=True):
    """A page of targets."""

    account: Account | None = None
    region: Region | None = None
    outcome: Outcomes = ()
    rule: RuleId | None = None
    limit: Limit = 50
    next_token: NextToken | None = None

    def filter(self) -> Filter:
        """The filter for the query layer."""
        return Filter(account=self.account, region=self.region, outcomes=self.outcome, rule=self.rule)


class SummaryQuery(Struct, frozen=True, kw_only=True):
    """The days of a summary."""

    since: Since | None = None
    until: Until | None = None


class PathParameters(Struct, frozen=True, kw_only=True):
    """The parameters in the paths of the operations. Only described here: a value that does not match is not found."""

    id: IncidentId
    account: Account
    region: Region
