"""The list of planted bugs: small wrong changes to the code, each of which some test must notice.

They lie in the `*.toml` files beside this one, one table each. `tests/unit/test_planted.py` sees that they fit the
code.
"""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent
BUGS = Path(__file__).parent


@dataclass(frozen=True)
class Bug:
    """`before` stands exactly once in `file` and is replaced by `after`.

    `promise` is the promise that the bug breaks, such as P13, or `-`. `why` says what would go wrong in one line;
    `tests` are shown the bug first. `survives` explains why no test can notice it, where that is so.
    """

    name: str
    promise: str
    file: str
    before: str
    after: str
    why: str
    tests: tuple[str, ...] = ()
    survives: str = ""

    def why_it_does_not_fit(self, project: Path) -> str | None:
        """What is wrong with the entry by the code as it stands; None if it can be planted."""
        path = project / self.file
        if not path.is_file():
            return f"{self.name}: there is no {self.file}"
        missing = [test for test in self.tests if not (project / test.partition("::")[0]).exists()]
        if missing:
            return f"{self.name}: there is no {', '.join(missing)}"
        count = path.read_text("utf-8").count(self.before)
        return None if count == 1 else f"{self.name}: what it replaces stands {count} times in {self.file}"

    def plant(self, project: Path) -> None:
        """Make the wrong change."""
        path = project / self.file
        path.write_text(path.read_text("utf-8").replace(self.before, self.after), "utf-8")


def read_bugs() -> list[Bug]:
    """Every listed bug, by file and in the file's order. Raises TypeError for an entry with a field too many or few."""
    texts = [path.read_text("utf-8") for path in sorted(BUGS.glob("*.toml"))]
    tables = [table for text in texts for table in tomllib.loads(text)["bug"]]
    return [Bug(**{**table, "tests": tuple(table.get("tests", ()))}) for table in tables]


def copy_project(to: Path) -> None:
    """Copy what git tracks, and what it does not ignore, as it lies in the work tree.

    What npm installed is linked: without it the tests in `tests/iam` would be skipped.
    """
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (PROJECT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, to / name)
    if (PROJECT / "node_modules").is_dir():
        (to / "node_modules").symlink_to(PROJECT / "node_modules")
