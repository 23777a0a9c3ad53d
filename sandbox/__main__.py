"""`python -m sandbox`: the sandbox as a program that stays up, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

from sandbox.beside import Beside
from sandbox.gateway import Gateway
from sandbox.knobs import DEFAULT_ACCOUNT, DEFAULT_REGION, DEFAULT_REGIONS
from sandbox.past import SESSION
from sandbox.server import Sandbox

HOW_TO = """
An AWS on this machine, account {account}. Point any AWS client at it:

    export AWS_ENDPOINT_URL={url} AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION={region}

    aws xray put-encryption-config --type NONE
    aws xray get-encryption-config
    .venv/bin/xray-guard history

REST API: {api} (signed for the service execute-api; /v1/openapi.json describes it)
Console: {console}
Functions: {functions}
Their logs: {logs}
Control endpoint: {url}/_sandbox/state    Ctrl-C ends it.
"""


def say(line: str) -> None:
    """One line for people, with the time."""
    print(f"{datetime.now():%H:%M:%S.%f}"[:-3], line, flush=True)


def say_of_the_present(line: str) -> None:
    """The same, but for what happens only to be in the past."""
    if f"/{SESSION}:" not in line:
        say(line)


def main(arguments: list[str] | None = None) -> int:
    """Run until told to end. Answers the exit status: 2 where it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="An AWS on one machine, on 127.0.0.1 only.")
    parser.add_argument("--port", type=int, default=4566)
    parser.add_argument("--package", type=Path, default=Path("build/dev/package"), help="folder with the package")
    parser.add_argument("--no-functions", action="store_true", help="an AWS in which nothing is deployed")
    parser.add_argument("--settle-seconds", type=float, default=1.0, help="how long X-Ray stays UPDATING")
    parser.add_argument("--stale-seconds", type=float, default=0.0, help="how old what KMS answers is")
    parser.add_argument("--account", default=DEFAULT_ACCOUNT)
    parser.add_argument("--region", default=DEFAULT_REGION)
    parser.add_argument("--regions", default=",".join(DEFAULT_REGIONS), help="the Regions that are enabled")
    parser.add_argument("--console", type=int, metavar="PORT", help="serve the console too, with a past to show")
    options = parser.parse_args(arguments)
    package = None if options.no_functions else options.package
    if package is not None and not (package / "sam.json").is_file():
        print(f"There is no package in {package}: run `make package`, or give --no-functions.", file=sys.stderr)
        return 2
    ended = threading.Event()

    def end(number: int, frame: Any) -> None:
        ended.set()

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    sandbox = Sandbox(
        port=options.port,
        account=options.account,
        region=options.region,
        regions=tuple(options.regions.split(",")),
        package=package,
        say=say_of_the_present,
        settle_seconds=options.settle_seconds,
        stale_seconds=options.stale_seconds,
    )
    try:
        sandbox.start()
    except OSError as error:
        print(f"Port {options.port} cannot be listened on: {error}", file=sys.stderr)
        return 2
    attached = contextlib.ExitStack()
    try:
        gateway = attached.enter_context(Gateway(sandbox, sandbox.port + 1)) if package else None
        beside = attached.enter_context(Beside(sandbox, options.console, say)) if options.console is not None else None
        names = ", ".join(each.definition.name for each in sandbox.functions) or "none"
        print(
            HOW_TO.format(
                account=options.account,
                url=sandbox.url,
                region=options.region,
                api=gateway.url if gateway else "none",
                console=beside.url if beside and beside.url else "none (.venv/bin/xray-guard console serves one)",
                functions=f"{names} (run by {sandbox.runtime})" if package else names,
                logs=sandbox.folder / "logs",
            ),
            flush=True,
        )
        while not ended.wait(1.0):
            pass
    finally:
        attached.close()
        sandbox.stop()
    say("The sandbox has ended.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
