"""States and records of every format: read, continued, refused, or shown as far as this release can."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib.auditlog import hashchain
from chalicelib.auditlog.draft import Draft
from chalicelib.auditlog.states import read_state
from chalicelib.auditlog.verify import verify
from chalicelib.auditlog.views import read_entry
from chalicelib.domain.errors import FormatTooNew
from chalicelib.domain.formats import FIRST_FORMAT, FORMAT
from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GuardState, Record, TargetState
from tests.unit.logbook import Logbook

HERE = "111122223333/us-east-1"
AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


def text(**fields: object) -> str:
    return json.dumps({"target": HERE, "version": 3, **fields})


@pytest.mark.parametrize("stored", [{}, {"format": FIRST_FORMAT}, {"format": FORMAT}])
def test_a_state_of_this_format_or_a_lower_one_is_read_and_keeps_its_format(stored: dict[str, int]) -> None:
    known = stored.get("format", FIRST_FORMAT)
    assert read_state(text(**stored), TargetState) == TargetState(HERE, version=3, format=known)
    assert read_state(text(**stored), GuardState).format == known


def test_the_one_backoff_of_a_lower_format_is_dropped_and_those_of_this_format_are_read() -> None:
    former = {"count": 4, "last_at": "2026-11-20T12:00:00Z", "until": "2026-11-20T12:30:00Z"}
    assert read_state(text(format=2, backoff=former), TargetState).backoffs == {}
    assert read_state(text(format=3, backoffs={"key": former}), TargetState).backoffs[Lane.KEY].count == 4


@pytest.mark.parametrize("fields", [{}, {"version": "three"}, {"incident": 7}])
def test_a_state_of_a_higher_format_is_refused_whether_or_not_it_could_be_read(fields: dict[str, object]) -> None:
    newer = text(format=FORMAT + 1, **fields)
    for read in (lambda: read_state(newer, TargetState), lambda: read_state(newer, GuardState)):
        with pytest.raises(FormatTooNew) as refused:
            read()
        assert refused.value.problem.code == "FORMAT_TOO_NEW"
        assert HERE in refused.value.problem.message


@pytest.mark.parametrize("broken", ["", "7", '{"target": 7}', text(format="two"), text(version="three")])
def test_what_is_no_state_is_an_error_of_its_own(broken: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_state(broken, TargetState)


def row(**fields: object) -> hashchain.StoredRow:
    """A record's row, with some fields as another release, or somebody else, would have stored them."""
    draft = Draft(TargetState(HERE))
    draft.add(AT, Outcome.COMPLIANT, Trigger(TriggerKind.SWEEP), rule="baseline")
    body = json.dumps({**json.loads(draft.records[0][1]), **fields}, sort_keys=True).encode()
    index = hashchain.time_index(HERE, 1, AT)
    return hashchain.StoredRow(HERE, hashchain.sort_key(1), body, hashchain.digest(body), index)


def shown(stored: hashchain.StoredRow) -> Record | None:
    entry = read_entry(stored)
    return entry.record if entry else None


UNKNOWN: dict[str, Any] = {"violations": ["KEY_TOO_OLD"], "change": {"subject": "key-usage"}, "moon": "full"}


def test_a_record_of_a_newer_release_is_shown_without_the_fields_that_cannot_be_read() -> None:
    record = shown(row(format=FORMAT + 1, **UNKNOWN))
    assert record is not None
    assert (record.outcome, record.rule, record.format) == (Outcome.COMPLIANT, "baseline", FORMAT + 1)
    assert (record.violations, record.change) == ((), None)


@pytest.mark.parametrize("fields", [{"outcome": "HEALED"}, {"at": "once"}, {"trigger": None}])
def test_a_record_of_a_newer_release_is_not_shown_without_what_every_record_says(fields: dict[str, object]) -> None:
    assert shown(row(format=FORMAT + 1, **fields)) is None


def test_a_record_of_a_known_format_with_an_unknown_value_is_unreadable() -> None:
    assert shown(row(**UNKNOWN)) is None
    assert shown(row(violations=["KEY_TOO_OLD"], format=FIRST_FORMAT)) is None


def test_p16_records_of_a_newer_release_are_verified_and_counted() -> None:
    log = Logbook()
    newer = row(format=FORMAT + 1, **UNKNOWN)
    log.put(newer)
    log.ends[HERE] = (1, newer.hash)
    report = verify(log)
    assert (report.findings, report.records, report.newer) == ((), 1, 1)
    log.put(hashchain.StoredRow(HERE, newer.sk, newer.body.replace(b"full", b"half"), newer.hash, newer.index))
    assert [finding.code for finding in verify(log).findings] == ["EDITED"]
