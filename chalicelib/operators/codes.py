"""docs/codes.md, generated from the codes: `python -m chalicelib.operators.codes > docs/codes.md`."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from chalicelib.domain.meanings import REASONS, Meaning
from chalicelib.domain.outcome_meanings import OUTCOMES, VIOLATIONS
from chalicelib.domain.reasons import Outcome, Reason, Violation

INTRODUCTION = """\
# Codes

A record has an outcome, and usually a reason. The record of a noncompliant target also has violations. Codes are
stable: alarms and queries may rely on them. The command line and the API show the codes; the console shows the labels.

`python -m chalicelib.operators.codes` generates this page; a test compares it with the code.
"""

ABOUT_VIOLATIONS = """\
Why the target is noncompliant. The guard remediates what it is allowed to; the last column says what you must do.
"""

ABOUT_REASONS = """\
The cause of the outcome: `reason` in a record, `code` in its `error`. Other codes are AWS's own error codes, or one of
these codes of the guard's clients: `NoAnswer` (AWS did not respond), `UnexpectedAnswer` (AWS's response cannot be
read), `UnprocessedKeys` (DynamoDB left items unread), `UnreadableState` (a stored state cannot be read). `ECHO`,
`NOT_OURS`, `NOT_DUE` and `LEASE_OVER` are in no record, only in the result of a run that wrote nothing. `POLICY_…` is
only in the function's log, and `FORMAT_TOO_NEW` only there, in the error of a command or of the API, and in a sweep's
`unreached`. For the codes of a break-glass that is not valid, see [break-glass.md](break-glass.md).
"""


def page() -> str:
    """The whole page as Markdown."""
    parts = [
        INTRODUCTION,
        "## Outcomes\n",
        _table({code: OUTCOMES[code] for code in Outcome}),
        "## Violations\n",
        ABOUT_VIOLATIONS,
        _table({code: VIOLATIONS[code] for code in Violation}),
        "## Reasons\n",
        ABOUT_REASONS,
        _table({code: REASONS[code] for code in Reason}),
    ]
    return "\n".join(parts)


def _table(meanings: Mapping[Outcome, Meaning] | Mapping[Violation, Meaning] | Mapping[Reason, Meaning]) -> str:
    rows = [f"| `{code.value}` | {label} | {text} | {remedy} |" for code, (label, text, remedy) in meanings.items()]
    return "\n".join(["| code | label | meaning | what to do |", "| --- | --- | --- | --- |", *rows, ""])


if __name__ == "__main__":
    sys.stdout.write(page())
