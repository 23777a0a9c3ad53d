"""The caller: the principal that owns an access key in moto's IAM and STS.

Unknown credentials belong to the account's administrator, an IAM user.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from moto.iam.models import iam_backends
from moto.sts.models import AssumedRole, sts_backends
from moto.utilities.utils import get_partition

from sandbox.knobs import aws_now

ADMINISTRATOR = "administrator"


@dataclass(frozen=True, slots=True)
class Principal:
    """`arn` is the ARN of the user or role session; `role_arn` is a session's role, with its path."""

    account: str
    arn: str
    unique_id: str
    access_key: str
    name: str
    role_arn: str | None = None
    session: str | None = None
    since: datetime | None = None

    @property
    def policy_arn(self) -> str:
        """The value of `aws:PrincipalArn`: for a session, its role's ARN."""
        return self.role_arn or self.arn

    def user_identity(self) -> dict[str, Any]:
        """Return CloudTrail's `userIdentity`. Source: CloudTrail user guide, userIdentity element."""
        if self.role_arn is None:
            return {
                "type": "IAMUser",
                "principalId": self.unique_id,
                "arn": self.arn,
                "accountId": self.account,
                "accessKeyId": self.access_key,
                "userName": self.name,
            }
        since = self.since or aws_now()
        return {
            "type": "AssumedRole",
            "principalId": f"{self.unique_id}:{self.session}",
            "arn": self.arn,
            "accountId": self.account,
            "accessKeyId": self.access_key,
            "sessionContext": {
                "sessionIssuer": {
                    "type": "Role",
                    "principalId": self.unique_id,
                    "arn": self.role_arn,
                    "accountId": self.account,
                    "userName": self.name,
                },
                "attributes": {
                    "creationDate": since.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "mfaAuthenticated": "false",
                },
            },
        }


def made_up_id(prefix: str, text: str) -> str:
    """Return a unique id in IAM's format, always the same for the same text."""
    return prefix + hashlib.sha256(text.encode()).hexdigest()[:17].upper()


def principal_of(access_key: str, default_account: str, region: str) -> Principal:
    """Return the owner of the access key: a moto role session or user, else the default account's administrator."""
    for backends in list(sts_backends.values()):
        for backend in list(backends.values()):
            session = backend.get_assumed_role_from_access_key(access_key)
            if session is not None:
                return _role_session(session)
    for account in list(iam_backends.values()):
        for iam in list(account.values()):
            if access_key in iam.access_keys:
                user = iam.get_user_from_access_key_id(access_key)
                if user is not None:
                    return Principal(iam.account_id, user.arn, user.id, access_key, user.name)
    arn = f"arn:{get_partition(region)}:iam::{default_account}:user/{ADMINISTRATOR}"
    return Principal(default_account, arn, made_up_id("AIDA", arn), access_key, ADMINISTRATOR)


def _role_session(session: AssumedRole) -> Principal:
    role_arn = session.role_arn
    role = role_with_arn(role_arn)
    account = role_arn.split(":")[4]
    return Principal(
        account=account,
        arn=session.arn,
        unique_id=role["id"] if role else made_up_id("AROA", role_arn),
        access_key=session.access_key_id,
        name=role_arn.rsplit("/", 1)[-1],
        role_arn=role_arn,
        session=session.session_name,
        since=aws_now(),
    )


def policies_of(principal: Principal) -> list[str]:
    """Return the inline identity policies of a session's role; none for any other principal."""
    parts = (principal.role_arn or "").split(":", 5)
    backend = iam_backends[parts[4]].get(parts[1]) if len(parts) == 6 and parts[4] in iam_backends else None
    roles = list(backend.roles.values()) if backend is not None else []
    return [policy for role in roles if role.arn == principal.role_arn for policy in role.policies.values()]


def trust_of(role_arn: str) -> str | None:
    """Return the role's trust policy, or None if moto's IAM has no such role."""
    parts = role_arn.split(":", 5)
    backend = iam_backends[parts[4]].get(parts[1]) if len(parts) == 6 and parts[4] in iam_backends else None
    roles = list(backend.roles.values()) if backend is not None else []
    return next((str(role.assume_role_policy_document) for role in roles if role.arn == role_arn), None)


def role_with_arn(arn: str) -> dict[str, str] | None:
    """Return the role's id and ARN, or None if moto's IAM has no such role."""
    return _entity(arn, "roles")


def user_with_arn(arn: str) -> dict[str, str] | None:
    """Return the user's id and ARN, or None if moto's IAM has no such user."""
    return _entity(arn, "users")


def _entity(arn: str, collection: str) -> dict[str, str] | None:
    parts = arn.split(":", 5)
    if len(parts) != 6 or parts[4] not in iam_backends:
        return None
    backend = iam_backends[parts[4]].get(parts[1])
    if backend is None:
        return None
    entities: dict[str, Any] = getattr(backend, collection)
    for entity in list(entities.values()):
        if entity.arn == arn:
            return {"id": entity.id, "arn": entity.arn}
    return None
