"""The two DynamoDB tables: `audit`, which is only ever added to, and `targets`, which holds the present.

audit    pk `target`, sk `r#<seq>` for a record (`body` as it was hashed, `hash`, and the time index's attributes) or
         `e#<event id>` for the marker that an event was audited
targets  pk `target`; `state` as JSON, and beside it what is queried: `version`, `seq`, `head`, and `due_shard` with
         `due_at` while something is due; beside these items, the figures of `daily_totals`, and under `ask#<target>`
         what operators asked for over the API, which is all that the API may write; `roster#<shard>` names every chain,
         so that reading them all costs what they are, and not what else is in the table

A record, its marker, the target's new state and what it adds to the figures go into one transaction, conditioned on the
state's version. The request carries a client token, so a repeated one is the same one.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from chalicelib.auditlog import daily_totals, hashchain
from chalicelib.aws.clients import Clients, call
from chalicelib.aws.clock import AwsClock
from chalicelib.domain.errors import AwsError, Conflict, StoreError
from chalicelib.domain.model import GUARD_CHAIN, GuardState, Record, TargetState
from chalicelib.domain.ports import Asked, Loaded

AUDIT_TABLE = "xray-guard-audit"
TARGETS_TABLE = "xray-guard-targets"
TIME_INDEX = "by_time"
DUE_INDEX = "by_due"
DUE_SHARD = "due"
ASKED_SHARD = "asked"
ASKED_PREFIX = "ask#"
ROSTER = "roster"
ROSTER_SHARDS = 16
"""An item holds some sixteen thousand names. It is part of every key: more may be added, with the old ones kept."""

LOST_RACES = frozenset({"ConditionalCheckFailed", "TransactionConflict"})
CROWDED = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
"""Why a transaction is cancelled for an item that others write at the same moment."""

MOST_SHARDS_TRIED = 4
MOST_BATCHES = 5
MOST_KEYS_A_BATCH = 100  # BatchGetItem's limit

State = TargetState | GuardState


class DynamoStore:
    """`ports.Store`, and the reads that the faces need."""

    def __init__(self, clients: Clients, region: str, clock: AwsClock, audit_table: str, targets_table: str) -> None:
        self._clients = clients
        self._region = region
        self._clock = clock
        self._audit = audit_table
        self._targets = targets_table
        self._hooked: Any = None

    @property
    def _client(self) -> Any:
        client = self._clients.reading("dynamodb", self._region)
        if client is not self._hooked:
            client.meta.events.register("after-call.dynamodb", self._clock.heard, unique_id="xray-guard-clock")
            self._hooked = client
        return client

    # --- the loop's ------------------------------------------------------------------------------------------------

    def load(self, target: str, event_id: str | None = None) -> Loaded:
        """One BatchGetItem with consistent reads: the target, the guard, and the event's marker."""
        names = dict.fromkeys((target, GUARD_CHAIN))
        wanted: dict[str, Any] = {
            self._targets: {"Keys": [{"target": {"S": name}} for name in names], "ConsistentRead": True}
        }
        if event_id is not None:
            key = {"target": {"S": target}, "sk": {"S": hashchain.marker_key(event_id)}}
            wanted[self._audit] = {"Keys": [key], "ConsistentRead": True, "ProjectionExpression": "sk"}
        states: dict[str, str] = {}
        audited = False
        for _ in range(5):
            answer = call("dynamodb:BatchGetItem", self._client.batch_get_item, RequestItems=wanted)
            for item in answer["Responses"].get(self._targets, ()):
                states[item["target"]["S"]] = item["state"]["S"]
            audited = audited or bool(answer["Responses"].get(self._audit))
            wanted = answer.get("UnprocessedKeys") or {}
            if not wanted:
                break
        else:
            raise StoreError("dynamodb:BatchGetItem", "UnprocessedKeys", "DynamoDB left keys unread five times")
        state = _decoded(states[target], TargetState) if target in states and target != GUARD_CHAIN else None
        guard = _decoded(states[GUARD_CHAIN], GuardState) if GUARD_CHAIN in states else None
        return Loaded(state or TargetState(target), guard or GuardState(), audited)

    def commit(
        self,
        before: State,
        after: State,
        records: Sequence[tuple[Record, bytes, str]] = (),
        event_id: str | None = None,
    ) -> None:
        """One TransactWriteItems; Conflict where somebody else wrote first, and then nothing was written.

        The figures never keep a record from being stored. Where another target is adding to the same shard at this
        moment, another shard takes them; what DynamoDB will not add at all is left out.
        """
        writes = [self._put_record(record, body, digest) for record, body, digest in records]
        if event_id is not None:
            writes.append(self._put_marker(after.target, event_id, after.seq))
        writes.append(self._put_state(before, after))
        if before.version == 0:
            writes.append(self._enrol(after.target))
        additions = daily_totals.additions(before, after, [record for record, _, _ in records])
        for _ in range(MOST_SHARDS_TRIED):
            shard = random.randrange(daily_totals.SHARDS)
            adds = [self._add(addition, shard) for addition in additions]
            try:
                call("dynamodb:TransactWriteItems", self._client.transact_write_items, TransactItems=[*writes, *adds])
                return
            except AwsError as error:
                if error.code != "TransactionCanceledException":
                    raise
                reasons = error.cancellation_reasons
                of_writes, of_adds = reasons[: len(writes)], reasons[len(writes) :]
                if not LOST_RACES.isdisjoint(of_writes):
                    raise Conflict(str(after.target)) from error
                if len(of_adds) != len(adds) or set(of_writes) != {"None"} or set(of_adds) <= {"None"}:
                    raise
                additions = [
                    addition
                    for addition, reason in zip(additions, of_adds, strict=True)
                    if reason == "None" or reason in CROWDED
                ]
        raise Conflict(str(after.target))

    def due(self, now: datetime, limit: int) -> list[str]:
        """Query of the sparse index of what is due."""
        answer = call(
            "dynamodb:Query",
            self._client.query,
            TableName=self._targets,
            IndexName=DUE_INDEX,
            KeyConditionExpression="due_shard = :due AND due_at <= :now",
            ExpressionAttributeValues={":due": {"S": DUE_SHARD}, ":now": {"S": _stamp(now)}},
            Limit=limit,
        )
        return [item["target"]["S"] for item in answer["Items"]]

    def asked(self, limit: int) -> list[Asked]:
        """Query of the sparse index; and where something waits, BatchGetItem of who asked."""
        answer = call(
            "dynamodb:Query",
            self._client.query,
            TableName=self._targets,
            IndexName=DUE_INDEX,
            KeyConditionExpression="due_shard = :asked",
            ExpressionAttributeValues={":asked": {"S": ASKED_SHARD}},
            Limit=min(limit, MOST_KEYS_A_BATCH),
        )
        names = [{"target": item["target"]} for item in answer["Items"]]
        items = self._batch(names) if names else []
        waiting = [item for item in items if "due_at" in item]
        return [
            Asked(item["target"]["S"].removeprefix(ASKED_PREFIX), item["due_at"]["S"], item["by"]["S"])
            for item in sorted(waiting, key=lambda item: str(item["due_at"]["S"]))
        ]

    def answered(self, asked: Asked) -> None:
        """PutItem without what the index is made of, unless it was asked for anew meanwhile."""
        item = {"target": {"S": f"{ASKED_PREFIX}{asked.target}"}, "by": {"S": asked.by}, "asked_at": {"S": asked.at}}
        try:
            call(
                "dynamodb:PutItem",
                self._client.put_item,
                TableName=self._targets,
                Item=item,
                ConditionExpression="due_at = :at",
                ExpressionAttributeValues={":at": {"S": asked.at}},
            )
        except AwsError as error:
            if error.code != "ConditionalCheckFailedException":
                raise

    def states(self) -> Iterator[TargetState]:
        """Every target's state, by the roster; the guard's own is left out."""
        names = [name for name in self._roster() if name != GUARD_CHAIN]
        for item in self._each(names, ProjectionExpression="#state", ExpressionAttributeNames={"#state": "state"}):
            yield _decoded(item["state"]["S"], TargetState)

    def heads(self) -> Iterator[tuple[str, int, str]]:
        """By the roster: (chain, seq, hash) as they stand beside the state."""
        for item in self._each(self._roster(), ProjectionExpression="target, seq, head"):
            yield item["target"]["S"], int(item["seq"]["N"]), item["head"]["S"]

    def _roster(self) -> list[str]:
        """The name of every chain that has a state."""
        shards = self._each([f"{ROSTER}#{shard}" for shard in range(ROSTER_SHARDS)])
        return sorted(name for item in shards for name in item["names"]["SS"])

    def _each(self, names: Sequence[str], **parameters: Any) -> Iterator[dict[str, Any]]:
        for first in range(0, len(names), MOST_KEYS_A_BATCH):
            keys = [{"target": {"S": name}} for name in names[first : first + MOST_KEYS_A_BATCH]]
            yield from self._batch(keys, ConsistentRead=True, **parameters)

    # --- the faces' ------------------------------------------------------------------------------------------------

    def head(self, target: str) -> tuple[int, str] | None:
        """(seq, hash) of one chain's head, read consistently; None where there is no state of it."""
        answer = call(
            "dynamodb:GetItem",
            self._client.get_item,
            TableName=self._targets,
            Key={"target": {"S": target}},
            ProjectionExpression="seq, head",
            ConsistentRead=True,
        )
        item = answer.get("Item")
        return (int(item["seq"]["N"]), item["head"]["S"]) if item else None

    def ask(self, target: str, at: datetime, by: str) -> None:
        """PutItem: let the next tick look at a target on the word of `by`, an ARN."""
        item = {
            "target": {"S": f"{ASKED_PREFIX}{target}"},
            "due_shard": {"S": ASKED_SHARD},
            "due_at": {"S": _stamp(at)},
            "by": {"S": by},
        }
        call("dynamodb:PutItem", self._client.put_item, TableName=self._targets, Item=item)

    def sums(self, items: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        """`summary.Reads`: BatchGetItem of every shard of each item, eventually consistent."""
        keys = [{"target": {"S": f"{item}#{shard}"}} for item in items for shard in range(daily_totals.SHARDS)]
        found: dict[str, Counter[str]] = {}
        for first in range(0, len(keys), MOST_KEYS_A_BATCH):
            for item in self._batch(keys[first : first + MOST_KEYS_A_BATCH]):
                amounts = found.setdefault(item.pop("target")["S"].rpartition("#")[0], Counter())
                amounts.update({name: int(value["N"]) for name, value in item.items() if "N" in value})
        return found

    def _batch(self, keys: list[dict[str, Any]], **parameters: Any) -> list[dict[str, Any]]:
        wanted: dict[str, Any] = {self._targets: {"Keys": keys, **parameters}}
        items: list[dict[str, Any]] = []
        for _ in range(MOST_BATCHES):
            answer = call("dynamodb:BatchGetItem", self._client.batch_get_item, RequestItems=wanted)
            items += answer["Responses"].get(self._targets, ())
            wanted = answer.get("UnprocessedKeys") or {}
            if not wanted:
                return items
        raise AwsError("dynamodb:BatchGetItem", "UnprocessedKeys", "DynamoDB left keys unread again and again")

    def rows(self, target: str) -> Iterator[hashchain.StoredRow]:
        """Every record of a chain as it is stored, in order."""
        for item in self._chain(target, "r#"):
            yield _row(item)

    def markers(self, target: str) -> Iterator[tuple[str, int]]:
        """(sort key, seq of the record written with it) of each event marker of a chain; seq 0 where it names none."""
        for item in self._chain(target, "e#"):
            seq = item.get("seq", {}).get("N", "0")
            yield item["sk"]["S"], int(seq) if seq.isdigit() else 0

    def row_keys(self) -> Iterator[tuple[str, str]]:
        """Scan of the audit table: (target, sort key) of everything in it, in no order."""
        for item in self._scan(self._audit, ProjectionExpression="target, sk"):
            yield item["target"]["S"], item["sk"]["S"]

    def oldest(self, target: str, limit: int, first: int = 1) -> hashchain.Slice:
        """Up to `limit` records of a chain in order, from the record with seq `first` on."""
        return self._between(target, hashchain.sort_key(first), "r#~", limit, newest_first=False)

    def newest(self, target: str, limit: int, before: int | None = None) -> hashchain.Slice:
        """Up to `limit` records of a chain, newest first, older than the record with seq `before`."""
        last = hashchain.sort_key(before - 1) if before is not None else "r#~"
        return self._between(target, "r#", last, limit, newest_first=True)

    def in_month(self, month_shard: str, after: str, before: str, limit: int) -> hashchain.Slice:
        """About `limit` records of one shard of the time index, newest first, with `after` <= `at_key` < `before`.

        Reads one item more than that, for a range includes its ends; answers none only where there are none.
        """
        if after >= before:
            return hashchain.Slice([], more=False)
        answer = call(
            "dynamodb:Query",
            self._client.query,
            TableName=self._audit,
            IndexName=TIME_INDEX,
            KeyConditionExpression="month_shard = :shard AND at_key BETWEEN :after AND :before",
            ExpressionAttributeValues={
                ":shard": {"S": month_shard},
                ":after": {"S": after},
                ":before": {"S": before},
            },
            ScanIndexForward=False,
            Limit=limit + 1,
        )
        rows = [row for row in map(_row, answer["Items"]) if row.index["at_key"] != before]
        return hashchain.Slice(rows, more="LastEvaluatedKey" in answer)

    def _between(self, target: str, first: str, last: str, limit: int, *, newest_first: bool) -> hashchain.Slice:
        answer = call(
            "dynamodb:Query",
            self._client.query,
            TableName=self._audit,
            KeyConditionExpression="target = :target AND sk BETWEEN :first AND :last",
            ExpressionAttributeValues={":target": {"S": target}, ":first": {"S": first}, ":last": {"S": last}},
            ScanIndexForward=not newest_first,
            Limit=limit,
            ConsistentRead=True,
        )
        return hashchain.Slice([_row(item) for item in answer["Items"]], more="LastEvaluatedKey" in answer)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _chain(self, target: str, prefix: str) -> Iterator[dict[str, Any]]:
        page: dict[str, Any] = {}
        while True:
            answer = call(
                "dynamodb:Query",
                self._client.query,
                TableName=self._audit,
                KeyConditionExpression="target = :target AND begins_with(sk, :prefix)",
                ExpressionAttributeValues={":target": {"S": target}, ":prefix": {"S": prefix}},
                ConsistentRead=True,
                **page,
            )
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            page = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _scan(self, table: str, **parameters: Any) -> Iterable[dict[str, Any]]:
        page: dict[str, Any] = {}
        while True:
            answer = call(
                "dynamodb:Scan", self._client.scan, TableName=table, ConsistentRead=True, **parameters, **page
            )
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            page = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _put_record(self, record: Record, body: bytes, digest: str) -> dict[str, Any]:
        index = hashchain.time_index(record.target, record.seq, record.at)
        item = {
            "target": {"S": record.target},
            "sk": {"S": hashchain.sort_key(record.seq)},
            "body": {"S": body.decode()},
            "hash": {"S": digest},
            **{name: {"S": value} for name, value in index.items()},
        }
        return {"Put": {"TableName": self._audit, "Item": item, "ConditionExpression": "attribute_not_exists(sk)"}}

    def _put_marker(self, target: str, event_id: str, seq: int) -> dict[str, Any]:
        item = {"target": {"S": target}, "sk": {"S": hashchain.marker_key(event_id)}, "seq": {"N": str(seq)}}
        return {"Put": {"TableName": self._audit, "Item": item, "ConditionExpression": "attribute_not_exists(sk)"}}

    def _enrol(self, target: str) -> dict[str, Any]:
        shard = hashlib.sha256(target.encode("utf-8", "replace")).digest()[0] % ROSTER_SHARDS
        return {
            "Update": {
                "TableName": self._targets,
                "Key": {"target": {"S": f"{ROSTER}#{shard}"}},
                "UpdateExpression": "ADD #names :name",
                "ExpressionAttributeNames": {"#names": "names"},
                "ExpressionAttributeValues": {":name": {"SS": [target]}},
            }
        }

    def _add(self, addition: daily_totals.Addition, shard: int) -> dict[str, Any]:
        names = {f"#{number}": name for number, (name, _) in enumerate(addition.amounts)}
        values = {f":{number}": {"N": str(amount)} for number, (_, amount) in enumerate(addition.amounts)}
        added = ", ".join(f"#{number} :{number}" for number in range(len(addition.amounts)))
        return {
            "Update": {
                "TableName": self._targets,
                "Key": {"target": {"S": f"{addition.item}#{shard}"}},
                "UpdateExpression": f"ADD {added}",
                "ExpressionAttributeNames": names,
                "ExpressionAttributeValues": values,
            }
        }

    def _put_state(self, before: State, after: State) -> dict[str, Any]:
        item = {
            "target": {"S": after.target},
            "version": {"N": str(after.version)},
            "seq": {"N": str(after.seq)},
            "head": {"S": after.head},
            "state": {"S": msgspec.json.encode(after).decode()},
        }
        if after.due is not None:
            item |= {"due_shard": {"S": DUE_SHARD}, "due_at": {"S": _stamp(after.due)}}
        put: dict[str, Any] = {"TableName": self._targets, "Item": item}
        if before.version == 0:
            put["ConditionExpression"] = "attribute_not_exists(target)"
        else:
            put["ConditionExpression"] = "version = :version"
            put["ExpressionAttributeValues"] = {":version": {"N": str(before.version)}}
        return {"Put": put}


def _row(item: dict[str, Any]) -> hashchain.StoredRow:
    known = {"target", "sk", "body", "hash"}
    index = {name: next(iter(value.values())) for name, value in item.items() if name not in known}
    body = item.get("body", {}).get("S", "")
    return hashchain.StoredRow(
        item["target"]["S"], item["sk"]["S"], body.encode(), item.get("hash", {}).get("S", ""), index
    )


def _decoded(text: str, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(
            "dynamodb:BatchGetItem", "UnreadableState", f"the stored {kind.__name__} is no such: {error}"
        ) from error


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
