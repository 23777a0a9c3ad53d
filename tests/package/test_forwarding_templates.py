"""The templates that forward other Regions' events: one source of patterns, one bus, one role, and nothing is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chalice.app import CloudWatchEventConfig

import app
from tests.package.conftest import of_type

FORWARDED = {"on_change": "OnChange", "on_key_change": "OnKeyChange"}
MOST_PATTERN_CHARACTERS = 2048
"""EventBridge quotas, "Event pattern size"."""
ACTIONS_OF_DELIVERY = {"MaximumEventAgeInSeconds": 86400, "MaximumRetryAttempts": 185}


def resources(template: dict[str, Any], name: str) -> Any:
    return template["Resources"][name]["Properties"]


@pytest.fixture(scope="session")
def patterns() -> dict[str, Any]:
    """The patterns as `app.py` declares them, by function."""
    sources = [one for one in app.app.event_sources if isinstance(one, CloudWatchEventConfig)]
    return {one.name: one.event_pattern for one in sources}


def rules_on_the_bus(expanded: dict[str, Any]) -> dict[str, Any]:
    rules = of_type(expanded, "AWS::Events::Rule").values()
    return {rule["Properties"]["Name"]: rule["Properties"] for rule in rules if "EventBusName" in rule["Properties"]}


def test_the_patterns_are_those_of_app_py_everywhere(
    patterns: dict[str, Any], expanded: dict[str, Any], spoke_region: dict[str, Any]
) -> None:
    assert set(patterns) == set(FORWARDED)
    for name, logical in FORWARDED.items():
        assert resources(expanded, f"{logical}{logical}Event")["EventPattern"] == patterns[name]
        assert rules_on_the_bus(expanded)[f"xray-guard-{name}"]["EventPattern"] == patterns[name]
    assert resources(spoke_region, "ForwardRule")["EventPattern"] == {"$or": [patterns[name] for name in FORWARDED]}


def test_the_forwarding_pattern_fits_into_a_rule(spoke_region: dict[str, Any]) -> None:
    pattern = resources(spoke_region, "ForwardRule")["EventPattern"]
    assert len(json.dumps(pattern)) <= MOST_PATTERN_CHARACTERS


def test_the_other_regions_template_has_no_transform_so_that_a_stack_set_takes_it(spoke_region: dict[str, Any]) -> None:
    text = json.dumps(spoke_region)
    assert "Transform" not in text
    assert "Fn::ImportValue" not in text
    assert "${patterns/" not in text
    assert {one["Type"] for one in spoke_region["Resources"].values()} == {
        "AWS::Events::Rule",
        "AWS::SQS::Queue",
        "AWS::SQS::QueuePolicy",
    }


def test_the_other_regions_template_makes_no_role_for_roles_are_the_same_in_every_region(
    spoke_region: dict[str, Any], sam: dict[str, Any]
) -> None:
    (target,) = resources(spoke_region, "ForwardRule")["Targets"]
    name = resources(sam, "ForwardRole")["RoleName"]
    assert target["RoleArn"]["Fn::Sub"] == "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/" + name


def test_the_forwarding_rule_sends_to_the_guards_bus_in_its_region_and_account(
    spoke_region: dict[str, Any], sam: dict[str, Any]
) -> None:
    (target,) = resources(spoke_region, "ForwardRule")["Targets"]
    arn, values = target["Arn"]["Fn::Sub"]
    bus = resources(sam, "Bus")["Name"]
    assert arn == "arn:${AWS::Partition}:events:${HomeRegion}:${Account}:event-bus/" + bus
    assert values == {"Account": {"Fn::If": ["HomeIsElsewhere", {"Ref": "HomeAccount"}, {"Ref": "AWS::AccountId"}]}}
    assert "Default" not in spoke_region["Parameters"]["HomeRegion"]
    assert spoke_region["Parameters"]["HomeAccount"]["Default"] == ""


def test_what_cannot_be_forwarded_is_kept_encrypted_in_its_region(spoke_region: dict[str, Any]) -> None:
    (target,) = resources(spoke_region, "ForwardRule")["Targets"]
    assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["DeadLetters", "Arn"]}}
    assert target["RetryPolicy"] == ACTIONS_OF_DELIVERY
    queue = resources(spoke_region, "DeadLetters")
    assert queue["SqsManagedSseEnabled"] is True
    assert queue["MessageRetentionPeriod"] == 14 * 24 * 60 * 60
    (allowed, denied) = resources(spoke_region, "DeadLettersPolicy")["PolicyDocument"]["Statement"]
    assert allowed["Principal"] == {"Service": "events.amazonaws.com"}
    rule = resources(spoke_region, "ForwardRule")["Name"]
    assert allowed["Condition"]["ArnLike"]["aws:SourceArn"]["Fn::Sub"].endswith(f":rule/{rule}")
    assert (denied["Effect"], denied["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


@pytest.mark.parametrize(("name", "logical"), FORWARDED.items())
def test_forwarded_events_invoke_the_functions_as_events_of_the_own_region_do(
    name: str, logical: str, expanded: dict[str, Any]
) -> None:
    forwarded = rules_on_the_bus(expanded)[f"xray-guard-{name}"]
    assert forwarded["EventBusName"] == {"Ref": "Bus"}
    (target,) = forwarded["Targets"]
    (own,) = resources(expanded, f"{logical}{logical}Event")["Targets"]
    kept = ("Arn", "DeadLetterConfig", "RetryPolicy")
    assert {key: target[key] for key in kept} == {key: own[key] for key in kept}
    permissions = [
        one["Properties"]
        for one in of_type(expanded, "AWS::Lambda::Permission").values()
        if one["Properties"]["FunctionName"] == {"Ref": logical}
    ]
    sources = [one["SourceArn"]["Fn::GetAtt"][0] for one in permissions]
    assert sorted(sources) == sorted([f"{logical}{logical}Event", f"{logical}OnForwarded{logical.removeprefix('On')}"])


def test_the_role_is_for_the_forwarding_rules_of_the_account_only(sam: dict[str, Any]) -> None:
    (trust,) = resources(sam, "ForwardRole")["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "events.amazonaws.com"}
    rule = "arn:${AWS::Partition}:events:*:${AWS::AccountId}:rule/xray-guard-forward"
    assert trust["Condition"] == {
        "ArnLike": {"aws:SourceArn": {"Fn::Sub": rule}},
        "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}},
    }
