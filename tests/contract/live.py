"""Settle on a live account what can be settled without harm, and print a table of it.

    python -m tests.contract.live --account ID --region REGION

Exits 0 if nothing contradicts what the guard believes, 1 if something does or could not be cleaned up, and 2 without
having called anything but sts:GetCallerIdentity if the account is not the one that was named.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from chalicelib.aws.clients import Clients, call
from chalicelib.domain.errors import AwsError
from chalicelib.domain.model import Target
from chalicelib.domain.policy import parse
from chalicelib.operators.layout import Column, Table
from chalicelib.operators.output import print_table
from tests.contract.assumptions import CHECKS, RUN_TAG, SHORTEST_WINDOW_DAYS, Check, Live, Settled, Verdict
from tests.contract.places import Place

PROJECT = Path(__file__).parents[2]
POLICY = PROJECT / "policies" / "policy.json"
ACCOUNT_ID = re.compile(r"[0-9]{12}")
REGION_NAME = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]+")
LOST_KEY_SECONDS = 60.0
"""How long the clean-up searches for a key whose CreateKey was not answered."""

REFUSED = 2
FAILURES = (ClientError, BotoCoreError, ResponseParserError, AwsError)
"""What AWS refuses or leaves unanswered, by boto3 and by the guard's adapters."""


class Refused(Exception):
    """Why nothing is done."""


def main(
    arguments: Sequence[str] | None = None,
    *,
    checks: Sequence[Check] = CHECKS,
    wait: Callable[[float], None] = time.sleep,
    seconds: Callable[[], float] = time.monotonic,
) -> int:
    """Run the checks, clean up, and print. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract.live", description=__doc__.partition("\n")[0])
    parser.add_argument("--account", default="", help="the 12-digit id of the account of your credentials")
    parser.add_argument("--region", default="", help="the Region to run in")
    options = parser.parse_args(arguments)
    try:
        live = _enter(options.account, options.region, wait, seconds)
    except Refused as refused:
        print(f"Refused: {refused}. Nothing was done.", file=sys.stderr)
        return REFUSED
    settled: list[Settled] = []
    remaining: list[str] = []
    try:
        for check in checks:
            _run(check, live, settled)
    finally:
        # Whatever went wrong, Ctrl-C included: no key stays behind, and what was settled is printed.
        remaining += clean_up(live)
        _tell(live, settled, remaining)
    return 1 if remaining or any(each.verdict is Verdict.NO for each in settled) else 0


def _enter(account: str, region: str, wait: Callable[[float], None], seconds: Callable[[], float]) -> Live:
    """The account that was named, and no other. Raises Refused."""
    if not ACCOUNT_ID.fullmatch(account):
        raise Refused(f"ACCOUNT must be the 12-digit id of the account, not {account!r}")
    if not REGION_NAME.fullmatch(region):
        raise Refused(f"REGION must be the name of a Region, not {region!r}")
    clients = Clients()
    try:
        identity = call("sts:GetCallerIdentity", clients.reading("sts", region).get_caller_identity)
    except (AwsError, BotoCoreError) as error:
        raise Refused(f"AWS does not say whose the credentials are: {error}") from error
    if identity["Account"] != account:
        raise Refused(f"the credentials are of account {identity['Account']}, not of {account}")
    target = Target(account, region)
    policy = parse(POLICY.read_bytes())
    return Live(
        place=Place("live", lambda service: clients.mutating(service, region), 0.0),
        clients=clients,
        target=target,
        partition=identity["Arn"].split(":")[1],
        rule=policy.rule_for(target) or policy.rules[0],
        run_id=uuid.uuid4().hex,
        wait=wait,
        seconds=seconds,
    )


def _run(check: Check, live: Live, settled: list[Settled]) -> None:
    """Add what the check settles. What AWS refuses or leaves unanswered keeps it from settling the rest."""
    try:
        settled.extend(check(live))
    except FAILURES as error:
        title = check.__name__.replace("_", " ")
        settled.append(
            Settled(f"The rest of: {title}", Verdict.OPEN, str(error), "Remove the cause, then run this again.")
        )


def clean_up(live: Live) -> list[str]:
    """Schedule the deletion of every key of this run. Returns a line for each that may remain, with what to do."""
    kms = live.clients.reading("kms", live.target.region)
    lost = _lost_key(live) if live.unanswered else None
    remaining = [lost] if lost else []
    for key in dict.fromkeys(live.place.keys):
        try:
            if kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] != "PendingDeletion":
                kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=SHORTEST_WINDOW_DAYS)
        except FAILURES as error:
            command = f"aws kms schedule-key-deletion --region {live.target.region} --key-id {key}"
            remaining.append(f"Not cleaned up: {key}: {error}. Run: {command} --pending-window-in-days 7")
    return remaining


def _lost_key(live: Live) -> str | None:
    """Search for the key of a CreateKey that was not answered, and add it to the keys. Returns why it is not known."""

    def found() -> bool:
        key = live.find_key()
        live.place.keys += [key] if key else []
        return key is not None

    try:
        if live.until(found, LOST_KEY_SECONDS) is not None:
            return None
        why = f"no key with the tag shows after {LOST_KEY_SECONDS:.0f} s"
    except FAILURES as error:
        why = str(error)
    return (
        f"Not cleaned up: CreateKey was not answered, and {why}. Look for a key tagged {RUN_TAG}={live.run_id} "
        f"in {live.target.region}, and schedule its deletion"
    )


def _tell(live: Live, settled: Sequence[Settled], remaining: Sequence[str]) -> None:
    rows = [(each.assumption, each.verdict.value, each.answer, each.meaning) for each in settled]
    columns = [Column(each, wraps=True) for each in ("Assumption", "Holds", "Answer", "What it means")]
    print_table("table", Table(columns, rows, "Nothing was settled."))
    for line in remaining:
        print(line, file=sys.stderr)
    for key in live.place.keys if not remaining else ():
        print(f"{key} is deleted in {SHORTEST_WINDOW_DAYS} days.", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
