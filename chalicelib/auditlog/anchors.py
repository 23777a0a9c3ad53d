"""The format of anchors: the heads of all chains, which each sweep stores outside the chains."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from chalicelib.auditlog.hashchain import digest
from chalicelib.domain.reasons import Reason
from chalicelib.domain.stored import GUARD_CHAIN, Record


class Anchored(Struct, frozen=True):
    """A head that an anchor contains. `anchored_by` names the anchor for people: a sweep's record or an S3 object."""

    seq: int
    hash: str
    anchored_by: str


def anchor_digest(heads: Iterable[tuple[str, int, str]]) -> str:
    """One hash for all heads (target, seq, hash), in any order."""
    return digest(msgspec.json.encode(sorted(heads)))


def anchored_heads(records: Iterable[Record]) -> Iterable[tuple[str, Anchored]]:
    """(chain, anchored head) from the records of sweeps and anchors in the guard's own chain."""
    for record in records:
        if record.target == GUARD_CHAIN and record.reason in (Reason.SWEEP, Reason.ANCHOR):
            try:
                heads = msgspec.convert(record.detail.get("heads", ()), tuple[tuple[str, int, str], ...])
            except msgspec.ValidationError:
                continue  # the guard writes no such heads: the verification of its own chain names the record
            for target, seq, head in heads:
                yield target, Anchored(seq, head, f"sweep {record.record_id} of {record.at:%Y-%m-%dT%H:%M:%SZ}")
