"""The adapters' botocore clients: created when they are first needed, and every failure raised as an AwsError.

All clients share one session. They are created one after the other: a session is not thread-safe, and threads would
each load the data that all clients share. Mutations use clients that send each request once: the lease would not cover
a retry.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.parsers import ResponseParserError

from chalicelib.domain.errors import UNANSWERED, AwsError, StoreError

READS = Config(
    retries={"mode": "standard", "total_max_attempts": 3},
    connect_timeout=3,
    read_timeout=6,
    max_pool_connections=16,
)
"""Three attempts with jitter, within half a minute."""

MUTATIONS = Config(retries={"mode": "standard", "total_max_attempts": 1}, connect_timeout=3, read_timeout=8)
"""One attempt, of eleven seconds at most, which fits into the margin of every lease."""


class Clients:
    """The clients of one identity, by service, Region and whether they mutate."""

    def __init__(self, session: Any | None = None) -> None:
        self._session = session or botocore.session.get_session()
        self._clients: dict[tuple[str, str, bool], Any] = {}
        self._making = Lock()

    def reading(self, service: str, region: str) -> Any:
        """Return a client whose calls may be retried."""
        return self._client(service, region, READS, mutating=False)

    def mutating(self, service: str, region: str) -> Any:
        """Return a client that sends each request once."""
        return self._client(service, region, MUTATIONS, mutating=True)

    def _client(self, service: str, region: str, config: Config, *, mutating: bool) -> Any:
        key = (service, region, mutating)
        made = self._clients.get(key)
        if made is not None:
            return made  # without waiting for another thread that makes a client of another Region
        with self._making:
            if key not in self._clients:
                self._clients[key] = self._session.create_client(service, region_name=region, config=config)
            return self._clients[key]


def call(operation: str, send: Callable[..., Any], **parameters: Any) -> dict[str, Any]:
    """Make a call and return botocore's parsed response. Raises AwsError for everything that botocore raises.

    A connection that broke or timed out is UNANSWERED: the request may have taken effect. It may also have taken effect
    if AWS returned a server error, or a response that botocore cannot parse.
    """
    try:
        answer: dict[str, Any] = send(**parameters)
        return answer
    except ClientError as error:
        fields = error.response.get("Error", {})
        answered = error.response.get("ResponseMetadata", {})
        code, message = fields.get("Code") or "Unknown", fields.get("Message") or "no message"
        raise _failure(operation)(
            operation,
            code,
            message,
            answered.get("RequestId"),
            effect_unknown=answered.get("HTTPStatusCode", 500) >= 500,
            cancellation_reasons=tuple(
                reason.get("Code") or "None" for reason in error.response.get("CancellationReasons", ())
            ),
        ) from error
    except HTTPClientError as error:
        raise _failure(operation)(operation, UNANSWERED, type(error).__name__) from error
    except BotoCoreError as error:
        raise _failure(operation)(operation, type(error).__name__, str(error)) from error
    except ResponseParserError as error:  # not a BotoCoreError, unlike all other errors of botocore
        raise _failure(operation)(operation, "UnreadableAnswer", str(error), effect_unknown=True) from error


def _failure(operation: str) -> type[AwsError]:
    return StoreError if operation.startswith("dynamodb:") else AwsError


def request_id(answer: dict[str, Any]) -> str | None:
    """Return AWS's request id of a response."""
    found: str | None = answer.get("ResponseMetadata", {}).get("RequestId")
    return found
