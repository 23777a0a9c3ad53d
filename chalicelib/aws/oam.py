"""Links of CloudWatch's observability access manager over boto3.

https://docs.aws.amazon.com/OAM/latest/APIReference/API_ListLinks.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.aws.clients import Clients
from chalicelib.aws.paging import pages
from chalicelib.domain.errors import AwsError
from chalicelib.domain.model import arn_part
from chalicelib.domain.spans import Link

OPERATION = "oam:ListLinks"


class TraceLinksApi:
    """`ports.TraceLinks` for one Region. It makes its client when it is needed: once a day."""

    def __init__(self, clients: Clients, region: str) -> None:
        self._clients = clients
        self._region = region

    def all(self) -> tuple[Link, ...]:
        """ListLinks, every page. The sink's ARN names the account that receives the copies."""
        client = self._clients.reading("oam", self._region)
        return tuple(
            _link(item)
            for response in pages(OPERATION, client.list_links, {"NextToken": "NextToken"})
            for item in response.get("Items", ())
        )


def _link(item: Mapping[str, Any]) -> Link:
    arn, sink = item.get("Arn"), item.get("SinkArn")
    if not arn or not sink:
        raise AwsError(OPERATION, "UnexpectedAnswer", "a link without its own ARN or that of its sink")
    return Link(arn, arn_part(sink, 4), tuple(item.get("ResourceTypes") or ()))
