"""The benchmark's tables answer as moto does, so that the benchmark measures what the store would get."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import botocore.session
import pytest

from bench.million import BUSY, START, queries_of, written
from bench.tables import Tables, size_of
from chalicelib.auditlog import filters, history
from chalicelib.auditlog.draft import Draft
from chalicelib.auditlog.summary import summarize
from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.logreads import LogStore
from chalicelib.domain.errors import Conflict
from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import TargetState
from chalicelib.wiring import make_log_store
from tests.component import operated
from tests.component.operated import HERE, REGION

RECORDS = 200


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An account with the guard's tables in moto."""
    for name, value in operated.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with operated.world():
        yield


def result(answer: Any) -> Any:
    return answer.to_json() if hasattr(answer, "to_json") else answer


def test_every_question_has_the_same_answer_from_moto() -> None:
    log = written(RECORDS, ":memory:")
    by_moto = make_log_store(Clients(operated.with_models(botocore.session.Session())), REGION, AwsClock())
    client = operated.client("dynamodb")
    for table in ("xray-guard-audit", "xray-guard-targets"):
        for item in log.tables.scan(TableName=table)["Items"]:
            client.put_item(TableName=table, Item=item)
    here = queries_of(log)
    there = queries_of(type(log)(log.tables, by_moto, log.records, log.now))
    for name, ask in here.items():
        assert result(ask()) == result(there[name]()), name
    for name, store in (("bench", log.store), ("moto", by_moto)):
        pages, cursor = [], None
        while True:
            page = history.records(store, filters.Filter(), log.now, 7, cursor)
            pages += [entry.record.record_id for entry in page.entries]
            cursor = page.cursor
            if cursor is None:
                break
        assert len(pages) == len(set(pages)) == log.records, name


def test_a_lost_race_writes_nothing() -> None:
    tables = Tables()
    store = LogStore(_Given(tables), REGION, AwsClock(), "xray-guard-audit", "xray-guard-targets")
    for attempt in range(2):
        draft = Draft(TargetState(HERE))
        draft.add(START + attempt * BUSY, Outcome.COMPLIANT, Trigger(TriggerKind.SWEEP))
        draft.set(version=1)
        if attempt == 0:
            store.commit(draft.before, draft.after, draft.records)
        else:
            with pytest.raises(Conflict):
                store.commit(draft.before, draft.after, draft.records)
    assert len(list(store.rows(HERE))) == 1
    day: date = START.date()
    assert summarize(store, day, day + timedelta(days=1)).records == {"COMPLIANT": 1}


def test_what_is_read_is_charged_by_the_size_of_items_and_half_without_strong_consistency() -> None:
    tables = Tables()
    item = {"target": {"S": "t"}, "sk": {"S": "r#1"}, "body": {"S": "x" * 5000}}
    tables.put_item(TableName="xray-guard-audit", Item=item)
    assert size_of(item) == len("target") + 1 + len("sk") + 3 + len("body") + 5000
    how: dict[str, Any] = {"TableName": "xray-guard-audit", "KeyConditionExpression": "target = :t"}
    tables.query(**how, ExpressionAttributeValues={":t": {"S": "t"}}, ConsistentRead=True)
    assert tables.read_units == 2
    tables.query(**how, ExpressionAttributeValues={":t": {"S": "t"}})
    assert tables.read_units == 3
    tables.batch_get_item(RequestItems={"xray-guard-targets": {"Keys": [{"target": {"S": "none"}}]}})
    assert tables.read_units == 3.5


class _Given(Clients):
    def __init__(self, tables: Tables) -> None:
        super().__init__(session=object())
        self._given = tables

    def reading(self, service: str, region: str) -> Any:
        return self._given
