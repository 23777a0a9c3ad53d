"""The sandbox: moto's server on 127.0.0.1, and around it CloudTrail, EventBridge, Lambda and a control endpoint.

Every request is read once, executed by moto (or by our own code), and recorded: in the log of calls, and in CloudTrail
if it writes. moto's state is global to the process, so a process can have one sandbox at a time.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import escape

import boto3
from botocore.config import Config
from moto.core.model_instances import reset_model_data
from moto.kms.models import kms_backends
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.utilities.utils import get_partition
from moto.xray.models import xray_backends
from werkzeug.serving import BaseWSGIServer

import sandbox.additions  # noqa: F401 - its import is what adds
from sandbox import keys, links, spans, tracing
from sandbox.bus import Bus, new_id
from sandbox.calls import Call, Request, read_answer, read_request, touched
from sandbox.control import Control
from sandbox.functions import (
    Function,
    Functions,
    Result,
    build_runtime_folder,
    has_runtime_client,
    log_tail,
)
from sandbox.identity import Principal, principal_of
from sandbox.knobs import DEFAULT_ACCOUNT, DEFAULT_REGION, KNOBS, aws_now
from sandbox.later import Later
from sandbox.listening import listening
from sandbox.lookups import LookupRefused, Lookups
from sandbox.stack import Stack
from sandbox.trail import Trail

ADMINISTRATOR_KEY = {"aws_access_key_id": "AKIASANDBOXADMIN0001", "aws_secret_access_key": "sandbox"}

_Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Fault:
    """An injected failure: the next `times` calls of an action return an error, in one Region if one is named.

    `carried_out`: the call takes effect, as if only its response was lost.
    """

    service: str
    action: str
    code: str
    message: str = "a fault that was requested"
    status: int = 400
    times: int = 1
    carried_out: bool = False
    region: str | None = None


class _Handler(MotoRequestHandler):
    # Head and body are sent in two writes, and Nagle's algorithm would delay the second.
    disable_nagle_algorithm = True

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the `Date` of a response: AWS's time."""
        return super().date_time_string(aws_now().timestamp() if timestamp is None else timestamp)

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log nothing: the log of calls has more."""


class Sandbox:
    """A simulated AWS on one machine. Use it as a context manager; `url` is its endpoint.

    `package` is a folder with the templates and `deployment.zip`, or None to deploy nothing. Events of the Regions in
    `forwarding` are forwarded to the guard. CloudTrail records no calls of role sessions named `silent_session`. `say`
    receives a line for everything that happens.
    """

    _in_use = threading.Lock()

    def __init__(
        self,
        *,
        port: int = 0,
        account: str = DEFAULT_ACCOUNT,
        region: str = DEFAULT_REGION,
        package: Path | None = None,
        parameters: dict[str, Any] | None = None,
        forwarding: Iterable[str] = (),
        silent_session: str = "",
        say: Callable[[str], None] = lambda line: None,
        warm: bool = True,
        **knobs: Any,
    ) -> None:
        KNOBS.reset()
        KNOBS.turn(knobs)
        self._knobs = knobs
        self.account = account
        self.region = region
        self.package = package
        self.parameters = parameters or {}
        self.forwarding = tuple(forwarding)
        self._silent_session = silent_session
        self.say = say
        self.calls: deque[Call] = deque(maxlen=20_000)
        self.faults: list[Fault] = []
        self.links = links.Links()
        self._port = port
        self._warm = warm
        self._moto = DomainDispatcherApplication(create_backend_app)
        # moto is not thread-safe: a failed transaction restores whole tables.
        self._world = threading.RLock()
        self._own_answers: dict[tuple[str, str], Callable[[Request, Principal, dict[str, Any], bytes], _Answer]] = {
            ("cloudtrail", "LookupEvents"): self._lookup_events,
            ("ec2", "DescribeRegions"): self._describe_regions,
            ("events", "PutEvents"): self._put_events,
            ("lambda", "Invoke"): self._invoke_function,
            ("sts", "GetCallerIdentity"): self._get_caller_identity,
            **{("oam", operation): self._answer_about_links for operation in links.OPERATIONS},
        }
        self._unlocked = {("lambda", "Invoke")}
        self.watchers: list[Callable[[Request, Principal], None]] = []
        """Each is called with every request before it is carried out, and sees the world as the request finds it."""
        self._started = False

    # Life

    def start(self) -> Sandbox:
        """Listen, deploy, and warm the functions in the background.

        Raises RuntimeError for a second sandbox, and OSError if the port is in use.
        """
        if not Sandbox._in_use.acquire(blocking=False):
            raise RuntimeError("this process has a sandbox already, and moto's state is the process's")
        self._started = True
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="xray-guard-sandbox-"))
            self._session = boto3.Session(**ADMINISTRATOR_KEY, region_name=self.region)
            self._clients: dict[tuple[str, str], Any] = {}
            self.later = Later(self.say)
            self.functions = Functions(self.later, self.say)
            self.bus = Bus(self._hand_to_function, self.say)
            trail = Trail(self.later, self._deliver, self._silent_session)
            self.trail, self.lookups = trail, Lookups(trail.records)
            self.control = Control(self)
            self._server: BaseWSGIServer = listening(self._port, self._serve, _Handler)
            self.port = int(self._server.server_address[1])
            self.url = f"http://127.0.0.1:{self.port}"
            threading.Thread(
                target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="sandbox-http", daemon=True
            ).start()
            self._clear()
            self._deploy()
            self.bus.start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop everything, the functions' processes first."""
        if not self._started:
            return
        self._started = False
        try:
            if hasattr(self, "bus"):
                self.bus.stop()
                self.later.stop()
                self.functions.stop()
            if hasattr(self, "_server"):
                self._server.shutdown()
                self._server.server_close()
            if hasattr(self, "folder"):
                shutil.rmtree(self.folder, ignore_errors=True)
            self._clear()
        finally:
            KNOBS.reset()
            Sandbox._in_use.release()

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def reset(self) -> None:
        """Reset everything to the state after the start."""
        self.later.forget()
        self.functions.stop()
        self.later.idle(5)
        KNOBS.reset()
        KNOBS.turn(self._knobs)
        self._clear()
        self._deploy()

    def _clear(self) -> None:
        with self._world:
            moto_api_backend.reset()
            reset_model_data()
        self.calls.clear()
        self.faults.clear()
        self.links.forget()
        if hasattr(self, "trail"):
            self.trail.records.clear()
            self.lookups.forget()
            self.bus.forget()

    def _deploy(self) -> None:
        if self.package is None:
            return
        build_runtime_folder(self.folder / "runtime")
        # A rule may exist before its function, and the event of the topic's key would become a dead letter.
        copies, KNOBS.event_copies = KNOBS.event_copies, 0
        where = (self.package, self.account, self.region, self.client, self.folder, self.say)
        Stack(*where, file="tables.json", name="xray-guard-tables").deploy()
        for definition in Stack(*where, parameters=self.parameters).deploy():
            self.functions.add(Function(definition, self.url, self.folder, self.say))
        for region in self.forwarding:
            self._deploy_forwarding(self.package, region)
        KNOBS.event_copies = copies
        self.calls.clear()
        if self._warm:
            for function in self.functions:
                # The API's function starts with its first request; events and schedules wait for the others.
                if function.definition.short_name != "app":
                    threading.Thread(target=function.warm, daemon=True).start()

    def _deploy_forwarding(self, package: Path, region: str) -> None:
        """Deploy the template of the other Regions to one of them."""

        def client(service: str) -> Any:
            return self.client(service, region)

        where = (package, self.account, region, client, self.folder, self.say)
        home = {"HomeRegion": self.region}
        Stack(*where, file="spoke-region.json", name="xray-guard-region", parameters=home).deploy()

    # For callers

    @property
    def runtime(self) -> str:
        """The runtime client of the functions."""
        return "awslambdaric" if has_runtime_client() else "a plain process, for awslambdaric is not installed here"

    def environment(self) -> dict[str, str]:
        """Return the environment variables that point any AWS client at the sandbox."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ADMINISTRATOR_KEY["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": ADMINISTRATOR_KEY["aws_secret_access_key"],
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(
        self,
        service: str,
        region: str | None = None,
        account: str | None = None,
        role: str | None = None,
        session: str = "sandbox",
        config: Config | None = None,
    ) -> Any:
        """Return a boto3 client of the account's administrator, or of a session of the role with the given ARN.

        For another account, it is a session of that account's OrganizationAccountAccessRole.
        """
        region = region or self.region
        if account is not None and account != self.account and role is None:
            role = f"arn:{get_partition(region)}:iam::{account}:role/OrganizationAccountAccessRole"
        if role is None and config is None:
            if (service, region) not in self._clients:
                self._clients[service, region] = self._session.client(
                    service, region_name=region, endpoint_url=self.url
                )
            return self._clients[service, region]
        return self._session.client(
            service,
            region_name=region,
            endpoint_url=self.url,
            config=config,
            **(self.credentials(role, session, region) if role else {}),
        )

    def credentials(self, role: str, session: str = "sandbox", region: str | None = None) -> dict[str, str]:
        """Return the credentials of a role session as boto3 parameters. The role need not exist."""
        sts = self.client("sts", region)
        given = sts.assume_role(RoleArn=role, RoleSessionName=session)["Credentials"]
        return {
            "aws_access_key_id": given["AccessKeyId"],
            "aws_secret_access_key": given["SecretAccessKey"],
            "aws_session_token": given["SessionToken"],
        }

    def turn(self, **knobs: Any) -> None:
        """Set knobs, see `knobs.Knobs`."""
        KNOBS.turn(knobs)

    def let_go_by(self, seconds: float) -> None:
        """Advance AWS's clock. Raises ValueError for a negative number.

        Running functions complete first, and new processes replace them: Lambda does not keep a process for hours.
        """
        if seconds < 0:
            raise ValueError("AWS's clock cannot go back")
        if not self.idle():
            raise RuntimeError("time cannot go by while functions are at work")
        self.turn(clock_behind_seconds=KNOBS.clock_behind_seconds - seconds)
        for function in self.functions:
            function.restart(plain=function.plain)
            if self._warm:
                threading.Thread(target=function.warm, daemon=True).start()

    def idle(self, timeout_seconds: float = 30.0) -> bool:
        """Wait until no event is in flight and no function runs or has a pending retry; False after the timeout."""
        return self.later.idle(timeout_seconds)

    def invoke(self, name: str, event: Any) -> Result:
        """Invoke a function and wait. Raises LookupError if there is no such function."""
        function = self.functions.find(name)
        if function is None:
            raise LookupError(f"there is no function {name}")
        return function.invoke(json.dumps(event).encode())

    def deliver(self, event: dict[str, Any]) -> int:
        """Deliver an event to the default bus of its account and Region, as if AWS had sent it."""
        return self._deliver(event)

    def run_schedule(self, name: str) -> int:
        """Run schedules now, by the name of the rule or function. Return how many ran."""
        function = self.functions.find(name)
        return self.bus.run_schedule(function.definition.name if function else name)

    def fail(self, service: str, action: str, code: str, **how: Any) -> None:
        """Make calls fail, see `Fault`."""
        self.faults.append(Fault(service, action, code, **how))

    def storing_traces(self, account: str | None = None, region: str | None = None) -> bool:
        """Whether X-Ray stores traces: it stores none if it cannot use its setting's key."""
        return tracing.storing_traces(account or self.account, region or self.region)

    def spans(self, account: str | None = None, region: str | None = None) -> dict[str, Any]:
        """Where spans go, and under which key, see `spans.spans_of`."""
        return spans.spans_of(account or self.account, region or self.region)

    def seed_services(self, *names: str, account: str | None = None, region: str | None = None) -> None:
        """Add these services to X-Ray's service graph, seen just now."""
        tracing.seed_services(account or self.account, region or self.region, names)

    def set_key_state(self, arn: str, state: str) -> None:
        """Put a key into a state that no call causes. Raises ValueError if the key does not exist."""
        with self._world:
            keys.set_key_state(arn, state)

    def delete_key(self, arn: str) -> None:
        """Delete a key as KMS does after its waiting period, with events. Raises ValueError if it does not exist."""
        with self._world:
            keys.delete_key(arn)
        parts = arn.split(":", 5)
        self.trail.key_deleted(parts[4], parts[3], arn)

    def log(self, function: str) -> str:
        """Return a function's log. Raises LookupError if there is no such function."""
        found = self.functions.find(function)
        if found is None:
            raise LookupError(f"there is no function {function}")
        return found.log_file.read_text(errors="replace")

    def state(self) -> dict[str, Any]:
        """Return the overview that the control endpoint shows."""
        return {
            "account": self.account,
            "region": self.region,
            "knobs": vars(KNOBS),
            "runtime": self.runtime,
            "functions": [
                {
                    "name": each.definition.name,
                    "handler": each.definition.handler,
                    "invocations": each.invocations,
                    "process": each.process_id,
                    "log": str(each.log_file),
                }
                for each in self.functions
            ],
            "encryption": {
                f"{account}/{region}": {
                    **tracing.tracing_of(account, region).as_api(),
                    "storing_traces": tracing.storing_traces(account, region),
                }
                for account, regions in list(xray_backends.items())
                for region in list(regions)
            },
            "spans": {
                f"{account}/{region}": spans.spans_of(account, region)
                for account, regions in list(xray_backends.items())
                for region in list(regions)
            },
            "keys": sum(len(kms.keys) for regions in list(kms_backends.values()) for kms in list(regions.values())),
            "calls": len(self.calls),
            "idle": self.idle(0),
        }

    # Requests

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = _read_body(environ)
        if environ.get("PATH_INFO", "").startswith("/_sandbox"):
            status, headers, answer = self.control.answer(environ, body)
        else:
            status, headers, answer = self._answer(environ, body)
        headers = {key: value for key, value in headers.items() if key.lower() not in ("content-length", "status")}
        start_response(f"{status} {_reason(status)}", [*headers.items(), ("Content-Length", str(len(answer)))])
        return [answer]

    def _answer(self, environ: dict[str, Any], body: bytes) -> _Answer:
        began, at = time.monotonic(), aws_now()
        request = read_request(environ, body)
        principal = principal_of(request.access_key, self.account, request.region or self.region)
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = principal.account
        resources: list[tuple[str, str]] = []
        token = touched.set(resources)
        try:
            with self._world:
                for watch in self.watchers:
                    watch(request, principal)
            status, headers, answer = self._carry_out(request, principal, environ, body)
        finally:
            touched.reset(token)
        headers = {key.lower(): value for key, value in headers.items()}
        request_id = headers.setdefault("x-amzn-requestid", new_id())
        answered, code, message = read_answer(answer, status, headers)
        seconds = time.monotonic() - began
        call = Call(request, principal, at, request_id, status, answered, code, message, seconds, tuple(resources))
        self.calls.append(call)
        self.trail.note(call)
        self._tell(call)
        return status, headers, answer

    def _carry_out(self, request: Request, principal: Principal, environ: dict[str, Any], body: bytes) -> _Answer:
        fault = self._fault(request)
        if fault is not None and not fault.carried_out:
            return _failure(fault.status, fault.code, fault.message)
        own = self._own_answers.get((request.service, request.action))
        try:
            if (request.service, request.action) in self._unlocked and own is not None:
                answer = own(request, principal, environ, body)
            else:
                with self._world:
                    answer = own(request, principal, environ, body) if own else self._answer_by_moto(environ)
        except Exception as error:
            self.say(f"{request.service} {request.action}: the sandbox cannot do this: {type(error).__name__}: {error}")
            return _failure(501, "NotImplemented", f"the sandbox cannot do this: {type(error).__name__}: {error}")
        return answer if fault is None else _failure(fault.status, fault.code, fault.message)

    def _fault(self, request: Request) -> Fault | None:
        for fault in self.faults:
            here = fault.region in (None, request.region) and fault.service == request.service
            if fault.times > 0 and here and fault.action in ("*", request.action):
                fault.times -= 1
                return fault
        return None

    def _answer_by_moto(self, environ: dict[str, Any]) -> _Answer:
        answered: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., Any]:
            answered["status"], answered["headers"] = int(status.split(" ", 1)[0]), dict(headers)
            return lambda data: None

        answer = b"".join(self._moto(environ, start_response))
        return answered["status"], answered["headers"], answer

    def _tell(self, call: Call) -> None:
        """Report a call that changes X-Ray, KMS, `aws/spans` or links; reads are not reported."""
        request = call.request
        about_spans = request.service == "logs" and request.parameters.get("logGroupName") == spans.SPANS
        reads = request.action.startswith(("Get", "List", "Describe", "Batch"))
        if reads or not (about_spans or request.service in ("xray", "kms", "oam")):
            return
        named = ("KeyId", "kmsKeyId", "AliasName", "SinkIdentifier", "Identifier")
        about = next((request.parameters[name] for name in named if request.parameters.get(name)), "")
        kind = "".join(f" {request.parameters[name]}" for name in ("Type", "Destination") if name in request.parameters)
        who = call.principal.arn.split(":", 5)[-1]
        outcome = f"refused, {call.error_code}" if call.error_code else "done"
        line = " ".join(f"{request.service} {request.action}{kind} {about}".split())
        self.say(f"{request.region} {line} by {who}: {outcome}")

    # Events and functions

    def _deliver(self, event: dict[str, Any]) -> int:
        with self._world:
            return self.bus.deliver(event)

    def _hand_to_function(self, arn: str, payload: bytes) -> bool:
        found = self.functions.invoke_later(arn, payload)
        if found:
            event = json.loads(payload)
            name = (event.get("detail") or {}).get("eventName") or event.get("detail-type")
            self.say(f"EventBridge: {name} -> {arn.rsplit(':', 1)[-1]}")
        return found

    # APIs that moto lacks

    def _invoke_function(self, request: Request, _: Principal, environ: dict[str, Any], body: bytes) -> _Answer:
        name = unquote(str(request.parameters["FunctionName"]))
        function = self.functions.find(name)
        if function is None:
            return _failure(404, "ResourceNotFoundException", f"Function not found: {name}")
        kind = environ.get("HTTP_X_AMZ_INVOCATION_TYPE", "RequestResponse")
        try:
            json.loads(body or b"{}")
        except ValueError as error:
            return _failure(400, "InvalidRequestContentException", f"Could not parse request body into json: {error}")
        if kind == "DryRun":
            return 204, {}, b""
        if kind == "Event":
            self.functions.invoke_later(function.definition.name, body or b"{}")
            return 202, {}, b""
        result = function.invoke(body or b"{}")
        headers = {"x-amz-executed-version": "$LATEST", "x-amzn-requestid": result.request_id}
        if result.error:
            headers["x-amz-function-error"] = result.error
        if environ.get("HTTP_X_AMZ_LOG_TYPE") == "Tail":
            headers["x-amz-log-result"] = log_tail(result)
        return 200, {**headers, "content-type": "application/json"}, result.payload

    def _put_events(self, request: Request, principal: Principal, environ: dict[str, Any], body: bytes) -> _Answer:
        entries = request.parameters.get("Entries", [])
        if not 1 <= len(entries) <= 10:
            return _failure(400, "ValidationException", "Entries takes from 1 to 10 events")
        try:
            answer = self.bus.put_events(entries, principal, request.region)
        except PermissionError as error:
            return _failure(400, "AccessDeniedException", str(error))
        return 200, {"content-type": "application/x-amz-json-1.1"}, json.dumps(answer).encode()

    def _lookup_events(self, request: Request, principal: Principal, environ: dict[str, Any], body: bytes) -> _Answer:
        try:
            answer = self.lookups.lookup(principal.account, request.region, request.parameters)
        except LookupRefused as refused:
            return _failure(400, refused.code, refused.message)
        return 200, {"content-type": "application/x-amz-json-1.1"}, json.dumps(answer).encode()

    def _answer_about_links(
        self, request: Request, principal: Principal, environ: dict[str, Any], body: bytes
    ) -> _Answer:
        try:
            answer = self.links.answer(request, principal)
        except links.LinkRefused as refused:
            return _failure(refused.status, refused.code, refused.message)
        return 200, {"content-type": "application/json"}, json.dumps(answer).encode()

    def _describe_regions(
        self, request: Request, principal: Principal, environ: dict[str, Any], body: bytes
    ) -> _Answer:
        named = [value for key, value in request.parameters.items() if key.startswith("RegionName.")]
        known = [each for each in KNOBS.regions if not named or each in named]
        unknown = sorted(set(named) - set(KNOBS.regions))
        if unknown:
            text = f"The region(s) {', '.join(unknown)} do not exist or are not enabled"
            error = (
                f"<Errors><Error><Code>InvalidParameterValue</Code><Message>{escape(text)}</Message></Error></Errors>"
            )
            return 400, {"content-type": "text/xml"}, f"<Response>{error}</Response>".encode()
        items = "".join(
            f"<item><regionName>{escape(each)}</regionName>"
            f"<regionEndpoint>ec2.{escape(each)}.amazonaws.com</regionEndpoint>"
            "<optInStatus>opt-in-not-required</optInStatus></item>"
            for each in known
        )
        text = f"<DescribeRegionsResponse><regionInfo>{items}</regionInfo></DescribeRegionsResponse>"
        return 200, {"content-type": "text/xml"}, text.encode()

    def _get_caller_identity(
        self, request: Request, principal: Principal, environ: dict[str, Any], body: bytes
    ) -> _Answer:
        user_id = f"{principal.unique_id}:{principal.session}" if principal.session else principal.unique_id
        text = (
            "<GetCallerIdentityResponse><GetCallerIdentityResult>"
            f"<Arn>{escape(principal.arn)}</Arn><UserId>{escape(user_id)}</UserId>"
            f"<Account>{principal.account}</Account>"
            "</GetCallerIdentityResult></GetCallerIdentityResponse>"
        )
        return 200, {"content-type": "text/xml"}, text.encode()


def _read_body(environ: dict[str, Any]) -> bytes:
    """Return the request's body, and leave it for moto to read again."""
    stream = environ["wsgi.input"]
    if environ.get("wsgi.input_terminated"):
        body = stream.read()
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        environ["CONTENT_LENGTH"] = str(len(body))
    else:
        body = stream.read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return bytes(body)


def _failure(status: int, code: str, message: str) -> _Answer:
    body = json.dumps({"__type": code, "message": message}).encode()
    return status, {"content-type": "application/x-amz-json-1.1", "x-amzn-errortype": code}, body


def _reason(status: int) -> str:
    return "OK" if status < 400 else "Error"
