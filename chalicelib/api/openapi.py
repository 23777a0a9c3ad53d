"""The OpenAPI 3.1 document: generated from the operations, the types of their queries, and the types of the responses.

Requests are validated with the same types, so the document always describes what the API does.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from datetime import datetime
from types import ModuleType
from typing import Any

import msgspec

from chalicelib.api.moments import Moment
from chalicelib.api.operations import OPERATIONS, Operation
from chalicelib.api.queries import PathParameters
from chalicelib.api.responses import PROBLEM_TYPE
from chalicelib.auditlog import parts, summary, views
from chalicelib.domain import model, reasons, spans, stored
from chalicelib.domain.stored import Record

API_VERSION = "1.0.0"

STATUSES = {
    304: "Not modified since the response with the ETag in If-None-Match",
    400: "A parameter is unknown, repeated, or not valid; `parameters` names it",
    403: "The request is not signed, or the caller is not allowed; returned by API Gateway",
    404: "The requested item does not exist",
    413: "The body is too large",
    414: "The query is too long",
    415: "The body is not JSON",
    429: "Too many requests; returned by API Gateway",
    503: "The guard cannot reach AWS, has no valid policy, or is older than the stored state; try again",
}
FOR_ALL = (400, 403, 414, 429, 503)


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _path_item(operation)
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


def _path_item(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(operation.status): {
            "description": operation.summary,
            "headers": _headers(operation),
            "content": {"application/json": {"schema": _ref(operation.response)}},
        }
    }
    for status in sorted({*FOR_ALL, *operation.errors}):
        responses[str(status)] = {
            "description": STATUSES[status],
            "content": {PROBLEM_TYPE: {"schema": _ref("ProblemDetails")}},
        }
    if operation.method == "GET":
        responses["304"] = {"description": STATUSES[304]}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation.path), *_query_parameters(operation.query)],
        "responses": responses,
    }
    if operation.method == "POST":
        empty = {"type": "object", "additionalProperties": False}
        described["requestBody"] = {"required": False, "content": {"application/json": {"schema": empty}}}
    return described


def _headers(operation: Operation) -> dict[str, Any]:
    text = {"schema": {"type": "string"}}
    if operation.method == "GET":
        return {"ETag": text, "Cache-Control": text}
    return {"Location": {**text, "description": "the target's address, for its state after the check"}}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": schema, "description": description}
        for name, schema, description in _fields(PathParameters)
        if f"{{{name}}}" in path
    ]


def _query_parameters(query: type[msgspec.Struct]) -> Iterator[dict[str, Any]]:
    for name, schema, description in _fields(query):
        parameter = {"name": name, "in": "query", "required": False, "schema": schema, "description": description}
        if schema.get("type") == "array":
            parameter |= {"style": "form", "explode": True}
        yield parameter


def _fields(parameters: type[msgspec.Struct]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The name, schema and description of each field. A field whose default is None or empty is optional."""
    _, found = msgspec.json.schema_components(
        [parameters], schema_hook=_schema_of_custom_type, ref_template="#/components/schemas/{name}"
    )
    for name, field in found[parameters.__name__]["properties"].items():
        default = field.pop("default", None)
        schema = field["anyOf"][0] if {"type": "null"} in field.get("anyOf", ()) else field
        description = schema.pop("description")
        if "pattern" in schema:
            schema["pattern"] = schema["pattern"].replace(r"\A", "^").replace(r"\Z", "$")
        if default:
            schema["default"] = default
        yield name, schema, description


def _schema_of_custom_type(kind: type[Any]) -> dict[str, Any]:
    if kind is Moment:
        return Moment.schema()
    if kind is object:
        return {"description": "any JSON value"}  # what a record's detail holds
    raise NotImplementedError(kind)  # how a schema hook of msgspec refuses a type


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


# --- schemas ---------------------------------------------------------------------------------------------------------


def _schemas() -> dict[str, Any]:
    """The schemas of the response types, as they are encoded."""
    types = [Record, parts.Person, views.IncidentView, views.TargetView, summary.Summary]
    _, found = msgspec.json.schema_components(
        types, schema_hook=_schema_of_custom_type, ref_template="#/components/schemas/{name}"
    )
    schemas: dict[str, Any] = {}
    for name, schema in found.items():
        if "properties" in schema:
            _sharpen(schema, _class_of(name))
        schemas[name] = schema
    place = {"account": _nullable("string"), "region": _nullable("string")}
    schemas["RecordLine"] = _object(
        "A record as it was hashed, with its hash, actor, account and Region, and everybody who has a part in it",
        {
            **schemas.pop("Record")["properties"],
            "hash": {"type": "string"},
            "actor": {"anyOf": [_ref("Actor"), {"type": "null"}]},
            "people": {"type": "array", "items": _ref("Person")},
            **place,
        },
    )
    view = schemas.pop("IncidentView")["properties"]
    del view["entries"], schemas["Entry"]
    present = {name: view.pop(name) for name in views.OF_THE_PRESENT}
    place = {"account": {"type": "string"}, "region": {"type": "string"}}
    state = schemas["Incident"]
    schemas["OpenIncident"] = {**state, "title": "OpenIncident"}
    schemas["IncidentLine"] = _object("An incident, derived from its records", {**view, **place})
    records = {"records": {"type": "array", "items": _ref("RecordLine")}}
    schemas["Incident"] = _object("An incident with its records, oldest first", {**view, **present, **place, **records})
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
    modules: tuple[ModuleType, ...] = (model, reasons, spans, stored, parts, views, summary)
    for module in modules:
        kind = getattr(module, name, None)
        if isinstance(kind, type) and (dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct)):
            return kind
    raise LookupError(name)
