"""Requests to the REST API: read them from API Gateway's event, and check their size, parameters and body."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from chalicelib.api.moments import Moment
from chalicelib.api.operations import Operation

LONGEST_QUERY = 8192
"""Characters of all query parameters together, names and values."""

LARGEST_BODY = 1024
"""The largest body of a request, in bytes. No operation needs a body; an empty JSON object is allowed."""


class Request(Struct, frozen=True):
    """A request from API Gateway. `query` has every value of a parameter; header names are in lower case."""

    operation: Operation
    path: Mapping[str, str]
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: bytes
    caller: str
    id: str


class Refused(Exception):
    """The request is refused. `parameters` names those in error."""

    def __init__(self, status: int, code: str, detail: str, parameters: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.parameters = parameters


def read_request(operation: Operation, received: Any, context: Any) -> Request:
    """Convert Chalice's request, read from API Gateway's REST proxy event."""
    query, identity = received.query_params, received.context.get("identity") or {}
    return Request(
        operation=operation,
        path={name: unquote(value) for name, value in (received.uri_params or {}).items()},
        query={name: query.getlist(name) for name in query} if query else {},
        headers={name.lower(): value for name, value in received.headers.items()},
        body=bytes(received.raw_body),
        caller=identity.get("userArn") or "unknown",
        id=request_id_of(context),
    )


def request_id_of(context: Any) -> str:
    """The id of the invocation, as in the function's log."""
    return str(getattr(context, "aws_request_id", "unknown"))


def check_size(request: Request) -> None:
    """Raise Refused for a query or body that is too large, and for a body with content."""
    length = sum(len(name) + len(value) for name, values in request.query.items() for value in values)
    if length > LONGEST_QUERY:
        raise Refused(414, "QUERY_TOO_LONG", f"The query has more than {LONGEST_QUERY} characters.")
    if len(request.body) > LARGEST_BODY:
        raise Refused(413, "BODY_TOO_LARGE", f"The body has more than {LARGEST_BODY} bytes.")
    if request.operation.method == "POST" and request.body:
        _check_body(request)


def _check_body(request: Request) -> None:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "NOT_JSON", "The body must be application/json.")
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "BAD_BODY", "The body is not JSON.") from error
    if body != {}:
        raise Refused(400, "BAD_BODY", "The body must be empty or an empty JSON object.")


def decode_query(request: Request) -> Struct:
    """The query parameters as the operation's Struct. Raises Refused.

    A parameter may be repeated if its default is a tuple.
    """
    query = request.operation.query
    known = query.__struct_fields__
    unknown = [name[:64] for name in request.query if name not in known]
    if unknown:
        accepted = f"This route accepts {', '.join(known)}." if known else "This route accepts none."
        raise Refused(400, "UNKNOWN_PARAMETER", f"Unknown parameters. {accepted}", sorted(unknown)[:20])
    given: dict[str, str | Sequence[str]] = {}
    for name, default in zip(known, query.__struct_defaults__, strict=True):
        values = request.query.get(name)
        if values is None:
            continue
        if isinstance(default, tuple):
            given[name] = values
        elif len(values) > 1:
            raise Refused(400, "REPEATED_PARAMETER", "This parameter may be given only once.", [name])
        else:
            given[name] = values[0]
    try:
        return msgspec.convert(given, query, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise _bad_parameter(query, error) from error


def _decode(kind: type[Any], value: Any) -> Any:
    return kind.parse(value) if kind is Moment else value


def _bad_parameter(query: type[Struct], error: msgspec.ValidationError) -> Refused:
    # msgspec gives the path only in the message: "Expected `int` <= 200 - at `$.limit`".
    found = re.search(r"`\$\.(\w+)[^`]*`\Z", str(error))
    assert found is not None
    name = found[1]
    return Refused(400, "BAD_PARAMETER", f"{name}: expected {_expected(query, name)}.", [name])


def _expected(query: type[Struct], name: str) -> str:
    """What the type of a parameter allows, in words."""
    from msgspec import inspect  # only here: a valid request does not need it

    described = inspect.type_info(query)
    assert isinstance(described, inspect.StructType)
    kind = next(field.type for field in described.fields if field.name == name)
    if isinstance(kind, inspect.UnionType):  # with None, the default
        kind = kind.types[0]
    assert isinstance(kind, inspect.Metadata)
    description = str((kind.extra_json_schema or {})["description"])
    match kind.type:
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} to {most}"
        case inspect.VarTupleType(item_type=inspect.EnumType(cls=outcomes), max_length=most):
            return f"one of {', '.join(outcomes)}; at most {most} values"
        case inspect.StrType(pattern=None, min_length=least, max_length=most):
            return f"{least} to {most} characters"
    return description
