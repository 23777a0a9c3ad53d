"""Who may write the guard's tables by the tables' own policies, whatever IAM allows them (P16)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from chalicelib.domain.policy import parse
from shipping.rights import fill, placeholders
from tests.iam.conftest import POLICIES, resolved
from tests.iam.simulator import ACCOUNT, PROJECT, Policy, Question, ask
from tests.iam.test_guard_rights import AUDIT, NOTHING, TARGETS, Context

pytestmark = pytest.mark.usefixtures("simulated")

ROLE = f"arn:aws:iam::{ACCOUNT}:role/"
BREAK_GLASS, GUARD, API = (f"{ROLE}{name}" for name in ("SecurityBreakGlass", "xray-guard", "xray-guard-api"))
PIPELINE, ON_CALL, SECURITY = (f"{ROLE}{name}" for name in ("deploy/Pipeline", "OnCall", "Security"))
OTHERS = (f"{ROLE}Administrator", f"arn:aws:iam::{ACCOUNT}:root", f"arn:aws:iam::{ACCOUNT}:user/Eve", f"{ROLE}Pipeline")

WRITES = ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "PartiQLInsert", "PartiQLUpdate", "PartiQLDelete")
OF_THE_POLICY = ("PutResourcePolicy", "DeleteResourcePolicy")
LEFT_ALONE = ("UpdateTable", "DeleteTable", "CreateBackup", "UpdateContinuousBackups", "GetItem", "Query", "Scan")

NAMED: dict[str, Any] = {"PipelineRole": PIPELINE, "OperatorRoles": [ON_CALL, SECURITY]}
CONDITIONS = frozenset({"HasPolicy", "HasPipelineRole", "HasOperatorRoles"})


def table_policy(table: str, parameters: dict[str, Any] = NAMED, true: frozenset[str] = CONDITIONS) -> Policy | None:
    """The policy of a table, as CloudFormation attaches it."""
    template = json.loads((PROJECT / ".chalice" / "tables.json").read_text("utf-8"))
    values = placeholders(parse((POLICIES / "policy.json").read_bytes()))
    wanted = fill(template["Resources"][table]["Properties"]["ResourcePolicy"], values)
    found = resolved(wanted, true, parameters)
    policy: Policy | None = found["PolicyDocument"] if found else None
    return policy


def answers(who: Iterable[str], actions: tuple[str, ...], table: str, policy: Policy | None) -> set[tuple[str, str]]:
    """Who gets which answers. IAM allows each of them everything; an item that is written is a request for a check."""
    asks: Context = {"dynamodb:LeadingKeys": [f"ask#{ACCOUNT}/us-east-1"]}
    calls = [(one, action) for one in who for action in actions]
    questions = [
        Question(one, f"dynamodb:{action}", table, asks if action in WRITES[:4] else NOTHING, resource_policy=policy)
        for one, action in calls
    ]
    return {(one, answer) for (one, _), answer in zip(calls, ask(questions), strict=True)}


TABLES = pytest.mark.parametrize(("name", "arn"), [("AuditTable", AUDIT), ("TargetsTable", TARGETS)])


@TABLES
def test_p16_only_the_guard_its_operators_break_glass_and_the_pipeline_write_the_tables(name: str, arn: str) -> None:
    policy, of_the_api = table_policy(name), name == "TargetsTable"
    writers = {GUARD, BREAK_GLASS, PIPELINE, ON_CALL, SECURITY, *([API] if of_the_api else [])}
    others = {*OTHERS, *([] if of_the_api else [API])}
    assert answers(writers, WRITES, arn, policy) == {(who, "Allowed") for who in writers}
    assert answers(others, (*WRITES, *OF_THE_POLICY), arn, policy) == {(who, "ExplicitlyDenied") for who in others}


@TABLES
def test_nobody_is_shut_out_of_reading_deploying_or_backing_up(name: str, arn: str) -> None:
    policy = table_policy(name)
    everybody = {*OTHERS, API, PIPELINE}
    assert answers(everybody, LEFT_ALONE, arn, policy) == {(who, "Allowed") for who in everybody}
    assert answers({PIPELINE}, OF_THE_POLICY, arn, policy) == {(PIPELINE, "Allowed")}


def test_the_api_writes_nothing_but_requests_for_a_check_whatever_its_role_is_given() -> None:
    policy = table_policy("TargetsTable")
    keys = [[f"{ACCOUNT}/us-east-1"], [f"ask#{ACCOUNT}/us-east-1", "guard"]]
    told = ask(
        Question(API, "dynamodb:PutItem", TARGETS, {"dynamodb:LeadingKeys": each}, resource_policy=policy)
        for each in keys
    )
    assert told == ["ExplicitlyDenied"] * 2


def test_the_pipeline_or_the_operators_may_be_named_alone() -> None:
    by_pipeline = table_policy("AuditTable", {"PipelineRole": PIPELINE}, frozenset({"HasPolicy", "HasPipelineRole"}))
    by_operators = table_policy(
        "AuditTable", {"OperatorRoles": [ON_CALL]}, frozenset({"HasPolicy", "HasOperatorRoles"})
    )
    who = (GUARD, PIPELINE, ON_CALL)
    assert answers(who, ("PutItem",), AUDIT, by_pipeline) == {
        (GUARD, "Allowed"),
        (PIPELINE, "Allowed"),
        (ON_CALL, "ExplicitlyDenied"),
    }
    assert answers(who, ("PutItem",), AUDIT, by_operators) == {
        (GUARD, "Allowed"),
        (PIPELINE, "ExplicitlyDenied"),
        (ON_CALL, "Allowed"),
    }


def test_where_nobody_is_named_the_tables_have_no_policy() -> None:
    assert table_policy("AuditTable", {}, frozenset()) is None
