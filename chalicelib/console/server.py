"""The console's HTTP server. It listens on 127.0.0.1 only."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from chalicelib.console.site import Site
from chalicelib.operators.context import Operator

HOST = "127.0.0.1"
PORT = 8710


class _Handler(WSGIRequestHandler):
    """Log no requests, and do not reveal versions."""

    server_version = "xray-guard"
    sys_version = ""

    def log(self, type: str, message: str, *args: object) -> None:
        """Discard the line."""


class ConsoleServer:
    """The console, served from `start` (or `with`) to `stop`. Port 0 picks a free one. Raises OSError if in use."""

    def __init__(
        self, open_operator: Callable[[], Operator], port: int = PORT, report: Callable[[str], None] = print
    ) -> None:
        # Bound first: the application must know its host names, which include the port.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((HOST, port))
            self._socket.listen(32)
        except OSError:
            self._socket.close()
            raise
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://{HOST}:{self.port}/"
        hosts = (f"{HOST}:{self.port}", f"localhost:{self.port}")
        site = Site(open_operator, hosts, report)
        self._server: BaseWSGIServer = make_server(
            HOST, self.port, site, threaded=True, request_handler=_Handler, fd=self._socket.fileno()
        )
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self._thread: threading.Thread | None = None

    def serve(self) -> None:
        """Serve until interrupted."""
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._close()

    def start(self) -> ConsoleServer:
        """Serve in the background."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="console", daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop the background server."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join(5)
            self._thread = None
        self._close()

    def _close(self) -> None:
        self._server.server_close()
        self._socket.close()

    def __enter__(self) -> ConsoleServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
