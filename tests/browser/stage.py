"""What the browser looks at: a console over a past that the guard itself recorded, in a process of its own.

`python -m tests.browser.stage FACTS PID [plain]` tells its story, writes what the tests need to know of it to the file
FACTS, and answers until the process PID has ended; a plain story has no scripts in it. A process of its own, because
moto's world is the process's: whatever else the tests do there would empty it.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import moto.dynamodb.models
import moto.kms.models
from moto.dynamodb.models.table import Table
from moto.kms.models import kms_backends

from chalicelib.auditlog import history
from chalicelib.auditlog.filters import Filter
from chalicelib.auditlog.views import IncidentView
from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.console.server import ConsoleServer
from chalicelib.domain.model import Target
from chalicelib.domain.policy import parse
from chalicelib.operators.context import Operator
from chalicelib.operators.dead_letters import QUEUE_NAME
from chalicelib.wiring import make_log_store
from sandbox.past import BREAK_GLASS, PEOPLE, PLATFORM, SSO, TAG, Past, Person, clients_by_account
from tests.component.operated import ACCOUNT as ACCOUNT
from tests.component.operated import CREDENTIALS, PROJECT, REGION, client, world

INCIDENTS = 215
OTHERS = ("111122223333", "444455556666")
REGIONS = ("us-east-1", "us-west-2", "eu-west-1", "eu-central-1")
SCRIPT = "<script>document.title='run'</script>"
"""If this ever runs, the page's title says so."""

HOSTILE = Person(f'"><i>/{SCRIPT}/Mallory', f"curl/8 {SCRIPT}<img src=x onerror=alert(1)>", f"'onfocus={SCRIPT}")
TICKET = f"INC-66 {SCRIPT}"


def policy_document() -> bytes:
    """The policy that ships, and before its rule one that only observes eu-central-1 of one account."""
    document = json.loads((PROJECT / "policies" / "policy.json").read_bytes())
    watched = {**document["rules"][0], "id": "pilot", "mode": "observe"}
    watched |= {"accounts": [OTHERS[1]], "regions": ["eu-central-1"]}
    document["rules"].insert(0, watched)
    return json.dumps(document, indent=2).encode()


def tell(document: bytes, now: datetime, *, hostile: bool) -> dict[str, Any]:
    """The story; answers what is known of it. `hostile` has scripts in it."""
    past = Past(ACCOUNT, REGION, parse(document), clients_by_account(), now, seed=7, people=PEOPLE)
    busy = [Target(account, region) for account in (ACCOUNT, OTHERS[0]) for region in REGIONS]
    observed, stuck, idle, quiet = (Target(OTHERS[1], region) for region in reversed(REGIONS))
    past.spread([*busy, quiet], 30, INCIDENTS)
    store = make_log_store(Clients(), REGION, AwsClock())
    names: dict[str, Any] = {}

    def note(name: str, target: Target) -> None:
        found = history.incidents(store, Filter(target=str(target)), past.clock.now(), 1)
        names[name] = found.incidents[0].id

    past.is_stuck(stuck, now - timedelta(hours=5))
    note("failed", stuck)
    for minutes in range(10, 50, 5):
        past.ticks(now - timedelta(hours=5) + timedelta(minutes=minutes))
    past.changes_setting(observed, PLATFORM, now - timedelta(hours=4), None)
    note("observed", observed)
    began, ends = now - timedelta(hours=3), now + timedelta(hours=6)
    if hostile:
        opens_break_glass(past, busy[4], began, ends)
    else:
        past.suppresses(busy[4], began, ends, "INC-2231 export of traces", TAG, PLATFORM)
    note("suppressed", busy[4])
    past.mishap(busy[0], now - timedelta(hours=2), "none", HOSTILE if hostile else SSO)
    note("hostile", busy[0])
    past.mishap(busy[6], now - timedelta(hours=1), "policy-stripped", PLATFORM)
    note("policy_changed", busy[6])
    past.checks(idle, now - timedelta(minutes=40))
    past.sweeps(now - timedelta(minutes=20), REGIONS)
    past.fights(busy[5], now - timedelta(minutes=17), 8)
    note("deferred", busy[5])
    past.ticks(now - timedelta(seconds=40))
    everything: list[IncidentView] = []
    cursor = None
    while True:
        page = history.incidents(store, Filter(), now, 200, cursor)
        everything += page.incidents
        if (cursor := page.cursor) is None:
            break
    names["incidents"] = [each.id for each in everything]
    names["of_disabled_keys"] = [each.id for each in everything if "KEY_DISABLED" in each.violations]
    names["targets"] = [state.target for state in store.states()]
    names["records"] = sum(seq for _, seq, _ in store.heads())
    return names


def opens_break_glass(past: Past, target: Target, at: datetime, ends: datetime) -> None:
    """A tag whose reason is a script, put where KMS would refuse it: what is shown must not rest on that refusal."""
    past.clock.set(at)
    key = past.managed_key(target)
    assert key is not None
    value = f"{ends:%Y%m%dT%H%M%SZ} {TICKET}"
    backend = kms_backends[target.account][target.region]
    backend.tagger.tag_resource(key.rsplit("/", 1)[-1], [{"TagKey": TAG, "TagValue": value}])
    assert (TAG, value) in past.guard_of(target.account).reach(target).keys.tags(key)
    request = {"keyId": key, "tags": [{"tagKey": TAG, "tagValue": value}]}
    past.deliver_key_event(target, BREAK_GLASS, "TagResource", key, request)
    past.changes_setting(target, SSO, at + timedelta(minutes=4), None)


def hurry_moto() -> None:
    """Leave out two things that took moto most of the time, and that this story never needs.

    moto copies both tables before every transaction, to put them back if it fails; here nobody writes at the same time,
    and the tests verify the chains. And it makes an RSA key for every KMS key, symmetric ones included.
    """
    unless_table = SimpleNamespace(
        copy=copy.copy, deepcopy=lambda value: value if isinstance(value, Table) else copy.deepcopy(value)
    )
    vars(moto.dynamodb.models)["copy"] = unless_table
    vars(moto.kms.models)["generate_private_key"] = lambda spec: None


def main(arguments: list[str]) -> int:
    """Tell, serve, and end with the process that wants it."""
    facts, pid = Path(arguments[0]), int(arguments[1])
    for name in [name for name in os.environ if name.startswith(("AWS_", "XRAY_GUARD_"))]:
        del os.environ[name]
    os.environ |= CREDENTIALS
    os.environ["AWS_DEFAULT_REGION"] = REGION
    document = policy_document()
    policy = facts.with_name("policy.json")
    policy.write_bytes(document)

    def operator() -> Operator:
        made = Operator()
        made.set_option("policy_path", str(policy))
        return made

    hurry_moto()
    with world():
        client("sqs").create_queue(QueueName=QUEUE_NAME)
        names = tell(document, datetime.now(UTC), hostile="plain" not in arguments)
        with ConsoleServer(operator, 0) as console:
            unfinished = facts.with_suffix(".part")
            unfinished.write_text(json.dumps({**names, "url": console.url}))
            unfinished.rename(facts)
            while _lives(pid):
                time.sleep(0.5)
    return 0


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
