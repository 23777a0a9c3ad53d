"""The command line as it is installed, against the package that ships, deployed in the sandbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sandbox.server import Sandbox
from tests.component.guarded import dead_letters, records_of, setting_of

HERE = "123456789012/us-east-1"


@pytest.fixture(autouse=True)
def shell(monkeypatch: pytest.MonkeyPatch, deployed: Sandbox, tmp_path: Path) -> None:
    """A shell that is pointed at the sandbox, and nothing of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "XRAY_GUARD_"))]:
        monkeypatch.delenv(name)
    for name, value in deployed.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def run(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the installed program in a process of its own."""
    program = Path(sys.executable).with_name("xray-guard")
    done = subprocess.run([str(program), *args], capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def wait_for_history(outcome: str, seconds: float = 10.0) -> dict[str, Any]:
    """The newest record with the outcome, as soon as `history` has it."""
    end = time.monotonic() + seconds
    while True:
        records: list[dict[str, Any]] = json.loads(run("history", "--output", "json", "--outcome", outcome).stdout)[
            "records"
        ]
        if records:
            return records[0]
        assert time.monotonic() < end, f"no {outcome} within {seconds} s"
        time.sleep(0.2)


def test_a_change_by_any_client_is_in_the_history_with_who_from_what_to_what_and_how_long(deployed: Sandbox) -> None:
    deployed.client("xray").put_encryption_config(Type="NONE")
    # Ten seconds in AWS's own time; more here, for the function starts cold on a machine that runs other tests.
    record = wait_for_history("REMEDIATED", 60.0)
    assert record["target"] == HERE
    assert record["actor"]["arn"] == deployed.client("sts").get_caller_identity()["Arn"]
    assert record["before"]["type"] == "NONE"
    assert record["after"]["key_arn"] == setting_of(deployed)["KeyId"]
    assert record["exposure_seconds"] > 0
    assert run("check").returncode == 0
    assert run("audit", "verify").returncode == 0
    shown = run("show", record["incident_id"])
    assert "CreateKey" in shown.stdout


def test_a_dead_letter_is_sent_to_the_function_that_ships_and_leaves_the_queue(deployed: Sandbox) -> None:
    event = json.loads((Path(__file__).parents[1] / "events" / "13_success_none_root_console.json").read_text("utf-8"))
    event = json.loads(json.dumps(event).replace("111122223333", "123456789012"))
    sqs = deployed.client("sqs")
    url = sqs.get_queue_url(QueueName="xray-guard-dead-letters")["QueueUrl"]
    arn = deployed.client("lambda").get_function(FunctionName="xray-guard-on_change")["Configuration"]["FunctionArn"]
    letter = {
        "requestContext": {"functionArn": f"{arn}:$LATEST", "condition": "RetriesExhausted"},
        "requestPayload": event,
        "responsePayload": {"errorMessage": "on purpose"},
    }
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(letter))
    done = run("redrive", "--yes", "--output", "json")
    assert (done.returncode, json.loads(done.stdout)["letters"][0]["fate"]) == (0, "sent")
    assert deployed.idle(60)
    assert records_of(deployed, HERE)[0].trigger.event_id == event["detail"]["eventID"]
    assert dead_letters(deployed) == []


def test_doctor_finds_what_ships_in_order(deployed: Sandbox) -> None:
    assert deployed.run_schedule("xray-guard-sweep")
    assert deployed.idle(120)
    answer = json.loads(run("doctor", "--output", "json").stdout)
    amiss = {one["check"]: one["status"] for one in answer["findings"] if one["status"] != "good"}
    # The sandbox tells of every call without a trail, forwards no other Region's events here, and the guard in it is
    # deployed without protection.
    assert amiss.pop("trail", "bad") == "bad"
    assert amiss.pop("other Regions", "bad") == "bad"
    assert amiss == {"anchors": "warning", "table policies": "warning"}


def test_reconcile_by_an_operator_puts_the_setting_right(deployed: Sandbox) -> None:
    done = run("reconcile", HERE, "--yes", "--output", "json")
    assert (done.returncode, json.loads(done.stdout)["outcome"]) == (0, "REMEDIATED"), done.stderr
    assert setting_of(deployed)["Type"] == "KMS"
    assert deployed.idle(60)
    # The guard received each call's event, during the operator's lease or after it, and did nothing twice.
    records = records_of(deployed, HERE)
    grants = [record for record in records if record.reason == "GRANTS_CHANGED"]
    assert [record.trigger.actor.via for record in grants if record.trigger.actor] == ["xray.amazonaws.com"]
    outcomes = [record.outcome.value for record in records if record not in grants]
    assert [each for each in outcomes if each.startswith("REMEDIAT")] == ["REMEDIATING", "REMEDIATED"]
    others = set(outcomes) - {"REMEDIATING", "REMEDIATED"}
    assert others, "the events of the operator's calls are on the record"
    assert others <= {"COMPLIANT", "DEFERRED"}, "each event arrived during the lease or after it"
    assert len([call for call in deployed.calls if call.request.action == "PutEncryptionConfig"]) == 1
    assert run("audit", "verify").returncode == 0
