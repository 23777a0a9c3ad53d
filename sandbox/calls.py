"""One AWS call, read from the HTTP request and response: who called which API, and the result."""

from __future__ import annotations

import json
import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote

import botocore.session
from botocore.model import ServiceModel, Shape

from sandbox.identity import Principal

touched: ContextVar[list[tuple[str, str]] | None] = ContextVar("touched", default=None)
"""The resources of the present call, as a service notes them: CloudTrail type and ARN."""


def touch(kind: str, arn: str) -> None:
    """Note that the present call is about this resource."""
    resources = touched.get()
    if resources is not None and (kind, arn) not in resources:
        resources.append((kind, arn))


@dataclass(frozen=True, slots=True)
class Request:
    """The content of a request. `action` is the API's name, or method and path if the API is unknown."""

    service: str
    region: str
    access_key: str
    action: str
    parameters: dict[str, Any]
    method: str
    path: str
    user_agent: str
    source_ip: str
    host: str


@dataclass(frozen=True, slots=True)
class Call:
    """A completed call. `error_code` is None if it succeeded; `resources` has CloudTrail types and ARNs."""

    request: Request
    principal: Principal
    at: datetime
    request_id: str
    status: int
    answer: dict[str, Any] | None
    error_code: str | None
    error_message: str | None
    seconds: float
    resources: tuple[tuple[str, str], ...] = field(default=())

    def line(self) -> dict[str, Any]:
        """Return the call as the control endpoint shows it."""
        return {
            "at": self.at.isoformat(),
            "service": self.request.service,
            "action": self.request.action,
            "region": self.request.region,
            "account": self.principal.account,
            "principal": self.principal.arn,
            "parameters": self.request.parameters,
            "resources": [arn for _, arn in self.resources],
            "status": self.status,
            "error": self.error_code,
            "milliseconds": round(self.seconds * 1000, 1),
        }


_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")


def read_request(environ: dict[str, Any], body: bytes) -> Request:
    """Read a WSGI request. A request without a signature has the service `unsigned`."""
    signed = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    access_key, region, service = signed.groups() if signed else ("", "", "unsigned")
    method, path = environ.get("REQUEST_METHOD", ""), environ.get("PATH_INFO", "")
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    form = environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded")
    parameters = _parameters(body, form=form)
    action = target.rsplit(".", 1)[-1] or (str(parameters.pop("Action", "")) if form else "")
    if not action and service in ("xray", "lambda", "oam"):
        action, uri_parameters = _operation_at(service, method, path)
        parameters = {**uri_parameters, **parameters}
    return Request(
        service=service,
        region=region,
        access_key=access_key,
        action=action or f"{method} {path}",
        parameters=parameters,
        method=method,
        path=path,
        user_agent=environ.get("HTTP_USER_AGENT", ""),
        source_ip=environ.get("REMOTE_ADDR", "127.0.0.1"),
        host=environ.get("HTTP_HOST", ""),
    )


def _parameters(body: bytes, *, form: bool) -> dict[str, Any]:
    if form:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    try:
        found = json.loads(body) if body else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@cache
def _routes(service: str) -> list[tuple[str, re.Pattern[str], str]]:
    model = service_model(service)
    routes = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        uri = http["requestUri"].split("?")[0].rstrip("/")
        pattern = re.sub(r"\\\{(\w+)\\?\+?\\\}", r"(?P<\1>[^/]+)", re.escape(uri))
        routes.append((http["method"], re.compile(pattern + "/?$"), name))
    return routes


def _operation_at(service: str, method: str, path: str) -> tuple[str, dict[str, str]]:
    for verb, pattern, name in _routes(service):
        found = pattern.match(path)
        if verb == method and found:
            return name, {key: unquote(value) for key, value in found.groupdict().items()}
    return "", {}


@cache
def service_model(service: str) -> ServiceModel:
    """Return botocore's model of the service."""
    return botocore.session.get_session().get_service_model(service)


def read_answer(
    body: bytes, status: int, headers: dict[str, str]
) -> tuple[dict[str, Any] | None, str | None, str | None]:
    """Return the response's JSON and, if the call failed, the error's code and message."""
    try:
        found = json.loads(body) if body else None
    except ValueError:
        found = None
    answer = found if isinstance(found, dict) else None
    if status < 400:
        return answer, None, None
    said = answer or {}
    code = headers.get("x-amzn-errortype") or said.get("__type") or said.get("code")
    if code is None:
        in_xml = re.search(rb"<Code>([^<]+)</Code>", body)
        code = in_xml.group(1).decode() if in_xml else f"HTTP {status}"
    message = said.get("message") or said.get("Message") or ""
    return answer, str(code).split(":")[0].rsplit("#", 1)[-1], str(message)


def as_cloudtrail(value: Any, shape: Shape | None) -> Any:
    """Return parameters as in CloudTrail's records: members in lower camel case, keys of maps unchanged."""
    if shape is None or value is None:
        return value
    if shape.type_name == "structure" and isinstance(value, dict):
        members = shape.members  # type: ignore[attr-defined]
        return {key[:1].lower() + key[1:]: as_cloudtrail(each, members.get(key)) for key, each in value.items()}
    if shape.type_name == "list" and isinstance(value, list):
        return [as_cloudtrail(each, shape.member) for each in value]  # type: ignore[attr-defined]
    if shape.type_name == "blob":
        return "HIDDEN_DUE_TO_SECURITY_REASONS"
    return value
