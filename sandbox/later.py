"""Deferred work: events in flight, pending retries. A caller can wait until none is left."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import traceback
from collections.abc import Callable


class Later:
    """Runs work after a delay, each in its own thread, and counts what is pending or running."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._change = threading.Condition()
        self._waiting: list[tuple[float, int, Callable[[], object]]] = []
        self._running = 0
        self._order = itertools.count()
        self._stopped = False
        self._thread = threading.Thread(target=self._keep, name="sandbox-later", daemon=True)
        self._thread.start()

    def after(self, seconds: float, work: Callable[[], object]) -> None:
        """Run the work once, after `seconds`."""
        with self._change:
            heapq.heappush(self._waiting, (time.monotonic() + seconds, next(self._order), work))
            self._change.notify_all()

    def idle(self, timeout_seconds: float) -> bool:
        """Wait until nothing is pending or running; return False after the timeout."""
        with self._change:
            return self._change.wait_for(lambda: not self._waiting and not self._running, timeout_seconds)

    def forget(self) -> None:
        """Drop pending work."""
        with self._change:
            self._waiting.clear()
            self._change.notify_all()

    def stop(self) -> None:
        """Drop pending work and end the thread; running work goes on."""
        with self._change:
            self._waiting.clear()
            self._stopped = True
            self._change.notify_all()

    def _keep(self) -> None:
        while True:
            with self._change:
                if self._stopped:
                    return
                now = time.monotonic()
                if not self._waiting or self._waiting[0][0] > now:
                    self._change.wait(self._waiting[0][0] - now if self._waiting else None)
                    continue
                _, _, work = heapq.heappop(self._waiting)
                self._running += 1
            threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception:
            self._say("the sandbox itself failed:\n" + traceback.format_exc())
        finally:
            with self._change:
                self._running -= 1
                self._change.notify_all()
