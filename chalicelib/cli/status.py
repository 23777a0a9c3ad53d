"""The verb `status`: show the last known state of every target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from chalicelib.cli.options import common_options, filter_of, pass_operator
from chalicelib.cli.remarks import say_reasons, say_waiting
from chalicelib.domain.reasons import Outcome
from chalicelib.operators.context import Operator
from chalicelib.operators.layout import Column, LeaveOut, Shorten, Table, without_account, without_year
from chalicelib.operators.output import emit, print_table, say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from chalicelib.auditlog.views import TargetView
    from chalicelib.domain.stored import GuardState

COLUMNS = (
    Column("target", short=without_account),
    Column("outcome"),
    Column("reason", wraps=True),
    Column("setting", wraps=True),
    Column("exposed"),
    Column("incident", short=without_account),
    Column("last compliant", short=without_year),
)
CONCESSIONS = (
    *(Shorten("incident"), Shorten("target"), LeaveOut("last compliant"), LeaveOut("setting")),
    LeaveOut("target", into="incident"),
)
NO_TARGETS = "The guard has not seen any target yet. Its first sweep will find them."


@click.command("status", epilog="Example: xray-guard status --output json")
@click.option("--account", metavar="ID", help="Only this account")
@click.option("--target-region", metavar="REGION", help="Only this Region")
@common_options
@pass_operator
def status_verb(operator: Operator, account: str | None, target_region: str | None) -> int:
    """Show the last known state of every target."""
    import msgspec

    from chalicelib.auditlog import history

    guard = operator.guard_state()
    wanted = filter_of(account=account, target_region=target_region)
    views = history.targets(operator.store.states(), guard, operator.now(), wanted)
    histories = operator.read_histories([view.target for view in views])
    deaf = {name: each.deaf_since for name, each in sorted(histories.items()) if each.deaf_since}
    document = {
        "targets": [view.to_json() for view in views],
        "guard": {
            "policy_digest": guard.policy_digest,
            "swept_at": msgspec.to_builtins(guard.swept_at),
            "paused": msgspec.to_builtins(guard.paused),
            "deaf": msgspec.to_builtins(deaf),
        },
    }
    emit(operator.output, document, "targets", lambda: _print_status(operator, guard, views, deaf))
    return 0


def _print_status(operator: Operator, guard: GuardState, views: list[TargetView], deaf: Mapping[str, datetime]) -> None:
    from chalicelib.operators.formatting import NOTHING, copies_text, setting_text, span_text, spans_text, time_text

    now = operator.now()
    rows = [
        [
            view.target,
            view.outcome.value if view.outcome else "unknown",
            view.reason or " ".join(view.violations) or NOTHING,
            setting_text(view.setting, view.target),
            span_text(view.exposed_seconds(now)),
            view.incident.id if view.incident else NOTHING,
            time_text(view.good_at),
        ]
        for view in views
    ]
    print_table(operator.output, Table(COLUMNS, rows, NO_TARGETS, CONCESSIONS))
    say_reasons((view.outcome, view.reason) for view in views)
    for view in views:
        say_waiting(view.target, view.waiting)
    for view in views:
        if view.spans is not None and not view.spans.are_with_traces:
            say(f"{view.target}: spans: {spans_text(view.spans)}.")
        if view.links is not None and (view.links.found or view.links.problem):
            say(f"{view.target}: copies of traces: {copies_text(view.links)}.")
    compliant = sum(view.compliant for view in views)
    ignored = sum(view.outcome is Outcome.IGNORED for view in views)
    if views:
        swept = time_text(guard.swept_at)
        say(f"{compliant} of {len(views)} targets compliant, {ignored} ignored. Last sweep: {swept}.")
    for target, since in deaf.items():
        say(f"DEAF since {time_text(since)}: the guard receives no events from {target}. Run xray-guard doctor.")
    if guard.paused:
        say(f"PAUSED since {time_text(guard.paused.at)} by {guard.paused.by}: {guard.paused.reason}")
