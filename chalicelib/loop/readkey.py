"""Reading one key whole: its description, and what KMS answers only to further calls, its details."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from chalicelib.domain.errors import DENIED, AwsError
from chalicelib.domain.model import Key
from chalicelib.domain.ports import Gather, Reach

ROTATION_UNKNOWN = frozenset({"KMSInvalidStateException", "DisabledException", "UnsupportedOperationException"})
"""KMS shows no rotation of such a key; its state or spec is the violation then."""

DETAILS = ("policy", "rotation", "tags")

MISSING = "NotFoundException"
"""The answer of a read about a key that KMS says is not there."""

Read = Callable[[], Any]


def read_key(gather: Gather, reach: Reach, key_arn: str) -> Key | None:
    """Read all that KMS shows of one of the target's own customer keys; None where there is none."""
    reads = [describe(reach, key_arn), *(read for _, read in detail_reads(reach, key_arn))]
    return joined(*gather(reads))


def describe(reach: Reach, key: str) -> Read:
    """DescribeKey, of an ARN or an alias, as a read to be gathered."""
    return lambda: reach.keys.describe(key)


def detail_reads(reach: Reach, arn: str) -> list[tuple[str, Read]]:
    """What KMS shows of a key beyond DescribeKey, one call each, in the order of DETAILS."""
    reads = (
        lambda: _unless_missing(lambda: reach.keys.policy(arn)),
        lambda: _rotation(reach, arn),
        lambda: _tags(reach, arn),
    )
    return list(zip(DETAILS, reads, strict=True))


def unless_refused(read: Read) -> Any:
    """The answer, or AWS's refusal as a value: whether it matters is for the caller to say."""
    try:
        return read()
    except AwsError as error:
        if error.code in DENIED:
            return error
        raise


def joined(key: Key | None, policy: Any, rotation: Any, tags: Any) -> Key | None:
    """One key out of the answers; None for a detail means that it was not read."""
    if key is None or MISSING in (policy, rotation, tags):
        # KMS shows a new key, and the end of an old one, not to all reads at once: half a key is none to rely on.
        return None
    rotates, days = rotation or (None, None)
    # A key that is not enabled shows no rotation worth acting on: it is judged once it is enabled again.
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
    """The tags, or the code of why they may not be read: the key is then neither ours to change nor suppressed."""
    try:
        return _unless_missing(lambda: reach.keys.tags(arn))
    except AwsError as error:
        if error.problem.retryable:
            raise
        return error.code
