"""AWS's time, learned from the responses of its services."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any


class AwsClock:
    """AWS's time, from the `Date` of the latest answers, carried on by the host's monotonic clock.

    Whole seconds, so up to a second behind. Before the first answer it is the host's own time, which nothing is decided
    by: every run begins with a read.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._at: tuple[datetime, float] | None = None

    def received(self, http_response: Any = None, **_: object) -> None:
        """botocore's `after-call` hook: learn the time from an answer."""
        date = http_response.headers.get("date") if http_response is not None else None
        try:
            server_time = parsedate_to_datetime(date) if date else None
        except ValueError:
            return
        if server_time is None or server_time.tzinfo is None:
            return
        server_time = server_time.astimezone(UTC)
        # Never step back within a run: of two answers the one that is further on is nearer to the truth.
        if self._at is None or server_time > self.now() or self.now() - server_time > timedelta(seconds=5):
            self._at = (server_time, self._monotonic())

    def now(self) -> datetime:
        """Aware, UTC."""
        if self._at is None:
            return datetime.now(UTC)
        server_time, then = self._at
        return server_time + timedelta(seconds=self._monotonic() - then)
