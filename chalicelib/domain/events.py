"""Reading events: what a CloudTrail or KMS event on EventBridge says, as one of our own values.

An event is only a hint to look, and comes from outside: whatever it holds, reading it answers with a value and never
raises. It is rejected where it would make us look at the wrong target, and read as far as it goes everywhere else:
who did it and what they got is worth recording even in part. Nothing of an event is passed on unbounded or with
characters that a terminal obeys.

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

CHANGE_EVENT = "PutEncryptionConfig"

KEY_EVENTS = frozenset(
    {
        "CancelKeyDeletion",
        "CreateAlias",
        "DeleteAlias",
        "DeleteExpiredKeyMaterial",
        "DeleteImportedKeyMaterial",
        "DeleteKey",
        "DisableKey",
        "DisableKeyRotation",
        "EnableKey",
        "EnableKeyRotation",
        "PutKeyPolicy",
        "ScheduleKeyDeletion",
        "TagResource",
        "UntagResource",
        "UpdateAlias",
    }
)
"""The calls and service events, by CloudTrail's `eventName`, that may change what a key is worth."""

KEY_NOTICES = frozenset({"KMS CMK Deletion", "KMS Imported Key Material Expiration"})
"""What KMS tells EventBridge itself, by `detail-type`: no CloudTrail record, so no actor and no call."""

# The longest text kept of each field, in characters, an ellipsis included; AWS's own limit where there is one.
ERROR_CODE_CHARS = 128
ERROR_MESSAGE_CHARS = 1024
REQUEST_ID_CHARS = 128
SOURCE_IP_CHARS = 128
TAG_KEY_CHARS = 128
TAG_VALUE_CHARS = 256
USER_AGENT_CHARS = 512

MAX_KEYS = 16
MAX_TAGS = 64  # KMS allows 50 a key
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
    """The PutEncryptionConfig call that an EventBridge event tells of, or why the event cannot be acted on.

    The target is the event's own: `recipientAccountId` and `awsRegion`, which the envelope's `account` and `region`
    must not contradict. `result` is what the call answered, or what it asked for where the answer was left out; it is
    None for a failed call. Reasons: NOT_AN_OBJECT, NOT_OUR_EVENT, DETAIL_MISSING, DETAIL_OMITTED, ACCOUNT_MISSING,
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
    )


def read_key_event(event: object) -> KeyEvent | Rejected:
    """The change to a KMS key, alias or key tag that an EventBridge event tells of, or why it cannot be acted on.

    Takes CloudTrail's records of `KEY_EVENTS` and KMS's own `KEY_NOTICES` (whose trigger has no actor, and the
    detail-type as its event name). `key_arns` is empty where the event names no key, as records of refused calls
    often do; UpdateAlias names only the alias's new key. The target is found, and the reasons are, as for
    `read_change`. Never raises.
    """
    if isinstance(event, dict) and isinstance(notice := event.get("detail-type"), str) and notice in KEY_NOTICES:
        return _read_key_notice(event, notice)
    opened = _open(event, source="aws.kms", endpoint="kms.", names=KEY_EVENTS)
    if isinstance(opened, Rejected):
        return opened
    envelope, detail, target = opened
    request = as_object(detail.get("requestParameters"))
    tags = tuple(_tags(request.get("tags")))
    keys = _key_arns(target, envelope, detail, request)
    alias = _alias(detail, request)
    error_code = as_text(detail.get("errorCode"), ERROR_CODE_CHARS)
    return KeyEvent(
        target=target,
        trigger=_trigger(TriggerKind.KEY, envelope, detail),
        key_arns=keys,
        alias=alias,
        tag_keys=tuple(dict.fromkeys([key for key, _ in tags] + list(_tag_keys(request.get("tagKeys"))))),
        tags=tags,
        error_code=error_code,
        effect=None if error_code else read_effect(str(detail["eventName"]), request, keys, alias),
    )


# The envelope -------------------------------------------------------------------------------------


def _open(
    event: object, source: str, endpoint: str, names: frozenset[str]
) -> tuple[dict[str, object], dict[str, object], Target] | Rejected:
    """The envelope, the CloudTrail record in it, and their target; or what is wrong with them."""
    if not isinstance(event, dict):
        return _reject(event, Reason.NOT_AN_OBJECT, f"the event is no JSON object but {type(event).__name__[:40]}")
    if event.get("source") != source:
        return _reject(event, Reason.NOT_OUR_EVENT, f"source is not {source}")
    detail = event.get("detail")
    if not isinstance(detail, dict) or not detail:
        return _reject(event, Reason.DETAIL_MISSING, "detail is missing, empty or no object")
    if detail.get("omitted") is True and "eventName" not in detail:
        return _reject(event, Reason.DETAIL_OMITTED, "detail was left out for its size")
    name = detail.get("eventName")
    if not isinstance(name, str) or name not in names:
        return _reject(event, Reason.NOT_OUR_EVENT, "detail.eventName is not one that is listened for")
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
    """The account and Region that both the record and the envelope name; either will do where the other has none."""
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
            return _reject(envelope, _MISSING[what], f"neither {claims[0][0]} nor {claims[1][0]} is there")
    return Target(found["ACCOUNT"], found["REGION"])


def _reject(event: object, reason: str, detail: str) -> Rejected:
    return Rejected(reason, detail, _event_id(event))


def _trigger(kind: TriggerKind, envelope: dict[str, object], detail: dict[str, object]) -> Trigger:
    return Trigger(
        kind=kind,
        event_id=_event_id(envelope),
        event_name=as_text(detail.get("eventName"), NAME_CHARS),
        event_time=as_time(detail.get("eventTime")) or as_time(envelope.get("time")),
        request_id=as_text(detail.get("requestID"), REQUEST_ID_CHARS),
        actor=read_actor(detail.get("userIdentity")),
        source_ip=as_text(detail.get("sourceIPAddress"), SOURCE_IP_CHARS),
        user_agent=as_text(detail.get("userAgent"), USER_AGENT_CHARS),
    )


def _event_id(event: object) -> str:
    """What tells this event from others, however often it is delivered: CloudTrail's `eventID`, else EventBridge's.

    It becomes a part of a table's key, so an id of another shape stands as its digest; an event without any is its own.
    """
    if isinstance(event, dict):
        for claim in (as_object(event.get("detail")).get("eventID"), event.get("id")):
            if isinstance(claim, str) and claim:
                return claim if _EVENT_ID.fullmatch(claim) else f"sha256:{_digest(claim)}"
    return f"sha256:{_digest(event)}"


def _digest(value: object) -> str:
    """A SHA-256 of any value that JSON could hold, however deep, and of what it could not, by its text.

    Walks with a stack of its own, for an encoder would recurse, and stops after a million nodes.
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
    if isinstance(value, int):  # hexadecimal, for Python refuses to write very long decimals
        return f"i{value:x}".encode() if not isinstance(value, bool) else b"t" if value else b"f"
    if value is None or isinstance(value, float):
        return f"v{value!r}".encode()
    return f"o{type(value).__name__}".encode("utf-8", "surrogatepass")


# The record ---------------------------------------------------------------------------------------


def _result(detail: dict[str, object]) -> Setting | None:
    """What the call made of the setting: its answer, else its request, which says nothing of the status."""
    answer = as_object(detail.get("responseElements")).get("encryptionConfig")
    if isinstance(answer, dict):
        return _setting(answer)
    if detail.get("errorCode") is not None:  # an error, if an unreadable one: what was asked for is not what came of it
        return None
    return _setting(as_object(detail.get("requestParameters")))


def _setting(fields: dict[str, object]) -> Setting | None:
    """A `Setting` from lower-camel-case fields. The key of NONE is dropped: where AWS names one, it means nothing."""
    kind, status, key = fields.get("type"), fields.get("status"), fields.get("keyId")
    known_status = EncryptionStatus(status) if status in ("UPDATING", "ACTIVE") else None
    if kind == "NONE":
        return Setting(EncryptionType.NONE, None, known_status)
    if kind == "KMS":  # a key that had to be cut or cleaned would be another key
        usable = isinstance(key, str) and key.isprintable() and " " not in key and 0 < len(key) <= KEY_CHARS
        return Setting(EncryptionType.KMS, str(key) if usable else None, known_status)
    return None


def _key_arns(
    target: Target, envelope: dict[str, object], detail: dict[str, object], request: dict[str, object]
) -> tuple[str, ...]:
    """The keys that were acted on: those listed as resources, else the one that the call answered with or was asked."""
    listed = _unique(_listed_keys(detail)) or _unique(_envelope_keys(envelope))
    if listed:
        return listed
    response = as_object(detail.get("responseElements"))
    for named in (response.get("keyId"), request.get("keyId"), request.get("targetKeyId")):
        if not isinstance(named, str):
            continue
        if _KEY_ARN.fullmatch(named):
            return (named,)
        partition = partition_of(detail.get("userIdentity"))
        if partition and _KEY_ID.fullmatch(named):
            return (f"arn:{partition}:kms:{target.region}:{target.account}:key/{named}",)
    return ()


def _listed_keys(detail: dict[str, object]) -> Iterator[str]:
    """CloudTrail lists aliases, too, as being of the type AWS::KMS::Key: only the ARN tells."""
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
    for key in as_list(keys, MAX_TAGS):
        if text := as_text(key, TAG_KEY_CHARS):
            yield text
