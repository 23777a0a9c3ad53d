"""Which statements of a key policy let in principals outside the account."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib.domain.keypolicy.openness import open_statements
from chalicelib.domain.keypolicy.wanted import initial_policy
from chalicelib.domain.model import Target
from chalicelib.domain.policy import ManagedKey, Mode, Rule

OWN, OTHER = "111122223333", "999988887777"
TARGET = Target(OWN, "us-east-1")


def opens(principal: Any = "*", condition: dict[str, Any] | None = None, **elements: Any) -> tuple[str, ...]:
    """What an Allow with this principal and condition opens."""
    allow = {"Sid": "Wide", "Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*", **elements}
    if principal is not None:
        allow["Principal"] = principal
    if condition is not None:
        allow["Condition"] = condition
    return open_statements(json.dumps({"Version": "2012-10-17", "Statement": [allow]}), TARGET)


@pytest.mark.parametrize(
    "principal",
    [
        "*",
        {"AWS": "*"},
        {"AWS": OTHER},
        {"AWS": f"arn:aws:iam::{OTHER}:root"},
        {"AWS": [f"arn:aws:iam::{OWN}:root", f"arn:aws:iam::{OTHER}:role/x"]},
        {"Federated": "cognito-identity.amazonaws.com"},
        {"CanonicalUser": "79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be"},
        {"Service": "*"},
    ],
)
def test_a_principal_outside_the_account_opens_the_key(principal: Any) -> None:
    (described,) = opens(principal)
    assert "statement 1 ('Wide') allows kms:Decrypt to" in described


def test_everybody_but_some_is_everybody() -> None:
    assert opens(None, NotPrincipal={"AWS": f"arn:aws:iam::{OWN}:role/x"})


@pytest.mark.parametrize(
    "principal",
    [
        {"AWS": OWN},
        {"AWS": f"arn:aws:iam::{OWN}:role/x"},
        {"AWS": "AROAEXAMPLEEXAMPLE12"},
        {"Service": "xray.amazonaws.com"},
        {"Federated": f"arn:aws:iam::{OWN}:saml-provider/x"},
    ],
)
def test_a_principal_of_the_account_and_a_service_do_not(principal: Any) -> None:
    assert opens(principal) == ()


@pytest.mark.parametrize(
    "condition",
    [
        {"StringEquals": {"kms:CallerAccount": OWN}},
        {"StringEquals": {"aws:PrincipalAccount": [OWN]}},
        {"StringEqualsIgnoreCase": {"AWS:PRINCIPALACCOUNT": OWN}},
        {"StringEquals": {"aws:SourceAccount": OWN}},
        {"ArnLike": {"aws:PrincipalArn": f"arn:*:iam::{OWN}:role/*"}},
        {"StringEquals": {"aws:PrincipalArn": f"arn:aws:iam::{OWN}:role/x"}},
        {"StringEquals": {"kms:ViaService": "xray.us-east-1.amazonaws.com", "kms:CallerAccount": OWN}},
    ],
)
def test_a_condition_that_binds_callers_to_the_account_closes_it(condition: dict[str, Any]) -> None:
    assert opens("*", condition) == ()


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"StringEquals": {"kms:CallerAccount": [OWN, OTHER]}},
        {"StringEquals": {"kms:CallerAccount": OTHER}},
        {"StringNotEquals": {"kms:CallerAccount": OTHER}},
        {"StringEqualsIfExists": {"kms:CallerAccount": OWN}},
        {"ForAllValues:StringEquals": {"kms:CallerAccount": OWN}},
        {"StringLike": {"kms:CallerAccount": "*"}},
        {"StringEquals": {"kms:CallerAccount": "${aws:PrincipalAccount}"}},
        {"StringEquals": {"kms:CallerAccount": []}},
        {"StringEquals": {"aws:PrincipalOrgID": "o-example"}},
        {"StringEquals": {"kms:ViaService": "xray.us-east-1.amazonaws.com"}},
        {"ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{OTHER}:role/*"}},
        {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/x"}},
        {"ArnNotLike": {"aws:PrincipalArn": f"arn:aws:iam::{OWN}:role/*"}},
        {"StringLike": {"aws:PrincipalArn": f"*:iam::{OWN}:role/*"}},
        {"StringLike": {"aws:PrincipalArn": f"arn:aws:iam::{OWN}:*"}},
        {"Bool": {"kms:GrantIsForAWSResource": "true"}},
    ],
)
def test_in_doubt_it_is_open(condition: dict[str, Any]) -> None:
    assert opens("*", condition)


@pytest.mark.parametrize(
    "condition",
    [
        {"StringEquals": {"aws:SourceAccount": OTHER}},
        {"ArnLike": {"aws:SourceArn": f"arn:aws:logs:us-east-1:{OTHER}:log-group:*"}},
    ],
)
def test_a_service_that_acts_for_another_account_opens_the_key(condition: dict[str, Any]) -> None:
    assert opens({"Service": "logs.amazonaws.com"}, condition)
    own = json.loads(json.dumps(condition).replace(OTHER, OWN))
    assert opens({"Service": "logs.amazonaws.com"}, own) == ()


def test_a_deny_opens_nothing() -> None:
    assert opens("*", Effect="Deny") == ()


@pytest.mark.parametrize("readers", ["account", ("arn:*:iam::*:role/Reader",)])
def test_the_guards_own_statements_let_in_nobody_else(readers: Any) -> None:
    rule = Rule("baseline", ("*",), ("*",), Mode.ENFORCE, managed_key=ManagedKey(trace_readers=readers))
    assert open_statements(initial_policy(rule, TARGET, "aws"), TARGET) == ()


def test_a_text_that_is_no_policy_opens_nothing_known() -> None:
    assert open_statements("not a policy", TARGET) == ()
