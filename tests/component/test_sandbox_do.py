"""`python -m sandbox.do`: be somebody else, move the clock, lose events, in a running sandbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime

import pytest

from sandbox import do
from sandbox.server import Sandbox
from tests.component.guarded import PROJECT


def told(capfd: pytest.CaptureFixture[str], sandbox: Sandbox, *words: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command of `python -m sandbox.do`."""
    code = do.main(["--url", sandbox.url, *words])
    shown = capfd.readouterr()
    return code, shown.out, shown.err


def played(sandbox: Sandbox, who: str, *command: str) -> subprocess.CompletedProcess[str]:
    """A command run as somebody else, in a shell that has other credentials and no virtual environment on its path."""
    surroundings = {"PATH": os.defpath, "AWS_PROFILE": "of-mine", "AWS_SESSION_TOKEN": "of-mine"}
    words = [sys.executable, "-m", "sandbox.do", "--url", sandbox.url, "as", who, *command]
    return subprocess.run(words, cwd=PROJECT, env=surroundings, capture_output=True, text=True, check=False)


def caller(sandbox: Sandbox, who: str) -> str:
    done = played(sandbox, who, "aws", "sts", "get-caller-identity")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["Arn"])


def test_somebody_else_is_a_user_or_a_session_of_a_role_whatever_the_shell_has(sandbox: Sandbox) -> None:
    assert caller(sandbox, "alice") == "arn:aws:iam::123456789012:user/alice"
    assert caller(sandbox, "alice") == "arn:aws:iam::123456789012:user/alice"
    assert caller(sandbox, "PlatformAdmin/jdoe") == "arn:aws:sts::123456789012:assumed-role/PlatformAdmin/jdoe"
    assert played(sandbox, "alice", "false").returncode == 1
    missing = played(sandbox, "alice", "no-such-program")
    assert (missing.returncode, missing.stderr) == (1, "no-such-program: No such file or directory\n")


def test_the_clock_moves_on_and_never_back(sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    before = sandbox.client("dynamodb").list_tables()["ResponseMetadata"]["HTTPHeaders"]["date"]
    code, said, _ = told(capfd, sandbox, "clock", "48h")
    after = sandbox.client("dynamodb").list_tables()["ResponseMetadata"]["HTTPHeaders"]["date"]
    assert code == 0
    assert 48 * 3600 <= _seconds(after) - _seconds(before) < 48 * 3600 + 60
    assert time.strftime("%Y-%m-%dT%H", time.gmtime(_seconds(after))) in said
    with pytest.raises(ValueError, match="cannot go back"):
        sandbox.let_go_by(-1)
    assert told(capfd, sandbox, "clock", "soon")[0] == 1


def _seconds(date: str) -> float:
    return parsedate_to_datetime(date).timestamp()


def test_what_cannot_be_done_is_said(sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, said = told(capfd, sandbox, "lose", "-1")
    assert (code, "The sandbox refused" in said) == (1, True)
    assert told(capfd, sandbox, "sweep")[0::2] == (1, "The schedule sweep did not run: no guard is deployed.\n")
    assert do.main(["--url", "http://127.0.0.1:9", "tick"]) == 1
    assert "Start one with `make sandbox`" in capfd.readouterr().err
