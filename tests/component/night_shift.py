"""Play docs/night-shift.md on the sandbox: `python -m tests.component.night_shift` prints how long each step took.

The commands are those of the page. Played are the pipeline that turns encryption off, and what the page leaves to a
person: the credentials of a break-glass principal.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sandbox.server import Sandbox
from tests.component.guarded import PROJECT, guarded

PAGE = PROJECT / "docs" / "night-shift.md"
INCIDENT = "us-east-1#9"
"""The incident's id on the page."""
PIPELINE = "ci-deploy"
BREAK_GLASS = "SecurityBreakGlass"


@dataclass(frozen=True)
class Step:
    """A section of the page: its title and its one command."""

    title: str
    command: str


@dataclass(frozen=True)
class Played:
    """What a step's command printed, on stdout and stderr together, and how long it took."""

    step: Step
    code: int
    shown: str
    seconds: float


def steps(text: str) -> list[Step]:
    """The steps of the page. Raises ValueError if a section has not exactly one command."""
    found = []
    for section in re.split(r"^## (?=[0-9])", text, flags=re.MULTILINE)[1:]:
        commands = [
            line for block in re.findall(r"^```\n(.*?)^```$", section, re.M | re.S) for line in block.split("\n")
        ]
        (command,) = [line for line in commands if line]
        found.append(Step(section.partition("\n")[0], command))
    return found


class NightShift:
    """The sandbox with a pipeline that has just turned encryption off once too often, and the operator's shell."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self.incident = INCIDENT
        self._role = f"arn:aws:iam::{sandbox.account}:role/"

    def pipeline_turns_encryption_off(self) -> None:
        """The call, and the guard's reaction."""
        self.sandbox.client("xray", role=self._role + PIPELINE, session="build").put_encryption_config(Type="NONE")
        assert self.sandbox.idle(60)

    def encryption(self) -> str:
        """X-Ray's setting: NONE or KMS."""
        return str(self.sandbox.client("xray").get_encryption_config()["EncryptionConfig"]["Type"])

    def type(self, step: Step) -> Played:
        """Run the step's command as the operator, in a process of its own."""
        surroundings = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "XRAY_GUARD"))
        }
        surroundings |= self.sandbox.environment() | {"COLUMNS": "160"}
        words = step.command.replace(INCIDENT, self.incident)
        if " --profile break-glass" in words:
            words = words.replace(" --profile break-glass", "")
            given = self.sandbox.credentials(self._role + BREAK_GLASS, "oncall")
            surroundings |= {name.upper(): value for name, value in given.items()}
        surroundings["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        began = time.monotonic()
        done = subprocess.run(
            words,
            shell=True,
            cwd=self.folder,
            env=surroundings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - began
        assert self.sandbox.idle(60)
        return Played(step, done.returncode, done.stdout, seconds)


def play(folder: Path, check: Callable[[int, Played, NightShift], None]) -> list[Played]:
    """Play the page; `check` receives the number of each step, what it printed, and the world after it."""
    played = []
    with guarded(regions=("us-east-1",), warm=True) as sandbox:
        shift = NightShift(sandbox, folder)
        for _ in range(4):
            shift.pipeline_turns_encryption_off()
        for number, step in enumerate(steps(PAGE.read_text("utf-8")), 1):
            result = shift.type(step)
            if number == 1:
                shift.incident = re.findall(r"us-east-1#[0-9]+", result.shown)[0]
            check(number, result, shift)
            played.append(result)
            if step.command.startswith(("xray-guard pause", "xray-guard break-glass open")):
                shift.pipeline_turns_encryption_off()
    return played


def table(played: list[Played]) -> str:
    """The page's table of seconds."""
    rows = [f"| {each.step.title} | {each.seconds:.1f} |" for each in played]
    total = f"| all commands | {sum(each.seconds for each in played):.1f} |"
    return "\n".join(["| step | seconds |", "| --- | --- |", *rows, total])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(table(play(Path(place), lambda number, played, shift: None)))
