"""Parse the filters in the address of a page, with an error message for each field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from chalicelib.auditlog.filters import Filter
from chalicelib.domain.model import Target, is_region
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GUARD_CHAIN
from chalicelib.operators.times import parse_time

FIELDS = ("target", "account", "region", "outcome", "actor", "rule", "since", "until")
LONGEST_VALUE = 2048
SPANS = (("24h", "24 hours"), ("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days"))
"""The quick choices of a time range: the value in the address, and the label."""


@dataclass(frozen=True, slots=True)
class Query:
    """A filter: its nonempty fields as written, the parsed filter, and the error messages by field."""

    written: Mapping[str, str]
    wanted: Filter
    cursor: str | None = None
    faults: Mapping[str, str] = field(default_factory=dict)

    @property
    def narrows(self) -> bool:
        """Whether any field is set."""
        return bool(self.written)

    @property
    def as_options(self) -> dict[str, str]:
        """The fields as options of the command line, with the token of the page."""
        return {**self.written, **({"next-token": self.cursor} if self.cursor else {})}


def read(arguments: Mapping[str, str], now: datetime) -> Query:
    """Parse the filter in an address's arguments. Unknown arguments are ignored: a browser may add its own."""
    written = {name: arguments[name].strip()[:LONGEST_VALUE] for name in FIELDS if arguments.get(name, "").strip()}
    faults: dict[str, str] = {}

    target = written.get("target")
    if target and target != GUARD_CHAIN:
        try:
            Target.parse(target)
        except ValueError:
            faults["target"] = "Write the target as 111122223333/us-east-1, or guard."
    account = written.get("account")
    if account and not (len(account) == 12 and account.isascii() and account.isdigit()):
        faults["account"] = "Write the account id as twelve digits."
    region = written.get("region")
    if region and not is_region(region):
        faults["region"] = "Write the Region's name, such as us-east-1."
    outcome = written.get("outcome")
    if outcome and outcome not in set(Outcome):
        faults["outcome"] = "Unknown outcome. Choose one from the list."
    moments: dict[str, datetime | None] = {}
    for name in ("since", "until"):
        moments[name] = _moment(written[name], now) if name in written else None
        if name in written and moments[name] is None:
            faults[name] = "Write a time such as 2026-11-20T18:00 (UTC), or an age such as 24h."
    since, until = moments["since"], moments["until"]
    if since and until and since >= until:
        faults["until"] = "The end must be later than the start."
    wanted = Filter(
        target=target,
        account=account,
        region=region,
        outcomes=(Outcome(outcome),) if outcome and "outcome" not in faults else (),
        actor=written.get("actor"),
        rule=written.get("rule"),
        since=since,
        until=until,
    )
    cursor = arguments.get("next_token") or None
    return Query(written, Filter() if faults else wanted, cursor, faults)


def _moment(text: str, now: datetime) -> datetime | None:
    """Parse a time as the command line does."""
    try:
        return parse_time(text, now)
    except ValueError:
        return None
