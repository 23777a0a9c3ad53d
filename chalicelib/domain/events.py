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
from datetime import UTC, datetime

from chalicelib.domain.model import (
    Actor,
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
KEY_CHARS = 2048
NAME_CHARS = 128
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
_PRINCIPAL_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z0-9-]{0,32}):(?P<service>iam|sts)::(?P<account>[0-9]{12}):(?P<resource>[\x21-\x7e]{1,1024})"
)
_ASSUMED_ROLE = re.compile(r"assumed-role/(?P<role>[^/]+)/(?P<session>.+)")
_KEY_ARN = re.compile(r"arn:aws[a-z0-9-]{0,32}:kms:[a-z0-9-]{1,32}:[0-9]{12}:key/[A-Za-z0-9-]{1,128}")
_ALIAS_ARN = re.compile(r"arn:aws[a-z0-9-]{0,32}:kms:[a-z0-9-]{1,32}:[0-9]{12}:(alias/[A-Za-z0-9/_-]{1,250})")
_KEY_ID = re.compile(r"[A-Za-z0-9-]{1,128}")
_ALIAS = re.compile(r"alias/[A-Za-z0-9/_-]{1,250}")
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}")
_TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ](?P<clock>[0-9]{2}:[0-9]{2}):(?P<second>[0-9]{2})"
    r"(?:\.(?P<fraction>[0-9]{1,9}))?(?P<zone>[Zz]|[+-][0-9]{2}:?[0-9]{2})?"
)


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
    error_code = _text(detail.get("errorCode"), ERROR_CODE_CHARS)
    return ChangeEvent(
        target=target,
        trigger=_trigger(TriggerKind.CHANGE, envelope, detail),
        result=None if error_code else _result(detail),
        error_code=error_code,
        error_message=_text(detail.get("errorMessage"), ERROR_MESSAGE_CHARS),
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
    request = _object(detail.get("requestParameters"))
    tags = tuple(_tags(request.get("tags")))
    return KeyEvent(
        target=target,
        trigger=_trigger(TriggerKind.KEY, envelope, detail),
        key_arns=_key_arns(target, envelope, detail, request),
        alias=_alias(detail, request),
        tag_keys=tuple(dict.fromkeys([key for key, _ in tags] + list(_tag_keys(request.get("tagKeys"))))),
        tags=tags,
        error_code=_text(detail.get("errorCode"), ERROR_CODE_CHARS),
    )


def read_actor(user_identity: object) -> Actor:
    """Who a CloudTrail `userIdentity` names. Never raises; what names nobody is `unknown`.

    A role is named by its IAM ARN with the path, which only `sessionIssuer` has; without one, by the ARN made from
    the assumed role's. Where the two name different roles, neither is believed. Identities without an ARN are the
    calling service, else `unknown` with what the record does tell: a directory's or web identity's user as the
    session, the directory, identity provider or account as the issuer.
    """
    identity = _object(user_identity)
    kind = _text(identity.get("type"), NAME_CHARS)
    service = _service(identity.get("invokedBy"))
    session = _session_of(identity.get("principalId"))
    issuer = _object(_object(identity.get("sessionContext")).get("sessionIssuer")).get("arn")
    issuer_arn = issuer if isinstance(issuer, str) and _PRINCIPAL_ARN.fullmatch(issuer) else None
    issuing_role = issuer_arn if issuer_arn and ":role/" in issuer_arn else None

    arn = identity.get("arn")
    principal = _PRINCIPAL_ARN.fullmatch(arn) if isinstance(arn, str) else None
    if principal and (assumed := _ASSUMED_ROLE.fullmatch(principal["resource"])):
        role = f"arn:{principal['partition']}:iam::{principal['account']}:role/{assumed['role']}"
        if issuing_role:
            role = issuing_role if _same_role(role, issuing_role) else "unknown"
        return Actor(role, kind, session=_text(assumed["session"], NAME_CHARS), via=service)
    if principal and principal["resource"].startswith("federated-user/"):
        return Actor(principal[0], kind, via=service, issued_by=issuer_arn)
    if principal:
        return Actor(principal[0], kind, session=session if ":role/" in principal[0] else None, via=service)
    if issuing_role:
        return Actor(issuing_role, kind, session=session, via=service)

    directory_user = _object(identity.get("onBehalfOf"))
    user = _text(directory_user.get("userId"), NAME_CHARS) or _text(identity.get("userName"), NAME_CHARS)
    issued_by = (
        issuer_arn
        or _text(directory_user.get("identityStoreArn"), KEY_CHARS)
        or _text(identity.get("identityProvider"), KEY_CHARS)
        or (_text(identity.get("accountId"), NAME_CHARS) if kind == "AWSAccount" else None)
    )
    if service and not user:
        return Actor(service, kind, issued_by=issued_by)
    return Actor("unknown", kind, session=user, via=service, issued_by=issued_by)


# The envelope -------------------------------------------------------------------------------------


def _open(
    event: object, source: str, endpoint: str, names: frozenset[str]
) -> tuple[dict[str, object], dict[str, object], Target] | Rejected:
    """The envelope, the CloudTrail record in it, and their target; or what is wrong with them."""
    if not isinstance(event, dict):
        return _reject(event, "NOT_AN_OBJECT", f"the event is no JSON object but {type(event).__name__[:40]}")
    if event.get("source") != source:
        return _reject(event, "NOT_OUR_EVENT", f"source is not {source}")
    detail = event.get("detail")
    if not isinstance(detail, dict) or not detail:
        return _reject(event, "DETAIL_MISSING", "detail is missing, empty or no object")
    if detail.get("omitted") is True and "eventName" not in detail:
        return _reject(event, "DETAIL_OMITTED", "detail was left out for its size")
    name = detail.get("eventName")
    if not isinstance(name, str) or name not in names:
        return _reject(event, "NOT_OUR_EVENT", "detail.eventName is not one that is listened for")
    service = detail.get("eventSource")
    if service is not None and not (isinstance(service, str) and service.startswith(endpoint)):
        return _reject(event, "NOT_OUR_EVENT", f"detail.eventSource is not {endpoint}amazonaws.com")
    target = _target(event, detail)
    return target if isinstance(target, Rejected) else (event, detail, target)


def _read_key_notice(event: dict[str, object], notice: str) -> KeyEvent | Rejected:
    if event.get("source") != "aws.kms":
        return _reject(event, "NOT_OUR_EVENT", "source is not aws.kms")
    target = _target(event, {})
    if isinstance(target, Rejected):
        return target
    trigger = Trigger(
        kind=TriggerKind.KEY, event_id=_event_id(event), event_name=notice, event_time=_time(event.get("time"))
    )
    return KeyEvent(target, trigger, key_arns=_unique(_envelope_keys(event)))


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
                return _reject(envelope, f"{what}_INVALID", f"{where} is not {shape}")
            if found.setdefault(what, claim) != claim:
                return _reject(envelope, "TARGET_MISMATCH", f"{claims[0][0]} and {claims[1][0]} disagree")
        if what not in found:
            return _reject(envelope, f"{what}_MISSING", f"neither {claims[0][0]} nor {claims[1][0]} is there")
    return Target(found["ACCOUNT"], found["REGION"])


def _reject(event: object, reason: str, detail: str) -> Rejected:
    return Rejected(reason, detail, _event_id(event))


def _trigger(kind: TriggerKind, envelope: dict[str, object], detail: dict[str, object]) -> Trigger:
    return Trigger(
        kind=kind,
        event_id=_event_id(envelope),
        event_name=_text(detail.get("eventName"), NAME_CHARS),
        event_time=_time(detail.get("eventTime")) or _time(envelope.get("time")),
        request_id=_text(detail.get("requestID"), REQUEST_ID_CHARS),
        actor=read_actor(detail.get("userIdentity")),
        source_ip=_text(detail.get("sourceIPAddress"), SOURCE_IP_CHARS),
        user_agent=_text(detail.get("userAgent"), USER_AGENT_CHARS),
    )


def _event_id(event: object) -> str:
    """What tells this event from others, however often it is delivered: CloudTrail's `eventID`, else EventBridge's.

    It becomes a part of a table's key, so an id of another shape stands as its digest; an event without any is its own.
    """
    if isinstance(event, dict):
        for claim in (_object(event.get("detail")).get("eventID"), event.get("id")):
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
    answer = _object(detail.get("responseElements")).get("encryptionConfig")
    if isinstance(answer, dict):
        return _setting(answer)
    if detail.get("errorCode") is not None:  # an error, if an unreadable one: what was asked for is not what came of it
        return None
    return _setting(_object(detail.get("requestParameters")))


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
    response = _object(detail.get("responseElements"))
    for named in (response.get("keyId"), request.get("keyId"), request.get("targetKeyId")):
        if not isinstance(named, str):
            continue
        if _KEY_ARN.fullmatch(named):
            return (named,)
        partition = _partition(detail.get("userIdentity"))
        if partition and _KEY_ID.fullmatch(named):
            return (f"arn:{partition}:kms:{target.region}:{target.account}:key/{named}",)
    return ()


def _listed_keys(detail: dict[str, object]) -> Iterator[str]:
    """CloudTrail lists aliases, too, as being of the type AWS::KMS::Key: only the ARN tells."""
    for resource in _list(detail.get("resources"), MAX_KEYS * 2):
        arn = _object(resource).get("ARN")
        if isinstance(arn, str) and _KEY_ARN.fullmatch(arn):
            yield arn


def _envelope_keys(envelope: dict[str, object]) -> Iterator[str]:
    for arn in _list(envelope.get("resources"), MAX_KEYS * 2):
        if isinstance(arn, str) and _KEY_ARN.fullmatch(arn):
            yield arn


def _unique(arns: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(arns))[:MAX_KEYS]


def _partition(user_identity: object) -> str | None:
    """The partition of whoever called, which is that of everything they can call."""
    identity = _object(user_identity)
    issuer = _object(_object(identity.get("sessionContext")).get("sessionIssuer"))
    for arn in (identity.get("arn"), issuer.get("arn")):
        if isinstance(arn, str) and (principal := _PRINCIPAL_ARN.fullmatch(arn)):
            return principal["partition"]
    return None


def _alias(detail: dict[str, object], request: dict[str, object]) -> str | None:
    name = request.get("aliasName")
    if isinstance(name, str) and _ALIAS.fullmatch(name):
        return name
    for resource in _list(detail.get("resources"), MAX_KEYS * 2):
        arn = _object(resource).get("ARN")
        if isinstance(arn, str) and (alias := _ALIAS_ARN.fullmatch(arn)):
            return alias[1]
    return None


def _tags(tags: object) -> Iterator[tuple[str, str]]:
    for tag in _list(tags, MAX_TAGS):
        key = _text(_object(tag).get("tagKey"), TAG_KEY_CHARS)
        if key:
            yield key, _text(_object(tag).get("tagValue"), TAG_VALUE_CHARS) or ""


def _tag_keys(keys: object) -> Iterator[str]:
    for key in _list(keys, MAX_TAGS):
        if text := _text(key, TAG_KEY_CHARS):
            yield text


# The identity -------------------------------------------------------------------------------------


def _same_role(role: str, issuing_role: str) -> bool:
    """Whether two role ARNs are of one account, partition and name; only one of them has the path."""
    return role.split(":role/")[0] == issuing_role.split(":role/")[0] and (
        role.rsplit("/", 1)[-1] == issuing_role.rsplit("/", 1)[-1]
    )


def _session_of(principal_id: object) -> str | None:
    """The session's name, which follows the role's id in `principalId`."""
    if not isinstance(principal_id, str) or ":" not in principal_id[:NAME_CHARS]:
        return None
    return _text(principal_id[: NAME_CHARS * 3].partition(":")[2], NAME_CHARS)


def _service(name: object) -> str | None:
    """`invokedBy`: a service's host name, or `AWS Internal`. Nothing else, as it may stand where an ARN would."""
    return name if isinstance(name, str) and _SERVICE.fullmatch(name) else None


# Fields -------------------------------------------------------------------------------------------


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object, limit: int) -> list[object]:
    return value[:limit] if isinstance(value, list) else []


def _text(value: object, limit: int) -> str | None:
    """The text cut to the limit, what is not printable replaced by U+FFFD; None for anything else and for no text."""
    if not isinstance(value, str) or not value:
        return None
    cut = value if len(value) <= limit else value[: limit - 1] + "…"
    return cut if cut.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in cut)


def _time(value: object) -> datetime | None:
    """An RFC 3339 time as UTC, which one without a zone is too: CloudTrail writes UTC. None if unreadable."""
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return None
    second = "59" if found["second"] == "60" else found["second"]  # a leap second, which Python has no word for
    zone = found["zone"] or "Z"
    try:
        moment = datetime.fromisoformat(f"{found['date']}T{found['clock']}:{second}{zone.upper()}")
        fraction = (found["fraction"] or "")[:6].ljust(6, "0")
        return moment.replace(microsecond=int(fraction)).astimezone(UTC)
    except (ValueError, OverflowError):  # no such day; or a zone that leads out of the years 1 to 9999
        return None
