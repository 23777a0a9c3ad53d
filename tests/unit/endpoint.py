"""AWS behind botocore's own clients: botocore checks each request against AWS's model, and the test answers it.

For what no stand-in shows: the request itself (is the read consistent?), second pages, keys left unprocessed.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import botocore.loaders
import botocore.session

from chalicelib.aws.clients import Clients

MODELS = botocore.loaders.create_loader()
"""Shared, for reading a service's model takes longer than a test."""


class Request(NamedTuple):
    """One request that was sent, with the configuration of the client that sent it."""

    operation: str
    parameters: dict[str, Any]
    config: Any


class Refused(Exception):
    """Raised by a test's answer: AWS refuses the request with this code."""

    def __init__(self, code: str, message: str = "no", status: int = 400, **members: Any) -> None:
        """`members` are further members of the error's shape, as botocore returns them."""
        super().__init__(code)
        self.response = {
            **members,
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": "refused"},
        }
        self.status = status


class _Http(NamedTuple):
    status_code: int
    headers: dict[str, str]


class Endpoint:
    """Sends no request anywhere: `answer(operation, parameters)` returns botocore's parsed response."""

    def __init__(self, answer: Callable[[str, dict[str, Any]], dict[str, Any]], date: str | None = None) -> None:
        self.requests: list[Request] = []
        self._respond = answer
        self._headers = {"date": date} if date else {}
        session: Any = botocore.session.Session()
        session.register_component("data_loader", MODELS)
        session.set_credentials("AKIDEXAMPLE", "secret")
        session.register("provide-client-params", self._note)
        session.register("before-call", self._answer)
        self.clients = Clients(session)

    @staticmethod
    def _note(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
        context["parameters"] = params

    def _answer(self, model: Any, context: dict[str, Any], **_: object) -> tuple[_Http, dict[str, Any]]:
        request = Request(model.name, deepcopy(context["parameters"]), context["client_config"])
        self.requests.append(request)
        try:
            answer = self._respond(request.operation, request.parameters)
        except Refused as refused:
            return _Http(refused.status, self._headers), refused.response
        return _Http(200, self._headers), {"ResponseMetadata": {"RequestId": f"id-{len(self.requests)}"}, **answer}
