"""What the checks of `xray-guard doctor` have in common: the statuses of a finding, limits and remedies."""

from __future__ import annotations

from datetime import timedelta

GOOD, WARNING, BAD, UNKNOWN = "good", "warning", "bad", "unknown"
"""A warning is a choice of the deployment that costs protection: the check passes, and says what is missing."""

LONGEST_WITHOUT_SWEEP = timedelta(hours=2)
DEPLOY = "deploy the template again (docs/deploy.md)"
