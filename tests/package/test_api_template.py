"""What is deployed of the REST API: nothing of it is open, and its role can do no more than it must."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chalicelib.api.operations import OPERATIONS
from chalicelib.api.responses import PROBLEM_TYPE
from chalicelib.aws.tables import ASKED_PREFIX
from tests.package.conftest import of_type


@pytest.fixture(scope="session")
def definition(sam: dict[str, Any]) -> dict[str, Any]:
    """What API Gateway imports."""
    read: dict[str, Any] = sam["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]
    return read


@pytest.fixture(scope="session")
def statements(sam: dict[str, Any]) -> list[dict[str, Any]]:
    """The statements of the API's role."""
    (policy,) = sam["Resources"]["ApiRole"]["Properties"]["Policies"]
    read: list[dict[str, Any]] = policy["PolicyDocument"]["Statement"]
    return read


def test_every_route_is_authorized_by_iam(definition: dict[str, Any]) -> None:
    signed = {
        name
        for name, scheme in definition["securityDefinitions"].items()
        if scheme["x-amazon-apigateway-authtype"] == "awsSigv4"
    }
    assert signed
    for path, methods in definition["paths"].items():
        for method, answer in methods.items():
            assert [set(one) & signed for one in answer["security"]] == [signed], f"{method} {path}"


def test_the_routes_are_those_that_the_api_describes(definition: dict[str, Any]) -> None:
    deployed = {(method.upper(), path) for path, methods in definition["paths"].items() for method in methods}
    assert deployed == {(operation.method, operation.path) for operation in OPERATIONS}


def test_requests_are_throttled_and_what_the_gateway_refuses_is_a_problem_like_any_other(
    sam: dict[str, Any], definition: dict[str, Any]
) -> None:
    (settings,) = sam["Resources"]["RestAPI"]["Properties"]["MethodSettings"]
    assert (settings["HttpMethod"], settings["ResourcePath"]) == ("*", "/*")
    assert 0 < settings["ThrottlingRateLimit"] <= settings["ThrottlingBurstLimit"] <= 20
    answers = definition["x-amazon-apigateway-gateway-responses"]
    assert set(answers) == {"DEFAULT_4XX", "DEFAULT_5XX"}
    for one in answers.values():
        assert one["responseParameters"]["gatewayresponse.header.Content-Type"] == f"'{PROBLEM_TYPE}'"


def test_the_api_has_one_stage_and_it_is_throttled(expanded: dict[str, Any]) -> None:
    """A deployment with a stage name makes a stage of its own, which no setting of the template reaches."""
    stages = [stage["Properties"]["StageName"] for stage in of_type(expanded, "AWS::ApiGateway::Stage").values()]
    stages += [
        deployment["Properties"]["StageName"]
        for deployment in of_type(expanded, "AWS::ApiGateway::Deployment").values()
        if "StageName" in deployment["Properties"]
    ]
    assert stages == ["guard"]
    (stage,) = of_type(expanded, "AWS::ApiGateway::Stage").values()
    assert [one["ThrottlingRateLimit"] for one in stage["Properties"]["MethodSettings"]] == [10]


def test_the_function_runs_as_a_role_of_its_own_and_ends_before_the_gateway_gives_up(sam: dict[str, Any]) -> None:
    function = sam["Resources"]["APIHandler"]["Properties"]
    assert function["Role"] == {"Fn::GetAtt": ["ApiRole", "Arn"]}
    assert function["Timeout"] < 29
    assert sam["Resources"]["ApiHandlerLogGroup"]["Properties"]["LogGroupName"] == {
        "Fn::Sub": "/aws/lambda/${APIHandler}"
    }


def test_the_role_can_write_nothing_but_requests_to_look(statements: list[dict[str, Any]]) -> None:
    allowed = [one for one in statements if one["Effect"] == "Allow"]
    actions = {
        action for one in allowed for action in ([one["Action"]] if isinstance(one["Action"], str) else one["Action"])
    }
    assert actions == {
        "dynamodb:BatchGetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }
    (asking,) = [one for one in allowed if "dynamodb:PutItem" in one["Action"]]
    assert asking["Condition"] == {
        "ForAllValues:StringLike": {"dynamodb:LeadingKeys": [f"{ASKED_PREFIX}*"]},
        "Null": {"dynamodb:LeadingKeys": "false"},
    }
    assert all(one["Resource"] != "*" for one in statements)


def test_the_role_is_denied_every_change_of_the_audit_log(statements: list[dict[str, Any]]) -> None:
    (denied,) = [one for one in statements if one["Effect"] == "Deny"]
    assert denied["Resource"]["Fn::Sub"].endswith(":table/xray-guard-audit")
    assert {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"} <= set(denied["Action"])
    assert "Condition" not in json.dumps(denied)


def test_the_other_functions_start_without_the_api(project: Path) -> None:
    program = "import sys, app; print([name for name in sys.modules if name.startswith('chalicelib.')])"
    done = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.replace("'", '"')))
    packages = {name.split(".")[1] for name in loaded}
    assert {"chalicelib.entry", "chalicelib.loop.reconcile", "chalicelib.aws.store"} <= loaded
    assert packages == {"auditlog", "aws", "domain", "entry", "loop", "wiring"}
    assert {name.rpartition(".")[2] for name in loaded if name.startswith("chalicelib.aws.")} == {
        "clients",
        "clock",
        "iam",
        "kms",
        "logs",
        "oam",
        "paging",
        "store",
        "tables",
        "threads",
        "xray",
    }
    assert {name for name in loaded if name.startswith("chalicelib.auditlog.")} == {
        "chalicelib.auditlog.anchors",
        "chalicelib.auditlog.hashchain",
        "chalicelib.auditlog.keyrows",
        "chalicelib.auditlog.states",
        "chalicelib.auditlog.draft",
        "chalicelib.auditlog.daily_totals",
    }
