"""P16: the policy that was enforced is shown from the record only where its text has the recorded digest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chalicelib.auditlog.enforced import Enforced, enforced_policy, policy_in_force
from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.policy import sha256_of
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import GUARD_CHAIN, GuardState
from tests.unit.logbook import Logbook

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SWEEP = Trigger(TriggerKind.SWEEP)
FIRST, SECOND = '{"version": 1}', '{"version": 1, "rules": []}'


@pytest.fixture
def log() -> Logbook:
    """A policy, a hundred and fifty sweeps, another policy, and one more sweep."""
    book = Logbook()
    enforce(book, FIRST, NOON)
    for hour in range(150):
        book.add(GUARD_CHAIN, NOON + timedelta(hours=hour), Outcome.IGNORED, SWEEP, reason=Reason.SWEEP)
    enforce(book, SECOND, NOON + timedelta(days=7))
    book.add(GUARD_CHAIN, NOON + timedelta(days=8), Outcome.IGNORED, SWEEP, reason=Reason.SWEEP)
    return book


def enforce(book: Logbook, text: str, at: datetime, digest: str | None = None, **detail: object) -> None:
    book.add(
        GUARD_CHAIN,
        at,
        Outcome.IGNORED,
        SWEEP,
        reason=Reason.POLICY_IN_FORCE,
        policy_digest=digest or sha256_of(text.encode()),
        detail=detail or {"document": text},
    )


def test_without_a_digest_it_is_the_policy_in_force(log: Logbook) -> None:
    assert enforced_policy(log) == Enforced(sha256_of(SECOND.encode()), NOON + timedelta(days=7), SECOND)


def test_a_former_policy_is_found_by_the_beginning_of_its_digest_however_long_ago(log: Logbook) -> None:
    digest = sha256_of(FIRST.encode())
    assert enforced_policy(log, digest[:10]) == Enforced(digest, NOON, FIRST)


def test_what_is_not_on_record_is_none(log: Logbook) -> None:
    assert enforced_policy(log, "0000") is None
    assert enforced_policy(Logbook()) is None


@pytest.mark.parametrize("detail", [{"document": "another text"}, {"document_bytes": 400_002}, {"document": None}])
def test_p16_a_text_that_does_not_have_the_digest_is_not_shown(log: Logbook, detail: dict[str, object]) -> None:
    enforce(log, SECOND, NOON + timedelta(days=9), "ffff", **detail)
    assert enforced_policy(log, "ffff") == Enforced("ffff", NOON + timedelta(days=9), None)


def test_the_policy_in_force_is_one_query_by_the_number_of_its_record(log: Logbook) -> None:
    first, second = sha256_of(FIRST.encode()), sha256_of(SECOND.encode())
    state = GuardState(policy_digest=first, policy_seq=1)
    assert policy_in_force(log, state) == Enforced(first, NOON, FIRST)
    assert (log.queries, log.items_read) == (1, 1)
    assert policy_in_force(log, GuardState(policy_digest=second, policy_seq=1)) == enforced_policy(log, second)
    assert policy_in_force(log, GuardState(policy_digest=first)) == Enforced(first, NOON, FIRST)
    assert policy_in_force(log, GuardState()) is None
    assert policy_in_force(log, GuardState(policy_digest="0000", policy_seq=999)) is None
