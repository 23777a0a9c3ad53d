"""The log group of the spans over boto3.

https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/Welcome.html
"""

from __future__ import annotations

from chalicelib.aws.clients import Clients, call, request_id
from chalicelib.aws.paging import pages
from chalicelib.domain.spans import SPANS_GROUP, LogGroup


class SpanLogsApi:
    """`ports.SpanLogs` for one Region. It makes its clients when they are needed: few targets store spans there."""

    def __init__(self, clients: Clients, region: str) -> None:
        self._clients = clients
        self._region = region

    def group(self) -> LogGroup | None:
        """DescribeLogGroups by prefix, of which only the group of exactly this name counts."""
        client = self._clients.reading("logs", self._region)
        found = pages(
            "logs:DescribeLogGroups",
            client.describe_log_groups,
            {"nextToken": "nextToken"},
            logGroupNamePrefix=SPANS_GROUP,
        )
        for response in found:
            for group in response.get("logGroups", ()):
                if group.get("logGroupName") == SPANS_GROUP:
                    return LogGroup(group.get("kmsKeyId"), group.get("retentionInDays"))
        return None

    def associate(self, key_arn: str) -> str | None:
        """AssociateKmsKey, sent once."""
        client = self._clients.mutating("logs", self._region)
        answer = call("logs:AssociateKmsKey", client.associate_kms_key, logGroupName=SPANS_GROUP, kmsKeyId=key_arn)
        return request_id(answer)
