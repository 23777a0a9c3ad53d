"""The verb `incidents`: list incidents, one row each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from chalicelib.cli.options import codes_option, common_options, filter_of, filter_options, pass_operator
from chalicelib.cli.remarks import say_newer, say_reasons, say_unreadable, say_waiting
from chalicelib.domain.reasons import Violation
from chalicelib.operators.context import Operator
from chalicelib.operators.layout import Column, LeaveOut, Shorten, Table, to_the_minute, without_account
from chalicelib.operators.output import emit, print_table, say

if TYPE_CHECKING:
    from chalicelib.auditlog.views import IncidentView

COLUMNS = (
    Column("incident", short=without_account),
    Column("target", short=without_account),
    Column("what", wraps=True),
    Column("who", wraps=True),
    Column("opened", short=to_the_minute),
    Column("exposure"),
    Column("state", wraps=True),
)
CONCESSIONS = (
    Shorten("incident"),
    LeaveOut("target", into="incident"),
    Shorten("opened"),
    LeaveOut("opened"),
    LeaveOut("exposure"),
)


@click.command("incidents", epilog="Example: xray-guard incidents --open --violation NOT_KMS")
@click.option("--open", "only_open", is_flag=True, help="Only open incidents, whenever they were opened")
@codes_option("--violation", "violations", Violation, "Only with one of these violations, such as NOT_KMS,KEY_DISABLED")
@filter_options
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="Incidents per page")
@click.option("--next-token", metavar="TOKEN", help="Continue after the page that returned this token")
@common_options
@pass_operator
def incidents_verb(operator: Operator, /, only_open: bool, limit: int, next_token: str | None, **filters: Any) -> int:
    """List incidents, newest first: what, who, how long.

    --since and --until select by the time when the incident was opened, --outcome by what it came to so far. `show`
    takes the incident's id. A page reads a bounded part of the log, as of `history`; with --open there is one page.
    """
    from chalicelib.auditlog import history

    if only_open and next_token:
        raise click.UsageError("--open has one page and cannot be used with --next-token.")
    wanted = filter_of(operator.now(), **filters)
    operator.find_tables()
    if only_open:
        found = history.open_incidents(operator.store, operator.store.states(), wanted, operator.now)[:limit]
        cursor, unreadable = None, 0
    else:
        page = history.incidents(operator.store, wanted, operator.now(), limit, next_token)
        found = [_as_of_now(operator, view) for view in page.incidents]
        cursor, unreadable = page.cursor, page.unreadable
    document = {"incidents": [_json(operator, view) for view in found], "next_token": cursor}
    emit(operator.output, document, "incidents", lambda: _print_incidents(operator, found, only_open))
    for view in found:
        say_waiting(view.id, view.waiting)
    say_unreadable(unreadable)
    say_newer(entry for view in found for entry in view.entries)
    if cursor and operator.output not in ("json", "yaml"):
        say(f"More incidents: add --next-token {cursor}")
    return 0


def _as_of_now(operator: Operator, view: IncidentView) -> IncidentView:
    """The same incident; if it is open, with all its records and what only its target's state has."""
    from chalicelib.auditlog import history

    return (history.incident_now(operator.store, view.id, operator.now) if view.open else None) or view


def _json(operator: Operator, view: IncidentView) -> dict[str, Any]:
    """The fields as the REST API has them; of an open incident, its exposure so far."""
    document = view.to_json()
    return {**document, "exposure_seconds": view.exposed_seconds(operator.now())} if view.open else document


def _print_incidents(operator: Operator, found: list[IncidentView], only_open: bool) -> None:
    from chalicelib.operators.formatting import NOTHING, actor_text, span_text, time_text

    now = operator.now()
    rows = [
        [
            view.id,
            view.target,
            " ".join(view.violations) or NOTHING,
            actor_text(view.actor, view.target) if view.actor else "unknown",
            time_text(view.opened_at),
            span_text(view.exposed_seconds(now) if view.open else view.exposure_seconds),
            f"{view.outcome.value}, open" if view.open else view.outcome.value,
        ]
        for view in found
    ]
    empty = "No incident is open." if only_open else "No incidents match."
    print_table(operator.output, Table(COLUMNS, rows, empty, CONCESSIONS))
    say_reasons((view.outcome, view.reason) for view in found if view.open)
