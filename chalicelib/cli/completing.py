"""What the shell completes by reading the guard's tables: targets and incidents. Without tables, nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from chalicelib.operators.context import Operator

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

MOST_INCIDENTS = 20


def items(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """The words that begin as the incomplete one does."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def targets(context: click.Context, incomplete: str) -> list[str]:
    """The targets that the guard knows: whole if an account was begun, otherwise by Region."""
    whole = [state.target for state in _operator(context).store.states()] if _is_usable(context) else []
    return whole if incomplete[:1].isdigit() else [each.partition("/")[2] for each in whole]


def incidents(context: click.Context) -> list[str]:
    """The ids of the latest incidents, newest first, with and without their account."""
    if not _is_usable(context):
        return []
    from chalicelib.auditlog.filters import Filter
    from chalicelib.auditlog.history import incidents

    operator = _operator(context)
    found = [view.id for view in incidents(operator.store, Filter(), operator.now(), MOST_INCIDENTS).incidents]
    return [*(each.partition("/")[2] for each in found), *found]


def _operator(context: click.Context) -> Operator:
    return context.ensure_object(Operator)


def _is_usable(context: click.Context) -> bool:
    """Whether the tables can be read. A completion prints no error: it offers nothing."""
    try:
        _operator(context).find_tables()
    except Exception:
        return False
    return True
