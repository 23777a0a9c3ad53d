"""`python -m shipping.regions` deploys the forwarding of events to every enabled Region but the guard's own.

`make deploy` runs it after the guard's own deployment; `make forward` runs only this. A Region that fails is named and
does not stop the others. Running it again continues: a Region that is up to date stays as it is.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from shipping.__main__ import say
from shipping.deploying import Cli, DeployError, cloudformation, find_cli, removal, status_of

AT_ONCE = 4
"""Regions that are deployed at the same time. Each takes about a minute, which is CloudFormation's."""

DENIED_BY_ORGANIZATION = "service control policy"
"""What AWS's message contains if the organization denies the call: such a Region is skipped."""

UNCHANGED = "No updates are to be performed"
"""CloudFormation's message for a stack that is up to date, where it does not end in an empty change set."""


@dataclass(frozen=True)
class Home:
    """Where the guard is deployed, and the enabled Regions of its account."""

    region: str
    account: str
    enabled: tuple[str, ...]

    def others(self, only: Sequence[str]) -> list[str]:
        """Return the Regions to deploy to: all but the guard's own, or those of `only`. Raises DeployError."""
        unknown = sorted({*only} - {*self.enabled})
        if unknown:
            raise DeployError(f"the account has not enabled {', '.join(unknown)}; it has {', '.join(self.enabled)}")
        return [one for one in self.enabled if one != self.region and (not only or one in only)]


def find_home(cli: Cli, stack: str) -> Home:
    """Read where the guard is deployed. Raises DeployError if it is not, or if AWS refuses."""
    query = ("--query", "Stacks[0].StackId", "--output", "text")
    arn = cli.read(cloudformation("describe-stacks", "--stack-name", stack, *query), absent="does not exist")
    if not arn:
        raise DeployError(
            f"there is no stack {stack} in the AWS CLI's Region. Set AWS_REGION to the guard's Region, or deploy the "
            "guard first: make deploy BUCKET=your-bucket"
        )
    _, _, _, region, account, _ = arn.split(":", 5)
    listed = cli.read(("aws", "ec2", "describe-regions", "--query", "Regions[].RegionName", "--output", "text"), "\0")
    return Home(region, account, tuple(sorted(listed.split())))


def plan(folder: Path, stack: str, home: Home, region: str, status: str) -> list[tuple[str, ...]]:
    """Return the commands for one Region, whose stack has this status (empty: none). Raises DeployError."""
    return [
        *(step.command for step in removal(stack, status, region)),
        cloudformation(
            *("deploy", "--region", region, "--stack-name", stack),
            *("--template-file", str(folder / "spoke-region.json"), "--no-fail-on-empty-changeset"),
            *("--parameter-overrides", f"HomeRegion={home.region}"),
        ),
    ]


def deploy_regions(cli: Cli, folder: Path, stack: str, only: Sequence[str] = ()) -> None:
    """Deploy to all Regions, or to those of `only`, and report each. Raises DeployError if one of them failed."""
    home = find_home(cli, stack)
    regions = home.others(only)
    of_region = f"{stack}-region"
    example = plan(folder, of_region, home, "REGION", "")[-1]
    say(f"this command will be run for each of {', '.join(regions) or 'no Region'}:\n\n{shlex.join(example)}\n")

    def deploy(region: str) -> str:
        """Return what was done."""
        try:
            status = cli.read(status_of(of_region, region), absent="does not exist")
            for command in plan(folder, of_region, home, region, status):
                cli.read(command, absent=UNCHANGED)
        except DeployError as error:
            if DENIED_BY_ORGANIZATION not in str(error):
                raise
            return "skipped: the organization denies it"
        return "forwards its events"

    failed = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {pool.submit(deploy, region): region for region in regions}
        for number, done in enumerate(as_completed(running), start=1):
            error = done.exception()
            if error is not None and not isinstance(error, DeployError):
                raise error
            if error is not None:
                failed.append(running[done])
            say(f"{running[done]} ({number} of {len(regions)}): {f'FAILED: {error}' if error else done.result()}")
    if failed:
        again = ",".join(sorted(failed))
        raise DeployError(
            f"{len(failed)} of {len(regions)} Regions failed; the causes are above. The other Regions are done. "
            f"Correct the causes, then run: make forward REGIONS={again}"
        )


def main(arguments: Sequence[str]) -> int:
    """Return 0 if every Region is deployed or denied by the organization, 1 if not, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m shipping.regions", description="Forward the events of other Regions to the guard."
    )
    parser.add_argument("--stage", required=True)
    parser.add_argument("--stack", default="xray-guard", help="the guard's stack")
    parser.add_argument("--regions", default="", help="comma-separated; by default every enabled Region")
    options = parser.parse_args(arguments)
    folder = Path("build") / options.stage / "package"
    try:
        deploy_regions(find_cli(os.environ), folder, options.stack, [one for one in options.regions.split(",") if one])
    except DeployError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
