"""CloudTrail's Event history: LookupEvents, with its pages, its limits and its delay.

https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from sandbox.knobs import KNOBS, aws_now

MOST_A_PAGE = 50
LOOKUPS_A_SECOND = 2


class LookupRefused(Exception):
    """CloudTrail refuses a request: `code` and `message` as in AWS's response."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def _resources(record: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"ResourceType": str(each.get("type")), "ResourceName": str(each.get("ARN"))}
        for each in record.get("resources") or ()
    ]


ATTRIBUTES: dict[str, Callable[[Mapping[str, Any]], Iterable[object]]] = {
    "EventId": lambda record: [record["eventID"]],
    "EventName": lambda record: [record["eventName"]],
    "EventSource": lambda record: [record["eventSource"]],
    "ReadOnly": lambda record: [json.dumps(record["readOnly"])],
    "Username": lambda record: [_user(record)],
    "AccessKeyId": lambda record: [record["userIdentity"].get("accessKeyId")],
    "ResourceType": lambda record: [each["ResourceType"] for each in _resources(record)],
    "ResourceName": lambda record: [each["ResourceName"] for each in _resources(record)],
}
"""The attributes by which LookupEvents finds events, one a request."""


def _user(record: Mapping[str, Any]) -> str:
    return str(record["userIdentity"].get("arn", "")).rsplit("/", 1)[-1]


class Lookups:
    """Event history of every account and Region. `records` are CloudTrail's, oldest first."""

    def __init__(self, records: Iterable[dict[str, Any]]) -> None:
        self._records = records
        self._sent: dict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=LOOKUPS_A_SECOND))
        self._sending = threading.Lock()

    def lookup(self, account: str, region: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return one page, newest event first. Raises LookupRefused."""
        self._limit(account, region)
        attributes = [(each["AttributeKey"], each["AttributeValue"]) for each in parameters.get("LookupAttributes", [])]
        if len(attributes) > 1 or any(name not in ATTRIBUTES for name, _ in attributes):
            raise LookupRefused("InvalidLookupAttributesException", "Invalid lookup attributes.")
        most = parameters.get("MaxResults", MOST_A_PAGE)
        if not 1 <= most <= MOST_A_PAGE:
            raise LookupRefused("InvalidMaxResultsException", f"MaxResults must be from 1 to {MOST_A_PAGE}.")
        since, until = parameters.get("StartTime", 0), parameters.get("EndTime", float("inf"))
        if since > until:
            raise LookupRefused("InvalidTimeRangeException", "The start time is after the end time.")
        request = json.dumps([attributes, since, until], default=str)
        first = _place(parameters.get("NextToken"), request)
        shown_until = aws_now().timestamp() - KNOBS.history_delay_seconds
        found = [
            record
            for record in sorted(self._records, key=_time)[::-1]
            if (record["recipientAccountId"], record["awsRegion"]) == (account, region)
            and since <= (at := _time(record)) <= until
            and at <= shown_until
            and all(value in ATTRIBUTES[name](record) for name, value in attributes)
        ]
        answer: dict[str, Any] = {"Events": [_shown(record) for record in found[first : first + most]]}
        if first + most < len(found):
            answer["NextToken"] = base64.b64encode(json.dumps([request, first + most]).encode()).decode()
        return answer

    def forget(self) -> None:
        """Forget which requests were sent lately."""
        self._sent.clear()

    def _limit(self, account: str, region: str) -> None:
        with self._sending:
            sent, now = self._sent[account, region], time.monotonic()
            if len(sent) == LOOKUPS_A_SECOND and now - sent[0] < 1.0:
                raise LookupRefused("ThrottlingException", "Rate exceeded")
            sent.append(now)


def _place(token: str | None, request: str) -> int:
    """Return the place at which a page begins. A token is valid for the same request only."""
    if token is None:
        return 0
    try:
        of, first = json.loads(base64.b64decode(token, validate=True))
    except ValueError:
        of, first = None, 0
    if of != request:
        raise LookupRefused("InvalidNextTokenException", "Invalid token.")
    return int(first)


def _time(record: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(record["eventTime"]).timestamp()


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "EventId": record["eventID"],
        "EventName": record["eventName"],
        "EventSource": record["eventSource"],
        "EventTime": _time(record),
        "ReadOnly": json.dumps(record["readOnly"]),
        "Username": _user(record),
        "Resources": _resources(record),
        "CloudTrailEvent": json.dumps(record),
    }
