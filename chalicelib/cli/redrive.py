"""The verb `redrive`: list or redrive dead-letter messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from chalicelib.cli.options import common_options, pass_operator
from chalicelib.operators.context import Operator
from chalicelib.operators.layout import Column, LeaveOut, Table
from chalicelib.operators.output import emit, print_table, say

if TYPE_CHECKING:
    from chalicelib.operators.dead_letters import DeadLetter


@click.command("redrive", epilog="Example: xray-guard redrive --yes")
@click.option("--yes", is_flag=True, help="Redrive the messages: send each to its function again")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Maximum number of messages"
)
@click.option(
    "--from-region", metavar="REGION", help="Another Region, whose events could not be forwarded to the guard"
)
@common_options
@pass_operator
def redrive_verb(operator: Operator, yes: bool, limit: int, from_region: str | None) -> int:
    """List or redrive dead-letter messages.

    Without --yes, lists the messages and changes nothing. With --yes, sends each message to its function again and
    deletes it once Lambda accepted the event. Sending an event twice does no harm: the guard records it once and
    judges the live setting. Exits with 1 if, with --yes, a message could not be sent.
    """
    from chalicelib.operators.dead_letters import Queue

    queue = Queue(operator, from_region)
    messages = list(queue.receive(limit))
    fates: dict[str, str] = {}
    for message in messages:
        fates[message.message_id] = _sent(queue, message) if yes else _kept(queue, message)
    document = {"letters": [{**message.to_json(), "fate": fates[message.message_id]} for message in messages]}
    emit(
        operator.output, document, "letters", lambda: print_table(operator.output, _table(messages, fates, queue.name))
    )
    if messages and not yes:
        count = "1 dead-letter message" if len(messages) == 1 else f"{len(messages)} dead-letter messages"
        of_region = f" --from-region {from_region}" if from_region else ""
        say(f"{count}. To redrive, run `xray-guard redrive{of_region} --yes`.")
    return 1 if yes and any(fate != "sent" for fate in fates.values()) else 0


def _kept(queue: Any, message: DeadLetter) -> str:
    queue.release(message)
    return "kept"


def _sent(queue: Any, message: DeadLetter) -> str:
    from chalicelib.domain.errors import AwsError
    from chalicelib.operators.errors import operator_error

    if message.function is None or message.payload is None:
        queue.release(message)
        return "kept: the message names no function or no event"
    try:
        queue.redrive(message)
    except AwsError as error:
        queue.release(message)
        return f"kept: {operator_error(error).message}"
    return "sent"


def _table(messages: list[DeadLetter], fates: dict[str, str], queue: str) -> Table:
    from chalicelib.operators.formatting import NOTHING, time_text

    rows = [
        [
            time_text(message.sent_at),
            message.function or NOTHING,
            message.reason,
            _about(message.payload),
            fates[message.message_id],
        ]
        for message in messages
    ]
    columns = (
        Column("time"),
        Column("function"),
        *(Column(each, wraps=True) for each in ("reason", "event", "result")),
    )
    return Table(columns, rows, f"{queue} is empty.", (LeaveOut("reason"),))


def _about(payload: str | None) -> str:
    """Name an event by its call, account and Region."""
    import json

    from chalicelib.operators.formatting import NOTHING

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
