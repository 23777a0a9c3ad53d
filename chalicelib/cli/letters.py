"""The dead-letter queue: what was given up on, why, and sending it to its function again.

Two kinds of letters arrive in it. EventBridge leaves an event that it could not deliver, with the reason in the
message's attributes; Lambda leaves what a function failed on, with the event as `requestPayload`.
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
from chalicelib.cli.session import Operator
from chalicelib.cli.trouble import CONFIGURATION, Trouble
from chalicelib.domain.errors import AwsError
from chalicelib.domain.model import arn_part

QUEUE_NAME = "xray-guard-dead-letters"
HOLD_SECONDS = 120
"""How long a letter is kept from others while it is looked at or sent."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. `function` and `payload` are None where the letter does not tell them: it is then left alone."""

    message_id: str
    sent_at: datetime | None
    function: str | None
    reason: str
    payload: str | None
    receipt: str

    def to_json(self) -> dict[str, Any]:
        """What people need of it; the payload as JSON where it is."""
        return {
            "message_id": self.message_id,
            "sent_at": f"{self.sent_at:%Y-%m-%dT%H:%M:%SZ}" if self.sent_at else None,
            "function": self.function,
            "reason": self.reason,
            "payload": _decoded(self.payload) if self.payload else None,
        }


class Queue:
    """The queue, by XRAY_GUARD_DLQ_URL or by the name that the template gives it."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    @property
    def _client(self) -> Any:
        return self._operator.clients.reading("sqs", self._operator.region)

    @cached_property
    def url(self) -> str:
        """Raises Trouble where there is no such queue."""
        told = os.environ.get("XRAY_GUARD_DLQ_URL")
        if told:
            return told
        try:
            return str(call("sqs:GetQueueUrl", self._client.get_queue_url, QueueName=QUEUE_NAME)["QueueUrl"])
        except AwsError as error:
            if error.code not in ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"):
                raise
            raise Trouble(
                f"there is no queue {QUEUE_NAME} in {self._operator.region}",
                "name the Region where the guard is deployed (--region), or set XRAY_GUARD_DLQ_URL",
                CONFIGURATION,
            ) from error

    @property
    def name(self) -> str:
        """The queue's own name."""
        return self.url.rsplit("/", 1)[-1]

    def length(self) -> int:
        """About how many letters there are, those in somebody's hands included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = call(
            "sqs:GetQueueAttributes", self._client.get_queue_attributes, QueueUrl=self.url, AttributeNames=names
        )
        return sum(int(answer.get("Attributes", {}).get(name, 0)) for name in names)

    def letters(self, most: int) -> Iterator[Letter]:
        """Up to `most` letters, each held for two minutes. SQS may answer with none though there are some."""
        seen: set[str] = set()
        empty = 0
        while len(seen) < most and empty < 2:
            answer = call(
                "sqs:ReceiveMessage",
                self._client.receive_message,
                QueueUrl=self.url,
                MaxNumberOfMessages=min(10, most - len(seen)),
                VisibilityTimeout=HOLD_SECONDS,
                WaitTimeSeconds=0,
                AttributeNames=["SentTimestamp"],
                MessageAttributeNames=["All"],
            )
            fresh = [one for one in answer.get("Messages", ()) if one["MessageId"] not in seen]
            empty = 0 if fresh else empty + 1
            for message in fresh:
                seen.add(message["MessageId"])
                yield letter_of(message)

    def put_back(self, letter: Letter) -> None:
        """Let others see the letter again at once."""
        call(
            "sqs:ChangeMessageVisibility",
            self._client.change_message_visibility,
            QueueUrl=self.url,
            ReceiptHandle=letter.receipt,
            VisibilityTimeout=0,
        )

    def send_again(self, letter: Letter) -> None:
        """Hand the letter to its function as a new event, and take it out of the queue once Lambda has it."""
        if letter.function is None or letter.payload is None:
            raise ValueError("the letter does not tell what to send to whom")
        client = self._operator.clients.mutating("lambda", self._operator.region)
        call(
            "lambda:InvokeFunction",
            client.invoke,
            FunctionName=letter.function,
            InvocationType="Event",
            Payload=letter.payload.encode(),
        )
        call("sqs:DeleteMessage", self._client.delete_message, QueueUrl=self.url, ReceiptHandle=letter.receipt)


def letter_of(message: dict[str, Any]) -> Letter:
    """Read a message of the queue, whichever kind it is."""
    stamp = message.get("Attributes", {}).get("SentTimestamp", "")
    sent_at = datetime.fromtimestamp(int(stamp) / 1000, UTC) if stamp.isdigit() else None
    body = message.get("Body", "")
    read = _decoded(body)
    function: str | None = None
    payload: str | None = None
    reason = "the letter is of no known kind"
    attributes = {name: one.get("StringValue", "") for name, one in message.get("MessageAttributes", {}).items()}
    context = read.get("requestContext") if isinstance(read, dict) else None
    if isinstance(read, dict) and isinstance(context, dict) and "requestPayload" in read:
        function = _function_name(context.get("functionArn"))
        payload = json.dumps(read["requestPayload"])
        response = read.get("responsePayload")
        told = response.get("errorMessage") or response.get("errorType") if isinstance(response, dict) else None
        reason = f"{context.get('condition') or 'failed'}: {told or 'no error told'}"
    elif "TARGET_ARN" in attributes:
        function = _function_name(attributes["TARGET_ARN"])
        payload = body
        reason = ": ".join(attributes[name] for name in ("ERROR_CODE", "ERROR_MESSAGE") if attributes.get(name))
    return Letter(message["MessageId"], sent_at, function, reason[:500], payload, message["ReceiptHandle"])


def _function_name(arn: object) -> str | None:
    """The name in a function's ARN, without the version."""
    if not isinstance(arn, str) or arn_part(arn, 2) != "lambda":
        return None
    kind, _, rest = arn_part(arn, 5).partition(":")
    return rest.partition(":")[0] if kind == "function" and rest else None


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
