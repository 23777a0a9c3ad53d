"""What a person types on a fresh machine, and what it rests on."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

REQUIREMENTS = ("requirements.txt", "requirements-dev.txt")


def pinned(text: str) -> dict[str, str]:
    """Name to version of every pin, names as the package index spells them."""
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize(
    "command", ["demo", "test", "sandbox", "check", "package", "release", "deploy", "bench", "help"]
)
def test_every_promised_command_exists(command: str, project: Path) -> None:
    answer = subprocess.run(
        ["make", "--dry-run", "--always-make", command], cwd=project, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_help_lists_the_commands(project: Path) -> None:
    answer = subprocess.run(["make", "help"], cwd=project, capture_output=True, text=True, check=True)
    for command in ("demo", "test", "sandbox", "check", "package", "release", "deploy", "bench"):
        assert f"make {command} " in answer.stdout


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_pinned_and_hashed_and_names_no_place_to_fetch_it_from(name: str, project: Path) -> None:
    text = (project / name).read_text("utf-8")
    requirements = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    assert requirements
    for line in requirements:
        assert re.match(r"[a-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line), line
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text


def test_what_ships_is_what_is_tested(project: Path) -> None:
    shipped, tested = (pinned((project / name).read_text("utf-8")) for name in REQUIREMENTS)
    assert shipped.items() <= tested.items()


def test_the_command_line_declares_what_it_imports_by_names_that_are_pinned(project: Path) -> None:
    declared = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    pins = pinned((project / "requirements-dev.txt").read_text("utf-8"))
    assert {re.split(r"[=<>]", name)[0] for name in declared["dependencies"]} <= set(pins)
    assert declared["scripts"] == {"xray-guard": "chalicelib.cli:main"}
