"""The control endpoint `/_sandbox/`: what a test or demo in another process may ask of the sandbox and tell it.

GET  state                              everything at a glance
POST knobs      {"stale_seconds": 60}   turn knobs
GET  calls      ?service=&action=       the AWS calls so far, oldest first; DELETE forgets them
GET  records                            what CloudTrail recorded
POST events     {...}                   let an event arrive on the bus as if AWS had sent it
POST schedules  {"name": "tick"}        fire a schedule now
GET  logs       ?function=on_change     what a function wrote
POST services   {"names": ["shop"]}     let X-Ray's service graph name these (account, region optional)
POST keys       {"arn", "state"}        put a key into a state, or end it with the state Deleted
POST faults     {"service", "action", "code", "times"}   let calls fail
POST idle       {"seconds": 10}         wait until nothing is on its way
POST reset                              everything as at the start
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from sandbox.server import Sandbox

_Answer = tuple[int, dict[str, str], bytes]


class Control:
    """Answers the control endpoint's requests."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._routes: dict[tuple[str, str], Callable[[dict[str, Any]], Any]] = {
            ("GET", "state"): lambda asked: sandbox.state(),
            ("POST", "knobs"): self._knobs,
            ("GET", "calls"): self._calls,
            ("DELETE", "calls"): lambda asked: sandbox.calls.clear(),
            ("GET", "records"): lambda asked: list(sandbox.trail.records),
            ("POST", "events"): lambda asked: {"targets": sandbox.deliver(asked)},
            ("POST", "schedules"): lambda asked: {"fired": sandbox.run_schedule(asked["name"])},
            ("GET", "logs"): lambda asked: {"log": sandbox.log(asked["function"])},
            ("POST", "services"): self._services,
            ("POST", "keys"): self._keys,
            ("POST", "faults"): lambda asked: sandbox.fail(**asked),
            ("POST", "idle"): lambda asked: {"idle": sandbox.idle(float(asked.get("seconds", 30)))},
            ("POST", "reset"): lambda asked: sandbox.reset(),
        }

    def answer(self, environ: dict[str, Any], body: bytes) -> _Answer:
        """Answer in JSON: 404 for what is not known, 400 for what does not fit."""
        name = environ["PATH_INFO"].removeprefix("/_sandbox").strip("/") or "state"
        route = self._routes.get((environ["REQUEST_METHOD"], name))
        if route is None:
            return _json(404, {"error": f"the sandbox has no {environ['REQUEST_METHOD']} {name}"})
        try:
            asked = json.loads(body) if body else dict(parse_qsl(environ.get("QUERY_STRING", "")))
            return _json(200, route(asked))
        except (KeyError, LookupError, TypeError, ValueError) as error:
            return _json(400, {"error": f"{type(error).__name__}: {error}"})

    def _knobs(self, asked: dict[str, Any]) -> Any:
        self._sandbox.turn(**asked)
        return self._sandbox.state()["knobs"]

    def _calls(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        lines = [call.line() for call in list(self._sandbox.calls)]
        return [line for line in lines if all(line.get(key) == value for key, value in asked.items())]

    def _services(self, asked: dict[str, Any]) -> None:
        self._sandbox.seed_services(*asked["names"], account=asked.get("account"), region=asked.get("region"))

    def _keys(self, asked: dict[str, Any]) -> None:
        if asked["state"] == "Deleted":
            self._sandbox.delete_key(asked["arn"])
        else:
            self._sandbox.set_key_state(asked["arn"], asked["state"])


def _json(status: int, value: Any) -> _Answer:
    return status, {"content-type": "application/json"}, json.dumps(value, default=str).encode()
