"""The verb `show`: show one incident, from detection to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from chalicelib.cli.options import INCIDENT, common_options, pass_operator
from chalicelib.cli.remarks import say_newer
from chalicelib.operators.context import Operator
from chalicelib.operators.output import emit, say

if TYPE_CHECKING:
    from chalicelib.auditlog.views import IncidentView
    from chalicelib.domain.stored import Record


@click.command("show", epilog="Example: xray-guard show 111122223333/us-east-1#7")
@click.argument("incident", type=INCIDENT)
@common_options
@pass_operator
def show_verb(operator: Operator, incident: str) -> int:
    """Show one incident, from detection to end.

    Shows everybody who had a part in it with what they changed, the settings before and after, each action of the
    guard, and the exposure. INCIDENT is the incident's id, as `incidents`, `history` and `status` show it, or the id of
    one of its records; without an account it is of the account of your credentials.
    """
    from chalicelib.auditlog import history

    try:
        view = history.incident_now(operator.store, incident, operator.now)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="INCIDENT") from error
    if view is None:
        say(f"Incident {incident} does not exist. To list incidents, run `xray-guard incidents`.")
        return 1
    emit(operator.output, view.to_json(timeline=True), None, lambda: _print_incident(operator, view))
    say_newer(view.entries)
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
        exposed, since = span_text(view.exposed_seconds(operator.now())), time_text(view.exposed_since)
        over = f"{exposed}, from {since} to {time_text(view.exposed_until)}; something else remains"
        line("exposure", over if view.exposed_until else f"{exposed} so far, since {since}")
        if view.waiting:
            line("waiting", view.waiting.text)
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
    found += [(name, str(detail[name])) for name in ("spans", "association", "copies") if detail.get(name)]
    if detail.get("adopted"):
        found.append(("adopted", str(detail["adopted"])))
    return found


def _print_action(action: Any, target: str) -> None:
    from chalicelib.domain.keypolicy.document import difference
    from chalicelib.operators.formatting import action_change_text, clean, key_text

    subject = key_text(action.key_arn, target) if action.key_arn else ""
    text = f"    {action.name} {subject}"
    if action.name == "PutKeyPolicy":
        text += f"{f' failed: {action.error}' if action.error else ''}"
        click.echo(clean(text))
        for each in difference(action.before or "", action.after or "").splitlines():
            click.echo(f"        {clean(each)}")
        return
    if action.name != "CreateKey" and (changed := action_change_text(action, target)):
        text += f": {changed}"
    click.echo(clean(text + (f" failed: {action.error}" if action.error else "")))
