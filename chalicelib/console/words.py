"""Codes, times and figures as the pages say them. Whatever came from outside stays text: the templates escape it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from markupsafe import Markup

from chalicelib.cli.wording import clean
from chalicelib.domain.keypolicy import document
from chalicelib.domain.model import Actor, Setting, TriggerKind, arn_part, key_id_of
from chalicelib.domain.reasons import NOTES, Outcome, Violation
from chalicelib.domain.stored import Action


@dataclass(frozen=True, slots=True)
class Sign:
    """How a state is shown: a shape, a word, and a tone that only repeats what both say."""

    shape: str
    word: str
    tone: str


OUTCOMES = {
    Outcome.COMPLIANT: Sign("check", "Compliant", "good"),
    Outcome.REMEDIATED: Sign("repaired", "Remediated", "good"),
    Outcome.REMEDIATING: Sign("working", "Remediating", "busy"),
    Outcome.APPLIED: Sign("working", "Applied", "busy"),
    Outcome.OBSERVED: Sign("eye", "Observed", "warn"),
    Outcome.SUPPRESSED: Sign("key", "Suppressed", "held"),
    Outcome.DEFERRED: Sign("pause", "Deferred", "warn"),
    Outcome.FAILED: Sign("cross", "Failed", "bad"),
    Outcome.IGNORED: Sign("dash", "Ignored", "calm"),
}
NOTED = Sign("dash", "Noted", "calm")
UNSEEN = Sign("dash", "Not seen", "calm")

MEANINGS = {
    Outcome.COMPLIANT: "as the rule asks",
    Outcome.REMEDIATED: "X-Ray answered with the wanted key, active",
    Outcome.REMEDIATING: "a worker is at it",
    Outcome.APPLIED: "the wanted key is set; X-Ray is still updating",
    Outcome.OBSERVED: "breaks a rule that only observes",
    Outcome.SUPPRESSED: "break-glass is in force",
    Outcome.DEFERRED: "held back, and looked at again",
    Outcome.FAILED: "could not be put right; tried again",
    Outcome.IGNORED: "a failed call, or not ours to judge",
}

VIOLATIONS = {
    Violation.NOT_KMS: ("no KMS key", "traces are not encrypted with a KMS key"),
    Violation.AWS_MANAGED_KEY: ("AWS managed key", "the rule asks for a customer managed key"),
    Violation.KEY_NOT_ALLOWED: ("key not allowed", "the rule does not allow this key"),
    Violation.KEY_NOT_FOUND: ("key not found", "the key does not exist"),
    Violation.KEY_DISABLED: ("key disabled", "X-Ray stores no traces while its key is disabled"),
    Violation.KEY_PENDING_DELETION: ("key pending deletion", "the key is on its way to being deleted"),
    Violation.KEY_UNAVAILABLE: ("key unavailable", "the key cannot be used, and the guard cannot repair that"),
    Violation.KEY_ASYMMETRIC: ("key not symmetric", "X-Ray needs a symmetric encryption key"),
    Violation.KEY_FOREIGN_ACCOUNT: ("key of another account", "the rule asks for a key of the same account"),
    Violation.KEY_ROTATION_OFF: ("key not rotated", "the rule asks for a key that is rotated"),
    Violation.KEY_POLICY_INCOMPLETE: ("key policy incomplete", "the key policy lacks a statement, or denies X-Ray"),
    Violation.ALIAS_MOVED: ("alias moved", "the rule's alias points at another key than the recorded one"),
}
"""Each violation in a few words, and in a sentence."""

TRIGGERS = {
    TriggerKind.CHANGE: "change of the setting",
    TriggerKind.KEY: "change to a key",
    TriggerKind.SWEEP: "hourly sweep",
    TriggerKind.TICK: "the minute's tick",
    TriggerKind.CONFIG: "AWS Config",
    TriggerKind.OPERATOR: "an operator",
}

LONGEST_IN_LINE = 120


def sign(outcome: Outcome | None, reason: str | None = None) -> Sign:
    """How an outcome is shown."""
    if outcome is Outcome.IGNORED and reason in NOTES:
        return NOTED
    return OUTCOMES[outcome] if outcome else UNSEEN


def told_code(code: object) -> str:
    """A code as a word for people: `KEY_NOT_TAGGED` becomes `key not tagged`; AWS's own codes stay as they are."""
    text = str(code)
    return text.replace("_", " ").lower() if text.isupper() else text


def time_tag(at: datetime | None) -> Markup | str:
    """A time to the second, UTC, readable by machines too."""
    if at is None:
        return "–"
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(f"{at:%Y-%m-%dT%H:%M:%SZ}", f"{at:%Y-%m-%d %H:%M:%S}")


def ago(at: datetime | None, now: datetime) -> str:
    """How long ago, in one unit: `3 h ago`, or `in 3 h`."""
    if at is None:
        return "never"
    seconds = (now - at).total_seconds()
    return f"{_unit(seconds)} ago" if seconds >= 0 else f"in {_unit(-seconds)}"


def _unit(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {name}"
    return f"{int(seconds)} s"


def short_key(arn: str | None) -> str:
    """Enough of a key's id to tell it from others at a glance; the pages of one thing show the whole ARN."""
    if not arn:
        return "KMS"
    key_id = key_id_of(arn)
    return f"key {key_id[:8]}…" if len(key_id) > 12 else f"key {key_id}"


def setting_word(setting: Setting | None) -> str:
    """`NONE`, or the key in short."""
    if setting is None:
        return "unknown"
    return "NONE" if setting.type == "NONE" else short_key(setting.key_arn)


def actor_word(actor: Actor | None, target: str = "") -> str:
    """The name people know somebody by, with the account where it is not the target's; the session follows."""
    if actor is None:
        return "unknown"
    account = target.partition("/")[0]
    own = arn_part(actor.arn, 4) == account
    resource = (arn_part(actor.arn, 5) if own else "") or actor.arn
    kind, _, path = resource.partition("/")
    name = f"{kind}/{path.rsplit('/', 1)[-1]}" if path and own else resource
    return f"{name} ({actor.session})" if actor.session else name


def is_long(text: str | None) -> bool:
    """Whether a value needs a place of its own."""
    return text is not None and (len(text) > LONGEST_IN_LINE or "\n" in text)


def laid_out(text: str) -> str:
    """JSON with one value a line; anything else as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def as_json(value: Any) -> str:
    """A value of a record's details, one thing a line."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def next_day(day: date) -> date:
    """The day after."""
    return day + timedelta(days=1)


def difference(action: Action) -> list[tuple[str, str]]:
    """What an action changed in a text, line by line: (`add`, `cut`, `same` or `place`, the line without its mark)."""
    if not (is_long(action.before) or is_long(action.after)):
        return []
    kinds = {"+": "add", "-": "cut", " ": "same"}
    lines = document.difference(action.before or "", action.after or "").splitlines()[2:]
    return [("place", "…") if line.startswith("@@") else (kinds.get(line[:1], "same"), line[1:]) for line in lines]


def plain(value: Any) -> Any:
    """What every value passes on its way to a page: text loses what could turn it around or hide it."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else clean(value, keep_lines=True)
