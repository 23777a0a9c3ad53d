"""Everything read about a target at one moment, as one value that all decisions share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct, field

from chalicelib.domain.model import Key, Setting
from chalicelib.domain.reasons import Problem

CLOSED_KEY = "a key that the guard may not read"
"""Stands for the ARN of a key behind an alias where the key's policy does not even let the guard see which it is."""


class Observation(Struct, frozen=True):
    """Everything read about a target at one moment.

    `keys` maps a key's ARN to what KMS told of it, None where KMS says there is no such key. `aliases` maps an alias to
    the ARN of its key, None where there is no such alias. `closed` are keys that are ruled out by name and whose policy
    keeps the guard from reading more. `in_use` is None where X-Ray's service graph was not asked, or may not be read:
    `use_problem` then says why. `deep` tells that policy, rotation and tags were read.
    """

    at: datetime
    setting: Setting
    keys: Mapping[str, Key | None] = field(default_factory=dict)
    aliases: Mapping[str, str | None] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()
    in_use: bool | None = None
    use_problem: Problem | None = None
    deep: bool = True
