"""Without --policy, the command line judges by the document that the deployed guard enforces, and says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.aws.tables import AUDIT_TABLE, TARGETS_TABLE
from chalicelib.domain.model import Target, Trigger, TriggerKind
from chalicelib.domain.policy import Policy, parse
from chalicelib.domain.stored import GUARD_CHAIN, GuardState
from chalicelib.loop.reconcile import reconcile
from tests.component.operated import CREDENTIALS, HERE, PROJECT, client, event, guard, typed, world

PACKAGED = (PROJECT / "policies" / "policy.json").read_text("utf-8")
BREAK_GLASS = ("break-glass", "open", HERE, "--for", "2h", "--reason", "INC-1")


def another(**changes: Any) -> Policy:
    """A policy that only observes, under a rule of another name."""
    document = json.loads(PACKAGED)
    document["rules"][0] |= {"id": "deployed", "mode": "observe", **changes}
    return parse(json.dumps(document).encode())


def run_under(policy: Policy) -> None:
    reconcile(replace(guard(), policy=policy), Target.parse(HERE), Trigger(TriggerKind.SWEEP))


def guard_state() -> GuardState:
    return guard().store.load(GUARD_CHAIN).guard


@pytest.fixture(autouse=True)
def deployed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Policy]:
    """A guard that runs under another policy than this project's, and a target without encryption."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    policy = another()
    with world():
        run_under(policy)
        yield policy


def test_check_and_a_dry_run_judge_by_the_policy_in_force(deployed: Policy) -> None:
    answer = typed("check", HERE, "--output", "json")
    (judged,) = answer.json["targets"]
    assert (judged["rule"], judged["outcome"], answer.json["policy_digest"]) == (
        "deployed",
        "IGNORED",
        deployed.digest,
    )
    assert f"Judging by the policy in force, digest {deployed.digest[:12]}." in answer.err
    planned = typed("reconcile", HERE, "--dry-run", "--output", "json").json
    assert (planned["rule"], planned["policy_digest"]) == ("deployed", deployed.digest)


def test_a_named_document_is_judged_by_instead() -> None:
    path = str(PROJECT / "policies" / "policy.json")
    answer = typed("check", HERE, "--policy", path, "--output", "json")
    (judged,) = answer.json["targets"]
    assert (judged["rule"], judged["outcome"]) == ("baseline", "IGNORED")
    assert f"Judging by {path}, digest {guard().policy.digest[:12]}." in answer.err


def test_explain_and_policy_explain_judge_by_the_policy_in_force(deployed: Policy, tmp_path: Path) -> None:
    (tmp_path / "event.json").write_text(json.dumps(event()), "utf-8")
    answer = typed("explain", str(tmp_path / "event.json"), "--output", "json")
    assert (answer.json["outcome"], answer.json["judgement"]["rule"]) == ("OBSERVED", "deployed")
    explained = typed("policy", "explain", HERE)
    assert f"{HERE} under the policy in force" in explained.out
    assert "rule deployed: governs this target" in explained.out


def test_break_glass_is_opened_by_the_policy_in_force() -> None:
    run_under(another(break_glass=None))
    answer = typed(*BREAK_GLASS)
    assert answer.code == 253
    assert f"rule deployed governs {HERE} and does not define `break_glass` in the policy in force" in answer.err


def test_reconcile_acts_by_the_policy_in_force_and_leaves_it_in_force(deployed: Policy) -> None:
    answer = typed("reconcile", HERE, "--yes", "--output", "json")
    assert answer.json["outcome"] == "OBSERVED"
    assert guard_state().policy_digest == deployed.digest
    enforcing = another(mode="enforce")
    run_under(enforcing)
    client("xray").put_encryption_config(Type="NONE")
    assert typed("reconcile", HERE, "--yes", "--output", "json").json["outcome"] == "REMEDIATED"
    assert guard_state().policy_digest == enforcing.digest


def without_its_text() -> None:
    """The record of the policy in force as a former release stored it."""
    key = {"target": {"S": GUARD_CHAIN}, "sk": {"S": f"r#{guard_state().policy_seq:012d}"}}
    item = client("dynamodb").get_item(TableName=AUDIT_TABLE, Key=key)["Item"]
    item["body"] = {"S": json.dumps({**json.loads(item["body"]["S"]), "detail": {}})}
    client("dynamodb").put_item(TableName=AUDIT_TABLE, Item=item)


@pytest.mark.parametrize(
    "words", [("check", HERE), ("reconcile", HERE, "--yes"), BREAK_GLASS], ids=lambda words: words[0]
)
def test_where_the_log_does_not_have_the_text_a_document_must_be_named(
    deployed: Policy, words: tuple[str, ...]
) -> None:
    without_its_text()
    answer = typed(*words)
    assert (answer.code, answer.out) == (253, "")
    assert f"does not have the text of the policy in force, digest {deployed.digest[:12]}" in answer.err
    assert "--policy PATH" in answer.err
    assert typed("check", HERE, "--policy", str(PROJECT / "policies")).code == 0


def test_a_pause_needs_no_policy_of_the_log() -> None:
    without_its_text()
    assert typed("pause", "--reason", "INC-1").code == 0
    assert guard_state().paused is not None


def test_the_record_of_a_former_release_is_searched_for(deployed: Policy) -> None:
    item = client("dynamodb").get_item(TableName=TARGETS_TABLE, Key={"target": {"S": GUARD_CHAIN}})["Item"]
    state = json.loads(item["state"]["S"])
    del state["policy_seq"]
    item["state"] = {"S": json.dumps(state)}
    client("dynamodb").put_item(TableName=TARGETS_TABLE, Item=item)
    assert typed("check", HERE, "--output", "json").json["policy_digest"] == deployed.digest


def test_where_no_guard_has_run_the_document_of_this_project_is_judged_by() -> None:
    client("dynamodb").delete_item(TableName=TARGETS_TABLE, Key={"target": {"S": GUARD_CHAIN}})
    answer = typed("check", HERE, "--output", "json")
    assert answer.json["policy_digest"] == guard().policy.digest
    assert f"digest {guard().policy.digest[:12]}." in answer.err
