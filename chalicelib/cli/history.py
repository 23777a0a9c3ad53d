"""Verbs that show state and history: `status`, `history` and `show`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from chalicelib.cli.options import common_options, moment, pass_operator
from chalicelib.domain.model import Target, TriggerKind, is_region
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import FORMAT, GUARD_CHAIN
from chalicelib.operators.context import Operator
from chalicelib.operators.output import Table, emit, emit_lines, print_table, say

if TYPE_CHECKING:
    from chalicelib.auditlog.filters import Filter
    from chalicelib.auditlog.views import Entry, IncidentView, TargetView
    from chalicelib.domain.stored import GuardState, Record

POLL_SECONDS = 3.0
OUTCOMES = tuple(outcome.value for outcome in Outcome)
HISTORY_COLUMNS = ("time", "target", "outcome", "reason", "actor", "change", "exposure")


@click.command(epilog="Example: xray-guard status --output json")
@click.option("--account", metavar="ID", help="Only this account")
@click.option("--target-region", metavar="REGION", help="Only this Region")
@common_options
@pass_operator
def status(operator: Operator, account: str | None, target_region: str | None) -> int:
    """Show the last known state of every target."""
    import msgspec

    from chalicelib.auditlog import history

    guard = operator.guard_state()
    wanted = _filter(None, account, target_region)
    views = history.targets(operator.store.states(), wanted)
    document = {
        "targets": [view.to_json() for view in views],
        "guard": {
            "policy_digest": guard.policy_digest,
            "swept_at": msgspec.to_builtins(guard.swept_at),
            "paused": msgspec.to_builtins(guard.paused),
        },
    }
    emit(operator.output, document, "targets", lambda: _print_status(operator, guard, views))
    return 0


def _print_status(operator: Operator, guard: GuardState, views: list[TargetView]) -> None:
    from chalicelib.operators.formatting import NOTHING, setting_text, span_text, time_text

    now = operator.now()
    rows = [
        [
            view.account,
            view.region,
            view.outcome.value if view.outcome else "unknown",
            view.reason or " ".join(view.violations) or NOTHING,
            setting_text(view.setting, view.target),
            span_text((now - view.exposed_since).total_seconds()) if view.exposed_since else NOTHING,
            view.incident.id if view.incident else NOTHING,
            time_text(view.good_at),
        ]
        for view in views
    ]
    columns = ("account", "region", "outcome", "reason", "setting", "exposed for", "incident", "last compliant")
    print_table(Table(columns, rows, "The guard has not seen any target yet. Its first sweep will find them."))
    _say_reasons((view.outcome, view.reason) for view in views)
    compliant = sum(view.compliant for view in views)
    ignored = sum(view.outcome is Outcome.IGNORED for view in views)
    if views:
        swept = time_text(guard.swept_at)
        say(f"{compliant} of {len(views)} targets compliant, {ignored} ignored. Last sweep: {swept}.")
    if guard.paused:
        say(f"PAUSED since {time_text(guard.paused.at)} by {guard.paused.by}: {guard.paused.reason}")


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
    wanted = _filter(
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
    _say_unreadable(page.unreadable)
    _say_newer(page.entries)
    if page.cursor and operator.output != "json":
        say(f"More records: add --next-token {page.cursor}")
    return 0


def _filter(
    target: str | None,
    account: str | None,
    region: str | None,
    outcomes: tuple[Outcome, ...] = (),
    actor: str | None = None,
    rule: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Filter:
    from chalicelib.auditlog.filters import Filter

    if target is not None and target != GUARD_CHAIN:
        try:
            Target.parse(target)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--target") from error
    if account is not None and not (len(account) == 12 and account.isascii() and account.isdigit()):
        raise click.BadParameter(f"{account!r} is not an account id of twelve digits", param_hint="--account")
    if region is not None and not is_region(region):
        hint = f"{region!r} is not the name of a Region, such as us-east-1"
        raise click.BadParameter(hint, param_hint="--target-region")
    if since is not None and until is not None and since >= until:
        raise click.BadParameter("--until must be later than --since", param_hint="--until")
    return Filter(target, account, region, outcomes, actor, rule, since, until)


def _say_unreadable(count: int) -> None:
    if count:
        say(f"Unreadable records: {count}. Run `xray-guard audit verify`.")


def _say_newer(entries: Iterable[Entry]) -> None:
    """Say which records this release may show in part only."""
    if newer := [entry.record.record_id for entry in entries if entry.record.format > FORMAT]:
        names = ", ".join(newer[:3]) + (f" and {len(newer) - 3} more" if len(newer) > 3 else "")
        say(f"A newer release of the guard stored {names}. Use that release to see everything in them.")


def _say_reasons(codes: Iterable[tuple[Outcome | None, str | None]]) -> None:
    """Explain each reason once, in the order of first appearance."""
    from chalicelib.domain.meanings import explanation

    for outcome, reason in dict.fromkeys(codes):
        if found := explanation(outcome, reason):
            say(f"{reason}: {found.text} {found.remedy}")


def _row(entry: Entry, wanted: Filter) -> list[str]:
    """With a filter by actor, the last cell says which part the actor has in the record."""
    from chalicelib.operators.formatting import NOTHING, change_text, part_text, span_text, time_text

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
        change_text(record.before, record.after, record.target) if record.before or record.after else NOTHING,
        span_text(record.exposure_seconds),
        *([parts] if wanted.actor else ()),
    ]


def _actor(entry: Entry) -> str:
    from chalicelib.operators.formatting import actor_text

    name = actor_text(entry.actor, entry.record.target)
    by_hand = entry.record.trigger.kind is TriggerKind.OPERATOR and entry.record.cause is None
    return f"{name} (operator)" if by_hand else name


def _print_records(entries: tuple[Entry, ...], wanted: Filter) -> None:
    columns = (*HISTORY_COLUMNS, "part") if wanted.actor else HISTORY_COLUMNS
    print_table(Table(columns, [_row(entry, wanted) for entry in entries], "No records match."))
    _say_reasons((entry.record.outcome, entry.record.reason) for entry in entries)


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


@click.command(epilog="Example: xray-guard show 111122223333/us-east-1#7")
@click.argument("incident")
@common_options
@pass_operator
def show(operator: Operator, incident: str) -> int:
    """Show one incident, from detection to end.

    Shows everybody who had a part in it with what they changed, the settings before and after, each action of the
    guard, and the exposure. INCIDENT is the incident's id, or the id of one of its records, as `history` and `status`
    show them.
    """
    from chalicelib.auditlog import history

    try:
        view = history.incident(operator.store, incident)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="INCIDENT") from error
    if view is None:
        say(f"Incident {incident} does not exist. To list incident ids, run `xray-guard history --output json`.")
        return 1
    emit(operator.output, view.to_json(timeline=True), None, lambda: _print_incident(operator, view))
    _say_newer(view.entries)
    return 0


def _print_incident(operator: Operator, view: IncidentView) -> None:
    from chalicelib.domain.meanings import explanation
    from chalicelib.operators.formatting import (
        actor_text,
        attribution_text,
        change_text,
        clean,
        event_change_text,
        part_text,
        persons_change_text,
        setting_text,
        span_text,
        time_text,
    )

    target = view.target

    def line(name: str, text: Any) -> None:
        click.echo(f"  {name + ':':<12} {clean(text)}")

    click.echo(f"{view.id}: {view.outcome.value}{f' ({clean(view.reason)})' if view.reason else ''}")
    line("who", actor_text(view.actor, target) if view.actor else "unknown")
    line("what", change_text(view.before, view.after, target))
    line("violations", " ".join(view.violations) or "none")
    for person in view.people:
        line("person", f"{actor_text(person.actor, target)}: {part_text(person)}")
        for change in person.changes:
            line("  changed", persons_change_text(change, target))
    line("rule", view.rule or "none")
    if view.open:
        open_for = (operator.now() - view.exposed_since).total_seconds()
        line("exposure", f"{span_text(open_for)} so far, since {time_text(view.exposed_since)}")
    else:
        known = view.exposure_seconds
        measured = span_text(known) if known is not None else "unknown"
        line("exposure", f"{measured}, from {time_text(view.exposed_since)} to {time_text(view.closed_at)}")
    if view.suppression:
        glass = view.suppression
        opener = actor_text(glass.opened_by, target)
        line("break-glass", f"until {time_text(glass.until)}, opened by {opener}, reason: {glass.reason}")
    if view.open and (explained := explanation(view.outcome, view.reason)):
        line("meaning", explained.text)
        line("what to do", explained.remedy)
    click.echo("")
    for entry in view.entries:
        record = entry.record
        trigger = record.trigger
        caused = trigger.kind.label + (f" by {actor_text(trigger.actor, target)}" if trigger.actor else "")
        why = record.reason or " ".join(record.violations)
        click.echo(
            f"{time_text(record.at)}  {record.outcome.value:<11} {clean(why)}  [{clean(caused)}, {record.record_id}]"
        )
        if trigger.event_time:
            line("    event", f"{trigger.event_name or ''} {trigger.event_id or ''} at {time_text(trigger.event_time)}")
        if record.change:
            line("    changed", event_change_text(record.change, target))
        for attribution in record.attributions:
            line("    violation", attribution_text(attribution, target))
        for action in record.actions:
            _print_action(action, target)
        if record.after:
            status_ = record.after.status.value if record.after.status else ""
            line("    result", f"{setting_text(record.after, target)} {status_}")
        if record.error:
            line("    error", f"{record.error.code}: {record.error.message}")
        for name, text in _details(record):
            line(f"    {name}", text)
    if not view.complete:
        say(f"The incident may have more records. Run `xray-guard history --target {target}`.")


def _details(record: Record) -> list[tuple[str, str]]:
    """The entries of the record's detail that explain its outcome and do not repeat its error."""
    detail = record.detail
    found = []
    message = detail.get("message")
    if message and not (record.error and record.error.message == message):
        found.append(("detail", str(message)))
    against = detail.get("against")
    if isinstance(against, list) and against:
        found.append(("against", f"{', '.join(map(str, against))}; recent attempts: {detail.get('attempts')}"))
    if detail.get("in_use"):
        found.append(("in use", str(detail["in_use"])))
    if detail.get("adopted"):
        found.append(("adopted", str(detail["adopted"])))
    return found


def _print_action(action: Any, target: str) -> None:
    from chalicelib.domain.keypolicy.document import difference
    from chalicelib.operators.formatting import clean, key_text

    subject = key_text(action.key_arn, target) if action.key_arn else ""
    text = f"    {action.name} {subject}"
    if action.name == "PutKeyPolicy":
        text += f"{f' failed: {action.error}' if action.error else ''}"
        click.echo(clean(text))
        for each in difference(action.before or "", action.after or "").splitlines():
            click.echo(f"        {clean(each)}")
        return
    if action.name != "CreateKey" and (action.before or action.after):
        text += f": {action.before or 'none'} → {action.after or 'none'}"
    click.echo(clean(text + (f" failed: {action.error}" if action.error else "")))
