"""Links of CloudWatch's observability access manager over boto3.

https://docs.aws.amazon.com/OAM/latest/APIReference/API_ListLinks.html
"""

from __future__ import annotations

from chalicelib.aws.clients import Clients
from chalicelib.aws.paging import pages
from chalicelib.domain.model import arn_part
from chalicelib.domain.spans import Link


class TraceLinksApi:
    """`ports.TraceLinks` for one Region. It makes its client when it is needed: once a day."""

    def __init__(self, clients: Clients, region: str) -> None:
        self._clients = clients
        self._region = region

    def all(self) -> tuple[Link, ...]:
        """ListLinks, every page. The sink's ARN names the account that receives the copies."""
        client = self._clients.reading("oam", self._region)
        return tuple(
            Link(item["Arn"], arn_part(item["SinkArn"], 4), tuple(item.get("ResourceTypes", ())))
            for response in pages("oam:ListLinks", client.list_links, {"NextToken": "NextToken"})
            for item in response.get("Items", ())
        )
