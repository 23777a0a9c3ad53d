"""The verb `incidents`, the ids that other verbs take from it, and what the shell completes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from click.shell_completion import ShellComplete

from chalicelib.cli import cli
from chalicelib.domain.reasons import Outcome
from tests.component.operated import ACCOUNT, HERE, Typist, client, delivered, event, guard, swept, typed

pytestmark = pytest.mark.usefixtures("shell")


@pytest.fixture
def second_open(guarded: None) -> str:
    """Root's incident is remediated; a second one is open, because the key is somebody else's and disabled."""
    arn = guard().store.load(HERE).state.managed_key
    client("kms").untag_resource(KeyId=arn, TagKeys=["xray-guard"])
    client("kms").disable_key(KeyId=arn)
    client("xray").put_encryption_config(Type="NONE")
    document = event()
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    delivered({**document, "detail": {**document["detail"], "eventID": "second", "eventTime": now}})
    incident = guard().store.load(HERE).state.incident
    assert incident is not None
    return incident.id


def ids(*options: str) -> list[str]:
    answer = typed("incidents", "--output", "jsonl", *options)
    assert answer.code == 0
    return [each["id"] for each in answer.lines]


def test_one_row_each_says_what_who_how_long_and_how_it_stands(second_open: str) -> None:
    answer = typed("incidents")
    header, *rows = answer.out.splitlines()
    first, newest = sorted(rows)
    assert header.split() == ["INCIDENT", "TARGET", "WHAT", "WHO", "OPENED", "EXPOSURE", "STATE"]
    assert newest.split()[:2] == [second_open, HERE]
    assert "KEY_DISABLED" in newest or "NOT_KMS" in newest
    assert newest.endswith("FAILED, open")
    assert first.split()[0] == f"{HERE}#1"
    assert "root" in first
    assert first.endswith("REMEDIATED")
    assert f"{second_open}: next attempt" in answer.err


def test_they_are_filtered_as_records_are_and_by_violation_and_by_being_open(second_open: str) -> None:
    first = f"{HERE}#1"
    for options, expected in {
        (): [second_open, first],
        ("--open",): [second_open],
        ("--open", "--outcome", "REMEDIATED"): [],
        ("--open", "--actor", "mallory"): [],
        ("--open", "--since", "2020-01-01"): [second_open],
        ("--open", "--until", "2020-01-01"): [],
        ("--open", "--target", "eu-west-1"): [],
        ("--outcome", "remediated,deferred"): [first],
        ("--violation", "KEY_PENDING_DELETION,not_kms"): [second_open, first],
        ("--violation", "KEY_PENDING_DELETION"): [],
        ("--open", "--violation", "NOT_KMS"): [second_open],
        ("--open", "--violation", "ALIAS_MOVED"): [],
        ("--target", "us-east-1"): [second_open, first],
        ("--target", HERE, "--actor", "root"): [second_open, first],
        ("--rule", "none"): [],
        ("--until", "2020-01-01"): [],
    }.items():
        # Each guard here takes its time from AWS's answers anew, so two that follow within a second may seem reversed.
        assert sorted(ids(*options)) == sorted(expected), options


def test_of_an_open_one_json_has_the_exposure_so_far(second_open: str) -> None:
    found = {each["id"]: each for each in typed("incidents", "--output", "json").json["incidents"]}
    newest, first = found[second_open], found[f"{HERE}#1"]
    assert (newest["open"], first["open"]) == (True, False)
    assert newest["exposure_seconds"] >= 0
    assert first["exposure_seconds"] > 0


def test_a_page_goes_on_where_the_last_one_ended(second_open: str) -> None:
    page = typed("incidents", "--limit", "1", "--output", "json").json
    found = [each["id"] for each in page["incidents"]] + ids("--limit", "1", "--next-token", page["next_token"])
    assert sorted(found) == sorted([second_open, f"{HERE}#1"])
    assert "--next-token " in typed("incidents", "--limit", "1").err
    assert typed("incidents", "--open", "--next-token", page["next_token"]).code == 2


def test_without_any_it_says_so(guarded: None) -> None:
    answer = typed("incidents", "--open")
    assert (answer.code, answer.out) == (0, "")
    assert "No incident is open." in answer.err


def test_a_wrong_code_is_a_usage_error_that_names_the_right_ones() -> None:
    answer = typed("incidents", "--violation", "NOT_KMS,GONE")
    assert answer.code == 2
    assert "'GONE' is not one of NOT_KMS" in answer.err


def test_show_takes_the_id_without_its_account_and_names_the_list(second_open: str) -> None:
    short = second_open.partition("/")[2]
    assert typed("show", short, "--output", "json").json["id"] == second_open
    missing = typed("show", "us-east-1#99")
    assert missing.code == 1
    assert "run `xray-guard incidents`" in missing.err


@pytest.mark.parametrize(
    "words",
    [
        ("check", "us-east-1"),
        ("reconcile", "us-east-1", "--dry-run"),
        ("policy", "explain", "us-east-1"),
        ("key", "replace", "us-east-1"),
        ("history", "--target", "us-east-1"),
        ("audit", "verify", "--chain", "us-east-1"),
        ("audit", "export", "--chain", "us-east-1"),
        ("audit", "verify", "--chain", "guard"),
    ],
    ids=" ".join,
)
def test_a_target_is_a_region_of_the_credentials_account(guarded: None, words: tuple[str, ...]) -> None:
    answer = typed(*words)
    assert answer.code == 0, answer.err
    if "guard" not in words:
        assert HERE in answer.out or words[1] == "verify"


def completed(words: list[str], incomplete: str) -> list[str]:
    """What a shell offers."""
    shell = ShellComplete(cli, {"obj": Typist()}, "xray-guard", "_XRAY_GUARD_COMPLETE")
    return [item.value for item in shell.get_completions(words, incomplete)]


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        (["check"], "", ["eu-west-1", "us-east-1"]),
        (["check"], "us", ["us-east-1"]),
        (["check"], ACCOUNT[:3], [f"{ACCOUNT}/eu-west-1", HERE]),
        (["break-glass", "open"], "us", ["us-east-1"]),
        (["history", "--target"], "g", ["guard"]),
        (["audit", "verify", "--chain"], "us", ["us-east-1"]),
        (["show"], "us", ["us-east-1#1"]),
        (["show"], HERE, [f"{HERE}#1"]),
        (["history", "--outcome"], "SUP", ["SUPPRESSED"]),
        (["history", "--outcome"], "FAILED,rem", ["FAILED,REMEDIATING", "FAILED,REMEDIATED"]),
        (["incidents", "--violation"], "KEY_P", ["KEY_PENDING_DELETION", "KEY_POLICY_INCOMPLETE", "KEY_POLICY_OPEN"]),
    ],
)
def test_the_shell_completes(guarded: None, words: list[str], incomplete: str, expected: list[str]) -> None:
    swept("eu-west-1")
    assert sorted(completed(words, incomplete)) == sorted(expected)


def test_without_credentials_or_tables_the_shell_completes_nothing_and_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert completed(["show"], "") == completed(["check"], "") == []
    assert capsys.readouterr() == ("", "")


def test_every_outcome_is_completed(guarded: None) -> None:
    assert completed(["history", "--outcome"], "") == [outcome.value for outcome in Outcome]
