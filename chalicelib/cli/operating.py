"""Verbs that operate the guard: `doctor`, `redrive` and `completion`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from chalicelib.cli.options import common_options
from chalicelib.cli.output import Progress, Table, emit, print_table
from chalicelib.cli.session import Operator, pass_operator, say

if TYPE_CHECKING:
    from chalicelib.cli.letters import Letter


@click.command("doctor", epilog="Example: xray-guard doctor")
@common_options
@pass_operator
def doctor_verb(operator: Operator) -> int:
    """Check that the guard can work, and name remedies.

    Checks that a trail logs management write events, KMS included; the rules and schedules are enabled; the functions
    can run; the tables are protected; the dead-letter queue is empty; the policy is valid and is the one that the
    guard enforces; the last sweep is recent; and no target is overdue, failed, or has an unused key.
    Changes nothing. Exits with 1 if a check failed or could not run.
    """
    from dataclasses import asdict

    from chalicelib.cli.doctor import GOOD, Doctor, table_names
    from chalicelib.cli.wording import NOTHING

    where = f"account {operator.identity.account}, Region {operator.region}"
    progress = Progress()
    findings = Doctor(operator, table_names(os.environ)).findings(progress)
    progress.done()
    healthy = all(finding.status == GOOD for finding in findings)
    document = {"healthy": healthy, "findings": [asdict(finding) for finding in findings]}
    rows = [[finding.check, finding.status, finding.message, finding.remedy or NOTHING] for finding in findings]
    table = Table(("check", "status", "finding", "remedy"), rows, "")
    emit(operator.output, document, "findings", lambda: print_table(table))
    wrong = sum(finding.status != GOOD for finding in findings)
    say(f"{where}: " + ("all checks passed." if healthy else f"{wrong} of {len(findings)} checks failed."))
    return 0 if healthy else 1


@click.command("redrive", epilog="Example: xray-guard redrive --yes")
@click.option("--yes", is_flag=True, help="Redrive the messages: send each to its function again")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Maximum number of messages"
)
@common_options
@pass_operator
def redrive_verb(operator: Operator, yes: bool, limit: int) -> int:
    """List or redrive dead-letter messages.

    Without --yes, lists the messages and changes nothing. With --yes, sends each message to its function again and
    deletes it once Lambda accepted the event. Sending an event twice does no harm: the guard records it once and
    judges the live setting. Exits with 1 if, with --yes, a message could not be sent.
    """
    from chalicelib.cli.letters import Queue

    queue = Queue(operator)
    letters = list(queue.letters(limit))
    fates: dict[str, str] = {}
    for letter in letters:
        fates[letter.message_id] = _sent(queue, letter) if yes else _kept(queue, letter)
    document = {"letters": [{**letter.to_json(), "fate": fates[letter.message_id]} for letter in letters]}
    emit(operator.output, document, "letters", lambda: print_table(_table(letters, fates, queue.name)))
    if letters and not yes:
        messages = "1 dead-letter message" if len(letters) == 1 else f"{len(letters)} dead-letter messages"
        say(f"{messages}. To redrive, run `xray-guard redrive --yes`.")
    return 1 if yes and any(fate != "sent" for fate in fates.values()) else 0


def _kept(queue: Any, letter: Letter) -> str:
    queue.put_back(letter)
    return "kept"


def _sent(queue: Any, letter: Letter) -> str:
    from chalicelib.cli.trouble import trouble_of
    from chalicelib.domain.errors import AwsError

    if letter.function is None or letter.payload is None:
        queue.put_back(letter)
        return "kept: the message names no function or no event"
    try:
        queue.send_again(letter)
    except AwsError as error:
        queue.put_back(letter)
        return f"kept: {trouble_of(error).message}"
    return "sent"


def _table(letters: list[Letter], fates: dict[str, str], queue: str) -> Table:
    from chalicelib.cli.wording import NOTHING, time_text

    rows = [
        [
            time_text(letter.sent_at),
            letter.function or NOTHING,
            letter.reason,
            _about(letter.payload),
            fates[letter.message_id],
        ]
        for letter in letters
    ]
    return Table(("time", "function", "reason", "event", "result"), rows, f"{queue} is empty.")


def _about(payload: str | None) -> str:
    """Name an event by its call, account and Region."""
    import json

    from chalicelib.cli.wording import NOTHING

    try:
        event = json.loads(payload or "")
    except (ValueError, RecursionError):
        return NOTHING
    if not isinstance(event, dict):
        return NOTHING
    detail = event.get("detail")
    name = detail.get("eventName") if isinstance(detail, dict) else None
    what = name or event.get("detail-type")
    parts = [text for text in (what, event.get("account"), event.get("region")) if isinstance(text, str)]
    return " ".join(parts)[:120] or NOTHING


@click.command(epilog='Example: eval "$(xray-guard completion bash)"')
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> int:
    """Print the script that completes verbs and options in SHELL."""
    from click.shell_completion import get_completion_class

    from chalicelib.cli import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "xray-guard", "_XRAY_GUARD_COMPLETE").source())
    return 0
