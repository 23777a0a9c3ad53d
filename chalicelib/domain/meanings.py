"""What each code means and what an operator does about it. For people: the functions do not load this module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from chalicelib.domain.reasons import Outcome, Reason, Violation


class Meaning(NamedTuple):
    """`text` says what happened; `remedy` says what to do."""

    text: str
    remedy: str


NOTHING = "Nothing."
WAIT = "Nothing: the guard checks again within a minute."
WAIT_FOR_LEASE = "Nothing: the guard checks again when the lease ends."
REPORT = "Read the function's log for the record's time, and report the error to the guard's maintainers."
FIX_POLICY = "Run `xray-guard policy validate`, then package and deploy again."

OUTCOMES: Mapping[Outcome, Meaning] = {
    Outcome.COMPLIANT: Meaning("The target meets its rule.", NOTHING),
    Outcome.OBSERVED: Meaning(
        "The target is noncompliant, and the guard leaves it as it is.", "Read the reason, and remediate by hand."
    ),
    Outcome.REMEDIATING: Meaning(
        "A worker begins an attempt; nothing was changed before this record.", "Wait for the record that ends it."
    ),
    Outcome.SUPPRESSED: Meaning(
        "A break-glass is in force, so the guard does not remediate.", "Close the break-glass when it is over."
    ),
    Outcome.APPLIED: Meaning("X-Ray accepted the wanted key and is still UPDATING.", WAIT),
    Outcome.DEFERRED: Meaning("The guard does not act now and checks again later.", "Read the reason."),
    Outcome.REMEDIATED: Meaning("X-Ray answered with the wanted key and the status ACTIVE.", NOTHING),
    Outcome.FAILED: Meaning(
        "The guard could not read or remediate the target; it retries more and more slowly.",
        "Read the reason and the error, and fix the cause.",
    ),
    Outcome.IGNORED: Meaning("The guard judged nothing, or the record is a note.", "Read the reason."),
}

VIOLATIONS: Mapping[Violation, Meaning] = {
    Violation.NOT_KMS: Meaning("X-Ray does not encrypt traces with a KMS key.", NOTHING),
    Violation.AWS_MANAGED_KEY: Meaning(
        "X-Ray uses the AWS managed key, and the rule requires a customer managed key.", NOTHING
    ),
    Violation.KEY_NOT_ALLOWED: Meaning(
        "X-Ray uses a key that the rule does not allow.", "Add the key to the rule's `allowed_keys` if it is wanted."
    ),
    Violation.KEY_NOT_FOUND: Meaning(
        "The key does not exist.", "If the managed key is gone for good, run `xray-guard key replace`."
    ),
    Violation.KEY_DISABLED: Meaning(
        "The key is disabled, so X-Ray cannot store traces.", "Enable the key if the guard may not change it."
    ),
    Violation.KEY_PENDING_DELETION: Meaning(
        "The key is scheduled for deletion.", "Cancel its deletion if the guard may not change it."
    ),
    Violation.KEY_UNAVAILABLE: Meaning(
        "The key cannot be used, and the guard cannot repair it.", "Ask the key's owner to make it available."
    ),
    Violation.KEY_ASYMMETRIC: Meaning(
        "The key is not a symmetric encryption key, which X-Ray needs.", "Point the rule's alias at another key."
    ),
    Violation.KEY_FOREIGN_ACCOUNT: Meaning(
        "The key belongs to another account, and the rule requires the target's own.", NOTHING
    ),
    Violation.KEY_ROTATION_OFF: Meaning(
        "The key does not rotate, and the rule requires rotation.", "Turn rotation on if the guard may not."
    ),
    Violation.KEY_POLICY_INCOMPLETE: Meaning(
        "The key's policy lacks a required statement, or may deny X-Ray the use of the key.",
        "Compare it with `policies/key-policy.json` if the guard may not change it.",
    ),
    Violation.ALIAS_MOVED: Meaning(
        "The rule's alias points at another key than the recorded one.", "Find out who moved the alias."
    ),
}

REASONS: Mapping[Reason, Meaning] = {
    Reason.UNGOVERNED: Meaning("No rule of the policy matches the target.", "Add a rule if the target needs one."),
    Reason.RULE_OFF: Meaning("The target's rule has the mode `off`.", "Change the mode to judge the target."),
    Reason.IDLE: Meaning("The target never used encryption and shows no traces, under `when: in-use`.", NOTHING),
    Reason.ACCOUNT_NOT_OURS: Meaning(
        "The event is from an account that this guard does not serve.", "Check which events reach the guard."
    ),
    Reason.REGION_DENIED: Meaning(
        "A service control policy denies the guard this Region.", "Allow the guard's role there, or leave it denied."
    ),
    Reason.RULE_OBSERVES: Meaning(
        "The target's rule has the mode `observe`.", "Change the mode to `enforce` to have it remediated."
    ),
    Reason.BREAK_GLASS: Meaning("A break-glass suppresses this drift.", "Run `xray-guard break-glass list`."),
    Reason.PAUSED: Meaning("An operator paused the guard.", "Run `xray-guard resume` when the reason is gone."),
    Reason.BACKOFF: Meaning(
        "Something keeps undoing the remediation, so the guard slows down.",
        "Stop the automation that `against` names; `xray-guard reconcile` does not wait.",
    ),
    Reason.BLAST_RADIUS: Meaning(
        "This sweep has changed as many targets as the policy allows.", "Nothing: the next sweep goes on."
    ),
    Reason.SETTLING: Meaning("AWS has not finished, or still shows a former state.", WAIT),
    Reason.IN_PROGRESS: Meaning("Another worker holds the lease on the target.", WAIT_FOR_LEASE),
    Reason.LEASE_OVER: Meaning("The worker's lease ended before its work did; another run takes over.", WAIT_FOR_LEASE),
    Reason.UPDATING: Meaning("The wanted key is set, and X-Ray is still UPDATING.", WAIT),
    Reason.ECHO: Meaning("The event is the guard's own change.", NOTHING),
    Reason.NOT_OURS: Meaning("The event is about a key or an alias that the target does not use.", NOTHING),
    Reason.NOT_DUE: Meaning("The target is not due yet.", NOTHING),
    Reason.ALIAS_TAKEN: Meaning("Somebody else created the rule's alias first.", WAIT),
    Reason.KEY_CREATION_UNCERTAIN: Meaning("The response to CreateKey was lost, so a key may exist.", WAIT),
    Reason.KEY_NOT_YET_SEEN: Meaning("KMS does not show the new key yet.", WAIT),
    Reason.KEY_REFUSED: Meaning(
        "X-Ray refuses a key that KMS shows as usable.", "If it becomes FAILED, check the key's grants and policy."
    ),
    Reason.NOT_YET_TAKEN: Meaning("AWS accepted a change and does not show it yet, or refuses one meanwhile.", WAIT),
    Reason.XRAY_UPDATING: Meaning("X-Ray is UPDATING and refuses another change.", WAIT),
    Reason.KEY_BEYOND_REPAIR: Meaning(
        "The managed key is gone, or cannot be X-Ray's key.", "Make sure of it, then run `xray-guard key replace`."
    ),
    Reason.KEY_NOT_OURS: Meaning(
        "X-Ray uses an allowed key that works and does not rotate; it is its owner's to fix.",
        "Turn rotation on, or tag the key `xray-guard=managed` and put the rule's alias on it.",
    ),
    Reason.KEY_NOT_PROVED: Meaning(
        "KMS's last answer does not prove that X-Ray can use the key.", "Check the key's state and its policy."
    ),
    Reason.KEY_NOT_ROTATABLE: Meaning(
        "KMS cannot rotate the key, because its material was imported or is held elsewhere.",
        "Run `xray-guard key replace`, or set the rule's `rotation` to false.",
    ),
    Reason.KEY_NOT_TAGGED: Meaning(
        "The key needs a repair and is not tagged as the guard's.", "Tag it `xray-guard=managed`, or repair it."
    ),
    Reason.KEY_POLICY_DENIES: Meaning(
        "A Deny in the key's policy may keep X-Ray from the key.", "Remove or narrow the statement that is named."
    ),
    Reason.KEY_POLICY_TOO_LONG: Meaning(
        "With the missing statements the key's policy would exceed KMS's limit.", "Shorten the key's policy."
    ),
    Reason.KEY_POLICY_UNREADABLE: Meaning(
        "The guard cannot understand the key's policy, and does not change it.", "Fix the policy's text."
    ),
    Reason.KEY_UNAVAILABLE: Meaning(
        "The key is in a state that only its owner can change.", "Ask the key's owner to make it available."
    ),
    Reason.NO_MANAGED_KEY: Meaning("The target has no managed key to replace.", "Run `xray-guard status`."),
    Reason.BUSY: Meaning("Every attempt at a write met another writer.", "Try again."),
    Reason.CHANGED_AGAIN: Meaning(
        "Somebody changed the setting while the guard remediated it.", "Read who did it: `xray-guard history`."
    ),
    Reason.INTERNAL_ERROR: Meaning("The guard has a fault of its own.", REPORT),
    Reason.TOO_MANY_STEPS: Meaning(
        "More changes than any repair needs did not lead to what the rule requires.", REPORT
    ),
    Reason.UPDATING_TOO_LONG: Meaning(
        "X-Ray has been UPDATING for more than half an hour.", "Check X-Ray; open a case with AWS Support if it stays."
    ),
    Reason.WORKER_LOST: Meaning(
        "A worker ended without a result; the run that found this takes over.",
        "Nothing, unless it repeats: then read the function's log.",
    ),
    Reason.NOT_A_TARGET: Meaning(
        "An item of the targets table is not a target.", "Find out who wrote the item, and remove it."
    ),
    Reason.NO_REGIONS: Meaning(
        "The sweep could not list the account's Regions.", "Allow the guard's role `ec2:DescribeRegions`."
    ),
    Reason.OUT_OF_TIME: Meaning(
        "The sweep ended before it reached the target.", "Nothing: the next sweep begins with it."
    ),
    Reason.ANCHOR: Meaning("Part of the chains' heads, for integrity.", NOTHING),
    Reason.BREAK_GLASS_ENDED: Meaning("A break-glass no longer counts; the record says why.", NOTHING),
    Reason.BREAK_GLASS_OPENED: Meaning("A break-glass came into force.", "Make sure that it is wanted."),
    Reason.BREAK_GLASS_REFUSED: Meaning(
        "A break-glass value does not count; the record says why.", "Set another value, if it is wanted."
    ),
    Reason.KEY_REPLACED: Meaning("An operator gave up the managed key.", "Keep the old key: old traces need it."),
    Reason.POLICY_IN_FORCE: Meaning("The guard ran under a new policy for the first time.", NOTHING),
    Reason.RESUMED: Meaning("An operator ended the pause.", NOTHING),
    Reason.ROLE_BORROWED: Meaning(
        "The guard's role made a call that the guard did not make.",
        "Treat the role's credentials as stolen: revoke its sessions, and check who can change the functions.",
    ),
    Reason.SWEEP: Meaning(
        "A sweep ended; the record holds its outcomes and the chains' heads.", "If it FAILED, read `unreached`."
    ),
    Reason.ACCOUNT_INVALID: Meaning("The event's account is not 12 digits.", "Find out who sent the event."),
    Reason.ACCOUNT_MISSING: Meaning("The event names no account.", "Find out who sent the event."),
    Reason.DETAIL_MISSING: Meaning("The event has no detail.", "Find out who sent the event."),
    Reason.DETAIL_OMITTED: Meaning(
        "EventBridge left out the event's detail because of its size.", "Run `xray-guard reconcile` on the target."
    ),
    Reason.NOT_AN_OBJECT: Meaning("The event is not a JSON object.", "Find out who sent the event."),
    Reason.NOT_OUR_EVENT: Meaning(
        "The event is of a kind that the guard does not handle.", "Check the rules that invoke the guard."
    ),
    Reason.REGION_INVALID: Meaning("The event's Region is not a Region's name.", "Find out who sent the event."),
    Reason.REGION_MISSING: Meaning("The event names no Region.", "Find out who sent the event."),
    Reason.TARGET_MISMATCH: Meaning("The event names two accounts or two Regions.", "Find out who sent the event."),
    Reason.POLICY_ABSENT: Meaning("The package has no policy document.", "Package and deploy again."),
    Reason.POLICY_ALTERED: Meaning("The policy document is not the one that was validated.", FIX_POLICY),
    Reason.POLICY_UNREADABLE: Meaning("The guard cannot read the policy document.", FIX_POLICY),
    Reason.POLICY_UNSTAMPED: Meaning("The policy document was not validated.", FIX_POLICY),
}
