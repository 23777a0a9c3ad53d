"""Every AWS CLI command that the documentation shows is one that the AWS CLI takes."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from shipping.deploying import Deployed, Settings, plan
from tests.package.aws_cli import Aws, run

PROJECT = Path(__file__).resolve().parents[2]
PAGES = sorted([PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md")])
LARGEST_BODY = 51_200
LARGEST_TEMPLATE = 1_048_576
"""Bytes of a template in the request, and in S3: CloudFormation guide, "Quotas"."""


def commands(text: str) -> list[str]:
    """The AWS CLI commands of a page: in blocks, with continued lines, and in running text if they have options."""
    joined = re.sub(r"\\\n\s*", "", text)
    blocks = re.findall(r"^```\w*\n(.*?)^```$", re.sub(r"^ {3}", "", joined, flags=re.MULTILINE), re.M | re.DOTALL)
    shown = [line for block in blocks for line in block.splitlines()]
    outside = re.sub(r"```.*?```", "", joined, flags=re.DOTALL)
    shown += re.findall(r"`(aws [a-z0-9-]+ [^`]+ --[^`]+)`", outside)
    # What a pipe leads to is the shell's.
    return [line.partition(" | ")[0].strip() for line in shown if line.strip().startswith("aws ")]


DOCUMENTED = sorted({(page.name, command) for page in PAGES for command in commands(page.read_text("utf-8"))})


@pytest.fixture(scope="module")
def folder(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the project's with the package in it, where commands may write."""
    here = tmp_path_factory.mktemp("project")
    shutil.copytree(package, here / "build" / "dev" / "package")
    shutil.copytree(PROJECT / "policies", here / "policies")
    packaged = run(shlex.split(next(c for _, c in DOCUMENTED if "cloudformation package" in c))[1:], here, Aws())
    assert packaged.code == 0, packaged.errors
    return here


def test_commands_are_found_in_blocks_in_lists_and_in_running_text() -> None:
    block = "```\naws kms a \\\n    --b  # c\nmake x\n```\n"
    text = f"`aws s3 ls --d NAME`\n{block}   ```\n   aws xray e --f\n   ```\nan `aws` word, `aws kms g`\n"
    assert commands("```\naws a --b | grep c\n```\n") == ["aws a --b"]
    assert commands(text) == ["aws kms a --b  # c", "aws xray e --f", "aws s3 ls --d NAME"]
    assert len(DOCUMENTED) >= 30
    assert {page for page, _ in DOCUMENTED} >= {"README.md", "deploy.md", "break-glass.md"}


@pytest.mark.parametrize(("page", "command"), DOCUMENTED, ids=[f"{page}: {command}" for page, command in DOCUMENTED])
def test_the_aws_cli_takes_each_documented_command(page: str, command: str, folder: Path) -> None:
    aws = Aws()
    outcome = run(shlex.split(command, comments=True)[1:], folder, aws)
    assert outcome.code == 0 or "does not exist" in outcome.errors, f"{page}: {outcome.errors}"
    assert aws.requests, f"{page}: {command} sent nothing"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("xray put-encryption-config --type NONE --kms-key alias/x", "Unknown options: --kms-key"),
        ("xray set-encryption-config --type NONE", "Invalid choice"),
        ("xray put-encryption-config", "the following arguments are required: --type"),
        ("kms tag-resource --key-id KEY --tags Key=a,Value=b", "Unknown parameter in Tags[0]"),
        ("organizations create-policy --content file://gone.json --type X --name n --description d", "gone.json"),
        ("cloudformation deploy --template-file build/dev/package/deploy.json --stack-name xray-guard", "51,200"),
    ],
    ids=["option", "operation", "missing option", "parameter", "missing file", "template too large"],
)
def test_a_command_that_the_cli_refuses_is_noticed(command: str, message: str, folder: Path) -> None:
    aws = Aws()
    outcome = run(shlex.split(command), folder, aws)
    assert outcome.code != 0
    assert message in outcome.errors
    assert aws.requests == []


PLANS = {
    "nothing deployed": Deployed(),
    "all deployed": Deployed("UPDATE_COMPLETE", "CREATE_COMPLETE"),
    "one stack": Deployed("UPDATE_COMPLETE", "", tables_in_guard_stack=True),
    "first creates failed": Deployed("ROLLBACK_COMPLETE", "ROLLBACK_COMPLETE"),
}


@pytest.mark.parametrize("deployed", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"alarm_email": "a@example.com", "anchor_bucket": "anchors", "rights": "observe"},
        {"pipeline_role": "arn:aws:iam::111122223333:role/Pipeline", "operator_roles": "arn:a,arn:b"},
    ],
)
def test_the_aws_cli_takes_each_command_of_a_deployment(
    deployed: Deployed, parameters: dict[str, Any], folder: Path
) -> None:
    settings = Settings(Path("build/dev/package"), "bucket", **parameters)
    for step in plan(settings, deployed, "tables-1"):
        aws = Aws()
        outcome = run(step.command[1:], folder, aws)
        assert outcome.code == 0 or "does not exist" in outcome.errors, f"{step}: {outcome.errors}"
        assert aws.requests, str(step)
        for operation, body in aws.requests:
            if operation == "CreateChangeSet":
                assert len(body.get("TemplateBody", "")) <= LARGEST_BODY


def test_cloudformation_takes_the_templates_at_their_size(folder: Path, expanded: dict[str, Any]) -> None:
    package = folder / "build" / "dev" / "package"
    assert (package / "tables.json").stat().st_size <= LARGEST_BODY
    assert LARGEST_BODY < (package / "deploy.json").stat().st_size <= LARGEST_TEMPLATE
    assert len(str(expanded)) <= LARGEST_TEMPLATE
