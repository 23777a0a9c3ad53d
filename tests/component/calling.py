"""Calling the served API as a user of AWS would: over HTTP, signed."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sandbox.gateway import Gateway


@dataclass(frozen=True)
class Answer:
    """A response. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


def call(
    gateway: Gateway,
    path: str,
    method: str = "GET",
    *,
    body: bytes | None = None,
    signed: bool = True,
    service: str = "execute-api",
    **headers: str,
) -> Answer:
    """One request. `headers` have underscores for dashes."""
    query = AWSRequest(
        method,
        gateway.url + path,
        data=body,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )
    if signed:
        SigV4Auth(Credentials("test", "test"), service, "us-east-1").add_auth(query)
    request = urllib.request.Request(gateway.url + path, method=method, headers=dict(query.headers), data=body)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return Answer(answer.status, _lowered(answer.headers), answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, _lowered(error.headers), error.read())


def _lowered(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
