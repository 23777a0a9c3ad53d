"""Responses of the REST API: JSON documents with an ETag, and problem details (RFC 9457) for errors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

from chalicelib.api.requests import Request

PROBLEM_TYPE = "application/problem+json"
KEEP_FIVE_MINUTES = "private, max-age=300"
ALWAYS_REVALIDATE = "private, no-cache"


class Response(Struct, frozen=True):
    """The response for API Gateway."""

    status: int
    headers: dict[str, str]
    body: str


def success(request: Request, document: Mapping[str, Any], cache_control: str = ALWAYS_REVALIDATE) -> Response:
    """The document with its ETag; 304 and empty where If-None-Match names that ETag."""
    body = msgspec.json.encode(document)
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": cache_control, **content_headers("application/json")}
    if etag in [known.strip().removeprefix("W/") for known in request.headers.get("if-none-match", "").split(",")]:
        return Response(304, headers, "")
    return Response(request.operation.status, headers, body.decode())


def problem(status: int, code: str, detail: str, request_id: str, parameters: Sequence[str] = ()) -> Response:
    """Problem details: `code` is stable, `detail` is for people, `parameters` names those in error."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "instance": f"urn:uuid:{request_id}",
    }
    if parameters:
        document["parameters"] = list(parameters)
    return Response(status, {"Cache-Control": "no-store", **content_headers(PROBLEM_TYPE)}, json.dumps(document))


def content_headers(content_type: str) -> dict[str, str]:
    """The headers of every body."""
    return {"Content-Type": content_type, "X-Content-Type-Options": "nosniff"}
