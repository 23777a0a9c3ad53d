"""AWS in memory, on one virtual clock: what the simulation's fakes read and change.

Nothing here waits in real time. Each caller of AWS is a greenlet: one that waits switches to the scheduler, which
resumes the one that is due next. So one seed always gives the same story. KMS is kept as a history of immutable states,
so that a read can return a stale one.
"""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet
from msgspec import structs

from chalicelib.domain.effects import read_effect
from chalicelib.domain.errors import UNANSWERED, AwsError, StoreError
from chalicelib.domain.model import (
    Actor,
    ChangeEvent,
    Effect,
    EncryptionStatus,
    EncryptionType,
    Key,
    KeyEvent,
    Setting,
    Subject,
    Target,
    Trigger,
    TriggerKind,
)
from chalicelib.domain.spans import IN_LOGS, SPANS_GROUP, TRACES, Link, LogGroup

T = TypeVar("T")

START = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
ACCOUNT = "111122223333"
HOME = Target(ACCOUNT, "us-east-1")
GUARD_ROLE = f"arn:aws:iam::{ACCOUNT}:role/xray-guard"
ALICE = Actor(f"arn:aws:iam::{ACCOUNT}:user/Alice", "IAMUser")
LONGEST_STALENESS_SECONDS = 240.0

MUTATIONS = frozenset(
    {
        "PutEncryptionConfig",
        "CreateKey",
        "PutKeyPolicy",
        "EnableKey",
        "CancelKeyDeletion",
        "EnableKeyRotation",
        "CreateAlias",
        "UpdateAlias",
        "AssociateKmsKey",
    }
)
"""The calls that change X-Ray, KMS or CloudWatch Logs."""

STORE = frozenset({"BatchGetItem", "TransactWriteItems", "Query", "Scan"})
"""The calls to the guard's own tables."""


_WHO = f"User: arn:aws:sts::{ACCOUNT}:assumed-role/xray-guard/sweep is not authorized to perform this"
REFUSALS = {
    "denied by the organization": f"{_WHO} with an explicit deny in a service control policy",
    "denied": f"{_WHO} because no identity-based policy allows it",
}


class Crash(BaseException):
    """The process dies here. It is a BaseException, so that no `except Exception` hides it."""


@dataclass(frozen=True)
class Kms:
    """KMS's keys and aliases in one target at one moment. `aliases` maps a name to a key's ARN."""

    keys: Mapping[str, Key] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def with_key(self, key: Key) -> Kms:
        return replace(self, keys={**self.keys, key.arn: key})

    def with_alias(self, alias: str, arn: str | None) -> Kms:
        aliases = {name: key for name, key in self.aliases.items() if name != alias}
        return replace(self, aliases={**aliases, alias: arn} if arn else aliases)


@dataclass
class Place:
    """One target's AWS: X-Ray's setting, the history of its KMS, where spans are stored, and the links.

    `encrypts_spans_at` is when CloudWatch Logs has taken up the key of `group`.
    """

    type: EncryptionType = EncryptionType.NONE
    key_arn: str | None = None
    settles_at: float = 0.0
    in_use: bool = True
    destination: str = "XRay"
    group: LogGroup | None = None
    encrypts_spans_at: float = 0.0
    hides_encrypted_group: bool = False
    links: tuple[Link, ...] = ()
    times: list[float] = field(default_factory=lambda: [float("-inf")])
    history: list[Kms] = field(default_factory=lambda: [Kms()])

    @property
    def kms(self) -> Kms:
        """KMS's actual present state."""
        return self.history[-1]

    def kms_as_of(self, then: float) -> Kms:
        """Return KMS's state at a former time."""
        return self.history[bisect_right(self.times, then) - 1]


@dataclass
class Seen:
    """What one invocation knows of one target. `lease_number` and `lease_until` are what it stored itself."""

    lease_number: int | None = None
    lease_until: datetime | None = None
    told_setting: Setting | None = None
    told_setting_at: float = float("-inf")
    told_kms_at: float = float("-inf")
    told_group: LogGroup | None = None


@dataclass
class Run:
    """One invocation of one function, with what its reads returned.

    `about` is the target of its latest call. `rounds` counts round trips of an invocation for one target; reads issued
    together take one.
    """

    name: str
    function: str
    deadline: float | None = None
    calls: list[str] = field(default_factory=list)
    about: str = ""
    rounds: int = 0
    gathering: bool = False
    told_states: dict[str, str] = field(default_factory=dict)
    told_policies: dict[str, str] = field(default_factory=dict)
    begun_at: float = float("-inf")
    seen: dict[str, Seen] = field(default_factory=dict)

    def of(self, target: Target | str) -> Seen:
        """Return what it knows of one target."""
        return self.seen.setdefault(str(target), Seen())


@dataclass(frozen=True)
class Mutation:
    """A change that took effect. `run` is None if a user made it."""

    at: float
    target: Target
    name: str
    key_arn: str | None
    run: Run | None


@dataclass(frozen=True)
class Deed:
    """A change as it was really made: what is at `resource` since then, and who made it so."""

    at: float
    target: Target
    actor: Actor
    event_id: str
    effect: Effect


@dataclass(frozen=True)
class Hazard:
    """A fault of one call: `crash`, `throttle`, `silence` (no response), `bug`, `not offered` or one of REFUSALS.

    `late`: it happens after the call took effect.
    """

    kind: str
    late: bool = False


class _Task:
    """Work that may wait."""

    def __init__(self, work: Callable[[], object], deadline: float | None, ended: Callable[[], None]) -> None:
        self.deadline = deadline
        self.killed = False
        self._work = work
        self._ended = ended
        self._greenlet = greenlet(self._live)

    def _live(self) -> None:
        try:
            if not self.killed:
                self._work()
        finally:
            self._ended()

    def resume(self) -> None:
        """Let the work go on until it pauses or ends."""
        self._greenlet.parent = getcurrent()
        self._greenlet.switch()

    def pause(self) -> None:
        """Return from the `resume` under way, until the next one."""
        assert self._greenlet.parent is not None
        self._greenlet.parent.switch()


class World:
    """The simulated AWS and its clock. Everything random is drawn from `rng`.

    `hazard(run, call number, name)` returns a call's fault. `latency` and `staleness` draw seconds; `delivery` draws
    the delays of a change's event: none for a lost one, several for duplicates. `settling` draws how long X-Ray is
    UPDATING after a change; `refuses_while_updating`: it refuses another change meanwhile. `denies_bypass`: a service
    control policy denies creating a key that bypasses KMS's lock-out safety check. `appearing` draws how long it takes
    until Event history shows an event; `history` are its events, each with the time from which it is shown.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        hazard: Callable[[Run, int, str], Hazard | None] = lambda run, number, name: None,
        latency: Callable[[Random, str], float] = lambda rng, name: 0.02,
        staleness: Callable[[Random], float] = lambda rng: 0.0,
        delivery: Callable[[Random], list[float]] = lambda rng: [2.0],
        settling: Callable[[Random], float] = lambda rng: 1.0,
        refuses_while_updating: bool = False,
        denies_bypass: bool = False,
        appearing: Callable[[Random], float] = lambda rng: 60.0,
    ) -> None:
        self.appearing = appearing
        self.history: list[tuple[float, ChangeEvent | KeyEvent]] = []
        self.rng = Random(seed)
        self.hazard = hazard
        self.latency = latency
        self.staleness = staleness
        self.delivery = delivery
        self.settling = settling
        self.refuses_while_updating = refuses_while_updating
        self.denies_bypass = denies_bypass
        self.now = 0.0
        self.places: dict[Target, Place] = {}
        self.principal_tags: dict[str, tuple[tuple[str, str], ...]] = {}
        self.mutations: list[Mutation] = []
        self.events: list[ChangeEvent | KeyEvent] = []
        self.deeds: list[Deed] = []
        self.guards_requests: set[str | None] = set()
        self.calls = 0
        self.counted_from = 0
        self.on_event: Callable[[ChangeEvent | KeyEvent], None] = lambda event: None
        self.on_mutation: Callable[[Mutation], None] = lambda mutation: None
        self._heap: list[tuple[float, int, _Task | Callable[[], None]]] = []
        self._order = itertools.count()
        self._ids = itertools.count(1)
        self._current: _Task | None = None
        self._horizon = 0.0
        self.running = 0

    # --- time ------------------------------------------------------------------------------------------------------

    @property
    def clock(self) -> datetime:
        """AWS's time."""
        return START + timedelta(seconds=self.now)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Schedule an action that takes no time and must not wait."""
        heapq.heappush(self._heap, (self.now + seconds, next(self._order), act))

    def start(self, work: Callable[[], object], timeout: float | None = None) -> None:
        """Start work that may wait. When its timeout is over, it ends with a Crash."""
        self._begin(work, None if timeout is None else self.now + timeout)

    def _begin(self, work: Callable[[], object], deadline: float | None) -> _Task:
        def ended() -> None:
            self.running -= 1

        task = _Task(work, deadline, ended)
        self.running += 1
        heapq.heappush(self._heap, (self.now, next(self._order), task))
        return task

    def fan_out(self, jobs: Sequence[Callable[[], None]], at_once: int) -> None:
        """Do jobs for the calling work, some at the same time, as threads of one process.

        They have its deadline, and a Crash of one ends all of them and the caller.
        """
        caller = self._current
        if caller is None:
            raise AssertionError("only work that was started may fan out")
        waiting = deque(jobs)
        failures: list[BaseException] = []
        workers: list[_Task] = []
        left = min(at_once, len(jobs))
        resumed = False

        def work() -> None:
            nonlocal left, resumed
            try:
                while waiting:
                    waiting.popleft()()
            except BaseException as failure:
                failures.append(failure)
                waiting.clear()
                for worker in workers:
                    worker.killed = True
            left -= 1
            if not resumed and (failures or left == 0):
                resumed = True
                heapq.heappush(self._heap, (self.now, next(self._order), caller))

        workers += [self._begin(work, caller.deadline) for _ in range(left)]
        if workers:
            caller.pause()
        if failures:
            raise failures[0]
        if caller.killed:
            raise Crash

    def wait(self, seconds: float) -> None:
        """Let time pass for the calling work."""
        until = self.now + seconds
        task = self._current
        if task is None:
            raise AssertionError("only work that was started may wait")
        ends = task.deadline is not None and until >= task.deadline
        if ends:
            until = max(self.now, task.deadline or 0.0)
        if until > self._horizon or (self._heap and self._heap[0][0] <= until):
            heapq.heappush(self._heap, (until, next(self._order), task))
            task.pause()
        else:
            self.now = until
        if ends or task.killed:
            raise Crash

    def run(self, seconds: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Run the world for `seconds`, or until `done()`, which is checked between any two steps."""
        until = self._horizon = self.now + seconds
        while not done():
            if not self._heap or self._heap[0][0] > until:
                self.now = max(self.now, until)
                return done()
            at, _, what = heapq.heappop(self._heap)
            self.now = max(self.now, at)
            if isinstance(what, _Task):
                self._resume(what)
            else:
                what()
        return True

    def _resume(self, task: _Task) -> None:
        self._current = task
        try:
            task.resume()
        finally:
            self._current = None

    def end(self) -> None:
        """Kill all work that is still running."""
        while self._heap:
            _, _, what = heapq.heappop(self._heap)
            if isinstance(what, _Task):
                what.killed = True
                self._resume(what)

    # --- calls -----------------------------------------------------------------------------------------------------

    def call(self, run: Run, name: str, effect: Callable[[], T], about: Target | str) -> T:
        """Make one AWS call: it takes time before and after its effect, and a fault may happen on either side."""
        run.about = str(about)
        number = self.calls
        self.calls += 1
        run.calls.append(name)
        run.rounds += not run.gathering
        hazard = self.hazard(run, number, name)
        self.wait(self.latency(self.rng, name))
        if hazard and not hazard.late:
            self._befall(hazard, name)
        try:
            answer, refusal = effect(), None
        except Exception as error:
            answer, refusal = None, error
        if hazard and hazard.late:
            self._befall(hazard, name)
        self.wait(self.latency(self.rng, name))
        if refusal is not None:
            raise refusal
        return answer  # type: ignore[return-value]

    def _befall(self, hazard: Hazard, name: str) -> None:
        if hazard.kind == "crash":
            raise Crash
        if hazard.kind == "bug":
            raise RuntimeError("an unexpected bug")
        if hazard.kind == "not offered":
            raise AwsError(name, "UnknownOperationException", "this Region does not have the operation")
        if hazard.kind in REFUSALS:
            raise AwsError(name, "AccessDeniedException", REFUSALS[hazard.kind])
        failure = StoreError if name in STORE else AwsError
        if hazard.kind == "throttle":
            raise failure(name, "ThrottlingException", "too many requests")
        self.wait(8.0)
        raise failure(name, UNANSWERED, "ReadTimeoutError")

    # --- AWS as it is ----------------------------------------------------------------------------------------------

    def place(self, target: Target) -> Place:
        return self.places.setdefault(target, Place())

    def setting(self, target: Target) -> Setting:
        """Return X-Ray's present setting."""
        place = self.place(target)
        status = EncryptionStatus.ACTIVE if self.now >= place.settles_at else EncryptionStatus.UPDATING
        return Setting(place.type, place.key_arn, status)

    def read_kms(self, target: Target) -> Kms:
        """Return the state that one read of KMS sees, which may be stale."""
        age = self.staleness(self.rng)
        place = self.place(target)
        return place.kms if age <= 0 else place.kms_as_of(self.now - age)

    def set_kms(self, target: Target, kms: Kms) -> None:
        place = self.place(target)
        place.times.append(self.now)
        place.history.append(kms)

    def set_xray(self, target: Target, kind: EncryptionType, key_arn: str | None) -> Setting:
        """Change the setting and return it as UPDATING."""
        place = self.place(target)
        place.type, place.key_arn = kind, key_arn
        place.settles_at = self.now + self.settling(self.rng)
        return Setting(kind, key_arn, EncryptionStatus.UPDATING)

    def mutated(self, target: Target, name: str, key_arn: str | None, run: Run | None) -> str:
        """Note a change that took effect, and return the request id."""
        mutation = Mutation(self.now, target, name, key_arn, run)
        self.mutations.append(mutation)
        self.on_mutation(mutation)
        request_id = self.new_id("request")
        if run is not None:
            self.guards_requests.add(request_id)
        return request_id

    def new_id(self, kind: str) -> str:
        number = next(self._ids)
        return f"{number:08x}-0000-4000-8000-000000000000" if kind == "event" else f"{kind}-{number:06d}"

    def new_key_arn(self, target: Target) -> str:
        return f"arn:aws:kms:{target.region}:{target.account}:key/{self.new_id('key')}"

    def tell(self, target: Target, actor: Actor, result: Setting | None, request_id: str, **failed: Any) -> ChangeEvent:
        """Deliver CloudTrail's event of a PutEncryptionConfig, with the number and delays that `delivery` draws."""
        trigger = Trigger(
            TriggerKind.CHANGE,
            event_id=self.new_id("event"),
            event_name="PutEncryptionConfig",
            event_time=self.clock.replace(microsecond=0),
            request_id=request_id,
            actor=actor,
        )
        event = ChangeEvent(target, trigger, result, **failed)
        self._note(event)
        for delay in self.delivery(self.rng):
            self.later(delay, lambda: self.on_event(event))
        return event

    def tell_key(
        self,
        target: Target,
        actor: Actor,
        name: str,
        key_arns: tuple[str, ...],
        alias: str | None = None,
        effect: Effect | None = None,
        request_id: str | None = None,
        tag_keys: tuple[str, ...] = (),
    ) -> KeyEvent:
        """CloudTrail tells of a change to a key or an alias."""
        trigger = Trigger(
            TriggerKind.KEY,
            event_id=self.new_id("event"),
            event_name=name,
            event_time=self.clock.replace(microsecond=0),
            request_id=request_id,
            actor=actor,
        )
        event = KeyEvent(target, trigger, key_arns, alias, tag_keys, effect=effect)
        self._note(event)
        for delay in self.delivery(self.rng):
            self.later(delay, lambda: self.on_event(event))
        return event

    def _note(self, event: ChangeEvent | KeyEvent) -> None:
        self.events.append(event)
        self.history.append((self.now + self.appearing(self.rng), event))
        actor, event_id = event.trigger.actor, event.trigger.event_id
        if event.effect is not None and actor is not None and event_id is not None:
            self.deeds.append(Deed(self.now, event.target, actor, event_id, event.effect))

    # --- what users do ---------------------------------------------------------------------------------------------

    def user_puts(self, target: Target, key_arn: str | None, actor: Actor = ALICE) -> ChangeEvent:
        """A user sets X-Ray to a key, or to NONE."""
        kind = EncryptionType.KMS if key_arn else EncryptionType.NONE
        answer = self.set_xray(target, kind, key_arn)
        request_id = self.mutated(target, "PutEncryptionConfig", key_arn, None)
        return self.tell(target, actor, answer, request_id)

    def user_fails(self, target: Target, actor: Actor = ALICE) -> ChangeEvent:
        """A user's change of the setting is denied."""
        return self.tell(target, actor, None, self.new_id("request"), error_code="AccessDenied")

    def user_changes_key(self, target: Target, arn: str, actor: Actor = ALICE, /, **changes: Any) -> None:
        """A user changes a key: its state, policy, rotation or tags. Each is a call with an event of its own."""
        kms = self.place(target).kms
        calls = [call for field, value in changes.items() if (call := _call_for(field, value, kms.keys[arn].state))]
        self.set_kms(target, kms.with_key(structs.replace(kms.keys[arn], **changes)))
        self.mutated(target, "KeyChange", arn, None)
        for name, request, tags in calls or [("KeyChange", {}, ())]:
            effect = read_effect(name, {"requestParameters": request}, (arn,), tags=tags)
            self.tell_key(target, actor, name, (arn,), effect=effect, tag_keys=tuple(key for key, _ in tags))

    def user_disables_key(self, target: Target, arn: str, actor: Actor = ALICE) -> KeyEvent:
        """A user disables a key."""
        kms = self.place(target).kms
        self.set_kms(target, kms.with_key(structs.replace(kms.keys[arn], state="Disabled")))
        self.mutated(target, "DisableKey", arn, None)
        return self.tell_key(target, actor, "DisableKey", (arn,), effect=Effect(Subject.KEY_STATE, arn, "Disabled"))

    def user_creates_grant(
        self,
        target: Target,
        arn: str,
        actor: Actor = ALICE,
        grantee: str = "xray.amazonaws.com",
        request_id: str | None = None,
    ) -> KeyEvent:
        """A user, or X-Ray with a user's role, lets somebody use a key."""
        effect = Effect(Subject.GRANTS, arn, f"granted to {grantee}: Decrypt, GenerateDataKey")
        return self.tell_key(target, actor, "CreateGrant", (arn,), effect=effect, request_id=request_id)

    def user_makes_key(self, target: Target, **fields: Any) -> str:
        """A user creates a key; return its ARN."""
        arn = self.new_key_arn(target)
        given = {"policy": "{}", "rotation": False, "tags": (), **fields}
        self.set_kms(
            target,
            self.place(target).kms.with_key(Key(arn, target.account, target.region, **{"state": "Enabled", **given})),
        )
        return arn

    def user_sets_alias(self, target: Target, alias: str, arn: str | None, actor: Actor = ALICE) -> None:
        """A user creates, moves or deletes (None) an alias."""
        kms = self.place(target).kms
        touched = tuple(dict.fromkeys(key for key in (kms.aliases.get(alias), arn) if key))
        self.set_kms(target, kms.with_alias(alias, arn))
        self.mutated(target, "AliasChange", arn, None)
        effect = Effect(Subject.ALIAS, alias, arn or "deleted")
        self.tell_key(target, actor, "UpdateAlias" if arn else "DeleteAlias", touched, alias, effect)

    def user_sends_spans(self, target: Target, to: str = IN_LOGS, actor: Actor = ALICE, **group: Any) -> KeyEvent:
        """A user sets the destination of spans. The log group comes into being, unless `exists=False`."""
        place, exists = self.place(target), group.pop("exists", True)
        place.destination = to
        if to == IN_LOGS and exists and place.group is None:
            place.group = LogGroup(**group)
        self.mutated(target, "UpdateTraceSegmentDestination", None, None)
        effect = Effect(Subject.SPANS, None, to)
        return self.tell_key(target, actor, "UpdateTraceSegmentDestination", (), effect=effect)

    def user_associates(self, target: Target, key_arn: str | None, actor: Actor = ALICE) -> KeyEvent:
        """A user sets the key of the spans' log group, or takes it off."""
        place = self.place(target)
        assert place.group is not None
        place.group = structs.replace(place.group, key_arn=key_arn)
        name = "AssociateKmsKey" if key_arn else "DisassociateKmsKey"
        self.mutated(target, name, key_arn, None)
        effect = Effect(Subject.SPANS, SPANS_GROUP, key_arn or "none")
        return self.tell_key(target, actor, name, (key_arn,) if key_arn else (), effect=effect)

    def user_deletes_group(self, target: Target, actor: Actor = ALICE) -> KeyEvent:
        """A user deletes the spans' log group."""
        self.place(target).group = None
        self.mutated(target, "DeleteLogGroup", None, None)
        return self.tell_key(target, actor, "DeleteLogGroup", (), effect=Effect(Subject.SPANS, SPANS_GROUP, "deleted"))

    def user_links(
        self, target: Target, account: str, actor: Actor = ALICE, types: tuple[str, ...] = (TRACES,)
    ) -> KeyEvent:
        """A user links the target to a monitoring account."""
        arn = f"arn:aws:oam:{target.region}:{target.account}:link/{self.new_id('link')}"
        self.place(target).links = (*self.place(target).links, Link(arn, account, types))
        self.mutated(target, "CreateLink", None, None)
        effect = Effect(Subject.LINKS, arn, account) if TRACES in types else None
        return self.tell_key(target, actor, "CreateLink", (), effect=effect)

    def user_unlinks(self, target: Target, actor: Actor = ALICE) -> KeyEvent:
        """A user deletes the target's latest link."""
        *left, gone = self.place(target).links
        self.place(target).links = tuple(left)
        self.mutated(target, "DeleteLink", None, None)
        return self.tell_key(target, actor, "DeleteLink", (), effect=Effect(Subject.LINKS, gone.arn, "deleted"))


_Call = tuple[str, dict[str, object], tuple[tuple[str, str], ...]]


def _call_for(field: str, value: Any, state: str) -> _Call | None:
    """The call that sets a field of a key, its request, and the tags that it sets."""
    match field, value:
        case "state", "Disabled":
            return ("CancelKeyDeletion" if state == "PendingDeletion" else "DisableKey"), {}, ()
        case "state", "Enabled":
            return "EnableKey", {}, ()
        case "state", "PendingDeletion":
            return "ScheduleKeyDeletion", {}, ()
        case "policy", _:
            return "PutKeyPolicy", {"policy": value}, ()
        case "rotation", _:
            return ("EnableKeyRotation" if value else "DisableKeyRotation"), {}, ()
        case "tags", _:
            return "TagResource", {}, tuple(value)
    return None
