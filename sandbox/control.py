"""The control endpoint `/_sandbox/`, for tests and programs in other processes.

GET  state                              an overview
POST knobs      {"stale_seconds": 60}   set knobs
GET  calls      ?service=&action=       the AWS calls so far, oldest first; DELETE clears them
GET  records                            what CloudTrail recorded; POST adds a call of the past
POST events     {...}                   deliver an event on the bus as if AWS had sent it
POST schedules  {"name": "tick"}        run a schedule now
POST clock      {"seconds": 3600}       move AWS's clock forward; the response has its time
GET  logs       ?function=on_change     the log of a function
POST services   {"names": ["shop"]}     add services to X-Ray's service graph (account, region optional)
POST keys       {"arn", "state"}        set the state of a key; the state Deleted removes it
POST faults     {"service", "action", "code", "times"}   make calls fail
POST idle       {"seconds": 10}         wait until no event is in flight and no function runs
POST reset                              reset everything to the initial state
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from sandbox.knobs import aws_now

if TYPE_CHECKING:
    from sandbox.server import Sandbox

_Response = tuple[int, dict[str, str], bytes]


class Control:
    """Handles the requests of the control endpoint."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._routes: dict[tuple[str, str], Callable[[dict[str, Any]], Any]] = {
            ("GET", "state"): lambda request: sandbox.state(),
            ("POST", "knobs"): self._knobs,
            ("GET", "calls"): self._calls,
            ("DELETE", "calls"): lambda request: sandbox.calls.clear(),
            ("GET", "records"): lambda request: list(sandbox.trail.records),
            ("POST", "records"): sandbox.trail.records.append,
            ("POST", "events"): lambda request: {"targets": sandbox.deliver(request)},
            ("POST", "schedules"): lambda request: {"fired": sandbox.run_schedule(request["name"])},
            ("POST", "clock"): self._clock,
            ("GET", "logs"): lambda request: {"log": sandbox.log(request["function"])},
            ("POST", "services"): self._services,
            ("POST", "keys"): self._keys,
            ("POST", "faults"): lambda request: sandbox.fail(**request),
            ("POST", "idle"): lambda request: {"idle": sandbox.idle(float(request.get("seconds", 30)))},
            ("POST", "reset"): lambda request: sandbox.reset(),
        }

    def answer(self, environ: dict[str, Any], body: bytes) -> _Response:
        """Respond in JSON: 404 for an unknown path, 400 for an invalid request."""
        name = environ["PATH_INFO"].removeprefix("/_sandbox").strip("/") or "state"
        route = self._routes.get((environ["REQUEST_METHOD"], name))
        if route is None:
            return _json(404, {"error": f"the sandbox has no {environ['REQUEST_METHOD']} {name}"})
        try:
            request = json.loads(body) if body else dict(parse_qsl(environ.get("QUERY_STRING", "")))
            return _json(200, route(request))
        except (KeyError, LookupError, RuntimeError, TypeError, ValueError) as error:
            return _json(400, {"error": f"{type(error).__name__}: {error}"})

    def _knobs(self, request: dict[str, Any]) -> Any:
        self._sandbox.turn(**request)
        return self._sandbox.state()["knobs"]

    def _clock(self, request: dict[str, Any]) -> dict[str, str]:
        self._sandbox.let_go_by(float(request["seconds"]))
        return {"now": f"{aws_now():%Y-%m-%dT%H:%M:%SZ}"}

    def _calls(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        lines = [call.line() for call in list(self._sandbox.calls)]
        return [line for line in lines if all(line.get(key) == value for key, value in request.items())]

    def _services(self, request: dict[str, Any]) -> None:
        self._sandbox.seed_services(*request["names"], account=request.get("account"), region=request.get("region"))

    def _keys(self, request: dict[str, Any]) -> None:
        if request["state"] == "Deleted":
            self._sandbox.delete_key(request["arn"])
        else:
            self._sandbox.set_key_state(request["arn"], request["state"])


def _json(status: int, value: Any) -> _Response:
    return status, {"content-type": "application/json"}, json.dumps(value, default=str).encode()
