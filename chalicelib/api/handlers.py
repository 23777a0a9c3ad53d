"""The REST API: handle a request from API Gateway, and return a response. The query layer has the data.

Every handler is a plain function of the service, the request and its decoded query. Errors describe only the error in
the request: no stack traces, and nothing about the account.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any

import msgspec
from aws_lambda_powertools import Logger
from msgspec import Struct

from chalicelib.api.operations import BY_NAME, OPERATIONS
from chalicelib.api.queries import LogQuery, NoQuery, SummaryQuery, TargetsQuery
from chalicelib.api.requests import Refused, Request, check_size, decode_query, read_request, request_id_of
from chalicelib.api.responses import KEEP_FIVE_MINUTES, Response, content_headers, problem, success
from chalicelib.auditlog import history, views
from chalicelib.auditlog.cursors import BadCursor
from chalicelib.auditlog.summary import summarize
from chalicelib.auditlog.views import IncidentView
from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.logreads import LogStore
from chalicelib.domain.errors import AwsError, FormatTooNew
from chalicelib.domain.model import Target, arn_part
from chalicelib.domain.policy import DOCUMENT_NAME, PolicyError, load_stamped
from chalicelib.domain.stored import GUARD_CHAIN, GuardState
from chalicelib.wiring import POLICIES, make_log_store

DEFAULT_DAYS = 30
MOST_BODY_BYTES = 5_000_000
"""The largest body of a response. Lambda returns at most six megabytes."""

THROTTLED = frozenset(
    {"ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException", "ThrottledException"}
)

logger = Logger(service=os.environ.get("POWERTOOLS_SERVICE_NAME", "xray-guard"))


class Service(Struct, frozen=True):
    """What the handlers depend on. `now` is AWS's time, and the host's until the first response of a process."""

    store: LogStore
    now: Callable[[], datetime]


Handler = Callable[[Service, Request, Any], Any]
"""Takes the operation's Struct as its query. Returns a document, or a whole response."""


def respond(operation: str, received: Any, context: Any) -> Response:
    """Handle a request as Chalice read it from API Gateway's REST proxy event. Never raises."""
    try:
        request = read_request(BY_NAME[operation], received, context)
        logger.info("request", extra={"operation": operation, "caller": request.caller, "request_id": request.id})
        return handle(_service(arn_part(context.invoked_function_arn, 3)), request)
    except Exception:
        logger.exception("request failed")
        return problem(
            500, "INTERNAL_ERROR", "Internal error. The function's log has the cause.", request_id_of(context)
        )


def handle(service: Service, request: Request) -> Response:
    """Check a request and call its handler. Errors of the request, of the policy and of AWS become problem details."""
    try:
        check_size(request)
        result = HANDLERS[request.operation.name](service, request, decode_query(request))
        return result if isinstance(result, Response) else success(request, result)
    except Refused as error:
        return problem(error.status, error.code, error.detail, request.id, error.parameters)
    except BadCursor as error:
        return problem(400, "BAD_CURSOR", str(error), request.id, ["next_token"])
    except PolicyError as error:
        logger.error("no valid policy", extra={"code": error.code, "problem": error.message})
        return problem(
            503, error.code, "The deployed package has no valid policy. Package and deploy it again.", request.id
        )
    except FormatTooNew as error:
        logger.error("the stored format is too new", extra={"code": error.problem.code, "problem": str(error)})
        return problem(503, error.problem.code, error.problem.message, request.id)
    except AwsError as error:
        logger.error("AWS refused", extra={"code": error.code, "problem": str(error)})
        code = "THROTTLED" if error.code in THROTTLED else "AWS_REFUSED"
        refused = problem(503, code, "The guard cannot reach AWS at the moment. Try again.", request.id)
        return msgspec.structs.replace(refused, headers={**refused.headers, "Retry-After": "2"})


@cache
def _service(region: str) -> Service:
    clock = AwsClock()
    return Service(make_log_store(Clients(), region, clock), clock.now)


# --- the log ---------------------------------------------------------------------------------------------------------


def get_incidents(service: Service, request: Request, query: LogQuery) -> dict[str, Any]:
    """Incidents, newest first."""
    now = service.now()
    wanted = query.filter(now)
    return _fitting(
        lambda limit: history.incidents(service.store, wanted, now, limit, query.next_token).to_json(), query.limit
    )


def get_records(service: Service, request: Request, query: LogQuery) -> dict[str, Any]:
    """Records, newest first."""
    now = service.now()
    wanted = query.filter(now)
    return _fitting(
        lambda limit: history.records(service.store, wanted, now, limit, query.next_token).to_json(), query.limit
    )


def _fitting(page: Callable[[int], dict[str, Any]], limit: int) -> dict[str, Any]:
    """A page that Lambda can return: with whole key policies in its records, it may have to be shorter."""
    document = page(limit)
    while limit > 1 and len(msgspec.json.encode(document)) > MOST_BODY_BYTES:
        limit = max(1, limit // 4)
        document = page(limit)
    return document


def get_incident(service: Service, request: Request, query: NoQuery) -> dict[str, Any]:
    """One incident with its records."""
    view = _incident(service, request.path["id"])
    size = 0
    for number, entry in enumerate(view.entries):
        size += len(msgspec.json.encode(entry.to_json()))
        if size > MOST_BODY_BYTES:
            view = dataclasses.replace(view, entries=view.entries[:number], complete=False)
            break
    return view.to_json(timeline=True)


def _incident(service: Service, written: str) -> IncidentView:
    missing = Refused(404, "NO_SUCH_INCIDENT", "The incident does not exist.", ["id"])
    if len(written) > 64:
        raise missing
    try:
        view = history.incident_now(service.store, written, service.now)
    except ValueError as error:
        raise missing from error
    if view is None:
        raise missing
    return view


def get_summary(service: Service, request: Request, query: SummaryQuery) -> dict[str, Any]:
    """The figures; by default of the last thirty days."""
    now = service.now()
    until = query.until.at(now) if query.until else now
    last = min(until, now).date()
    first = query.since.at(now).date() if query.since else _days_before(last, DEFAULT_DAYS - 1)
    return summarize(service.store, first, last).to_json()


def _days_before(day: date, days: int) -> date:
    return day - timedelta(days=min(days, (day - date.min).days))


# --- targets ---------------------------------------------------------------------------------------------------------


def get_targets(service: Service, request: Request, query: TargetsQuery) -> dict[str, Any]:
    """The current state of targets. Reads the state of every target, and returns a page."""
    after = _last_target_of(query.next_token)
    limit = query.limit
    guard = _guard(service)
    found = history.targets(service.store.states(), guard, service.now(), query.filter())
    views = [view for view in found if view.target > after]
    return {
        "targets": [view.to_json() for view in views[:limit]],
        "guard": {
            "policy_digest": guard.policy_digest,
            "swept_at": msgspec.to_builtins(guard.swept_at),
            "paused": msgspec.to_builtins(guard.paused),
        },
        "next_token": views[limit - 1].target.replace("/", "_") if len(views) > limit else None,
    }


def _last_target_of(token: str | None) -> str:
    """The last target of the previous page: the token is its name, with `_` in place of `/`."""
    if token is None:
        return ""
    name = token.replace("_", "/")
    try:
        Target.parse(name)
    except ValueError as error:
        raise BadCursor("the page token is not valid: use it exactly as returned, or start without one") from error
    return name


def get_target(service: Service, request: Request, query: NoQuery) -> dict[str, Any]:
    """The current state of one target."""
    target = _target(request)
    loaded = service.store.load(str(target))
    if loaded.state.version == 0:
        raise Refused(404, "NO_SUCH_TARGET", "The guard has not seen this target.", ["account", "region"])
    return views.target_view(loaded.state, loaded.guard, service.now()).to_json()


def post_reconcile(service: Service, request: Request, query: NoQuery) -> Response:
    """Request a check of a target at the next tick, in the caller's name. Idempotent."""
    target = _target(request)
    if service.store.load(str(target)).state.version == 0:
        raise Refused(404, "NO_SUCH_TARGET", "The guard has not seen this target.", ["account", "region"])
    now = service.now()
    service.store.ask(str(target), now, request.caller)
    document = {"target": str(target), "accepted_at": msgspec.to_builtins(now)}
    location = f"/v1/targets/{target}"
    headers = {"Location": location, "Cache-Control": "no-store", **content_headers("application/json")}
    return Response(request.operation.status, headers, json.dumps(document))


def _target(request: Request) -> Target:
    try:
        return Target.parse(f"{request.path['account']}/{request.path['region']}")
    except ValueError as error:
        raise Refused(404, "NO_SUCH_TARGET", "The target does not exist.", ["account", "region"]) from error


# --- the guard -------------------------------------------------------------------------------------------------------


def get_policy(service: Service, request: Request, query: NoQuery) -> dict[str, Any]:
    """The document that the functions enforce, from this package."""
    policy = load_stamped(POLICIES)
    deployed = _guard(service).policy_digest
    return {
        "digest": policy.digest,
        "deployed_digest": deployed,
        "same": None if deployed is None else deployed == policy.digest,
        "document": json.loads((POLICIES / DOCUMENT_NAME).read_bytes()),
    }


def get_openapi(service: Service, request: Request, query: NoQuery) -> Response:
    """The OpenAPI document."""
    from chalicelib.api.openapi import document  # only here: no other operation needs it at its cold start

    return success(request, document(), KEEP_FIVE_MINUTES)


def _guard(service: Service) -> GuardState:
    return service.store.load(GUARD_CHAIN).guard


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
