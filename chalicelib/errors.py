"""The two kinds of failure, retryable and terminal, and the one table that maps AWS's error codes to them.

An unknown code is retryable: giving up on what we do not understand would leave a drift standing.
"""

from __future__ import annotations

from chalicelib.model import Problem

TERMINAL_CODES = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AlreadyExistsException",
        "InvalidAliasNameException",
        "InvalidArnException",
        "InvalidRequestException",
        "KMSInvalidStateException",
        "LimitExceededException",
        "MalformedPolicyDocumentException",
        "NotFoundException",
        "TagException",
        "UnsupportedOperationException",
        "ValidationException",
    }
)
"""Sending the same call again now answers the same. The loop still comes back, later and ever more slowly."""

DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
"""The codes by which AWS's services say that the caller may not do that."""

UNANSWERED = "NoAnswer"
"""The code of a call that was sent and whose effect is unknown: a timeout or a broken connection."""


class GuardError(Exception):
    """What was expected to be possible and was not. Carries the Problem that goes on the record."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.message}")
        self.problem = problem


class AwsError(GuardError):
    """An AWS call failed. `code` is AWS's own, or UNANSWERED; `operation` is the API's name for the call.

    `effect_unknown`: the call may have taken effect all the same, for AWS answered with a fault of its own (5xx), with
    what could not be read, or not at all.
    """

    def __init__(
        self, operation: str, code: str, message: str, request_id: str | None = None, *, effect_unknown: bool = False
    ) -> None:
        super().__init__(Problem(code, f"{operation}: {message}"[:1000], retryable=code not in TERMINAL_CODES))
        self.operation = operation
        self.code = code
        self.request_id = request_id
        self.effect_unknown = effect_unknown or code == UNANSWERED


class StoreError(AwsError):
    """The tables could not be read or written; of a write it is not known whether it was."""


def denies_region(error: GuardError) -> bool:
    """Whether an organization's policy denies the guard the setting itself, and so the Region.

    AWS's message names the kind of policy that refused:
    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
    """
    return (
        isinstance(error, AwsError)
        and error.operation.endswith("GetEncryptionConfig")
        and error.code in DENIED
        and "service control policy" in error.problem.message
    )


class Conflict(Exception):
    """The target's state moved under a write; observe again from the start."""


class LeaseOver(Exception):
    """The lease ended, or is another's: nothing more may be sent."""


class Busy(GuardError):
    """Every attempt at one write met another writer."""
