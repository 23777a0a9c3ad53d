"""What `make sandbox` puts beside the sandbox for people: the console, and a past for it to show.

Both are processes of their own that reach the sandbox as any client does, so neither is served what others are not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from types import TracebackType

from sandbox.server import Sandbox

CONSOLE = "from chalicelib.cli import main; main()"
ENDS_WITHIN_SECONDS = 5.0


class Beside:
    """A context manager. `url` is the console's address, None where it did not start, and then `say` was told why.

    The past holds as many `mishaps`, and a few that stay open; each takes about as long as X-Ray does to settle.
    """

    def __init__(self, sandbox: Sandbox, port: int, say: Callable[[str], None], *, mishaps: int = 40) -> None:
        self._sandbox = sandbox
        self._port = port
        self._say = say
        self._mishaps = mishaps
        self._running: list[subprocess.Popen[str]] = []
        self.url: str | None = None

    def __enter__(self) -> Beside:
        for port in (self._port, 0):
            console = self._run("-c", CONSOLE, "console", "--no-open", "--port", str(port))
            assert console.stdout is not None
            self.url = console.stdout.readline().strip() or None
            if self.url:
                break
            self._say(f"The console cannot listen on port {port}.")
        told = self._run("-m", "sandbox.past", self._sandbox.account, self._sandbox.region, str(self._mishaps))
        threading.Thread(target=self._watch, args=(told,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(ENDS_WITHIN_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def _run(self, *arguments: str) -> subprocess.Popen[str]:
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=surroundings | self._sandbox.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._running.append(process)
        return process

    def _watch(self, told: subprocess.Popen[str]) -> None:
        status = told.wait()
        if status == 0:
            self._say("The past is recorded: the console has a month of incidents to show.")
        elif status > 0:  # a negative one is our own signal, at the end
            self._say("The past could not be recorded; the console shows what happens from now on.")
