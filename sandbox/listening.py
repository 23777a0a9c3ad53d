"""Listen on a port of 127.0.0.1."""

from __future__ import annotations

import socket
from typing import Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server


def listening(port: int, application: Any, handler: type[WSGIRequestHandler]) -> BaseWSGIServer:
    """Return a server for the application, in threads; port 0 is any free one. Raises OSError if the port is in use.

    The socket is made here because werkzeug itself ends the process if the port is in use.
    """
    with socket.create_server(("127.0.0.1", port)) as bound:
        return make_server("127.0.0.1", port, application, True, request_handler=handler, fd=bound.fileno())
