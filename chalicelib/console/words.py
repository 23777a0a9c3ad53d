"""Format codes, times and figures for the pages. Values from outside stay text: the templates escape them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from markupsafe import Markup, escape

from chalicelib.auditlog.parts import Participant, Person
from chalicelib.domain import meanings, outcome_meanings
from chalicelib.domain.keypolicy import document
from chalicelib.domain.model import Actor, Setting, Subject, arn_part, key_id_of
from chalicelib.domain.reasons import Outcome, Reason, Violation
from chalicelib.domain.stored import Action, Attribution, Change
from chalicelib.operators import formatting
from chalicelib.operators.formatting import clean


@dataclass(frozen=True, slots=True)
class Sign:
    """The sign of a state: a shape, a word, and a tone that only repeats both."""

    shape: str
    word: str
    tone: str


SHAPES = {
    Outcome.COMPLIANT: ("check", "good"),
    Outcome.REMEDIATED: ("repaired", "good"),
    Outcome.REMEDIATING: ("working", "busy"),
    Outcome.APPLIED: ("working", "busy"),
    Outcome.OBSERVED: ("eye", "warn"),
    Outcome.SUPPRESSED: ("key", "held"),
    Outcome.DEFERRED: ("pause", "warn"),
    Outcome.FAILED: ("cross", "bad"),
    Outcome.IGNORED: ("dash", "calm"),
}
"""Each outcome's shape and tone."""

OUTCOMES = {
    outcome: Sign(shape, outcome_meanings.OUTCOMES[outcome].label, tone) for outcome, (shape, tone) in SHAPES.items()
}
UNSEEN = Sign("dash", "Not seen", "calm")

LONGEST_IN_LINE = 120


def sign(outcome: Outcome | None) -> Sign:
    """The sign of an outcome, or of a target without one."""
    return OUTCOMES[outcome] if outcome else UNSEEN


def code_word(code: object) -> str:
    """Format a code: a reason as its label, other codes as words. AWS's own codes stay unchanged."""
    text = str(code)
    if text in meanings.REASONS:
        return meanings.REASONS[Reason(text)].label
    return text.replace("_", " ").lower() if text.isupper() else text


def violation_word(violation: Violation) -> str:
    """Format a violation as its label."""
    return outcome_meanings.VIOLATIONS[violation].label


def attribution_word(attribution: Attribution, target: str) -> str:
    """Format who made a violation."""
    return formatting.attribution_text(attribution, target, violation_word)


def part_word(person: Person | Participant) -> str:
    """Format somebody's part in a record or an incident, as the beginning of a line."""
    violations = (f"violation: {violation_word(each)}" for each in person.violations)
    text = ", ".join([*formatting.part_names(person), *violations])
    return text[:1].upper() + text[1:]


def marked_up(text: str) -> Markup:
    """Format a text of `meanings` as HTML: what is between backticks is code."""
    parts = escape(text).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def time_tag(at: datetime | None) -> Markup | str:
    """Format a time to the second, in UTC, with a machine-readable value."""
    if at is None:
        return "–"
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(f"{at:%Y-%m-%dT%H:%M:%SZ}", f"{at:%Y-%m-%d %H:%M:%S}")


ZONE = Markup('<span class="zone">UTC</span>')
"""The name of the zone in which the page shows times. The script changes it, together with the times."""

CLOCK = re.compile(r"(?:([0-9]{4}-[0-9]{2}-[0-9]{2}) )?([0-9]{2}:[0-9]{2}:[0-9]{2})")


def with_times(text: str, now: datetime) -> Markup:
    """Mark up the times in a text of `waits`, up to the first colon: after it, somebody else may have written."""
    own, colon, rest = re.split(r"(: |$)", text, maxsplit=1)
    parts: list[Markup | str] = []
    last = 0
    for found in CLOCK.finditer(own):
        day = found[1] or f"{now.astimezone(UTC):%Y-%m-%d}"
        parts += [escape(own[last : found.start()]), time_tag(datetime.fromisoformat(f"{day}T{found[2]}+00:00"))]
        last = found.end()
    return Markup("").join([*parts, escape(own[last:]), escape(colon + rest)])


def ago(at: datetime | None, now: datetime) -> str:
    """Format the distance to now in one unit: `3 h ago` or `in 3 h`."""
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
    """Format the first characters of a key's id; the pages of one incident or record show the whole ARN."""
    if not arn:
        return "KMS"
    key_id = key_id_of(arn)
    return f"key {key_id[:8]}…" if len(key_id) > 12 else f"key {key_id}"


def setting_word(setting: Setting | None) -> str:
    """Format a setting: `NONE`, or the short key id."""
    if setting is None:
        return "unknown"
    return "NONE" if setting.type == "NONE" else short_key(setting.key_arn)


def value_word(change: Change, value: str | None) -> str:
    """Format a value of a change in full, but a text of many lines by its length."""
    if not value:
        return "unknown"
    if is_long(value):
        return f"a key policy of {len(value)} characters" if change.subject is Subject.KEY_POLICY else f"{value[:100]}…"
    return value


def changed_word(change: Change | None, setting: Setting | None = None) -> str:
    """Format in a few words what changed, with short key ids; without a change, the setting that was found."""
    if change is None:
        return f"unknown → {setting_word(setting)}"
    if change.subject is Subject.KEY_POLICY:
        return f"key policy of {short_key(change.resource)}"
    before, after = (_short(value) for value in (change.before, change.after))
    name = ""
    if change.subject is not Subject.SETTING:
        resource = change.resource or ""
        name = f"{short_key(resource) if resource.startswith('arn:') else resource or 'spans'}: "
    return f"{name}{before} → {after}"


def _short(value: str | None) -> str:
    if not value:
        return "unknown"
    arn = value.rpartition(" ")[2]
    return short_key(arn) if arn.startswith("arn:") else value[:60]


def actor_word(actor: Actor | None, target: str = "") -> str:
    """Format an actor: the name, with the account if it is not the target's, then the session."""
    if actor is None:
        return "unknown"
    account = target.partition("/")[0]
    own = arn_part(actor.arn, 4) == account
    resource = (arn_part(actor.arn, 5) if own else "") or actor.arn
    kind, _, path = resource.partition("/")
    name = f"{kind}/{path.rsplit('/', 1)[-1]}" if path and own else resource
    return f"{name} ({actor.session})" if actor.session else name


def is_long(text: str | None) -> bool:
    """Whether a value is too long for a line."""
    return text is not None and (len(text) > LONGEST_IN_LINE or "\n" in text)


def laid_out(text: str) -> str:
    """Format JSON with one value per line; return anything else unchanged."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def as_json(value: Any) -> str:
    """Format a value of a record's details with one value per line."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def next_day(day: date) -> date:
    """The day after."""
    return day + timedelta(days=1)


def difference(action: Action) -> list[tuple[str, str]]:
    """The line differences of an action: (`add`, `cut`, `same` or `place`, the line without its mark)."""
    if not (is_long(action.before) or is_long(action.after)):
        return []
    kinds = {"+": "add", "-": "cut", " ": "same"}
    lines = document.difference(action.before or "", action.after or "").splitlines()[2:]
    return [("place", "…") if line.startswith("@@") else (kinds.get(line[:1], "same"), line[1:]) for line in lines]


def plain(value: Any) -> Any:
    """Clean a value for a page: remove characters that hide text or change its direction."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else clean(value, keep_lines=True)
