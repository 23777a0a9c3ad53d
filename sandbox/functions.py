"""Lambda: the packaged functions, each in its own process, served by a Runtime API on loopback.

The process runs AWS's own runtime client if it is installed, and has only the modules that it would have in Lambda: the
unzipped package first, then boto3 and the client. Asynchronous invocations are retried as in Lambda, then sent to the
failure destination or dead-letter queue. Source: Lambda developer guide, "Runtime API" and "Asynchronous invocation".
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from moto.sts.models import sts_backends
from moto.utilities.utils import get_partition

from sandbox.bus import new_id, send_to_queue, send_to_topic, stamp
from sandbox.knobs import KNOBS
from sandbox.later import Later

RUNTIME_PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")
CLIENT_PACKAGES = ("awslambdaric", "runtime_client", "snapshot_restore_py", "simplejson")
START_SECONDS = 10.0
"""The time that Lambda allows a function to load, in addition to its timeout."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A function as the template deploys it. `short_name` is the handler's name; it can be used to invoke, too."""

    name: str
    short_name: str
    arn: str
    handler: str
    root: Path
    role_arn: str
    account: str
    region: str
    timeout_seconds: float = 3.0
    memory_mb: int = 128
    environment: dict[str, str] = field(default_factory=dict)
    retries: int = 2
    on_failure: str | None = None
    on_success: str | None = None
    dead_letters: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The result of an invocation. `error` is None, or Lambda's `Unhandled`; the payload then has the error."""

    request_id: str
    payload: bytes
    error: str | None
    seconds: float
    log: str

    def value(self) -> Any:
        """Return the payload's JSON."""
        return json.loads(self.payload or b"null")


class _Invocation:
    def __init__(self, payload: bytes, timeout_seconds: float) -> None:
        self.id = new_id()
        self.payload = payload
        self.timeout_seconds = timeout_seconds
        self.done = threading.Event()
        self.taken = threading.Event()
        self.answer = b""
        self.error: str | None = None

    def end(self, answer: bytes, error: str | None) -> None:
        if not self.done.is_set():
            self.answer, self.error = answer, error
            self.done.set()


class _Stopped(Exception):
    """The function was stopped and starts no more processes."""


class _Runtime:
    """The Runtime API for one process."""

    def __init__(self, arn: str) -> None:
        self.arn = arn
        self.change = threading.Condition()
        self.waiting: deque[_Invocation] = deque()
        self.current: _Invocation | None = None
        self.init_error: bytes | None = None
        self.ready = threading.Event()
        self.closed = False
        runtime = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # With Nagle's algorithm, every call would wait for the peer's delayed acknowledgement.
            disable_nagle_algorithm = True

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing."""

            def _answer(self, status: int, body: bytes = b"{}", headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                if not self.path.endswith("/runtime/invocation/next"):
                    return self._answer(404)
                invocation = runtime.next()
                if invocation is None:
                    self.close_connection = True
                    return self._answer(410)
                deadline = int((time.time() + invocation.timeout_seconds) * 1000)
                headers = {
                    "Lambda-Runtime-Aws-Request-Id": invocation.id,
                    "Lambda-Runtime-Deadline-Ms": str(deadline),
                    "Lambda-Runtime-Invoked-Function-Arn": runtime.arn,
                    "Lambda-Runtime-Trace-Id": "Root=1-00000000-000000000000000000000000;Sampled=0",
                }
                return self._answer(200, invocation.payload, headers)

            def do_POST(self) -> None:
                body = self._body()
                if self.path.endswith("/runtime/init/error"):
                    runtime.failed_to_load(body)
                elif self.path.endswith("/response"):
                    runtime.end(self.path.split("/")[-2], body, None)
                elif self.path.endswith("/error"):
                    runtime.end(self.path.split("/")[-2], body, "Unhandled")
                else:
                    return self._answer(404)
                return self._answer(202, b'{"status":"OK"}')

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Ignore it: a terminated process breaks its connection."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def next(self) -> _Invocation | None:
        self.ready.set()
        with self.change:
            self.change.wait_for(lambda: self.waiting or self.closed)
            if self.closed:
                return None
            self.current = self.waiting.popleft()
            self.current.taken.set()
            return self.current

    def put(self, invocation: _Invocation) -> None:
        with self.change:
            self.waiting.append(invocation)
            self.change.notify_all()

    def end(self, invocation_id: str, body: bytes, error: str | None) -> None:
        current = self.current
        if current is not None and current.id == invocation_id:
            current.end(body, error)

    def failed_to_load(self, body: bytes) -> None:
        self.init_error = body
        self.ready.set()

    def close(self) -> None:
        with self.change:
            self.closed = True
            self.ready.set()  # an invocation that waits for a process that was stopped
            self.change.notify_all()
        self.server.shutdown()
        self.server.server_close()


def has_runtime_client() -> bool:
    """Whether AWS's runtime client is installed; its wheels exist only for Linux."""
    return all(importlib.util.find_spec(name) is not None for name in ("awslambdaric", "runtime_client"))


def build_runtime_folder(folder: Path) -> None:
    """Fill a folder with links to what Lambda's own image has besides the function's package, and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*RUNTIME_PACKAGES, *(CLIENT_PACKAGES if has_runtime_client() else ())):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        source = Path(spec.origin)
        source = source.parent if source.name == "__init__.py" else source
        link = folder / source.name
        if not link.exists():
            link.symlink_to(source)


class Function:
    """One function: one process at a time, which is kept warm, and its log in a file."""

    def __init__(self, definition: Definition, endpoint: str, folder: Path, say: Callable[[str], None]) -> None:
        self.definition = definition
        self.log_file = folder / "logs" / f"{definition.name}.log"
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self.log_file.touch()
        self.invocations = 0
        self.plain = not has_runtime_client()
        self._endpoint = endpoint
        self._runtime_folder = folder / "runtime"
        self._say = say
        self._one_at_a_time = threading.Lock()
        # A stop does not wait for a running invocation, so starting and ending a process need their own lock.
        self._life = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._runtime: _Runtime | None = None
        self._stopped = False

    @property
    def process_id(self) -> int | None:
        """The id of the process that runs the function now."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def warm(self) -> None:
        """Start the process before it is needed."""
        with self._one_at_a_time, contextlib.suppress(_Stopped):
            self._ensure_process().ready.wait(START_SECONDS)

    def invoke(self, payload: bytes) -> Result:
        """Run the function once; wait if it is busy."""
        with self._one_at_a_time:
            try:
                return self._invoke(payload)
            except _Stopped:
                return Result(new_id(), _error("Sandbox.Stopped", "the sandbox is stopping"), "Unhandled", 0.0, "")

    def restart(self, *, plain: bool) -> None:
        """Make the next invocation start a new process, with AWS's runtime client or with the plain one."""
        with self._one_at_a_time:
            self._end_process()
            self.plain = plain

    def stop(self) -> None:
        """Kill the process, even if it is busy."""
        with self._life:
            self._stopped = True
            self._end_process()

    def _invoke(self, payload: bytes) -> Result:
        self.invocations += 1
        log_start = self.log_file.stat().st_size
        runtime = self._ensure_process()
        invocation = _Invocation(payload, self.definition.timeout_seconds)
        runtime.ready.wait(START_SECONDS)
        self._note(f"START RequestId: {invocation.id} Version: $LATEST")
        began = time.monotonic()
        runtime.put(invocation)
        self._wait(runtime, invocation)
        seconds = time.monotonic() - began
        self._note(f"END RequestId: {invocation.id}")
        self._note(f"REPORT RequestId: {invocation.id}\tDuration: {seconds * 1000:.2f} ms")
        with self.log_file.open("rb") as log:
            log.seek(log_start)
            text = log.read().decode("utf-8", "replace")
        return Result(invocation.id, invocation.answer, invocation.error, seconds, text)

    def _wait(self, runtime: _Runtime, invocation: _Invocation) -> None:
        until = time.monotonic() + self.definition.timeout_seconds
        while not invocation.done.wait(0.02 if runtime.init_error else 0.1):
            if runtime.init_error is not None:
                invocation.end(runtime.init_error, "Unhandled")
                self._end_process()
            elif self._process is None or self._process.poll() is not None:
                status = self._process.returncode if self._process else "unknown"
                message = f"RequestId: {invocation.id} Error: Runtime exited with error: exit status {status}"
                invocation.end(_error("Runtime.ExitError", message), "Unhandled")
                self._end_process()
            elif time.monotonic() >= until:
                seconds = self.definition.timeout_seconds
                message = f"{stamp()} {invocation.id} Task timed out after {seconds:.2f} seconds"
                self._note(message)
                self._end_process()
                invocation.end(_error("Sandbox.Timedout", message), "Unhandled")

    def _ensure_process(self) -> _Runtime:
        with self._life:
            if self._stopped:
                raise _Stopped
            runtime, process = self._runtime, self._process
            if runtime is not None and runtime.init_error is None and process is not None and process.poll() is None:
                return runtime
            self._end_process()
            runtime = self._runtime = _Runtime(self.definition.arn)
            with self.log_file.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command(),
                    cwd=self.definition.root,
                    env=self._environment(runtime.address),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            return runtime

    def _command(self) -> list[str]:
        # -S excludes this environment's packages: a dependency that the package lacks is missing here as in AWS.
        start = [sys.executable, "-S"]
        if not self.plain:
            return [*start, "-m", "awslambdaric", self.definition.handler]
        return [*start, str(Path(__file__).with_name("plain_runtime.py")), self.definition.handler]

    def _environment(self, runtime_address: str) -> dict[str, str]:
        it = self.definition
        session = assume(it.role_arn, it.name, it.region)
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join([str(it.root), str(self._runtime_folder)]),
            "TZ": ":UTC",
            "AWS_LAMBDA_RUNTIME_API": runtime_address,
            "AWS_LAMBDA_FUNCTION_NAME": it.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(it.memory_mb),
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{it.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "sandbox",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info[0]}.{sys.version_info[1]}",
            "_HANDLER": it.handler,
            "LAMBDA_TASK_ROOT": str(it.root),
            "AWS_REGION": it.region,
            "AWS_DEFAULT_REGION": it.region,
            "AWS_ENDPOINT_URL": self._endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            **session,
            **it.environment,
        }

    def _note(self, line: str) -> None:
        with self.log_file.open("a") as log:
            log.write(line + "\n")

    def _end_process(self) -> None:
        with self._life:
            process, runtime = self._process, self._runtime
            self._process = self._runtime = None
            if process is not None and process.poll() is None:
                process.kill()
            if process is not None:
                process.wait()
            if runtime is not None:
                runtime.close()


def assume(role_arn: str, session_name: str, region: str) -> dict[str, str]:
    """Return the credentials of a role session as environment variables."""
    backend = sts_backends[role_arn.split(":")[4]][get_partition(region)]
    session = backend.assume_role(
        region_name=region,
        role_session_name=session_name,
        role_arn=role_arn,
        policy="",
        duration=43_200,
        external_id="",
    )
    return {
        "AWS_ACCESS_KEY_ID": session.access_key_id,
        "AWS_SECRET_ACCESS_KEY": session.secret_access_key,
        "AWS_SESSION_TOKEN": session.session_token,
    }


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"errorMessage": message, "errorType": kind}).encode()


class Functions:
    """All functions, and their asynchronous invocations."""

    def __init__(self, later: Later, say: Callable[[str], None]) -> None:
        self._later = later
        self._say = say
        self._functions: dict[str, Function] = {}

    def add(self, function: Function) -> None:
        """Add a function; stop and replace one with the same name."""
        former = self._functions.get(function.definition.name)
        if former is not None:
            former.stop()
        self._functions[function.definition.name] = function

    def __iter__(self) -> Any:
        return iter(list(self._functions.values()))

    def find(self, name: str) -> Function | None:
        """Return the function with this name, handler name or ARN (a version or alias after it is ignored), or None."""
        if name.startswith("arn:"):
            name = name.split(":")[6] if name.count(":") >= 6 else name
        name = name.split(":")[0]
        if name in self._functions:
            return self._functions[name]
        return next((each for each in self if each.definition.short_name == name), None)

    def invoke_later(self, name: str, payload: bytes) -> bool:
        """Invoke asynchronously; return False if there is no such function."""
        function = self.find(name)
        if function is None:
            return False
        self._later.after(0, lambda: self._attempt(function, payload, 1))
        return True

    def stop(self) -> None:
        """Stop all functions."""
        for function in self:
            function.stop()
        self._functions.clear()

    def _attempt(self, function: Function, payload: bytes, number: int) -> None:
        it = function.definition
        result = function.invoke(payload)
        if result.error is None:
            self._say(f"{it.name}: done in {result.seconds * 1000:.0f} ms{_told(result)}")
            if it.on_success:
                self._destine(it.on_success, function, payload, result, "Success", number)
            return
        if b"Sandbox.Stopped" in result.payload:
            return
        self._say(f"{it.name}: attempt {number} failed after {result.seconds * 1000:.0f} ms: {_message(result)}")
        if number <= it.retries:
            waits = KNOBS.retry_seconds or (0.0,)
            wait = waits[min(number, len(waits)) - 1]
            self._later.after(wait, lambda: self._attempt(function, payload, number + 1))
            return
        if it.on_failure:
            self._destine(it.on_failure, function, payload, result, "RetriesExhausted", number)
        if it.dead_letters:
            attributes = {"RequestID": result.request_id, "ErrorCode": "200", "ErrorMessage": _message(result)[:1024]}
            self._deliver(it.dead_letters, payload.decode("utf-8", "replace"), attributes)
        if not it.on_failure and not it.dead_letters:
            self._say(f"{it.name}: the event is lost, for the function has no failure destination")

    def _destine(
        self, arn: str, function: Function, payload: bytes, result: Result, condition: str, attempts: int
    ) -> None:
        record = {
            "version": "1.0",
            "timestamp": stamp(),
            "requestContext": {
                "requestId": result.request_id,
                "functionArn": f"{function.definition.arn}:$LATEST",
                "condition": condition,
                "approximateInvokeCount": attempts,
            },
            "requestPayload": _json_or_text(payload),
            "responseContext": {
                "statusCode": 200,
                "executedVersion": "$LATEST",
                **({"functionError": result.error} if result.error else {}),
            },
            "responsePayload": _json_or_text(result.payload),
        }
        self._deliver(arn, json.dumps(record), {})

    def _deliver(self, arn: str, body: str, attributes: dict[str, str]) -> None:
        service = arn.split(":")[2]
        if service == "sqs":
            send_to_queue(arn, body, attributes)
        elif service == "sns":
            send_to_topic(arn, body)
        elif service == "lambda":
            self.invoke_later(arn, body.encode())
        else:
            self._say(f"destinations such as {arn} are not served here")


def _json_or_text(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return payload.decode("utf-8", "replace")


def _message(result: Result) -> str:
    answer = _json_or_text(result.payload)
    return f"{answer.get('errorType')}: {answer.get('errorMessage')}" if isinstance(answer, dict) else str(answer)


def _told(result: Result) -> str:
    text = result.payload.decode("utf-8", "replace")
    return "" if text in ("", "null") else f", answering {text[:200]}"


def log_tail(result: Result) -> str:
    """Return the last 4 KB of an invocation's log, as the Invoke API does."""
    return base64.b64encode(result.log.encode()[-4096:]).decode()
