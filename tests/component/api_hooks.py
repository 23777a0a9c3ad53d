"""What schemathesis needs to know about this API besides its document: how to sign, and which things exist.

Loaded by schemathesis itself (`SCHEMATHESIS_HOOKS`), in a process of its own.
"""

from __future__ import annotations

import json
import os
from typing import Any

import requests
import schemathesis
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KNOWN: dict[str, str] = json.loads(os.environ["XRAY_GUARD_KNOWN"])
"""Path parameters of something that exists: `id`, `account`, `region`."""


class Signed(requests.auth.AuthBase):
    """Signature Version 4 over the request as it is sent."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign, unless schemathesis put something of its own there to see it refused."""
        if request.headers.get("Authorization"):
            return request
        wanted = AWSRequest(str(request.method), str(request.url), data=request.body)
        SigV4Auth(Credentials("test", "test"), "execute-api", "us-east-1").add_auth(wanted)
        request.headers.update(dict(wanted.headers))
        return request


schemathesis.auth.set_from_requests(Signed())  # type: ignore[attr-defined]


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Every other request is about what exists: the others only ever show that nothing else does."""
    if path_parameters and sum(map(ord, str(path_parameters))) % 2:
        return {name: KNOWN[name] for name in path_parameters}
    return path_parameters


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """No document can say which tokens were given out, nor for which filters; the pages' own tests try those."""
    token = (case.query or {}).get("next_token")
    if isinstance(token, str) and _looks_given_out(token):
        del case.query["next_token"]


def _looks_given_out(token: str) -> bool:
    return 0 < len(token) <= 4096 and all(each.isascii() and (each.isalnum() or each in "_-") for each in token)
