"""The two DynamoDB tables: their names, the format of their items, and reading them page by page.

audit    pk `target`, sk `r#<seq>` for a record (`body` as it was hashed, `hash`, and the time index's attributes),
         `e#<event id>` for the marker that an event was audited, or `k#<ARN or nonce>` for a key row, see
         `auditlog.keyrows`
targets  pk `target`; `state` as JSON, and as attributes what is queried: `version`, `seq`, `head`, and `due_shard` with
         `due_at` while something is due. Other items: the figures of `daily_totals`; `ask#<target>`, an operator's
         request from the API, the only items that the API may write; `roster#<shard>`, the names of every chain, so
         that reading all states does not cost a scan of the table; `tally#<target>#<digest>`, the calls of a principal
         that are counted beyond the first ten
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import msgspec

from chalicelib.auditlog import hashchain, states
from chalicelib.auditlog.daily_totals import Addition
from chalicelib.auditlog.keyrows import KeyRow
from chalicelib.aws.clients import Clients, call
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.paging import pages
from chalicelib.domain.errors import StoreError
from chalicelib.domain.stored import COUNTING_TIME, GuardState, Record, Tally, TargetState
from chalicelib.domain.times import STAMP, stamp

AUDIT_TABLE = "xray-guard-audit"
TARGETS_TABLE = "xray-guard-targets"
TIME_INDEX = "by_time"
DUE_INDEX = "by_due"
DUE_SHARD = "due"
ASKED_SHARD = "asked"
ASKED_PREFIX = "ask#"
TALLY_SHARD = "tally"
TALLY_PREFIX = "tally#"
ROSTER = "roster"
ROSTER_SHARDS = 16
"""An item holds about sixteen thousand names. To add shards, keep the old ones: the number decides a name's shard."""

MOST_BATCHES = 5
MOST_KEYS_A_BATCH = 100  # BatchGetItem's limit

State = TargetState | GuardState


class Tables:
    """The tables in one Region, with the clients of one identity. `clock` reads AWS's time from every response."""

    def __init__(self, clients: Clients, region: str, clock: AwsClock, audit_table: str, targets_table: str) -> None:
        self.audit = audit_table
        self.targets = targets_table
        self._clients = clients
        self._region = region
        self._clock = clock
        self._hooked: Any = None
        self._hooking = Lock()

    @property
    def client(self) -> Any:
        """DynamoDB's client; its calls may be retried."""
        client = self._clients.reading("dynamodb", self._region)
        with self._hooking:
            if client is not self._hooked:
                client.meta.events.register("after-call.dynamodb", self._clock.received, unique_id="xray-guard-clock")
                self._hooked = client
        return client

    def query(self, table: str, **parameters: Any) -> dict[str, Any]:
        """Query one page."""
        return call("dynamodb:Query", self.client.query, TableName=table, **parameters)

    def query_all(self, table: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Query every page, consistently; yield the items."""
        yield from self._items("dynamodb:Query", self.client.query, table, parameters)

    def scan_all(self, table: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Scan every page, consistently; yield the items in no order."""
        yield from self._items("dynamodb:Scan", self.client.scan, table, parameters)

    def _items(
        self, operation: str, send: Callable[..., Any], table: str, parameters: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        tokens = {"ExclusiveStartKey": "LastEvaluatedKey"}
        for response in pages(operation, send, tokens, TableName=table, ConsistentRead=True, **parameters):
            yield from response["Items"]

    def batches(self, wanted: dict[str, Any]) -> Iterator[Mapping[str, list[dict[str, Any]]]]:
        """BatchGetItem until no key is left unprocessed; yield each response's items by table.

        Raises StoreError if DynamoDB leaves keys unprocessed repeatedly: then nothing is known about those.
        """
        for _ in range(MOST_BATCHES):
            response = call("dynamodb:BatchGetItem", self.client.batch_get_item, RequestItems=wanted)
            yield response["Responses"]
            wanted = response.get("UnprocessedKeys") or {}
            if not wanted:
                return
        message = f"DynamoDB left keys unread {MOST_BATCHES} times"
        raise StoreError("dynamodb:BatchGetItem", "UnprocessedKeys", message)

    def get_all(self, names: Sequence[str], **parameters: Any) -> Iterator[dict[str, Any]]:
        """BatchGetItem of items of the targets table by their keys, any number, a hundred per call."""
        for first in range(0, len(names), MOST_KEYS_A_BATCH):
            keys = [{"target": {"S": name}} for name in names[first : first + MOST_KEYS_A_BATCH]]
            for items in self.batches({self.targets: {"Keys": keys, **parameters}}):
                yield from items.get(self.targets, ())

    def put_record(self, record: Record, body: bytes, digest: str) -> dict[str, Any]:
        """Return the write of a record; it never overwrites one."""
        index = hashchain.time_index(record.target, record.seq, record.at)
        item = {
            "target": {"S": record.target},
            "sk": {"S": hashchain.sort_key(record.seq)},
            "body": {"S": body.decode()},
            "hash": {"S": digest},
            **{name: {"S": value} for name, value in index.items()},
        }
        return {"Put": {"TableName": self.audit, "Item": item, "ConditionExpression": "attribute_not_exists(sk)"}}

    def put_marker(self, target: str, event_id: str, seq: int | None) -> dict[str, Any]:
        """Return the write of the marker that an event was audited.

        `seq` is the record stored with it, None for an event that was only counted.
        """
        item: dict[str, Any] = {"target": {"S": target}, "sk": {"S": hashchain.marker_key(event_id)}}
        item |= {"counted": {"BOOL": True}} if seq is None else {"seq": {"N": str(seq)}}
        return {"Put": {"TableName": self.audit, "Item": item, "ConditionExpression": "attribute_not_exists(sk)"}}

    def put_key(self, target: str, row: KeyRow) -> dict[str, Any]:
        """Return the write of a key row; one that exists is written again."""
        item = {"target": {"S": target}, "sk": {"S": row.sk}, "seq": {"N": str(row.seq)}, "how": {"S": row.how}}
        return {"Put": {"TableName": self.audit, "Item": item}}

    def mark_protected(self, target: str, row: KeyRow) -> dict[str, Any]:
        """Return the write of the row that says that a chain's state is protected; it is written once."""
        put = self.put_key(target, row)
        put["Put"]["ConditionExpression"] = "attribute_not_exists(sk)"
        return put

    def check_key(self, target: str, key: str) -> dict[str, Any]:
        """Return the check that a key row exists, by its sort key."""
        place = {"target": {"S": target}, "sk": {"S": key}}
        return {
            "ConditionCheck": {"TableName": self.audit, "Key": place, "ConditionExpression": "attribute_exists(sk)"}
        }

    def enrol(self, target: str) -> dict[str, Any]:
        """Return the write that adds a chain's name to the roster."""
        shard = hashlib.sha256(target.encode("utf-8", "replace")).digest()[0] % ROSTER_SHARDS
        return self._update(f"{ROSTER}#{shard}", "ADD #names :name", {"#names": "names"}, {":name": {"SS": [target]}})

    def add_to_tally(self, tally: Tally) -> dict[str, Any]:
        """Return the write that adds to a stored tally. The first call since it was emptied sets when it closes."""
        first = {"of": tally.target, "by": tally.principal, "since": stamp(tally.since)}
        first |= {"due_shard": TALLY_SHARD, "due_at": stamp(tally.closes_at)}
        sets = ", ".join(f"#{name} = if_not_exists(#{name}, :{name})" for name in first)
        values = {f":{name}": {"S": value} for name, value in first.items()}
        return self._add_amounts(tally, f"SET {sets}", {f"#{name}": name for name in first}, values, 1)

    def close_tally(self, tally: Tally) -> dict[str, Any]:
        """Return the write that takes what was read off a tally and begins a new time.

        On the condition that nobody else closed it; calls that were added since it was read stay in it.
        """
        times = {":since": tally.since, ":next": tally.closes_at, ":due": tally.closes_at + COUNTING_TIME}
        values = {name: {"S": stamp(at)} for name, at in times.items()}
        update = self._add_amounts(tally, "SET #since = :next, due_at = :due", {"#since": "since"}, values, -1)
        update["Update"]["ConditionExpression"] = "#since = :since"
        return update

    def _add_amounts(
        self, tally: Tally, sets: str, names: dict[str, str], values: dict[str, Any], sign: int
    ) -> dict[str, Any]:
        """Return the write that adds the tally's amounts to the stored one, or takes them off it, and sets the rest."""
        amounts = {"seen": tally.seen, "refused": tally.refused, "tag_changes": tally.tag_changes}
        adds = ", ".join(f"#{name} :{name}" for name in amounts)
        names = {**names, **{f"#{name}": name for name in amounts}}
        values = {**values, **{f":{name}": {"N": str(sign * value)} for name, value in amounts.items()}}
        return self._update(f"{TALLY_PREFIX}{tally.name}", f"{sets} ADD {adds}", names, values)

    def empty_tally(self, tally: Tally) -> dict[str, Any]:
        """Return the parameters of the write that empties a tally, on the condition that it is as it was read."""
        return {
            "TableName": self.targets,
            "Item": {"target": {"S": f"{TALLY_PREFIX}{tally.name}"}},
            "ConditionExpression": "#seen = :seen AND #since = :since",
            "ExpressionAttributeNames": {"#seen": "seen", "#since": "since"},
            "ExpressionAttributeValues": {":seen": {"N": str(tally.seen)}, ":since": {"S": stamp(tally.since)}},
        }

    def add(self, addition: Addition, shard: int) -> dict[str, Any]:
        """Return the write that adds to the figures."""
        names = {f"#{number}": name for number, (name, _) in enumerate(addition.amounts)}
        values = {f":{number}": {"N": str(amount)} for number, (_, amount) in enumerate(addition.amounts)}
        added = ", ".join(f"#{number} :{number}" for number in range(len(addition.amounts)))
        return self._update(f"{addition.item}#{shard}", f"ADD {added}", names, values)

    def _update(self, name: str, expression: str, names: dict[str, str], values: dict[str, Any]) -> dict[str, Any]:
        """Return the write that updates one item of the targets table."""
        return {
            "Update": {
                "TableName": self.targets,
                "Key": {"target": {"S": name}},
                "UpdateExpression": expression,
                "ExpressionAttributeNames": names,
                "ExpressionAttributeValues": values,
            }
        }

    def put_state(self, before: State, after: State) -> dict[str, Any]:
        """Return the write of a state, on the condition that the stored version is still `before.version`."""
        item = {
            "target": {"S": after.target},
            "version": {"N": str(after.version)},
            "seq": {"N": str(after.seq)},
            "head": {"S": after.head},
            "state": {"S": msgspec.json.encode(after).decode()},
        }
        if after.due is not None:
            item |= {"due_shard": {"S": DUE_SHARD}, "due_at": {"S": stamp(after.due)}}
        put: dict[str, Any] = {"TableName": self.targets, "Item": item}
        if before.version == 0:
            put["ConditionExpression"] = "attribute_not_exists(target)"
        else:
            put["ConditionExpression"] = "version = :version"
            put["ExpressionAttributeValues"] = {":version": {"N": str(before.version)}}
        return {"Put": put}


def read_row(item: dict[str, Any]) -> hashchain.StoredRow:
    """Read a record's row from an item of the audit table."""
    known = {"target", "sk", "body", "hash"}
    index = {name: next(iter(value.values())) for name, value in item.items() if name not in known}
    body = item.get("body", {}).get("S", "")
    return hashchain.StoredRow(
        item["target"]["S"], item["sk"]["S"], body.encode(), item.get("hash", {}).get("S", ""), index
    )


def read_tally(item: dict[str, Any]) -> Tally | None:
    """Read a stored tally; None if it is empty."""
    if "seen" not in item:
        return None
    since = datetime.strptime(item["since"]["S"], STAMP).replace(tzinfo=UTC)
    amounts = (int(item[name]["N"]) for name in ("seen", "refused", "tag_changes"))
    return Tally(item["of"]["S"], item["by"]["S"], since, *amounts)


def read_state(text: str, kind: type[states.AnyState]) -> states.AnyState:
    """Read a stored state. Raises StoreError if the text is not a state, FormatTooNew if a newer release stored it."""
    try:
        return states.read_state(text, kind)
    except ValueError as error:
        raise StoreError(
            "dynamodb:BatchGetItem", "UnreadableState", f"the stored {kind.__name__} cannot be read: {error}"
        ) from error
