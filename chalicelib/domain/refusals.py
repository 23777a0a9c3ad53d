"""Which failures pass by themselves: AWS has not finished a change, or still shows the former state. Pure."""

from __future__ import annotations

from datetime import datetime

from chalicelib.domain.errors import DENIED, AwsError
from chalicelib.domain.model import EncryptionStatus
from chalicelib.domain.reasons import Problem, Reason
from chalicelib.domain.steps import Step, StepName
from chalicelib.domain.stored import Record, TargetState

OUTDATED = frozenset({"KMSInvalidStateException", "DisabledException"})
"""KMS's codes for a key whose state is not the one that KMS last showed."""

TRIES = 3
"""The number of consecutive tries at which a retryable error of AWS (throttling, no answer) counts as a failure."""


def refused_by_kms(step: Step, state: TargetState, error: AwsError, now: datetime) -> Problem | None:
    """Return why KMS's refusal passes by itself, or None if it does not.

    A new key is not visible everywhere yet, and its tags may take minutes to affect authorization:
    https://docs.aws.amazon.com/kms/latest/developerguide/tag-authorization.html
    """
    until = state.incident.settles_until if state.incident else None
    if until is not None and now >= until:
        return None  # it did not pass: AWS's own error says more
    if error.code in OUTDATED or (step.name is StepName.UPDATE_ALIAS and error.code == "NotFoundException"):
        message = f"KMS refuses {step.name} because of a key state that it does not show yet: {error.problem.message}"
        return Problem(Reason.NOT_YET_TAKEN, message)
    passing = {*DENIED, "NotFoundException"}
    if step.name is StepName.PUT_KEY_POLICY:
        # KMS's lock-out safety check needs the caller's permissions, which depend on those tags. While it does not see
        # them, it calls the policy malformed.
        passing.add("MalformedPolicyDocumentException")
    is_new = step.key_arn in state.keys_made and state.recheck_at is not None and now < state.recheck_at
    if not is_new or error.code not in passing:
        return None
    return Problem(Reason.NOT_YET_TAKEN, f"KMS refuses {step.name} while the new key settles: {error.problem.message}")


def refused_by_logs(step: Step, state: TargetState, error: AwsError, now: datetime) -> Problem | None:
    """Return why the refusal of CloudWatch Logs passes by itself, or None if it does not.

    It checks the key by its policy, which KMS may not show everywhere yet. A denial of the guard's own role says so.
    """
    until = state.incident.settles_until if state.incident else None
    if (until is not None and now >= until) or "not authorized" in error.problem.message:
        return None
    if error.code not in (*DENIED, "InvalidParameterException", "OperationAbortedException"):
        return None
    message = f"CloudWatch Logs refuses {step.key_arn}, although KMS shows it as usable: {error.problem.message}"
    return Problem(Reason.KEY_REFUSED, message)


def may_be_updating(error: AwsError) -> bool:
    """Whether X-Ray may have refused a key because it is UPDATING, so that its status must be read."""
    return not error.effect_unknown and error.code not in DENIED


def refused_by_xray(step: Step, error: AwsError, status: EncryptionStatus | None) -> Problem | None:
    """Return why X-Ray's refusal passes by itself, or None. While UPDATING, a refusal says nothing about the key."""
    if status is not EncryptionStatus.ACTIVE:
        message = f"X-Ray is still UPDATING and refuses another change ({error.code}); the guard retries every minute"
        return Problem(Reason.XRAY_UPDATING, message)
    if error.code != "InvalidRequestException":
        return None
    message = f"X-Ray refuses {step.key_arn}, although KMS shows it as usable: {error.problem.message}"
    return Problem(Reason.KEY_REFUSED, message)


def passes_by_itself(record: Record) -> bool:
    """Whether a failure will probably pass by itself: a lost worker, or the first tries after a retryable error."""
    tries = record.detail.get("tries", TRIES)
    retryable = record.error is not None and record.error.retryable
    return record.reason == Reason.WORKER_LOST or (retryable and isinstance(tries, int) and tries < TRIES)
