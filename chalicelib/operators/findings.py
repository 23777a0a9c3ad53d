"""What a check of `xray-guard doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass

GOOD, BAD, UNKNOWN = "good", "bad", "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `remedy` is set unless the status is good."""

    check: str
    status: str
    message: str
    remedy: str | None = None
