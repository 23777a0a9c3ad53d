"""What verbs say on stderr about the records that they show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from chalicelib.domain.formats import FORMAT
from chalicelib.domain.reasons import Outcome
from chalicelib.operators.output import say

if TYPE_CHECKING:
    from chalicelib.auditlog.views import Entry
    from chalicelib.auditlog.waits import Waiting


def say_unreadable(count: int) -> None:
    if count:
        say(f"Unreadable records: {count}. Run `xray-guard audit verify`.")


def say_newer(entries: Iterable[Entry]) -> None:
    """Say which records this release may show in part only."""
    if newer := [entry.record.record_id for entry in entries if entry.record.format > FORMAT]:
        names = ", ".join(newer[:3]) + (f" and {len(newer) - 3} more" if len(newer) > 3 else "")
        say(f"A newer release of the guard stored {names}. Use that release to see everything in them.")


def say_waiting(target: str, waiting: Waiting | None) -> None:
    """Say why the guard does not act on a target now, and until when."""
    from chalicelib.operators.formatting import clean

    if waiting is not None:
        say(clean(f"{target}: {waiting.text}"))


def say_reasons(codes: Iterable[tuple[Outcome | None, str | None]]) -> None:
    """Explain each reason once, in the order of first appearance."""
    from chalicelib.domain.meanings import explanation

    for outcome, reason in dict.fromkeys(codes):
        if found := explanation(outcome, reason):
            say(f"{reason}: {found.text} {found.remedy}")
