"""`python -m shipping STAGE` writes build/STAGE/package: three templates and `deployment.zip`.

The templates are `tables.json`, `sam.json` and, for the other Regions, `spoke-region.json`. Each stage reads only what
the previous one wrote: copy what ships, stamp the policy and complete the templates from it; let Chalice package the
copy; fill in the event patterns; rewrite the zip with compiled modules and fixed times, so that the same source gives
the same bytes; check the zip. The new package replaces the old one only if all stages passed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from shipping import patterns
from shipping.archive import check, write_anew
from shipping.rights import demand, render
from shipping.staging import stage_copy

PROJECT = Path(__file__).resolve().parent.parent

DEMANDED = {"prod": ("AnchorBucket",)}
"""The parameters of the guard's template that have no default in a stage, so that a deployment must name them."""


class PackagingError(Exception):
    """The package could not be built; the message says what to do."""


def package(stage: str, project: Path = PROJECT) -> Path:
    """Build the package of a stage and return its folder. Raises PackagingError."""
    stages = json.loads((project / ".chalice" / "config.json").read_text("utf-8"))["stages"]
    if stage not in stages:  # Chalice accepts any stage name, and an unknown one has no settings
        raise PackagingError(f"there is no stage {stage!r}; .chalice/config.json has {', '.join(sorted(stages))}")
    build = project / "build" / stage
    source, made, done, former = build / "src", build / "new", build / "package", build / "former"
    for folder in (source, made, former):
        shutil.rmtree(folder, ignore_errors=True)
    say(f"staging {source.relative_to(project)}")
    stage_copy(project, source)
    told = run([sys.executable, "-m", "chalicelib.operators.policy_check", "stamp", str(source / "policies")], project)
    if told:
        say(told)
    for template in ("extras.json", "tables.json"):
        render(source / ".chalice" / template, source / "policies")
    demand(source / ".chalice" / "extras.json", DEMANDED.get(stage, ()))
    say(f"packaging stage {stage} for Python {sys.version_info.major}.{sys.version_info.minor}")
    chalice(stage, source, made)
    for template in ("tables.json", "spoke-region.json"):
        shutil.copy(source / ".chalice" / template, made / template)
    patterns.render(made)
    write_anew(made / "deployment.zip")
    problems = check(made / "deployment.zip")
    if problems:
        raise PackagingError("the package failed its checks:\n  " + "\n  ".join(problems))
    if done.exists():
        done.rename(former)
    made.rename(done)
    shutil.rmtree(former, ignore_errors=True)
    say(f"{done.relative_to(project)}: {', '.join(sorted(path.name for path in done.iterdir()))}")
    return done


def chalice(stage: str, source: Path, made: Path) -> None:
    """Run `chalice package` without this machine's AWS configuration, which must not affect the package."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    surroundings |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": os.devnull}
    command = [sys.executable, "-c", "from chalice.cli import main; main()"]
    options = ["--stage", stage, "--template-format", "json", "--merge-template", ".chalice/extras.json"]
    run([*command, "package", *options, str(made)], source, surroundings)


def run(command: list[str], folder: Path, surroundings: dict[str, str] | None = None) -> str:
    """Run a command and return its stderr. Raises PackagingError if it fails."""
    answer = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise PackagingError((answer.stdout + answer.stderr).strip())
    return answer.stderr.strip()


def say(text: str) -> None:
    """Report progress on stderr."""
    print(f"shipping: {text}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Return 0 if the package was built, 1 if not, 2 for wrong usage."""
    if len(arguments) != 1:
        print("usage: python -m shipping STAGE", file=sys.stderr)
        return 2
    try:
        package(arguments[0])
    except PackagingError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
