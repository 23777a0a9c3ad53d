"""Read the actor from a CloudTrail record (AWS CloudTrail user guide, "userIdentity element")."""

from __future__ import annotations

import re

from msgspec.structs import replace

from chalicelib.domain.fields import KEY_CHARS, NAME_CHARS, as_object, as_text
from chalicelib.domain.model import Actor

_PRINCIPAL_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z0-9-]{0,32}):(?P<service>iam|sts)::(?P<account>[0-9]{12}):(?P<resource>[\x21-\x7e]{1,1024})"
)
_ASSUMED_ROLE = re.compile(r"assumed-role/(?P<role>[^/]+)/(?P<session>.+)")
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}")


def read_actor(user_identity: object) -> Actor:
    """Return the actor that a CloudTrail `userIdentity` names, `unknown` if it names nobody. Never raises.

    A role's `arn` is its IAM ARN with the path, which only `sessionIssuer` has; without `sessionIssuer`, the ARN is
    derived from the assumed role's. If the two name different roles, the actor is `unknown`. An identity without an ARN
    is the calling service, or `unknown` with what the record contains: the user of a directory or web identity as the
    session, and the directory, identity provider or account as the issuer.
    """
    identity = as_object(user_identity)
    delegate = as_text(as_object(identity.get("invokedByDelegate")).get("accountId"), NAME_CHARS)
    actor = _read_identity(identity)
    return replace(actor, delegate=delegate) if delegate else actor


def _read_identity(identity: dict[str, object]) -> Actor:
    kind = as_text(identity.get("type"), NAME_CHARS)
    service = _service(identity.get("invokedBy"))
    session = _session_of(identity.get("principalId"))
    issuer = as_object(as_object(identity.get("sessionContext")).get("sessionIssuer")).get("arn")
    issuer_arn = issuer if isinstance(issuer, str) and _PRINCIPAL_ARN.fullmatch(issuer) else None
    issuing_role = issuer_arn if issuer_arn and ":role/" in issuer_arn else None

    arn = identity.get("arn")
    principal = _PRINCIPAL_ARN.fullmatch(arn) if isinstance(arn, str) else None
    if principal and (assumed := _ASSUMED_ROLE.fullmatch(principal["resource"])):
        role = f"arn:{principal['partition']}:iam::{principal['account']}:role/{assumed['role']}"
        if issuing_role:
            role = issuing_role if _same_role(role, issuing_role) else "unknown"
        return Actor(role, kind, session=as_text(assumed["session"], NAME_CHARS), via=service)
    if principal and principal["resource"].startswith("federated-user/"):
        return Actor(principal[0], kind, via=service, issued_by=issuer_arn)
    if principal:
        return Actor(principal[0], kind, session=session if ":role/" in principal[0] else None, via=service)
    if issuing_role:
        return Actor(issuing_role, kind, session=session, via=service)

    directory_user = as_object(identity.get("onBehalfOf"))
    user = as_text(directory_user.get("userId"), NAME_CHARS) or as_text(identity.get("userName"), NAME_CHARS)
    issued_by = (
        issuer_arn
        or as_text(directory_user.get("identityStoreArn"), KEY_CHARS)
        or as_text(identity.get("identityProvider"), KEY_CHARS)
        or (as_text(identity.get("accountId"), NAME_CHARS) if kind == "AWSAccount" else None)
    )
    if service and not user:
        return Actor(service, kind, issued_by=issued_by)
    return Actor("unknown", kind, session=user, via=service, issued_by=issued_by)


def partition_of(user_identity: object) -> str | None:
    """Return the partition of the caller, which is also the partition of everything the caller can reach."""
    identity = as_object(user_identity)
    issuer = as_object(as_object(identity.get("sessionContext")).get("sessionIssuer"))
    for arn in (identity.get("arn"), issuer.get("arn")):
        if isinstance(arn, str) and (principal := _PRINCIPAL_ARN.fullmatch(arn)):
            return principal["partition"]
    return None


def _same_role(role: str, issuing_role: str) -> bool:
    """Whether two role ARNs have the same partition, account and name; only one of them has the path."""
    return role.split(":role/")[0] == issuing_role.split(":role/")[0] and (
        role.rsplit("/", 1)[-1] == issuing_role.rsplit("/", 1)[-1]
    )


def _session_of(principal_id: object) -> str | None:
    """Return the session name, which follows the role's id in `principalId`."""
    if not isinstance(principal_id, str) or ":" not in principal_id[:NAME_CHARS]:
        return None
    return as_text(principal_id[: NAME_CHARS * 3].partition(":")[2], NAME_CHARS)


def _service(name: object) -> str | None:
    """Return `invokedBy` if it is a service's host name or `AWS Internal`, else None: it may stand in for an ARN."""
    return name if isinstance(name, str) and _SERVICE.fullmatch(name) else None
