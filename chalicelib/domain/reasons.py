"""The codes in records: what violates a rule, what a run did, and why."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Violation(StrEnum):
    """Why an observation violates the rule."""

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
    KEY_POLICY_OPEN = "KEY_POLICY_OPEN"
    ALIAS_MOVED = "ALIAS_MOVED"
    KEY_ROTATION_SLOW = "KEY_ROTATION_SLOW"
    SPANS_NOT_KMS = "SPANS_NOT_KMS"
    SPANS_KEY_NOT_ALLOWED = "SPANS_KEY_NOT_ALLOWED"
    SPANS_KEY_UNUSABLE = "SPANS_KEY_UNUSABLE"
    SPANS_FORBIDDEN = "SPANS_FORBIDDEN"
    TRACES_COPIED = "TRACES_COPIED"


class Outcome(StrEnum):
    """The result of a run, as its record says."""

    COMPLIANT = "COMPLIANT"
    OBSERVED = "OBSERVED"
    REMEDIATING = "REMEDIATING"
    SUPPRESSED = "SUPPRESSED"
    APPLIED = "APPLIED"
    DEFERRED = "DEFERRED"
    REMEDIATED = "REMEDIATED"
    FAILED = "FAILED"
    IGNORED = "IGNORED"


class Reason(StrEnum):
    """The guard's own codes for reasons: in a record's `reason`, a Problem's `code` and a run's result.

    A record's reason is stored as text, because it may also be an AWS error code.
    """

    # Why the guard does not judge a target.
    UNGOVERNED = "UNGOVERNED"
    RULE_OFF = "RULE_OFF"
    IDLE = "IDLE"
    ACCOUNT_NOT_OURS = "ACCOUNT_NOT_OURS"
    REGION_DENIED = "REGION_DENIED"

    # Why a remediation is held back.
    RULE_OBSERVES = "RULE_OBSERVES"
    RIGHTS_OBSERVE = "RIGHTS_OBSERVE"
    BREAK_GLASS = "BREAK_GLASS"
    PAUSED = "PAUSED"
    BACKOFF = "BACKOFF"
    BLAST_RADIUS = "BLAST_RADIUS"
    SETTLING = "SETTLING"
    IN_PROGRESS = "IN_PROGRESS"
    LEASE_OVER = "LEASE_OVER"
    UPDATING = "UPDATING"

    # Why a run ends without a record.
    ECHO = "ECHO"
    NOT_OURS = "NOT_OURS"
    NOT_DUE = "NOT_DUE"

    # What passes by itself.
    ALIAS_TAKEN = "ALIAS_TAKEN"
    KEY_CREATION_UNCERTAIN = "KEY_CREATION_UNCERTAIN"
    KEY_NOT_YET_SEEN = "KEY_NOT_YET_SEEN"
    KEY_REFUSED = "KEY_REFUSED"
    NOT_YET_TAKEN = "NOT_YET_TAKEN"
    XRAY_UPDATING = "XRAY_UPDATING"

    # What the guard cannot repair.
    KEY_BEYOND_REPAIR = "KEY_BEYOND_REPAIR"
    KEY_NOT_OURS = "KEY_NOT_OURS"
    KEY_NOT_PROVED = "KEY_NOT_PROVED"
    KEY_NOT_ROTATABLE = "KEY_NOT_ROTATABLE"
    KEY_NOT_TAGGED = "KEY_NOT_TAGGED"
    KEY_POLICY_DENIES = "KEY_POLICY_DENIES"
    KEY_POLICY_OPEN = "KEY_POLICY_OPEN"
    KEY_POLICY_TOO_LONG = "KEY_POLICY_TOO_LONG"
    KEY_POLICY_UNREADABLE = "KEY_POLICY_UNREADABLE"
    KEY_UNAVAILABLE = "KEY_UNAVAILABLE"
    KEY_NOT_ON_RECORD = "KEY_NOT_ON_RECORD"
    NO_MANAGED_KEY = "NO_MANAGED_KEY"
    SPANS_FORBIDDEN = "SPANS_FORBIDDEN"
    TRACES_COPIED = "TRACES_COPIED"

    # How an attempt or a run failed.
    BUSY = "BUSY"
    CHANGED_AGAIN = "CHANGED_AGAIN"
    FORMAT_TOO_NEW = "FORMAT_TOO_NEW"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    TOO_MANY_STEPS = "TOO_MANY_STEPS"
    UPDATING_TOO_LONG = "UPDATING_TOO_LONG"
    WORKER_LOST = "WORKER_LOST"

    # How a sweep or a tick failed.
    NOT_A_TARGET = "NOT_A_TARGET"
    NO_REGIONS = "NO_REGIONS"
    OUT_OF_TIME = "OUT_OF_TIME"

    # Notes: what happened to the guard or to break-glass, or what an event adds to another one.
    ADDENDUM = "ADDENDUM"
    ANCHOR = "ANCHOR"
    BREAK_GLASS_ENDED = "BREAK_GLASS_ENDED"
    BREAK_GLASS_OPENED = "BREAK_GLASS_OPENED"
    BREAK_GLASS_REFUSED = "BREAK_GLASS_REFUSED"
    CALLS_COUNTED = "CALLS_COUNTED"
    DEAF = "DEAF"
    EVENT_HISTORY = "EVENT_HISTORY"
    GRANTS_CHANGED = "GRANTS_CHANGED"
    RECEIVING = "RECEIVING"
    KEY_HANDED_OVER = "KEY_HANDED_OVER"
    KEY_ADOPTED = "KEY_ADOPTED"
    KEY_FOUND = "KEY_FOUND"
    KEY_MADE = "KEY_MADE"
    KEY_REPLACED = "KEY_REPLACED"
    MISSED_EVENT = "MISSED_EVENT"
    POLICY_IN_FORCE = "POLICY_IN_FORCE"
    RESUMED = "RESUMED"
    ROLE_BORROWED = "ROLE_BORROWED"
    STATE_EDITED = "STATE_EDITED"
    STATE_NOTED = "STATE_NOTED"
    SWEEP = "SWEEP"
    UNCONFIRMED = "UNCONFIRMED"

    # Why an event cannot be acted on.
    ACCOUNT_INVALID = "ACCOUNT_INVALID"
    ACCOUNT_MISSING = "ACCOUNT_MISSING"
    DETAIL_MISSING = "DETAIL_MISSING"
    DETAIL_OMITTED = "DETAIL_OMITTED"
    NOT_AN_OBJECT = "NOT_AN_OBJECT"
    NOT_OUR_EVENT = "NOT_OUR_EVENT"
    REGION_INVALID = "REGION_INVALID"
    REGION_MISSING = "REGION_MISSING"
    TARGET_MISMATCH = "TARGET_MISMATCH"

    # Why there is no valid policy.
    POLICY_ABSENT = "POLICY_ABSENT"
    POLICY_ALTERED = "POLICY_ALTERED"
    POLICY_UNREADABLE = "POLICY_UNREADABLE"
    POLICY_UNSTAMPED = "POLICY_UNSTAMPED"


NOT_JUDGED = frozenset({Reason.UNGOVERNED, Reason.RULE_OFF, Reason.IDLE})
"""Reasons of IGNORED that mean that no rule judges the target any more, so its open incident ends."""

UNRECORDED = frozenset({Reason.ECHO, Reason.NOT_OURS, Reason.NOT_DUE})
"""Reasons for which a run ends without writing anything."""

SETTLING_CODES = frozenset(
    {
        Reason.ALIAS_TAKEN,
        Reason.KEY_CREATION_UNCERTAIN,
        Reason.KEY_NOT_YET_SEEN,
        Reason.KEY_REFUSED,
        Reason.NOT_YET_TAKEN,
        Reason.XRAY_UPDATING,
    }
)
"""Problems that pass by themselves, or that need only another check. No backoff delays that check."""

BREAK_GLASS_NOTES = frozenset({Reason.BREAK_GLASS_OPENED, Reason.BREAK_GLASS_ENDED, Reason.BREAK_GLASS_REFUSED})
"""Reasons of records about a break-glass value, which may share the event of another record."""

NOTES = BREAK_GLASS_NOTES | {
    Reason.ADDENDUM,
    Reason.ANCHOR,
    Reason.CALLS_COUNTED,
    Reason.DEAF,
    Reason.EVENT_HISTORY,
    Reason.GRANTS_CHANGED,
    Reason.RECEIVING,
    Reason.KEY_HANDED_OVER,
    Reason.KEY_ADOPTED,
    Reason.KEY_FOUND,
    Reason.KEY_MADE,
    Reason.KEY_REPLACED,
    Reason.MISSED_EVENT,
    Reason.PAUSED,
    Reason.POLICY_IN_FORCE,
    Reason.RESUMED,
    Reason.ROLE_BORROWED,
    Reason.STATE_EDITED,
    Reason.STATE_NOTED,
    Reason.SWEEP,
    Reason.UNCONFIRMED,
}
"""Reasons of IGNORED records that judge nothing: notes about the guard, a break-glass or an addendum."""


class Problem(Struct, frozen=True):
    """Why something failed: a stable code, a message for people, and whether a retry can help."""

    code: str
    message: str
    retryable: bool = True
