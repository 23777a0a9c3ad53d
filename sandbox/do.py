"""`python -m sandbox.do`: what a user of a running sandbox can be or cause, besides calling AWS.

Be another principal, move AWS's clock, run a schedule now, lose events.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any

from chalicelib.domain.times import parse_duration

HERE = "http://127.0.0.1:4566"
SCHEDULES = ("tick", "sweep", "event-history")
EXAMPLES = """examples:
  python -m sandbox.do as alice aws xray put-encryption-config --type NONE
  python -m sandbox.do as PlatformAdmin/jdoe xray-guard incidents
  python -m sandbox.do clock 2h
  python -m sandbox.do sweep
  python -m sandbox.do lose 1
"""


class Failed(Exception):
    """The sandbox is not there or refused; the message says so to the user."""


def main(arguments: list[str] | None = None) -> int:
    """Do one thing in the running sandbox. Returns the exit code: 1 if it could not, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.do",
        description="Do something in the running sandbox.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--url", default=os.environ.get("AWS_ENDPOINT_URL", HERE), help="the sandbox [AWS_ENDPOINT_URL, or %(default)s]"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    play = actions.add_parser("as", help="run a command as an IAM user, or as a session of a role")
    play.add_argument("who", metavar="USER|ROLE/SESSION", help="the user is created; the role need not exist")
    play.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND…")
    clock = actions.add_parser("clock", help="move AWS's clock on: 90s, 30m, 2h, 1d")
    clock.add_argument("span", metavar="SPAN")
    for name in SCHEDULES:
        actions.add_parser(name, help=f"run the guard's schedule {name} now, and wait for its end")
    lose = actions.add_parser("lose", help="lose the events of the next calls; Event history keeps them")
    lose.add_argument("events", type=int, metavar="EVENTS", help="how many; 0 loses no more")
    options = parser.parse_args(arguments)
    if options.action == "as" and not options.command:
        play.error("name the command to run as this principal")
    try:
        if options.action == "as":
            return run_as(options.url, options.who, options.command)
        print(done(options))
    except (Failed, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def done(options: argparse.Namespace) -> str:
    """Do what needs no other program, and return what happened."""
    url = options.url
    if options.action == "clock":
        now = ask(url, "clock", seconds=parse_duration(options.span).total_seconds())["now"]
        return f"AWS's time is now {now}. The guard checks what is due with the next tick: python -m sandbox.do tick"
    if options.action == "lose":
        ask(url, "knobs", lose_events=options.events)
        return f"The next {options.events} events are lost. A sweep finds what they did, Event history who did it."
    fired = ask(url, "schedules", name=options.action.replace("-", "_"))["fired"]
    if not fired or not ask(url, "idle", seconds=120)["idle"]:
        raise Failed(f"The schedule {options.action} did not {'end' if fired else 'run: no guard is deployed'}.")
    return f"{options.action} ran."


def run_as(url: str, who: str, command: list[str]) -> int:
    """Replace this process by the command, with the principal's credentials and this environment's programs."""
    state = ask(url, "state")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= {
        **credentials(url, state["account"], state["region"], who),
        "AWS_ENDPOINT_URL": url,
        "AWS_DEFAULT_REGION": state["region"],
        "AWS_EC2_METADATA_DISABLED": "true",
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]),
    }
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise Failed(f"{command[0]}: {error.strerror}") from error


def credentials(url: str, account: str, region: str, who: str) -> dict[str, str]:
    """Return the environment variables of an IAM user, made if new, or of a session of a role."""
    import boto3

    administrator = boto3.Session("sandbox", "sandbox", region_name=region)
    role, _, session = who.rpartition("/")
    if role:
        arn = f"arn:aws:iam::{account}:role/{role}"
        given = administrator.client("sts", endpoint_url=url).assume_role(RoleArn=arn, RoleSessionName=session)
        made = given["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
            "AWS_SESSION_TOKEN": made["SessionToken"],
        }
    iam = administrator.client("iam", endpoint_url=url)
    with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_user(UserName=who)
    keys = iam.list_access_keys(UserName=who)["AccessKeyMetadata"]
    key = keys[0] if keys else iam.create_access_key(UserName=who)["AccessKey"]
    # The sandbox accepts any secret.
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": "sandbox"}


def ask(url: str, route: str, /, **request: Any) -> Any:
    """Send a request to the control endpoint. Raises Failed."""
    body = json.dumps(request).encode() if request else None
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/_sandbox/{route}", body, timeout=150) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise Failed(f"The sandbox refused: {error.read().decode('utf-8', 'replace')}") from error
    except (OSError, ValueError) as error:
        raise Failed(f"There is no sandbox at {url}. Start one with `make sandbox`, or name it with --url.") from error


if __name__ == "__main__":
    sys.exit(main())
