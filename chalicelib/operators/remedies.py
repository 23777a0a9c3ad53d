"""What to do about an open incident: the remedy in words, and the command to run next."""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple

from chalicelib.domain.meanings import REASONS, explanation
from chalicelib.domain.outcome_meanings import OUTCOMES
from chalicelib.domain.reasons import Outcome, Reason

COMMAND = re.compile("`(xray-guard [a-z][a-z -]*[a-z])[^`]*`")
OF_A_TARGET = {
    "xray-guard reconcile": "xray-guard reconcile {}",
    "xray-guard key replace": "xray-guard key replace {}",
    "xray-guard key adopt": "xray-guard key adopt {} KEY",
}
"""The commands that a remedy may name without their target; KEY is for the operator to fill in."""

WHOLE_COMMAND = re.compile("`(xray-guard [A-Za-z0-9:/_. -]+)`")
"""A command in the message of an error, with nothing in it that a shell would read as more than words."""


class Remedy(NamedTuple):
    """The remedy in words, with code between backticks, and the next command."""

    text: str
    command: str


def remedy_of(outcome: Outcome, reason: str | None, target: str, incident_id: str, message: str = "") -> Remedy:
    """The remedy of an open incident; `message` is that of its error.

    The command is the one that the message or the remedy names. Where they name none, it shows the incident.
    """
    show = shlex.join(("xray-guard", "show", incident_id))
    if outcome is Outcome.SUPPRESSED:
        return Remedy(OUTCOMES[outcome].remedy, f"xray-guard break-glass close {target}")
    known = explanation(outcome, reason) or (
        REASONS[Reason(reason)] if reason and reason in REASONS else OUTCOMES[outcome]
    )
    if whole := WHOLE_COMMAND.search(message):
        return Remedy(known.remedy, whole[1])
    named = COMMAND.search(known.remedy)
    if named is None:
        return Remedy(known.remedy, show)
    for command, form in OF_A_TARGET.items():
        if named[1].startswith(command):
            return Remedy(known.remedy, form.format(target))
    return Remedy(known.remedy, named[1])
