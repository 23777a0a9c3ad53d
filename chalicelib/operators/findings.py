"""What the checks of `xray-guard doctor` have in common: a finding, its statuses, limits and remedies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

GOOD, WARNING, BAD, UNKNOWN = "good", "warning", "bad", "unknown"
"""A warning is a choice of the deployment that costs protection: the check passes, and says what is missing."""

LONGEST_WITHOUT_SWEEP = timedelta(hours=2)
DEPLOY = "deploy the template again (docs/deploy.md)"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `remedy` is set unless the status is good."""

    check: str
    status: str
    message: str
    remedy: str | None = None
