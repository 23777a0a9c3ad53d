"""AWS's time, read from the responses of its services."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Any


class AwsClock:
    """AWS's time: the `Date` header of the latest responses, advanced by the host's monotonic clock.

    The header has whole seconds, so it is up to a second behind. Before the first response it is the host's own time,
    which no decision uses: every run begins with a read. Threads may share it.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._at: tuple[datetime, float] | None = None
        self._setting = Lock()

    def received(self, http_response: Any = None, **_: object) -> None:
        """Read the time from a response. This is botocore's `after-call` hook."""
        date = http_response.headers.get("date") if http_response is not None else None
        try:
            server_time = parsedate_to_datetime(date) if date else None
        except ValueError:
            return
        if server_time is None or server_time.tzinfo is None:
            return
        server_time = server_time.astimezone(UTC)
        # Never step back within a run: of two responses, the one with the later time is more accurate.
        with self._setting:
            if self._at is None or server_time > self.now() or self.now() - server_time > timedelta(seconds=5):
                self._at = (server_time, self._monotonic())

    def now(self) -> datetime:
        """Aware, UTC."""
        at = self._at
        if at is None:
            return datetime.now(UTC)
        server_time, then = at
        return server_time + timedelta(seconds=self._monotonic() - then)
