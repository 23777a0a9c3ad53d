"""The codes that records carry: what breaks a rule, what a run did, and why."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

REGION_DENIED = "REGION_DENIED"
"""The reason of IGNORED where the organization denies the guard the target's Region."""


class Violation(StrEnum):
    """A coded reason why an observation breaks the rule."""

    NOT_KMS = "NOT_KMS"
    AWS_MANAGED_KEY = "AWS_MANAGED_KEY"
    KEY_NOT_ALLOWED = "KEY_NOT_ALLOWED"
    KEY_NOT_FOUND = "KEY_NOT_FOUND"
    KEY_DISABLED = "KEY_DISABLED"
    KEY_PENDING_DELETION = "KEY_PENDING_DELETION"
    KEY_UNAVAILABLE = "KEY_UNAVAILABLE"
    KEY_ASYMMETRIC = "KEY_ASYMMETRIC"
    KEY_FOREIGN_ACCOUNT = "KEY_FOREIGN_ACCOUNT"
    KEY_ROTATION_OFF = "KEY_ROTATION_OFF"
    KEY_POLICY_INCOMPLETE = "KEY_POLICY_INCOMPLETE"
    ALIAS_MOVED = "ALIAS_MOVED"


class Outcome(StrEnum):
    """What a record says of the run."""

    COMPLIANT = "COMPLIANT"
    OBSERVED = "OBSERVED"
    REMEDIATING = "REMEDIATING"
    SUPPRESSED = "SUPPRESSED"
    APPLIED = "APPLIED"
    DEFERRED = "DEFERRED"
    REMEDIATED = "REMEDIATED"
    FAILED = "FAILED"
    IGNORED = "IGNORED"


class Problem(Struct, frozen=True):
    """Why something failed: a stable code, a sentence for people, and whether trying again can help."""

    code: str
    message: str
    retryable: bool = True
