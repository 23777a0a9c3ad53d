"""A Lambda runtime client in plain Python, for machines that AWS's own does not support. Run as a script, by path."""

from __future__ import annotations

import http.client
import importlib
import json
import os
import sys
import time
import traceback
from typing import Any

VERSION = "/2018-06-01/runtime"


class Context:
    """The context, a handler's second argument."""

    def __init__(self, headers: http.client.HTTPMessage) -> None:
        self.aws_request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        self.invoked_function_arn = headers["Lambda-Runtime-Invoked-Function-Arn"]
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.client_context = None
        self.identity = None
        self._deadline_ms = int(headers["Lambda-Runtime-Deadline-Ms"])

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the function times out."""
        return max(0, self._deadline_ms - int(time.time() * 1000))


def _send(connection: http.client.HTTPConnection, path: str, body: bytes) -> None:
    connection.request("POST", VERSION + path, body, {"Content-Type": "application/json"})
    connection.getresponse().read()


def _told(error: BaseException) -> bytes:
    trace = traceback.format_exception(error)
    sys.stderr.write("".join(trace))
    answer = {"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": trace}
    return json.dumps(answer).encode()


def _load(handler: str) -> Any:
    module, _, name = handler.rpartition(".")
    return getattr(importlib.import_module(module.replace("/", ".")), name)


def main(handler: str) -> int:
    """Serve invocations until the Runtime API closes. Return the exit status."""
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    # When run by path, Python puts the script's folder first; Lambda puts the package there.
    sys.path[0] = os.environ["LAMBDA_TASK_ROOT"]
    try:
        function = _load(handler)
    except Exception as error:
        _send(connection, "/init/error", _told(error))
        return 1
    while True:
        connection.request("GET", VERSION + "/invocation/next")
        response = connection.getresponse()
        payload = response.read()
        if response.status != 200:
            return 0
        context = Context(response.headers)
        try:
            answer = json.dumps(function(json.loads(payload), context)).encode()
        except Exception as error:
            _send(connection, f"/invocation/{context.aws_request_id}/error", _told(error))
        else:
            _send(connection, f"/invocation/{context.aws_request_id}/response", answer)
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
