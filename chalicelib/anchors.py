"""Reading back the heads that sweeps wrote to a bucket with Object Lock, every version of every object.

Whoever may write to the bucket can put another version over an anchor, or a delete marker; neither takes away a locked
version, so all of them are read. https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from chalicelib.chain import Anchored, anchor_digest
from chalicelib.clients import Clients, call
from chalicelib.errors import AwsError

PREFIX = "anchors/"


class _Anchor(msgspec.Struct):
    record_id: str
    digest: str
    heads: list[tuple[str, int, str]]


def read_anchors(clients: Clients, region: str, bucket: str) -> Iterator[tuple[str, Anchored]]:
    """(chain, anchored head) of every anchor in the bucket, the oldest name first.

    Raises AwsError; an object that is no anchor, or whose digest is not that of its heads, is one too: `BadAnchor`.
    """
    client = clients.reading("s3", region)
    page: dict[str, str] = {}
    while True:
        answer = call("s3:ListBucketVersions", client.list_object_versions, Bucket=bucket, Prefix=PREFIX, **page)
        for version in answer.get("Versions", ()):
            yield from _heads(client, bucket, version["Key"], version["VersionId"])
        if not answer.get("IsTruncated"):
            return
        page = {"KeyMarker": answer["NextKeyMarker"], "VersionIdMarker": answer["NextVersionIdMarker"]}


def _heads(client: object, bucket: str, key: str, version: str) -> Iterator[tuple[str, Anchored]]:
    get = client.get_object  # type: ignore[attr-defined]
    answer = call("s3:GetObjectVersion", get, Bucket=bucket, Key=key, VersionId=version)
    place = f"s3://{bucket}/{key} (version {version})"
    try:
        anchor = msgspec.json.decode(answer["Body"].read(), type=_Anchor)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise AwsError("s3:GetObjectVersion", "BadAnchor", f"{place} is no anchor: {error}") from error
    if anchor.digest != anchor_digest(anchor.heads):
        raise AwsError("s3:GetObjectVersion", "BadAnchor", f"{place} has a digest that is not its heads'")
    for target, seq, head in anchor.heads:
        yield target, Anchored(seq, head, place)
