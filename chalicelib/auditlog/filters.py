"""A filter over records and incidents: target, time, outcome, actor, rule and violation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from chalicelib.auditlog.parts import people_of
from chalicelib.domain.model import Actor
from chalicelib.domain.policy import glob_matches
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.stored import Record


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter; None matches anything.

    `target` may be `guard`. `actor` is part of the actor's ARN, session or service, ignoring case, or a glob for the
    whole. `since` <= at < `until`, both aware; for incidents, `at` is the time when they were opened. Any one of
    `violations` is enough.
    """

    target: str | None = None
    account: str | None = None
    region: str | None = None
    outcomes: tuple[Outcome, ...] = ()
    actor: str | None = None
    rule: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    violations: tuple[Violation, ...] = ()

    @property
    def chain(self) -> str | None:
        """The chain that all matching records are in, if there is only one."""
        if self.target is not None:
            return self.target
        return f"{self.account}/{self.region}" if self.account and self.region else None

    def matches(self, record: Record) -> bool:
        """Whether the record matches."""
        return (
            self.matches_target(record.target)
            and (not self.outcomes or record.outcome in self.outcomes)
            and (self.rule is None or record.rule == self.rule)
            and (not self.violations or not set(self.violations).isdisjoint(record.violations))
            and (self.since is None or record.at >= self.since)
            and (self.until is None or record.at < self.until)
            and self.matches_actor(record)
        )

    def matches_actor(self, record: Record) -> bool:
        """Whether anybody who has a part in the record matches."""
        return self.actor is None or any(self.is_actor(person.actor) for person in people_of(record))

    def is_actor(self, actor: Actor) -> bool:
        """Whether this is an actor that the filter asks for; False if it asks for none."""
        return self.actor is not None and _is_actor(self.actor, actor)

    def matches_target(self, target: str) -> bool:
        """Whether the target, or the chain `guard`, matches."""
        account, _, region = target.partition("/")
        return (
            (self.target is None or target == self.target)
            and (self.account is None or account == self.account)
            and (self.region is None or region == self.region)
        )


def _is_actor(wanted: str, actor: Actor) -> bool:
    texts = [text for text in (actor.arn, actor.session, actor.via, actor.issued_by, actor.delegate) if text]
    if "*" in wanted or "?" in wanted:
        return any(glob_matches(wanted, text) for text in texts)
    return any(wanted.casefold() in text.casefold() for text in texts)
