"""The two kinds of failure, retryable and terminal, and the one table that maps AWS's error codes to them.

An unknown code is retryable: giving up on an error that the guard does not know would leave a drift in place.
"""

from __future__ import annotations

from types import MappingProxyType

from chalicelib.domain.reasons import Problem, Reason

TERMINAL_CODES = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AlreadyExistsException",
        "InvalidAliasNameException",
        "InvalidArnException",
        "InvalidParameterException",
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
"""Sending the same call again now fails the same way. The loop still retries, with a growing backoff."""

DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
"""The codes by which AWS services deny a call for lack of permission."""

UNANSWERED = "NoAnswer"
"""The code for a call that was sent and whose effect is unknown: a timeout or a broken connection."""


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

_IF_OWN_DENY = (
    f"If statement ChangeOnlyFromOwnFunctions of {_IAM} lists the action, and one of the guard's functions made the "
    "call, AWS did not name the function: remove that statement, and deploy."
)

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
"""What an operator does about a refusal, by operation and code. docs/aws-assumptions.md names the wrong assumption."""

OWN_DENY = "explicit deny in an identity-based policy"
"""What AWS's message contains if a policy of the role itself denies the call."""

BEYOND_THE_ROLE = ("explicit deny", "service control policy", "permissions boundary")
"""What AWS's message contains if no permission of the role can change the refusal."""

LONGEST_MESSAGE = 1000


def remedy(operation: str, code: str, message: str = "") -> str | None:
    """Return what to do about a refused call, or None if AWS's own message says enough.

    A refusal by a service control policy, a permissions boundary or another explicit deny than that of the role's own
    policy has no remedy here: the guard's own permissions cannot override it.
    """
    if code in DENIED and OWN_DENY in message:
        return _IF_OWN_DENY
    return None if any(sign in message for sign in BEYOND_THE_ROLE) else REMEDIES.get((operation, code))


def _with_remedy(operation: str, code: str, message: str) -> str:
    advice = remedy(operation, code, message)
    ending = f"{'' if message.endswith(('.', '!', '?')) else '.'} {advice}" if advice else ""
    return f"{operation}: {message}"[: LONGEST_MESSAGE - len(ending)] + ending


class GuardError(Exception):
    """An operation failed that was expected to succeed. Carries the Problem that is recorded."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.message}")
        self.problem = problem


class AwsError(GuardError):
    """An AWS call failed. `code` is AWS's error code, or UNANSWERED; `operation` is like `kms:CreateKey`.

    `effect_unknown`: the call may have taken effect, because AWS returned a server error (5xx), a response that cannot
    be parsed, or none. The Problem's message ends with the remedy, if there is one.

    `cancellation_reasons`: DynamoDB's code for each item of a cancelled transaction, in order; the text `None` for an
    item that did not cancel it. Empty for every other error.
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
    """The tables could not be read or written. A failed write may have been stored."""


def denies_region(error: GuardError) -> bool:
    """Whether a service control policy denies the guard GetEncryptionConfig, and thus the Region."""
    return (
        isinstance(error, AwsError)
        and error.operation.endswith("GetEncryptionConfig")
        and denied_by_organization(error)
    )


def denied_by_organization(error: AwsError) -> bool:
    """Whether a service control policy denied the call: AWS's message names the type of the policy.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
    """
    return error.code in DENIED and "service control policy" in error.problem.message


class Conflict(Exception):
    """Another writer changed the target's state before this write: observe again from the start."""


class LeaseOver(Exception):
    """The lease ended, or another worker holds it: send no more mutations."""


class FormatTooNew(GuardError):
    """A newer release of the guard stored the state of `name`: this release must neither read nor replace it."""

    def __init__(self, name: str, stored: int, known: int) -> None:
        message = (
            f"a newer release of the guard stored the state of {name}, in format {stored}. This release knows formats "
            f"up to {known}, so it changed nothing. Use the newer release."
        )
        super().__init__(Problem(Reason.FORMAT_TOO_NEW, message, retryable=False))


class StateEdited(GuardError):
    """The stored state of `name` claims the format of an earlier release, and was protected before."""

    def __init__(self, name: str) -> None:
        message = (
            f"somebody edited the stored state of {name}: it claims to be of an earlier release, but this release has "
            "stored it before. The guard changed nothing. Run `xray-guard audit verify`, and follow docs/deploy.md."
        )
        super().__init__(Problem(Reason.STATE_EDITED, message, retryable=False))


class KeyNotOnRecord(GuardError):
    """The stored state of `name` names `key`, an ARN or a nonce, and the audit log has no row of it."""

    def __init__(self, name: str, key: str) -> None:
        message = (
            f"somebody edited the stored state of {name}: it names {key}, which the guard never recorded. The guard "
            "changed nothing. Run `xray-guard audit verify`, and follow docs/deploy.md."
        )
        super().__init__(Problem(Reason.KEY_NOT_ON_RECORD, message, retryable=False))
        self.key = key


class Busy(GuardError):
    """Every attempt at one write conflicted with another writer."""
