"""Format values for people, in one line and without characters that control a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from chalicelib.domain.model import Actor, EncryptionType, Setting, Subject, Target, arn_part, key_id_of

if TYPE_CHECKING:
    from chalicelib.auditlog.parts import Participant, Person, PersonsChange
    from chalicelib.domain.reasons import Violation
    from chalicelib.domain.spans import Links, Spans
    from chalicelib.domain.steps import Step
    from chalicelib.domain.stored import Action, Attribution, Change

UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufff9-\ufffb]")
UNSAFE_BUT_LINES = re.compile(UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))
NOTHING = "-"
UNITS = {"week": 604800, "day": 86400, "hour": 3600, "minute": 60, "second": 1}
SUBJECTS: Mapping[Subject, str] = {
    Subject.SETTING: "the setting",
    Subject.KEY_STATE: "the state of",
    Subject.KEY_POLICY: "the key policy of",
    Subject.KEY_ROTATION: "the rotation of",
    Subject.TAGS: "the tags of",
    Subject.ALIAS: "the target of",
    Subject.GRANTS: "the grants of",
    Subject.SPANS: "the destination of spans",
    Subject.LINKS: "the copies of traces by",
}
"""What an event changed, before the name of the resource that it changed."""


def clean(text: object, *, keep_lines: bool = False) -> str:
    """Replace control characters and characters that change the direction of text."""
    return (UNSAFE_BUT_LINES if keep_lines else UNSAFE).sub("\ufffd", str(text))


def spans_text(spans: Spans | None) -> str:
    """Say where a target's spans are stored, and under which key."""
    return clean(spans) if spans is not None else "with the traces, as far as known"


def copies_text(links: Links | None) -> str:
    """Say which accounts receive copies of a target's traces."""
    if links is None:
        return "not known yet"
    if links.problem is not None:
        return clean(f"not known: {links.problem.message}")
    return clean(", ".join(links.accounts) or "no account")


def time_text(at: datetime | None) -> str:
    """Format a time to the second, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if at else NOTHING


def span_text(seconds: float | None) -> str:
    """Format a duration with at most two units: `8.2s`, `3m20s`, `2h05m`, `3d04h`."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02d}h"


def duration_text(span: timedelta) -> str:
    """Format a duration in words, without rounding: `1 week`, `1 day 12 hours`, `1 minute 30 seconds`."""
    rest, parts = int(span.total_seconds()), []
    for name, unit in UNITS.items():
        number, rest = divmod(rest, unit)
        if number:
            parts.append(f"{number} {name}{'' if number == 1 else 's'}")
    return " ".join(parts) or "0 seconds"


def key_text(arn: str, target: str = "") -> str:
    """Format a key as its id, or as its ARN if it belongs to another account or Region than the target."""
    account, _, region = target.partition("/")
    is_own = not target or (arn_part(arn, 4), arn_part(arn, 3)) == (account, region)
    return f"key {key_id_of(arn)}" if is_own or not arn.startswith("arn:") else arn


def setting_text(setting: Setting | None, target: str = "") -> str:
    """Format a setting: `NONE`, or the key."""
    if setting is None:
        return "unknown"
    if setting.type is not EncryptionType.KMS:
        return setting.type.value
    return key_text(setting.key_arn, target) if setting.key_arn else "KMS"


def change_text(before: Setting | None, after: Setting | None, target: str = "") -> str:
    """Format the settings before and after a change."""
    if after is None or after.same_choice(before):
        return setting_text(before or after, target)
    return f"{setting_text(before, target)} → {setting_text(after, target)}"


def actor_text(actor: Actor | None, target: str = "") -> str:
    """Format an actor: `user/Alice`, `role/Admin (jdoe)`, or the ARN if the account is not the target's."""
    if actor is None:
        return NOTHING
    account = target.partition("/")[0]
    own = actor.arn.startswith("arn:") and arn_part(actor.arn, 4) == account
    name = arn_part(actor.arn, 5) if own else actor.arn
    extras = [
        actor.session,
        actor.via and f"via {actor.via}",
        actor.issued_by and f"issued by {actor.issued_by}",
        actor.delegate and f"through delegate account {actor.delegate}",
    ]
    details = ", ".join(text for text in extras if text)
    return f"{name} ({details})" if details else name


LONGEST_VALUE = 200
DIGEST_DIGITS = 12


def event_change_text(change: Change | PersonsChange, target: str = "") -> str:
    """Format what an event changed: `the setting: NONE → KMS key/…`. A long value, such as a key policy, is cut."""
    if change.subject is None:
        return "nothing that the event names"
    named = change.resource or ""
    if change.subject not in (Subject.ALIAS, Subject.SPANS, Subject.LINKS):
        named = key_text(named, target) if named else ""
    what = "the key of" if change.subject is Subject.SPANS and named else SUBJECTS[change.subject]
    resource = f" {named}" if named else ""
    before = f"{_value_text(change, change.before, target)} → " if change.before else ""
    return clean(f"{what}{resource}: {before}{_value_text(change, change.after, target)}")


def _value_text(change: Change | PersonsChange, value: str | None, target: str) -> str:
    """Format one value of a change: an alias's key as in other texts, a digest by its first digits."""
    if not value:
        return "unknown"
    if change.subject is Subject.ALIAS and value.startswith("arn:"):
        return key_text(value, target)
    if change.subject is Subject.KEY_POLICY and value.startswith("sha256:"):
        return f"policy {value[: len('sha256:') + DIGEST_DIGITS]}"
    return value if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}…"


def action_change_text(action: Action, target: str = "") -> str:
    """Format what an action of the guard changed; of an alias, its old key and its new one. May be empty."""
    if action.name in ("CreateAlias", "UpdateAlias"):
        before, after = (key_text(arn, target) if arn else "no key" for arn in (action.before, action.key_arn))
        return clean(f"{action.after}: {before} → {after}")
    return clean(f"{action.before or 'none'} → {action.after or 'none'}") if action.before or action.after else ""


def _code(violation: Violation) -> str:
    return violation.value


def attribution_text(attribution: Attribution, target: str = "", name: Callable[[Violation], str] = _code) -> str:
    """Format who made a violation: `NOT_KMS by user/Alice`. `name` says how to call the violation."""
    if attribution.events:
        made_by = " and ".join(actor_text(event.actor, target) for event in attribution.events)
        who = f"by {made_by}"
    elif attribution.policy_digest:
        who = f"by a new policy, digest {attribution.policy_digest[:DIGEST_DIGITS]}"
    elif attribution.before_guard:
        who = "already there when the guard first checked"
    else:
        who = "by an unknown change"
    return clean(f"{name(attribution.violation)} {who}")


PARTS: Mapping[str, str] = {
    "event": "made the call",
    "trigger": "began the check",
    "cause": "caused the incident",
    "counted": "made the calls that were counted",
    "break-glass": "set the break-glass tag",
}


def part_text(person: Person | Participant) -> str:
    """Format somebody's part in a record or an incident: `made the call, caused the incident, made NOT_KMS`."""
    return clean(", ".join([*part_names(person), *(f"made {violation.value}" for violation in person.violations)]))


def part_names(person: Person | Participant) -> list[str]:
    """Return the words for somebody's parts, without the violations that they made."""
    return [PARTS[part] for part in person.parts if part in PARTS]


def persons_change_text(change: PersonsChange, target: str = "") -> str:
    """Format what somebody changed in an incident: the change, the call and its time."""
    what = event_change_text(change, target)
    return f"{what} ({clean(change.event_name or 'unknown call')} at {time_text(change.at)})"


def step_text(step: Step, target: Target) -> str:
    """Describe one step of a plan."""
    match step.name.value:
        case "CreateKey":
            return "create a customer managed key with the rule's key policy"
        case "CreateAlias" | "UpdateAlias":
            verb = "create" if step.name.value == "CreateAlias" else "move"
            return f"{verb} {step.after}, pointing to {_subject(step.key_arn, target)}"
        case "PutEncryptionConfig":
            return f"set X-Ray to {_subject(step.key_arn, target)}"
        case "AssociateKmsKey":
            return f"encrypt new spans in the log group {step.after} with {_subject(step.key_arn, target)}"
        case "PutKeyPolicy":
            return f"add the missing statements to the key policy of {_subject(step.key_arn, target)}"
        case "EnableKeyRotation":
            return f"enable rotation of {_subject(step.key_arn, target)} ({step.after})"
        case "EnableKey":
            return f"enable {_subject(step.key_arn, target)}"
        case "CancelKeyDeletion":
            return f"cancel the deletion of {_subject(step.key_arn, target)}"


def _subject(key_arn: str | None, target: Target) -> str:
    if key_arn is None or key_id_of(key_arn) == "to-be-created":
        return "the new key"
    return key_text(key_arn, str(target))
