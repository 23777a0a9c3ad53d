"""`make deploy`: it plans by what is deployed, prints before it acts, and a failed attempt can be repeated."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sandbox.server import Sandbox
from shipping.__main__ import DEMANDED
from shipping.deploying import (
    Cli,
    Deployed,
    DeployError,
    Settings,
    Step,
    deploy_package,
    execute,
    find_cli,
    observe,
    plan,
)
from shipping.rights import demand

SETTINGS = Settings(Path("build/dev/package"), "artifacts")
MADE_HERE = {"AWS::IAM::Role", "AWS::SQS::Queue", "AWS::SNS::Topic"}
"""What of the guard's template the sandbox's CloudFormation can make: it does not know SAM's types."""


def verbs(steps: Sequence[Step]) -> list[str]:
    """The operation and the stack of each step."""
    named = []
    for step in steps:
        stack = step.command[step.command.index("--stack-name") + 1] if "--stack-name" in step.command else ""
        operation = " ".join(step.command[2:4]) if step.command[2] == "wait" else step.command[2]
        named.append(f"{operation} {stack}".strip())
    return named


CREATE_TABLES = [
    "create-change-set xray-guard-tables",
    "wait change-set-create-complete xray-guard-tables",
    "execute-change-set xray-guard-tables",
    "describe-stacks xray-guard-tables",
]


class TestPlan:
    def test_a_first_deployment_creates_the_tables_or_imports_them_and_then_the_guard(self) -> None:
        steps = plan(SETTINGS, Deployed(), "tables-1")
        assert verbs(steps) == ["package", *CREATE_TABLES, "deploy xray-guard"]
        assert "--import-existing-resources" in steps[1].command

    def test_a_later_deployment_updates_both_stacks(self) -> None:
        steps = plan(SETTINGS, Deployed("UPDATE_COMPLETE", "IMPORT_COMPLETE"), "tables-1")
        assert verbs(steps) == ["package", "deploy xray-guard-tables", "deploy xray-guard"]

    def test_tables_leave_the_one_stack_of_a_former_version_before_they_are_imported(self) -> None:
        steps = plan(SETTINGS, Deployed("CREATE_COMPLETE", "", tables_in_guard_stack=True), "tables-1")
        assert verbs(steps) == ["package", "deploy xray-guard", *CREATE_TABLES]

    def test_a_stack_whose_first_create_failed_is_deleted_before_it_is_created_again(self) -> None:
        steps = plan(SETTINGS, Deployed("ROLLBACK_COMPLETE", "ROLLBACK_COMPLETE"), "tables-1")
        removed = [
            f"{step} {stack}"
            for stack in ("xray-guard-tables", "xray-guard")
            for step in ("delete-stack", "wait stack-delete-complete")
        ]
        assert verbs(steps) == ["package", *removed, *CREATE_TABLES, "deploy xray-guard"]

    def test_no_stack_that_ever_worked_is_deleted(self) -> None:
        for status in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE"):
            assert "delete-stack" not in str(plan(SETTINGS, Deployed(status, status), "tables-1"))

    @pytest.mark.parametrize(
        ("status", "remedy"),
        [
            ("UPDATE_IN_PROGRESS", "Wait until the operation has ended"),
            ("ROLLBACK_FAILED", "describe-stack-events --stack-name xray-guard"),
            ("UPDATE_ROLLBACK_FAILED", "docs/deploy.md"),
        ],
    )
    def test_a_stack_that_a_person_must_see_to_is_named_with_the_remedy(self, status: str, remedy: str) -> None:
        with pytest.raises(DeployError, match=f"the stack xray-guard is {status}.*{remedy}"):
            plan(SETTINGS, Deployed(status, "CREATE_COMPLETE"), "tables-1")

    def test_a_parameter_that_is_not_given_keeps_its_value(self) -> None:
        without = plan(SETTINGS, Deployed(), "tables-1")[-1].command
        assert "--parameter-overrides" not in without
        given = Settings(SETTINGS.folder, "b", alarm_email="a@example.com", rights="observe")
        assert plan(given, Deployed(), "tables-1")[-1].command[-3:] == (
            "--parameter-overrides",
            "AlarmEmail=a@example.com",
            "Rights=observe",
        )

    def test_p16_those_who_may_write_the_tables_are_named_to_the_stack_of_the_tables(self) -> None:
        named = Settings(SETTINGS.folder, "b", pipeline_role="arn:p", operator_roles="arn:a,arn:b")
        create = plan(named, Deployed(), "tables-1")[1].command
        assert json.loads(create[create.index("--parameters") + 1]) == [
            {"ParameterKey": "PipelineRole", "ParameterValue": "arn:p"},
            {"ParameterKey": "OperatorRoles", "ParameterValue": "arn:a,arn:b"},
        ]
        update = plan(named, Deployed("UPDATE_COMPLETE", "CREATE_COMPLETE"), "tables-1")[1].command
        assert update[-3:] == ("--parameter-overrides", "PipelineRole=arn:p", "OperatorRoles=arn:a,arn:b")
        assert "--parameters" not in plan(SETTINGS, Deployed(), "tables-1")[1].command


def make_deploy(environment: dict[str, str], *arguments: str, project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "deploy", *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def test_a_missing_bucket_is_said_at_once_with_what_to_type(project: Path) -> None:
    done = make_deploy(dict(os.environ), project=project)
    assert done.returncode != 0
    assert "no bucket is named" in done.stderr
    assert "make deploy BUCKET=your-bucket" in done.stderr


@pytest.mark.parametrize("stage", ["dev", "prod"])
def test_p16_cloudformation_demands_an_anchor_bucket_in_prod(stage: str, project: Path, tmp_path: Path) -> None:
    template = tmp_path / "extras.json"
    template.write_bytes((project / ".chalice" / "extras.json").read_bytes())
    demand(template, DEMANDED.get(stage, ()))
    parameters = json.loads(template.read_text("utf-8"))["Parameters"]
    assert ("Default" in parameters["AnchorBucket"]) is (stage == "dev")
    assert all("Default" in parameter for name, parameter in parameters.items() if name != "AnchorBucket")


def test_p16_a_deployment_to_prod_without_an_anchor_bucket_stops_and_says_what_to_type(project: Path) -> None:
    done = make_deploy(dict(os.environ), "STAGE=prod", "BUCKET=artifacts", project=project)
    assert done.returncode != 0
    assert "ANCHOR_BUCKET=your-bucket" in done.stderr
    assert "ANCHOR_BUCKET=none" in done.stderr
    assert "staging" not in done.stderr


def test_a_missing_aws_cli_is_said_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"AWS CLI is missing.*https://docs\.aws\.amazon\.com/cli/"):
        find_cli({"PATH": str(tmp_path)})


@dataclass
class Shown:
    """The real AWS CLI, pointed at the sandbox, and the folder with a package that it can deploy."""

    cloud: Sandbox
    cli: Cli
    settings: Settings
    slept: list[float] = field(default_factory=list)

    def deploy(self) -> list[Step]:
        """What `make deploy` does once the package is made."""
        return deploy_package(self.cli, self.settings, f"tables-{len(self.cloud.calls)}", self.slept.append)

    def statuses(self) -> dict[str, str]:
        """The status of every stack."""
        stacks = self.cloud.client("cloudformation").describe_stacks()["Stacks"]
        return {stack["StackName"]: stack["StackStatus"] for stack in stacks}


@pytest.fixture
def shown(sandbox: Sandbox, package: Path, tmp_path: Path) -> Shown:
    """Nothing deployed yet. The tables' template is the one that ships; the guard's is what the sandbox can make."""
    template = json.loads((package / "sam.json").read_text("utf-8"))
    resources = {name: one for name, one in template["Resources"].items() if one["Type"] in MADE_HERE}
    for resource in resources.values():
        resource["Properties"].pop("KmsMasterKeyId", None)
    del template["Transform"], template["Outputs"]
    (tmp_path / "sam.json").write_text(json.dumps({**template, "Resources": resources}))
    (tmp_path / "tables.json").write_bytes((package / "tables.json").read_bytes())
    sandbox.client("s3").create_bucket(Bucket="artifacts")
    # moto takes a template's URL for a bucket of its own only where the host is called localhost.
    endpoint = {"AWS_ENDPOINT_URL": sandbox.url.replace("127.0.0.1", "localhost")}
    here = {"PATH": str(Path(sys.executable).parent), "HOME": str(tmp_path)}
    cli = find_cli({**sandbox.environment(), **endpoint, **here})
    return Shown(sandbox, cli, Settings(tmp_path, "artifacts"))


def test_the_aws_cli_deploys_both_stacks_and_a_second_time_changes_nothing(shown: Shown) -> None:
    assert verbs(shown.deploy())[1:5] == CREATE_TABLES
    assert shown.statuses() == {"xray-guard-tables": "CREATE_COMPLETE", "xray-guard": "CREATE_COMPLETE"}
    assert shown.cloud.client("dynamodb").list_tables()["TableNames"] == ["xray-guard-audit", "xray-guard-targets"]
    assert verbs(shown.deploy()) == ["package", "deploy xray-guard-tables", "deploy xray-guard"]


def test_a_failed_first_create_of_the_guard_leaves_the_tables_and_the_retry_succeeds(shown: Shown) -> None:
    iam, dynamodb = shown.cloud.client("iam"), shown.cloud.client("dynamodb")
    iam.create_role(RoleName="xray-guard", AssumeRolePolicyDocument="{}")
    with pytest.raises(DeployError, match=r"deploy --template-file .* failed"):
        shown.deploy()
    record = {"target": {"S": "guard"}, "sk": {"S": "r#1"}}
    dynamodb.put_item(TableName="xray-guard-audit", Item=record)

    iam.delete_role(RoleName="xray-guard")
    shown.cloud.client("cloudformation").delete_stack(StackName="xray-guard")  # moto does not roll back by itself
    shown.deploy()

    # moto takes a parameter that keeps its default for a change.
    assert shown.statuses() == {"xray-guard-tables": "UPDATE_COMPLETE", "xray-guard": "CREATE_COMPLETE"}
    assert dynamodb.get_item(TableName="xray-guard-audit", Key=record)["Item"] == record


def test_tables_in_the_one_stack_of_a_former_version_are_recognized(shown: Shown) -> None:
    tables = json.loads((shown.settings.folder / "tables.json").read_text("utf-8"))
    shown.cloud.client("cloudformation").create_stack(StackName="xray-guard", TemplateBody=json.dumps(tables))
    assert observe(shown.cli, shown.settings) == Deployed("CREATE_COMPLETE", "", tables_in_guard_stack=True)


def test_a_bucket_that_cannot_be_used_is_named(shown: Shown) -> None:
    with pytest.raises(DeployError, match="the bucket nowhere cannot be used"):
        observe(shown.cli, Settings(shown.settings.folder, "nowhere"))
    assert shown.statuses() == {}


def test_an_operation_that_ends_badly_stops_the_deployment(shown: Shown) -> None:
    status = Step("wait", ("aws", "sts", "get-caller-identity", "--query", "Account", "--output", "text"), True)
    never = Step("never", ("aws", "s3api", "create-bucket", "--bucket", "never"))
    with pytest.raises(DeployError, match=f"status is {shown.cloud.account}.*No table was deleted"):
        execute(shown.cli, [status, never], shown.slept.append)
    assert shown.slept == []
    assert [one["Name"] for one in shown.cloud.client("s3").list_buckets()["Buckets"]] == ["artifacts"]


def test_every_command_is_printed_before_the_first_is_run(shown: Shown, capfd: pytest.CaptureFixture[str]) -> None:
    steps = shown.deploy()
    announced, _, _ = capfd.readouterr().err.partition("shipping: aws ")
    for step in steps:
        assert f"# {step.why}\n{shlex.join(step.command)}" in announced
