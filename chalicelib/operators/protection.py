"""The checks of `xray-guard doctor` on what protects the audit log: its tables, their policies, and its anchors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from chalicelib.aws.clients import call
from chalicelib.aws.paging import pages
from chalicelib.aws.s3_anchors import PREFIX
from chalicelib.domain.errors import AwsError
from chalicelib.operators.findings import BAD, DEPLOY, GOOD, LONGEST_WITHOUT_SWEEP, WARNING, logs_of
from chalicelib.operators.formatting import time_text

CREATE_BUCKET = (
    "aws s3api create-bucket --bucket NAME --object-lock-enabled-for-bucket; docs/deploy.md, section "
    "'A bucket for the anchors'"
)


def table(client: Any, name: str) -> Iterator[tuple[str, ...]]:
    """Whether a table can be neither deleted nor lost. Raises AwsError."""
    described = call("dynamodb:DescribeTable", client.describe_table, TableName=name)["Table"]
    backups = call("dynamodb:DescribeContinuousBackups", client.describe_continuous_backups, TableName=name)[
        "ContinuousBackupsDescription"
    ]
    state = backups.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus")
    faults = []
    if not described.get("DeletionProtectionEnabled"):
        faults.append(
            ("can be deleted", f"aws dynamodb update-table --table-name {name} --deletion-protection-enabled")
        )
    if state != "ENABLED":
        faults.append(
            (
                "has no point-in-time recovery",
                "aws dynamodb update-continuous-backups --table-name "
                f"{name} --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true",
            )
        )
    for fault, remedy in faults:
        yield BAD, f"the table {name} {fault}", remedy
    if not faults:
        yield GOOD, f"the table {name} is protected against deletion and can be restored"


def table_policy(client: Any, name: str) -> Iterator[tuple[str, ...]]:
    """Whether a resource policy limits who writes a table. Raises AwsError."""
    arn = call("dynamodb:DescribeTable", client.describe_table, TableName=name)["Table"]["TableArn"]
    try:
        text = call("dynamodb:GetResourcePolicy", client.get_resource_policy, ResourceArn=arn)["Policy"]
    except AwsError as error:
        if error.code != "PolicyNotFoundException":
            raise
        yield (
            WARNING,
            f"the table {name} has no resource policy: every principal with dynamodb:PutItem may write it",
            "make deploy PIPELINE_ROLE=arn-of-the-deploying-role OPERATOR_ROLES=arns-of-the-operators",
        )
        return
    if '"dynamodb:PutItem"' in text and '"Deny"' in text:
        yield GOOD, f"a resource policy limits who writes the table {name}"
    else:
        yield BAD, f"the resource policy of the table {name} does not limit who writes it", DEPLOY


def anchors(client: Any, bucket: str | None, now: Callable[[], datetime]) -> Iterator[tuple[str, ...]]:
    """Whether the anchors are where nobody can change them, and are recent. Raises AwsError."""
    if not bucket:
        yield (
            WARNING,
            "NO ANCHOR BUCKET: anyone who can rewrite both tables can rewrite the audit log unnoticed",
            f"make deploy ANCHOR_BUCKET=your-bucket; {CREATE_BUCKET}",
        )
        return
    versioning = call("s3:GetBucketVersioning", client.get_bucket_versioning, Bucket=bucket).get("Status")
    if versioning != "Enabled":
        yield BAD, f"the bucket {bucket} has no versioning, so anchors can be replaced", CREATE_BUCKET
    mode = _retention_mode(client, bucket)
    if mode is None:
        yield (
            BAD,
            f"the bucket {bucket} has no Object Lock with a default retention, so anchors can be deleted",
            CREATE_BUCKET,
        )
    elif versioning == "Enabled":
        yield GOOD, f"the bucket {bucket} keeps anchors under Object Lock, mode {mode}"
    latest = _latest(client, bucket, now())
    if latest is None or now() - latest > LONGEST_WITHOUT_SWEEP:
        age = f"is of {time_text(latest)}" if latest else "is more than a day old, or there is none"
        yield BAD, f"the latest anchor in {bucket} {age}", f"look for s3:PutObject: {logs_of('xray-guard-sweep')}"
    else:
        yield GOOD, f"the latest anchor is of {time_text(latest)}"


def _retention_mode(client: Any, bucket: str) -> str | None:
    """The mode of the bucket's default retention; None if it has none. Raises AwsError."""
    try:
        answer = call("s3:GetBucketObjectLockConfiguration", client.get_object_lock_configuration, Bucket=bucket)
    except AwsError as error:
        if error.code != "ObjectLockConfigurationNotFoundError":
            raise
        return None
    mode: str | None = answer["ObjectLockConfiguration"].get("Rule", {}).get("DefaultRetention", {}).get("Mode")
    return mode


def _latest(client: Any, bucket: str, now: datetime) -> datetime | None:
    """When the latest anchor of today or yesterday was written; None if there is none. Raises AwsError."""
    for day in (now, now - timedelta(days=1)):
        prefix = f"{PREFIX}{day:%Y/%m/%d}/"
        responses = pages(
            "s3:ListBucket",
            client.list_objects_v2,
            {"ContinuationToken": "NextContinuationToken"},
            "IsTruncated",
            Bucket=bucket,
            Prefix=prefix,
        )
        written = [each["LastModified"] for response in responses for each in response.get("Contents", ())]
        if written:
            latest: datetime = max(written)
            return latest
    return None
