"""The verb `history`: list and stream the records."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from chalicelib.cli.options import common_options, filter_of, moment, pass_operator
from chalicelib.cli.remarks import say_newer, say_reasons, say_unreadable, say_waiting
from chalicelib.domain.model import TriggerKind
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import GUARD_CHAIN
from chalicelib.operators.context import Operator
from chalicelib.operators.output import Table, emit, emit_lines, print_table, say

if TYPE_CHECKING:
    from chalicelib.auditlog.filters import Filter
    from chalicelib.auditlog.views import Entry
    from chalicelib.domain.stored import Record

POLL_SECONDS = 3.0
OUTCOMES = tuple(outcome.value for outcome in Outcome)
UNFINISHED = (Outcome.REMEDIATING, Outcome.APPLIED, Outcome.FAILED, Outcome.DEFERRED, Outcome.SUPPRESSED)
HISTORY_COLUMNS = ("time", "target", "outcome", "reason", "actor", "change", "exposure")


@click.command("history", epilog="Example: xray-guard history --since 24h --outcome REMEDIATED")
@click.option("--since", metavar="TIME", help="At or after this time: 90s, 30m, 24h, 7d, or 2026-11-20T18:00:00Z")
@click.option("--until", metavar="TIME", help="Before this time")
@click.option("--target", metavar="TARGET", help="Only this target, or `guard` for the guard's own chain")
@click.option("--account", metavar="ID", help="Only this account")
@click.option("--target-region", metavar="REGION", help="Only this Region")
@click.option(
    "--outcome", "outcomes", multiple=True, type=click.Choice(OUTCOMES, case_sensitive=False), help="May be repeated"
)
@click.option("--actor", metavar="TEXT", help="Part of the actor's ARN or session, or a glob for the whole")
@click.option("--rule", metavar="ID", help="Only this rule")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="Records per page")
@click.option("--next-token", metavar="TOKEN", help="Continue after the page that returned this token")
@click.option("--follow", is_flag=True, help="Stream new records until Ctrl-C")
@common_options
@pass_operator
def history_verb(
    operator: Operator,
    since: str | None,
    until: str | None,
    target: str | None,
    account: str | None,
    target_region: str | None,
    outcomes: tuple[str, ...],
    actor: str | None,
    rule: str | None,
    limit: int,
    next_token: str | None,
    follow: bool,
) -> int:
    """List records of the audit log, newest first.

    A page reads a bounded part of the log. If there is more, the last line on stderr (or `next_token` in JSON) has the
    token for the next page. Times without a zone are UTC.
    """
    from chalicelib.auditlog import history

    if follow and (until or next_token):
        raise click.UsageError("--follow cannot be used with --until or --next-token.")
    now = operator.now()
    wanted = filter_of(
        target,
        account,
        target_region,
        tuple(Outcome(outcome.upper()) for outcome in outcomes),
        actor,
        rule,
        moment(since, now, "--since") if since else None,
        moment(until, now, "--until") if until else None,
    )
    operator.find_tables()
    if follow:
        return _follow(operator, wanted, limit)
    page = history.records(operator.store, wanted, operator.now(), limit, next_token)
    emit(operator.output, page.to_json(), "records", lambda: _print_records(page.entries, wanted))
    _say_waiting(operator, page.entries)
    say_unreadable(page.unreadable)
    say_newer(page.entries)
    if page.cursor and operator.output != "json":
        say(f"More records: add --next-token {page.cursor}")
    return 0


def _say_waiting(operator: Operator, entries: tuple[Entry, ...]) -> None:
    """Say what the guard waits for now in the targets of the listed records."""
    from chalicelib.auditlog import history
    from chalicelib.auditlog.waits import waiting

    unfinished = {entry.record.target for entry in entries if entry.record.outcome in UNFINISHED}
    for target in sorted(unfinished - {GUARD_CHAIN}):
        if loaded := history.present(operator.store, target):
            say_waiting(target, waiting(loaded.state, loaded.guard, operator.now()))


def _row(entry: Entry, wanted: Filter) -> list[str]:
    """With a filter by actor, the last cell says which part the actor has in the record."""
    from chalicelib.operators.formatting import NOTHING, part_text, span_text, time_text

    record = entry.record
    why = " ".join(record.violations) or record.reason or NOTHING
    if record.reason and record.violations and record.outcome.value in ("FAILED", "DEFERRED"):
        why = f"{record.reason} ({why})"
    parts = "; ".join(part_text(each) for each in entry.people if wanted.is_actor(each.actor))
    return [
        time_text(record.at),
        record.target,
        record.outcome.value,
        why,
        _actor(entry),
        _change(record),
        span_text(record.exposure_seconds),
        *([parts] if wanted.actor else ()),
    ]


def _change(record: Record) -> str:
    """The settings before and after, else what a note says that has no incident to be shown with."""
    from chalicelib.operators.formatting import NOTHING, change_text, clean

    if record.before or record.after:
        return change_text(record.before, record.after, record.target)
    if record.reason in (Reason.CALLS_COUNTED, Reason.ADDENDUM):
        return clean(str(record.detail.get("message", NOTHING)))
    return NOTHING


def _actor(entry: Entry) -> str:
    from chalicelib.operators.formatting import actor_text

    name = actor_text(entry.actor, entry.record.target)
    by_hand = entry.record.trigger.kind is TriggerKind.OPERATOR and entry.record.cause is None
    return f"{name} (operator)" if by_hand else name


def _print_records(entries: tuple[Entry, ...], wanted: Filter) -> None:
    columns = (*HISTORY_COLUMNS, "part") if wanted.actor else HISTORY_COLUMNS
    print_table(Table(columns, [_row(entry, wanted) for entry in entries], "No records match."))
    say_reasons((entry.record.outcome, entry.record.reason) for entry in entries)


def _follow(operator: Operator, wanted: Filter, limit: int) -> int:
    """Print the existing records, oldest first, and then each new one."""
    from dataclasses import replace

    from chalicelib.auditlog import history

    follower = history.Follower()
    first = history.records(operator.store, wanted, operator.now(), limit)
    _print_new(operator, follower.fresh(first.entries, operator.now()), wanted)
    # Mark older records that the limit left out as seen, so that they are not printed as new.
    now = operator.now()
    follower.fresh(_all_since(operator, replace(wanted, since=follower.since(now)), now), now)
    try:
        while True:
            operator.sleep(POLL_SECONDS)
            now = operator.now()
            seen = _all_since(operator, replace(wanted, since=follower.since(now)), now)
            _print_new(operator, follower.fresh(seen, now), wanted)
    except KeyboardInterrupt:
        return 0


def _all_since(operator: Operator, wanted: Filter, now: datetime) -> list[Entry]:
    from chalicelib.auditlog import history

    found: list[Entry] = []
    cursor = None
    while True:
        page = history.records(operator.store, wanted, now, history.LARGEST_PAGE, cursor)
        found += page.entries
        cursor = page.cursor
        if cursor is None:
            return found


def _print_new(operator: Operator, entries: list[Entry], wanted: Filter) -> None:
    if operator.output == "table":
        from chalicelib.operators.formatting import clean

        for entry in entries:
            click.echo("  ".join(clean(cell) for cell in _row(entry, wanted)))
    else:
        emit_lines(entry.to_json() for entry in entries)
