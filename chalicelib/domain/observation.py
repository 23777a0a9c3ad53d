"""The observation: everything read about a target at one moment, as one value that all decisions share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct, field

from chalicelib.domain.model import Key, Setting
from chalicelib.domain.reasons import Problem
from chalicelib.domain.spans import Links, Spans

CLOSED_KEY = "a key that the guard may not read"
"""Used instead of the ARN of an alias's key if the key's policy does not let the guard see which key it is."""


class Observation(Struct, frozen=True):
    """Everything read about a target at one moment.

    `keys` maps a key's ARN to the key, None if KMS says that it does not exist. `aliases` maps an alias to its key's
    ARN, None if there is no such alias. `closed` are keys that the rule rules out by name and whose policy does not let
    the guard read more. `in_use` is None if X-Ray's service graph was not read; if it may not be read, `use_problem`
    says why. `deep`: policy, rotation and tags were read. `setting_at`: the setting was read again after that time.
    `links` is None if they were not read this time.
    """

    at: datetime
    setting: Setting
    keys: Mapping[str, Key | None] = field(default_factory=dict)
    aliases: Mapping[str, str | None] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()
    in_use: bool | None = None
    use_problem: Problem | None = None
    deep: bool = True
    setting_at: datetime | None = None
    spans: Spans = Spans()
    links: Links | None = None
