"""Which policy the guard enforced: the documents on record in the guard's own chain."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from chalicelib.auditlog.hashchain import RECORD_SORT_KEY, unseal
from chalicelib.auditlog.walks import Reads
from chalicelib.domain.policy import sha256_of
from chalicelib.domain.reasons import Reason
from chalicelib.domain.stored import GUARD_CHAIN

ROWS_AT_ONCE = 100


class Enforced(Struct, frozen=True):
    """A policy on record. `since` is the guard's first run under it; `document` is its text.

    `document` is None where the record does not hold it: a former version of the guard wrote it, or it was too long. It
    is also None where the text on record does not have the digest.
    """

    digest: str
    since: datetime
    document: str | None


def enforced_policy(store: Reads, digest: str | None = None) -> Enforced | None:
    """The newest policy on record whose digest begins with `digest`; the one in force without. None: not on record."""
    before: int | None = None
    while True:
        page = store.newest(GUARD_CHAIN, ROWS_AT_ONCE, before)
        for row in page.rows:
            try:
                record = unseal(row.body)
            except ValueError:
                continue  # `audit verify` names it
            named = record.policy_digest or ""
            if record.reason == Reason.POLICY_IN_FORCE and named.startswith(digest or ""):
                text = record.detail.get("document")
                if not isinstance(text, str) or sha256_of(text.encode()) != named:
                    return Enforced(named, record.at, None)
                return Enforced(named, record.at, text)
        place = RECORD_SORT_KEY.fullmatch(page.rows[-1].sk) if page.rows else None
        if place is None or not page.more:
            return None
        before = int(place[1])
