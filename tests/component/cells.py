"""The world of the table in `test_who_did_what`: two people act on a target, whatever the guard is doing there.

Each cell of the table is a target of its own, a made-up Region of one account: cells do not touch each other, and
the guard's functions start only once. All cells go through the same phases of the day together; see `Day`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from msgspec.structs import replace

from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.domain.events import read_change
from chalicelib.domain.keypolicy.wanted import initial_policy
from chalicelib.domain.lanes import OF_STEPS
from chalicelib.domain.model import ChangeEvent, Target, Trigger, TriggerKind
from chalicelib.domain.policy import Policy, parse
from chalicelib.domain.ports import Reach
from chalicelib.domain.stored import Backoff, Record
from chalicelib.loop.guard import Guard
from chalicelib.loop.pause import pause, resume
from chalicelib.loop.reconcile import reconcile
from chalicelib.wiring import make_guard, make_store
from sandbox.server import Sandbox
from sandbox.trail import CALL_DETAIL_TYPE
from sandbox.trail import event as on_the_bus
from tests.component.guarded import ALIAS, guarded, policy_members, records_of, repackaged, setting_of
from tests.component.operated import with_models

ACCOUNT = "123456789012"
HOME = "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/xray-guard"
ALICE = f"arn:aws:iam::{ACCOUNT}:user/alice"
MALLORY = f"arn:aws:iam::{ACCOUNT}:role/mallory"
NINA = f"arn:aws:iam::{ACCOUNT}:role/SecurityBreakGlass"
TAG = "xray-guard-break-glass"
HOUR = 3600.0

IDLE, IN_PROGRESS, BACKOFF, PAUSED, BREAK_GLASS, OBSERVE = (
    "idle",
    "in progress",
    "backoff",
    "paused",
    "break-glass",
    "observe",
)
DOING = (IDLE, IN_PROGRESS, BACKOFF, PAUSED, BREAK_GLASS, OBSERVE)
TWICE, LATE, SAME_SECOND = "twice", "late", "same second"
ARRIVALS = (TWICE, LATE, SAME_SECOND)
"""Each event at once, and again after the next one; after the repair; both at once, with the same time."""

ORDERS = ("setting", "key")
"""Which of the two things is changed first: alice always changes the setting, and mallory the key."""


class _Killed(BaseException):
    """The worker's process ends here."""


@dataclass
class Cell:
    """One target. `events` are those of what alice and mallory did there, as EventBridge delivers them."""

    doing: str
    arrival: str
    first: str
    key_arn: str = ""
    events: dict[str, Any] = field(default_factory=dict)
    setting_before: str = ""

    @property
    def region(self) -> str:
        doing = "".join(letter for letter in self.doing if letter.isalpha())
        return f"us-{doing}-{ARRIVALS.index(self.arrival)}{ORDERS.index(self.first)}"

    @property
    def target(self) -> Target:
        return Target(ACCOUNT, self.region)

    @property
    def name(self) -> str:
        return f"{self.doing}, {self.arrival}, {self.first} first"


CELLS = tuple(Cell(*each) for each in itertools.product(DOING, ARRIVALS, ORDERS))


def observe_some(document: Any) -> None:
    """The policy that ships, and before its rule one that only observes."""
    document["rules"].insert(0, {**document["rules"][0], "id": "pilot", "mode": "observe", "regions": ["us-observe-*"]})


@contextmanager
def spent_day(folder: Path, set_variable: Callable[[str, str], None]) -> Iterator[Day]:
    """The sandbox after everything of the table has happened in it; the environment points to it."""
    package = repackaged(folder, policy_members(folder, observe_some))
    policy = parse((folder / "policies" / "policy.json").read_bytes())
    with guarded(package, account=ACCOUNT, clock_behind_seconds=24 * HOUR) as sandbox:
        for name, value in sandbox.environment().items():
            set_variable(name, value)
        day = Day(sandbox, policy)
        day.passes()
        yield day


class Day:
    """What happens: all is made compliant; people act; minutes go by, and the guard sweeps; the late events arrive."""

    def __init__(self, sandbox: Sandbox, policy: Policy) -> None:
        self.sandbox = sandbox
        self.policy = policy
        self.people = People(sandbox)

    def passes(self) -> None:
        for cell in CELLS:
            self._makes_compliant(cell)
        self._sweeps(CELLS)
        # In the second of an observation it is not known which came first, a change or what was seen.
        self.sandbox.turn(clock_behind_seconds=24 * HOUR - 10)
        paused = [cell for cell in CELLS if cell.doing == PAUSED]
        others = [cell for cell in CELLS if cell.doing != PAUSED]
        guard = self._guard()
        pause(guard, Trigger(TriggerKind.OPERATOR), "an operator", "the table")
        for cell in paused:
            self._people_act(cell)
        self._sweeps(paused)
        self._late_events_arrive(paused)
        resume(guard, Trigger(TriggerKind.OPERATOR), "an operator")
        for cell in others:
            self._guard_is_busy(cell)
            self._people_act(cell)
        # The lease and the backoff end.
        self.sandbox.let_go_by(0.1 * HOUR)
        self._sweeps(others)
        self._late_events_arrive(others)
        self.sandbox.let_go_by(0.1 * HOUR)
        for _ in range(2):
            self.sandbox.run_schedule("tick")
            assert self.sandbox.idle(60)

    # --- the phases ------------------------------------------------------------------------------------------------

    def _makes_compliant(self, cell: Cell) -> None:
        kms = self.sandbox.client("kms", cell.region)
        rule = self.policy.rule_for(cell.target)
        assert rule is not None
        tags = [{"TagKey": "xray-guard", "TagValue": "managed"}]
        made = kms.create_key(Policy=initial_policy(rule, cell.target, "aws"), Tags=tags)
        cell.key_arn = made["KeyMetadata"]["Arn"]
        kms.enable_key_rotation(KeyId=cell.key_arn)
        kms.create_alias(AliasName=ALIAS, TargetKeyId=cell.key_arn)
        self.sandbox.client("xray", cell.region).put_encryption_config(Type="KMS", KeyId=cell.key_arn)

    def _sweeps(self, cells: tuple[Cell, ...] | list[Cell]) -> None:
        self.sandbox.turn(regions=[HOME, *(cell.region for cell in cells)])
        self.sandbox.run_schedule("sweep")
        assert self.sandbox.idle(120)

    def _guard_is_busy(self, cell: Cell) -> None:
        match cell.doing:
            case "in progress":
                self._worker_is_lost(cell)
            case "backoff":
                self._backs_off(cell)
            case "break-glass":
                self._opens_break_glass(cell)

    def _worker_is_lost(self, cell: Cell) -> None:
        """Another worker begins to remediate what the administrator did, and is killed. Its lease continues."""
        self.sandbox.client("xray", cell.region).put_encryption_config(Type="KMS", KeyId="alias/aws/xray")
        change = read_change(self._latest("PutEncryptionConfig"))
        assert isinstance(change, ChangeEvent)
        try:
            reconcile(self._guard(dies_at_put=True), cell.target, change.trigger, change)
        except _Killed:
            return
        raise AssertionError("the worker was not killed")

    def _backs_off(self, cell: Cell) -> None:
        """The target was remediated too often, and the guard waits for two more minutes."""
        store, clock = self._store
        state = store.load(str(cell.target)).state
        now = clock.now()
        backoff = Backoff(4, now - timedelta(seconds=30), now + timedelta(minutes=2))
        store.commit(state, replace(state, version=state.version + 1, backoffs=dict.fromkeys(OF_STEPS, backoff)))

    def _opens_break_glass(self, cell: Cell) -> None:
        value = "20991231T000000Z INC-1"
        self.people.client("nina", "kms", cell.region).tag_resource(
            KeyId=cell.key_arn, Tags=[{"TagKey": TAG, "TagValue": value}]
        )
        self._deliver(self._latest("TagResource"))

    def _people_act(self, cell: Cell) -> None:
        deeds = {"setting": self._alice_sets_none, "key": self._mallory_disables_the_key}
        order = ["setting", "key"] if cell.first == "setting" else ["key", "setting"]
        for what in order:
            cell.events[what] = deeds[what](cell)
            if cell.arrival == TWICE:
                self._deliver(cell.events[what])
        events = [cell.events[what] for what in order]
        if cell.arrival == SAME_SECOND:
            events[1]["detail"]["eventTime"] = events[0]["detail"]["eventTime"]
        if cell.arrival != LATE:
            for event in events:
                self._deliver(event)

    def _alice_sets_none(self, cell: Cell) -> Any:
        cell.setting_before = f"KMS {setting_of(self.sandbox, cell.region)['KeyId']}"
        self.people.client("alice", "xray", cell.region).put_encryption_config(Type="NONE")
        return self._latest("PutEncryptionConfig")

    def _mallory_disables_the_key(self, cell: Cell) -> Any:
        self.people.client("mallory", "kms", cell.region).disable_key(KeyId=cell.key_arn)
        return self._latest("DisableKey")

    def _late_events_arrive(self, cells: list[Cell]) -> None:
        for cell in cells:
            if cell.arrival == LATE:
                for event in cell.events.values():
                    self._deliver(event)

    # --- the parts -------------------------------------------------------------------------------------------------

    def _latest(self, name: str) -> Any:
        """The event of the latest call with this name, as its Region's rule forwards it to the guard's Region."""
        record = next(each for each in reversed(self.sandbox.trail.records) if each["eventName"] == name)
        source = "aws." + record["eventSource"].partition(".")[0]
        return json.loads(json.dumps(on_the_bus(source, CALL_DETAIL_TYPE, ACCOUNT, record["awsRegion"], record, [])))

    def _deliver(self, event: Any) -> None:
        assert self.sandbox.bus.deliver(event, account=ACCOUNT, region=HOME) == 1
        assert self.sandbox.idle(60)

    @cached_property
    def _session(self) -> Any:
        return with_models(botocore.session.Session())

    @cached_property
    def _store(self) -> Any:
        clock = AwsClock()
        store = make_store(Clients(self._session), HOME, clock)
        return store, clock

    def _guard(self, *, dies_at_put: bool = False) -> Guard:
        made = make_guard(
            Clients(self._session),
            self.policy,
            account=ACCOUNT,
            partition="aws",
            region=HOME,
            role_arn=ROLE,
            emit=lambda record: None,
            lease_seconds=120,
            worker="another/1",
        )
        if not dies_at_put:
            return made
        reach_of = made.reach

        class Dying:
            def __init__(self, xray: Any) -> None:
                self._xray = xray

            def __getattr__(self, name: str) -> Any:
                return getattr(self._xray, name)

            def put(self, key_arn: str) -> Any:
                raise _Killed

        def reach(target: Target) -> Reach:
            whole = reach_of(target)
            return replace(whole, xray=Dying(whole.xray))

        return replace(made, reach=reach)

    def records(self, cell: Cell) -> list[Record]:
        return records_of(self.sandbox, str(cell.target))


class People:
    """Alice is a user; mallory and nina are sessions of roles."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        iam = sandbox.client("iam")
        iam.create_user(UserName="alice")
        key = iam.create_access_key(UserName="alice")["AccessKey"]
        self._credentials = {
            "alice": {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]},
            "mallory": sandbox.credentials(MALLORY, "shell"),
            "nina": sandbox.credentials(NINA, "nina"),
        }
        self._session = boto3.Session(botocore_session=with_models(botocore.session.Session()))

    def client(self, who: str, service: str, region: str) -> Any:
        return self._session.client(
            service, region_name=region, endpoint_url=self._sandbox.url, **self._credentials[who]
        )
