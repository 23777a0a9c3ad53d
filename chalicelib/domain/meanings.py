"""The label, the meaning and the remedy of each reason. For people: the functions do not load this module.

Those of outcomes and violations are in `outcome_meanings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from chalicelib.domain.reasons import NOTES, Outcome, Reason


class Meaning(NamedTuple):
    """`label` is the short form, `text` says what happened and what it means, `remedy` says what to do."""

    label: str
    text: str
    remedy: str


NO_ACTION = "No action is needed."
WAIT = "No action is needed: the guard checks again within a minute."
WAIT_FOR_LEASE = "No action is needed: the guard checks again when the lease ends."
CHECK_SENDER = "Find out who sent the event."
REPORT = "Read the function's log at the time of the record, and report the error to the guard's maintainers."
FIX_POLICY = "Run `xray-guard policy validate`, then package and deploy again."

REASONS: Mapping[Reason, Meaning] = {
    Reason.UNGOVERNED: Meaning(
        "no rule",
        "No rule of the policy matches this target. The guard does not judge or change it.",
        "To guard it, add a rule that matches it and deploy the policy.",
    ),
    Reason.RULE_OFF: Meaning(
        "rule off",
        'The rule of this target has `"mode": "off"`. The guard does not judge or change the target.',
        'To guard it, set the mode to `"observe"` or `"enforce"` and deploy the policy.',
    ),
    Reason.IDLE: Meaning(
        "idle",
        "X-Ray was never encrypted here and received no traces for six hours. The rule applies only to Regions in use "
        '(`"when": "in-use"`), so the guard changes nothing.',
        NO_ACTION,
    ),
    Reason.ACCOUNT_NOT_OURS: Meaning(
        "account not ours",
        "The event belongs to an account that this guard does not serve. The guard changes nothing.",
        "Check which events the rules send to the guard.",
    ),
    Reason.REGION_DENIED: Meaning(
        "Region denied",
        "An organization policy denies the guard access to this Region. The guard enforces nothing here. It "
        "tries again at each sweep.",
        "If the Region must be guarded, ask the owner of the service control policies to allow the guard's role.",
    ),
    Reason.RULE_OBSERVES: Meaning(
        "rule observes",
        'The target is noncompliant and its rule has `"mode": "observe"`. The guard reports the drift and changes '
        "nothing.",
        'To remediate it, set the mode to `"enforce"` and deploy the policy.',
    ),
    Reason.RIGHTS_OBSERVE: Meaning(
        "rights observe",
        "The target is noncompliant, and the guard's role may only read: the guard was deployed with `Rights=observe`. "
        "It reports the drift and changes nothing.",
        "To remediate it, deploy with `RIGHTS=enforce`.",
    ),
    Reason.BREAK_GLASS: Meaning(
        "break-glass",
        "A break-glass suspends the remediation of this target.",
        "To see who opened it and until when, run `xray-guard break-glass list`.",
    ),
    Reason.PAUSED: Meaning(
        "paused",
        "An operator paused the guard. It records drift and changes nothing, so a noncompliant target stays so.",
        "Run `xray-guard resume` when the reason for the pause no longer applies.",
    ),
    Reason.BACKOFF: Meaning(
        "backoff",
        "Another principal keeps undoing the remediation. What remains is still noncompliant. The guard waits longer "
        "before each attempt, and remediates everything else at once.",
        "Stop the automation that the record names under `against`, or open a break-glass. `xray-guard reconcile` does "
        "not wait for the backoff to end.",
    ),
    Reason.BLAST_RADIUS: Meaning(
        "blast radius",
        "The sweep remediated as many targets as `limits.remediations_per_sweep` allows. The target is still "
        "noncompliant. A later sweep remediates it.",
        "No action is needed. To remediate it now, run `xray-guard reconcile TARGET --yes`.",
    ),
    Reason.SETTLING: Meaning(
        "settling",
        "AWS has not finished an earlier change: X-Ray is UPDATING, or KMS does not show a recent change yet. The "
        "target is still noncompliant. The guard retries within a minute and records FAILED after 15 minutes.",
        NO_ACTION,
    ),
    Reason.IN_PROGRESS: Meaning(
        "in progress",
        "Another worker is remediating this target. This event is recorded, and the other worker's remediation covers "
        "it.",
        NO_ACTION,
    ),
    Reason.LEASE_OVER: Meaning(
        "lease over", "The worker's lease ended before its work. Another run takes over.", WAIT_FOR_LEASE
    ),
    Reason.UPDATING: Meaning("updating", "X-Ray has the required key and is still UPDATING.", WAIT),
    Reason.ECHO: Meaning("echo", "The event is about the guard's own change.", NO_ACTION),
    Reason.NOT_OURS: Meaning(
        "not ours", "The event is about a key or an alias that the target does not use.", NO_ACTION
    ),
    Reason.NOT_DUE: Meaning("not due", "The next check of the target is not due yet.", NO_ACTION),
    Reason.ALIAS_TAKEN: Meaning(
        "alias taken", "Another principal created the rule's alias first. The guard reads it again.", WAIT
    ),
    Reason.KEY_CREATION_UNCERTAIN: Meaning(
        "key creation uncertain",
        "The response to CreateKey was lost, so the key may exist. The guard searches for it before it creates "
        "another.",
        WAIT,
    ),
    Reason.KEY_NOT_YET_SEEN: Meaning("key not visible yet", "KMS does not show the new key yet.", WAIT),
    Reason.KEY_REFUSED: Meaning(
        "key refused",
        "X-Ray or CloudWatch Logs refuses a key that KMS reports as usable.",
        "If the outcome becomes FAILED, check the key's grants and policy.",
    ),
    Reason.NOT_YET_TAKEN: Meaning(
        "change not visible yet",
        "AWS accepted a change and does not show it yet, or refuses another change meanwhile.",
        WAIT,
    ),
    Reason.XRAY_UPDATING: Meaning("X-Ray updating", "X-Ray is UPDATING and refuses another change.", WAIT),
    Reason.KEY_BEYOND_REPAIR: Meaning(
        "key beyond repair",
        "The managed key was deleted, or X-Ray cannot use a key of its kind. The guard cannot repair it.",
        "Make sure that the key is lost, then run `xray-guard key replace`.",
    ),
    Reason.KEY_NOT_OURS: Meaning(
        "key not ours",
        "The key needs a change. The guard changes only keys that it made or that an operator handed over.",
        "Change the key by hand, or hand it over with `xray-guard key adopt`.",
    ),
    Reason.KEY_NOT_PROVED: Meaning(
        "key not proved",
        "KMS's last response does not prove that X-Ray can use the key, so the guard does not set it.",
        "Check the state of the key and its policy.",
    ),
    Reason.KEY_NOT_ROTATABLE: Meaning(
        "key not rotatable",
        "KMS cannot rotate the key: its key material is imported, or in a custom key store.",
        "Run `xray-guard key replace`, or set the rule's `rotation` to false.",
    ),
    Reason.KEY_NOT_TAGGED: Meaning(
        "key not tagged",
        "The key lacks the guard's tag, without which the guard's role may not change it.",
        "Tag the key `xray-guard=managed`, or repair it by hand.",
    ),
    Reason.KEY_POLICY_DENIES: Meaning(
        "key policy denies",
        "A Deny statement in the key policy may keep X-Ray from using the key.",
        "Remove the statement that the error names, or restrict it.",
    ),
    Reason.KEY_POLICY_OPEN: Meaning(
        "key policy open",
        "The key policy lets in principals outside the account, or everybody. The guard does not adopt such a key, and "
        "never removes a statement.",
        "Remove or narrow the statement that the record names.",
    ),
    Reason.KEY_POLICY_TOO_LONG: Meaning(
        "key policy too long",
        "With the missing statements, the key policy would exceed KMS's size limit.",
        "Shorten the key policy.",
    ),
    Reason.KEY_POLICY_UNREADABLE: Meaning(
        "key policy unreadable",
        "The guard cannot parse the key policy, so it does not change it.",
        "Fix the key policy.",
    ),
    Reason.KEY_UNAVAILABLE: Meaning(
        "key unavailable",
        "The key is in a state that only its owner can change.",
        "Ask the owner of the key to make it available.",
    ),
    Reason.KEY_NOT_ON_RECORD: Meaning(
        "key not on record",
        "The stored state names a key that the guard never recorded: somebody edited the state. The guard changed "
        "nothing.",
        "Run `xray-guard audit verify`, find out who can write the tables, and follow docs/deploy.md.",
    ),
    Reason.NO_MANAGED_KEY: Meaning(
        "no managed key", "The target has no managed key to replace.", "Run `xray-guard status`."
    ),
    Reason.SPANS_FORBIDDEN: Meaning(
        "spans forbidden",
        "X-Ray sends spans to CloudWatch Logs, and the rule forbids it. The guard never changes their destination.",
        "Run the command that the record names. Spans that were stored before stay until they expire.",
    ),
    Reason.TRACES_COPIED: Meaning(
        "traces copied",
        "A link copies traces to an account that the rule does not allow. The guard never changes links.",
        "Delete the link that the record names, or add its account to the rule's `copies_to`.",
    ),
    Reason.BUSY: Meaning("busy", "Other workers wrote to the same items at every attempt.", "Retry the command."),
    Reason.CHANGED_AGAIN: Meaning(
        "changed again",
        "Another principal changed the setting while the guard remediated it.",
        "Find out who changed it: `xray-guard history`.",
    ),
    Reason.FORMAT_TOO_NEW: Meaning(
        "format too new",
        "A newer release of the guard stored this state. An older release runs now: it does not read the state, and "
        "changes nothing.",
        "Deploy the newer release again, then run `xray-guard redrive` for the events that were not processed.",
    ),
    Reason.INTERNAL_ERROR: Meaning("internal error", "The guard has an internal error.", REPORT),
    Reason.TOO_MANY_STEPS: Meaning(
        "too many steps", "The guard made more changes than any repair needs, and the target is still wrong.", REPORT
    ),
    Reason.UPDATING_TOO_LONG: Meaning(
        "updating too long",
        "X-Ray has been UPDATING for more than half an hour.",
        "Check X-Ray. If it stays UPDATING, open a case with AWS Support.",
    ),
    Reason.WORKER_LOST: Meaning(
        "worker lost",
        "A worker ended without a result, for example because its function timed out. Another run took over.",
        "No action is needed, unless it repeats: then read the function's log.",
    ),
    Reason.NOT_A_TARGET: Meaning(
        "not a target",
        "An item of the targets table is not a target. The guard skips it.",
        "Find out who wrote the item, and delete it.",
    ),
    Reason.NO_REGIONS: Meaning(
        "no Regions",
        "The sweep could not list the Regions of the account.",
        "Allow the guard's role `ec2:DescribeRegions`.",
    ),
    Reason.OUT_OF_TIME: Meaning(
        "out of time",
        "The sweep ended before it reached the target. The next sweep begins with it.",
        NO_ACTION,
    ),
    Reason.ADDENDUM: Meaning(
        "addendum",
        "CloudTrail sent an event again, because it was late or has more data now. The record has what it says, and "
        "names the original event.",
        "If the actor, the address or the new value differs from the original's record, rely on this one.",
    ),
    Reason.ANCHOR: Meaning("anchor", "A part of the heads of all chains, to verify the audit log.", NO_ACTION),
    Reason.BREAK_GLASS_ENDED: Meaning(
        "break-glass ended", "A break-glass is no longer in force. The record says why.", NO_ACTION
    ),
    Reason.BREAK_GLASS_OPENED: Meaning(
        "break-glass opened", "A break-glass came into force.", "Make sure that it is authorized."
    ),
    Reason.BREAK_GLASS_REFUSED: Meaning(
        "break-glass refused",
        "A break-glass value is not valid. The record says why. The guard continues to enforce.",
        "If the break-glass is authorized, open it again with a valid value.",
    ),
    Reason.CALLS_COUNTED: Meaning(
        "calls counted",
        "A principal made more than ten refused calls, or changes of other tags, in an hour. The record says how many.",
        "Find out why the principal makes these calls. Every other change is recorded in full.",
    ),
    Reason.DEAF: Meaning(
        "deaf",
        "The guard did not receive two changes in a row that CloudTrail's Event history has. It records them from "
        "there, an hour late, and remediates drift in this Region only at the next sweep.",
        "Run `xray-guard doctor`: check the rules, the forwarding of other Regions and the functions.",
    ),
    Reason.EVENT_HISTORY: Meaning(
        "Event history",
        "The guard compared CloudTrail's Event history with its records. The record says how many events it had "
        "missed, and which Regions it could not read.",
        "If `refused` names a Region, allow the guard's role cloudtrail:LookupEvents there.",
    ),
    Reason.GRANTS_CHANGED: Meaning(
        "grants changed",
        "Somebody created, revoked or retired a grant on a key of the target. No rule judges grants.",
        "Check that this change of access was intended.",
    ),
    Reason.RECEIVING: Meaning("receiving again", "The guard receives the events of this Region again.", NO_ACTION),
    Reason.KEY_HANDED_OVER: Meaning(
        "key handed over",
        "An operator made this key the managed key. The guard may change it from now on.",
        NO_ACTION,
    ),
    Reason.KEY_ADOPTED: Meaning(
        "key adopted", "The guard recorded the target's managed key before it set X-Ray to it.", NO_ACTION
    ),
    Reason.KEY_FOUND: Meaning(
        "key found",
        "The guard found a key that it had created: the response to CreateKey was lost.",
        NO_ACTION,
    ),
    Reason.KEY_MADE: Meaning("key made", "The guard created a key.", NO_ACTION),
    Reason.KEY_REPLACED: Meaning(
        "key replaced",
        "An operator replaced the managed key.",
        "Keep the old key: traces that were stored with it need it.",
    ),
    Reason.MISSED_EVENT: Meaning(
        "missed event",
        "The guard did not receive this event within 20 minutes. It found the event in CloudTrail's Event history; the "
        "next record is about it.",
        "If that happens often, run `xray-guard doctor` and read the dead-letter queue.",
    ),
    Reason.POLICY_IN_FORCE: Meaning(
        "policy in force", "The guard ran with a new policy for the first time.", NO_ACTION
    ),
    Reason.RESUMED: Meaning("resumed", "An operator ended the pause.", NO_ACTION),
    Reason.ROLE_BORROWED: Meaning(
        "role borrowed",
        "The guard's role made a call that the guard did not make.",
        "Treat the role's credentials as stolen: revoke its sessions, and check who can change the functions.",
    ),
    Reason.STATE_EDITED: Meaning(
        "state edited",
        "Somebody else edited the stored state: it has a value that the guard never stores. The guard does not use it. "
        "The record names it.",
        "Run `xray-guard audit verify`, find out who can write the tables, and follow docs/deploy.md.",
    ),
    Reason.STATE_NOTED: Meaning(
        "state noted", "Protected fields of the state changed, and no other record says so.", NO_ACTION
    ),
    Reason.SWEEP: Meaning(
        "sweep",
        "A sweep ended. The record has its outcomes, how long its targets took (`run`), and the heads of all chains.",
        "If it FAILED, read `unreached` in the record.",
    ),
    Reason.UNCONFIRMED: Meaning(
        "unconfirmed",
        "CloudTrail's Event history does not have the event of this record two hours later. AWS did not send it: "
        "somebody invoked the function with a forged event. A break-glass that rests on it has ended.",
        "Find out who may invoke the guard's functions, and who did: CloudTrail has data events of Lambda if a trail "
        "logs them.",
    ),
    Reason.ACCOUNT_INVALID: Meaning(
        "account not valid", "The account in the event does not have twelve digits.", CHECK_SENDER
    ),
    Reason.ACCOUNT_MISSING: Meaning("account missing", "The event names no account.", CHECK_SENDER),
    Reason.DETAIL_MISSING: Meaning("detail missing", "The event has no detail.", CHECK_SENDER),
    Reason.DETAIL_OMITTED: Meaning(
        "detail omitted",
        "The event is too large for EventBridge, which left out its detail.",
        "Run `xray-guard reconcile` for the target.",
    ),
    Reason.NOT_AN_OBJECT: Meaning("not an object", "The event is not a JSON object.", CHECK_SENDER),
    Reason.NOT_OUR_EVENT: Meaning(
        "not our event",
        "The guard does not handle this kind of event.",
        "Check the rules that invoke the guard.",
    ),
    Reason.REGION_INVALID: Meaning(
        "Region not valid", "The Region in the event does not have the form of a Region's name.", CHECK_SENDER
    ),
    Reason.REGION_MISSING: Meaning("Region missing", "The event names no Region.", CHECK_SENDER),
    Reason.TARGET_MISMATCH: Meaning(
        "target mismatch", "The event names two different accounts or Regions.", CHECK_SENDER
    ),
    Reason.POLICY_ABSENT: Meaning("policy absent", "The package has no policy document.", "Package and deploy again."),
    Reason.POLICY_ALTERED: Meaning("policy altered", "The policy document changed after it was validated.", FIX_POLICY),
    Reason.POLICY_UNREADABLE: Meaning("policy unreadable", "The guard cannot read the policy document.", FIX_POLICY),
    Reason.POLICY_UNSTAMPED: Meaning("policy not validated", "The policy document was not validated.", FIX_POLICY),
}


def explanation(outcome: Outcome | None, reason: str | None) -> Meaning | None:
    """Explain why the guard does not act on a target.

    None for the other outcomes, for notes and for AWS's own codes. A FAILED record has its own error with the remedy.
    """
    if reason is None or reason not in REASONS:
        return None
    waits = outcome in (Outcome.DEFERRED, Outcome.OBSERVED)
    return REASONS[Reason(reason)] if waits or (outcome is Outcome.IGNORED and reason not in NOTES) else None
