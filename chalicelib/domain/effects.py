"""Read from a KMS event what it changed: the state, policy, rotation or tags of a key, or an alias.

The fields are those of the KMS API's requests, as CloudTrail records them in `requestParameters`:
https://docs.aws.amazon.com/kms/latest/developerguide/understanding-kms-entries.html
"""

from __future__ import annotations

from collections.abc import Mapping

from chalicelib.domain.fields import as_list, as_object, as_text
from chalicelib.domain.model import Effect, Subject

POLICY_CHARS = 32_768
"""KMS's own limit."""

MOST_TAGS = 64
TEXT_CHARS = 256

STATES = {
    "CancelKeyDeletion": "Disabled",
    "DeleteExpiredKeyMaterial": "PendingImport",
    "DeleteImportedKeyMaterial": "PendingImport",
    "DeleteKey": "deleted",
    "DisableKey": "Disabled",
    "EnableKey": "Enabled",
    "ScheduleKeyDeletion": "PendingDeletion",
    "KMS CMK Deletion": "deleted",
    "KMS Imported Key Material Expiration": "PendingImport",
}
"""The state in which each call leaves its key."""


def read_effect(name: str, request: Mapping[str, object], keys: tuple[str, ...], alias: str | None) -> Effect | None:
    """What the event called `name` changed; `keys` and `alias` are what it acted on. Never raises."""
    key = keys[0] if keys else None
    if name in STATES:
        return Effect(Subject.KEY_STATE, key, STATES[name])
    match name:
        case "PutKeyPolicy":
            policy = request.get("policy")
            # Kept as it is, line breaks included: it is compared with what KMS shows and with what the guard put.
            return Effect(Subject.KEY_POLICY, key, policy[:POLICY_CHARS] if isinstance(policy, str) else None)
        case "EnableKeyRotation":
            days = request.get("rotationPeriodInDays")
            every = f" every {days} days" if isinstance(days, int) and 0 < days < 10_000 else ""
            return Effect(Subject.KEY_ROTATION, key, f"on{every}")
        case "DisableKeyRotation":
            return Effect(Subject.KEY_ROTATION, key, "off")
        case "CreateAlias" | "UpdateAlias":
            target = as_text(request.get("targetKeyId"), TEXT_CHARS)
            return Effect(Subject.ALIAS, alias, key or target)
        case "DeleteAlias":
            return Effect(Subject.ALIAS, alias, "deleted")
        case "TagResource":
            return Effect(Subject.TAGS, key, ", ".join(_tag(tag) for tag in as_list(request.get("tags"), MOST_TAGS)))
        case "UntagResource":
            removed = (as_text(tag, TEXT_CHARS) or "" for tag in as_list(request.get("tagKeys"), MOST_TAGS))
            return Effect(Subject.TAGS, key, "removed " + ", ".join(removed))
    return None


def _tag(tag: object) -> str:
    pair = as_object(tag)
    return f"{as_text(pair.get('tagKey'), TEXT_CHARS)}={as_text(pair.get('tagValue'), TEXT_CHARS) or ''}"
