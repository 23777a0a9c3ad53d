"""`python -m sandbox`: run the sandbox until Ctrl-C or SIGTERM."""

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
A simulated AWS on this machine, account {account}. To use it with any AWS client:

    export AWS_ENDPOINT_URL={url} AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION={region}

    aws xray put-encryption-config --type NONE
    aws xray get-encryption-config
    .venv/bin/xray-guard history

Regions: {region}, where the guard is, and {others}, which forward their events to it
REST API: {api} (sign requests for the service execute-api; /v1/openapi.json describes it)
Console: {console}
Functions: {functions}
Logs of the functions: {logs}
Control endpoint: {url}/_sandbox/state    To stop the sandbox, press Ctrl-C.
"""


def say(line: str) -> None:
    """Print a message with the time."""
    print(f"{datetime.now():%H:%M:%S.%f}"[:-3], line, flush=True)


def say_unless_past(line: str) -> None:
    """Print a message, unless it is about a call that only creates past incidents."""
    if f"/{SESSION}:" not in line:
        say(line)


def log_calls(sandbox: Sandbox) -> None:
    """Create the trail that an account needs for events of calls; the sandbox itself sends them without one."""
    sandbox.client("s3", "us-east-1").create_bucket(Bucket="sandbox-trail")
    trail = sandbox.client("cloudtrail")
    trail.create_trail(Name="sandbox", S3BucketName="sandbox-trail", IsMultiRegionTrail=True)
    selector = {"ReadWriteType": "All", "IncludeManagementEvents": True}
    trail.put_event_selectors(TrailName="sandbox", EventSelectors=[selector])
    trail.start_logging(Name="sandbox")
    sandbox.calls.clear()


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal. Returns the exit code: 2 if it cannot start."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox", description="A simulated AWS on this machine, on 127.0.0.1 only."
    )
    parser.add_argument("--port", type=int, default=4566)
    parser.add_argument("--package", type=Path, default=Path("build/dev/package"), help="folder with the package")
    parser.add_argument("--no-functions", action="store_true", help="do not deploy the guard")
    parser.add_argument("--settle-seconds", type=float, default=1.0, help="how long X-Ray stays UPDATING")
    parser.add_argument("--stale-seconds", type=float, default=0.0, help="how stale the responses of KMS are")
    parser.add_argument("--account", default=DEFAULT_ACCOUNT)
    parser.add_argument("--region", default=DEFAULT_REGION)
    parser.add_argument("--regions", default=",".join(DEFAULT_REGIONS), help="the enabled Regions")
    parser.add_argument("--console", type=int, metavar="PORT", help="also serve the console, with a month of incidents")
    parser.add_argument(
        "--hours-behind", type=float, default=0.0, help="start AWS's clock so much earlier, so that it can be moved on"
    )
    options = parser.parse_args(arguments)
    package = None if options.no_functions else options.package
    if package is not None and not (package / "sam.json").is_file():
        print(f"There is no package in {package}. Run `make package`, or use --no-functions.", file=sys.stderr)
        return 2
    stopping = threading.Event()

    def stop(number: int, frame: Any) -> None:
        stopping.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    sandbox = Sandbox(
        port=options.port,
        account=options.account,
        region=options.region,
        regions=tuple(options.regions.split(",")),
        forwarding=() if package is None else tuple(set(options.regions.split(",")) - {options.region}),
        silent_session=SESSION,  # past incidents bring their own events, at times in the past
        package=package,
        say=say_unless_past,
        settle_seconds=options.settle_seconds,
        stale_seconds=options.stale_seconds,
        clock_behind_seconds=options.hours_behind * 3600,
    )
    try:
        sandbox.start()
    except OSError as error:
        print(f"Cannot listen on port {options.port}: {error}", file=sys.stderr)
        return 2
    attached = contextlib.ExitStack()
    log_calls(sandbox)
    try:
        gateway = attached.enter_context(Gateway(sandbox, sandbox.port + 1)) if package else None
        beside = attached.enter_context(Beside(sandbox, options.console, say)) if options.console is not None else None
        names = ", ".join(each.definition.name for each in sandbox.functions) or "none"
        print(
            HOW_TO.format(
                account=options.account,
                url=sandbox.url,
                region=options.region,
                others=", ".join(sorted(sandbox.forwarding)) or "no others",
                api=gateway.url if gateway else "none",
                console=beside.url if beside and beside.url else "none (.venv/bin/xray-guard console serves one)",
                functions=f"{names} (run by {sandbox.runtime})" if package else names,
                logs=sandbox.folder / "logs",
            ),
            flush=True,
        )
        while not stopping.wait(1.0):
            pass
    finally:
        attached.close()
        sandbox.stop()
    say("The sandbox stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
