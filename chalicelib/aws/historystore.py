"""The items of the tables that only the reading of Event history needs: its progress, and the newest records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from chalicelib.auditlog.hashchain import marker_key
from chalicelib.aws.clients import Clients, call
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.tables import MOST_KEYS_A_BATCH, Tables
from chalicelib.domain.lookups import Progress, Recorded

PREFIX = "history#"
ROWS_A_PAGE = 200


class DynamoHistory:
    """`lookups.HistoryStore`."""

    def __init__(self, clients: Clients, region: str, clock: AwsClock, audit_table: str, targets_table: str) -> None:
        self._tables = Tables(clients, region, clock, audit_table, targets_table)

    def progress(self, targets: Sequence[str]) -> dict[str, Progress]:
        """BatchGetItem with consistent reads."""
        items = self._tables.get_all([f"{PREFIX}{target}" for target in targets], ConsistentRead=True)
        return {item["target"]["S"].removeprefix(PREFIX): _read_progress(item) for item in items}

    def keep(self, target: str, progress: Progress) -> None:
        """PutItem."""
        item = {"target": {"S": f"{PREFIX}{target}"}, "progress": {"S": msgspec.json.encode(progress).decode()}}
        call("dynamodb:PutItem", self._tables.client.put_item, TableName=self._tables.targets, Item=item)

    def audited(self, target: str, event_ids: Sequence[str]) -> set[str]:
        """BatchGetItem of the events' markers, with consistent reads."""
        found: set[str] = set()
        names = {marker_key(event_id): event_id for event_id in event_ids}
        keys = [{"target": {"S": target}, "sk": {"S": name}} for name in names]
        for first in range(0, len(keys), MOST_KEYS_A_BATCH):
            batch = {"Keys": keys[first : first + MOST_KEYS_A_BATCH], "ConsistentRead": True}
            for items in self._tables.batches({self._tables.audit: {**batch, "ProjectionExpression": "sk"}}):
                found |= {names[item["sk"]["S"]] for item in items.get(self._tables.audit, ())}
        return found

    def recorded(self, target: str, since: datetime) -> list[Recorded]:
        """Query the chain backwards, page by page, until a record is older."""
        found: list[Recorded] = []
        for item in self._newest(target):
            record = _read_record(item)
            if record is None:
                continue
            if record.at < since:
                break
            found.append(record)
        return found[::-1]

    def _newest(self, target: str) -> Iterator[dict[str, Any]]:
        return self._tables.query_all(
            self._tables.audit,
            KeyConditionExpression="target = :target AND begins_with(sk, :record)",
            ExpressionAttributeValues={":target": {"S": target}, ":record": {"S": "r#"}},
            ProjectionExpression="body",
            ScanIndexForward=False,
            Limit=ROWS_A_PAGE,
        )


def _read_progress(item: dict[str, Any]) -> Progress:
    """An unreadable item starts anew."""
    try:
        return msgspec.json.decode(item["progress"]["S"], type=Progress)
    except (msgspec.MsgspecError, KeyError):
        return Progress()


def _read_record(item: dict[str, Any]) -> Recorded | None:
    """None for a row that `audit verify` reports: it must not stop the guard."""
    try:
        return msgspec.json.decode(item["body"]["S"], type=Recorded)
    except (msgspec.MsgspecError, KeyError):
        return None
