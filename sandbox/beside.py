"""What `make sandbox` runs besides the sandbox: the console, and a program that creates past incidents.

Both are separate processes that use the sandbox like any other client.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from types import TracebackType

from sandbox.knobs import aws_now
from sandbox.server import Sandbox

CONSOLE = "from chalicelib.cli import main; main()"
ENDS_WITHIN_SECONDS = 5.0


class Beside:
    """A context manager. `url` is the address of the console, or None if it did not start; `say` receives the reason.

    `mishaps` is the number of past incidents, besides a few that stay open. Each takes as long as X-Ray is UPDATING.
    """

    def __init__(self, sandbox: Sandbox, port: int, say: Callable[[str], None], *, mishaps: int = 40) -> None:
        self._sandbox = sandbox
        self._port = port
        self._say = say
        self._mishaps = mishaps
        self._running: list[subprocess.Popen[str]] = []
        self._watching: threading.Thread | None = None
        self.url: str | None = None

    def __enter__(self) -> Beside:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self) -> None:
        for port in (self._port, 0):
            console = self._run("-c", CONSOLE, "console", "--no-open", "--port", str(port), errors=subprocess.DEVNULL)
            assert console.stdout is not None
            self.url = console.stdout.readline().strip() or None
            if self.url:
                break
            self._say(f"The console cannot listen on port {port}.")
        package = self._sandbox.package
        if package is None:
            self._say("There are no past incidents, because no guard is deployed.")
            return
        month = (self._sandbox.account, self._sandbox.region, str(self._mishaps), aws_now().isoformat(), str(package))
        past = self._run("-m", "sandbox.past", *month, errors=subprocess.STDOUT)
        self._watching = threading.Thread(target=self._watch, args=(past,), daemon=True)
        self._watching.start()

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
        if self._watching is not None:
            self._watching.join()
        for process in self._running:
            assert process.stdout is not None
            process.stdout.close()

    def _run(self, *arguments: str, errors: int) -> subprocess.Popen[str]:
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=surroundings | self._sandbox.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        self._running.append(process)
        return process

    def _watch(self, past: subprocess.Popen[str]) -> None:
        assert past.stdout is not None
        lines = past.stdout.read().splitlines()
        status = past.wait()
        if status == 0:
            self._say(" ".join(["The console now shows a month of incidents.", *lines]))
        elif status > 0:  # a negative status is the signal at the end
            cause = lines[-1] if lines else f"exit code {status}"
            self._say(f"The past incidents could not be created: {cause}. The console shows only new ones.")
