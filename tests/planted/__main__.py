"""Plant each listed bug in a copy of the project, run the tests against it, and print which bugs no test noticed.

    python -m tests.planted [--sample N] [--seed TEXT] [--only NAME-PART]

Each bug is first shown to the tests that its entry names, then to all fast ones. Exits 1 if a bug survived that its
entry does not explain, 2 if an entry does not fit the code any more.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.planted.bugs import PROJECT, Bug, copy_project, read_bugs

FAST = ("tests/unit", "tests/simulation")
LIST = "tests/unit/test_planted.py"
"""Holds the list to the code, so it fails for every planted bug and proves nothing of it."""

MOST_SECONDS = 900
TESTS_FAILED = 1


def main() -> int:
    """Plant, test, and tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, help="plant only so many, drawn at random")
    parser.add_argument("--seed", default="", help="what the sample is drawn by; the same text draws the same bugs")
    parser.add_argument("--only", default="", help="plant only bugs whose name or file contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    options = parser.parse_args()
    bugs = [bug for bug in read_bugs() if options.only in f"{bug.name} {bug.file}"]
    if options.sample is not None and options.sample < len(bugs):
        bugs = random.Random(options.seed).sample(bugs, options.sample)
    unfit = [problem for bug in bugs if (problem := bug.why_it_does_not_fit(PROJECT))]
    if unfit:
        print("\n".join(unfit), file=sys.stderr)
        return 2
    if failing := _tests_that_fail_without_a_bug(bugs):
        print(f"{failing} fails without any bug planted, and so would kill every one", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(options.jobs) as pool:
        verdicts = list(pool.map(_try, bugs))
    return _summarize(bugs, verdicts)


def _tests_that_fail_without_a_bug(bugs: Sequence[Bug]) -> str:
    """Those of the named tests, in one string, if any of them fails in an unchanged copy."""
    named = tuple(sorted({test for bug in bugs for test in bug.tests}))
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        copy_project(Path(name))
        return " ".join(named) if named and _fails(Path(name), named) else ""


def _try(bug: Bug) -> str:
    """`killed`, `survived` or `explained`, printed as soon as it is known."""
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        copy = Path(name)
        copy_project(copy)
        bug.plant(copy)
        killer = next((tests for tests in (bug.tests, FAST) if tests and _fails(copy, tests)), None)
    if killer is not None:
        verdict, by = "killed", " ".join(killer)
    else:
        verdict, by = ("explained", bug.survives) if bug.survives else ("survived", bug.why)
    print(f"{verdict:9}  {bug.promise:4} {bug.name}: {by}", flush=True)
    return verdict


def _fails(copy: Path, tests: Sequence[str]) -> bool:
    """Whether a test fails in the copy. Raises RuntimeError where pytest could not run them at all."""
    options = ("-x", "-q", "--no-header", "-p", "no:cacheprovider", f"--ignore={LIST}")
    command = [sys.executable, "-m", "pytest", *options, *tests]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, timeout=MOST_SECONDS, check=False
    )
    if done.returncode not in (0, TESTS_FAILED):
        raise RuntimeError(f"{' '.join(tests)} did not run:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.returncode == TESTS_FAILED


def _summarize(bugs: Sequence[Bug], verdicts: Sequence[str]) -> int:
    planted: Counter[str] = Counter()
    killed: Counter[str] = Counter()
    for bug, verdict in zip(bugs, verdicts, strict=True):
        planted[bug.file] += 1
        killed[bug.file] += verdict == "killed"
    print()
    for file in sorted(planted):
        print(f"{killed[file]:3} of {planted[file]:3} killed  {file}")
    counts = Counter(verdicts)
    print(f"{counts['killed']} killed, {counts['survived']} survived, {counts['explained']} survived and explained")
    return 1 if counts["survived"] else 0


if __name__ == "__main__":
    sys.exit(main())
