"""Create the guard with its AWS adapters, for the functions and for operators."""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.iam import PrincipalsApi
from chalicelib.aws.kms import KeysApi
from chalicelib.aws.logs import SpanLogsApi
from chalicelib.aws.oam import TraceLinksApi
from chalicelib.aws.store import DynamoStore
from chalicelib.aws.tables import AUDIT_TABLE, TARGETS_TABLE
from chalicelib.aws.threads import Threads
from chalicelib.aws.xray import XRayApi
from chalicelib.domain.model import Target
from chalicelib.domain.policy import Policy
from chalicelib.domain.ports import Reach
from chalicelib.domain.stored import Record
from chalicelib.loop.guard import Guard

if TYPE_CHECKING:
    from chalicelib.aws.historystore import DynamoHistory
    from chalicelib.aws.logreads import LogStore

POLICIES = Path(__file__).parent.parent / "policies"


def make_store(clients: Clients, region: str, clock: AwsClock) -> DynamoStore:
    """Return the loop's store in the guard's own Region; the tables' names come from the environment."""
    return DynamoStore(clients, region, clock, *_table_names())


def make_log_store(clients: Clients, region: str, clock: AwsClock) -> LogStore:
    """Return the faces' store: the same store, with the reads of the log."""
    from chalicelib.aws.logreads import LogStore

    return LogStore(clients, region, clock, *_table_names())


def make_history_store(clients: Clients, region: str, clock: AwsClock) -> DynamoHistory:
    """Return the store of the function `event_history`, and of the faces that show what it found."""
    from chalicelib.aws.historystore import DynamoHistory

    return DynamoHistory(clients, region, clock, *_table_names())


def _table_names() -> tuple[str, str]:
    audit = os.environ.get("XRAY_GUARD_AUDIT_TABLE", AUDIT_TABLE)
    targets = os.environ.get("XRAY_GUARD_TARGETS_TABLE", TARGETS_TABLE)
    return audit, targets


def make_guard(
    clients: Clients,
    policy: Policy,
    *,
    account: str,
    partition: str,
    region: str,
    role_arn: str,
    emit: Callable[[Record], None],
    lease_seconds: int,
    worker: str,
    observe_only: bool = False,
) -> Guard:
    """Return a guard that acts with the clients' identity. `region` is the Region of its tables."""
    clock = AwsClock()
    store = make_store(clients, region, clock)
    threads = Threads()

    @cache  # two threads may make a Reach of the same target each, which costs nothing: it makes its clients later
    def reach(target: Target) -> Reach:
        return Reach(
            target,
            XRayApi(clients, target.region),
            KeysApi(clients, target.region, threads),
            PrincipalsApi(clients, target),
            SpanLogsApi(clients, target.region),
            TraceLinksApi(clients, target.region),
        )

    return Guard(
        account=account,
        partition=partition,
        role_arn=role_arn,
        policy=policy,
        store=store,
        clock=clock,
        reach=reach,
        gather=threads,
        fan_out=threads,
        sleep=time.sleep,
        random=random.random,
        new_id=lambda: str(uuid.uuid4()),
        emit=emit,
        worker=worker,
        lease_seconds=lease_seconds,
        requests=store,
        observe_only=observe_only,
    )
