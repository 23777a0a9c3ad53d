"""boto3 behind the adapters: clients as cheap as they come, AWS's own clock, and every failure as an AwsError.

One session serves everything. A client is made when it is first asked for, and one after the other: made in several
threads at once, each loads anew what all of them share, and a session promises nothing to threads. What mutates goes
through clients that send each request once: a repeated mutation would be one that the lease did not allow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Any, TypeVar

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.parsers import ResponseParserError

from chalicelib.domain.errors import UNANSWERED, AwsError, StoreError

T = TypeVar("T")

READS = Config(
    retries={"mode": "standard", "total_max_attempts": 3},
    connect_timeout=3,
    read_timeout=6,
    max_pool_connections=16,
)
"""Three attempts with jitter, inside half a minute."""

MUTATIONS = Config(retries={"mode": "standard", "total_max_attempts": 1}, connect_timeout=3, read_timeout=8)
"""One attempt. The longest, eleven seconds, is about the margin that every lease keeps."""


class Clients:
    """The clients of one identity, by service, Region and whether they mutate."""

    def __init__(self, session: Any | None = None) -> None:
        self._session = session or botocore.session.get_session()
        self._clients: dict[tuple[str, str, bool], Any] = {}
        self._making = Lock()

    def reading(self, service: str, region: str) -> Any:
        """A client whose calls may be repeated."""
        return self._client(service, region, READS, mutating=False)

    def mutating(self, service: str, region: str) -> Any:
        """A client that sends each request once."""
        return self._client(service, region, MUTATIONS, mutating=True)

    def _client(self, service: str, region: str, config: Config, *, mutating: bool) -> Any:
        key = (service, region, mutating)
        with self._making:
            if key not in self._clients:
                self._clients[key] = self._session.create_client(service, region_name=region, config=config)
            return self._clients[key]


def call(operation: str, send: Callable[..., Any], **parameters: Any) -> dict[str, Any]:
    """Make a call, and turn whatever botocore raises into an AwsError. Answers botocore's parsed answer.

    A connection that broke or timed out is UNANSWERED: the request may have had its effect. So it may where AWS
    answered with a fault of its own, or with what botocore could not read.
    """
    try:
        answer: dict[str, Any] = send(**parameters)
        return answer
    except ClientError as error:
        told = error.response.get("Error", {})
        answered = error.response.get("ResponseMetadata", {})
        code, message = told.get("Code") or "Unknown", told.get("Message") or "no message"
        raise _failure(operation)(
            operation,
            code,
            message,
            answered.get("RequestId"),
            effect_unknown=answered.get("HTTPStatusCode", 500) >= 500,
        ) from error
    except HTTPClientError as error:
        raise _failure(operation)(operation, UNANSWERED, type(error).__name__) from error
    except BotoCoreError as error:
        raise _failure(operation)(operation, type(error).__name__, str(error)) from error
    except ResponseParserError as error:  # no BotoCoreError, unlike all else that botocore raises
        raise _failure(operation)(operation, "UnreadableAnswer", str(error), effect_unknown=True) from error


def _failure(operation: str) -> type[AwsError]:
    return StoreError if operation.startswith("dynamodb:") else AwsError


def request_id(answer: dict[str, Any]) -> str | None:
    """AWS's id of the request that this answers."""
    told: str | None = answer.get("ResponseMetadata", {}).get("RequestId")
    return told


class AwsClock:
    """AWS's time, from the `Date` of the latest answers, carried on by the host's monotonic clock.

    Whole seconds, so up to a second behind. Before the first answer it is the host's own time, which nothing is decided
    by: every run begins with a read.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._at: tuple[datetime, float] | None = None

    def heard(self, http_response: Any = None, **_: object) -> None:
        """botocore's `after-call` hook: learn the time from an answer."""
        date = http_response.headers.get("date") if http_response is not None else None
        try:
            told = parsedate_to_datetime(date) if date else None
        except ValueError:
            return
        if told is None or told.tzinfo is None:
            return
        told = told.astimezone(UTC)
        # Never step back within a run: of two answers the one that is further on is nearer to the truth.
        if self._at is None or told > self.now() or self.now() - told > timedelta(seconds=5):
            self._at = (told, self._monotonic())

    def now(self) -> datetime:
        """Aware, UTC."""
        if self._at is None:
            return datetime.now(UTC)
        told, then = self._at
        return told + timedelta(seconds=self._monotonic() - then)


class Threads:
    """Gather reads in a few threads that live as long as the process."""

    def __init__(self, most: int = 8) -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="read")

    def __call__(self, reads: Sequence[Callable[[], T]]) -> list[T]:
        if len(reads) < 2:
            return [read() for read in reads]
        futures = [self._pool.submit(read) for read in reads[1:]]
        # The first runs here: one thread less to wake, and its error, if any, is the one that is raised.
        try:
            first = reads[0]()
        finally:
            settled = [future.exception() for future in futures]
        for error in settled:
            if error is not None:
                raise error
        return [first, *(future.result() for future in futures)]
