"""What the checks of `xray-guard doctor` have in common: a finding, its statuses, limits and remedies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

GOOD, WARNING, BAD, UNKNOWN = "good", "warning", "bad", "unknown"
"""A warning is a choice of the deployment that costs protection: the check passes, and says what is missing."""

LONGEST_WITHOUT_SWEEP = timedelta(hours=2)
DEPLOY = "make deploy BUCKET=your-bucket (docs/deploy.md)"


def logs_of(function: str, since: str = "3h") -> str:
    """The command that shows what a function logged."""
    return f"aws logs tail /aws/lambda/{function} --since {since}"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `remedy` is set unless the status is good."""

    check: str
    status: str
    message: str
    remedy: str | None = None
