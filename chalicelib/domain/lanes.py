"""The lanes: which violations one backoff holds back together, so that fighting about one never delays another.

`judge.lanes_of` returns the lane of each violation that was observed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from chalicelib.domain.reasons import Violation


class Lane(StrEnum):
    """What a step, a failure or a violation is about. The names are stored."""

    SETTING = "setting"  # which key X-Ray uses, if any
    KEY = "key"  # whether X-Ray can use its key
    SPANS = "spans"  # the key under which CloudWatch Logs stores spans, if it does
    UPKEEP = "upkeep"  # everything else about the key: alias, rotation, the rest of its policy
    READING = "reading"  # what could not be read: says when to try again, and holds no step back


HARM = frozenset({Lane.SETTING, Lane.KEY})
"""The lanes of violations by which X-Ray loses traces, or stores them under a key that the rule forbids."""

EXPOSED_ELSEWHERE = frozenset(
    {
        Violation.SPANS_NOT_KMS,
        Violation.SPANS_KEY_NOT_ALLOWED,
        Violation.SPANS_KEY_UNUSABLE,
        Violation.SPANS_FORBIDDEN,
        Violation.TRACES_COPIED,
    }
)
"""The violations by which spans or traces lie elsewhere as the rule forbids, however safe X-Ray itself is."""

OF_STEPS = (Lane.SETTING, Lane.KEY, Lane.SPANS, Lane.UPKEEP)
"""The lanes of mutations, in the order in which they are remediated."""

LANES: Mapping[Violation, Lane] = {
    Violation.NOT_KMS: Lane.SETTING,
    Violation.AWS_MANAGED_KEY: Lane.SETTING,
    Violation.KEY_NOT_ALLOWED: Lane.SETTING,
    Violation.KEY_FOREIGN_ACCOUNT: Lane.SETTING,
    Violation.KEY_ASYMMETRIC: Lane.SETTING,
    Violation.KEY_NOT_FOUND: Lane.KEY,
    Violation.KEY_DISABLED: Lane.KEY,
    Violation.KEY_PENDING_DELETION: Lane.KEY,
    Violation.KEY_UNAVAILABLE: Lane.KEY,
    Violation.KEY_POLICY_INCOMPLETE: Lane.KEY,
    Violation.KEY_ROTATION_OFF: Lane.UPKEEP,
    Violation.ALIAS_MOVED: Lane.UPKEEP,
    Violation.KEY_ROTATION_SLOW: Lane.UPKEEP,
    Violation.SPANS_NOT_KMS: Lane.SPANS,
    Violation.SPANS_KEY_NOT_ALLOWED: Lane.SPANS,
    Violation.SPANS_KEY_UNUSABLE: Lane.SPANS,
}
"""The lane of each violation of the managed key while X-Ray uses it."""

ONLY_OBSERVED = frozenset({Violation.KEY_POLICY_OPEN, Violation.SPANS_FORBIDDEN, Violation.TRACES_COPIED})
"""The violations that the guard records and never remediates. They have no lane, and hold nothing back."""
