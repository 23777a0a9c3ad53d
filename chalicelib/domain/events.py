"""Read CloudTrail and KMS events, delivered by EventBridge, into values.

An event is untrusted input and only a hint to check the target: whatever it contains, reading it returns a value and
never raises. It is rejected if it could make the guard check the wrong target. Otherwise it is read as far as possible:
the actor and the result are worth recording even in part. No text of an event is passed on without a length limit or
with characters that control a terminal.

Shapes: the AWS CloudTrail user guide, "record contents" and "userIdentity element"; the AWS KMS developer guide, "log
entries" and "Monitor KMS keys with Amazon EventBridge".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from chalicelib.domain.actors import partition_of, read_actor
from chalicelib.domain.effects import read_effect
from chalicelib.domain.fields import KEY_CHARS, NAME_CHARS, as_list, as_object, as_text, as_time
from chalicelib.domain.model import (
    ChangeEvent,
    EncryptionStatus,
    EncryptionType,
    KeyEvent,
    Rejected,
    Setting,
    Target,
    Trigger,
    TriggerKind,
    is_region,
)
from chalicelib.domain.reasons import Reason
from chalicelib.domain.spanevents import SOURCES, read_span_effect

CHANGE_EVENT = "PutEncryptionConfig"

KEY_EVENTS = frozenset(
    {
        "CancelKeyDeletion",
        "CreateAlias",
        "CreateGrant",
        "DeleteAlias",
        "DeleteExpiredKeyMaterial",
        "DeleteImportedKeyMaterial",
        "DeleteKey",
        "DisableKey",
        "DisableKeyRotation",
        "EnableKey",
        "EnableKeyRotation",
        "PutKeyPolicy",
        "RetireGrant",
        "RevokeGrant",
        "ScheduleKeyDeletion",
        "TagResource",
        "UntagResource",
        "UpdateAlias",
    }
)
"""The calls and service events, by CloudTrail's `eventName`, that may change if a key is compliant or who uses it."""

KEY_NOTICES = frozenset({"KMS CMK Deletion", "KMS Imported Key Material Expiration"})
"""What KMS itself sends to EventBridge, by `detail-type`: no CloudTrail record, so no actor and no call."""

# The longest text kept of each field, in characters, including an ellipsis; AWS's own limit if there is one.
ERROR_CODE_CHARS = 128
ERROR_MESSAGE_CHARS = 1024
REQUEST_ID_CHARS = 128
SOURCE_IP_CHARS = 128
TAG_KEY_CHARS = 128
TAG_VALUE_CHARS = 256
USER_AGENT_CHARS = 512

MAX_KEYS = 16
MAX_TAGS = 64  # KMS allows 50 per key
MAX_REMOVED = 2048  # KMS's model has no maximum for UntagResource, which accepts keys that are not set
MAX_DIGEST_NODES = 1_000_000

_ACCOUNT = re.compile(r"[0-9]{12}")
_EVENT_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_KEY_ARN = re.compile(r"arn:aws[a-z0-9-]{0,32}:kms:[a-z0-9-]{1,32}:[0-9]{12}:key/[A-Za-z0-9-]{1,128}")
_ALIAS_ARN = re.compile(r"arn:aws[a-z0-9-]{0,32}:kms:[a-z0-9-]{1,32}:[0-9]{12}:(alias/[A-Za-z0-9/_-]{1,250})")
_KEY_ID = re.compile(r"[A-Za-z0-9-]{1,128}")
_ALIAS = re.compile(r"alias/[A-Za-z0-9/_-]{1,250}")


_INVALID = {"ACCOUNT": Reason.ACCOUNT_INVALID, "REGION": Reason.REGION_INVALID}
_MISSING = {"ACCOUNT": Reason.ACCOUNT_MISSING, "REGION": Reason.REGION_MISSING}


def read_change(event: object) -> ChangeEvent | Rejected:
    """Return the PutEncryptionConfig call that an EventBridge event reports, or why the event cannot be acted on.

    The target is the event's `recipientAccountId` and `awsRegion`, which the envelope's `account` and `region` must not
    contradict. `result` is the setting in the response, or in the request if the event omits the response; None for a
    failed call. Reasons: NOT_AN_OBJECT, NOT_OUR_EVENT, DETAIL_MISSING, DETAIL_OMITTED, ACCOUNT_MISSING,
    ACCOUNT_INVALID, REGION_MISSING, REGION_INVALID, TARGET_MISMATCH. Never raises.
    """
    opened = _open(event, source="aws.xray", endpoint="xray.", names=frozenset({CHANGE_EVENT}))
    if isinstance(opened, Rejected):
        return opened
    envelope, detail, target = opened
    error_code = as_text(detail.get("errorCode"), ERROR_CODE_CHARS)
    return ChangeEvent(
        target=target,
        trigger=_trigger(TriggerKind.CHANGE, envelope, detail),
        result=None if error_code else _result(detail),
        error_code=error_code,
        error_message=as_text(detail.get("errorMessage"), ERROR_MESSAGE_CHARS),
        addendum_id=_addendum_id(envelope, detail),
    )


def read_key_event(event: object) -> KeyEvent | Rejected:
    """Return the change to a KMS key, grant, alias or tag that an EventBridge event reports, or why it is rejected.

    Accepts CloudTrail's records of `KEY_EVENTS`, and KMS's own `KEY_NOTICES`, whose trigger has no actor and has the
    detail-type as its event name. `key_arns` is empty if the event names no key, which is common for refused calls;
    UpdateAlias names only the alias's new key. Accepts the calls of `spanevents.SOURCES`, too. Target and reasons are
    those of `read_change`. Never raises.
    """
    if isinstance(event, dict) and isinstance(notice := event.get("detail-type"), str) and notice in KEY_NOTICES:
        return _read_key_notice(event, notice)
    name = as_text(as_object(as_object(event).get("detail")).get("eventName"), NAME_CHARS) or ""
    service = SOURCES.get(name, "kms")
    opened = _open(event, source=f"aws.{service}", endpoint=f"{service}.", names=KEY_EVENTS | SOURCES.keys())
    if isinstance(opened, Rejected):
        return opened
    envelope, detail, target = opened
    request = as_object(detail.get("requestParameters"))
    tags = tuple(_tags(request.get("tags")))
    removed = tuple(_tag_keys(request.get("tagKeys")))
    keys = _key_arns(target, envelope, detail, request)
    alias = _alias(detail, request)
    error_code = as_text(detail.get("errorCode"), ERROR_CODE_CHARS)
    effect = (
        read_span_effect(name, detail) if name in SOURCES else read_effect(name, detail, keys, alias, tags, removed)
    )
    return KeyEvent(
        target=target,
        trigger=_trigger(TriggerKind.KEY, envelope, detail),
        key_arns=keys,
        alias=alias,
        tag_keys=tuple(dict.fromkeys((*(key for key, _ in tags), *removed))),
        tags=tags,
        error_code=error_code,
        effect=None if error_code else effect,
        addendum_id=_addendum_id(envelope, detail),
    )


# The envelope -------------------------------------------------------------------------------------


def _open(
    event: object, source: str, endpoint: str, names: frozenset[str]
) -> tuple[dict[str, object], dict[str, object], Target] | Rejected:
    """Return the envelope, the CloudTrail record in it and their target, or what is wrong with them."""
    if not isinstance(event, dict):
        return _reject(event, Reason.NOT_AN_OBJECT, f"the event is not a JSON object but {type(event).__name__[:40]}")
    if event.get("source") != source:
        return _reject(event, Reason.NOT_OUR_EVENT, f"source is not {source}")
    detail = event.get("detail")
    if not isinstance(detail, dict) or not detail:
        return _reject(event, Reason.DETAIL_MISSING, "detail is missing, empty or not an object")
    if detail.get("omitted") is True and "eventName" not in detail:
        return _reject(event, Reason.DETAIL_OMITTED, "detail was omitted because of its size")
    name = detail.get("eventName")
    if not isinstance(name, str) or name not in names:
        return _reject(event, Reason.NOT_OUR_EVENT, "detail.eventName is not one that the guard handles")
    service = detail.get("eventSource")
    if service is not None and not (isinstance(service, str) and service.startswith(endpoint)):
        return _reject(event, Reason.NOT_OUR_EVENT, f"detail.eventSource is not {endpoint}amazonaws.com")
    target = _target(event, detail)
    return target if isinstance(target, Rejected) else (event, detail, target)


def _read_key_notice(event: dict[str, object], notice: str) -> KeyEvent | Rejected:
    if event.get("source") != "aws.kms":
        return _reject(event, Reason.NOT_OUR_EVENT, "source is not aws.kms")
    target = _target(event, {})
    if isinstance(target, Rejected):
        return target
    trigger = Trigger(
        kind=TriggerKind.KEY, event_id=_event_id(event), event_name=notice, event_time=as_time(event.get("time"))
    )
    keys = _unique(_envelope_keys(event))
    return KeyEvent(target, trigger, key_arns=keys, effect=read_effect(notice, {}, keys, None))


def _target(envelope: dict[str, object], detail: dict[str, object]) -> Target | Rejected:
    """Return the account and Region. Record and envelope must not contradict each other; one of them is enough."""
    places = {
        "ACCOUNT": (
            ("detail.recipientAccountId", detail.get("recipientAccountId")),
            ("account", envelope.get("account")),
        ),
        "REGION": (("detail.awsRegion", detail.get("awsRegion")), ("region", envelope.get("region"))),
    }
    found: dict[str, str] = {}
    for what, claims in places.items():
        for where, claim in claims:
            if claim is None:
                continue
            if not isinstance(claim, str) or not (_ACCOUNT.fullmatch(claim) if what == "ACCOUNT" else is_region(claim)):
                shape = "12 digits" if what == "ACCOUNT" else "the name of a Region"
                return _reject(envelope, _INVALID[what], f"{where} is not {shape}")
            if found.setdefault(what, claim) != claim:
                return _reject(envelope, Reason.TARGET_MISMATCH, f"{claims[0][0]} and {claims[1][0]} disagree")
        if what not in found:
            return _reject(envelope, _MISSING[what], f"{claims[0][0]} and {claims[1][0]} are both missing")
    return Target(found["ACCOUNT"], found["REGION"])


def _reject(event: object, reason: str, detail: str) -> Rejected:
    return Rejected(reason, detail, _event_id(event))


def _trigger(kind: TriggerKind, envelope: dict[str, object], detail: dict[str, object]) -> Trigger:
    return Trigger(
        kind=kind,
        event_id=_event_id(envelope),
        event_name=as_text(detail.get("eventName"), NAME_CHARS),
        event_time=as_time(detail.get("eventTime")) or as_time(envelope.get("time")),
        request_id=as_text(_addendum(detail).get("originalRequestID") or detail.get("requestID"), REQUEST_ID_CHARS),
        actor=read_actor(detail.get("userIdentity")),
        source_ip=as_text(detail.get("sourceIPAddress"), SOURCE_IP_CHARS),
        user_agent=as_text(detail.get("userAgent"), USER_AGENT_CHARS),
    )


def _event_id(event: object) -> str:
    """Return the event's id, the same for each delivery: CloudTrail's `eventID`, else EventBridge's `id`.

    An addendum, by which CloudTrail completes an event, has the id of its original: it is no other call; its own id is
    `addendum_id`. See "addendum" in
    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html

    It becomes part of a table's key, so an id with other characters is replaced by its digest; an event without an id
    gets the digest of the event.
    """
    if isinstance(event, dict):
        detail = as_object(event.get("detail"))
        claims = (_addendum(detail).get("originalEventID"), detail.get("eventID"), event.get("id"))
        if claimed := _first_id(*claims):
            return claimed
    return f"sha256:{_digest(event)}"


def _addendum_id(envelope: dict[str, object], detail: dict[str, object]) -> str | None:
    """Return the own id of an addendum; None if the event is none, or does not name another event as its original."""
    original = _first_id(_addendum(detail).get("originalEventID"))
    own = _first_id(detail.get("eventID"), envelope.get("id"))
    return own if original and own != original else None


def _first_id(*claims: object) -> str | None:
    for claim in claims:
        if isinstance(claim, str) and claim:
            return claim if _EVENT_ID.fullmatch(claim) else f"sha256:{_digest(claim)}"
    return None


def _addendum(detail: dict[str, object]) -> dict[str, object]:
    return as_object(detail.get("addendum"))


def _digest(value: object) -> str:
    """Return a SHA-256 of any value, however deep, including types that JSON does not have.

    Uses its own stack, because an encoder would recurse, and stops after a million nodes.
    """
    hasher = hashlib.sha256()
    stack: list[object] = [value]
    for _ in range(MAX_DIGEST_NODES):
        if not stack:
            break
        node = stack.pop()
        if isinstance(node, dict):
            hasher.update(b"{%d;" % len(node))
            for key in sorted(node, key=_scalar):
                stack.extend((node[key], key))
        elif isinstance(node, list | tuple):
            hasher.update(b"[%d;" % len(node))
            stack.extend(reversed(node))
        else:
            scalar = _scalar(node)
            hasher.update(b"%d:" % len(scalar) + scalar)
    return hasher.hexdigest()


def _scalar(value: object) -> bytes:
    if isinstance(value, str):
        return b"s" + value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes | bytearray):
        return b"b" + bytes(value)
    if isinstance(value, int):  # hexadecimal, because Python refuses to format very long decimals
        return f"i{value:x}".encode() if not isinstance(value, bool) else b"t" if value else b"f"
    if value is None or isinstance(value, float):
        return f"v{value!r}".encode()
    return f"o{type(value).__name__}".encode("utf-8", "surrogatepass")


# The record ---------------------------------------------------------------------------------------


def _result(detail: dict[str, object]) -> Setting | None:
    """Return the setting after the call: from its response, else from its request, which has no status."""
    answer = as_object(detail.get("responseElements")).get("encryptionConfig")
    if isinstance(answer, dict):
        return _setting(answer)
    if detail.get("errorCode") is not None:  # an error, even if unreadable: the request did not take effect
        return None
    return _setting(as_object(detail.get("requestParameters")))


def _setting(fields: dict[str, object]) -> Setting | None:
    """Return a `Setting` from lower-camel-case fields. A key of type NONE is dropped: it has no meaning."""
    kind, status, key = fields.get("type"), fields.get("status"), fields.get("keyId")
    known_status = EncryptionStatus(status) if status in ("UPDATING", "ACTIVE") else None
    if kind == "NONE":
        return Setting(EncryptionType.NONE, None, known_status)
    if kind == "KMS":  # a truncated or cleaned key name would name another key
        usable = isinstance(key, str) and key.isprintable() and " " not in key and 0 < len(key) <= KEY_CHARS
        return Setting(EncryptionType.KMS, str(key) if usable else None, known_status)
    return None


def _key_arns(
    target: Target, envelope: dict[str, object], detail: dict[str, object], request: dict[str, object]
) -> tuple[str, ...]:
    """Return the keys that the call changed: those listed as resources, else the key in the response or the request."""
    listed = _unique(_listed_keys(detail)) or _unique(_envelope_keys(envelope))
    if listed:
        return listed
    response = as_object(detail.get("responseElements"))
    for named in (response.get("keyId"), request.get("keyId"), request.get("targetKeyId"), request.get("kmsKeyId")):
        if not isinstance(named, str):
            continue
        if _KEY_ARN.fullmatch(named):
            return (named,)
        partition = partition_of(detail.get("userIdentity"))
        if partition and _KEY_ID.fullmatch(named):
            return (f"arn:{partition}:kms:{target.region}:{target.account}:key/{named}",)
    return ()


def _listed_keys(detail: dict[str, object]) -> Iterator[str]:
    """Yield the key ARNs. CloudTrail gives aliases the type AWS::KMS::Key, too: only the ARN distinguishes them."""
    for resource in as_list(detail.get("resources"), MAX_KEYS * 2):
        arn = as_object(resource).get("ARN")
        if isinstance(arn, str) and _KEY_ARN.fullmatch(arn):
            yield arn


def _envelope_keys(envelope: dict[str, object]) -> Iterator[str]:
    for arn in as_list(envelope.get("resources"), MAX_KEYS * 2):
        if isinstance(arn, str) and _KEY_ARN.fullmatch(arn):
            yield arn


def _unique(arns: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(arns))[:MAX_KEYS]


def _alias(detail: dict[str, object], request: dict[str, object]) -> str | None:
    name = request.get("aliasName")
    if isinstance(name, str) and _ALIAS.fullmatch(name):
        return name
    for resource in as_list(detail.get("resources"), MAX_KEYS * 2):
        arn = as_object(resource).get("ARN")
        if isinstance(arn, str) and (alias := _ALIAS_ARN.fullmatch(arn)):
            return alias[1]
    return None


def _tags(tags: object) -> Iterator[tuple[str, str]]:
    for tag in as_list(tags, MAX_TAGS):
        key = as_text(as_object(tag).get("tagKey"), TAG_KEY_CHARS)
        if key:
            yield key, as_text(as_object(tag).get("tagValue"), TAG_VALUE_CHARS) or ""


def _tag_keys(keys: object) -> Iterator[str]:
    for key in as_list(keys, MAX_REMOVED):
        if text := as_text(key, TAG_KEY_CHARS):
            yield text
