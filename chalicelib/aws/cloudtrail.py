"""CloudTrail's Event history over boto3.

https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
"""

from __future__ import annotations

from datetime import datetime

from chalicelib.aws.clients import Clients, call
from chalicelib.domain.lookups import HistoryEvent, HistoryPage

EVENTS_A_PAGE = 50
"""The most that LookupEvents returns."""


class EventHistoryApi:
    """`lookups.EventHistory` for one Region."""

    def __init__(self, clients: Clients, region: str) -> None:
        self._clients = clients
        self._region = region

    def lookup(
        self, attribute: tuple[str, str], since: datetime, until: datetime, token: str | None = None
    ) -> HistoryPage:
        """LookupEvents: one page."""
        client = self._clients.reading("cloudtrail", self._region)
        name, value = attribute
        answer = call(
            "cloudtrail:LookupEvents",
            client.lookup_events,
            LookupAttributes=[{"AttributeKey": name, "AttributeValue": value}],
            StartTime=since,
            EndTime=until,
            MaxResults=EVENTS_A_PAGE,
            **({"NextToken": token} if token else {}),
        )
        found = (
            HistoryEvent(str(event.get("EventId") or ""), event["EventTime"], str(event.get("CloudTrailEvent") or ""))
            for event in answer.get("Events", ())
        )
        return HistoryPage(tuple(found), answer.get("NextToken") or None)
