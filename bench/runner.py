"""Load a handler as Lambda does, invoke it, and report the time. Run as a script, by path, with `python -S`.

Arguments: the handler, the file with the event, the function's ARN, and modules to load before the clock starts. Prints
one JSON object for the cold start (seconds of CPU and wall time, from the handler's import to its response). Then, for
each number read from stdin, prints a list with the seconds of CPU and wall time of that many warm invocations. CPU time
is that of the process, all threads together.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


class Context:
    """The part of Lambda's context that the guard uses."""

    aws_request_id = "8c1e4f7a-2b5d-4e0c-9a63-1f7d8e5b2c40"
    memory_limit_in_mb = "512"

    def __init__(self, function_arn: str) -> None:
        self.invoked_function_arn = function_arn
        self.function_name = function_arn.rpartition(":")[2]

    def get_remaining_time_in_millis(self) -> int:
        """Return the time left at the start of an invocation."""
        return 60_000


def main(handler: str, event_file: str, function_arn: str, *loaded_before: str) -> None:
    """Run the cold start, then the invocations that stdin requests."""
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # discard the function's own log
    sys.path[0] = os.environ["LAMBDA_TASK_ROOT"]  # Python put this script's folder there
    for name in loaded_before:
        _imported(name)
    with open(event_file, "rb") as file:
        event = json.load(file)
    context = Context(function_arn)
    module, _, name = handler.rpartition(".")

    began, began_cpu = time.perf_counter(), time.process_time()
    function = getattr(_imported(module), name)
    loaded, loaded_cpu = time.perf_counter(), time.process_time()
    answer = function(event, context)
    ended, ended_cpu = time.perf_counter(), time.process_time()

    cold = {
        "answer": answer,
        "import_cpu": loaded_cpu - began_cpu,
        "cpu": ended_cpu - began_cpu,
        "import_wall": loaded - began,
        "wall": ended - began,
        "process_cpu": ended_cpu,
    }
    print(json.dumps(cold), file=report)
    for line in sys.stdin:
        print(json.dumps([_warm(function, event, context) for _ in range(int(line))]), file=report)


def _imported(name: str) -> Any:
    __import__(name)  # not importlib.import_module, which -X importtime does not report
    return sys.modules[name]


def _warm(function: Any, event: Any, context: Any) -> tuple[float, float]:
    began, began_cpu = time.perf_counter(), time.process_time()
    function(event, context)
    return time.process_time() - began_cpu, time.perf_counter() - began


if __name__ == "__main__":
    main(*sys.argv[1:])
