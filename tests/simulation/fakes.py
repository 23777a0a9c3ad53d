"""`chalicelib.domain.ports` on the simulated world. `tests/contract` compares the fakes with AWS's behaviour."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NoReturn, TypeVar

import msgspec
from msgspec.structs import replace

from chalicelib.auditlog import hashchain
from chalicelib.auditlog.keyrows import PREFIX, UPGRADED, KeyRow, key_writes
from chalicelib.auditlog.states import read_state
from chalicelib.domain.effects import read_effect
from chalicelib.domain.errors import AwsError, Conflict, KeyNotOnRecord, StateEdited, StoreError
from chalicelib.domain.keypolicy.judge import judge_for_logs
from chalicelib.domain.model import Actor, Effect, EncryptionStatus, EncryptionType, Key, Setting, Subject, Target
from chalicelib.domain.ports import Loaded, Request
from chalicelib.domain.spans import SPANS_GROUP, Link, LogGroup
from chalicelib.domain.stored import GUARD_CHAIN, GuardState, Record, Tally, TargetState
from tests.simulation.world import ACCOUNT, GUARD_ROLE, Run, World

T = TypeVar("T")

OPERATOR_ARN = f"arn:aws:iam::{ACCOUNT}:user/Ops"
PENDING = ("PendingDeletion",)
NOT_WORKING = {"Disabled": "DisabledException", "PendingDeletion": "KMSInvalidStateException"}


class FakeXRay:
    """`ports.XRay`. A Put is refused if X-Ray cannot actually use the key, whatever reads show."""

    def __init__(self, world: World, run: Run, target: Target) -> None:
        self._world, self._run, self._target = world, run, target

    def get(self) -> Setting:
        def effect() -> Setting:
            setting, seen = self._world.setting(self._target), self._run.of(self._target)
            seen.told_setting, seen.told_setting_at = setting, self._world.now
            return setting

        return self._world.call(self._run, "GetEncryptionConfig", effect, self._target)

    def put(self, key_arn: str) -> tuple[Setting, str | None]:
        world, target = self._world, self._target

        def effect() -> tuple[Setting, str | None]:
            kms = world.place(target).kms
            key = kms.keys.get(kms.aliases.get(key_arn, key_arn))
            actor = Actor(GUARD_ROLE, "AssumedRole", session=self._run.function)
            updating = world.setting(target).status is EncryptionStatus.UPDATING
            if world.refuses_while_updating and updating:
                world.tell(target, actor, None, self._refused(), error_code="InvalidRequestException")
                raise AwsError("PutEncryptionConfig", "InvalidRequestException", "an update is in progress")
            if key is None or key.state != "Enabled" or key.spec != "SYMMETRIC_DEFAULT":
                world.tell(target, actor, None, self._refused(), error_code="InvalidRequestException")
                raise AwsError("xray:PutEncryptionConfig", "InvalidRequestException", f"{key_arn} cannot be used")
            answer = world.set_xray(target, EncryptionType.KMS, key.arn)
            request_id = world.mutated(target, "PutEncryptionConfig", key.arn, self._run)
            via_xray = replace(actor, via="xray.amazonaws.com")
            # X-Ray's call has a request id of its own, which the guard does not learn.
            grant = world.user_creates_grant(target, key.arn, via_xray, request_id=world.new_id("request"))
            world.guards_requests.add(grant.trigger.request_id)
            world.tell(target, actor, answer, request_id)
            return answer, request_id

        return world.call(self._run, "PutEncryptionConfig", effect, self._target)

    def _refused(self) -> str:
        request_id = self._world.new_id("request")
        self._world.guards_requests.add(request_id)
        return request_id

    def in_use(self, now: datetime) -> bool:
        return self._world.call(
            self._run, "GetServiceGraph", lambda: self._world.place(self._target).in_use, self._target
        )

    def spans_destination(self) -> tuple[str | None, str | None]:
        return self._world.call(
            self._run,
            "GetTraceSegmentDestination",
            lambda: (self._world.place(self._target).destination, "ACTIVE"),
            self._target,
        )


class FakeLogs:
    """`ports.SpanLogs`. A key is refused if CloudWatch Logs cannot actually use it, whatever reads show."""

    def __init__(self, world: World, run: Run, target: Target) -> None:
        self._world, self._run, self._target = world, run, target

    def group(self) -> LogGroup | None:
        def effect() -> LogGroup | None:
            place = self._world.place(self._target)
            group = self._run.of(self._target).told_group = place.group
            return None if place.hides_encrypted_group and group and group.key_arn else group

        return self._world.call(self._run, "DescribeLogGroups", effect, self._target)

    def associate(self, key_arn: str) -> str | None:
        world, target = self._world, self._target

        def effect() -> str:
            place = world.place(target)
            key = place.kms.keys.get(key_arn)
            if place.group is None:
                raise AwsError("logs:AssociateKmsKey", "ResourceNotFoundException", "no such log group")
            usable = key is not None and (key.state, key.spec) == ("Enabled", "SYMMETRIC_DEFAULT")
            if key is None or not usable or not judge_for_logs(key.policy or "", target, "aws").complete:
                message = "The specified KMS key does not exist or is not allowed to be used with LogGroup"
                raise AwsError("logs:AssociateKmsKey", "InvalidParameterException", message)
            place.group = replace(place.group, key_arn=key_arn)
            place.encrypts_spans_at = world.now + 300
            request_id = world.mutated(target, "AssociateKmsKey", key_arn, self._run)
            actor = Actor(GUARD_ROLE, "AssumedRole", session=self._run.function)
            effect = Effect(Subject.SPANS, SPANS_GROUP, key_arn)
            world.tell_key(target, actor, "AssociateKmsKey", (key_arn,), None, effect, request_id)
            return request_id

        return world.call(self._run, "AssociateKmsKey", effect, self._target)


class FakeLinks:
    """`ports.TraceLinks`."""

    def __init__(self, world: World, run: Run, target: Target) -> None:
        self._world, self._run, self._target = world, run, target

    def all(self) -> tuple[Link, ...]:
        return self._world.call(self._run, "ListLinks", lambda: self._world.place(self._target).links, self._target)


class FakeKeys:
    """`ports.Keys`. Reads may be stale, as the world draws it; mutations act on the actual state."""

    def __init__(self, world: World, run: Run, target: Target) -> None:
        self._world, self._run, self._target = world, run, target

    # --- reads -----------------------------------------------------------------------------------------------------

    def describe(self, key: str) -> Key | None:
        def effect() -> Key | None:
            self._run.of(self._target).told_kms_at = self._world.now
            found = self._find(key)
            if found is None:
                return None
            self._run.told_states[found.arn] = found.state
            return replace(found, policy=None, rotation=None, rotation_days=None, tags=None)

        return self._world.call(self._run, "DescribeKey", effect, self._target)

    def _find(self, name: str) -> Key | None:
        home = self._target
        if name.startswith("arn:"):
            account = name.split(":", 5)[4]
            if name.split(":", 5)[3] != home.region:
                return None
            home = Target(account, home.region)
        kms = self._world.read_kms(home)
        if name.startswith("alias/"):
            return kms.keys.get(kms.aliases.get(name, ""))
        return kms.keys.get(name) or next((key for arn, key in kms.keys.items() if arn.endswith(f"/{name}")), None)

    def policy(self, key_arn: str) -> str:
        def effect() -> str:
            text = self._shown("GetKeyPolicy", key_arn).policy or ""
            self._run.told_policies[key_arn] = text
            return text

        return self._world.call(self._run, "GetKeyPolicy", effect, self._target)

    def rotation(self, key_arn: str) -> tuple[bool, int | None]:
        def effect() -> tuple[bool, int | None]:
            key = self._shown("GetKeyRotationStatus", key_arn)
            if key.spec != "SYMMETRIC_DEFAULT" or key.origin != "AWS_KMS":
                _refuse("GetKeyRotationStatus", "UnsupportedOperationException", key_arn)
            turns = bool(key.rotation) and key.state not in PENDING
            return turns, key.rotation_days if turns else None

        return self._world.call(self._run, "GetKeyRotationStatus", effect, self._target)

    def tags(self, key_arn: str) -> tuple[tuple[str, str], ...]:
        return self._world.call(
            self._run, "ListResourceTags", lambda: self._shown("ListResourceTags", key_arn).tags or (), self._target
        )

    def find_by_tag(self, tag_key: str, tag_value: str, made_after: datetime) -> str | None:
        def effect() -> str | None:
            keys = self._world.read_kms(self._target).keys.values()
            young = (key for key in keys if key.made_at is None or key.made_at >= made_after)
            return next((key.arn for key in young if (tag_key, tag_value) in (key.tags or ())), None)

        return self._world.call(self._run, "ListKeys", effect, self._target)

    def _shown(self, operation: str, arn: str) -> Key:
        self._own(operation, arn)
        key = self._world.read_kms(self._target).keys.get(arn)
        return key if key else _refuse(operation, "NotFoundException", arn)

    def _own(self, operation: str, arn: str) -> None:
        if arn.startswith("arn:") and arn.split(":", 5)[4] != self._target.account:
            _refuse(operation, "AccessDeniedException", arn)

    # --- mutations -------------------------------------------------------------------------------------------------

    def create(self, description: str, policy: str | None, tags: Sequence[tuple[str, str]]) -> tuple[Key, str | None]:
        world, target = self._world, self._target
        given = policy
        policy = given if given is not None else default_key_policy(target)

        def effect() -> tuple[Key, str | None]:
            if world.denies_bypass and given is not None:
                _refuse("CreateKey", "AccessDeniedException", "with an explicit deny in a service control policy")
            _check_policy("CreateKey", policy)
            arn = world.new_key_arn(target)
            key = Key(
                arn,
                target.account,
                target.region,
                "Enabled",
                description=description,
                made_at=world.clock,
                policy=policy,
                rotation=False,
                tags=tuple(tags),
            )
            world.set_kms(target, world.place(target).kms.with_key(key))
            request_id = world.mutated(target, "CreateKey", arn, self._run)
            self._run.told_states[arn] = "Enabled"
            if given is not None:
                self._run.told_policies[arn] = policy
            return replace(key, policy=None, rotation=None, tags=None), request_id

        return world.call(self._run, "CreateKey", effect, self._target)

    def put_policy(self, key_arn: str, policy: str) -> str | None:
        def change(key: Key) -> Key:
            _check_policy("PutKeyPolicy", policy)
            self._run.told_policies[key_arn] = policy
            return replace(key, policy=policy)

        return self._change("PutKeyPolicy", key_arn, change, {})

    def enable(self, key_arn: str) -> str | None:
        def change(key: Key) -> Key:
            return key if key.state == "Unavailable" else replace(key, state="Enabled")

        refused = {"PendingDeletion": "KMSInvalidStateException", "PendingImport": "KMSInvalidStateException"}
        return self._change("EnableKey", key_arn, change, refused)

    def cancel_deletion(self, key_arn: str) -> str | None:
        refused = dict.fromkeys(("Enabled", "Disabled", "PendingImport", "Unavailable"), "KMSInvalidStateException")
        return self._change("CancelKeyDeletion", key_arn, lambda key: replace(key, state="Disabled"), refused)

    def enable_rotation(self, key_arn: str, days: int) -> str | None:
        def change(key: Key) -> Key:
            if key.spec != "SYMMETRIC_DEFAULT" or key.origin != "AWS_KMS":
                _refuse("EnableKeyRotation", "UnsupportedOperationException", key_arn)
            if not 90 <= days <= 2560:
                _refuse("EnableKeyRotation", "ValidationException", f"{days} days")
            return replace(key, rotation=True, rotation_days=days)

        return self._change("EnableKeyRotation", key_arn, change, NOT_WORKING)

    def create_alias(self, alias: str, key_arn: str) -> str | None:
        return self._alias("CreateAlias", alias, key_arn)

    def update_alias(self, alias: str, key_arn: str) -> str | None:
        return self._alias("UpdateAlias", alias, key_arn)

    def _alias(self, operation: str, alias: str, key_arn: str) -> str | None:
        world, target = self._world, self._target

        def effect() -> str:
            self._existing(operation, key_arn, {"PendingDeletion": "KMSInvalidStateException"})
            kms = world.place(target).kms
            if operation == "CreateAlias" and alias in kms.aliases:
                _refuse(operation, "AlreadyExistsException", alias)
            if operation == "UpdateAlias" and alias not in kms.aliases:
                _refuse(operation, "NotFoundException", alias)
            world.set_kms(target, kms.with_alias(alias, key_arn))
            request_id = world.mutated(target, operation, key_arn, self._run)
            effect = Effect(Subject.ALIAS, alias, key_arn)
            world.tell_key(target, self._self(), operation, (key_arn,), alias, effect, request_id)
            return request_id

        return world.call(self._run, operation, effect, self._target)

    def _change(self, operation: str, arn: str, change: Callable[[Key], Key], refused: dict[str, str]) -> str:
        def effect() -> str:
            key = self._existing(operation, arn, refused)
            changed = change(key)
            self._world.set_kms(self._target, self._world.place(self._target).kms.with_key(changed))
            request_id = self._world.mutated(self._target, operation, arn, self._run)
            effect = read_effect(operation, {"requestParameters": {"policy": changed.policy}}, (arn,))
            self._world.tell_key(self._target, self._self(), operation, (arn,), None, effect, request_id)
            return request_id

        return self._world.call(self._run, operation, effect, self._target)

    def _self(self) -> Actor:
        return Actor(GUARD_ROLE, "AssumedRole", session=self._run.function)

    def _existing(self, operation: str, arn: str, refused: dict[str, str]) -> Key:
        self._own(operation, arn)
        key = self._world.place(self._target).kms.keys.get(arn)
        # A key that KMS does not show everywhere yet cannot be changed everywhere yet.
        if key is None or arn not in self._world.read_kms(self._target).keys:
            return _refuse(operation, "NotFoundException", arn)
        if key.state in refused:
            _refuse(operation, refused[key.state], f"{arn} is {key.state}")
        return key


def default_key_policy(target: Target) -> str:
    """Return the policy that KMS gives to a key created without one."""
    root = {"AWS": f"arn:aws:iam::{target.account}:root"}
    statement = {"Sid": "Enable IAM User Permissions", "Effect": "Allow", "Principal": root}
    return json.dumps({"Version": "2012-10-17", "Statement": [{**statement, "Action": "kms:*", "Resource": "*"}]})


def _check_policy(operation: str, policy: str) -> None:
    try:
        statements = json.loads(policy)["Statement"]
    except (ValueError, KeyError, TypeError):
        statements = None
    if not isinstance(statements, list) or not statements:
        _refuse(operation, "MalformedPolicyDocumentException", "not a policy")


def _refuse(operation: str, code: str, message: str) -> NoReturn:
    raise AwsError(f"kms:{operation}", code, message)


class FakePrincipals:
    """`ports.Principals`."""

    def __init__(self, world: World, run: Run) -> None:
        self._world, self._run = world, run

    def tags(self, principal_arn: str) -> tuple[tuple[str, str], ...]:
        return self._world.call(
            self._run, "ListRoleTags", lambda: self._world.principal_tags.get(principal_arn, ()), principal_arn
        )


@lru_cache(maxsize=256)
def _decoded(text: bytes) -> TargetState:
    """States are immutable, and the tests read them between any two steps."""
    return read_state(text, TargetState)


@dataclass
class Tables:
    """The content of the two tables. States are kept encoded, so that nothing is shared by reference."""

    states: dict[str, tuple[int, bytes, datetime | None]] = field(default_factory=dict)
    rows: dict[str, list[hashchain.StoredRow]] = field(default_factory=dict)
    markers: set[tuple[str, str]] = field(default_factory=set)
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)
    counted: set[tuple[str, str]] = field(default_factory=set)
    keys: dict[tuple[str, str], KeyRow] = field(default_factory=dict)
    on_commit: Callable[[Run, TargetState | GuardState, TargetState | GuardState, list[Record]], None] = field(
        default=lambda run, before, after, records: None
    )

    def state(self, target: Target | str) -> TargetState:
        """Return the present state of a target."""
        held = self.states.get(str(target))
        if held is None:
            return TargetState(str(target))
        try:
            return _decoded(held[1])
        except ValueError as error:
            raise StoreError("BatchGetItem", "UnreadableState", str(error)) from error

    def hold(self, state: TargetState) -> None:
        """Put a state and its key rows into the tables, as if the guard had stored them with the next record."""
        self.states[state.target] = (state.version, msgspec.json.encode(state), state.due)
        writes = key_writes(TargetState(state.target), replace(state, seq=state.seq + 1))
        for row in (*writes.rows, *([writes.marks] if writes.marks else [])):
            self.keys.setdefault((state.target, row.sk), row)

    def guard(self) -> GuardState:
        """Return the guard's own state."""
        held = self.states.get(GUARD_CHAIN)
        return read_state(held[1], GuardState) if held else GuardState()

    def records(self, target: Target | str) -> list[Record]:
        """Return a chain's records, in order."""
        return [hashchain.unseal(row.body) for row in self.rows.get(str(target), ())]


class FakeStore:
    """`ports.Store`."""

    def __init__(self, world: World, run: Run, tables: Tables) -> None:
        self._world, self._run, self._tables = world, run, tables

    def load(self, target: str, event_id: str | None = None, tally: Tally | None = None) -> Loaded:
        def effect() -> Loaded:
            state = TargetState(target) if target == GUARD_CHAIN else self._tables.state(target)
            audited = event_id is not None and (target, event_id) in self._tables.markers
            kept = self._tables.tallies.get(tally.name, tally) if tally else None
            return Loaded(state, self._tables.guard(), audited, kept)

        return self._world.call(self._run, "BatchGetItem", effect, target)

    def commit(
        self,
        before: TargetState | GuardState,
        after: TargetState | GuardState,
        records: Sequence[tuple[Record, bytes, str]] = (),
        event_id: str | None = None,
        tally: Tally | None = None,
        closes: Tally | None = None,
        used: Sequence[str] = (),
    ) -> None:
        tables = self._tables
        writes = key_writes(before, after, used)

        def effect() -> None:
            kept = tables.tallies.get(closes.name) if closes else None
            if closes is not None and (kept is None or kept.since != closes.since):
                raise Conflict(after.target)
            version = tables.states[after.target][0] if after.target in tables.states else 0
            marker = (after.target, event_id or "")
            rows = tables.rows.setdefault(after.target, [])
            taken = {row.sk for row in rows[-8:]} & {hashchain.sort_key(record.seq) for record, _, _ in records}
            if version != before.version or taken or (event_id is not None and marker in tables.markers):
                raise Conflict(after.target)
            if writes.marks is not None and (after.target, UPGRADED) in tables.keys:
                raise StateEdited(after.target)
            for check in writes.checks:
                row = tables.keys.get((after.target, check.sk))
                if row is None or row.how != check.how:
                    raise KeyNotOnRecord(after.target, check.sk.removeprefix(PREFIX))
            becoming = [check.becomes for check in writes.checks if check.becomes]
            for row in (*writes.rows, *becoming, *([writes.marks] if writes.marks else [])):
                tables.keys[after.target, row.sk] = row
            for record, body, digest in records:
                index = hashchain.time_index(record.target, record.seq, record.at)
                rows.append(hashchain.StoredRow(record.target, hashchain.sort_key(record.seq), body, digest, index))
            if event_id is not None:
                tables.markers.add(marker)
            if tally is not None:
                _add(tables, tally)
            if closes is not None and kept is not None:
                tables.tallies[closes.name] = replace(
                    kept,
                    since=closes.closes_at,
                    seen=kept.seen - closes.seen,
                    refused=kept.refused - closes.refused,
                    tag_changes=kept.tag_changes - closes.tag_changes,
                )
            tables.heads[after.target] = (after.seq, after.head)
            tables.states[after.target] = (after.version, msgspec.json.encode(after), after.due)
            tables.on_commit(self._run, before, after, [record for record, _, _ in records])

        self._world.call(self._run, "TransactWriteItems", effect, after.target)

    def count(self, event_id: str, tally: Tally) -> None:
        def effect() -> None:
            marker = (tally.target, event_id)
            if marker in self._tables.markers:
                raise Conflict(tally.target)
            self._tables.markers.add(marker)
            self._tables.counted.add(marker)
            _add(self._tables, tally)

        self._world.call(self._run, "TransactWriteItems", effect, tally.target)

    def over(self, now: datetime, limit: int) -> Sequence[Tally]:
        def effect() -> list[Tally]:
            waiting = sorted(self._tables.tallies.values(), key=lambda tally: tally.since)
            return [tally for tally in waiting if tally.closes_at <= now][:limit]

        return self._world.call(self._run, "Query", effect, "")

    def forget(self, tally: Tally) -> None:
        def effect() -> None:
            if self._tables.tallies.get(tally.name) == tally:
                del self._tables.tallies[tally.name]

        self._world.call(self._run, "PutItem", effect, tally.target)

    def due(self, now: datetime, limit: int) -> list[str]:
        def effect() -> list[str]:
            waiting = sorted((due, name) for name, (_, _, due) in self._tables.states.items() if due and due <= now)
            return [name for _, name in waiting[:limit]]

        return self._world.call(self._run, "Query", effect, "")

    def states(self) -> Iterable[TargetState]:
        return self._world.call(
            self._run,
            "Scan",
            lambda: [self._tables.state(name) for name in self._tables.states if name != GUARD_CHAIN],
            "",
        )

    def heads(self) -> Iterable[tuple[str, int, str]]:
        return self._world.call(
            self._run, "Scan", lambda: [(name, seq, head) for name, (seq, head) in self._tables.heads.items()], ""
        )


def _add(tables: Tables, tally: Tally) -> None:
    kept = tables.tallies.get(tally.name, replace(tally, seen=0, refused=0, tag_changes=0))
    tables.tallies[tally.name] = replace(
        kept,
        seen=kept.seen + tally.seen,
        refused=kept.refused + tally.refused,
        tag_changes=kept.tag_changes + tally.tag_changes,
    )


class FakeClock:
    """AWS's time as in a response's `Date` header: up to a second behind."""

    def __init__(self, world: World, behind_seconds: float) -> None:
        self._world, self._behind = world, timedelta(seconds=behind_seconds)

    def now(self) -> datetime:
        return self._world.clock - self._behind


class FakeRequests:
    """`ports.Requests` in memory, with these targets pending."""

    def __init__(self, *targets: str) -> None:
        self.waiting = [Request(target, "2026-11-20T12:00:00Z", OPERATOR_ARN) for target in targets]

    def pending(self, limit: int) -> Sequence[Request]:
        return self.waiting[:limit]

    def done(self, request: Request) -> None:
        self.waiting.remove(request)


class Gathered:
    """Reads issued together complete in any order; all of them complete before the first error is raised."""

    def __init__(self, world: World, run: Run, *, shuffled: bool) -> None:
        self._world, self._run, self._shuffled = world, run, shuffled

    def __call__(self, reads: Sequence[Callable[[], T]]) -> list[T]:
        order = list(range(len(reads)))
        if self._shuffled:
            self._world.rng.shuffle(order)
        answers: dict[int, T] = {}
        errors: dict[int, Exception] = {}
        self._run.rounds += bool(order)
        self._run.gathering = True
        for number in order:
            try:
                answers[number] = reads[number]()
            except Exception as error:
                errors[number] = error
        self._run.gathering = False
        if errors:
            raise errors[min(errors)]
        return [answers[number] for number in range(len(reads))]


class FannedOut:
    """`ports.FanOut`: runs over several targets, as threads of one process."""

    def __init__(self, world: World, at_once: int) -> None:
        self._world, self._at_once = world, at_once

    def __call__(self, jobs: Sequence[Callable[[], None]]) -> None:
        self._world.fan_out(jobs, self._at_once)
