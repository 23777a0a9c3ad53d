"""The calls of the packaged functions in the sandbox, as IAM would be asked about them.

A `Recorder` watches the sandbox and turns each request of the guard's roles into what AWS authorizes: action, resource,
and the condition keys that AWS sets. What a service calls with the functions' role is not in the
sandbox's traffic and is added: X-Ray's CreateGrant, KMS's checks at CreateKey, Lambda's logs and dead letters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moto.core.exceptions import JsonRESTError

from sandbox.calls import Request
from sandbox.identity import Principal
from sandbox.keys import backend_for, find_key, view_of
from tests.iam.simulator import ACCOUNT, Policy, Question

ROLES = ("xray-guard", "xray-guard-api")
OF_ITEMS = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}
UNRESTRICTED = {"sts:GetCallerIdentity"}
"""Calls that need no permission."""

Values = tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """One authorization. `context` has the condition keys, each with its values; `key_policy` is that of a KMS key."""

    role: str
    action: str
    resource: str
    context: tuple[tuple[str, str | Values], ...] = ()
    key_policy: str | None = None
    account: str = ""

    def question(
        self, identity: Policy, scps: tuple[Policy, ...] = (), table_policies: dict[str, Policy] | None = None
    ) -> Question:
        """The question whether these policies allow the call."""
        by_table = table_policies or {}
        resource_policy = json.loads(self.key_policy) if self.key_policy else by_table.get(self.resource)
        context = {name: value if isinstance(value, str) else list(value) for name, value in self.context}
        return Question(
            self.role,
            self.action,
            self.resource,
            context,
            [identity],
            resource_policy,
            scps,
            account=self.account or ACCOUNT,
        )


class Recorder:
    """Collects the calls of the guard's roles, each once, and the lock-out checks that KMS makes."""

    def __init__(self, account: str, region: str) -> None:
        self.account = account
        self.region = region
        self.calls: dict[Call, set[str]] = {}
        self.lockouts: dict[Call, set[str]] = {}
        self.unresolved: set[str] = set()

    def __call__(self, request: Request, principal: Principal) -> None:
        """Note a request before the sandbox carries it out."""
        if principal.role_arn is None or principal.role_arn.rpartition("/")[2] not in ROLES:
            return
        assert principal.session is not None
        for call in self._calls(request, principal.role_arn, principal.session):
            self.calls.setdefault(call, set()).add(principal.session)

    def by_lambda(self, role: str, function: str, *, gave_up: bool) -> None:
        """Add what Lambda itself calls with the function's role: it writes its log, and sends what it gives up on."""
        group = f"arn:aws:logs:{self.region}:{self.account}:log-group:/aws/lambda/{function}:log-stream:x"
        added = [Call(role, f"logs:{action}", group) for action in ("CreateLogStream", "PutLogEvents")]
        if gave_up:
            queue = f"arn:aws:sqs:{self.region}:{self.account}:xray-guard-dead-letters"
            added.append(Call(role, "sqs:SendMessage", queue))
        for call in added:
            self.calls.setdefault(call, set()).add(function)

    def _calls(self, request: Request, role: str, function: str) -> Iterator[Call]:
        source = {"lambda:SourceFunctionArn": f"arn:aws:lambda:{self.region}:{self.account}:function:{function}"}
        name = f"{request.service}:{request.action}"
        if name in UNRESTRICTED:
            return
        match request.service:
            case "dynamodb":
                yield from self._of_tables(request, role, source)
            case "kms":
                yield from self._of_keys(request, role, source)
            case "xray":
                yield Call(role, name, "*", _context(source))
                if request.action == "PutEncryptionConfig" and request.parameters.get("KeyId"):
                    yield from self._by_xray(request, role)
            case "s3":
                assert request.method == "PUT", request
                yield Call(role, "s3:PutObject", f"arn:aws:s3:::{request.path.lstrip('/')}", _context(source))
            case "logs" if "logGroupName" in request.parameters:
                group = f"log-group:{request.parameters['logGroupName']}"
                yield Call(role, name, f"arn:aws:logs:{request.region}:{self.account}:{group}", _context(source))
            case "iam":
                who = request.parameters.get("RoleName") or request.parameters.get("UserName")
                kind = "role" if "RoleName" in request.parameters else "user"
                yield Call(role, name, f"arn:aws:iam::{self.account}:{kind}/{who}", _context(source))
            case _:
                yield Call(role, name, "*", _context(source))

    # --- DynamoDB: a transaction is authorized as its parts, and an index is a resource of its own ------------------

    def _of_tables(self, request: Request, role: str, source: dict[str, str]) -> Iterator[Call]:
        given = request.parameters
        parts: list[tuple[str, str, list[str]]] = []
        if request.action == "TransactWriteItems":
            for item in given["TransactItems"]:
                ((kind, what),) = item.items()
                parts.append((OF_ITEMS[kind], what["TableName"], [_partition(what.get("Item") or what["Key"])]))
        elif request.action == "BatchGetItem":
            for table, what in given["RequestItems"].items():
                parts.append(("BatchGetItem", table, [_partition(each) for each in what["Keys"]]))
        elif request.action == "Query":
            index = f"/index/{given['IndexName']}" if "IndexName" in given else ""
            parts.append(("Query", given["TableName"] + index, []))
        else:
            parts.append((request.action, given["TableName"], [_partition(given.get("Item") or given["Key"])]))
        for action, table, keys in parts:
            arn = f"arn:aws:dynamodb:{self.region}:{self.account}:table/{table}"
            leading = {"dynamodb:LeadingKeys": tuple(sorted({*keys}))} if keys else {}
            yield Call(role, f"dynamodb:{action}", arn, _context(source, leading))

    # --- KMS: tags, aliases and policy of the key as the call finds them ---------------------------------------------

    def _of_keys(self, request: Request, role: str, source: dict[str, str]) -> Iterator[Call]:
        given, action = request.parameters, f"kms:{request.action}"
        if request.action == "ListKeys":
            yield Call(role, action, "*", _context(source))
        elif request.action == "CreateKey":
            yield from self._creation(request, role, source)
        elif request.action in ("CreateAlias", "UpdateAlias"):
            alias = f"arn:aws:kms:{request.region}:{self.account}:{given['AliasName']}"
            yield Call(role, action, alias, _context(source))
            named = [given["TargetKeyId"], *([given["AliasName"]] if request.action == "UpdateAlias" else [])]
            for key_id in named:
                yield from self._on_key(role, action, key_id, request.region, source)
        else:
            bypass = _bypass(given) if request.action == "PutKeyPolicy" else {}
            yield from self._on_key(role, action, given["KeyId"], request.region, source, bypass)
            if request.action == "PutKeyPolicy":
                self._may_lock_out(role, given["KeyId"], request.region, given["Policy"])

    def _creation(self, request: Request, role: str, source: dict[str, str]) -> Iterator[Call]:
        """CreateKey, and what KMS checks with it: the tags, and maybe the policy that it brings."""
        given = request.parameters
        tags = {f"aws:RequestTag/{each['TagKey']}": each["TagValue"] for each in given["Tags"]}
        # The nonce is another one each time, and nothing depends on its value.
        tags = {name: "nonce" if name.endswith("-nonce") else value for name, value in tags.items()}
        keys = {"aws:TagKeys": tuple(sorted(each["TagKey"] for each in given["Tags"]))}
        for action, more in (
            ("kms:CreateKey", _bypass(given)),
            ("kms:TagResource", {}),
            *((("kms:PutKeyPolicy", _bypass(given)),) if "Policy" in given else ()),
        ):
            on_key = f"arn:aws:kms:{request.region}:{self.account}:key/00000000-0000-4000-8000-000000000000"
            resource = on_key if action == "kms:TagResource" else "*"
            policy = BY_IAM.replace("ACCOUNT", self.account) if resource == on_key else None
            yield Call(role, action, resource, _context(source, tags, keys, more), policy, self.account)

    def _by_xray(self, request: Request, role: str) -> Iterator[Call]:
        """What X-Ray calls with the rights of the caller that gives it a key; whether with the function is unknown."""
        via = {"kms:ViaService": f"xray.{request.region}.amazonaws.com"}
        key = request.parameters["KeyId"]
        for_resource = {**via, "kms:GrantIsForAWSResource": "true"}
        yield from self._on_key(role, "kms:CreateGrant", key, request.region, for_resource)
        yield from self._on_key(role, "kms:DescribeKey", key, request.region, via)

    def _on_key(self, role: str, action: str, key_id: str, region: str, *contexts: dict[str, str]) -> Iterator[Call]:
        try:
            key = find_key(key_id, self.account, region)
        except JsonRESTError:
            # KMS answers NotFoundException before it authorizes.
            self.unresolved.add(action)
            return
        view = view_of(backend_for(key.account_id, region))
        tags = {f"aws:ResourceTag/{name}": value for name, value in view.keys[key.id].tags.items()}
        tags = {name: "nonce" if name.endswith("-nonce") else value for name, value in tags.items()}
        aliases = tuple(sorted(name for name, target in view.aliases.items() if target == key.id))
        by_alias: dict[str, Values] = {"kms:ResourceAliases": aliases} if aliases else {}
        yield Call(role, action, key.arn, _context(*contexts, tags, by_alias), key.policy, key.account_id)

    def _may_lock_out(self, role: str, key_id: str, region: str, policy: str) -> None:
        """KMS checks that the caller may put a next policy, by the one that it puts; with which context is unknown."""
        for call in self._on_key(role, "kms:PutKeyPolicy", key_id, region):
            check = Call(role, call.action, call.resource, call.context, policy, call.account)
            self.lockouts.setdefault(check, set()).add("KMS")


BY_IAM = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": "ACCOUNT"}, "Action": "kms:*", "Resource": "*"}],
    }
)
"""The policy of a key that does not exist yet: IAM alone decides."""


def _bypass(parameters: dict[str, Any]) -> dict[str, str]:
    given = parameters.get("BypassPolicyLockoutSafetyCheck")
    return {} if given is None else {"kms:BypassPolicyLockoutSafetyCheck": str(given).lower()}


def _partition(item: dict[str, Any]) -> str:
    return str(item["target"]["S"])


def _context(*parts: dict[str, str] | dict[str, Values]) -> tuple[tuple[str, str | Values], ...]:
    whole: dict[str, str | Values] = {}
    for part in parts:
        whole.update(part)
    return tuple(sorted(whole.items()))
