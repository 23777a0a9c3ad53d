"""Links to the AWS console. A partition has its own console; of one whose console is not known there are no links."""

from __future__ import annotations

from urllib.parse import quote

from chalicelib.domain.model import arn_part, is_region, key_id_of

HOSTS = {
    "aws": "console.aws.amazon.com",
    "aws-us-gov": "console.amazonaws-us-gov.com",
    "aws-cn": "console.amazonaws.cn",
}
"""The console's host by partition.

https://docs.aws.amazon.com/govcloud-us/latest/UserGuide/getting-started-sign-in.html
https://docs.amazonaws.cn/en_us/aws/latest/userguide/endpoints-Beijing.html
"""


def partition_of(region: str) -> str:
    """The partition of a Region, by its name."""
    if region.startswith("cn-"):
        return "aws-cn"
    if region.startswith("us-gov-"):
        return "aws-us-gov"
    is_other = region.startswith(("us-iso", "eu-isoe", "eusc-"))
    return "aws" if is_region(region) and not is_other else ""


def of_key(arn: str | None) -> str | None:
    """The page of a key, by its ARN; None if the text is no key ARN."""
    if not arn or arn_part(arn, 2) != "kms" or not arn_part(arn, 5).startswith("key/"):
        return None
    if arn_part(arn, 1) != partition_of(arn_part(arn, 3)):
        return None
    return _page(arn_part(arn, 3), "kms", f"#/kms/keys/{quote(key_id_of(arn), safe='')}")


def of_event(event_id: str | None, target: str) -> str | None:
    """The page of a CloudTrail event of a target, in Event history."""
    region = target.partition("/")[2]
    return _page(region, "cloudtrailv2", f"#/events/{quote(event_id, safe='')}") if event_id else None


def of_aliases(target: str) -> str | None:
    """The list of the customer managed keys of a target, which can be searched by alias: an alias has no page."""
    return _page(target.partition("/")[2], "kms", "#/kms/keys")


def _page(region: str, service: str, place: str) -> str | None:
    host = HOSTS.get(partition_of(region))
    return f"https://{host}/{service}/home?region={region}{place}" if host else None
