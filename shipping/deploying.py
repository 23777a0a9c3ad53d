"""`python -m shipping.deploying` packages the guard and deploys it with the AWS CLI; `make deploy` runs it.

It first reads what is deployed, then plans, prints every command of the plan, and only then runs them. There are two
stacks: the tables' and the guard's. Why, and why a change set creates the tables' stack: docs/adr/0008.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shipping.__main__ import DEMANDED, PROJECT, PackagingError, package, say

POLL_SECONDS = 5
LONGEST_CREATE_SECONDS = 900
"""Two tables are created in under a minute. If an operation takes longer than this, a person must check it."""

UPDATABLE = frozenset({"CREATE_COMPLETE", "IMPORT_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"})
SUCCEEDED = frozenset({"CREATE_COMPLETE", "IMPORT_COMPLETE", "UPDATE_COMPLETE"})
ABSENT = frozenset({"", "REVIEW_IN_PROGRESS"})
"""No stack, or one whose first change set was never executed."""


AUDIT = "AuditTable"
"""The logical id of the audit table, in the tables' stack and in the single stack of former versions."""


class DeployError(Exception):
    """The guard could not be deployed; the message says what happened and what to do."""


@dataclass(frozen=True)
class Settings:
    """What to deploy, and where. `folder` has the package; an empty string leaves a parameter unchanged."""

    folder: Path
    bucket: str
    stack: str = "xray-guard"
    alarm_email: str = ""
    anchor_bucket: str = ""
    rights: str = ""
    pipeline_role: str = ""
    operator_roles: str = ""

    @property
    def tables_stack(self) -> str:
        """The name of the tables' stack."""
        return f"{self.stack}-tables"

    @property
    def guard_parameters(self) -> dict[str, str]:
        """The parameters of the guard's stack that are given."""
        given = {"AlarmEmail": self.alarm_email, "AnchorBucket": self.anchor_bucket, "Rights": self.rights}
        return {name: value for name, value in given.items() if value}

    @property
    def tables_parameters(self) -> dict[str, str]:
        """The parameters of the tables' stack that are given."""
        given = {"PipelineRole": self.pipeline_role, "OperatorRoles": self.operator_roles}
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True)
class Deployed:
    """What CloudFormation reports: the status of each stack, empty if it does not exist.

    `tables_in_guard_stack`: the guard's stack is of a former version with a single stack, and still has the tables.
    """

    guard: str = ""
    tables: str = ""
    tables_in_guard_stack: bool = False


@dataclass(frozen=True)
class Step:
    """One command. With `until_settled` it prints a stack's status, and is repeated until the operation has ended."""

    why: str
    command: tuple[str, ...]
    until_settled: bool = False

    def __str__(self) -> str:
        repeated = "  # until the status is final" if self.until_settled else ""
        return f"# {self.why}\n{shlex.join(self.command)}{repeated}"


def plan(settings: Settings, deployed: Deployed, change_set: str) -> list[Step]:
    """Return the commands that deploy the package, in order. Raises DeployError for a stack that a person must fix."""
    template = str(settings.folder / "deploy.json")
    upload = Step(
        "upload the zip, and write the template that names it",
        cloudformation(
            *("package", "--template-file", str(settings.folder / "sam.json"), "--s3-bucket", settings.bucket),
            *("--use-json", "--output-template-file", template),
        ),
    )
    guard = Step(
        "create or update the guard",
        cloudformation(
            *("deploy", "--template-file", template, "--stack-name", settings.stack),
            *("--s3-bucket", settings.bucket, "--no-fail-on-empty-changeset"),
            *("--capabilities", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"),
            *_overrides(settings.guard_parameters),
        ),
    )
    tables = _tables(settings, deployed, change_set)
    removals = [
        *removal(settings.tables_stack, deployed.tables),
        *removal(settings.stack, deployed.guard),
    ]
    # A table can be imported only after it has left its former stack. A new guard needs its tables from the start.
    ordered = [guard, *tables] if deployed.tables_in_guard_stack else [*tables, guard]
    return [upload, *removals, *ordered]


def removal(stack: str, status: str, region: str = "") -> list[Step]:
    """Return the steps that delete a stack whose first create failed: CloudFormation cannot update or recreate it.

    Without `region`, the stack is in the AWS CLI's Region. Raises DeployError for a stack that a person must fix.
    """
    named = _named(stack, region)
    if status in ABSENT | UPDATABLE:
        return []
    if status == "ROLLBACK_COMPLETE":
        return [
            Step(
                f"delete the stack {stack}, whose first create failed; tables stay",
                cloudformation("delete-stack", *named),
            ),
            Step("wait until it is deleted", cloudformation("wait", "stack-delete-complete", *named)),
        ]
    events = shlex.join(cloudformation("describe-stack-events", *named))
    remedy = (
        "Wait until the operation has ended, then run this again"
        if status.endswith("_IN_PROGRESS")
        else f"See why (`{events}`) and docs/deploy.md, section 'When a deployment fails'"
    )
    raise DeployError(f"the stack {stack} is {status} and can be neither created nor updated. {remedy}.")


def _tables(settings: Settings, deployed: Deployed, change_set: str) -> list[Step]:
    stack = ("--stack-name", settings.tables_stack)
    template = settings.folder / "tables.json"
    if deployed.tables in UPDATABLE:
        update = cloudformation("deploy", "--template-file", str(template), *stack, "--no-fail-on-empty-changeset")
        return [Step("update the tables", (*update, *_overrides(settings.tables_parameters)))]
    named = (*stack, "--change-set-name", change_set)
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in settings.tables_parameters.items()]
    return [
        Step(
            "create the tables, or import those that exist",
            cloudformation(
                *("create-change-set", *named, "--change-set-type", "CREATE", "--import-existing-resources"),
                *("--template-body", f"file://{template}"),
                *(("--parameters", json.dumps(given)) if given else ()),
            ),
        ),
        Step("wait for the change set", cloudformation("wait", "change-set-create-complete", *named)),
        Step("execute it", cloudformation("execute-change-set", *named)),
        Step("wait for the tables", status_of(settings.tables_stack), until_settled=True),
    ]


def _overrides(parameters: Mapping[str, str]) -> tuple[str, ...]:
    """The options of `aws cloudformation deploy` for these parameters; each other one keeps its value."""
    return ("--parameter-overrides", *(f"{name}={value}" for name, value in parameters.items())) if parameters else ()


def cloudformation(*arguments: str) -> tuple[str, ...]:
    """Return a command of the AWS CLI for CloudFormation."""
    return ("aws", "cloudformation", *arguments)


def _named(stack: str, region: str) -> tuple[str, ...]:
    return (*(("--region", region) if region else ()), "--stack-name", stack)


def status_of(stack: str, region: str = "") -> tuple[str, ...]:
    """Return the command that prints a stack's status."""
    query = ("--query", "Stacks[0].StackStatus", "--output", "text")
    return cloudformation("describe-stacks", *_named(stack, region), *query)


def _table_status(stack: str) -> tuple[str, ...]:
    query = ("--query", "StackResourceDetail.ResourceStatus", "--output", "text")
    return cloudformation("describe-stack-resource", "--stack-name", stack, "--logical-resource-id", AUDIT, *query)


@dataclass(frozen=True)
class Cli:
    """The AWS CLI at `path`, run in the project's folder with `environment`."""

    path: str
    environment: Mapping[str, str]

    def read(self, command: Sequence[str], absent: str) -> str:
        """Return what a command printed; empty if it failed with a message that contains `absent`.

        Raises DeployError for any other failure.
        """
        done = self._run(command, capture=True)
        if done.returncode == 0:
            return done.stdout.strip()
        if absent in done.stderr:
            return ""
        raise DeployError(f"`{shlex.join(command)}` failed: {done.stderr.strip()}")

    def do(self, command: Sequence[str]) -> None:
        """Run a command with its output shown. Raises DeployError if it fails."""
        if self._run(command, capture=False).returncode:
            raise DeployError(
                f"`{shlex.join(command)}` failed; its message is above. The steps after it were not run. Nothing that "
                "holds data was removed. Correct the cause and run this again; see docs/deploy.md, section 'When a "
                "deployment fails'."
            )

    def _run(self, command: Sequence[str], *, capture: bool) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.path, *command[1:]],
            cwd=PROJECT,
            env={**self.environment, "AWS_PAGER": ""},
            capture_output=capture,
            text=True,
            check=False,
        )


def find_cli(environment: Mapping[str, str]) -> Cli:
    """Find the AWS CLI on the path. Raises DeployError if there is none."""
    path = shutil.which("aws", path=environment.get("PATH", ""))
    if path is None:
        raise DeployError(
            "the AWS CLI is missing: there is no `aws` on the PATH. Install it "
            "(https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html), or use the one that the "
            'tests use: PATH="$PWD/.venv/bin:$PATH" make deploy …'
        )
    return Cli(path, environment)


def observe(cli: Cli, settings: Settings) -> Deployed:
    """Read what is deployed. Raises DeployError if CloudFormation refuses, or if the bucket cannot be used."""
    head = ("aws", "s3api", "head-bucket", "--bucket", settings.bucket)
    try:
        cli.read(head, absent="\0")
    except DeployError as error:
        raise DeployError(
            f"the bucket {settings.bucket} cannot be used. It must exist, in the Region that the guard is deployed to, "
            f"and your credentials must reach it. {error}"
        ) from error
    guard, tables = (
        cli.read(status_of(stack), absent="does not exist") for stack in (settings.stack, settings.tables_stack)
    )
    held = "" if guard in ABSENT else cli.read(_table_status(settings.stack), absent="does not exist")
    return Deployed(guard, tables, held != "" and not held.startswith("DELETE"))


def execute(cli: Cli, steps: Sequence[Step], sleep: Callable[[float], None]) -> None:
    """Run the steps. Raises DeployError at the first one that fails."""
    for step in steps:
        say(shlex.join(step.command))
        if step.until_settled:
            _settle(cli, step, sleep)
        else:
            cli.do(step.command)


def _settle(cli: Cli, step: Step, sleep: Callable[[float], None]) -> None:
    """Repeat a step that prints a status until the operation has ended. Raises DeployError unless it succeeded."""
    for _ in range(LONGEST_CREATE_SECONDS // POLL_SECONDS):
        status = cli.read(step.command, absent="\0")
        if not status.endswith("_IN_PROGRESS"):
            break
        sleep(POLL_SECONDS)
    if status not in SUCCEEDED:
        raise DeployError(
            f"the stack's status is {status} (`{shlex.join(step.command)}`); the steps after it were not run. No table "
            "was deleted. See docs/deploy.md, section 'When a deployment fails'."
        )


def deploy(stage: str, settings: Settings, environment: Mapping[str, str]) -> None:
    """Package and deploy. Raises DeployError or PackagingError."""
    if not settings.bucket:
        raise DeployError(
            "no bucket is named. CloudFormation reads the zip and the template from a bucket in the guard's Region: "
            "make deploy BUCKET=your-bucket"
        )
    if "AnchorBucket" in DEMANDED.get(stage, ()) and not settings.anchor_bucket:
        raise DeployError(
            f"no anchor bucket is named, and stage {stage} needs one: anyone who can rewrite both tables can rewrite "
            "the audit log, unless its anchors are in a bucket with Object Lock (docs/deploy.md says how). "
            "Name it: make deploy ANCHOR_BUCKET=your-bucket. To do without it: make deploy ANCHOR_BUCKET=none"
        )
    cli = find_cli(environment)
    package(stage)
    deploy_package(cli, settings, f"tables-{int(time.time())}")


def deploy_package(
    cli: Cli, settings: Settings, change_set: str, sleep: Callable[[float], None] = time.sleep
) -> list[Step]:
    """Read what is deployed, plan, print the plan, execute it, and return it. Raises DeployError."""
    steps = plan(settings, observe(cli, settings), change_set)
    say("these commands will be run:\n\n" + "\n".join(map(str, steps)) + "\n")
    execute(cli, steps, sleep)
    say(f"deployed: stacks {settings.tables_stack} and {settings.stack}")
    return steps


def main(arguments: Sequence[str]) -> int:
    """Return 0 if everything is deployed, 1 if not, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m shipping.deploying", description="Package and deploy the guard.")
    parser.add_argument("--stage", required=True)
    parser.add_argument("--bucket", default="", help="bucket in the guard's Region, for the zip and the template")
    parser.add_argument("--stack", default="xray-guard")
    parser.add_argument("--alarm-email", default="")
    parser.add_argument("--anchor-bucket", default="")
    parser.add_argument("--rights", default="", help="enforce, or observe: a role that only reads")
    parser.add_argument("--pipeline-role", default="", help="ARN of the role that deploys, for the tables' policies")
    parser.add_argument("--operator-roles", default="", help="ARNs of the operators' roles, separated by commas")
    options = parser.parse_args(arguments)
    folder = Path("build") / options.stage / "package"
    settings = Settings(
        folder,
        options.bucket,
        options.stack,
        options.alarm_email,
        options.anchor_bucket,
        options.rights,
        options.pipeline_role,
        options.operator_roles,
    )
    try:
        deploy(options.stage, settings, os.environ)
    except (DeployError, PackagingError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
