"""The sandbox's tables answer queries as moto's do, of which they read only a part."""

from __future__ import annotations

from typing import Any

import pytest
from moto import mock_aws
from moto.dynamodb.models.table import Table

from sandbox.tables import PartitionedTable
from tests.component.operated import client, make_tables

QUERIES: list[dict[str, Any]] = [
    {"KeyConditionExpression": "target = :one"},
    {"KeyConditionExpression": "target = :none"},
    {"KeyConditionExpression": "target = :one AND sk BETWEEN :first AND :last"},
    {"KeyConditionExpression": "target = :one AND sk BETWEEN :first AND :last", "ScanIndexForward": False, "Limit": 2},
    {"KeyConditionExpression": "target = :one AND begins_with(sk, :some)"},
    {"IndexName": "by_time", "KeyConditionExpression": "month_shard = :shard"},
    {"IndexName": "by_time", "KeyConditionExpression": "month_shard = :shard AND at_key BETWEEN :first AND :last"},
    {
        "IndexName": "by_time",
        "KeyConditionExpression": "month_shard = :shard AND at_key BETWEEN :first AND :last",
        "ScanIndexForward": False,
        "Limit": 1,
    },
]
VALUES = {
    ":one": "one", ":none": "none", ":first": "r#2", ":last": "r#5", ":some": "r#", ":shard": "s1",
}  # fmt: skip


def answers(query: dict[str, Any]) -> list[list[str]]:
    """The pages of the query, each as the items' sort keys."""
    used = {name: {"S": value} for name, value in VALUES.items() if name in query["KeyConditionExpression"]}
    request = {"TableName": "xray-guard-audit", **query, "ExpressionAttributeValues": used}
    pages = []
    while True:
        page = client("dynamodb").query(**request)
        pages.append([item["target"]["S"] + item["sk"]["S"] for item in page["Items"]])
        if "LastEvaluatedKey" not in page:
            return pages
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


@pytest.mark.parametrize("query", QUERIES, ids=[str(number) for number in range(len(QUERIES))])
def test_a_query_returns_the_items_and_pages_of_motos(query: dict[str, Any]) -> None:
    with mock_aws():
        make_tables()
        for number in range(14):
            item = {"target": "one" if number % 2 else "two", "sk": f"r#{number % 7}"}
            if number % 3:
                item |= {"month_shard": f"s{number % 2}", "at_key": f"r#{13 - number:x}"}
            typed = {name: {"S": value} for name, value in item.items()}
            client("dynamodb").put_item(TableName="xray-guard-audit", Item=typed)
        ours = answers(query)
        own = PartitionedTable.query
        try:
            PartitionedTable.query = Table.query  # type: ignore[method-assign]
            assert ours == answers(query)
        finally:
            PartitionedTable.query = own  # type: ignore[method-assign]
        assert any(ours) is (":none" not in query["KeyConditionExpression"])
