"""`make` sets up a virtual environment of its own, replaces a broken one, and never installs into the system's Python.

The registry is not needed: the Python that makes the virtual environments here puts a pip in them that only notes where
it was run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

NOTING_PIP = """
import os, pathlib, sys
with open(os.environ["PIP_RUNS"], "a") as runs:
    runs.write(f"{sys.prefix}\\n")
if "PIP_IS_KILLED" in os.environ:
    os.kill(os.getpid(), 9)
"""
MAKES_VENVS = f"""#!{sys.executable}
import pathlib, subprocess, sys
if sys.argv[1:3] != ["-m", "venv"]:
    sys.exit(subprocess.run([sys.executable, *sys.argv[1:]]).returncode)
subprocess.run([sys.executable, "-m", "venv", "--without-pip", sys.argv[3]], check=True)
(packages,) = pathlib.Path(sys.argv[3], "lib").glob("python*/site-packages")
(packages / "pip").mkdir()
(packages / "pip" / "__init__.py").touch()
(packages / "pip" / "__main__.py").write_text({NOTING_PIP!r})
"""
WITHOUT_ENSUREPIP = f"""#!/bin/sh
case "$*" in *ensurepip*) exit 1;; esac
exec {sys.executable} "$@"
"""


@dataclass
class Checkout:
    """A folder with the Makefile and a requirement, and a log of the runs of pip."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def installed_into(self) -> list[str]:
        """The prefix of each run of pip."""
        runs = self.root / "pip-runs"
        return runs.read_text().split() if runs.exists() else []

    def make(self, *, killed: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
        given = {"PYTHON": str(self.root / "python"), **variables}
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTHON"))}
        environment |= {"PIP_RUNS": str(self.root / "pip-runs")} | ({"PIP_IS_KILLED": "1"} if killed else {})
        words = [str(shutil.which("make")), "setup", *(f"{name}={value}" for name, value in given.items())]
        return subprocess.run(words, cwd=self.root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(project: Path, tmp_path: Path) -> Checkout:
    shutil.copy(project / "Makefile", tmp_path)
    (tmp_path / "requirements-dev.txt").write_text("one==1\n")
    (tmp_path / "chalicelib").mkdir()
    (tmp_path / "python").write_text(MAKES_VENVS)
    (tmp_path / "python").chmod(0o755)
    return Checkout(tmp_path)


def is_ready(checkout: Checkout) -> None:
    """The virtual environment is a real one, was installed into twice and nothing else was; nothing is left to do."""
    assert (checkout.venv / "pyvenv.cfg").is_file()
    assert not checkout.venv.is_symlink()
    assert checkout.installed_into[-2:] == [str(checkout.venv)] * 2
    assert set(checkout.installed_into) == {str(checkout.venv)}
    before = len(checkout.installed_into)
    assert checkout.make().returncode == 0
    assert len(checkout.installed_into) == before


def test_it_sets_up_a_virtual_environment_once(checkout: Checkout) -> None:
    assert checkout.make().returncode == 0
    assert len(checkout.installed_into) == 2
    is_ready(checkout)


def test_one_without_pip_is_replaced_as_debian_leaves_it_where_ensurepip_is_missing(checkout: Checkout) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout.venv], check=True)
    done = checkout.make()
    assert done.returncode == 0, done.stderr
    is_ready(checkout)


def test_a_link_to_the_systems_python_is_replaced_and_nothing_is_installed_there(checkout: Checkout) -> None:
    (checkout.venv / "bin").mkdir(parents=True)
    (checkout.venv / "bin" / "python").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    done = checkout.make()
    assert done.returncode == 0, done.stderr
    is_ready(checkout)


def test_a_link_to_a_folder_of_the_system_is_removed_and_the_folder_stays_as_it_is(
    checkout: Checkout, tmp_path: Path
) -> None:
    system = tmp_path / "usr"
    (system / "bin").mkdir(parents=True)
    (system / "bin" / "python").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    checkout.venv.symlink_to(system)
    done = checkout.make()
    assert done.returncode == 0, done.stderr
    is_ready(checkout)
    assert [each.name for each in system.rglob("*")] == ["bin", "python"]


def test_an_interrupted_set_up_begins_again(checkout: Checkout) -> None:
    assert checkout.make(killed=True).returncode != 0
    (checkout.venv / "half-installed").touch()
    done = checkout.make()
    assert done.returncode == 0, done.stderr
    assert not (checkout.venv / "half-installed").exists()
    is_ready(checkout)


def test_an_interrupted_update_begins_again(checkout: Checkout) -> None:
    assert checkout.make().returncode == 0
    changed(checkout)
    assert checkout.make(killed=True).returncode != 0
    (checkout.venv / "half-installed").touch()
    assert checkout.make().returncode == 0
    assert not (checkout.venv / "half-installed").exists()
    is_ready(checkout)


def test_one_whose_python_is_gone_is_replaced_though_it_was_ready(checkout: Checkout) -> None:
    assert checkout.make().returncode == 0
    (checkout.venv / "bin" / "python").unlink()
    (checkout.venv / "bin" / "python").symlink_to("/nonexistent/python3")
    done = checkout.make()
    assert done.returncode == 0, done.stderr
    is_ready(checkout)


def test_new_requirements_are_installed_into_the_one_that_is_there(checkout: Checkout) -> None:
    assert checkout.make().returncode == 0
    (checkout.venv / "of-mine").touch()
    changed(checkout)
    assert checkout.make().returncode == 0
    assert len(checkout.installed_into) == 4
    assert (checkout.venv / "of-mine").exists()
    is_ready(checkout)


def test_where_no_python_can_make_one_it_says_what_to_install_and_leaves_nothing(checkout: Checkout) -> None:
    names = checkout.root / "path"
    names.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        (names / name).write_text(WITHOUT_ENSUREPIP)
        (names / name).chmod(0o755)
    for tool in ("find", "grep", "rm", "touch", "mv", "sh"):
        (names / tool).symlink_to(str(shutil.which(tool)))
    environment = {"PATH": str(names)}
    words = [str(shutil.which("make")), "setup"]
    done = subprocess.run(words, cwd=checkout.root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "python3-venv" in done.stderr
    assert not checkout.venv.exists()


def changed(checkout: Checkout) -> None:
    """The requirements are newer than the virtual environment."""
    ready = (checkout.venv / "ready").stat().st_mtime
    os.utime(checkout.venv / "ready", (ready - 10, ready - 10))
    os.utime(checkout.root / "requirements-dev.txt", (ready - 5, ready - 5))
