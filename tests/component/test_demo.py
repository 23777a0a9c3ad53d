"""The demo: it tells the whole story, ends by itself, and does not claim what does not hold."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.demo.chapters import turned_off
from sandbox.demo.stage import Stage, Wrong
from sandbox.demo.voice import Voice
from sandbox.server import Sandbox
from tests.component.guarded import PROJECT


def seconds_of_children() -> float:
    """The CPU time of all processes started and ended so far; unlike a clock's, it is the same on a busy machine."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def run_demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandbox.demo", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_tells_the_whole_story_in_plain_text_and_ends_well_within_a_minute() -> None:
    began = seconds_of_children()
    ended = run_demo()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert seconds_of_children() - began < 60
    assert "\x1b" not in ended.stdout
    for answer in (
        "#4 REMEDIATED, NOT_KMS, NONE → key",
        "The guard reused its key: there is no second one",
        "2 reads, no write, no record",
        "Recorded as IGNORED, InvalidRequestException",
        "The key is enabled, and X-Ray stores traces again",
        "alias/xray-encryption points to key",
        "BREAK_GLASS_OPENED",
        "The guard enforces again: KMS",
        "Verified: no tampering found",
        "Detected: record 1 of 123456789012/us-east-1 was edited",
    ):
        assert answer in ended.stdout, f"untold: {answer}"
    assert ended.stderr == ""


def test_a_claim_that_does_not_hold_is_told_and_ends_the_story(capsys: pytest.CaptureFixture[str]) -> None:
    with Sandbox(settle_seconds=0.0, schedules=False) as nobody_guards:
        nobody_guards.client("dynamodb").create_table(
            TableName="xray-guard-audit",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[
                {"AttributeName": "target", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("target", "sk")],
        )
        stage = Stage(nobody_guards, Voice(), patience_seconds=0.5)
        with pytest.raises(Wrong, match="the record REMEDIATED in the chain"):
            turned_off(stage, stage.user("alice"))
    assert "xray PutEncryptionConfig NONE" in capsys.readouterr().out


def test_without_a_package_it_says_what_to_do_and_starts_nothing(tmp_path: Path) -> None:
    ended = run_demo("--package", str(tmp_path))
    assert ended.returncode == 2
    assert "make package" in ended.stderr
    assert ended.stdout == ""


def test_ended_from_outside_it_leaves_no_process_behind() -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "sandbox.demo"], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "REMEDIATING" in line:
            break
    children = children_of(demo.pid)
    assert children, "the functions' processes"
    demo.terminate()
    assert demo.wait(20) == 143
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def children_of(process: int) -> list[int]:
    if not Path("/proc/self/stat").exists():
        pytest.skip("this system does not tell whose child a process is")
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == process:
            found.append(int(stat.parent.name))
    return found
