"""Spans in the sandbox, with the packaged guard: encrypted in seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.domain.reasons import Outcome
from sandbox.server import Sandbox
from tests.component.guarded import (
    FOREIGN_ACCOUNT,
    GUARD_ACCOUNT,
    aliased_key,
    guarded,
    records_of,
    setting_of,
    took,
    undelivered,
)
from tests.component.test_sandbox_spans import key_for, logs_statement, search_on

HOME = "us-east-1"
HERE = f"{GUARD_ACCOUNT}/{HOME}"
SPANS_ARN = f"arn:aws:logs:{HOME}:{GUARD_ACCOUNT}:log-group:aws/spans"
WITHIN_SECONDS = 5.0


@pytest.fixture(scope="module")
def _account() -> Iterator[Sandbox]:
    with guarded(warm=True) as running:
        yield running


@pytest.fixture
def account(_account: Sandbox) -> Iterator[Sandbox]:
    """An account whose X-Ray is on the managed key, and that stores no spans."""
    _account.client("xray").put_encryption_config(Type="NONE")
    assert _account.idle(30)
    assert setting_of(_account)["KeyId"] == aliased_key(_account)
    yield _account
    _account.reset()


def has_the_managed_key(account: Sandbox) -> bool:
    return bool(account.spans()["key"] == aliased_key(account))


def searched(account: Sandbox) -> None:
    """Transaction Search is on, with the managed key."""
    search_on(account)
    assert account.idle(30)
    assert has_the_managed_key(account)


def test_transaction_search_without_a_key_gets_the_managed_key_within_seconds(account: Sandbox) -> None:
    search_on(account)
    assert took(lambda: has_the_managed_key(account)) < WITHIN_SECONDS
    assert account.idle(30)
    last = records_of(account, HERE)[-1]
    assert (last.outcome, [*last.violations]) == (Outcome.REMEDIATED, ["SPANS_NOT_KMS"])
    assert setting_of(account)["KeyId"] == aliased_key(account)


@pytest.mark.parametrize("named", [{"logGroupName": "aws/spans"}, {"resourceIdentifier": SPANS_ARN}])
def test_a_key_that_is_taken_away_is_given_back_however_the_group_is_named(
    named: dict[str, str], account: Sandbox
) -> None:
    searched(account)
    account.client("logs").disassociate_kms_key(**named)
    assert took(lambda: has_the_managed_key(account)) < WITHIN_SECONDS


def test_a_key_of_another_account_is_replaced(account: Sandbox) -> None:
    searched(account)
    foreign = key_for(account, logs_statement(SPANS_ARN), account=FOREIGN_ACCOUNT)
    account.client("logs").associate_kms_key(logGroupName="aws/spans", kmsKeyId=foreign)
    assert account.idle(30)
    assert has_the_managed_key(account)
    assert "SPANS_KEY_NOT_ALLOWED" in records_of(account, HERE)[-1].violations


def test_x_ray_is_encrypted_though_cloudwatch_logs_refuses_every_call(account: Sandbox) -> None:
    with undelivered(account):
        search_on(account)
    account.fail("logs", "*", "AccessDeniedException", message="no identity-based policy allows it", times=10_000)
    account.client("xray").put_encryption_config(Type="NONE")
    assert took(lambda: setting_of(account).get("KeyId") == aliased_key(account)) < WITHIN_SECONDS
    account.faults.clear()
    assert account.spans()["key"] is None


def test_p13_the_key_policy_keeps_every_statement_when_it_gets_that_of_cloudwatch_logs(account: Sandbox) -> None:
    kms = account.client("kms")

    def statements() -> list[Any]:
        found: list[Any] = json.loads(kms.get_key_policy(KeyId=aliased_key(account))["Policy"])["Statement"]
        return found

    before = statements()
    searched(account)
    after = statements()
    assert [each for each in before if each not in after] == []
    (added,) = [each for each in after if each not in before]
    assert added["Principal"] == {"Service": f"logs.{HOME}.amazonaws.com"}
    assert SPANS_ARN in json.dumps(added["Condition"])
