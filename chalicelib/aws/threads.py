"""Work in a few threads that live as long as the process: the reads of one target, and runs over several targets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

AT_ONCE = 8
"""With more, a sweep is little faster (`docs/performance.md`), and DynamoDB's client has sixteen connections."""


class Threads:
    """Do jobs at the same time, at most `at_once` of one call. They begin in their order.

    The calling thread works, too, and a job of one that is waiting never waits for a free thread. So a job may itself
    call this, however few threads there are: all calls share at most `most` threads, besides those that call.
    """

    def __init__(self, at_once: int = AT_ONCE, most: int = 32) -> None:
        self._at_once = at_once
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="work")

    def __call__(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """Return the results in the jobs' order. Raises the error of the first job that failed, when all have ended."""
        waiting = deque(enumerate(jobs))
        results: dict[int, T] = {}
        errors: dict[int, Exception] = {}

        def work() -> None:
            while True:
                try:
                    number, job = waiting.popleft()
                except IndexError:
                    return
                try:
                    results[number] = job()
                except Exception as error:
                    errors[number] = error

        helpers = [self._pool.submit(work) for _ in range(min(self._at_once, len(jobs)) - 1)]
        try:
            work()
        finally:
            waiting.clear()  # nothing is left, unless this thread was interrupted
            for helper in helpers:
                if not helper.cancel():
                    helper.result()
        if errors:
            raise errors[min(errors)]
        return [results[number] for number in range(len(jobs))]
