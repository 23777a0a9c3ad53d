"""The clients' own rooms: made once, one after the other."""

from __future__ import annotations

import time
from functools import partial
from threading import Lock
from typing import Any

from chalicelib.clients import Clients, Threads


class SlowSession:
    """A session that remembers what it made, and whether it ever made two at once."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []
        self.overlapped = False
        self._busy = Lock()

    def create_client(self, service: str, *, region_name: str, config: Any) -> object:
        if not self._busy.acquire(blocking=False):
            self.overlapped = True
            return object()
        time.sleep(0.01)
        self.made.append((service, region_name))
        self._busy.release()
        return object()


def test_threads_that_ask_together_get_one_client_a_service_made_one_after_the_other() -> None:
    session = SlowSession()
    clients = Clients(session)
    services = ["kms", "xray", "dynamodb"] * 2

    got = Threads()([partial(clients.reading, service, "us-east-1") for service in services])

    assert sorted(session.made) == [("dynamodb", "us-east-1"), ("kms", "us-east-1"), ("xray", "us-east-1")]
    assert not session.overlapped
    assert got[:3] == got[3:]


def test_what_mutates_never_shares_a_client_with_what_reads() -> None:
    clients = Clients(SlowSession())

    assert clients.reading("kms", "us-east-1") is not clients.mutating("kms", "us-east-1")
