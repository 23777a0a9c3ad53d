"""The reads of the log for the command line, the API and the console; and their one write, an operator's request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from chalicelib.auditlog import daily_totals, hashchain, keyrows
from chalicelib.auditlog.statecheck import StoredState
from chalicelib.aws.clients import call
from chalicelib.aws.store import DynamoStore
from chalicelib.aws.tables import ASKED_PREFIX, ASKED_SHARD, DUE_SHARD, TIME_INDEX, read_row
from chalicelib.domain.times import stamp


class LogStore(DynamoStore):
    """The store with the reads of `history`, `summary`, `verify` and `export`, which the loop does not need."""

    def stored_state(self, target: str) -> StoredState | None:
        """Return one chain's state as it is stored, read consistently; None if the chain has no state."""
        answer = call(
            "dynamodb:GetItem",
            self._tables.client.get_item,
            TableName=self._tables.targets,
            Key={"target": {"S": target}},
            ConsistentRead=True,
        )
        item = answer.get("Item")
        if item is None:
            return None
        due = item["due_at"]["S"] if item.get("due_shard") == {"S": DUE_SHARD} and "due_at" in item else None
        version, seq = (int(item[name]["N"]) for name in ("version", "seq"))
        return StoredState(target, version, seq, item["head"]["S"], due, item["state"]["S"])

    def ask(self, target: str, at: datetime, by: str) -> None:
        """PutItem: request that the next tick checks a target. `by` is the operator's ARN."""
        item = {
            "target": {"S": f"{ASKED_PREFIX}{target}"},
            "due_shard": {"S": ASKED_SHARD},
            "due_at": {"S": stamp(at)},
            "by": {"S": by},
        }
        call("dynamodb:PutItem", self._tables.client.put_item, TableName=self._tables.targets, Item=item)

    def sums(self, items: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        """Return each item's amounts, added over its shards (`summary.Reads`): BatchGetItem, eventually consistent."""
        names = [f"{item}#{shard}" for item in items for shard in range(daily_totals.SHARDS)]
        found: dict[str, Counter[str]] = {}
        for item in self._tables.get_all(names):
            amounts = found.setdefault(item["target"]["S"].rpartition("#")[0], Counter())
            amounts.update({name: int(value["N"]) for name, value in item.items() if "N" in value})
        return found

    def rows(self, target: str) -> Iterator[hashchain.StoredRow]:
        """Yield every record of a chain as it is stored, in order."""
        for item in self._chain(target, "r#"):
            yield read_row(item)

    def markers(self, target: str) -> Iterator[tuple[str, int]]:
        """Yield (sort key, seq of the record stored with it) of each event marker of a chain; seq 0 if it has none.

        Events that were only counted have no record of their own.
        """
        for item in self._chain(target, "e#"):
            if "counted" in item:
                continue
            seq = item.get("seq", {}).get("N", "0")
            yield item["sk"]["S"], int(seq) if seq.isdigit() else 0

    def key_rows(self, target: str) -> Iterator[tuple[str, int]]:
        """Yield (sort key, number of the record stored with it) of each key row of a chain."""
        for item in self._chain(target, keyrows.PREFIX):
            seq = item.get("seq", {}).get("N", "-1")
            yield item["sk"]["S"], int(seq) if seq.isdigit() else -1

    def row_keys(self) -> Iterator[tuple[str, str]]:
        """Scan the audit table: yield (target, sort key) of every item, in no order."""
        for item in self._tables.scan_all(self._tables.audit, ProjectionExpression="target, sk"):
            yield item["target"]["S"], item["sk"]["S"]

    def oldest(self, target: str, limit: int, first: int = 1) -> hashchain.Slice:
        """Return up to `limit` records of a chain in order, beginning with seq `first`."""
        return self._between(target, hashchain.sort_key(first), "r#~", limit, newest_first=False)

    def newest(self, target: str, limit: int, before: int | None = None) -> hashchain.Slice:
        """Return up to `limit` records of a chain, newest first, older than the record with seq `before`."""
        last = hashchain.sort_key(before - 1) if before is not None else "r#~"
        return self._between(target, "r#", last, limit, newest_first=True)

    def in_month(self, month_shard: str, after: str, before: str, limit: int) -> hashchain.Slice:
        """Return about `limit` records of a shard of the time index, newest first, with `after` <= `at_key` < `before`.

        Reads one item more, because BETWEEN includes both ends. Returns none only if there are none.
        """
        if after >= before:
            return hashchain.Slice([], more=False)
        answer = self._tables.query(
            self._tables.audit,
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
        rows = [row for row in map(read_row, answer["Items"]) if row.index["at_key"] != before]
        return hashchain.Slice(rows, more="LastEvaluatedKey" in answer)

    def _between(self, target: str, first: str, last: str, limit: int, *, newest_first: bool) -> hashchain.Slice:
        answer = self._tables.query(
            self._tables.audit,
            KeyConditionExpression="target = :target AND sk BETWEEN :first AND :last",
            ExpressionAttributeValues={":target": {"S": target}, ":first": {"S": first}, ":last": {"S": last}},
            ScanIndexForward=not newest_first,
            Limit=limit,
            ConsistentRead=True,
        )
        return hashchain.Slice([read_row(item) for item in answer["Items"]], more="LastEvaluatedKey" in answer)

    def _chain(self, target: str, prefix: str) -> Iterator[dict[str, Any]]:
        return self._tables.query_all(
            self._tables.audit,
            KeyConditionExpression="target = :target AND begins_with(sk, :prefix)",
            ExpressionAttributeValues={":target": {"S": target}, ":prefix": {"S": prefix}},
        )
