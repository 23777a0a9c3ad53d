"""Complete the templates with the aliases, tags and principals of the policy's rules, and with the roles' permissions.

The permissions are in `policies/iam-*.json`, with CloudFormation's own functions in them. The template refers to such a
file as `${policies/iam-guard.json}`. The file has placeholders for what comes from the policy document:
`${ManagedKeyAliases}`, `${ManagedKeyAliasNames}`, `${ManagedKeyTags}`, `${BreakGlassTags}`, `${BreakGlassRoles}` and
`${BreakGlassUsers}`. The templates themselves may have them, too, and `${BreakGlassPrincipals}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from chalicelib.domain.model import GUARD_TAG_KEY, NONCE_TAG_KEY
from chalicelib.domain.policy import Policy, parse


def render(template: Path, policies: Path) -> None:
    """Complete the template, in place. Raises PolicyError if the policy document cannot be read."""
    values = placeholders(parse((policies / "policy.json").read_bytes()))
    files: dict[str, Any] = {
        f"${{policies/{path.name}}}": completed(json.loads(path.read_text("utf-8")), values)
        for path in policies.glob("iam-*.json")
    }
    filled = fill(json.loads(template.read_text("utf-8")), {**values, **files})
    template.write_text(json.dumps(filled, indent=2) + "\n", "utf-8")


def demand(template: Path, parameters: Iterable[str]) -> None:
    """Take the defaults of the parameters away, in place, so that a deployment must name them."""
    document = json.loads(template.read_text("utf-8"))
    for name in parameters:
        del document["Parameters"][name]["Default"]
    template.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def completed(rights: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return a file of permissions with its placeholders filled, without statements whose placeholder is empty."""
    statements = [fill(one, values) for one in rights["Statement"] if not asks_for_nothing(one, values)]
    return {**rights, "Statement": statements}


def placeholders(policy: Policy) -> dict[str, list[Any]]:
    """Return the value of each placeholder, sorted, so that the same policy gives the same bytes."""
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
        "${BreakGlassPrincipals}": sorted(principals),
        "${BreakGlassTags}": sorted(break_glass),
        "${BreakGlassRoles}": [{"Fn::Sub": arn} for arn in sorted(of_this_account(principals, "role"))],
        "${BreakGlassUsers}": [{"Fn::Sub": arn} for arn in sorted(of_this_account(principals, "user"))],
    }


def of_this_account(principals: set[str], kind: str) -> set[str]:
    """Return the ARN patterns that can match the account's own roles or users; only their tags can be read."""
    resources = (pattern.split(":", 5)[5] for pattern in principals)
    return {
        "arn:${AWS::Partition}:iam::${AWS::AccountId}:" + resource
        for resource in resources
        if resource.startswith(f"{kind}/")
    }


def asks_for_nothing(statement: Any, values: dict[str, list[Any]]) -> bool:
    """Whether a statement has a placeholder that no rule fills; IAM refuses an empty list."""
    text = json.dumps(statement)
    return any(f'"{name}"' in text and not value for name, value in values.items())


def is_placeholder(part: Any, values: dict[str, Any]) -> bool:
    """Whether a part of a file is a placeholder."""
    return isinstance(part, str) and part in values


def fill(part: Any, values: dict[str, Any]) -> Any:
    """Return the same structure with each placeholder replaced by its value; in a list, a list by its elements."""
    if isinstance(part, dict):
        return {name: fill(value, values) for name, value in part.items()}
    if isinstance(part, list):
        return [each for one in part for each in _elements(fill(one, values), is_placeholder(one, values))]
    return values.get(part, part) if isinstance(part, str) else part


def _elements(filled: Any, was_placeholder: bool) -> list[Any]:
    return filled if was_placeholder and isinstance(filled, list) else [filled]
