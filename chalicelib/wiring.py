"""Putting the guard together from real parts, for the functions and for the command line alike."""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import msgspec

from chalicelib.aws.clients import AwsClock, Clients, Threads, call
from chalicelib.aws.keys import KeysApi, PrincipalsApi
from chalicelib.aws.store import AUDIT_TABLE, TARGETS_TABLE, DynamoStore
from chalicelib.aws.xray import XRayApi
from chalicelib.domain.model import Target
from chalicelib.domain.policy import Policy
from chalicelib.domain.ports import Reach
from chalicelib.domain.stored import Record
from chalicelib.loop.guard import Guard

POLICIES = Path(__file__).parent.parent / "policies"


def make_store(clients: Clients, region: str, clock: AwsClock) -> DynamoStore:
    """The store in the guard's own Region; the tables' names come from the environment."""
    audit = os.environ.get("XRAY_GUARD_AUDIT_TABLE", AUDIT_TABLE)
    targets = os.environ.get("XRAY_GUARD_TARGETS_TABLE", TARGETS_TABLE)
    return DynamoStore(clients, region, clock, audit, targets)


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
) -> Guard:
    """A guard that acts with the clients' identity. `region` is where its tables are."""
    clock = AwsClock()
    store = make_store(clients, region, clock)
    gather = Threads()

    @cache
    def reach(target: Target) -> Reach:
        return Reach(
            target,
            XRayApi(clients, target.region),
            KeysApi(clients, target.region, gather),
            PrincipalsApi(clients, target),
        )

    return Guard(
        account=account,
        partition=partition,
        role_arn=role_arn,
        policy=policy,
        store=store,
        clock=clock,
        reach=reach,
        gather=gather,
        sleep=time.sleep,
        random=random.random,
        new_id=lambda: str(uuid.uuid4()),
        emit=emit,
        worker=worker,
        lease_seconds=lease_seconds,
        requests=store,
    )


def enabled_regions(clients: Clients, region: str) -> list[str]:
    """The Regions that the account has enabled (ec2:DescribeRegions without AllRegions)."""
    answer = call("ec2:DescribeRegions", clients.reading("ec2", region).describe_regions)
    return sorted(entry["RegionName"] for entry in answer["Regions"])


class AnchorBucket:
    """`sweep.Anchors` in an S3 bucket with Object Lock: one object a sweep, named by time and the record's seq."""

    def __init__(self, clients: Clients, region: str, bucket: str) -> None:
        self._clients = clients
        self._region = region
        self._bucket = bucket

    def keep(self, record: Record, heads: Sequence[tuple[str, int, str]]) -> None:
        """PutObject of the digest and all heads."""
        body = msgspec.json.encode({"record_id": record.record_id, "digest": record.detail["digest"], "heads": heads})
        client = self._clients.reading("s3", self._region)
        name = f"anchors/{record.at:%Y/%m/%d/%H%M%S}-{record.seq:012d}.json"
        call(
            "s3:PutObject",
            client.put_object,
            Bucket=self._bucket,
            Key=name,
            Body=body,
            ContentType="application/json",
            ChecksumAlgorithm="SHA256",
        )
