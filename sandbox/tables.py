"""DynamoDB's tables: a query reads its own partition. moto's sorts and filters the whole table at every query."""

from __future__ import annotations

from typing import Any

from moto.dynamodb.models.dynamo_type import DynamoType, Item
from moto.dynamodb.models.table import Table


class PartitionedTable(Table):
    """moto's table, whose queries consider only the items of the wanted partition, and of a range of texts."""

    _considered: list[Item] | None = None

    def query(self, hash_key: DynamoType | None, *arguments: Any, **named: Any) -> Any:
        """Return what moto's would."""
        index_name = arguments[6] if len(arguments) > 6 else named.get("index_name")
        wanted = named.get("hash_key_conditions")
        if index_name is None:
            self._considered = self._partition(hash_key)
        elif wanted:
            self._considered = self._with(*wanted[0])
        for name, comparison, values in named.get("range_key_conditions") or ():
            if comparison == "BETWEEN" and self._considered is not None and values[0].type == "S":
                self._considered = _between(self._considered, name, *(each.value for each in values))
        try:
            return super().query(hash_key, *arguments, **named)
        finally:
            self._considered = None

    def all_items(self) -> list[Item]:
        """Return the items in order; during a query, those that it considers in any order, because it sorts them."""
        return super().all_items() if self._considered is None else self._considered

    def sorted_items(self, hash_attrs: Any, range_attrs: Any, items: list[Item]) -> list[Item]:
        """Sort the items of an index's query by its keys, and compare texts as such."""
        names = self._generate_attr_to_sort_by(hash_attrs, range_attrs)
        return sorted(items, key=lambda item: [_plain(item.attrs[name]) for name in names])

    def _partition(self, hash_key: DynamoType | None) -> list[Item]:
        found: Any = self.items.get(hash_key, {})
        return list(found.values()) if self.range_key_attr else [found] if found else []

    def _with(self, name: str, wanted: DynamoType) -> list[Item]:
        parts: Any = self.items.values()
        all_items: list[Item] = [item for part in parts for item in part.values()] if self.range_key_attr else [*parts]
        return [item for item in all_items if (found := item.attrs.get(name)) and found.value == wanted.value]


def _plain(value: DynamoType) -> Any:
    return value.value if value.type == "S" else value.cast_value


def _between(items: list[Item], name: str, first: str, last: str) -> list[Item]:
    """Return the items in the range, and the next one on either side: where a page ends, moto looks for a next item."""
    keyed = [(found.value, item) for item in items if (found := item.attrs.get(name))]
    inside = [item for value, item in keyed if first <= value <= last]
    below = max(((value, item) for value, item in keyed if value < first), key=lambda each: each[0], default=None)
    above = min(((value, item) for value, item in keyed if value > last), key=lambda each: each[0], default=None)
    return [*inside, *(each[1] for each in (below, above) if each)]
