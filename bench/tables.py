"""DynamoDB tables in SQLite, as far as the store uses them, with the read units that AWS would charge.

moto keeps a table in Python lists and scans a whole partition for every query, so a million records would measure moto.
Here a B-tree finds a key, as in DynamoDB. tests/component/test_bench_tables.py compares the results with moto's. The
costs follow the developer guide: one unit per 4 KB for a strongly consistent read, half a unit otherwise; for a query
or scan the sum is rounded up, for a batch each item.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

UNIT_BYTES = 4096
PAGE_BYTES = 1024 * 1024

Item = dict[str, dict[str, Any]]

_CONDITION = re.compile(
    r"(?P<partition>\w+) = (?P<value>:\w+)"
    r"(?: AND (?:(?P<between>\w+) BETWEEN (?P<low>:\w+) AND (?P<high>:\w+)"
    r"|begins_with\((?P<begins>\w+), (?P<prefix>:\w+)\)"
    r"|(?P<most>\w+) <= (?P<limit>:\w+)))?"
)


class _Table:
    """The names of a table's keys and of its single index."""

    def __init__(self, name: str, partition: str, sort: str | None, index: tuple[str, str, str]) -> None:
        self.name = name
        self.sql = name.replace("-", "_")
        self.partition = partition
        self.sort = sort
        self.index, self.index_partition, self.index_sort = index


class Tables:
    """The calls of DynamoDB's client that the store uses. `read_units` and `requests` count the cost of reads."""

    def __init__(self, path: Path | str = ":memory:") -> None:
        self.meta = _Meta()
        self.read_units = 0.0
        self.requests = 0
        self._tables = {
            each.name: each
            for each in (
                _Table("xray-guard-audit", "target", "sk", ("by_time", "month_shard", "at_key")),
                _Table("xray-guard-targets", "target", None, ("by_due", "due_shard", "due_at")),
            )
        }
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        for table in self._tables.values():
            columns = "pk TEXT, sk TEXT, ipk TEXT, isk TEXT, size INTEGER, item TEXT"
            self._db.execute(f"CREATE TABLE {table.sql} ({columns})")
            self._db.execute(f"CREATE UNIQUE INDEX {table.sql}_key ON {table.sql} (pk, sk)")
            self._db.execute(f"CREATE INDEX {table.sql}_index ON {table.sql} (ipk, isk) WHERE ipk IS NOT NULL")
        self._db.execute("BEGIN")
        self._written = 0

    # --- writing -----------------------------------------------------------------------------------------------------

    def transact_write_items(self, TransactItems: list[dict[str, Any]]) -> dict[str, Any]:
        """Write all items or none."""
        reasons = [self._refusal(next(iter(item.values()))) for item in TransactItems]
        if any(reasons):
            listed = [{"Code": reason or "None"} for reason in reasons]
            raise _error("TransactionCanceledException", "Transaction cancelled", CancellationReasons=listed)
        for item in TransactItems:
            ((kind, request),) = item.items()
            (self._put if kind == "Put" else self._update)(request)
        self._written += 1
        if self._written % 1000 == 0:
            self._db.execute("COMMIT")
            self._db.execute("BEGIN")
        return {}

    def put_item(self, **request: Any) -> dict[str, Any]:
        """Write one item."""
        if self._refusal(request):
            raise _error("ConditionalCheckFailedException", "The conditional request failed")
        self._put(request)
        return {}

    def _refusal(self, request: Mapping[str, Any]) -> str | None:
        condition = request.get("ConditionExpression")
        if condition is None:
            return None
        table = self._tables[request["TableName"]]
        found = self._found(table, request["Item"])
        if condition.startswith("attribute_not_exists"):
            return None if found is None else "ConditionalCheckFailed"
        name, _, value = condition.partition(" = ")
        wanted = request["ExpressionAttributeValues"][value]
        return None if found is not None and found.get(name) == wanted else "ConditionalCheckFailed"

    def _put(self, request: Mapping[str, Any]) -> None:
        table, item = self._tables[request["TableName"]], request["Item"]
        pk, sk = self._key(table, item)
        ipk, isk = _text(item, table.index_partition), _text(item, table.index_sort)
        row = (pk, sk, ipk, isk, size_of(item), json.dumps(item))
        self._db.execute(f"INSERT OR REPLACE INTO {table.sql} VALUES (?, ?, ?, ?, ?, ?)", row)

    def _update(self, request: Mapping[str, Any]) -> None:
        item = self._found(self._tables[request["TableName"]], request["Key"]) or dict(request["Key"])
        names, values = request["ExpressionAttributeNames"], request["ExpressionAttributeValues"]
        for part in request["UpdateExpression"].removeprefix("ADD ").split(", "):
            name, value = part.split(" ")
            attribute, added = names[name], values[value]
            if "SS" in added:
                known = item.get(attribute, {"SS": []})["SS"]
                item[attribute] = {"SS": sorted({*known, *added["SS"]})}
            else:
                amount = int(item.get(attribute, {"N": "0"})["N"]) + int(added["N"])
                item[attribute] = {"N": str(amount)}
        self._put({"TableName": request["TableName"], "Item": item})

    # --- reading -----------------------------------------------------------------------------------------------------

    def get_item(self, TableName: str, Key: Item, ConsistentRead: bool = False, **_: Any) -> dict[str, Any]:
        """Return one item, or none."""
        item = self._found(self._tables[TableName], Key)
        self._charge([size_of(item)] if item else [0], ConsistentRead, each=True)
        return {"Item": item} if item else {}

    def batch_get_item(self, RequestItems: dict[str, Any]) -> dict[str, Any]:
        """Return items of both tables by key. Every key is charged, even if its item is missing."""
        answers: dict[str, list[Item]] = {}
        for name, wanted in RequestItems.items():
            found = [self._found(self._tables[name], key) for key in wanted["Keys"]]
            answers[name] = [item for item in found if item is not None]
            sizes = [size_of(item) if item else 0 for item in found]
            self._charge(sizes, wanted.get("ConsistentRead", False), each=True)
        return {"Responses": answers}

    def query(
        self,
        TableName: str,
        KeyConditionExpression: str,
        ExpressionAttributeValues: Item,
        IndexName: str | None = None,
        ScanIndexForward: bool = True,
        Limit: int | None = None,
        ConsistentRead: bool = False,
        ExclusiveStartKey: Item | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Return a range of one partition, in order, up to the limit or a megabyte."""
        table = self._tables[TableName]
        condition = _CONDITION.fullmatch(KeyConditionExpression)
        if condition is None:
            raise ValueError(KeyConditionExpression)
        pk, sk = ("ipk", "isk") if IndexName else ("pk", "sk")
        values = {name: value["S"] for name, value in ExpressionAttributeValues.items()}
        where, given = [f"{pk} = ?"], [values[condition["value"]]]
        if condition["between"]:
            where.append(f"{sk} BETWEEN ? AND ?")
            given += [values[condition["low"]], values[condition["high"]]]
        elif condition["begins"]:
            where.append(f"{sk} >= ? AND {sk} < ?")
            given += [values[condition["prefix"]], values[condition["prefix"]] + chr(0x10FFFF)]
        elif condition["most"]:
            where.append(f"{sk} <= ?")
            given.append(values[condition["limit"]])
        if ExclusiveStartKey is not None:
            where.append(f"{sk} {'>' if ScanIndexForward else '<'} ?")
            given.append(ExclusiveStartKey[table.index_sort if IndexName else str(table.sort)]["S"])
        order = "ASC" if ScanIndexForward else "DESC"
        rows = self._db.execute(
            f"SELECT size, item FROM {table.sql} WHERE {' AND '.join(where)} ORDER BY {sk} {order}", given
        )
        return self._page(table, rows, Limit, ConsistentRead)

    def scan(
        self, TableName: str, ConsistentRead: bool = False, ExclusiveStartKey: Item | None = None, **_: Any
    ) -> dict[str, Any]:
        """Return all items of a table, a megabyte per page."""
        table = self._tables[TableName]
        after = self._key(table, ExclusiveStartKey) if ExclusiveStartKey else ("", "")
        rows = self._db.execute(f"SELECT size, item FROM {table.sql} WHERE (pk, sk) > (?, ?) ORDER BY pk, sk", after)
        return self._page(table, rows, None, ConsistentRead)

    def _page(self, table: _Table, rows: Iterable[tuple[int, str]], limit: int | None, strong: bool) -> dict[str, Any]:
        items: list[Item] = []
        size = 0
        more = False
        for item_size, text in rows:
            items.append(json.loads(text))
            size += item_size
            # DynamoDB returns a LastEvaluatedKey even if no other item follows.
            if len(items) == limit or size >= PAGE_BYTES:
                more = True
                break
        self._charge([size], strong, each=False)
        names = [table.partition, *([table.sort] if table.sort else []), table.index_partition, table.index_sort]
        last = {name: items[-1][name] for name in names if name in items[-1]} if more else None
        return {"Items": items, **({"LastEvaluatedKey": last} if last else {})}

    def _charge(self, sizes: list[int], strong: bool, *, each: bool) -> None:
        self.requests += 1
        units = sum(max(1, math.ceil(size / UNIT_BYTES)) if each else math.ceil(size / UNIT_BYTES) for size in sizes)
        self.read_units += max(units, 1) * (1.0 if strong else 0.5)

    def _found(self, table: _Table, key: Item) -> Item | None:
        row = self._db.execute(
            f"SELECT item FROM {table.sql} WHERE pk = ? AND sk = ?", self._key(table, key)
        ).fetchone()
        found: Item | None = json.loads(row[0]) if row else None
        return found

    @staticmethod
    def _key(table: _Table, item: Item) -> tuple[str, str]:
        return item[table.partition]["S"], item[table.sort]["S"] if table.sort else ""


class _Meta:
    """Accepts the store's clock hook; responses have no date here."""

    class events:
        @staticmethod
        def register(*_: object, **__: object) -> None:
            """Ignore the hook."""


def size_of(item: Item) -> int:
    """Return an item's size as AWS charges it: names and values in UTF-8, a number by its digits."""
    size = 0
    for name, value in item.items():
        ((kind, held),) = value.items()
        size += len(name.encode()) + (len(held) // 2 + 2 if kind == "N" else sum(len(each.encode()) for each in held))
    return size


def _text(item: Item, name: str) -> str | None:
    return item[name]["S"] if name in item else None


def _error(code: str, message: str, **members: Any) -> ClientError:
    refusal: Any = {"Error": {"Code": code, "Message": message}, **members}
    return ClientError(refusal, "DynamoDB")
