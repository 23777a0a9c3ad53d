"""The format of anchors: the heads of all chains, as each sweep writes them where the log's writers cannot reach."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from chalicelib.auditlog.hashchain import digest
from chalicelib.domain.reasons import Reason
from chalicelib.domain.stored import GUARD_CHAIN, Record


class Anchored(Struct, frozen=True):
    """A head that was written down elsewhere. `anchored_by` says where, for people: a sweep's record, an S3 object."""

    seq: int
    hash: str
    anchored_by: str


def anchor_digest(heads: Iterable[tuple[str, int, str]]) -> str:
    """One hash for all heads (target, seq, hash), whatever order they come in: what a sweep writes down."""
    return digest(msgspec.json.encode(sorted(heads)))


def anchored_heads(records: Iterable[Record]) -> Iterable[tuple[str, Anchored]]:
    """(chain, anchored head) of every sweep and anchor among the records of the guard's own chain."""
    for record in records:
        if record.target == GUARD_CHAIN and record.reason in (Reason.SWEEP, Reason.ANCHOR):
            for target, seq, head in record.detail.get("heads", ()):
                yield target, Anchored(seq, head, f"sweep {record.record_id} of {record.at:%Y-%m-%dT%H:%M:%SZ}")
