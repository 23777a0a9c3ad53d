"""The policies as they are attached: the key's, the guard's role's, and the organization's."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import Any

import pytest

from chalicelib.domain.keypolicy.wanted import initial_policy
from chalicelib.domain.model import Target
from chalicelib.domain.policy import Rule, parse
from shipping.rights import completed, placeholders
from tests.iam.simulator import ACCOUNT, PROJECT, Policy, missing

POLICIES = PROJECT / "policies"


@pytest.fixture(scope="session")
def simulated() -> None:
    """What the test asks for if it simulates IAM: without the tool it is skipped, but in a pipeline it fails."""
    lacking = missing()
    if lacking and os.environ.get("CI"):
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)


@pytest.fixture(scope="session")
def rule() -> Rule:
    """The rule of the repository's own policy document."""
    (rule,) = parse((POLICIES / "policy.json").read_bytes()).rules
    return rule


@pytest.fixture(scope="session")
def key_policy(rule: Rule) -> Policy:
    """The policy that the guard gives a new key."""
    policy: Policy = json.loads(initial_policy(rule, Target(ACCOUNT, "us-east-1"), "aws"))
    return policy


@pytest.fixture(scope="session")
def scps() -> list[Policy]:
    """The organization's policies as they are attached."""
    return [
        json.loads((POLICIES / name).read_text("utf-8")) for name in ("scp.json", "scp-guard.json", "scp-spans.json")
    ]


@pytest.fixture(scope="session")
def guard_rights() -> Policy:
    """The guard's role's policy."""
    return _deployed("iam-guard.json")


@pytest.fixture(scope="session")
def observing_rights() -> Policy:
    """The guard's role's policy where the parameter Rights is `observe`."""
    return _deployed("iam-guard.json", {"HasAnchorBucket"})


@pytest.fixture(scope="session")
def forward_rights() -> Policy:
    """The policy of the role that forwards events."""
    return _deployed("iam-forward.json")


@pytest.fixture(scope="session")
def bus_policy() -> Policy:
    """The policy of the guard's event bus."""
    template = json.loads((PROJECT / ".chalice" / "extras.json").read_text("utf-8"))
    policy: Policy = resolved(template["Resources"]["Bus"]["Properties"]["Policy"], frozenset())
    return policy


@pytest.fixture(scope="session")
def api_rights() -> Policy:
    """The API's role's policy."""
    return _deployed("iam-api.json")


def _deployed(name: str, true: Set[str] = frozenset({"Enforces", "HasAnchorBucket"})) -> Policy:
    """A file of rights, completed as packaging does it, then resolved as CloudFormation does.

    `true`: the conditions of the template that hold.
    """
    values = placeholders(parse((POLICIES / "policy.json").read_bytes()))
    policy: Policy = resolved(completed(json.loads((POLICIES / name).read_text("utf-8")), values), true)
    return policy


PARAMETERS = {"AWS::Partition": "aws", "AWS::AccountId": ACCOUNT, "AWS::Region": "us-east-1", "AnchorBucket": "anchors"}
ARNS = {
    "DeadLetters": f"arn:aws:sqs:us-east-1:{ACCOUNT}:xray-guard-dead-letters",
}


def resolved(part: Any, true: Set[str], parameters: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """A part of a template as CloudFormation resolves it here: `true` has the conditions that hold. None: left out."""
    if isinstance(part, list):
        return [each for each in (resolved(one, true, parameters) for one in part) if each is not None]
    if not isinstance(part, dict):
        return part
    match part:
        case {"Fn::Sub": str(text)}:
            for name, value in {**PARAMETERS, **{f"{name}.Arn": arn for name, arn in ARNS.items()}}.items():
                text = text.replace("${" + name + "}", value)
            assert "${" not in text, text
            return text
        case {"Fn::GetAtt": [str(name), "Arn"]}:
            return ARNS[name]
        case {"Fn::If": [condition, chosen, otherwise]}:
            return resolved(chosen if condition in true else otherwise, true, parameters)
        case {"Ref": "AWS::NoValue"}:
            return None
        case {"Ref": str(name)}:
            return parameters[name]
    whole = {name: resolved(value, true, parameters) for name, value in part.items()}
    return {name: value for name, value in whole.items() if value is not None}
