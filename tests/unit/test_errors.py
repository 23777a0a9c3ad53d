"""What an error tells the operator to do about a refusal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import botocore.session
import pytest

from chalicelib.domain.errors import DENIED, LONGEST_MESSAGE, REMEDIES, AwsError, remedy

PROJECT = Path(__file__).parents[2]
REFUSALS = sorted(REMEDIES)


@pytest.mark.parametrize("code", sorted(DENIED))
@pytest.mark.parametrize(
    ("operation", "statement"),
    [
        ("xray:PutEncryptionConfig", "LetXRayUseTheKey"),
        ("kms:CreateKey", "MakeKeysTaggedAsOwn"),
        ("kms:EnableKey", "RepairKeysTaggedAsOwn"),
    ],
)
def test_a_denied_call_says_what_aws_says_and_then_which_statement_to_change(
    operation: str, statement: str, code: str
) -> None:
    message = AwsError(operation, code, "no identity-based policy allows the action").problem.message
    assert message.startswith(f"{operation}: no identity-based policy allows the action. ")
    assert f"statement {statement} of policies/iam-guard.json" in message


def test_what_nobody_has_a_remedy_for_is_left_as_aws_says_it() -> None:
    assert AwsError("kms:CreateKey", "ThrottlingException", "slow down").problem.message == "kms:CreateKey: slow down"


@pytest.mark.parametrize(("operation", "code"), REFUSALS)
def test_a_long_message_of_aws_is_cut_and_the_remedy_is_not(operation: str, code: str) -> None:
    message = AwsError(operation, code, "x" * 5000).problem.message
    assert len(message) == LONGEST_MESSAGE
    assert message.endswith(REMEDIES[operation, code])


@pytest.mark.parametrize(
    "why", ["with an explicit deny", "no service control policy allows", "no permissions boundary"]
)
@pytest.mark.parametrize(("operation", "code"), REFUSALS)
def test_what_the_roles_rights_cannot_overrule_has_no_remedy_among_them(operation: str, code: str, why: str) -> None:
    assert remedy(operation, code, why) is None


@pytest.mark.parametrize("operation", ["xray:PutEncryptionConfig", "dynamodb:TransactWriteItems"])
def test_a_denial_by_the_roles_own_policy_names_the_statement_that_binds_it_to_the_functions(operation: str) -> None:
    text = remedy(operation, "AccessDeniedException", "... with an explicit deny in an identity-based policy")
    assert text is not None
    (statement,) = re.findall(r"[Ss]tatement ([A-Z]\w+)", text)
    statements = json.loads((PROJECT / "policies/iam-guard.json").read_text("utf-8"))["Statement"]
    (bound,) = [each for each in statements if each.get("Sid") == statement]
    assert "lambda:SourceFunctionArn" in json.dumps(bound["Condition"])


@pytest.mark.parametrize(("operation", "code"), REFUSALS)
def test_a_remedy_names_only_what_exists(operation: str, code: str) -> None:
    text = REMEDIES[operation, code]
    service, _, name = operation.partition(":")
    assert name in botocore.session.get_session().get_service_model(service).operation_names
    statements = json.loads((PROJECT / "policies/iam-guard.json").read_text("utf-8"))["Statement"]
    known = {each.get("Fn::If", [None, each])[1]["Sid"] for each in statements}
    named = re.findall(r"[Ss]tatements? ([A-Z]\w+)(?: and ([A-Z]\w+))?", text)
    assert {sid for pair in named for sid in pair if sid} <= known
    for path in re.findall(r"(?:docs|policies)/[\w-]+\.\w+", text):
        assert (PROJECT / path).is_file(), path


@pytest.mark.parametrize(("operation", "code"), REFUSALS)
def test_a_remedy_does_not_read_as_a_denial_by_an_organization(operation: str, code: str) -> None:
    assert "service control policy" not in REMEDIES[operation, code]
