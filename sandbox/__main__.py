"""`python -m sandbox`: run the sandbox until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from datetime import datetime
from pathlib import Path
from types import FrameType

from sandbox.beside import Beside
from sandbox.gateway import Gateway
from sandbox.knobs import DEFAULT_ACCOUNT, DEFAULT_REGION, DEFAULT_REGIONS
from sandbox.past import SESSION
from sandbox.server import Sandbox

HOW_TO = """
A simulated AWS on this machine, account {account}. To use it with any AWS client, in another terminal:

    export AWS_ENDPOINT_URL={url} AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION={region}
    export PATH="$PWD/.venv/bin:$PATH"        # xray-guard, and the AWS CLI that came with the set-up

    aws xray put-encryption-config --type NONE
    aws xray get-encryption-config
    xray-guard incidents

To play somebody else, and to move time:

    python -m sandbox.do as alice aws xray put-encryption-config --type NONE
    python -m sandbox.do as SecurityBreakGlass/me xray-guard break-glass open {region} --for 1h --reason INC-1 --wait
    python -m sandbox.do lose 1               # the next event is lost; then change something, and see who finds it:
    python -m sandbox.do event-history        # run this schedule now; also sweep and tick
    python -m sandbox.do clock 2h             # move AWS's clock on

Endpoint of AWS: {url}    Control endpoint: {url}/_sandbox/state
Console: {console}
REST API: {api} (sign requests for the service execute-api; /v1/openapi.json describes it)
Regions: {region}, where the guard is, and {others}, which forward their events to it
Functions: {functions}
Logs of the functions: {logs}
To stop the sandbox, press Ctrl-C.
"""


class Ended(BaseException):
    """A signal ended the sandbox. Not an Exception, so that nothing but `main` handles it."""


def end(number: int, frame: FrameType | None) -> None:
    """End the sandbox wherever it is, and let nothing interrupt that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Ended


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
    parser.add_argument("--api-port", type=int, metavar="PORT", default=4567, help="port of the REST API")
    parser.add_argument("--package", type=Path, default=Path("build/dev/package"), help="folder with the package")
    parser.add_argument("--no-functions", action="store_true", help="do not deploy the guard")
    parser.add_argument("--settle-seconds", type=float, default=1.0, help="how long X-Ray stays UPDATING")
    parser.add_argument("--stale-seconds", type=float, default=0.0, help="how stale the responses of KMS are")
    parser.add_argument("--account", default=DEFAULT_ACCOUNT)
    parser.add_argument("--region", default=DEFAULT_REGION)
    parser.add_argument("--regions", default=",".join(DEFAULT_REGIONS), help="the enabled Regions")
    parser.add_argument("--console", type=int, metavar="PORT", help="also serve the console, with a month of incidents")
    options = parser.parse_args(arguments)
    package = None if options.no_functions else options.package
    if package is not None and not (package / "sam.json").is_file():
        print(f"There is no package in {package}. Run `make package`, or use --no-functions.", file=sys.stderr)
        return 2
    ports = [port for port in (options.port, options.api_port, options.console) if port]
    if len(set(ports)) < len(ports):
        print(
            f"The sandbox, its REST API and its console need a port each, not {', '.join(map(str, ports))}. "
            "Name others: make sandbox PORT=… API_PORT=… CONSOLE_PORT=…",
            file=sys.stderr,
        )
        return 2
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
    )
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    try:
        with contextlib.ExitStack() as running:
            try:
                running.enter_context(sandbox)
            except OSError as error:
                cause = os.strerror(error.errno or 0)
                print(f"Cannot listen on port {options.port}: {cause}. Name another: PORT=…", file=sys.stderr)
                return 2
            log_calls(sandbox)
            gateway = running.enter_context(Gateway(sandbox, options.api_port)) if package else None
            beside = None
            if options.console is not None:
                beside = running.enter_context(Beside(sandbox, options.console, say))
            names = ", ".join(each.definition.name for each in sandbox.functions) or "none"
            print(
                HOW_TO.format(
                    account=options.account,
                    url=sandbox.url,
                    region=options.region,
                    others=", ".join(sorted(sandbox.forwarding)) or "no others",
                    api=gateway.url if gateway else "none",
                    console=beside.url if beside and beside.url else "none (xray-guard console serves one)",
                    functions=f"{names} (run by {sandbox.runtime})" if package else names,
                    logs=sandbox.folder / "logs",
                ),
                flush=True,
            )
            threading.Event().wait()
    except Ended:
        pass
    say("The sandbox stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
