"""Read from a KMS event what it changed: the state, policy, rotation, tags or grants of a key, or an alias.

The fields are those of the KMS API's requests, as CloudTrail records them in `requestParameters`, and of a new grant
also those of the response. The record of RetireGrant has no request parameters:
https://docs.aws.amazon.com/kms/latest/developerguide/understanding-kms-entries.html
"""

from __future__ import annotations

from collections.abc import Mapping

from chalicelib.domain.fields import KEY_CHARS, NAME_CHARS, as_list, as_object, as_text
from chalicelib.domain.model import GUARD_TAG_KEY, Effect, Subject

LONGEST_LIST = 32_768
"""Of the tags that one call removed, in characters."""

POLICY_CHARS = 32_768
"""KMS's own limit."""

MOST_OPERATIONS = 32
"""More than KMS has for grants."""

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


def read_effect(
    name: str,
    detail: Mapping[str, object],
    keys: tuple[str, ...],
    alias: str | None = None,
    tags: tuple[tuple[str, str], ...] = (),
    removed: tuple[str, ...] = (),
) -> Effect | None:
    """What the event called `name` changed; `keys`, `alias` and tags are what it acted on. Never raises."""
    request = as_object(detail.get("requestParameters"))
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
            target = as_text(request.get("targetKeyId"), KEY_CHARS)
            return Effect(Subject.ALIAS, alias, key or target)
        case "DeleteAlias":
            return Effect(Subject.ALIAS, alias, "deleted")
        case "TagResource":
            return Effect(Subject.TAGS, key, ", ".join(f"{tag}={value}" for tag, value in tags))
        case "UntagResource":
            # The guard's own first, so that no number of others keeps them off the record.
            ordered = sorted(removed, key=lambda tag: not tag.lower().startswith(GUARD_TAG_KEY))
            return Effect(Subject.TAGS, key, f"removed {', '.join(ordered)}"[:LONGEST_LIST])
        case "CreateGrant":
            return Effect(Subject.GRANTS, key, _granted(request, _grant_id(detail)))
        case "RevokeGrant":
            return Effect(Subject.GRANTS, key, f"revoked {_grant_id(detail) or 'a grant'}")
        case "RetireGrant":
            return Effect(Subject.GRANTS, key, f"retired {_grant_id(detail) or 'a grant'}")
    return None


def _granted(request: Mapping[str, object], grant: str | None) -> str:
    """Who may now do what with the key. A service may be named as such, or as any other principal."""
    named = request.get("granteePrincipal") or request.get("granteeServicePrincipal")
    given = (as_text(each, NAME_CHARS) for each in as_list(request.get("operations"), MOST_OPERATIONS))
    operations = ", ".join(each for each in given if each) or "unknown operations"
    text = f"granted to {as_text(named, KEY_CHARS) or 'unknown'}: {operations}"
    return f"{text} (grant {grant})" if grant else text


def _grant_id(detail: Mapping[str, object]) -> str | None:
    """The grant's id: in the response, the request or, of a retired grant, beside both; None if the event has none."""
    for part in ("responseElements", "requestParameters", "additionalEventData"):
        if found := as_text(as_object(detail.get(part)).get("grantId"), NAME_CHARS):
            return found
    return None
