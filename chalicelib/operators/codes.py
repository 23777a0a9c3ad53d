"""docs/codes.md, generated from the codes: `python -m chalicelib.operators.codes > docs/codes.md`."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from chalicelib.domain.meanings import OUTCOMES, REASONS, VIOLATIONS, Meaning
from chalicelib.domain.reasons import Outcome, Reason, Violation

INTRODUCTION = """\
# Codes

A record has an outcome, and where it needs one a reason. A noncompliant target also has violations. Every code is
stable: an alarm or a query may rely on it.

`python -m chalicelib.operators.codes` generates this page; a test holds it to the code.
"""

ABOUT_VIOLATIONS = """\
Why the target is noncompliant. The guard remediates what it may; the last column says what is left to you.
"""

ABOUT_REASONS = """\
Why the outcome is what it is: `reason` in a record, `code` in its `error`. What is not in this table is AWS's own error
code, or one of these codes of the guard's clients: `NoAnswer` (AWS did not respond), `UnexpectedAnswer` (AWS's
response cannot be read), `UnprocessedKeys` (DynamoDB left items unread), `UnreadableState` (a stored state cannot be
read). Four codes stand only in the result of a run that wrote nothing: `ECHO`, `NOT_OURS`, `NOT_DUE` and `LEASE_OVER`.
`POLICY_…` stands only in the function's log. The codes of a break-glass that does not count are in
[break-glass.md](break-glass.md).
"""


def page() -> str:
    """Return the whole page as Markdown."""
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
    rows = [f"| `{code.value}` | {meaning.text} | {meaning.remedy} |" for code, meaning in meanings.items()]
    return "\n".join(["| code | meaning | what to do |", "| --- | --- | --- |", *rows, ""])


if __name__ == "__main__":
    sys.stdout.write(page())
