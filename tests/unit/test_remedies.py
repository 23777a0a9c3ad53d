"""An open incident says what to do, and the command that does it or shows more."""

from __future__ import annotations

import pytest

from chalicelib.domain.reasons import Outcome
from chalicelib.operators.remedies import remedy_of

HERE = "111122223333/us-east-1"
INCIDENT = f"{HERE}#7"


@pytest.mark.parametrize(
    ("outcome", "reason", "command"),
    [
        (Outcome.DEFERRED, "PAUSED", "xray-guard resume"),
        (Outcome.DEFERRED, "BACKOFF", f"xray-guard reconcile {HERE}"),
        (Outcome.SUPPRESSED, "BREAK_GLASS", f"xray-guard break-glass close {HERE}"),
        (Outcome.FAILED, "KEY_NOT_OURS", f"xray-guard key adopt {HERE} KEY"),
        (Outcome.FAILED, "AccessDeniedException", f"xray-guard show '{INCIDENT}'"),
        (Outcome.OBSERVED, "RULE_OBSERVES", f"xray-guard show '{INCIDENT}'"),
    ],
)
def test_an_open_incident_has_a_remedy_and_its_command(outcome: Outcome, reason: str, command: str) -> None:
    found = remedy_of(outcome, reason, HERE, INCIDENT)
    assert found.command == command
    assert found.text


def test_the_message_of_an_error_may_name_the_command_in_full() -> None:
    command = f"xray-guard key adopt {HERE} arn:aws:kms:us-east-1:111122223333:key/1"
    found = remedy_of(Outcome.FAILED, "KEY_NOT_OURS", HERE, INCIDENT, f"enable it, or run `{command}`")
    assert found.command == command


@pytest.mark.parametrize("hidden", ["; rm -rf ~", " $(id)", " | sh", "\nid", " > /etc/passwd", " & id"])
def test_a_message_from_elsewhere_never_becomes_a_command_of_a_shell(hidden: str) -> None:
    found = remedy_of(Outcome.FAILED, "AccessDenied", HERE, INCIDENT, f"run `xray-guard resume{hidden}`")
    assert found.command == f"xray-guard show '{INCIDENT}'"
