"""What each outcome and violation means, and what to do. For people: the functions do not load this module."""

from __future__ import annotations

from collections.abc import Mapping

from chalicelib.domain.meanings import NO_ACTION, WAIT, Meaning
from chalicelib.domain.reasons import Outcome, Violation

OUTCOMES: Mapping[Outcome, Meaning] = {
    Outcome.COMPLIANT: Meaning("Compliant", "The setting and the key satisfy the rule.", NO_ACTION),
    Outcome.OBSERVED: Meaning(
        "Observed",
        "The target is noncompliant. The guard reports it and changes nothing.",
        "Read the reason, and remediate by hand.",
    ),
    Outcome.REMEDIATING: Meaning(
        "Remediating",
        "A remediation is in progress. The guard stores this record before it changes anything.",
        "Wait for the record of the result.",
    ),
    Outcome.SUPPRESSED: Meaning(
        "Suppressed",
        "The target is noncompliant, and a break-glass suspends its remediation.",
        "Close the break-glass when it is no longer needed.",
    ),
    Outcome.APPLIED: Meaning("Applied", "X-Ray accepted the required key and is still UPDATING.", WAIT),
    Outcome.DEFERRED: Meaning(
        "Deferred", "The target is noncompliant. The remediation waits, and the guard retries it.", "Read the reason."
    ),
    Outcome.REMEDIATED: Meaning("Remediated", "X-Ray reports the required key with status ACTIVE.", NO_ACTION),
    Outcome.FAILED: Meaning(
        "Failed",
        "The guard could not read or remediate the target. It retries with backoff.",
        "Read the reason and the error, and fix the cause.",
    ),
    Outcome.IGNORED: Meaning(
        "Ignored",
        "The guard had nothing to judge: a failed call, a target outside the policy, or a note about the guard.",
        "Read the reason.",
    ),
}

VIOLATIONS: Mapping[Violation, Meaning] = {
    Violation.NOT_KMS: Meaning("no KMS key", "X-Ray does not encrypt traces with a KMS key.", NO_ACTION),
    Violation.AWS_MANAGED_KEY: Meaning(
        "AWS managed key", "X-Ray uses the AWS managed key, and the rule requires a customer managed key.", NO_ACTION
    ),
    Violation.KEY_NOT_ALLOWED: Meaning(
        "key not allowed",
        "X-Ray uses a key that the rule does not allow.",
        "If X-Ray should use this key, add it to the rule's `allowed_keys`.",
    ),
    Violation.KEY_NOT_FOUND: Meaning(
        "key not found", "The key does not exist.", "If the managed key was deleted, run `xray-guard key replace`."
    ),
    Violation.KEY_DISABLED: Meaning(
        "key disabled",
        "The key is disabled, so X-Ray cannot store traces.",
        "If the guard is not allowed to change the key, enable it.",
    ),
    Violation.KEY_PENDING_DELETION: Meaning(
        "key pending deletion",
        "The key is scheduled for deletion, so it cannot be used.",
        "If the guard is not allowed to change the key, cancel its deletion.",
    ),
    Violation.KEY_UNAVAILABLE: Meaning(
        "key unavailable",
        "The key cannot be used, and the guard cannot repair it.",
        "Ask the owner of the key to make it available.",
    ),
    Violation.KEY_ASYMMETRIC: Meaning(
        "key not symmetric",
        "The key is not a symmetric encryption key, and X-Ray requires one.",
        "Point the rule's alias to another key.",
    ),
    Violation.KEY_FOREIGN_ACCOUNT: Meaning(
        "key of another account",
        "The key belongs to another account, and the rule requires a key of the target's account.",
        NO_ACTION,
    ),
    Violation.KEY_ROTATION_OFF: Meaning(
        "key rotation off",
        "Automatic rotation of the key is off, and the rule requires it.",
        "If the guard is not allowed to change the key, enable rotation.",
    ),
    Violation.KEY_POLICY_INCOMPLETE: Meaning(
        "key policy incomplete",
        "The key policy lacks a required statement, or may deny X-Ray the use of the key.",
        "If the guard is not allowed to change the key, compare its policy with `policies/key-policy.json`.",
    ),
    Violation.KEY_POLICY_OPEN: Meaning(
        "key policy open",
        "The policy of the managed key lets in principals outside the account, or everybody.",
        "Remove or narrow the statement that the record names. The guard never removes a statement.",
    ),
    Violation.ALIAS_MOVED: Meaning(
        "alias moved",
        "The rule's alias points to another key than the managed key.",
        "Find out who moved the alias: `xray-guard history`.",
    ),
    Violation.KEY_ROTATION_SLOW: Meaning(
        "key rotation slow",
        "The managed key rotates more seldom than every `rotation_days` of the rule.",
        "If the guard is not allowed to change the key, enable rotation with that period.",
    ),
    Violation.SPANS_NOT_KMS: Meaning(
        "spans without KMS key",
        "CloudWatch Logs stores spans without a KMS key. X-Ray's encryption setting does not cover them.",
        NO_ACTION,
    ),
    Violation.SPANS_KEY_NOT_ALLOWED: Meaning(
        "key of spans not allowed",
        "CloudWatch Logs encrypts spans with a key that the rule does not allow.",
        "If it should use this key, add it to the rule's `allowed_keys`.",
    ),
    Violation.SPANS_KEY_UNUSABLE: Meaning(
        "key of spans unusable",
        "CloudWatch Logs cannot use its key for spans: the key is not enabled, or its policy does not allow it.",
        "If the guard is not allowed to change the key, enable it, or add the statement that the record names.",
    ),
    Violation.SPANS_FORBIDDEN: Meaning(
        "spans forbidden",
        "X-Ray sends spans to CloudWatch Logs, and the rule forbids it.",
        "Send spans to X-Ray again: `aws xray update-trace-segment-destination --destination XRay`.",
    ),
    Violation.TRACES_COPIED: Meaning(
        "traces copied",
        "A link copies traces to an account that the rule does not allow.",
        "Delete the link that the record names, or add its account to the rule's `copies_to`.",
    ),
}
