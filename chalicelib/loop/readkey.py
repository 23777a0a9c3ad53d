"""Read one key completely: DescribeKey, and the details that need further calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from chalicelib.domain.errors import DENIED, AwsError
from chalicelib.domain.model import Key
from chalicelib.domain.ports import Gather, Reach

ROTATION_UNKNOWN = frozenset({"KMSInvalidStateException", "DisabledException", "UnsupportedOperationException"})
"""KMS's codes for a key whose rotation it does not show; the violation is then its state or spec."""

DETAILS = ("policy", "rotation", "tags")

MISSING = "NotFoundException"
"""The result of a read of a key that KMS says does not exist."""

Read = Callable[[], Any]


def read_key(gather: Gather, reach: Reach, key_arn: str) -> Key | None:
    """Read everything that KMS shows of one of the target's own customer keys; None if it does not exist."""
    reads = [describe(reach, key_arn), *(read for _, read in detail_reads(reach, key_arn))]
    return joined(*gather(reads))


def describe(reach: Reach, key: str) -> Read:
    """Return DescribeKey of an ARN or an alias as a read to be gathered."""
    return lambda: reach.keys.describe(key)


def detail_reads(reach: Reach, arn: str) -> list[tuple[str, Read]]:
    """Return the reads of what DescribeKey does not show, one call each, in the order of DETAILS."""
    reads = (
        lambda: _unless_missing(lambda: reach.keys.policy(arn)),
        lambda: _rotation(reach, arn),
        lambda: _tags(reach, arn),
    )
    return list(zip(DETAILS, reads, strict=True))


def unless_refused(read: Read) -> Any:
    """Return the read's result, or AWS's refusal as a value: the caller decides if it matters."""
    try:
        return read()
    except AwsError as error:
        if error.code in DENIED:
            return error
        raise


def joined(key: Key | None, policy: Any, rotation: Any, tags: Any) -> Key | None:
    """Return one key from the results; a detail is None if it was not read."""
    if key is None or MISSING in (policy, rotation, tags):
        # KMS shows a new key, or the deletion of an old one, not to all reads at once: a partial result is unreliable.
        return None
    rotates, days = rotation or (None, None)
    # The rotation of a key that is not enabled is not reliable: it is judged once the key is enabled again.
    if key.state != "Enabled":
        rotates, days = None, None
    refused = tags if isinstance(tags, str) else None
    return replace(
        key,
        policy=policy,
        rotation=rotates,
        rotation_days=days,
        tags=None if refused else tags,
        tags_error=refused,
    )


def _unless_missing(read: Read) -> Any:
    try:
        return read()
    except AwsError as error:
        if error.code == MISSING:
            return MISSING
        raise


def _rotation(reach: Reach, arn: str) -> Any:
    try:
        return _unless_missing(lambda: reach.keys.rotation(arn))
    except AwsError as error:
        if error.code in ROTATION_UNKNOWN:
            return None, None
        raise


def _tags(reach: Reach, arn: str) -> Any:
    """Return the tags, or the code of why they may not be read: then the key is neither ours nor suppressed."""
    try:
        return _unless_missing(lambda: reach.keys.tags(arn))
    except AwsError as error:
        if error.problem.retryable:
            raise
        return error.code
