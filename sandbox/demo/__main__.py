"""`python -m sandbox.demo`: the whole story; exit status 0, or 1 where something is not as it says."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from sandbox.demo.chapters import tell
from sandbox.demo.stage import Stage, Wrong
from sandbox.demo.voice import Voice
from sandbox.server import Sandbox

STORY_SECONDS = 9.25 * 3600
"""How long the story takes in AWS: it begins so long ago, and ends now."""


def main(arguments: list[str] | None = None) -> int:
    """Set the stage, tell the story, and clear up whatever comes of it."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.demo", description="The guard's story, on one machine.")
    parser.add_argument("--package", type=Path, default=Path("build/dev/package"), help="folder with the package")
    options = parser.parse_args(arguments)
    if not (options.package / "sam.json").is_file():
        print(f"There is no package in {options.package}: run `make package`.", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)
    voice = Voice()
    began = time.monotonic()
    voice.title(
        "X-Ray Encryption Guard",
        "An AWS on this machine, and in it the package that ships. People change things; CloudTrail and EventBridge",
        "tell the guard. Times are seconds since the step began. This X-Ray changes its setting in a second; AWS's",
        "takes five to six minutes.",
    )
    try:
        with Sandbox(package=options.package, schedules=False, clock_behind_seconds=STORY_SECONDS) as sandbox:
            stage = Stage(sandbox, voice)
            try:
                tell(stage)
            except Wrong as wrong:
                voice.wrong(str(wrong))
                _tell_logs(sandbox)
                return 1
    except KeyboardInterrupt:
        return 130
    voice.end(
        f"The story took {time.monotonic() - began:.0f} seconds. To play with it, and see it in a browser: make sandbox"
    )
    return 0


def _tell_logs(sandbox: Sandbox) -> None:
    """The end of what the functions logged, for whoever has to find out why."""
    for function in sandbox.functions:
        lines = sandbox.log(function.definition.name).splitlines()[-8:]
        print(f"--- {function.definition.name}", *lines, sep="\n", file=sys.stderr)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
