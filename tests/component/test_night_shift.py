"""docs/night-shift.md, played on the sandbox: each step is one command, and does what the page says."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from sandbox.server import Sandbox
from tests.component.guarded import records_of
from tests.component.night_shift import PAGE, NightShift, Played, play, steps

SAID = {
    1: r"us-east-1#[0-9]+ .*\bNOT_KMS +role/ci-deploy \(build\) (.*\n)*.*: next attempt [0-9:]+, backing off after 3",
    2: r"us-east-1 +DEFERRED +BACKOFF(.*\n)*BACKOFF: Another principal keeps undoing",
    3: r"against: arn:aws:iam::[0-9]+:role/ci-deploy;",
    4: r"^Paused: the guard changes nothing until `xray-guard resume`",
    5: r"^Resumed: .*\n.*us-east-1: next (attempt|check) ",
    6: r"The guard has seen the tag: the break-glass is in force",
    7: r"The guard enforces again",
    8: r"us-east-1: REMEDIATED\n +NONE → key ",
    9: r"^Verified: no tampering found",
    10: r"^Wrote [0-9]+ bytes to INC-7\.jsonl, SHA-256 ",
}


def outcomes(sandbox: Sandbox) -> list[str]:
    return [record.outcome.value for record in records_of(sandbox, f"{sandbox.account}/{sandbox.region}")]


def page_in_console(shift: NightShift) -> str:
    """What a click on the incident shows, on the overview."""
    surroundings = {**shift.sandbox.environment(), "PATH": "/nowhere"}
    console = subprocess.Popen(
        [str(Path(sys.executable).with_name("xray-guard")), "console", "--no-open", "--port", "0"],
        env=surroundings,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert console.stdout is not None
        url = console.stdout.readline().strip()
        with urllib.request.urlopen(url) as overview:
            (link,) = set(re.findall(r'href="/(incidents/[0-9]+/us-east-1/[0-9]+)"', overview.read().decode()))
        with urllib.request.urlopen(url + link) as page:
            return str(page.read().decode())
    finally:
        console.terminate()
        console.wait()


def test_the_night_shift_goes_as_its_page_says(tmp_path: Path) -> None:
    def check(number: int, played: Played, shift: NightShift) -> None:
        assert played.code == 0, played.shown
        assert re.search(SAID[number], played.shown, re.MULTILINE), played.shown
        sandbox, evidence = shift.sandbox, tmp_path / "INC-7.jsonl"
        if number == 3:
            shown = page_in_console(shift)
            assert "role/ci-deploy" in shown
            assert "BACKOFF" in shown or "keeps undoing" in shown
        elif number == 4:
            assert shift.encryption() == "NONE"
        elif number == 5:
            assert "PAUSED" in [record.reason for record in records_of(sandbox, f"{sandbox.account}/us-east-1")]
        elif number == 7:
            assert "SUPPRESSED" in outcomes(sandbox), "what the pipeline did under the break-glass"
        elif number == 8:
            assert shift.encryption() == "KMS"
            assert outcomes(sandbox)[-1] in ("REMEDIATED", "COMPLIANT", "IGNORED")
        elif number == 10:
            assert hashlib.sha256(evidence.read_bytes()).hexdigest() in played.shown
            lines = [json.loads(line) for line in evidence.read_text("utf-8").splitlines()]
            exported = [line for line in lines if line["kind"] == "record"]
            assert len(exported) == len(outcomes(sandbox))

    assert len(play(tmp_path, check)) == len(SAID)


def test_each_step_of_the_page_is_one_command_and_timed() -> None:
    text = PAGE.read_text("utf-8")
    rows = re.findall(r"^\| ([0-9]+\. .*?) \| [0-9.]+ \|$", text, re.MULTILINE)
    assert rows == [step.title for step in steps(text)]
    assert len(rows) == len(SAID)


def test_a_step_of_two_commands_is_noticed() -> None:
    with pytest.raises(ValueError, match="too many"):
        steps("## 1. Two\n\n```\na\nb\n```\n")
