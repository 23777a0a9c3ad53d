"""The verb `history`: list and stream the records."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from chalicelib.cli.options import common_options, filter_of, filter_options, pass_operator
from chalicelib.cli.remarks import say_newer, say_reasons, say_unreadable, say_waiting
from chalicelib.domain.model import TriggerKind
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import GUARD_CHAIN
from chalicelib.operators.context import Operator
from chalicelib.operators.layout import Column, LeaveOut, Shorten, Stream, Table, without_account, without_year
from chalicelib.operators.output import emit, emit_stream, print_rows, print_table, say, width_of

if TYPE_CHECKING:
    from chalicelib.auditlog.filters import Filter
    from chalicelib.auditlog.views import Entry
    from chalicelib.domain.stored import Record

POLL_SECONDS = 3.0
UNFINISHED = (Outcome.REMEDIATING, Outcome.APPLIED, Outcome.FAILED, Outcome.DEFERRED, Outcome.SUPPRESSED)
COLUMNS = (
    Column("time", short=without_year, sample="2026-11-20T18:00:00Z"),
    Column("target", short=without_account, sample="111122223333/us-east-1"),
    Column("outcome", sample="REMEDIATING"),
    Column("reason", wraps=True, sample="GRANTS_CHANGED"),
    Column("actor", wraps=True, sample="role/PlatformAdmin (jdoe)"),
    Column("change", wraps=True, sample="NONE → key 1234abcd-12ab-34cd-56ef-1234567890ab"),
    Column("exposure", sample="59m59s"),
    Column("incident", short=without_account, sample="111122223333/us-east-1#7"),
)
PART = Column("part", wraps=True)
"""Which part the actor of the filter has in the record."""

CONCESSIONS = (
    *(Shorten("incident"), Shorten("target"), LeaveOut("change"), Shorten("time")),
    *(LeaveOut("target", into="incident"), LeaveOut("exposure"), LeaveOut("part"), LeaveOut("reason")),
)


@click.command("history", epilog="Example: xray-guard history --since 24h --outcome FAILED,DEFERRED")
@filter_options
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="Records per page")
@click.option("--next-token", metavar="TOKEN", help="Continue after the page that returned this token")
@click.option("--follow", is_flag=True, help="Stream new records until Ctrl-C")
@common_options
@pass_operator
def history_verb(operator: Operator, /, limit: int, next_token: str | None, follow: bool, **filters: Any) -> int:
    """List records of the audit log, newest first.

    A page reads a bounded part of the log. If there is more, the last line on stderr (or `next_token` in JSON) has the
    token for the next page. Times without a zone are UTC.
    """
    from chalicelib.auditlog import history

    if follow and (filters["until"] or next_token):
        raise click.UsageError("--follow cannot be used with --until or --next-token.")
    wanted = filter_of(operator.now(), **filters)
    operator.find_tables()
    if follow:
        return _follow(operator, wanted, limit)
    page = history.records(operator.store, wanted, operator.now(), limit, next_token)
    emit(operator.output, page.to_json(), "records", lambda: _print_records(operator.output, page.entries, wanted))
    _say_waiting(operator, page.entries)
    say_unreadable(page.unreadable)
    say_newer(page.entries)
    if page.cursor and operator.output not in ("json", "yaml"):
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
        record.incident_id or NOTHING,
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


def _table(wanted: Filter, rows: Sequence[Sequence[str]] = ()) -> Table:
    concessions = [each for each in CONCESSIONS if wanted.actor or each.column != PART.name]
    return Table((*COLUMNS, PART) if wanted.actor else COLUMNS, rows, "No records match.", concessions)


def _print_records(output: str, entries: tuple[Entry, ...], wanted: Filter) -> None:
    print_table(output, _table(wanted, [_row(entry, wanted) for entry in entries]))
    say_reasons((entry.record.outcome, entry.record.reason) for entry in entries)


def _follow(operator: Operator, wanted: Filter, limit: int) -> int:
    """Print the existing records, oldest first, and then each new one."""
    from dataclasses import replace

    from chalicelib.auditlog import history
    from chalicelib.operators.formatting import clean

    follower = history.Follower()
    stream = Stream(_table(wanted), width_of(operator.output))

    def print_new(entries: list[Entry]) -> None:
        if operator.output in ("table", "wide"):
            print_rows(*stream.fit([[clean(cell) for cell in _row(entry, wanted)] for entry in entries]))
        else:
            emit_stream(operator.output, (entry.to_json() for entry in entries))

    first = history.records(operator.store, wanted, operator.now(), limit)
    print_new(follower.fresh(first.entries, operator.now()))
    # Mark older records that the limit left out as seen, so that they are not printed as new.
    now = operator.now()
    follower.fresh(_all_since(operator, replace(wanted, since=follower.since(now)), now), now)
    try:
        while True:
            operator.sleep(POLL_SECONDS)
            now = operator.now()
            seen = _all_since(operator, replace(wanted, since=follower.since(now)), now)
            print_new(follower.fresh(seen, now))
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
