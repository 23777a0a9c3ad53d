"""Which refusals pass by themselves: AWS has not finished, or still shows a former state. Pure."""

from __future__ import annotations

from datetime import datetime

from chalicelib.domain.errors import DENIED, AwsError
from chalicelib.domain.model import EncryptionStatus
from chalicelib.domain.reasons import Problem, Reason
from chalicelib.domain.steps import Step, StepName
from chalicelib.domain.stored import TargetState

OUTDATED = frozenset({"KMSInvalidStateException", "DisabledException"})
"""What KMS says of a key whose state is another than it showed."""


def refused_by_kms(step: Step, state: TargetState, error: AwsError, now: datetime) -> Problem | None:
    """Why KMS's refusal passes, or None where it does not.

    A new key is not yet known everywhere, and its tags may take minutes to count in authorization:
    https://docs.aws.amazon.com/kms/latest/developerguide/tag-authorization.html
    """
    until = state.incident.settles_until if state.incident else None
    if until is not None and now >= until:
        return None  # it did not pass: AWS's own words say more
    if error.code in OUTDATED or (step.name is StepName.UPDATE_ALIAS and error.code == "NotFoundException"):
        message = f"{step.name} is refused because of a state that KMS does not show: {error.problem.message}"
        return Problem(Reason.NOT_YET_TAKEN, message)
    passing = {*DENIED, "NotFoundException"}
    if step.name is StepName.PUT_KEY_POLICY:
        # KMS's check against a lock-out needs the caller's rights, which rest on those tags, and calls the policy
        # malformed where it does not see them.
        passing.add("MalformedPolicyDocumentException")
    is_new = step.key_arn in state.keys_made and state.recheck_at is not None and now < state.recheck_at
    if not is_new or error.code not in passing:
        return None
    return Problem(Reason.NOT_YET_TAKEN, f"{step.name} is refused while the new key settles: {error.problem.message}")


def may_be_updating(error: AwsError) -> bool:
    """Whether X-Ray's refusal of a key may be due to its being UPDATING, so that its status must be read."""
    return not error.effect_unknown and error.code not in DENIED


def refused_by_xray(step: Step, error: AwsError, status: EncryptionStatus | None) -> Problem | None:
    """Why X-Ray's refusal passes, or None where it does not; while X-Ray is UPDATING it says nothing of the key."""
    if status is not EncryptionStatus.ACTIVE:
        message = f"X-Ray is still UPDATING and refuses another change ({error.code}): tried again every minute"
        return Problem(Reason.XRAY_UPDATING, message)
    if error.code != "InvalidRequestException":
        return None
    message = f"X-Ray refuses {step.key_arn}, which KMS shows as usable: {error.problem.message}"
    return Problem(Reason.KEY_REFUSED, message)
