"""The operations of the REST API: their parameters and responses, as an OpenAPI 3.1 document.

The operations are declared once. The API validates requests with these declarations. The document is generated from
them and from the types of the responses, so that it always describes what the API does.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from datetime import datetime
from types import ModuleType
from typing import Any

import msgspec

from chalicelib.auditlog import cursors, summary, views
from chalicelib.domain import model, reasons, stored
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import Record

API_VERSION = "1.0.0"
PROBLEM_TYPE = "application/problem+json"

ACCOUNT_PATTERN = "^[0-9]{12}$"
REGION_PATTERN = "^[a-z0-9]+(-[a-z0-9]+){1,3}-[0-9]+$"
TARGET_PATTERN = f"^(guard|[0-9]{{12}}/{REGION_PATTERN[1:-1]})$"
INCIDENT_PATTERN = f"^[0-9]{{12}}\\.{REGION_PATTERN[1:-1]}\\.[1-9][0-9]{{0,11}}$"
AGO_PATTERN = "^[0-9]{1,6}[smhdw]$"
TOKEN_PATTERN = "^[A-Za-z0-9_-]+$"
RULE_PATTERN = "^[A-Za-z0-9._-]{1,64}$"

MOST_LIMIT = 200
LONGEST_REGION = 32
LONGEST_TARGET = 13 + LONGEST_REGION
LONGEST_ACTOR = 256
LONGEST_QUERY = 8192
"""Characters of all query parameters together, names and values."""

LARGEST_BODY = 1024
"""The largest body of a request, in bytes. No operation needs a body; an empty JSON object is allowed."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One query parameter. Only `outcome` may be repeated."""

    name: str
    schema: dict[str, Any]
    description: str
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One route. `answer` names the schema of its successful response, `extra` its additional status codes."""

    name: str
    method: str
    path: str
    summary: str
    answer: str
    parameters: tuple[Parameter, ...] = ()
    extra: tuple[int, ...] = ()
    status: int = 200


ACCOUNT = Parameter("account", {"type": "string", "pattern": ACCOUNT_PATTERN}, "an account id of twelve digits")
REGION = Parameter(
    "region",
    {"type": "string", "pattern": REGION_PATTERN, "maxLength": LONGEST_REGION},
    "the name of a Region, such as us-east-1",
)
TARGET = Parameter(
    "target",
    {"type": "string", "pattern": TARGET_PATTERN, "maxLength": LONGEST_TARGET},
    "a target such as 111122223333/us-east-1, or `guard` for the guard's own chain",
)
OUTCOME = Parameter(
    "outcome",
    {"type": "array", "items": {"$ref": "#/components/schemas/Outcome"}, "minItems": 1, "maxItems": len(Outcome)},
    "one of these outcomes; may be repeated",
    repeated=True,
)
ACTOR = Parameter(
    "actor",
    {"type": "string", "minLength": 1, "maxLength": LONGEST_ACTOR},
    "part of the actor's ARN, session or service, or a glob for the whole with * and ?",
)
RULE = Parameter("rule", {"type": "string", "pattern": RULE_PATTERN, "maxLength": 64}, "the id of a rule")
MOMENT = {
    "anyOf": [
        {"type": "string", "format": "date-time"},
        {"type": "string", "format": "date"},
        {"type": "string", "pattern": AGO_PATTERN},
    ]
}
SINCE = Parameter(
    "since", MOMENT, "a time, a date (UTC), or an age such as 90s, 30m, 24h, 7d, 2w; selects items at or after it"
)
UNTIL = Parameter("until", MOMENT, "a time, a date (UTC), or an age, as in `since`; selects items before it")
LIMIT = Parameter(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": MOST_LIMIT, "default": 50},
    "maximum number of items; a page reads a bounded part of the log, so it may have fewer and still a `next_token`",
)
NEXT_TOKEN = Parameter(
    "next_token",
    {
        "type": "string",
        "format": "next-token",
        "pattern": TOKEN_PATTERN,
        "minLength": 1,
        "maxLength": cursors.LONGEST_CURSOR,
    },
    "the `next_token` of the previous page, with the same filters",
)

FILTERS = (TARGET, ACCOUNT, REGION, OUTCOME, ACTOR, RULE, SINCE, UNTIL, LIMIT, NEXT_TOKEN)

OPERATIONS = (
    Operation("incidents", "GET", "/v1/incidents", "Incidents, newest first", "IncidentPage", FILTERS),
    Operation("incident", "GET", "/v1/incidents/{id}", "One incident with its records", "Incident", extra=(404,)),
    Operation("records", "GET", "/v1/records", "Records of the audit log, newest first", "RecordPage", FILTERS),
    Operation(
        "targets",
        "GET",
        "/v1/targets",
        "The current state of every target, by account and Region",
        "TargetPage",
        (ACCOUNT, REGION, OUTCOME, RULE, LIMIT, NEXT_TOKEN),
    ),
    Operation(
        "target", "GET", "/v1/targets/{account}/{region}", "The current state of one target", "Target", extra=(404,)
    ),
    Operation("summary", "GET", "/v1/summary", "Figures by UTC day, at most 400 of them", "Summary", (SINCE, UNTIL)),
    Operation("policy", "GET", "/v1/policy", "The policy in force", "Policy", extra=(503,)),
    Operation("openapi", "GET", "/v1/openapi.json", "This document", "OpenApi"),
    Operation(
        "reconcile",
        "POST",
        "/v1/targets/{account}/{region}/reconcile",
        "Request a check of a target; the guard checks it within two minutes",
        "Accepted",
        extra=(404, 413, 415),
        status=202,
    ),
)
BY_NAME = {operation.name: operation for operation in OPERATIONS}

PATH_PARAMETERS = {
    "id": (
        {"type": "string", "pattern": INCIDENT_PATTERN, "maxLength": 64},
        "the incident's id with dots in place of `/` and `#`: 111122223333.us-east-1.7",
    ),
    "account": ({"type": "string", "pattern": ACCOUNT_PATTERN}, "the account's twelve digits"),
    "region": (
        {"type": "string", "pattern": REGION_PATTERN, "maxLength": LONGEST_REGION},
        "the Region's name, such as us-east-1",
    ),
}

STATUSES = {
    304: "Not modified since the response with the ETag in If-None-Match",
    400: "A parameter is unknown, repeated, or not valid; `parameters` names it",
    403: "The request is not signed, or the caller is not allowed; returned by API Gateway",
    404: "The requested item does not exist",
    413: "The body is too large",
    414: "The query is too long",
    415: "The body is not JSON",
    429: "Too many requests; returned by API Gateway",
    503: "The guard cannot reach AWS, or has no valid policy; try again",
}
FOR_ALL = (400, 403, 414, 429, 503)


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _told(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "X-Ray Encryption Guard",
            "version": API_VERSION,
            "summary": "Incidents, audit records, state of targets, figures and policy",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"sigv4": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "sigv4": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "AWS Signature Version 4 for the service execute-api",
                    "x-amazon-apigateway-authtype": "awsSigv4",
                }
            },
        },
    }


def _told(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(operation.status): {
            "description": operation.summary,
            "headers": _headers(operation),
            "content": {"application/json": {"schema": _ref(operation.answer)}},
        }
    }
    for status in sorted({*FOR_ALL, *operation.extra}):
        responses[str(status)] = {
            "description": STATUSES[status],
            "content": {PROBLEM_TYPE: {"schema": _ref("ProblemDetails")}},
        }
    if operation.method == "GET":
        responses["304"] = {"description": STATUSES[304]}
    told: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation.path), *map(_query_parameter, operation.parameters)],
        "responses": responses,
    }
    if operation.method == "POST":
        empty = {"type": "object", "additionalProperties": False}
        told["requestBody"] = {"required": False, "content": {"application/json": {"schema": empty}}}
    return told


def _headers(operation: Operation) -> dict[str, Any]:
    text = {"schema": {"type": "string"}}
    if operation.method == "GET":
        return {"ETag": text, "Cache-Control": text}
    return {"Location": {**text, "description": "the target's address, for its state after the check"}}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": schema, "description": description}
        for name, (schema, description) in PATH_PARAMETERS.items()
        if f"{{{name}}}" in path
    ]


def _query_parameter(parameter: Parameter) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "schema": parameter.schema,
        "description": parameter.description,
    }
    return {**told, "style": "form", "explode": True} if parameter.repeated else told


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


# --- schemas ---------------------------------------------------------------------------------------------------------


def _schemas() -> dict[str, Any]:
    """The schemas of the response types, as they are encoded."""
    types = [Record, views.IncidentView, views.TargetView, summary.Summary]
    _, found = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schemas: dict[str, Any] = {}
    for name, schema in found.items():
        if "properties" in schema:
            _sharpen(schema, _class_of(name))
        schemas[name] = schema
    place = {"account": _nullable("string"), "region": _nullable("string")}
    schemas["RecordLine"] = _object(
        "A record as it was hashed, with its hash, actor, account and Region",
        {
            **schemas.pop("Record")["properties"],
            "hash": {"type": "string"},
            "actor": {"anyOf": [_ref("Actor"), {"type": "null"}]},
            **place,
        },
    )
    view = schemas.pop("IncidentView")["properties"]
    del view["entries"], schemas["Entry"]
    place = {"account": {"type": "string"}, "region": {"type": "string"}}
    state = schemas["Incident"]
    schemas["OpenIncident"] = {**state, "title": "OpenIncident"}
    schemas["IncidentLine"] = _object("An incident, derived from its records", {**view, **place})
    records = {"records": {"type": "array", "items": _ref("RecordLine")}}
    schemas["Incident"] = _object("An incident with its records, oldest first", {**view, **place, **records})
    target = schemas.pop("TargetView")["properties"]
    target["incident"] = {"anyOf": [_ref("OpenIncident"), {"type": "null"}]}
    schemas["Target"] = _object("The current state of a target", {**target, "compliant": {"type": "boolean"}})
    token = {"next_token": _nullable("string")}
    schemas["RecordPage"] = _object("Records, newest first", {**records, **token})
    lines = {"incidents": {"type": "array", "items": _ref("IncidentLine")}}
    schemas["IncidentPage"] = _object("Incidents, newest first", {**lines, **token})
    schemas["Paused"] = _object("The current pause", {name: {"type": "string"} for name in ("at", "by", "reason")})
    guard = {
        "policy_digest": _nullable("string"),
        "swept_at": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
        "paused": {"anyOf": [_ref("Paused"), {"type": "null"}]},
    }
    schemas["GuardView"] = _object("The guard's own state", guard)
    targets = {"targets": {"type": "array", "items": _ref("Target")}, "guard": _ref("GuardView")}
    schemas["TargetPage"] = _object("Targets by account and Region", {**targets, **token})
    schemas["Policy"] = _object(
        "The document that the deployed functions enforce, and the digest that they last ran with",
        {
            "digest": {"type": "string"},
            "deployed_digest": _nullable("string"),
            "same": {"type": ["boolean", "null"]},
            "document": {"type": "object"},
        },
    )
    schemas["Accepted"] = _object(
        "The guard will check the target",
        {"target": {"type": "string"}, "accepted_at": {"type": "string", "format": "date-time"}},
    )
    schemas["OpenApi"] = {"type": "object", "required": ["openapi", "info", "paths"]}
    schemas["ProblemDetails"] = PROBLEM_DETAILS
    return dict(sorted(schemas.items()))


PROBLEM_DETAILS: dict[str, Any] = {
    "description": "RFC 9457. Errors that API Gateway returns itself have neither `detail` nor `instance`",
    "type": "object",
    "required": ["title", "code"],
    "additionalProperties": False,
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "stable error code"},
        "parameters": {"type": "array", "items": {"type": "string"}, "description": "names of the parameters in error"},
        "instance": {"type": "string", "description": "the request's id in the function's log"},
    },
}


def _object(description: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _nullable(kind: str) -> dict[str, Any]:
    return {"type": [kind, "null"]}


def _sharpen(schema: dict[str, Any], kind: type[Any]) -> None:
    """Require every field, allow no others, and give times their format."""
    for name, hint in typing.get_type_hints(kind).items():
        if name in schema["properties"] and datetime in (hint, *typing.get_args(hint)):
            _give_format(schema["properties"][name])
    for each in schema["properties"].values():
        each.pop("default", None)
    schema["required"] = list(schema["properties"])
    schema["additionalProperties"] = False


def _give_format(schema: dict[str, Any]) -> None:
    for each in schema.get("anyOf", [schema]):
        if each.get("type") == "string":
            each["format"] = "date-time"


def _class_of(name: str) -> type[Any]:
    modules: tuple[ModuleType, ...] = (model, reasons, stored, views, summary)
    for module in modules:
        kind = getattr(module, name, None)
        if isinstance(kind, type) and (dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct)):
            return kind
    raise LookupError(name)
