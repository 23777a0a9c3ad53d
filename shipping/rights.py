"""The roles' rights, put into the template and completed from the policy: which aliases and tags the rules name.

The rights are written in `policies/iam-*.json`, with CloudFormation's own functions in them. The template names such a
file as `${policies/iam-guard.json}`; what only the policy document knows stands in the file as `${ManagedKeyAliases}`,
`${ManagedKeyAliasNames}`, `${ManagedKeyTags}`, `${BreakGlassTags}`, `${BreakGlassRoles}` and `${BreakGlassUsers}`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chalicelib.domain.model import GUARD_TAG_KEY, NONCE_TAG_KEY
from chalicelib.domain.policy import Policy, parse


def render(template: Path, policies: Path) -> None:
    """Put the rights into the template, in place. Raises PolicyError for a policy document that cannot be read."""
    values = placeholders(parse((policies / "policy.json").read_bytes()))
    files: dict[str, Any] = {
        f"${{policies/{path.name}}}": completed(json.loads(path.read_text("utf-8")), values)
        for path in policies.glob("iam-*.json")
    }
    template.write_text(json.dumps(fill(json.loads(template.read_text("utf-8")), files), indent=2) + "\n", "utf-8")


def completed(rights: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A file of rights with its placeholders filled, without the statements for which the policy names nothing."""
    statements = [fill(one, values) for one in rights["Statement"] if not asks_for_nothing(one, values)]
    return {**rights, "Statement": statements}


def placeholders(policy: Policy) -> dict[str, list[Any]]:
    """What each placeholder stands for, sorted, so that the same policy gives the same bytes."""
    aliases = {rule.managed_key.alias for rule in policy.rules if rule.managed_key}
    tags = {tag for rule in policy.rules if rule.managed_key for tag in rule.managed_key.tags}
    break_glass = {rule.break_glass.tag for rule in policy.rules if rule.break_glass}
    principals = {who for rule in policy.rules if rule.break_glass for who in rule.break_glass.principals}
    return {
        "${ManagedKeyAliases}": [
            {"Fn::Sub": "arn:${AWS::Partition}:kms:*:${AWS::AccountId}:" + alias} for alias in sorted(aliases)
        ],
        "${ManagedKeyAliasNames}": sorted(aliases),
        "${ManagedKeyTags}": sorted({GUARD_TAG_KEY, NONCE_TAG_KEY} | tags),
        "${BreakGlassTags}": sorted(break_glass),
        "${BreakGlassRoles}": [{"Fn::Sub": arn} for arn in sorted(of_this_account(principals, "role"))],
        "${BreakGlassUsers}": [{"Fn::Sub": arn} for arn in sorted(of_this_account(principals, "user"))],
    }


def of_this_account(principals: set[str], kind: str) -> set[str]:
    """The ARN patterns that can name the account's own roles or users; only their tags can be read at all."""
    resources = (pattern.split(":", 5)[5] for pattern in principals)
    return {
        "arn:${AWS::Partition}:iam::${AWS::AccountId}:" + resource
        for resource in resources
        if resource.startswith(f"{kind}/")
    }


def asks_for_nothing(statement: Any, values: dict[str, list[Any]]) -> bool:
    """Whether a statement rests on a placeholder that no rule fills; IAM refuses an empty list."""
    text = json.dumps(statement)
    return any(f'"{name}"' in text and not value for name, value in values.items())


def fill(part: Any, values: dict[str, Any]) -> Any:
    """The same structure with each placeholder replaced by what it stands for."""
    if isinstance(part, dict):
        return {name: fill(value, values) for name, value in part.items()}
    if isinstance(part, list):
        return [fill(value, values) for value in part]
    return values.get(part, part) if isinstance(part, str) else part
