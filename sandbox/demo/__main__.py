"""`python -m sandbox.demo`: run the demo. Exit code 0, or 1 if a claim is not true."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from sandbox.demo.chapters import run
from sandbox.demo.stage import Stage, Wrong
from sandbox.demo.voice import Voice
from sandbox.server import Sandbox

STORY_SECONDS = 9.25 * 3600
"""The simulated duration of the demo. It starts so long ago and ends now."""


def main(arguments: list[str] | None = None) -> int:
    """Run the demo on a new sandbox, and stop the sandbox in any case."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.demo", description="A demo of the guard on this machine.")
    parser.add_argument("--package", type=Path, default=Path("build/dev/package"), help="folder with the package")
    options = parser.parse_args(arguments)
    if not (options.package / "sam.json").is_file():
        print(f"There is no package in {options.package}. Run `make package`.", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)
    voice = Voice()
    began = time.monotonic()
    voice.title(
        "X-Ray Encryption Guard",
        "A simulated AWS on this machine, with the package that ships. People make changes, and the guard receives",
        "the events from CloudTrail and EventBridge. Times are seconds since the start of the step. This X-Ray changes",
        "its setting in a second; AWS's X-Ray takes five to six minutes.",
    )
    try:
        with Sandbox(package=options.package, schedules=False, clock_behind_seconds=STORY_SECONDS) as sandbox:
            stage = Stage(sandbox, voice)
            try:
                run(stage)
            except Wrong as wrong:
                voice.wrong(str(wrong))
                _print_logs(sandbox)
                return 1
    except KeyboardInterrupt:
        return 130
    voice.end(
        f"The demo took {time.monotonic() - began:.0f} seconds. To try it yourself, with the console: make sandbox"
    )
    return 0


def _print_logs(sandbox: Sandbox) -> None:
    """Print the last lines of the functions' logs, to find the cause."""
    for function in sandbox.functions:
        lines = sandbox.log(function.definition.name).splitlines()[-8:]
        print(f"--- {function.definition.name}", *lines, sep="\n", file=sys.stderr)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
