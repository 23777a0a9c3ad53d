"""Anchors in an S3 bucket with Object Lock: write the heads of a sweep, and read every version of every object.

Anyone who may write to the bucket can put a new version or a delete marker over an anchor. Neither removes a locked
version, so all versions are read. https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from chalicelib.auditlog.anchors import Anchored, anchor_digest
from chalicelib.auditlog.chaincheck import Finding
from chalicelib.aws.clients import Clients, call
from chalicelib.aws.paging import pages
from chalicelib.aws.threads import Threads
from chalicelib.domain.stored import GUARD_CHAIN, Record

PREFIX = "anchors/"
AT_ONCE = 16

Heads = list[tuple[str, Anchored]]


class _Anchor(msgspec.Struct):
    record_id: str
    digest: str
    heads: list[tuple[str, int, str]]


class AnchorBucket:
    """`sweep.Anchors` in an S3 bucket with Object Lock: one object per sweep, named by time and the record's seq."""

    def __init__(self, clients: Clients, region: str, bucket: str) -> None:
        self._clients = clients
        self._region = region
        self._bucket = bucket

    def keep(self, record: Record, heads: Sequence[tuple[str, int, str]]) -> None:
        """PutObject of the digest and all heads."""
        body = msgspec.json.encode({"record_id": record.record_id, "digest": record.detail["digest"], "heads": heads})
        client = self._clients.reading("s3", self._region)
        name = f"{PREFIX}{record.at:%Y/%m/%d/%H%M%S}-{record.seq:012d}.json"
        call(
            "s3:PutObject",
            client.put_object,
            Bucket=self._bucket,
            Key=name,
            Body=body,
            ContentType="application/json",
            ChecksumAlgorithm="SHA256",
        )


def read_anchors(clients: Clients, region: str, bucket: str) -> tuple[Heads, list[Finding]]:
    """Return (chain, anchored head) of every anchor in the bucket, and a finding (BAD_ANCHOR) for each invalid object.

    Raises AwsError if the bucket cannot be listed or read.
    """
    client = clients.reading("s3", region)
    gather = Threads(AT_ONCE)
    heads: Heads = []
    findings: list[Finding] = []
    reads: list[Callable[[], Heads | Finding]] = [
        partial(_heads, client, bucket, key, version) for key, version in _versions(client, bucket)
    ]
    for first in range(0, len(reads), AT_ONCE):
        for read in gather(reads[first : first + AT_ONCE]):
            if isinstance(read, Finding):
                findings.append(read)
            else:
                heads += read
    return heads, findings


def anchor_times(clients: Clients, region: str, bucket: str) -> list[datetime]:
    """When each anchor in the bucket was written, by its name, oldest first; a name of another form is left out.

    Raises AwsError if the bucket cannot be listed.
    """
    times = set()
    for key, _ in _versions(clients.reading("s3", region), bucket):
        with suppress(ValueError):
            times.add(datetime.strptime(key.rpartition("-")[0], f"{PREFIX}%Y/%m/%d/%H%M%S").replace(tzinfo=UTC))
    return sorted(times)


def _versions(client: Any, bucket: str) -> Iterator[tuple[str, str]]:
    tokens = {"KeyMarker": "NextKeyMarker", "VersionIdMarker": "NextVersionIdMarker"}
    listed = pages(
        "s3:ListBucketVersions", client.list_object_versions, tokens, "IsTruncated", Bucket=bucket, Prefix=PREFIX
    )
    for response in listed:
        for version in response.get("Versions", ()):
            yield version["Key"], version["VersionId"]


def _heads(client: Any, bucket: str, key: str, version: str) -> Heads | Finding:
    answer = call("s3:GetObjectVersion", client.get_object, Bucket=bucket, Key=key, VersionId=version)
    place = f"s3://{bucket}/{key} (version {version})"
    try:
        anchor = msgspec.json.decode(answer["Body"].read(), type=_Anchor)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Finding(GUARD_CHAIN, 0, "BAD_ANCHOR", f"{place} is not a valid anchor")
    if anchor.digest != anchor_digest(anchor.heads):
        return Finding(GUARD_CHAIN, 0, "BAD_ANCHOR", f"{place}: the digest does not match the heads")
    return [(target, Anchored(seq, head, place)) for target, seq, head in anchor.heads]
