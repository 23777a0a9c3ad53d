"""The REST API: handle a request from API Gateway, and return a response. The query layer has the data.

Every handler is a plain function of the service and the request. The declarations of `openapi` validate requests: a
parameter that is not declared is refused by name. Errors are RFC 9457 problem details. They describe only the error in
the request: no stack traces, and nothing about the account.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import msgspec
from aws_lambda_powertools import Logger

from chalicelib.api import openapi
from chalicelib.api.openapi import BY_NAME, OPERATIONS, PROBLEM_TYPE, Operation, Parameter
from chalicelib.auditlog import history, views
from chalicelib.auditlog.cursors import BadCursor
from chalicelib.auditlog.filters import Filter
from chalicelib.auditlog.summary import summarize
from chalicelib.auditlog.views import IncidentView
from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.logreads import LogStore
from chalicelib.domain.errors import AwsError
from chalicelib.domain.model import Target, arn_part
from chalicelib.domain.policy import DOCUMENT_NAME, PolicyError, load_stamped
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GUARD_CHAIN, GuardState
from chalicelib.wiring import POLICIES, make_log_store

DEFAULT_LIMIT = 50
DEFAULT_DAYS = 30
MOST_BODY_BYTES = 5_000_000
"""Lambda hands on six megabytes at most."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
DATE_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}):([0-9]{2})(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
THROTTLED = frozenset(
    {"ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException", "ThrottledException"}
)

KEEP_FIVE_MINUTES = "private, max-age=300"
ASK_AGAIN = "private, no-cache"
"""Responses are private, and revalidated with their ETag."""

logger = Logger(service=os.environ.get("POWERTOOLS_SERVICE_NAME", "xray-guard"))


@dataclass(frozen=True, slots=True)
class Request:
    """A request from API Gateway. `query` has every value of a parameter; header names are in lower case."""

    operation: Operation
    path: Mapping[str, str]
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: bytes
    caller: str
    id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The response for API Gateway."""

    status: int
    headers: dict[str, str]
    body: str


class Refused(Exception):
    """The request is refused. `parameters` names those in error."""

    def __init__(self, status: int, code: str, detail: str, parameters: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.parameters = parameters


@dataclass(frozen=True)
class Service:
    """What the handlers depend on."""

    store: LogStore
    now: Callable[[], datetime]


Handler = Callable[[Service, Request], Any]


# --- the face of it --------------------------------------------------------------------------------------------------


def respond(operation: str, asked: Any, context: Any) -> Answer:
    """Answer a request as Chalice read it from API Gateway's REST proxy event. Never raises."""
    try:
        request = _read(BY_NAME[operation], asked, context)
        logger.info("request", extra={"operation": operation, "caller": request.caller, "request_id": request.id})
        return answer(_service(arn_part(context.invoked_function_arn, 3)), request)
    except Exception:
        logger.exception("request failed")
        return _problem(
            500, "INTERNAL_ERROR", "Internal error. The function's log has the cause.", _request_id(context)
        )


def answer(service: Service, request: Request) -> Answer:
    """Answer a request."""
    try:
        _check_size(request)
        _check_names(request)
        told = HANDLERS[request.operation.name](service, request)
        return told if isinstance(told, Answer) else _good(request, told)
    except Refused as error:
        return _problem(error.status, error.code, error.detail, request.id, error.parameters)
    except BadCursor as error:
        return _problem(400, "BAD_CURSOR", str(error), request.id, ["next_token"])
    except PolicyError as error:
        logger.error("no valid policy", extra={"code": error.code, "problem": error.message})
        return _problem(
            503, error.code, "The deployed package has no valid policy. Package and deploy it again.", request.id
        )
    except AwsError as error:
        logger.error("AWS refused", extra={"code": error.code, "problem": str(error)})
        code = "THROTTLED" if error.code in THROTTLED else "AWS_REFUSED"
        refused = _problem(503, code, "The guard cannot reach AWS at the moment. Try again.", request.id)
        return Answer(503, {**refused.headers, "Retry-After": "2"}, refused.body)


@cache
def _service(region: str) -> Service:
    clock = AwsClock()
    return Service(make_log_store(Clients(), region, clock), clock.now)


def _read(operation: Operation, asked: Any, context: Any) -> Request:
    query, identity = asked.query_params, asked.context.get("identity") or {}
    return Request(
        operation=operation,
        path={name: unquote(value) for name, value in (asked.uri_params or {}).items()},
        query={name: query.getlist(name) for name in query} if query else {},
        headers={name.lower(): value for name, value in asked.headers.items()},
        body=bytes(asked.raw_body),
        caller=identity.get("userArn") or "unknown",
        id=_request_id(context),
    )


def _request_id(context: Any) -> str:
    return str(getattr(context, "aws_request_id", "unknown"))


def _good(request: Request, told: Mapping[str, Any], cache_control: str = ASK_AGAIN) -> Answer:
    body = msgspec.json.encode(told)
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": cache_control, **_headers("application/json")}
    if etag in [known.strip().removeprefix("W/") for known in request.headers.get("if-none-match", "").split(",")]:
        return Answer(304, headers, "")
    return Answer(request.operation.status, headers, body.decode())


def _problem(status: int, code: str, detail: str, request_id: str, parameters: Sequence[str] = ()) -> Answer:
    told: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "instance": f"urn:uuid:{request_id}",
    }
    if parameters:
        told["parameters"] = list(parameters)
    return Answer(status, {"Cache-Control": "no-store", **_headers(PROBLEM_TYPE)}, json.dumps(told))


def _headers(content_type: str) -> dict[str, str]:
    return {"Content-Type": content_type, "X-Content-Type-Options": "nosniff"}


# --- reading requests ------------------------------------------------------------------------------------------------


def _check_size(request: Request) -> None:
    length = sum(len(name) + len(value) for name, values in request.query.items() for value in values)
    if length > openapi.LONGEST_QUERY:
        raise Refused(414, "QUERY_TOO_LONG", f"The query has more than {openapi.LONGEST_QUERY} characters.")
    if len(request.body) > openapi.LARGEST_BODY:
        raise Refused(413, "BODY_TOO_LARGE", f"The body has more than {openapi.LARGEST_BODY} bytes.")
    if request.operation.method == "POST" and request.body:
        _check_body(request)


def _check_body(request: Request) -> None:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "NOT_JSON", "The body must be application/json.")
    try:
        told = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "BAD_BODY", "The body is not JSON.") from error
    if told != {}:
        raise Refused(400, "BAD_BODY", "The body must be empty or an empty JSON object.")


def _check_names(request: Request) -> None:
    known = {parameter.name: parameter for parameter in request.operation.parameters}
    unknown = [name[:64] for name in request.query if name not in known]
    if unknown:
        takes = f"This route accepts {', '.join(known)}." if known else "This route accepts none."
        raise Refused(400, "UNKNOWN_PARAMETER", f"Unknown parameters. {takes}", sorted(unknown)[:20])
    for name, values in request.query.items():
        if len(values) > 1 and not known[name].repeated:
            raise Refused(400, "REPEATED_PARAMETER", "This parameter may be given only once.", [name])


def _values(request: Request, parameter: Parameter) -> Sequence[str]:
    if parameter.name not in request.query or parameter not in request.operation.parameters:
        return ()
    return request.query[parameter.name]


def _text(request: Request, parameter: Parameter) -> str | None:
    """The parameter's value, as its schema wants it."""
    values = _values(request, parameter)
    if not values:
        return None
    (value,) = values
    schema = parameter.schema
    pattern = schema.get("pattern")
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", openapi.LONGEST_QUERY):
        raise _bad(parameter, f"1 to {schema.get('maxLength')} characters")
    if pattern and not re.fullmatch(pattern[1:-1], value, re.ASCII):
        raise _bad(parameter, parameter.description)
    return value


def _bad(parameter: Parameter, expected: str) -> Refused:
    return Refused(400, "BAD_PARAMETER", f"{parameter.name}: expected {expected}.", [parameter.name])


def _outcomes(request: Request) -> tuple[Outcome, ...]:
    values = _values(request, openapi.OUTCOME)
    if len(values) > len(Outcome):
        raise _bad(openapi.OUTCOME, f"at most {len(Outcome)} values")
    try:
        return tuple(Outcome(value) for value in values)
    except ValueError as error:
        raise _bad(openapi.OUTCOME, f"one of {', '.join(Outcome)}") from error


def _limit(request: Request) -> int:
    values = _values(request, openapi.LIMIT)
    if not values:
        return DEFAULT_LIMIT
    if not re.fullmatch(r"[0-9]{1,4}", values[0], re.ASCII) or not 1 <= int(values[0]) <= openapi.MOST_LIMIT:
        raise _bad(openapi.LIMIT, f"a whole number from 1 to {openapi.MOST_LIMIT}")
    return int(values[0])


def _moment(request: Request, parameter: Parameter, now: datetime) -> datetime | None:
    values = _values(request, parameter)
    if not values:
        return None
    try:
        return read_moment(values[0], now)
    except ValueError as error:
        raise _bad(parameter, parameter.description) from error


def read_moment(text: str, now: datetime) -> datetime:
    """An RFC 3339 time, a date (its first moment, UTC), or a span before `now`, such as `24h`. Raises ValueError.

    What lies beyond the calendar, whichever way, is the calendar's end.
    """
    try:
        if re.fullmatch(openapi.AGO_PATTERN[1:-1], text, re.ASCII):
            return now - timedelta(seconds=int(text[:-1]) * UNITS[text[-1]])
        if DATE.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        found = DATE_TIME.fullmatch(text)
        if not found:
            raise ValueError(text)
        day, minute, second, fraction, zone = found.groups()
        # A leap second is written :60, which Python's clock does not have.
        second = "59" if second == "60" else second
        exact = f"{day}T{minute}:{second}{(fraction or '.0')[:7]}"
        local = datetime.fromisoformat(exact + zone.upper().replace("Z", "+00:00"))
        return local.astimezone(UTC)
    except OverflowError:
        first = text.startswith("0") or text[-1] in UNITS
        return (datetime.min if first else datetime.max).replace(tzinfo=UTC)


def _filter(request: Request, now: datetime) -> Filter:
    target = _text(request, openapi.TARGET)
    return Filter(
        target=target,
        account=_text(request, openapi.ACCOUNT),
        region=_text(request, openapi.REGION),
        outcomes=_outcomes(request),
        actor=_text(request, openapi.ACTOR),
        rule=_text(request, openapi.RULE),
        since=_moment(request, openapi.SINCE, now),
        until=_moment(request, openapi.UNTIL, now),
    )


def _target(request: Request) -> Target:
    try:
        return Target.parse(f"{request.path['account']}/{request.path['region']}")
    except ValueError as error:
        raise Refused(404, "NO_SUCH_TARGET", "The target does not exist.", ["account", "region"]) from error


# --- handlers --------------------------------------------------------------------------------------------------------


def get_incidents(service: Service, request: Request) -> dict[str, Any]:
    """Incidents, newest first."""
    now = _now(service)
    wanted, token = _filter(request, now), _text(request, openapi.NEXT_TOKEN)
    return _fitting(
        lambda limit: history.incidents(service.store, wanted, now, limit, token).to_json(), _limit(request)
    )


def get_records(service: Service, request: Request) -> dict[str, Any]:
    """Records, newest first."""
    now = _now(service)
    wanted, token = _filter(request, now), _text(request, openapi.NEXT_TOKEN)
    return _fitting(lambda limit: history.records(service.store, wanted, now, limit, token).to_json(), _limit(request))


def _fitting(page: Callable[[int], dict[str, Any]], limit: int) -> dict[str, Any]:
    """A page that Lambda can hand on: records with whole key policies in them may take a shorter one."""
    told = page(limit)
    while limit > 1 and len(msgspec.json.encode(told)) > MOST_BODY_BYTES:
        limit = max(1, limit // 4)
        told = page(limit)
    return told


def get_incident(service: Service, request: Request) -> dict[str, Any]:
    """One incident with its records."""
    view = _incident(service, request.path["id"])
    size = 0
    for number, entry in enumerate(view.entries):
        size += len(msgspec.json.encode(entry.to_json()))
        if size > MOST_BODY_BYTES:
            view = replace(view, entries=view.entries[:number], complete=False)
            break
    return view.to_json(timeline=True)


def _incident(service: Service, written: str) -> IncidentView:
    missing = Refused(404, "NO_SUCH_INCIDENT", "The incident does not exist.", ["id"])
    if len(written) > 64:
        raise missing
    try:
        view = history.incident(service.store, written)
    except ValueError as error:
        raise missing from error
    if view is None:
        raise missing
    return view


def get_targets(service: Service, request: Request) -> dict[str, Any]:
    """The present state of targets. Reads the state of every one of them, and answers a part."""
    wanted = _filter(request, _now(service))
    after = _place(_text(request, openapi.NEXT_TOKEN))
    limit = _limit(request)
    guard = _guard(service)
    views = [view for view in history.targets(service.store.states(), wanted) if view.target > after]
    return {
        "targets": [view.to_json() for view in views[:limit]],
        "guard": {
            "policy_digest": guard.policy_digest,
            "swept_at": msgspec.to_builtins(guard.swept_at),
            "paused": msgspec.to_builtins(guard.paused),
        },
        "next_token": views[limit - 1].target.replace("/", "_") if len(views) > limit else None,
    }


def _place(token: str | None) -> str:
    """The last target of the page before; its name is all that the token holds."""
    if token is None:
        return ""
    name = token.replace("_", "/")
    try:
        Target.parse(name)
    except ValueError as error:
        raise BadCursor("the cursor is not valid: use it exactly as returned, or start without one") from error
    return name


def get_target(service: Service, request: Request) -> dict[str, Any]:
    """The present state of one target."""
    target = _target(request)
    state = service.store.load(str(target)).state
    if state.version == 0:
        raise Refused(404, "NO_SUCH_TARGET", "The guard has not seen this target.", ["account", "region"])
    return views.target_view(state).to_json()


def get_summary(service: Service, request: Request) -> dict[str, Any]:
    """The figures; by default of the last thirty days."""
    now = _now(service)
    until = _moment(request, openapi.UNTIL, now) or now
    since = _moment(request, openapi.SINCE, now)
    last = min(until, now).date()
    first = since.date() if since else _days_before(last, DEFAULT_DAYS - 1)
    return summarize(service.store, first, last).to_json()


def _days_before(day: date, days: int) -> date:
    return day - timedelta(days=min(days, (day - date.min).days))


def get_policy(service: Service, request: Request) -> Answer:
    """The document that the functions enforce, from this package."""
    policy = load_stamped(POLICIES)
    deployed = _guard(service).policy_digest
    told = {
        "digest": policy.digest,
        "deployed_digest": deployed,
        "same": None if deployed is None else deployed == policy.digest,
        "document": json.loads((POLICIES / DOCUMENT_NAME).read_bytes()),
    }
    return _good(request, told)


def get_openapi(service: Service, request: Request) -> Answer:
    """The OpenAPI document."""
    return _good(request, openapi.document(), KEEP_FIVE_MINUTES)


def post_reconcile(service: Service, request: Request) -> Answer:
    """Request a check of a target at the next tick, in the caller's name. Idempotent."""
    target = _target(request)
    if service.store.load(str(target)).state.version == 0:
        raise Refused(404, "NO_SUCH_TARGET", "The guard has not seen this target.", ["account", "region"])
    now = _now(service)
    service.store.ask(str(target), now, request.caller)
    told = {"target": str(target), "accepted_at": msgspec.to_builtins(now)}
    where = f"/v1/targets/{target}"
    headers = {"Location": where, "Cache-Control": "no-store", **_headers("application/json")}
    return Answer(request.operation.status, headers, json.dumps(told))


def _guard(service: Service) -> GuardState:
    return service.store.load(GUARD_CHAIN).guard


def _now(service: Service) -> datetime:
    """AWS's time; on the first request of a process, the host's."""
    return service.now()


HANDLERS: dict[str, Handler] = {
    "incidents": get_incidents,
    "incident": get_incident,
    "records": get_records,
    "targets": get_targets,
    "target": get_target,
    "summary": get_summary,
    "policy": get_policy,
    "openapi": get_openapi,
    "reconcile": post_reconcile,
}
assert set(HANDLERS) == {operation.name for operation in OPERATIONS}
