"""The dead-letter queues: list their messages, and redrive them to their functions.

The guard's queue holds two kinds of messages. EventBridge sends an event that it could not deliver, with the reason in
the message's attributes; Lambda sends an event that a function failed on, with the event as `requestPayload`. The queue
of another Region holds events that EventBridge could not forward to the guard's bus.
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from chalicelib.aws.clients import call
from chalicelib.domain.errors import AwsError
from chalicelib.domain.model import arn_part
from chalicelib.operators.context import Operator
from chalicelib.operators.errors import CONFIGURATION, OperatorError

QUEUE_NAME = "xray-guard-dead-letters"
FORWARD_QUEUE_NAME = "xray-guard-forward-dead-letters"
ON_CHANGE, ON_KEY_CHANGE = "xray-guard-on_change", "xray-guard-on_key_change"
SOURCES = ("aws.kms", "aws.logs", "aws.oam", "aws.xray")
"""The sources of the events that are forwarded."""
VISIBILITY_SECONDS = 120
"""How long a received message stays invisible to other consumers."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead-letter message. `function` and `payload` are None where the message does not name them."""

    message_id: str
    sent_at: datetime | None
    function: str | None
    reason: str
    payload: str | None
    receipt: str

    def to_json(self) -> dict[str, Any]:
        """The fields, with the payload decoded if it is JSON."""
        return {
            "message_id": self.message_id,
            "sent_at": f"{self.sent_at:%Y-%m-%dT%H:%M:%SZ}" if self.sent_at else None,
            "function": self.function,
            "reason": self.reason,
            "payload": _decoded(self.payload) if self.payload else None,
        }


class Queue:
    """The guard's queue, found by XRAY_GUARD_DLQ_URL or by the template's name for it.

    With `region`, the queue of events that could not be forwarded from that Region.
    """

    def __init__(self, operator: Operator, region: str | None = None) -> None:
        self._operator = operator
        self._region = region

    @property
    def _client(self) -> Any:
        return self._operator.clients.reading("sqs", self._region or self._operator.region)

    @cached_property
    def url(self) -> str:
        """The queue's URL. Raises OperatorError where the queue does not exist."""
        configured = os.environ.get("XRAY_GUARD_DLQ_URL")
        if configured and not self._region:
            return configured
        name = FORWARD_QUEUE_NAME if self._region else QUEUE_NAME
        try:
            return str(call("sqs:GetQueueUrl", self._client.get_queue_url, QueueName=name)["QueueUrl"])
        except AwsError as error:
            if error.code not in ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"):
                raise
            raise OperatorError(
                f"the queue {name} does not exist in {self._region or self._operator.region}",
                f"deploy it: make forward REGIONS={self._region}"
                if self._region
                else "name the guard's Region (--home-region), set XRAY_GUARD_DLQ_URL, or run `make deploy`",
                CONFIGURATION,
            ) from error

    @property
    def name(self) -> str:
        """The queue's own name."""
        return self.url.rsplit("/", 1)[-1]

    def length(self) -> int:
        """The approximate number of messages, those in flight included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = call(
            "sqs:GetQueueAttributes", self._client.get_queue_attributes, QueueUrl=self.url, AttributeNames=names
        )
        return sum(int(answer.get("Attributes", {}).get(name, 0)) for name in names)

    def receive(self, most: int) -> Iterator[DeadLetter]:
        """Receive up to `most` messages, each invisible to others for two minutes. SQS may return none of several."""
        seen: set[str] = set()
        empty = 0
        while len(seen) < most and empty < 2:
            answer = call(
                "sqs:ReceiveMessage",
                self._client.receive_message,
                QueueUrl=self.url,
                MaxNumberOfMessages=min(10, most - len(seen)),
                VisibilityTimeout=VISIBILITY_SECONDS,
                WaitTimeSeconds=0,
                AttributeNames=["SentTimestamp"],
                MessageAttributeNames=["All"],
            )
            fresh = [one for one in answer.get("Messages", ()) if one["MessageId"] not in seen]
            empty = 0 if fresh else empty + 1
            for message in fresh:
                seen.add(message["MessageId"])
                yield read_message(message)

    def release(self, message: DeadLetter) -> None:
        """Make the message visible to other consumers at once."""
        call(
            "sqs:ChangeMessageVisibility",
            self._client.change_message_visibility,
            QueueUrl=self.url,
            ReceiptHandle=message.receipt,
            VisibilityTimeout=0,
        )

    def redrive(self, message: DeadLetter) -> None:
        """Invoke the message's function with its event, and delete the message once Lambda accepted the event."""
        if message.function is None or message.payload is None:
            raise ValueError("the message names no function or no event")
        client = self._operator.clients.mutating("lambda", self._operator.region)
        call(
            "lambda:InvokeFunction",
            client.invoke,
            FunctionName=message.function,
            InvocationType="Event",
            Payload=message.payload.encode(),
        )
        call("sqs:DeleteMessage", self._client.delete_message, QueueUrl=self.url, ReceiptHandle=message.receipt)


def read_message(message: dict[str, Any]) -> DeadLetter:
    """Read a message of either kind."""
    stamp = message.get("Attributes", {}).get("SentTimestamp", "")
    sent_at = datetime.fromtimestamp(int(stamp) / 1000, UTC) if stamp.isdigit() else None
    body = message.get("Body", "")
    read = _decoded(body)
    function: str | None = None
    payload: str | None = None
    reason = "unknown message format"
    attributes = {name: one.get("StringValue", "") for name, one in message.get("MessageAttributes", {}).items()}
    context = read.get("requestContext") if isinstance(read, dict) else None
    if isinstance(read, dict) and isinstance(context, dict) and "requestPayload" in read:
        function = _function_name(context.get("functionArn"))
        payload = json.dumps(read["requestPayload"])
        response = read.get("responsePayload")
        error = response.get("errorMessage") or response.get("errorType") if isinstance(response, dict) else None
        reason = f"{context.get('condition') or 'failed'}: {error or 'no error message'}"
    elif "TARGET_ARN" in attributes:
        function = _function_name(attributes["TARGET_ARN"]) or function_of(read)
        payload = body
        reason = ": ".join(attributes[name] for name in ("ERROR_CODE", "ERROR_MESSAGE") if attributes.get(name))
    return DeadLetter(message["MessageId"], sent_at, function, reason[:500], payload, message["ReceiptHandle"])


def _function_name(arn: object) -> str | None:
    """The name in a function's ARN, without the version."""
    if not isinstance(arn, str) or arn_part(arn, 2) != "lambda":
        return None
    kind, _, rest = arn_part(arn, 5).partition(":")
    return rest.partition(":")[0] if kind == "function" and rest else None


def function_of(event: Any) -> str | None:
    """Return the function that an event is for, if it is one of the events that are forwarded to the guard's bus."""
    if not isinstance(event, dict) or event.get("source") not in SOURCES:
        return None
    detail = event.get("detail")
    moves_spans = isinstance(detail, dict) and detail.get("eventName") == "UpdateTraceSegmentDestination"
    return ON_CHANGE if event["source"] == "aws.xray" and not moves_spans else ON_KEY_CHANGE


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
