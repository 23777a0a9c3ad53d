"""Which policy the guard enforced: the documents on record in the guard's own chain."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from chalicelib.auditlog.hashchain import RECORD_SORT_KEY, StoredRow, unseal
from chalicelib.auditlog.walks import Reads
from chalicelib.domain.policy import sha256_of
from chalicelib.domain.reasons import Reason
from chalicelib.domain.stored import GUARD_CHAIN, GuardState

ROWS_AT_ONCE = 100


class Enforced(Struct, frozen=True):
    """A policy on record. `since` is the guard's first run under it; `document` is its text.

    `document` is None where the record does not hold it: a former version of the guard wrote it, or it was too long. It
    is also None where the text on record does not have the digest.
    """

    digest: str
    since: datetime
    document: str | None


def policy_in_force(store: Reads, state: GuardState) -> Enforced | None:
    """The policy that the guard last ran with, according to its own state. None if it never ran, or not on record.

    One query, except where a former release recorded the policy: then the log is searched.
    """
    if state.policy_digest is None:
        return None
    if state.policy_seq is not None:
        for row in store.oldest(GUARD_CHAIN, 1, state.policy_seq).rows:
            if (found := _enforced(row)) and found.digest == state.policy_digest:
                return found
    return enforced_policy(store, state.policy_digest)


def enforced_policy(store: Reads, digest: str | None = None) -> Enforced | None:
    """The newest policy on record whose digest begins with `digest`; the one in force without. None: not on record."""
    before: int | None = None
    while True:
        page = store.newest(GUARD_CHAIN, ROWS_AT_ONCE, before)
        for row in page.rows:
            if (found := _enforced(row)) and found.digest.startswith(digest or ""):
                return found
        place = RECORD_SORT_KEY.fullmatch(page.rows[-1].sk) if page.rows else None
        if place is None or not page.more:
            return None
        before = int(place[1])


def _enforced(row: StoredRow) -> Enforced | None:
    """The policy that a record says is in force; None if it says nothing of that."""
    try:
        record = unseal(row.body)
    except ValueError:
        return None  # `audit verify` names it
    if record.reason != Reason.POLICY_IN_FORCE:
        return None
    named, text = record.policy_digest or "", record.detail.get("document")
    if not isinstance(text, str) or sha256_of(text.encode()) != named:
        return Enforced(named, record.at, None)
    return Enforced(named, record.at, text)
