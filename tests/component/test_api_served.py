"""The REST API as it is deployed: the packaged function behind a gateway, over tables that the guard wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.api.openapi import document
from chalicelib.api.operations import OPERATIONS
from chalicelib.api.responses import PROBLEM_TYPE
from sandbox.gateway import Gateway
from tests.component.calling import Answer, call
from tests.component.guarded import GUARD_ACCOUNT, PROJECT, change_setting, guarded, setting_of

HERE = f"{GUARD_ACCOUNT}/us-east-1"
INCIDENT = f"{GUARD_ACCOUNT}.us-east-1.1"
KNOWN = {"id": INCIDENT, "account": GUARD_ACCOUNT, "region": "us-east-1"}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """The API of an account whose setting was put to NONE twice."""
    with guarded() as sandbox, Gateway(sandbox) as served:
        for _ in range(2):
            sandbox.client("xray").put_encryption_config(Type="NONE")
            assert sandbox.idle()
        yield served


def filled(path: str) -> str:
    return path.format(**KNOWN)


def is_problem(answer: Answer, status: int, code: str) -> bool:
    result = answer.json()
    assert answer.headers["content-type"] == PROBLEM_TYPE
    assert (answer.status, result["code"]) == (status, code), result
    assert "Traceback" not in json.dumps(result)
    return True


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.name)
def test_nobody_gets_anything_without_a_signature_for_this_service(operation: Any, gateway: Gateway) -> None:
    function = gateway.sandbox.functions.find("app")
    assert function is not None
    before = function.invocations
    for how in ({"signed": False}, {"service": "dynamodb"}, {"signed": False, "Authorization": "Bearer x"}):
        answer = call(gateway, filled(operation.path), operation.method, **how)
        assert answer.status == 403
        assert set(answer.json()) == {"type", "title", "code"}
    assert function.invocations == before


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.name)
def test_everybody_else_gets_an_answer(operation: Any, gateway: Gateway) -> None:
    answer = call(gateway, filled(operation.path), operation.method)
    assert answer.status == operation.status
    assert answer.headers["content-type"] == "application/json"


def test_an_incident_is_told_from_its_cause_to_its_end(gateway: Gateway) -> None:
    result = call(gateway, f"/v1/incidents/{INCIDENT}").json()
    assert result["id"] == f"{HERE}#1"
    assert (result["open"], result["outcome"], result["violations"]) == (False, "REMEDIATED", ["NOT_KMS"])
    assert result["actor"]["arn"].endswith("user/administrator")
    assert result["exposure_seconds"] >= 0
    assert [(record["outcome"], record["reason"]) for record in result["records"]] == [
        ("REMEDIATING", None),
        ("IGNORED", "KEY_MADE"),
        ("IGNORED", "KEY_ADOPTED"),
        ("REMEDIATED", None),
    ]
    encoded = call(gateway, f"/v1/incidents/{GUARD_ACCOUNT}%2Fus-east-1%231").json()
    assert encoded == result


def test_pages_lead_on_to_everything_once(gateway: Gateway) -> None:
    seen: list[str] = []
    token = ""
    while True:
        result = call(gateway, f"/v1/records?account={GUARD_ACCOUNT}&limit=1{token}").json()
        seen += [record["record_id"] for record in result["records"]]
        if result["next_token"] is None:
            break
        token = f"&next_token={result['next_token']}"
    whole = call(gateway, f"/v1/records?account={GUARD_ACCOUNT}").json()
    assert seen == [record["record_id"] for record in whole["records"]]
    assert len(set(seen)) == len(seen) >= 4


def test_the_shape_is_that_of_the_command_lines_json(gateway: Gateway) -> None:
    surroundings = {**gateway.sandbox.environment(), "PATH": "/usr/bin:/bin"}
    program = [sys.executable, "-c", "from chalicelib.cli import main; main()"]
    for verb, path in (
        (["history", "--account", GUARD_ACCOUNT], f"/v1/records?account={GUARD_ACCOUNT}"),
        (["show", INCIDENT], f"/v1/incidents/{INCIDENT}"),
    ):
        done = subprocess.run(
            [*program, *verb, "--output", "json"], env=surroundings, capture_output=True, check=True, cwd=PROJECT
        )
        assert json.loads(done.stdout) == call(gateway, path).json()


def test_figures_count_what_was_recorded(gateway: Gateway) -> None:
    result = call(gateway, "/v1/summary").json()
    assert (result["opened"], result["closed"]) == (2, 2)
    assert result["targets"] == {
        "targets": 1,
        "governed": 1,
        "compliant": 1,
        "share": 1.0,
        "by_outcome": {"REMEDIATED": 1},
    }
    assert result["exposure"]["count"] == result["time_to_remediate"]["count"] == 2
    assert [each["incidents"] for each in result["top_actors"]] == [2]
    assert len(result["days"]) == 30


def test_the_policy_is_the_one_that_the_functions_ran_under(gateway: Gateway) -> None:
    result = call(gateway, "/v1/policy").json()
    assert result["same"] is True
    assert result["document"] == json.loads((PROJECT / "policies" / "policy.json").read_bytes())


def test_the_document_is_served_as_it_is_made(gateway: Gateway) -> None:
    assert call(gateway, "/v1/openapi.json").json() == document()


def test_what_did_not_change_is_not_sent_again(gateway: Gateway) -> None:
    for path in ("/v1/openapi.json", "/v1/policy", f"/v1/incidents/{INCIDENT}", "/v1/summary"):
        first = call(gateway, path)
        again = call(gateway, path, If_None_Match=f'"other", W/{first.headers["etag"]}')
        assert (again.status, again.body) == (304, b"")
        assert "private" in first.headers["cache-control"]
        assert call(gateway, path, If_None_Match='"other"').status == 200


class TestRefusals:
    def test_name_the_parameter_that_is_not_known(self, gateway: Gateway) -> None:
        answer = call(gateway, "/v1/records?limit=5&acount=111122223333")
        assert is_problem(answer, 400, "UNKNOWN_PARAMETER")
        assert answer.json()["parameters"] == ["acount"]

    @pytest.mark.parametrize(
        ("query", "name"),
        [
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=ten", "limit"),
            ("account=1", "account"),
            ("region=US-EAST-1", "region"),
            ("target=here", "target"),
            ("outcome=GOOD", "outcome"),
            ("&".join(["outcome=FAILED"] * 10), "outcome"),
            ("since=yesterday", "since"),
            ("until=2026-02-30", "until"),
            ("actor=", "actor"),
            (f"actor={'a' * 257}", "actor"),
            ("rule=a/b", "rule"),
            ("next_token=%22", "next_token"),
        ],
    )
    def test_name_the_parameter_that_is_not_as_described(self, query: str, name: str, gateway: Gateway) -> None:
        answer = call(gateway, f"/v1/records?{query}")
        assert is_problem(answer, 400, "BAD_PARAMETER")
        assert answer.json()["parameters"] == [name]

    def test_take_a_parameter_once(self, gateway: Gateway) -> None:
        assert is_problem(call(gateway, "/v1/records?limit=1&limit=2"), 400, "REPEATED_PARAMETER")

    def test_tell_of_a_token_that_was_not_given_out(self, gateway: Gateway) -> None:
        assert is_problem(call(gateway, "/v1/records?next_token=abc"), 400, "BAD_CURSOR")
        assert is_problem(call(gateway, "/v1/targets?next_token=abc"), 400, "BAD_CURSOR")

    def test_know_what_does_not_exist(self, gateway: Gateway) -> None:
        assert is_problem(call(gateway, f"/v1/incidents/{GUARD_ACCOUNT}.us-east-1.999"), 404, "NO_SUCH_INCIDENT")
        assert is_problem(call(gateway, "/v1/incidents/nonsense"), 404, "NO_SUCH_INCIDENT")
        assert is_problem(call(gateway, f"/v1/targets/{GUARD_ACCOUNT}/eu-north-1"), 404, "NO_SUCH_TARGET")
        assert is_problem(call(gateway, "/v1/targets/x/y/reconcile", "POST"), 404, "NO_SUCH_TARGET")

    def test_take_no_body_but_an_empty_object(self, gateway: Gateway) -> None:
        path = f"/v1/targets/{HERE}/reconcile"
        json_type = "application/json"
        assert call(gateway, path, "POST", body=b"{}", Content_Type=json_type).status == 202
        refused = call(gateway, path, "POST", body=b'{"force": true}', Content_Type=json_type)
        assert is_problem(refused, 400, "BAD_BODY")
        assert is_problem(call(gateway, path, "POST", body=b"<a/>", Content_Type="text/xml"), 415, "NOT_JSON")
        assert is_problem(call(gateway, path, "POST", body=b" " * 2000, Content_Type=json_type), 413, "BODY_TOO_LARGE")

    def test_do_not_read_a_query_without_end(self, gateway: Gateway) -> None:
        assert is_problem(call(gateway, f"/v1/records?actor={'a' * 9000}"), 414, "QUERY_TOO_LONG")


def test_a_failing_table_is_an_answer_without_details_and_a_time_to_try_again(gateway: Gateway) -> None:
    gateway.sandbox.fail("dynamodb", "Query", "AccessDeniedException", message="User: arn:aws:iam::1:role/x", times=4)
    answer = call(gateway, "/v1/records")
    gateway.sandbox.faults.clear()
    assert is_problem(answer, 503, "AWS_REFUSED")
    assert answer.headers["retry-after"]
    assert b"arn:" not in answer.body


def test_whom_an_operator_asks_about_is_looked_at_by_the_next_tick_on_the_operators_word(gateway: Gateway) -> None:
    sandbox = gateway.sandbox
    change_setting(sandbox, Type="NONE")
    answer = call(gateway, f"/v1/targets/{HERE}/reconcile", "POST")
    assert answer.status == 202
    assert answer.headers["location"] == f"/v1/targets/{HERE}"
    assert setting_of(sandbox)["Type"] == "NONE"
    sandbox.run_schedule("tick")
    assert sandbox.idle()
    assert setting_of(sandbox)["Type"] == "KMS"
    last = call(gateway, "/v1/records?limit=1&outcome=REMEDIATED").json()["records"][0]
    assert last["trigger"]["kind"] == "operator"
    assert last["trigger"]["actor"]["arn"].endswith("user/administrator")
    before = call(gateway, f"/v1/records?account={GUARD_ACCOUNT}").json()
    sandbox.run_schedule("tick")
    assert sandbox.idle()
    assert call(gateway, f"/v1/records?account={GUARD_ACCOUNT}").json() == before


@pytest.mark.parametrize("target", ["guard", HERE, None])
def test_a_question_about_all_times_there_are_is_answered(target: str | None, gateway: Gateway) -> None:
    everything = "since=0001-01-01&until=9999-12-31T23:59:59Z" + (f"&target={target}" if target else "")
    assert call(gateway, f"/v1/records?{everything}").json()["records"]
    assert call(gateway, f"/v1/incidents?{everything}").status == 200
    assert call(gateway, "/v1/summary?since=0001-01-01&until=9999-12-31T23:59:59Z").json()["opened"] >= 2
