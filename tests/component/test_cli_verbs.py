"""What each verb answers and does, in every form of output, with a guard that works in an AWS of this process."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import click
import pytest
import yaml
from click.testing import CliRunner

from chalicelib.domain.lookups import Progress
from chalicelib.domain.model import Actor
from chalicelib.domain.reasons import Outcome
from chalicelib.operators.context import Identity, Operator
from chalicelib.operators.layout import Column, Table, fit
from chalicelib.operators.output import print_rows
from sandbox.knobs import DEFAULT_REGIONS
from tests.component.operated import (
    ACCOUNT,
    HERE,
    PROJECT,
    ROLE,
    client,
    delivered,
    event,
    guard,
    histories,
    setting,
    swept,
    target,
    turned,
    typed,
    world,
)
from tests.unit.test_events_keys import kms_event

pytestmark = pytest.mark.usefixtures("shell")


@pytest.fixture
def empty() -> Iterator[None]:
    """An account with the guard's tables and nothing in them."""
    with world():
        yield


@pytest.fixture
def everywhere(tmp_path: Path) -> str:
    """The policy that ships, but for every Region, used or not."""
    policy = json.loads((PROJECT / "policies" / "policy.json").read_text("utf-8"))
    policy["rules"][0]["when"] = "always"
    (tmp_path / "always.json").write_text(json.dumps(policy), "utf-8")
    return str(tmp_path / "always.json")


@pytest.fixture
def remediated(empty: None) -> None:
    """The guard remediated after root set X-Ray to NONE."""
    delivered(event())


@pytest.fixture
def swept_twice(remediated: None) -> None:
    """Then it swept two Regions, and did so again."""
    swept("us-east-1", "eu-west-1")
    swept("us-east-1", "eu-west-1")


def key_arn() -> str:
    return str(setting()["KeyId"])


def state_of_the_world() -> Any:
    """All that a command that only looks must leave as it was."""
    kms = client("kms")
    keys = [key["KeyId"] for key in kms.list_keys()["Keys"]]
    tables = [client("dynamodb").scan(TableName=f"xray-guard-{name}")["Items"] for name in ("audit", "targets")]
    return setting(), keys, [kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"] for key in keys], tables


class TestCheck:
    def test_says_what_is_wrong_what_would_be_done_and_what_it_costs_and_changes_nothing(
        self, empty: None, everywhere: str
    ) -> None:
        before = state_of_the_world()
        answer = typed("check", HERE, "--policy", everywhere)
        assert answer.code == 1
        assert "NONCOMPLIANT" in answer.out
        assert "PLANNED ACTION" in answer.out
        assert "NOT_KMS" in answer.out
        assert "create a customer managed key" in answer.out
        assert "about 1 US dollars a month" in answer.err
        assert "kms:Decrypt" in answer.err
        assert state_of_the_world() == before

    def test_of_a_target_that_nobody_uses_says_the_same_alone_and_among_all_regions(self, empty: None) -> None:
        alone = typed("check", HERE, "--output", "json")
        among = typed("check", "--all-regions", "--output", "json")
        (one,) = alone.json["targets"]
        assert one in among.json["targets"]
        assert (alone.code, among.code) == (0, 0)
        assert (one["outcome"], one["reason"], one["compliant"]) == ("IGNORED", "IDLE", None)
        assert "never encrypted, and no traces in six hours" in typed("check", "us-east-1").err

    def test_of_a_compliant_target_is_good(self, remediated: None) -> None:
        answer = typed("check", HERE)
        said = f"Judging by the policy in force, digest {guard().policy.digest[:12]}.\n"
        assert (answer.code, answer.err) == (0, said)
        assert "COMPLIANT" in answer.out
        assert "NONCOMPLIANT" not in answer.out

    def test_without_a_target_looks_at_the_configured_region_of_the_callers_account(
        self, empty: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        document = typed("check", "--output", "json").json
        assert [one["target"] for one in document["targets"]] == [HERE]
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        document = typed("check", "--output", "json", "--home-region", "us-east-1").json
        assert [one["target"] for one in document["targets"]] == [target("eu-west-1")]

    def test_of_all_regions_leaves_alone_what_nobody_uses_as_the_sweep_would(self, remediated: None) -> None:
        answer = typed("check", "--all-regions", "--output", "json")
        assert answer.code == 0
        by_region = {one["region"]: one for one in answer.json["targets"]}
        assert set(by_region) == set(DEFAULT_REGIONS)
        assert by_region["us-east-1"]["compliant"] is True
        assert (by_region["eu-west-1"]["outcome"], by_region["eu-west-1"]["reason"]) == ("IGNORED", "IDLE")
        assert answer.json["usd_per_month"] == 0

    def test_of_all_regions_names_those_that_the_organization_denies_and_finds_no_fault_in_them(
        self, remediated: None
    ) -> None:
        with turned(denied_regions=["eu-west-1"]):
            answer = typed("check", "--all-regions", "--output", "json")
        (denied,) = [one for one in answer.json["targets"] if one["region"] == "eu-west-1"]
        assert (answer.code, denied["outcome"], denied["reason"]) == (0, "IGNORED", "REGION_DENIED")
        assert denied["compliant"] is None

    def test_of_all_regions_adds_up_the_keys_that_would_be_made(self, empty: None, tmp_path: Path) -> None:
        policy = json.loads((PROJECT / "policies" / "policy.json").read_text("utf-8"))
        policy["rules"][0] |= {"when": "always", "regions": ["eu-*"], "mode": "observe"}
        (tmp_path / "policy.json").write_text(json.dumps(policy), "utf-8")
        answer = typed("check", "--all-regions", "--policy", str(tmp_path), "--output", "json")
        document = answer.json
        judged = [one for one in document["targets"] if one["region"].startswith("eu-")]
        assert answer.code == 1
        assert {(one["outcome"], one["new_keys"]) for one in judged} == {("OBSERVED", 1)}
        assert {one["reason"] for one in document["targets"] if one not in judged} == {"UNGOVERNED"}
        assert document["usd_per_month"] == len(judged) == document["new_keys"]
        assert any("kms:Decrypt" in note for note in document["notes"])

    def test_in_json_lines_is_a_target_a_line(self, remediated: None) -> None:
        (line,) = typed("-o", "jsonl", "check", HERE).lines
        assert (line["target"], line["compliant"], line["setting"]["type"]) == (HERE, True, "KMS")

    def test_before_anything_is_deployed_judges_without_the_guards_memory_and_says_so(self) -> None:
        with world(tables=False):
            answer = typed("check", HERE)
        assert answer.code == 0
        assert "tables do not exist" in answer.err

    @pytest.mark.parametrize("wrong", ["us-east", "123/us-east-1", f"{ACCOUNT}/", f"{ACCOUNT}/nowhere", "\x1b[2J/x"])
    def test_of_what_is_no_target_says_how_one_is_written(self, wrong: str) -> None:
        answer = typed("check", wrong)
        assert answer.code == 2
        assert "111122223333/us-east-1" in answer.err or "us-east-1" in answer.err
        assert "\x1b" not in answer.err

    def test_of_another_account_says_which_credentials_are_needed(self, empty: None) -> None:
        answer = typed("check", "999988887777/us-east-1")
        assert answer.code == 253
        assert "999988887777" in answer.err

    def test_of_a_target_and_all_regions_at_once_is_a_usage_error(self) -> None:
        assert typed("check", HERE, "--all-regions").code == 2


class TestReconcile:
    def test_wants_to_be_told_whether_to_act(self) -> None:
        assert typed("reconcile", HERE).code == 2
        assert typed("reconcile", HERE, "--yes", "--dry-run").code == 2

    def test_dry_run_lists_the_steps_and_changes_nothing(self, empty: None) -> None:
        before = state_of_the_world()
        answer = typed("reconcile", HERE, "--dry-run")
        assert answer.code == 0
        steps = ("1. CreateKey", "2. PutEncryptionConfig", "3. EnableKeyRotation", "4. CreateAlias")
        assert [name in answer.out for name in steps] == [True] * 4
        assert state_of_the_world() == before

    def test_dry_run_shows_the_key_policy_that_would_be_written(self, remediated: None) -> None:
        root = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "kms:*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [{**root, "Resource": "*"}]})
        client("kms").put_key_policy(KeyId=key_arn(), PolicyName="default", Policy=policy)
        answer = typed("reconcile", HERE, "--dry-run")
        assert '+        "Service": "xray.amazonaws.com"' in answer.out
        (step,) = typed("reconcile", HERE, "--dry-run", "--output", "json").json["plan"]
        assert (step["name"], step["before"]) == ("PutKeyPolicy", policy)
        assert "xray.amazonaws.com" in step["after"]

    def test_yes_puts_it_right_and_is_on_record_under_the_operators_name(self, empty: None) -> None:
        answer = typed("reconcile", HERE, "--yes", "--output", "json")
        assert (answer.code, answer.json["outcome"], answer.json["mutated"]) == (0, "REMEDIATED", True)
        assert (setting()["Type"], setting()["Status"]) == ("KMS", "ACTIVE")
        assert "seven minutes" in answer.err or "7 minutes" in answer.err
        newest = typed("history", "--target", HERE, "--output", "json", "--limit", "1").json["records"][0]
        assert (newest["outcome"], newest["trigger"]["kind"]) == ("REMEDIATED", "operator")
        assert newest["actor"]["arn"] == client("sts").get_caller_identity()["Arn"]

    def test_yes_where_nothing_is_wrong_says_so_and_mutates_nothing(self, remediated: None) -> None:
        key = key_arn()
        answer = typed("reconcile", HERE, "--yes")
        assert answer.code == 0
        assert f"{HERE}: COMPLIANT" in answer.out
        assert key_arn() == key

    def test_yes_where_it_cannot_be_put_right_says_no_and_why(self, remediated: None) -> None:
        client("kms").untag_resource(KeyId=key_arn(), TagKeys=["xray-guard"])
        client("kms").schedule_key_deletion(KeyId=key_arn(), PendingWindowInDays=7)
        answer = typed("reconcile", HERE, "--yes")
        assert answer.code == 1
        assert "FAILED" in answer.out
        assert "xray-guard=managed" in answer.out

    def test_yes_under_another_policy_than_the_deployed_one_is_refused(self, remediated: None, tmp_path: Path) -> None:
        policy = json.loads((PROJECT / "policies" / "policy.json").read_text("utf-8"))
        policy["rules"][0]["id"] = "mine"
        (tmp_path / "policy.json").write_text(json.dumps(policy), "utf-8")
        before = state_of_the_world()
        answer = typed("reconcile", HERE, "--yes", "--policy", str(tmp_path / "policy.json"))
        assert answer.code == 253
        assert "undo each other's changes" in answer.err
        assert state_of_the_world() == before


class TestHistory:
    def test_tells_who_from_what_to_what_and_for_how_long(self, remediated: None) -> None:
        answer = typed("history", "--output", "json", "--outcome", "remediated")
        (record,) = answer.json["records"]
        assert answer.code == 0
        assert (record["target"], record["outcome"]) == (HERE, "REMEDIATED")
        assert record["actor"]["arn"] == f"arn:aws:iam::{ACCOUNT}:root"
        assert (record["before"]["type"], record["after"]["key_arn"]) == ("NONE", key_arn())
        assert record["exposure_seconds"] > 0
        assert answer.json["next_token"] is None

    def test_as_a_table_has_a_row_a_record_newest_first(self, remediated: None) -> None:
        answer = typed("history", "--target", HERE)
        header, newest, *_, oldest = answer.out.splitlines()
        assert header.split() == ["TIME", "TARGET", "OUTCOME", "REASON", "ACTOR", "CHANGE", "EXPOSURE", "INCIDENT"]
        assert newest.endswith(f"{HERE}#1")
        assert ("REMEDIATED" in newest, "REMEDIATING" in oldest) == (True, True)
        assert "root" in newest
        assert "NONE → key" in newest

    def test_of_nothing_is_no_error(self, empty: None) -> None:
        answer = typed("history")
        assert (answer.code, answer.out) == (0, "")
        assert "No records match" in answer.err
        assert typed("history", "--output", "json").json == {"records": [], "next_token": None}
        assert typed("history", "--output", "jsonl").out == ""

    def test_is_filtered(self, remediated: None) -> None:
        for options, count in {
            ("--since", "24h"): 5,
            ("--since", "2020-01-01"): 5,
            ("--until", "2020-01-01T00:00:00Z"): 0,
            ("--account", ACCOUNT): 4,
            ("--account", "999988887777"): 0,
            ("--target-region", "us-east-1"): 4,
            ("--target-region", "eu-west-1"): 0,
            ("--target", "guard"): 1,
            ("--actor", "root"): 2,
            ("--actor", "mallory"): 0,
            ("--rule", "baseline"): 4,
            ("--outcome", "REMEDIATED", "--outcome", "IGNORED"): 4,
            ("--outcome", "remediated,Ignored"): 4,
            ("--target", "us-east-1"): 4,
        }.items():
            assert len(typed("history", "--output", "jsonl", *options).lines) == count, options

    def test_is_told_page_by_page(self, swept_twice: None) -> None:
        whole = [record["record_id"] for record in typed("history", "--output", "json").json["records"]]
        document: list[str] = []
        token: list[str] = []
        for _ in range(len(whole)):
            page = typed("history", "--output", "json", "--limit", "2", *token).json
            document += [record["record_id"] for record in page["records"]]
            if page["next_token"] is None:
                break
            token = ["--next-token", page["next_token"]]
        assert document == whole
        assert len(whole) >= 6

    def test_as_a_table_says_on_stderr_how_to_go_on(self, remediated: None) -> None:
        answer = typed("history", "--limit", "1")
        assert "--next-token " in answer.err
        assert "--next-token" not in answer.out

    @pytest.mark.parametrize(
        ("options", "document"),
        [
            (("--since", "yesterday"), "24h"),
            (("--since", "99999999d"), "24h"),
            (("--until", "2026-13-45"), "is not a time"),
            (("--since", "1h", "--until", "2h"), "--until must be later than --since"),
            (("--account", "12"), "twelve digits"),
            (("--target-region", "Virginia"), "us-east-1"),
            (("--target", "nowhere"), "111122223333/us-east-1"),
            (("--outcome", "GONE"), "REMEDIATED"),
            (("--outcome", "FAILED,GONE"), "'GONE' is not one of"),
            (("--limit", "0"), "1<=x<=500"),
            (("--follow", "--until", "1h"), "--follow"),
        ],
    )
    def test_of_a_question_that_makes_no_sense_says_what_does(self, options: tuple[str, ...], document: str) -> None:
        answer = typed("history", *options)
        assert (answer.code, answer.out) == (2, "")
        assert document in answer.err

    def test_with_a_token_of_another_question_or_none_of_ours_is_refused(self, remediated: None) -> None:
        garbled = typed("history", "--next-token", "garbage!")
        assert garbled.code == 2
        assert "leave --next-token out" in garbled.err
        token = typed("history", "--output", "json", "--limit", "1").json["next_token"]
        answer = typed("history", "--rule", "baseline", "--next-token", token)
        assert answer.code == 2
        assert "belongs to other filters" in answer.err

    def test_followed_tells_what_was_and_what_comes_and_nothing_twice(self, remediated: None) -> None:
        polls = 0

        def meanwhile(seconds: float) -> None:
            nonlocal polls
            polls += 1
            if polls == 2:
                delivered({**event(), "detail": {**event()["detail"], "eventID": "second"}})
            if polls == 5:
                raise KeyboardInterrupt

        answer = typed("history", "--follow", "--output", "jsonl", sleep=meanwhile)
        document = [line["record_id"] for line in answer.lines]
        assert answer.code == 0
        assert document[:5] == [f"{HERE}#1", f"{HERE}#2", f"{HERE}#3", f"{HERE}#4", "guard#1"]
        assert document[5:] == [f"{HERE}#5"]

    def test_followed_as_a_table_has_one_header_over_aligned_columns(self, remediated: None) -> None:
        polls = 0

        def meanwhile(seconds: float) -> None:
            nonlocal polls
            polls += 1
            if polls == 2:
                delivered({**event(), "detail": {**event()["detail"], "eventID": "second"}})
            if polls == 4:
                raise KeyboardInterrupt

        header, *rows = typed("history", "--follow", sleep=meanwhile).out.splitlines()
        assert header.split()[:3] == ["TIME", "TARGET", "OUTCOME"]
        assert len(rows) == 6
        for name in ("TARGET", "OUTCOME", "REASON", "ACTOR"):
            start = header.index(name)
            assert all(row[start - 1] == " " and row[start] != " " for row in rows), name

    def test_shows_hostile_text_as_text(self, empty: None) -> None:
        document = event("30_success_none_iamuser_mfa_console_with_path")
        hostile = "\x1b]0;owned\x07\u202e<script>alert(1)</script>"
        document["detail"]["userIdentity"] = {"type": "IAMUser", "arn": f"arn:aws:iam::{ACCOUNT}:user/{hostile}"}
        document["detail"]["userAgent"] = hostile
        delivered(document)
        for command in (("history",), ("show", f"{HERE}#1"), ("status",)):
            answer = typed(*command)
            assert answer.code == 0
            assert not {"\x1b", "\x07", "\u202e"} & set(answer.out + answer.err)


class TestShow:
    def test_tells_an_incident_from_its_discovery_to_its_end(self, remediated: None) -> None:
        answer = typed("show", f"{HERE}#1")
        assert answer.code == 0
        for part in ("REMEDIATED", "root", "NONE → key", "NOT_KMS", "CreateKey", "PutEncryptionConfig", "result:"):
            assert part in answer.out
        assert "exposure" in answer.out

    def test_in_json_has_the_records_with_their_actions(self, remediated: None) -> None:
        document = typed("show", f"{HERE}#4", "--output", "json").json
        assert (document["id"], document["open"], document["outcome"]) == (f"{HERE}#1", False, "REMEDIATED")
        assert [record["reason"] or record["outcome"] for record in document["records"]] == [
            *("REMEDIATING", "KEY_MADE", "KEY_ADOPTED", "REMEDIATED")
        ]
        assert document["records"][-1]["actions"][0]["name"] == "CreateKey"

    def test_shows_what_was_added_to_a_key_policy(self, remediated: None) -> None:
        root = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "kms:*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [{**root, "Resource": "*"}]})
        client("kms").put_key_policy(KeyId=key_arn(), PolicyName="default", Policy=policy)
        typed("reconcile", HERE, "--yes")
        answer = typed("show", f"{HERE}#5")
        assert '+        "Service": "xray.amazonaws.com"' in answer.out

    def test_of_an_open_incident_tells_the_exposure_so_far(self, remediated: None) -> None:
        client("kms").untag_resource(KeyId=key_arn(), TagKeys=["xray-guard"])
        client("kms").disable_key(KeyId=key_arn().rsplit("/", 1)[-1])
        delivered({**event(), "detail": {**event()["detail"], "eventID": "second"}})
        incident = typed("status", "--output", "json").json["targets"][0]["incident"]["id"]
        answer = typed("show", incident)
        assert "so far" in answer.out
        assert "FAILED" in answer.out

    def test_of_a_fight_tells_until_when_it_is_held_back_and_against_whom(self, remediated: None) -> None:
        for number in range(4):
            client("xray").put_encryption_config(Type="NONE")
            document = event()
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            delivered({**document, "detail": {**document["detail"], "eventID": f"again-{number}", "eventTime": now}})
        view = typed("status", "--output", "json").json["targets"][0]
        assert (view["outcome"], view["reason"]) == ("DEFERRED", "BACKOFF")
        answer = typed("show", view["incident"]["id"])
        assert "held back until" in answer.out
        assert f"against: arn:aws:iam::{ACCOUNT}:root; recent attempts: 3" in answer.out
        assert "meaning:     Another principal keeps undoing the remediation." in answer.out
        assert "what to do:  Stop the automation" in answer.out
        assert "BACKOFF: Another principal keeps undoing the remediation." in typed("history").err

    def test_of_a_change_that_x_ray_refuses_while_updating_says_that_no_action_is_needed(
        self, remediated: None
    ) -> None:
        with turned(settle_seconds=600.0, updates_while_updating=False):
            client("xray").put_encryption_config(Type="NONE")
            delivered({**event(), "detail": {**event()["detail"], "eventID": "refused"}})
            view = typed("status", "--output", "json").json["targets"][0]
            assert (view["outcome"], view["reason"]) == ("DEFERRED", "SETTLING")
            answer = typed("show", view["incident"]["id"])
            lists = typed("history").err + typed("status").err
        assert "meaning:     AWS has not finished an earlier change" in answer.out
        assert "The guard retries within a minute" in answer.out
        assert "what to do:  No action is needed." in answer.out
        assert lists.count("SETTLING: AWS has not finished an earlier change") == 2

    def test_of_a_region_that_the_organization_denies_says_what_it_means_and_what_to_do(self, remediated: None) -> None:
        with turned(denied_regions=["eu-west-1"]):
            swept("eu-west-1")
            lists = typed("history").err + typed("status").err
        assert lists.count("REGION_DENIED: An organization policy denies the guard access to this Region.") == 2
        assert "The guard enforces nothing here." in lists
        assert "ask the owner of the service control policies" in lists

    def test_of_what_does_not_exist_says_no(self, empty: None) -> None:
        answer = typed("show", f"{HERE}#7")
        assert (answer.code, answer.out) == (1, "")
        assert "does not exist" in answer.err

    def test_of_what_is_no_incident_says_how_one_is_written(self, empty: None) -> None:
        answer = typed("show", "INC-7")
        assert answer.code == 2
        assert "111122223333/us-east-1#7" in answer.err


class TestStatus:
    def test_has_a_row_a_target(self, swept_twice: None) -> None:
        answer = typed("status")
        assert answer.code == 0
        rows = [line.split() for line in answer.out.splitlines()[1:]]
        assert [row[0] for row in rows] == [target("eu-west-1"), target("us-east-1")]
        assert "1 of 2 targets compliant, 1 ignored" in answer.err

    def test_in_json_has_the_targets_and_the_guards_own_state(self, swept_twice: None) -> None:
        document = typed("status", "--output", "json").json
        assert [one["compliant"] for one in document["targets"]] == [False, True]
        assert document["guard"]["policy_digest"] == guard().policy.digest
        assert datetime.fromisoformat(document["guard"]["swept_at"]).tzinfo == UTC

    def test_names_the_targets_whose_events_are_not_received(self, swept_twice: None) -> None:
        assert "DEAF" not in typed("status").err
        histories().keep(HERE, Progress(deaf_since=datetime(2026, 11, 20, 12, tzinfo=UTC)))
        answer = typed("status")
        assert answer.code == 0
        assert f"DEAF since 2026-11-20T12:00:00Z: the guard receives no events from {HERE}." in answer.err
        assert typed("status", "--output", "json").json["guard"]["deaf"] == {HERE: "2026-11-20T12:00:00Z"}

    def test_is_narrowed_to_an_account_or_region(self, swept_twice: None) -> None:
        assert len(typed("status", "--target-region", "eu-west-1", "-o", "jsonl").lines) == 1
        assert typed("status", "--account", "999988887777", "-o", "jsonl").lines == []

    def test_before_the_first_sweep_says_that_nothing_was_seen(self, empty: None) -> None:
        answer = typed("status")
        assert (answer.code, answer.out) == (0, "")
        assert "not seen any target" in answer.err


class TestAudit:
    def test_verify_of_what_the_guard_wrote_is_good(self, swept_twice: None) -> None:
        answer = typed("audit", "verify")
        assert answer.code == 0
        assert answer.out.startswith("Verified: no tampering found in ")
        document = typed("audit", "verify", "--output", "json").json
        assert (document["whole"], document["chains"], document["findings"]) == (True, 3, [])
        assert document["anchors"] >= 3

    def test_verify_of_an_empty_log_is_good(self, empty: None) -> None:
        assert typed("audit", "verify").code == 0

    def test_verify_names_an_edited_record(self, swept_twice: None) -> None:
        edit(HERE, 4, lambda body: body.replace("REMEDIATED", "COMPLIANT", 1))
        answer = typed("audit", "verify")
        assert answer.code == 1
        row = answer.out.splitlines()[1].split()
        assert (row[0], row[1], row[2]) == (HERE, "4", "EDITED")
        assert "Integrity check failed: " in answer.err
        (finding,) = typed("audit", "verify", "-o", "jsonl").lines
        assert (finding["target"], finding["seq"], finding["code"]) == (HERE, 4, "EDITED")

    def test_verify_finds_a_log_cut_off_behind_the_sweeps_back(self, swept_twice: None) -> None:
        delete(HERE, 4)
        answer = typed("audit", "verify", "--chain", HERE)
        assert answer.code == 1
        assert "TRUNCATED" in answer.out

    def test_verify_holds_the_log_against_the_anchors_in_a_bucket(self, remediated: None) -> None:
        from chalicelib.aws.clients import Clients
        from chalicelib.aws.s3_anchors import AnchorBucket
        from chalicelib.loop.sweep import sweep

        s3 = client("s3")
        s3.create_bucket(Bucket="anchors", ObjectLockEnabledForBucket=True)
        sweep(guard(), lambda: ["us-east-1"], AnchorBucket(Clients(), "us-east-1", "anchors"), lambda: 1000.0)
        good = typed("audit", "verify", "--anchor-bucket", "anchors", "--output", "json")
        assert (good.code, good.json["whole"]) == (0, True)
        assert "Object Lock" not in good.err
        # Somebody who may write everything but the bucket: the anchor's name gets a newer version with other heads.
        (name,) = [one["Key"] for one in s3.list_objects_v2(Bucket="anchors")["Contents"]]
        s3.delete_object(Bucket="anchors", Key=name)
        delete(HERE, 4)
        answer = typed("audit", "verify", "--anchor-bucket", "anchors")
        assert answer.code == 1
        assert "TRUNCATED" in answer.out

    def test_verify_finds_a_target_that_was_wiped_from_both_tables_by_the_bucket_alone(self, remediated: None) -> None:
        from chalicelib.aws.clients import Clients
        from chalicelib.aws.s3_anchors import AnchorBucket
        from chalicelib.loop.sweep import sweep

        client("s3").create_bucket(Bucket="anchors", ObjectLockEnabledForBucket=True)
        sweep(guard(), lambda: ["us-east-1"], AnchorBucket(Clients(), "us-east-1", "anchors"), lambda: 1000.0)
        dynamodb = client("dynamodb")
        for table, names in (("xray-guard-audit", ("target", "sk")), ("xray-guard-targets", ("target",))):
            for item in dynamodb.scan(TableName=table)["Items"]:
                dynamodb.delete_item(TableName=table, Key={name: item[name] for name in names})
        assert typed("audit", "verify").code == 0  # nothing is left to hold anything against
        document = typed("audit", "verify", "--anchor-bucket", "anchors", "--output", "json")
        assert document.code == 1
        assert {(one["target"], one["code"]) for one in document.json["findings"]} == {
            (HERE, "TRUNCATED"),
            ("guard", "TRUNCATED"),
        }
        assert "s3://anchors/anchors/" in document.json["findings"][0]["message"]

    def test_verify_names_an_object_that_passes_itself_off_as_an_anchor_and_goes_on(self, remediated: None) -> None:
        s3 = client("s3")
        s3.create_bucket(Bucket="anchors")
        s3.put_bucket_versioning(Bucket="anchors", VersioningConfiguration={"Status": "Enabled"})
        s3.put_object(Bucket="anchors", Key="anchors/1.json", Body=b"{")
        forged = {"record_id": "guard#1", "digest": "0", "heads": [[HERE, 1, "0"]]}
        s3.put_object(Bucket="anchors", Key="anchors/2.json", Body=json.dumps(forged).encode())
        document = typed("audit", "verify", "--anchor-bucket", "anchors", "--output", "json")
        assert document.code == 1
        assert [(one["target"], one["code"]) for one in document.json["findings"]] == [("guard", "BAD_ANCHOR")] * 2
        assert document.json["records"] == 5

    def test_verify_without_the_bucket_it_was_told_of_says_so(self, empty: None) -> None:
        answer = typed("audit", "verify", "--anchor-bucket", "nowhere")
        assert answer.code == 254
        assert "NoSuchBucket" in answer.err

    def test_verify_of_no_chain_is_a_usage_error(self, empty: None) -> None:
        assert typed("audit", "verify", "--chain", "nowhere").code == 2

    def test_verify_of_a_chain_that_does_not_exist_says_so(self, remediated: None) -> None:
        answer = typed("audit", "verify", "--chain", HERE.replace("us-east-1", "eu-north-1"))
        assert (answer.code, answer.out) == (1, "")
        assert "there is no chain" in answer.err

    @pytest.mark.parametrize("form", ["jsonl", "csv"])
    def test_export_has_every_record_and_each_chains_head(self, swept_twice: None, form: str) -> None:
        answer = typed("audit", "export", "--format", form)
        assert answer.code == 0
        text = answer.out
        if form == "jsonl":
            kinds = [json.loads(line)["kind"] for line in text.splitlines()]
            assert kinds.count("head") == 3
            report = typed("audit", "verify", "--output", "json").json
            assert kinds.count("record") == report["records"]
        else:
            assert text.startswith("kind,target,seq,")

    @pytest.mark.parametrize("form", ["jsonl", "csv"])
    def test_export_to_a_file_writes_what_it_prints_and_says_the_digest(
        self, remediated: None, tmp_path: Path, form: str
    ) -> None:
        file = tmp_path / "log"
        answer = typed("audit", "export", "--format", form, "--file", str(file))
        assert (answer.code, answer.out) == (0, "")
        assert file.read_text("utf-8") == typed("audit", "export", "--format", form).out
        assert hashlib.sha256(file.read_bytes()).hexdigest() in answer.err
        again = typed("audit", "export", "--file", str(file))
        assert (again.code, "exists, and is not replaced" in again.err) == (2, True)
        assert sorted(tmp_path.iterdir()) == [file]

    def test_export_into_a_folder_that_does_not_exist_is_a_usage_error(self, remediated: None, tmp_path: Path) -> None:
        answer = typed("audit", "export", "--file", str(tmp_path / "none" / "log"))
        assert (answer.code, "cannot write" in answer.err) == (2, True)

    @pytest.mark.parametrize("output", ["log.csv", "./log", "json", "yaml", "wide"])
    def test_export_takes_no_output_and_says_how_a_file_is_written(self, empty: None, output: str) -> None:
        answer = typed("audit", "export", "-o", output)
        assert (answer.code, answer.out) == (2, "")
        assert "--file" in answer.err

    def test_export_of_an_empty_log_is_empty(self, empty: None) -> None:
        assert typed("audit", "export").out == ""


def edit(name: str, seq: int, change: Any) -> None:
    """Somebody with rights to the table edits a record."""
    dynamodb = client("dynamodb")
    key = {"target": {"S": name}, "sk": {"S": f"r#{seq:012d}"}}
    body = dynamodb.get_item(TableName="xray-guard-audit", Key=key)["Item"]["body"]["S"]
    assert change(body) != body
    dynamodb.update_item(
        TableName="xray-guard-audit",
        Key=key,
        UpdateExpression="SET body = :body",
        ExpressionAttributeValues={":body": {"S": change(body)}},
    )


def delete(name: str, seq: int) -> None:
    """Somebody with rights to the table deletes a record."""
    key = {"target": {"S": name}, "sk": {"S": f"r#{seq:012d}"}}
    client("dynamodb").delete_item(TableName="xray-guard-audit", Key=key)


class TestPolicy:
    def test_show_prints_the_document_that_the_guard_enforces(self, remediated: None) -> None:
        text = (PROJECT / "policies" / "policy.json").read_text("utf-8")
        answer = typed("policy", "show")
        assert (answer.code, answer.out.strip()) == (0, text.strip())
        assert guard().policy.digest in answer.err
        assert typed("policy", "show", "--digest", guard().policy.digest[:8].upper(), "--output", "json").json == {
            "digest": guard().policy.digest,
            "since": ANY,
            "document": text,
        }

    @pytest.mark.parametrize("digest", ["0000", "not-a-digest"])
    def test_show_of_a_policy_that_is_not_on_record_says_so(self, remediated: None, digest: str) -> None:
        answer = typed("policy", "show", "--digest", digest)
        assert (answer.code, answer.out) == (1, "")
        assert "no policy with a digest that begins with" in answer.err

    def test_validate_of_the_document_that_ships_is_good(self) -> None:
        answer = typed("policy", "validate", str(PROJECT / "policies" / "policy.json"))
        assert answer.code == 0
        assert guard().policy.digest in answer.out

    def test_validate_names_the_path_the_value_and_what_is_allowed(self, tmp_path: Path) -> None:
        policy = json.loads((PROJECT / "policies" / "policy.json").read_text("utf-8"))
        policy["rules"][0]["mode"] = "enfroce"
        (tmp_path / "p.json").write_text(json.dumps(policy), "utf-8")
        answer = typed("policy", "validate", str(tmp_path / "p.json"))
        assert answer.code == 1
        assert "/rules/0/mode" in answer.out
        assert "enfroce" in answer.out
        assert "enforce" in answer.out
        document = typed("policy", "validate", str(tmp_path / "p.json"), "--output", "json").json
        assert (document["valid"], document["findings"][0]["path"]) == (False, "/rules/0/mode")

    def test_validate_of_no_file_is_a_usage_error(self, tmp_path: Path) -> None:
        assert typed("policy", "validate", str(tmp_path / "none.json")).code == 2

    def test_a_policy_that_is_not_valid_is_never_judged_by(self, tmp_path: Path, empty: None) -> None:
        (tmp_path / "policy.json").write_text("{}", "utf-8")
        answer = typed("check", HERE, "--policy", str(tmp_path))
        assert answer.code == 253
        assert "not a valid policy" in answer.err
        assert typed("check", HERE, "--policy", str(tmp_path / "none.json")).code == 253

    def test_explain_tells_the_rule_why_and_what_it_asks(self, remediated: None) -> None:
        answer = typed("policy", "explain", HERE)
        assert answer.code == 0
        assert "rule baseline: governs" in answer.out
        assert "customer managed key" in answer.out
        assert "enforces this document" in answer.err
        document = typed("policy", "explain", HERE, "--output", "json").json
        assert (document["rule"]["id"], document["same"]) == ("baseline", True)

    def test_explain_says_when_the_guard_enforces_another_document(self, remediated: None, tmp_path: Path) -> None:
        policy = json.loads((PROJECT / "policies" / "policy.json").read_text("utf-8"))
        policy["rules"][0] |= {"id": "europe", "regions": ["eu-*"]}
        (tmp_path / "policy.json").write_text(json.dumps(policy), "utf-8")
        answer = typed("policy", "explain", HERE, "--policy", str(tmp_path))
        assert "does not match: its Regions are eu-*" in answer.out
        assert "ungoverned" in answer.out
        assert "a DIFFERENT document" in answer.err

    def test_explain_needs_no_tables(self) -> None:
        with world(tables=False):
            answer = typed("policy", "explain", HERE)
        assert answer.code == 0
        assert "Cannot read which policy the deployed guard enforces" in answer.err


class TestExplain:
    def explained(self, document: Any, tmp_path: Path, *options: str) -> Any:
        file = tmp_path / "event.json"
        file.write_text(document if isinstance(document, str) else json.dumps(document), "utf-8")
        return typed("explain", str(file), *options)

    def test_of_a_drift_says_that_it_would_be_put_right_and_does_not(self, empty: None, tmp_path: Path) -> None:
        before = state_of_the_world()
        answer = self.explained(event(), tmp_path)
        assert answer.code == 0
        assert "REMEDIATING" in answer.out
        assert "1. CreateKey" in answer.out
        assert state_of_the_world() == before

    def test_of_an_old_event_says_that_what_stands_now_counts(self, remediated: None, tmp_path: Path) -> None:
        document = self.explained(event(), tmp_path, "--output", "json").json
        assert document["outcome"] == "COMPLIANT"
        assert any("already" in sentence for sentence in document["why"])
        assert any("judges the live setting" in sentence for sentence in document["why"])

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("09_error_accessdenied_iamuser_null_request", "AccessDenied"),
            ("27_success_kms_govcloud", None),
        ],
    )
    def test_of_events_that_are_not_acted_on_says_why(
        self, empty: None, tmp_path: Path, name: str, reason: str | None
    ) -> None:
        answer = self.explained(event(name), tmp_path, "--output", "json")
        assert answer.code == 0
        if reason:
            assert (answer.json["outcome"], answer.json["reason"]) == ("IGNORED", reason)

    def test_of_the_guards_own_call_says_that_it_is_an_echo(self, remediated: None, tmp_path: Path) -> None:
        history = typed("history", "--target", HERE, "--output", "json").json
        (put,) = [
            each for record in history["records"] for each in record["actions"] if each["name"] == "PutEncryptionConfig"
        ]
        document = event()
        document["detail"] |= {"requestID": put["request_id"], "eventID": "the guard's"}
        issuer = {"type": "Role", "arn": ROLE, "accountId": ACCOUNT, "userName": "xray-guard"}
        document["detail"]["userIdentity"] = {
            "type": "AssumedRole",
            "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/xray-guard/on_change",
            "sessionContext": {"sessionIssuer": issuer},
        }
        assert self.explained(document, tmp_path, "--output", "json").json["reason"] == "ECHO"
        document["detail"]["requestID"] = "somebody's"
        assert any("ROLE_BORROWED" in why for why in self.explained(document, tmp_path, "--output", "json").json["why"])

    @pytest.mark.parametrize(
        ("managed", "refused", "outcome", "reason"),
        [
            (False, {}, "IGNORED", "NOT_OURS"),
            (True, {"errorCode": "AccessDenied"}, "IGNORED", "NOT_OURS"),
            (True, {}, "COMPLIANT", None),
        ],
    )
    def test_of_a_key_event_says_what_the_guard_does_with_it(
        self, remediated: None, tmp_path: Path, managed: bool, refused: Any, outcome: str, reason: str | None
    ) -> None:
        arn = key_arn() if managed else key_arn()[:-36] + str(uuid.uuid4())
        document = json.dumps(kms_event("DisableKey", {"keyId": arn}, arn, **refused)).replace("111122223333", ACCOUNT)
        answer = self.explained(document, tmp_path, "--output", "json").json
        assert (answer["outcome"], answer["reason"]) == (outcome, reason)

    def test_of_an_event_of_another_account_says_so(self, empty: None, tmp_path: Path) -> None:
        text = json.dumps(event()).replace(ACCOUNT, "999988887777")
        assert self.explained(text, tmp_path, "--output", "json").json["reason"] == "ACCOUNT_NOT_OURS"

    @pytest.mark.parametrize("text", ["[]", "3", "null", "{}", '{"source": "aws.xray"}', '{"source": "aws.kms"}'])
    def test_of_what_names_no_target_says_what_is_missing(self, empty: None, tmp_path: Path, text: str) -> None:
        answer = self.explained(text, tmp_path)
        assert answer.code == 0
        assert "FAILED" in answer.out

    def test_of_what_is_not_json_is_a_usage_error(self, tmp_path: Path) -> None:
        answer = self.explained("{", tmp_path)
        assert answer.code == 2
        assert "is not JSON" in answer.err
        assert typed("explain", str(tmp_path / "none.json")).code == 2

    def test_reads_stdin(self, empty: None) -> None:
        assert typed("explain", "-", stdin=json.dumps(event())).code == 0


class TestForms:
    def test_an_operator_who_assumed_a_role_is_named_by_the_role_and_the_session(self) -> None:
        operator = Operator()
        arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/Admin/jdoe"
        operator.identity = Identity(ACCOUNT, "aws", arn, "AROA:jdoe")
        assert operator.actor == Actor(f"arn:aws:iam::{ACCOUNT}:role/Admin", "AssumedRole", "jdoe")

    def test_options_may_stand_before_or_after_the_verb_and_the_later_one_holds(self, empty: None) -> None:
        assert typed("--output", "json", "history").json["records"] == []
        assert typed("history", "--output", "json").json["records"] == []
        assert typed("--output", "table", "history", "--output", "json").json["records"] == []

    def test_the_tables_are_found_by_the_environment(self, monkeypatch: pytest.MonkeyPatch, remediated: None) -> None:
        monkeypatch.setenv("XRAY_GUARD_AUDIT_TABLE", "elsewhere")
        answer = typed("history")
        assert answer.code == 253
        assert "elsewhere" in answer.err

    def test_a_coloured_table_has_the_same_words_as_a_plain_one(self) -> None:
        rows = [[outcome.value, "[bold]not markup[/bold]"] for outcome in Outcome]

        @click.command()
        def shown() -> None:
            print_rows(fit(Table((Column("outcome"), Column("why")), rows, ""), None), True, colour=True)

        coloured, plain = (CliRunner().invoke(shown, color=wanted).stdout for wanted in (True, False))
        assert "\x1b[1m" in coloured
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
        assert plain.splitlines()[1:] == [f"{outcome.value:<11}  [bold]not markup[/bold]" for outcome in Outcome]

    def test_yaml_has_what_json_has(self, remediated: None) -> None:
        for command in (("history",), ("show", f"{HERE}#1"), ("status",), ("incidents",), ("check", HERE)):
            written = typed(*command, "-o", "json").json
            read = yaml.safe_load(typed(*command, "-o", "yaml").out)
            if command[0] == "status":  # an exposure and a waiting grow with the time
                assert [each["target"] for each in read["targets"]] == [each["target"] for each in written["targets"]]
            else:
                assert read == written
        answer = typed("history", "--limit", "1", "-o", "yaml")
        assert yaml.safe_load(answer.out)["next_token"] is not None
        assert "--next-token" not in answer.err

    def test_wide_has_whole_ids_whatever_the_terminal(self, remediated: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        narrow, wide = typed("history"), typed("history", "-o", "wide")
        key_id = key_arn().rpartition("/")[2]
        assert (key_id in narrow.out, key_id in wide.out) == (False, True)
        assert "To see every column, add -o wide." in narrow.err
        assert "add -o wide" not in wide.err
