"""The labels and explanations that every face shows for the codes of outcomes, violations, triggers and reasons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chalicelib.domain.model import TriggerKind
from chalicelib.domain.reasons import Outcome, Reason, Violation

OUTCOME_LABELS = {outcome: outcome.value.capitalize() for outcome in Outcome}
"""One label for one outcome on every face: the code, capitalized."""

OUTCOME_MEANINGS = {
    Outcome.COMPLIANT: "the setting and the key satisfy the rule",
    Outcome.REMEDIATED: "X-Ray reports the required key with status ACTIVE",
    Outcome.REMEDIATING: "a remediation is in progress",
    Outcome.APPLIED: "X-Ray accepted the required key and is still UPDATING",
    Outcome.OBSERVED: "noncompliant; the guard reports it and changes nothing",
    Outcome.SUPPRESSED: "noncompliant; break-glass is in force",
    Outcome.DEFERRED: "noncompliant; remediation waits and is retried",
    Outcome.FAILED: "remediation failed and is retried; a person must act",
    Outcome.IGNORED: "nothing to judge: a failed call, a target outside the policy, or a note about the guard",
}

VIOLATIONS = {
    Violation.NOT_KMS: ("no KMS key", "X-Ray does not encrypt traces with a KMS key"),
    Violation.AWS_MANAGED_KEY: ("AWS managed key", "the rule requires a customer managed key"),
    Violation.KEY_NOT_ALLOWED: ("key not allowed", "the rule does not allow this key"),
    Violation.KEY_NOT_FOUND: ("key not found", "the key does not exist"),
    Violation.KEY_DISABLED: ("key disabled", "X-Ray stores no traces while its key is disabled"),
    Violation.KEY_PENDING_DELETION: ("key pending deletion", "KMS will delete the key"),
    Violation.KEY_UNAVAILABLE: ("key unavailable", "the key cannot be used, and the guard cannot repair it"),
    Violation.KEY_ASYMMETRIC: ("key not symmetric", "X-Ray requires a symmetric encryption key"),
    Violation.KEY_FOREIGN_ACCOUNT: ("key of another account", "the rule requires a key of the same account"),
    Violation.KEY_ROTATION_OFF: ("key rotation off", "the rule requires key rotation"),
    Violation.KEY_POLICY_INCOMPLETE: ("key policy incomplete", "the key policy lacks a statement or denies X-Ray"),
    Violation.ALIAS_MOVED: ("alias moved", "the rule's alias points to another key than the managed key"),
}
"""Each violation's label and its meaning."""

TRIGGERS = {
    TriggerKind.CHANGE: "change event (X-Ray setting)",
    TriggerKind.KEY: "change event (KMS key)",
    TriggerKind.SWEEP: "sweep (every hour)",
    TriggerKind.TICK: "scheduled check (every minute)",
    TriggerKind.CONFIG: "AWS Config",
    TriggerKind.OPERATOR: "operator",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happened, what it means, and what to do, a sentence or two each."""

    happened: str
    meaning: str
    action: str

    def __str__(self) -> str:
        return f"{self.happened} {self.meaning} {self.action}"


EXPLANATIONS = {
    (Outcome.DEFERRED, Reason.SETTLING): Explanation(
        "AWS has not finished an earlier change: X-Ray is UPDATING, or KMS does not show a recent change yet.",
        "The target is still noncompliant. The guard retries within a minute and records FAILED after 15 minutes.",
        "No action is needed.",
    ),
    (Outcome.DEFERRED, "BACKOFF"): Explanation(
        "Another principal keeps undoing the remediation.",
        "The target is still noncompliant. The guard waits longer before each attempt.",
        "Stop the automation that the record names under `against`, or open a break-glass.",
    ),
    (Outcome.DEFERRED, "PAUSED"): Explanation(
        "The guard is paused.",
        "The target is still noncompliant. The guard records drift and changes nothing.",
        "Run `xray-guard resume` when the reason for the pause no longer applies.",
    ),
    (Outcome.DEFERRED, "BLAST_RADIUS"): Explanation(
        "The sweep remediated as many targets as `limits.remediations_per_sweep` allows.",
        "The target is still noncompliant. A later sweep remediates it.",
        "No action is needed. To remediate it now, run `xray-guard reconcile TARGET --yes`.",
    ),
    (Outcome.DEFERRED, "IN_PROGRESS"): Explanation(
        "Another worker is remediating this target.",
        "This event is recorded. The other worker's remediation covers it.",
        "No action is needed.",
    ),
    (Outcome.IGNORED, Reason.REGION_DENIED): Explanation(
        "An organization policy denies the guard access to this Region.",
        "The guard enforces nothing here. It tries again at each sweep.",
        "If the Region must be guarded, ask the owner of the service control policies to allow the guard's role.",
    ),
    (Outcome.IGNORED, "IDLE"): Explanation(
        "X-Ray was never encrypted here and received no traces for six hours.",
        'The rule applies only to Regions in use (`"when": "in-use"`), so the guard changes nothing.',
        "No action is needed.",
    ),
    (Outcome.IGNORED, "UNGOVERNED"): Explanation(
        "No rule of the policy matches this target.",
        "The guard does not judge or change it.",
        "To guard it, add a rule that matches it and deploy the policy.",
    ),
    (Outcome.IGNORED, "RULE_OFF"): Explanation(
        'The rule of this target has `"mode": "off"`.',
        "The guard does not judge or change the target.",
        'To guard it, set the mode to `"observe"` or `"enforce"` and deploy the policy.',
    ),
    (Outcome.OBSERVED, "RULE_OBSERVES"): Explanation(
        'The target is noncompliant and its rule has `"mode": "observe"`.',
        "The guard reports the drift and changes nothing.",
        'To remediate it, set the mode to `"enforce"` and deploy the policy.',
    ),
}
"""By outcome and reason. A FAILED record carries its own error with the remedy, so it is not here."""


def explanation(outcome: Outcome | None, reason: str | None) -> Explanation | None:
    """Explain an outcome with its reason. None where the codes say everything."""
    return EXPLANATIONS.get((outcome, reason)) if outcome and reason else None


def legend(codes: Iterable[tuple[Outcome | None, str | None]]) -> list[str]:
    """Explain each reason once, in the order of first appearance, as `REASON: what happened, ...`."""
    seen = dict.fromkeys(codes)
    return [f"{reason}: {found}" for outcome, reason in seen if (found := explanation(outcome, reason))]
