"""Anchors in a bucket: every version of every object is read, and what is none is named."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib.auditlog.anchors import Anchored, anchor_digest, anchored_heads
from chalicelib.aws.s3_anchors import read_anchors
from chalicelib.domain.errors import AwsError
from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import ZERO_HASH, Record
from tests.unit.endpoint import Endpoint, Refused

HERE, THERE = "111122223333/us-east-1", "111122223333/eu-west-1"
HEADS = [[HERE, 3, "ab" * 32], [THERE, 5, "cd" * 32]]


def anchor(heads: list[list[Any]], digest: str | None = None) -> bytes:
    known = [(target, seq, head) for target, seq, head in heads]
    return json.dumps({"record_id": "guard#1", "digest": digest or anchor_digest(known), "heads": heads}).encode()


class Bucket:
    """Versions of objects, listed two at a time."""

    def __init__(self, *versions: tuple[str, str, bytes]) -> None:
        self.versions = list(versions)

    def __call__(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if operation == "GetObject":
            key, version = parameters["Key"], parameters["VersionId"]
            return {"Body": io.BytesIO(next(body for *which, body in self.versions if which == [key, version]))}
        assert operation == "ListObjectVersions"
        listed = [(key, version) for key, version, _ in self.versions]
        after = (parameters.get("KeyMarker"), parameters.get("VersionIdMarker"))
        first = listed.index((str(after[0]), str(after[1]))) + 1 if after[0] else 0
        page = listed[first : first + 2]
        more = first + 2 < len(listed)
        return {
            "Versions": [{"Key": key, "VersionId": version} for key, version in page],
            "IsTruncated": more,
            **({"NextKeyMarker": page[-1][0], "NextVersionIdMarker": page[-1][1]} if more else {}),
        }


def test_p16_every_version_of_every_anchor_is_read_however_many_pages_there_are() -> None:
    """A version put over an anchor does not take the anchor away: Object Lock keeps both."""
    one = [[HERE, number, f"{number:064x}"] for number in range(1, 41)]
    versions = [
        ("anchors/a.json" if number % 2 else "anchors/b.json", f"v{number}", anchor([head]))
        for number, head in enumerate(one)
    ]
    heads, findings = read_anchors(Endpoint(Bucket(*versions)).clients, "us-east-1", "anchors")
    assert findings == []
    assert sorted((target, head.seq, head.hash) for target, head in heads) == [tuple(head) for head in one]


def test_p16_an_anchor_vouches_for_each_of_its_heads_and_says_where_it_is() -> None:
    endpoint = Endpoint(Bucket(("anchors/a.json", "v1", anchor(HEADS))))
    heads, _ = read_anchors(endpoint.clients, "us-east-1", "anchors")
    place = "s3://anchors/anchors/a.json (version v1)"
    assert heads == [(HERE, Anchored(3, "ab" * 32, place)), (THERE, Anchored(5, "cd" * 32, place))]


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"\xff", anchor(HEADS, digest="0" * 64), anchor(HEADS[:1], digest=anchor_digest([(HERE, 4, "ab")]))],
    ids=["empty", "no fields", "no text", "a digest of nothing", "a digest of others"],
)
def test_p16_an_object_that_is_no_anchor_is_named_and_hides_no_other(body: bytes) -> None:
    bucket = Bucket(("anchors/a.json", "v1", anchor(HEADS)), ("anchors/a.json", "v2", body))
    heads, findings = read_anchors(Endpoint(bucket).clients, "us-east-1", "anchors")
    assert len(heads) == 2
    assert [finding.code for finding in findings] == ["BAD_ANCHOR"]
    assert "version v2" in findings[0].message


@pytest.mark.parametrize("refused", ["ListObjectVersions", "GetObject"])
def test_p16_a_bucket_that_cannot_be_read_is_no_empty_bucket(refused: str) -> None:
    bucket = Bucket(("anchors/a.json", "v1", anchor(HEADS)))

    def answer(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if operation == refused:
            raise Refused("AccessDenied", status=403)
        return bucket(operation, parameters)

    with pytest.raises(AwsError):
        read_anchors(Endpoint(answer).clients, "us-east-1", "anchors")


@pytest.mark.parametrize("heads", ["none", [["a chain"]], [[1, 2, 3]], {"a": 1}, 7])
def test_p16_a_forged_sweep_record_whose_heads_are_none_anchors_nothing(heads: object) -> None:
    sweep, at = Trigger(TriggerKind.SWEEP), datetime(2026, 11, 20, tzinfo=UTC)
    forged = Record(
        "guard#1", "guard", 1, at, Outcome.IGNORED, sweep, ZERO_HASH, reason="SWEEP", detail={"heads": heads}
    )
    assert list(anchored_heads([forged])) == []
