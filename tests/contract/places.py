"""A place that answers as AWS does, and what every contract test asks of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Place:
    """Somewhere that answers as AWS does. `patience_seconds` is how long it may take to settle."""

    name: str
    client: Callable[[str], Any]
    patience_seconds: float

    def __post_init__(self) -> None:
        self.keys: list[str] = []
        self.xray = self.client("xray")
        self.kms = self.client("kms")

    def key(self, **properties: Any) -> str:
        """Make a key that is given back at the end. Answers its ARN."""
        arn: str = self.kms.create_key(Description="contract test", **properties)["KeyMetadata"]["Arn"]
        self.keys.append(arn)
        return arn

    def state(self, key: str) -> str:
        """The key's state as DescribeKey tells it."""
        state: str = self.kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"]
        return state
