"""`make forward`: every enabled Region, in any order; what fails is named, and running it again continues."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sandbox.server import Sandbox
from shipping.deploying import Cli, DeployError, find_cli
from shipping.regions import Home, deploy_regions, find_home, plan

HOME = Home("us-east-1", "111122223333", ("eu-west-1", "us-east-1", "us-west-2"))
FOLDER = Path("build/dev/package")
STACK = "xray-guard-region"


class TestPlan:
    def test_every_region_but_the_guards_own(self) -> None:
        assert HOME.others([]) == ["eu-west-1", "us-west-2"]
        assert HOME.others(["us-west-2"]) == ["us-west-2"]
        assert HOME.others(["us-east-1"]) == []

    def test_a_region_that_is_not_enabled_is_named(self) -> None:
        with pytest.raises(DeployError, match=r"not enabled me-south-1; it has eu-west-1, us-east-1, us-west-2"):
            HOME.others(["me-south-1", "us-west-2"])

    def test_the_stack_is_created_or_updated_with_the_guards_region(self) -> None:
        for status in ("", "CREATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"):
            (command,) = plan(FOLDER, STACK, HOME, "eu-west-1", status)
            assert command[:3] == ("aws", "cloudformation", "deploy")
            assert command[command.index("--region") + 1] == "eu-west-1"
            assert command[-2:] == ("--parameter-overrides", "HomeRegion=us-east-1")
            assert "--no-fail-on-empty-changeset" in command
            assert "--capabilities" not in command  # it makes no role

    def test_a_stack_whose_first_create_failed_is_deleted_first_in_its_region(self) -> None:
        delete, wait, _ = plan(FOLDER, STACK, HOME, "eu-west-1", "ROLLBACK_COMPLETE")
        assert delete == ("aws", "cloudformation", "delete-stack", "--region", "eu-west-1", "--stack-name", STACK)
        assert wait[2:4] == ("wait", "stack-delete-complete")
        assert wait[wait.index("--region") + 1] == "eu-west-1"

    def test_a_stack_that_a_person_must_see_to_is_named_with_its_region(self) -> None:
        with pytest.raises(DeployError, match=r"ROLLBACK_FAILED.*--region eu-west-1 --stack-name xray-guard-region"):
            plan(FOLDER, STACK, HOME, "eu-west-1", "ROLLBACK_FAILED")


@pytest.fixture
def account(sandbox: Sandbox) -> Sandbox:
    """An account with three enabled Regions and the guard's stack in one of them."""
    sandbox.turn(regions=["us-east-1", "eu-west-1", "us-west-2"])
    only = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    sandbox.client("cloudformation").create_stack(StackName="xray-guard", TemplateBody=json.dumps(only))
    return sandbox


@pytest.fixture
def cli(account: Sandbox, tmp_path: Path) -> Cli:
    """The real AWS CLI, pointed at the sandbox."""
    here = {"PATH": str(Path(sys.executable).parent), "HOME": str(tmp_path)}
    return find_cli({**account.environment(), **here})


def statuses(account: Sandbox) -> dict[str, list[str]]:
    """The status of the Regions' stacks."""
    return {
        region: [
            one["StackStatus"]
            for one in account.client("cloudformation", region).describe_stacks()["Stacks"]
            if one["StackName"] == STACK
        ]
        for region in ("eu-west-1", "us-east-1", "us-west-2")
    }


def test_the_aws_cli_deploys_every_other_region_and_a_second_time_changes_nothing(
    account: Sandbox, cli: Cli, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy_regions(cli, package, "xray-guard")
    created = {"eu-west-1": ["CREATE_COMPLETE"], "us-east-1": [], "us-west-2": ["CREATE_COMPLETE"]}
    assert statuses(account) == created
    events = account.client("events", "eu-west-1")
    (target,) = events.list_targets_by_rule(Rule="xray-guard-forward")["Targets"]
    assert target["Arn"] == f"arn:aws:events:us-east-1:{account.account}:event-bus/xray-guard"
    assert target["RoleArn"] == f"arn:aws:iam::{account.account}:role/xray-guard-forward"
    progress = capsys.readouterr().err
    assert "--stack-name xray-guard-region" in progress
    for number in (1, 2):
        assert f"({number} of 2): forwards its events" in progress

    before = events.describe_rule(Name="xray-guard-forward")
    deploy_regions(cli, package, "xray-guard")
    assert {region: len(found) for region, found in statuses(account).items()} == {
        region: len(found) for region, found in created.items()
    }
    after = events.describe_rule(Name="xray-guard-forward")
    assert {**after, "ResponseMetadata": None} == {**before, "ResponseMetadata": None}
    assert events.list_targets_by_rule(Rule="xray-guard-forward")["Targets"] == [target]


def test_a_region_that_fails_is_named_the_rest_go_on_and_the_next_run_continues(
    account: Sandbox, cli: Cli, package: Path
) -> None:
    account.fail("cloudformation", "CreateChangeSet", "LimitExceededException", message="too many stacks")
    with pytest.raises(DeployError, match=r"1 of 2 Regions failed.*make forward REGIONS=(eu-west-1|us-west-2)$"):
        deploy_regions(cli, package, "xray-guard")
    assert sorted(map(len, statuses(account).values())) == [0, 0, 1]
    deploy_regions(cli, package, "xray-guard")
    assert sorted(map(len, statuses(account).values())) == [0, 1, 1]


def test_a_region_that_the_organization_denies_is_named_and_skipped(
    account: Sandbox, cli: Cli, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find_home(cli, "xray-guard")
    message = "is not authorized to perform this with an explicit deny in a service control policy"
    account.fail("cloudformation", "CreateChangeSet", "AccessDenied", message=message)
    deploy_regions(cli, package, "xray-guard")
    assert "skipped: the organization denies it" in capsys.readouterr().err
    assert sorted(map(len, statuses(account).values())) == [0, 0, 1]


def test_without_the_guard_nothing_is_deployed_and_the_message_says_what_to_do(
    account: Sandbox, cli: Cli, package: Path
) -> None:
    account.client("cloudformation").delete_stack(StackName="xray-guard")
    with pytest.raises(DeployError, match=r"no stack xray-guard in the AWS CLI's Region.*make deploy BUCKET="):
        deploy_regions(cli, package, "xray-guard")
    assert sorted(map(len, statuses(account).values())) == [0, 0, 0]
