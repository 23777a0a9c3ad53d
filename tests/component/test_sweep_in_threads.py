"""A sweep in real threads, with the real clients against the sandbox: nothing of its records or metrics is lost."""

from __future__ import annotations

import io
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from bench.account import REGIONS
from chalicelib import entry
from chalicelib.auditlog.verify import verify
from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.domain.policy import parse
from chalicelib.domain.stored import GUARD_CHAIN
from chalicelib.wiring import make_guard, make_log_store
from sandbox.server import Sandbox
from tests.component.guarded import GUARD_ACCOUNT, POLICY, guarded, records_of, setting_of
from tests.unit.test_functions import Context


class Running(Context):
    """Lambda's context, whose time goes by."""

    def __init__(self) -> None:
        super().__init__()
        self._until = time.monotonic() + 300.0

    def get_remaining_time_in_millis(self) -> int:
        return int((self._until - time.monotonic()) * 1000)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """An account with seventeen Regions, none of them encrypted, and the guard's functions in this process."""
    with guarded(regions=REGIONS, event_copies=0) as sandbox:
        for name, value in sandbox.environment().items():
            monkeypatch.setenv(name, value)
        for region in REGIONS:
            sandbox.client("xray", region).put_encryption_config(Type="KMS", KeyId="alias/aws/xray")
        process = entry._Process()
        process.guard = make_guard(
            process.clients,
            parse(POLICY.read_bytes()),
            account=GUARD_ACCOUNT,
            partition="aws",
            region="us-east-1",
            role_arn=f"arn:aws:iam::{GUARD_ACCOUNT}:role/xray-guard-role",
            emit=entry._emit,
            lease_seconds=0,
            worker="",
        )
        entry._process = process
        yield sandbox
    entry._process = None
    entry.metrics.clear_metrics()


def test_every_record_and_metric_of_targets_that_run_side_by_side_is_there_once(
    account: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(entry.logger.registered_formatter)
    logging.getLogger(entry.logger.name).addHandler(handler)
    result = entry.sweep({}, Running())
    logging.getLogger(entry.logger.name).removeHandler(handler)

    remediated = sum(setting_of(account, region)["KeyId"] != "alias/aws/xray" for region in REGIONS)
    assert result == {"targets": 17, "outcomes": {"REMEDIATED": 17}}
    assert remediated == 17
    chains = [GUARD_CHAIN, *(f"{GUARD_ACCOUNT}/{region}" for region in REGIONS)]
    stored = [record for chain in chains for record in records_of(account, chain)]
    run: Any = next(record for record in stored if record.reason == "SWEEP").detail["run"]
    assert (run["targets"], run["at_once"]) == (17, 8)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    emitted = Counter(line["record_id"] for line in lines if line["message"] == "record")
    assert emitted == Counter(record.record_id for record in stored)
    assert _sums(capsys.readouterr().out) == {"Remediated": 17.0, "SweepCompleted": 1.0}
    checked = verify(make_log_store(Clients(), "us-east-1", AwsClock()))
    assert (checked.findings, checked.chains, checked.records) == ((), 18, len(stored))


def _sums(printed: str) -> dict[str, float]:
    """The sum of each metric that was sent to CloudWatch."""
    sums: Counter[str] = Counter()
    for line in printed.splitlines():
        sent = json.loads(line) if line.startswith("{") else {}
        for group in sent.get("_aws", {}).get("CloudWatchMetrics", ()):
            for metric in group["Metrics"]:
                sums.update({metric["Name"]: sum(sent[metric["Name"]])})
    return dict(sums)
