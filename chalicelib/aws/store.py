"""The functions' calls to the tables: load, commit, due targets, operators' requests, every state and head.

A record, its marker, the target's new state and the record's part of the figures are written in one transaction, on the
condition that the state's version is unchanged. The request has a client token, so a retry is idempotent.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from chalicelib.auditlog import daily_totals, hashchain, keyrows
from chalicelib.aws.clients import Clients, call
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.tables import (
    ASKED_PREFIX,
    ASKED_SHARD,
    DUE_INDEX,
    DUE_SHARD,
    MOST_KEYS_A_BATCH,
    ROSTER,
    ROSTER_SHARDS,
    TALLY_PREFIX,
    TALLY_SHARD,
    State,
    Tables,
    read_state,
    read_tally,
)
from chalicelib.domain.errors import AwsError, Conflict, GuardError, KeyNotOnRecord, StateEdited
from chalicelib.domain.ports import Loaded, Request
from chalicelib.domain.stored import GUARD_CHAIN, GuardState, Record, Tally, TargetState
from chalicelib.domain.times import stamp

LOST_RACES = frozenset({"ConditionalCheckFailed", "TransactionConflict"})
CROWDED = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
"""The reasons for which DynamoDB cancels a transaction because others write an item at the same time."""

MOST_SHARDS_TRIED = 4


class DynamoStore:
    """`ports.Store` and `ports.Requests`."""

    def __init__(self, clients: Clients, region: str, clock: AwsClock, audit_table: str, targets_table: str) -> None:
        self._tables = Tables(clients, region, clock, audit_table, targets_table)

    def load(self, target: str, event_id: str | None = None, tally: Tally | None = None) -> Loaded:
        """One BatchGetItem with consistent reads: the target, the guard, the tally, and the event's marker."""
        tally_name = f"{TALLY_PREFIX}{tally.name}" if tally else None
        names = [name for name in dict.fromkeys((target, GUARD_CHAIN, tally_name)) if name]
        wanted: dict[str, Any] = {
            self._tables.targets: {"Keys": [{"target": {"S": name}} for name in names], "ConsistentRead": True}
        }
        if event_id is not None:
            key = {"target": {"S": target}, "sk": {"S": hashchain.marker_key(event_id)}}
            wanted[self._tables.audit] = {"Keys": [key], "ConsistentRead": True, "ProjectionExpression": "sk"}
        states: dict[str, str] = {}
        audited = False
        for items in self._tables.batches(wanted):
            for item in items.get(self._tables.targets, ()):
                if item["target"]["S"] == tally_name:
                    tally = read_tally(item) or tally
                else:
                    states[item["target"]["S"]] = item["state"]["S"]
            audited = audited or bool(items.get(self._tables.audit))
        state = read_state(states[target], TargetState) if target in states and target != GUARD_CHAIN else None
        guard = read_state(states[GUARD_CHAIN], GuardState) if GUARD_CHAIN in states else None
        return Loaded(state or TargetState(target), guard or GuardState(), audited, tally)

    def commit(
        self,
        before: State,
        after: State,
        records: Sequence[tuple[Record, bytes, str]] = (),
        event_id: str | None = None,
        tally: Tally | None = None,
        closes: Tally | None = None,
        used: Sequence[str] = (),
    ) -> None:
        """One TransactWriteItems. Raises Conflict, KeyNotOnRecord or StateEdited; then nothing was written.

        The figures never prevent a record from being stored. If another target adds to the same shard at this moment,
        another shard is used; what DynamoDB refuses to add is omitted.
        """
        writes = [self._tables.put_record(record, body, digest) for record, body, digest in records]
        if event_id is not None:
            writes.append(self._tables.put_marker(after.target, event_id, after.seq))
        writes.append(self._tables.put_state(before, after))
        if before.version == 0:
            writes.append(self._tables.enrol(after.target))
        if tally is not None:
            writes.append(self._tables.add_to_tally(tally))
        if closes is not None:
            writes.append(self._tables.close_tally(closes))
        keys = keyrows.key_writes(before, after, used)
        writes += [self._tables.put_key(after.target, row) for row in keys.rows]
        raced = len(writes)
        if keys.marks is not None:
            writes.append(self._tables.mark_protected(after.target, keys.marks))
        writes += [self._tables.check_key(after.target, key) for key in keys.checks]
        additions = daily_totals.additions(before, after, [record for record, _, _ in records])
        for _ in range(MOST_SHARDS_TRIED):
            shard = random.randrange(daily_totals.SHARDS)
            adds = [self._tables.add(addition, shard) for addition in additions]
            try:
                call(
                    "dynamodb:TransactWriteItems",
                    self._tables.client.transact_write_items,
                    TransactItems=[*writes, *adds],
                )
                return
            except AwsError as error:
                if error.code != "TransactionCanceledException":
                    raise
                reasons = error.cancellation_reasons
                of_writes, of_adds = reasons[: len(writes)], reasons[len(writes) :]
                if not LOST_RACES.isdisjoint(of_writes[:raced]) or "TransactionConflict" in of_writes:
                    raise Conflict(str(after.target)) from error
                refused = _refused(after.target, keys, of_writes[raced:])
                if refused is not None:
                    raise refused from error
                if len(of_adds) != len(adds) or set(of_writes) != {"None"} or set(of_adds) <= {"None"}:
                    raise
                additions = [
                    addition
                    for addition, reason in zip(additions, of_adds, strict=True)
                    if reason == "None" or reason in CROWDED
                ]
        raise Conflict(str(after.target))

    def count(self, event_id: str, tally: Tally) -> None:
        """One TransactWriteItems: the event's marker, and the tally."""
        writes = [self._tables.put_marker(tally.target, event_id, None), self._tables.add_to_tally(tally)]
        try:
            call("dynamodb:TransactWriteItems", self._tables.client.transact_write_items, TransactItems=writes)
        except AwsError as error:
            if LOST_RACES.isdisjoint(error.cancellation_reasons):
                raise
            raise Conflict(tally.target) from error

    def over(self, now: datetime, limit: int) -> list[Tally]:
        """Query the sparse index of tallies, then BatchGetItem of those whose time is over."""
        answer = self._tables.query(
            self._tables.targets,
            IndexName=DUE_INDEX,
            KeyConditionExpression="due_shard = :tally AND due_at <= :now",
            ExpressionAttributeValues={":tally": {"S": TALLY_SHARD}, ":now": {"S": stamp(now)}},
            Limit=min(limit, MOST_KEYS_A_BATCH),
        )
        items = self._tables.get_all([item["target"]["S"] for item in answer["Items"]], ConsistentRead=True)
        return sorted((tally for item in items if (tally := read_tally(item))), key=lambda tally: tally.since)

    def forget(self, tally: Tally) -> None:
        """PutItem without the index's attributes, unless calls were added meanwhile."""
        try:
            call("dynamodb:PutItem", self._tables.client.put_item, **self._tables.empty_tally(tally))
        except AwsError as error:
            if error.code != "ConditionalCheckFailedException":
                raise

    def due(self, now: datetime, limit: int) -> list[str]:
        """Query the sparse index of due targets."""
        answer = self._tables.query(
            self._tables.targets,
            IndexName=DUE_INDEX,
            KeyConditionExpression="due_shard = :due AND due_at <= :now",
            ExpressionAttributeValues={":due": {"S": DUE_SHARD}, ":now": {"S": stamp(now)}},
            Limit=limit,
        )
        return [item["target"]["S"] for item in answer["Items"]]

    def pending(self, limit: int) -> list[Request]:
        """Query the sparse index; if there are requests, BatchGetItem of their operators."""
        answer = self._tables.query(
            self._tables.targets,
            IndexName=DUE_INDEX,
            KeyConditionExpression="due_shard = :asked",
            ExpressionAttributeValues={":asked": {"S": ASKED_SHARD}},
            Limit=min(limit, MOST_KEYS_A_BATCH),
        )
        names = [item["target"]["S"] for item in answer["Items"]]
        waiting = [item for item in self._tables.get_all(names) if "due_at" in item]
        return [
            Request(item["target"]["S"].removeprefix(ASKED_PREFIX), item["due_at"]["S"], item["by"]["S"])
            for item in sorted(waiting, key=lambda item: str(item["due_at"]["S"]))
        ]

    def done(self, request: Request) -> None:
        """PutItem without the index's attributes, unless the target was requested again meanwhile."""
        item = {
            "target": {"S": f"{ASKED_PREFIX}{request.target}"},
            "by": {"S": request.by},
            "asked_at": {"S": request.at},
        }
        try:
            call(
                "dynamodb:PutItem",
                self._tables.client.put_item,
                TableName=self._tables.targets,
                Item=item,
                ConditionExpression="due_at = :at",
                ExpressionAttributeValues={":at": {"S": request.at}},
            )
        except AwsError as error:
            if error.code != "ConditionalCheckFailedException":
                raise

    def states(self) -> Iterator[TargetState]:
        """Yield every target's state, by the roster; not the guard's own."""
        names = [name for name in self._roster() if name != GUARD_CHAIN]
        for item in self._each(names, ProjectionExpression="#state", ExpressionAttributeNames={"#state": "state"}):
            yield read_state(item["state"]["S"], TargetState)

    def heads(self) -> Iterator[tuple[str, int, str]]:
        """Yield (chain, seq, hash) of every head, by the roster, from the attributes stored next to the state."""
        for item in self._each(self._roster(), ProjectionExpression="target, seq, head"):
            yield item["target"]["S"], int(item["seq"]["N"]), item["head"]["S"]

    def _roster(self) -> list[str]:
        """Return the name of every chain that has a state."""
        shards = self._each([f"{ROSTER}#{shard}" for shard in range(ROSTER_SHARDS)])
        return sorted(name for item in shards for name in item["names"]["SS"])

    def _each(self, names: Sequence[str], **parameters: Any) -> Iterator[dict[str, Any]]:
        return self._tables.get_all(names, ConsistentRead=True, **parameters)


def _refused(target: str, keys: keyrows.KeyWrites, reasons: Sequence[str]) -> GuardError | None:
    """Return what a failed condition on a key row means. `reasons` are those of the mark, if any, and of the checks."""
    if "ConditionalCheckFailed" not in reasons:
        return None
    if keys.marks is not None:
        return StateEdited(target)
    return KeyNotOnRecord(target, keys.checks[reasons.index("ConditionalCheckFailed")].removeprefix(keyrows.PREFIX))
