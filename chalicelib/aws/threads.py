"""Parallel reads in a few threads that live as long as the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """Gather reads in a few threads that live as long as the process."""

    def __init__(self, most: int = 8) -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="read")

    def __call__(self, reads: Sequence[Callable[[], T]]) -> list[T]:
        if len(reads) < 2:
            return [read() for read in reads]
        futures = [self._pool.submit(read) for read in reads[1:]]
        # The first read runs in this thread: one thread less to wake, and its error, if any, is the one raised.
        try:
            first = reads[0]()
        finally:
            settled = [future.exception() for future in futures]
        for error in settled:
            if error is not None:
                raise error
        return [first, *(future.result() for future in futures)]
