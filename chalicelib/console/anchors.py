"""Which anchors of the audit log exist, where, and since when."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime

from chalicelib.auditlog import history
from chalicelib.auditlog.filters import Filter
from chalicelib.auditlog.hashchain import unseal
from chalicelib.aws.clients import call
from chalicelib.aws.s3_anchors import anchor_times
from chalicelib.domain.errors import AwsError
from chalicelib.domain.reasons import Reason
from chalicelib.domain.stored import GUARD_CHAIN, Record
from chalicelib.operators.context import Operator
from chalicelib.operators.errors import operator_error

ANCHORING = (Reason.SWEEP, Reason.ANCHOR)
OLDEST_SEARCHED, NEWEST_SEARCHED = 100, 50
SWEEPER = "xray-guard-sweep"


@dataclass(frozen=True, slots=True)
class Anchors:
    """The first and the latest anchor in the log, and those in the bucket; `problem` says why these are not known."""

    first_at: datetime | None
    last_at: datetime | None
    bucket: str | None
    in_bucket: int = 0
    bucket_first_at: datetime | None = None
    bucket_last_at: datetime | None = None
    problem: str | None = None


def anchors_of(operator: Operator) -> Anchors:
    """Read which anchors exist. What AWS denies of the bucket is a `problem`; errors of the log's reads are raised."""
    store = operator.store
    rows = store.oldest(GUARD_CHAIN, OLDEST_SEARCHED, 1).rows
    latest = history.records(store, Filter(target=GUARD_CHAIN), operator.now(), NEWEST_SEARCHED)
    firsts = (record.at for row in rows if (record := _record(row.body)) and record.reason in ANCHORING)
    lasts = (entry.record.at for entry in latest.entries if entry.record.reason in ANCHORING)
    first, last = next(firsts, None), next(lasts, None)
    bucket, problem = os.environ.get("XRAY_GUARD_ANCHOR_BUCKET"), None
    try:
        bucket = bucket or _deployed_bucket(operator)
        times = anchor_times(operator.clients, operator.region, bucket) if bucket else []
    except AwsError as error:
        times, problem = [], operator_error(error).message
    oldest, newest = (times[0], times[-1]) if times else (None, None)
    return Anchors(first, last, bucket, len(times), oldest, newest, problem)


def _deployed_bucket(operator: Operator) -> str | None:
    """The bucket that the deployed guard writes to; None if there is none, or no guard is deployed here."""
    client = operator.clients.reading("lambda", operator.region)
    try:
        found = call("lambda:GetFunctionConfiguration", client.get_function_configuration, FunctionName=SWEEPER)
    except AwsError as error:
        if error.code == "ResourceNotFoundException":
            return None
        raise
    bucket = found.get("Environment", {}).get("Variables", {}).get("XRAY_GUARD_ANCHOR_BUCKET")
    return str(bucket) if bucket else None


def _record(body: bytes) -> Record | None:
    try:
        return unseal(body)
    except ValueError:
        return None
