"""What a page's address asks for: filters, and what is wrong with them, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from click import BadParameter

from chalicelib.auditlog.filters import Filter
from chalicelib.cli.options import moment
from chalicelib.domain.model import Target, is_region
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GUARD_CHAIN

FIELDS = ("target", "account", "region", "outcome", "actor", "rule", "since", "until")
LONGEST_VALUE = 2048
SPANS = (("24h", "24 hours"), ("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days"))
"""How far back the quick choices reach: what the address says, what people read."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A filter as it was written (`written`, only what is not empty), as it is meant, and its faults by field."""

    written: Mapping[str, str]
    wanted: Filter
    cursor: str | None = None
    faults: Mapping[str, str] = field(default_factory=dict)

    @property
    def narrows(self) -> bool:
        """Whether anything was asked for."""
        return bool(self.written)


def read(arguments: Mapping[str, str], now: datetime) -> Asked:
    """The filter in an address's arguments; unknown ones are passed over, as a browser may add its own."""
    written = {name: arguments[name].strip()[:LONGEST_VALUE] for name in FIELDS if arguments.get(name, "").strip()}
    faults: dict[str, str] = {}

    def bad(name: str, what: str) -> None:
        faults[name] = what

    target = written.get("target")
    if target and target != GUARD_CHAIN:
        try:
            Target.parse(target)
        except ValueError:
            bad("target", "Write it as 111122223333/us-east-1, or guard.")
    account = written.get("account")
    if account and not (len(account) == 12 and account.isascii() and account.isdigit()):
        bad("account", "An account has twelve digits.")
    region = written.get("region")
    if region and not is_region(region):
        bad("region", "Write a Region as us-east-1.")
    outcome = written.get("outcome")
    if outcome and outcome not in set(Outcome):
        bad("outcome", "There is no such outcome.")
    moments: dict[str, datetime | None] = {}
    for name in ("since", "until"):
        moments[name] = _moment(written[name], now) if name in written else None
        if name in written and moments[name] is None:
            bad(name, "Write a time as 2026-11-20T18:00 (UTC), or 24h for that long ago.")
    since, until = moments["since"], moments["until"]
    if since and until and since >= until:
        bad("until", "This is not after the beginning.")
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
    return Asked(written, Filter() if faults else wanted, cursor, faults)


def _moment(text: str, now: datetime) -> datetime | None:
    """As the command line reads it."""
    try:
        return moment(text, now, "")
    except BadParameter:
        return None
