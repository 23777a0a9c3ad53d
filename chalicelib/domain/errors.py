"""The two kinds of failure, retryable and terminal, and the one table that maps AWS's error codes to them.

An unknown code is retryable: giving up on what we do not understand would leave a drift standing.
"""

from __future__ import annotations

from types import MappingProxyType

from chalicelib.domain.reasons import Problem

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


_IAM = "policies/iam-guard.json"

_REPAIR = (
    "Check that the key has the tag xray-guard=managed and that its policy has the account's root statement; "
    f"statement RepairKeysTaggedAsOwn of {_IAM} needs both."
)

_IF_DENIED = {
    "xray:PutEncryptionConfig": (
        "If IAM allows xray:PutEncryptionConfig, X-Ray could not create its grant on the key: remove "
        "kms:GrantIsForAWSResource, and if that is not enough kms:ViaService, "
        f"from statement LetXRayUseTheKey of {_IAM}, and deploy."
    ),
    "xray:GetServiceGraph": (
        f"Allow the guard's role what the message names ({_IAM}), or set `when` of the rule to `always`."
    ),
    "kms:CreateKey": (
        "Create the key yourself (docs/first-hour.md says how), or remove the aws:RequestTag conditions for the action "
        f"that the message names from statement MakeKeysTaggedAsOwn of {_IAM}, and deploy."
    ),
    "kms:PutKeyPolicy": _REPAIR,
    "kms:EnableKey": _REPAIR,
    "kms:CancelKeyDeletion": _REPAIR,
    "kms:EnableKeyRotation": _REPAIR,
    "kms:CreateAlias": f"Check that the key has the tag xray-guard=managed; {_IAM} allows no other key.",
    "kms:UpdateAlias": (
        f"Statements TakeTheAliasOffTheKeyThatHoldsIt and OnlyTheAliasesOfTheRules of {_IAM} must name the alias: "
        "package the policy in force again, and deploy."
    ),
}

REMEDIES = MappingProxyType(
    {
        **{(operation, code): text for operation, text in _IF_DENIED.items() for code in DENIED},
        ("xray:PutEncryptionConfig", "InvalidRequestException"): (
            "If KMS shows the key as enabled and the message speaks of a grant or a permission, widen statement "
            f"LetXRayUseTheKey of {_IAM}, and deploy."
        ),
        ("kms:PutKeyPolicy", "MalformedPolicyDocumentException"): (
            "If the message says that the policy could not be updated in the future, KMS does not see the role's "
            "right to: put this action's policy on the key yourself (docs/first-hour.md says how)."
        ),
    }
)
"""What an operator does about a refusal, by operation and code. docs/aws-assumptions.md says which belief is wrong."""

BEYOND_THE_ROLE = ("explicit deny", "service control policy", "permissions boundary")
"""How AWS's messages tell of a refusal that no right of the role's can mend."""

LONGEST_MESSAGE = 1000


def remedy(operation: str, code: str, message: str = "") -> str | None:
    """Return what to do about a refused call, or None where there is nothing better than AWS's own message.

    An explicit deny, and what the organization or a permissions boundary leaves out, have no remedy here: the guard's
    own rights cannot overrule it.
    """
    return None if any(sign in message for sign in BEYOND_THE_ROLE) else REMEDIES.get((operation, code))


def _with_remedy(operation: str, code: str, message: str) -> str:
    advice = remedy(operation, code, message)
    ending = f"{'' if message.endswith(('.', '!', '?')) else '.'} {advice}" if advice else ""
    return f"{operation}: {message}"[: LONGEST_MESSAGE - len(ending)] + ending


class GuardError(Exception):
    """What was expected to be possible and was not. Carries the Problem that goes on the record."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.message}")
        self.problem = problem


class AwsError(GuardError):
    """An AWS call failed. `code` is AWS's own, or UNANSWERED; `operation` is the API's name for the call.

    `effect_unknown`: the call may have taken effect all the same, for AWS answered with a fault of its own (5xx), with
    what could not be read, or not at all. The Problem's message ends with the remedy, where there is one.

    `cancellation_reasons`: DynamoDB's code for each item of a cancelled transaction, in their order; `None` (the text)
    for an item that is not a reason. Empty for every other error.
    """

    def __init__(
        self,
        operation: str,
        code: str,
        message: str,
        request_id: str | None = None,
        *,
        effect_unknown: bool = False,
        cancellation_reasons: tuple[str, ...] = (),
    ) -> None:
        text = _with_remedy(operation, code, message)
        super().__init__(Problem(code, text, retryable=code not in TERMINAL_CODES))
        self.operation = operation
        self.code = code
        self.request_id = request_id
        self.effect_unknown = effect_unknown or code == UNANSWERED
        self.cancellation_reasons = cancellation_reasons


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
