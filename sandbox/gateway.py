"""API Gateway: the packaged REST API on a port of its own, under the name of its stage as in AWS.

The packaged template defines the routes, their authorization and the format of errors. A request becomes the event of a
Lambda proxy integration, and the function's result becomes the response. A signature must exist, be recent and be for
this service. It cannot be verified, because the sandbox accepts any secret key.
Source: API Gateway developer guide, "Lambda proxy integrations" and "Gateway responses".
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote

from werkzeug.serving import WSGIRequestHandler

from sandbox.bus import new_id
from sandbox.identity import Principal, principal_of
from sandbox.listening import listening
from sandbox.server import Sandbox

SIGNATURE = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/\s,]+)/(?P<day>[0-9]{8})/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)"
    r"/aws4_request, ?SignedHeaders=(?P<headers>[a-z0-9;-]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
FRESH = timedelta(minutes=5)
LARGEST_BODY = 10 * 1024 * 1024

_Response = tuple[int, list[tuple[str, str]], bytes]

REFUSALS = {
    "MISSING_AUTHENTICATION_TOKEN": (403, "Missing Authentication Token"),
    "INVALID_SIGNATURE": (403, "The request signature does not conform to AWS standards"),
    "EXPIRED_TOKEN": (403, "Signature expired"),
    "REQUEST_TOO_LARGE": (413, "Request Too Long"),
    "API_CONFIGURATION_ERROR": (500, "Internal server error"),
    "INTEGRATION_FAILURE": (502, "Internal server error"),
}


class _Quiet(WSGIRequestHandler):
    # Kept connections make a test of thousands of requests several times faster.
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log nothing."""


class Gateway:
    """The REST API of the package that the sandbox runs. A context manager; `url` includes the stage.

    If the port is in use, it takes another one, and says so.
    """

    def __init__(self, sandbox: Sandbox, port: int = 0) -> None:
        if sandbox.package is None:
            raise ValueError("nothing is deployed in this sandbox, so it has no API")
        self.sandbox = sandbox
        self._port = port
        template = json.loads(Path(sandbox.package / "sam.json").read_text("utf-8"))
        api = template["Resources"]["RestAPI"]["Properties"]
        self.stage: str = api["StageName"]
        self._refusals = api["DefinitionBody"].get("x-amazon-apigateway-gateway-responses", {})
        self._signed = {
            name
            for name, scheme in api["DefinitionBody"].get("securityDefinitions", {}).items()
            if scheme.get("x-amazon-apigateway-authtype") == "awsSigv4"
        }
        self._routes = sorted(
            (
                (path, method.upper(), operation)
                for path, methods in api["DefinitionBody"]["paths"].items()
                for method, operation in methods.items()
            ),
            key=lambda route: route[0].count("{"),  # literal parts take precedence over variables
        )

    def __enter__(self) -> Gateway:
        try:
            self._server = listening(self._port, self._serve, _Quiet)
        except OSError:
            self.sandbox.say(f"The REST API cannot listen on port {self._port}, which is in use; it takes another one.")
            self._server = listening(0, self._serve, _Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/{self.stage}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(min(length, LARGEST_BODY + 1))
        status, headers, content = self._respond(environ, body)
        kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(
            f"{status} {'OK' if status < 400 else 'Refused'}", [*kept, ("Content-Length", str(len(content)))]
        )
        return [content]

    def _respond(self, environ: dict[str, Any], body: bytes) -> _Response:
        raw = environ.get("REQUEST_URI", environ["PATH_INFO"]).partition("?")[0]
        stage, path = f"/{self.stage}", raw
        route = self._route(environ["REQUEST_METHOD"], path.removeprefix(stage)) if path.startswith(stage) else None
        if route is None:
            return self._refusal("MISSING_AUTHENTICATION_TOKEN")
        resource, operation, variables = route
        principal: Principal | None = None
        if any(self._signed.intersection(one) for one in operation.get("security", [])):
            signed = SIGNATURE.fullmatch(environ.get("HTTP_AUTHORIZATION", "").strip())
            if "HTTP_AUTHORIZATION" not in environ:
                return self._refusal("MISSING_AUTHENTICATION_TOKEN")
            if signed is None or signed["service"] != "execute-api" or "host" not in signed["headers"].split(";"):
                return self._refusal("INVALID_SIGNATURE")
            if not _is_fresh(environ.get("HTTP_X_AMZ_DATE", "")):
                return self._refusal("EXPIRED_TOKEN")
            principal = principal_of(signed["key"], self.sandbox.account, self.sandbox.region)
        if len(body) > LARGEST_BODY:
            return self._refusal("REQUEST_TOO_LARGE")
        function = self.sandbox.functions.find("app")
        if function is None:
            return self._refusal("API_CONFIGURATION_ERROR")
        event = self._event(environ, body, path.removeprefix(stage), resource, variables, principal)
        result = function.invoke(json.dumps(event).encode())
        try:
            return _response(result.value()) if result.error is None else self._refusal("INTEGRATION_FAILURE")
        except (KeyError, TypeError, ValueError):
            return self._refusal("INTEGRATION_FAILURE")

    def _route(self, method: str, path: str) -> tuple[str, dict[str, Any], dict[str, str]] | None:
        parts = path.rstrip("/").split("/")
        for resource, known, operation in self._routes:
            wanted = resource.split("/")
            if known != method or len(wanted) != len(parts):
                continue
            pairs = list(zip(wanted, parts, strict=True))
            if all(one == other or (one.startswith("{") and other) for one, other in pairs):
                return resource, operation, {one[1:-1]: unquote(other) for one, other in pairs if one.startswith("{")}
        return None

    def _event(
        self,
        environ: dict[str, Any],
        body: bytes,
        path: str,
        resource: str,
        variables: dict[str, str],
        principal: Principal | None,
    ) -> dict[str, Any]:
        headers = {
            name[5:].replace("_", "-").title(): value for name, value in environ.items() if name.startswith("HTTP_")
        }
        if environ.get("CONTENT_TYPE"):
            headers["Content-Type"] = environ["CONTENT_TYPE"]
        query: dict[str, list[str]] = {}
        for name, value in parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True, errors="replace"):
            query.setdefault(name, []).append(value)
        identity: dict[str, Any] = {"sourceIp": "127.0.0.1", "userAgent": environ.get("HTTP_USER_AGENT")}
        if principal is not None:
            identity |= {
                "userArn": principal.arn,
                "user": principal.unique_id,
                "caller": principal.unique_id,
                "accountId": principal.account,
                "accessKey": principal.access_key,
            }
        return {
            "resource": resource,
            "path": path,
            "httpMethod": environ["REQUEST_METHOD"],
            "headers": headers,
            "multiValueHeaders": {name: [value] for name, value in headers.items()},
            "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
            "multiValueQueryStringParameters": query or None,
            "pathParameters": variables or None,
            "stageVariables": None,
            "requestContext": {
                "accountId": self.sandbox.account,
                "apiId": "sandbox",
                "stage": self.stage,
                "requestId": new_id(),
                "requestTimeEpoch": int(time.time() * 1000),
                "protocol": "HTTP/1.1",
                "resourcePath": resource,
                "httpMethod": environ["REQUEST_METHOD"],
                "path": f"/{self.stage}{path}",
                "identity": identity,
            },
            "body": body.decode("utf-8", "replace") if body else None,
            "isBase64Encoded": False,
        }

    def _refusal(self, code: str) -> _Response:
        """An error of API Gateway, in the format of the template."""
        status, message = REFUSALS[code]
        form = self._refusals.get("DEFAULT_5XX" if status >= 500 else "DEFAULT_4XX", {})
        text = form.get("responseTemplates", {}).get("application/json", '{"message":$context.error.messageString}')
        text = text.replace("$context.error.messageString", json.dumps(message))
        text = text.replace("$context.error.responseType", code)
        headers = {"Content-Type": "application/json", "x-amzn-ErrorType": code}
        for name, value in form.get("responseParameters", {}).items():
            headers[name.removeprefix("gatewayresponse.header.")] = value.strip("'")
        return status, list(headers.items()), text.encode()


def _is_fresh(date: str) -> bool:
    try:
        at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return False
    return abs(datetime.now(UTC) - at) <= FRESH


def _response(result: dict[str, Any]) -> _Response:
    """Convert the result of a proxy integration. Raises KeyError, TypeError or ValueError if it is not one."""
    headers = [(name, str(value)) for name, value in (result.get("headers") or {}).items()]
    for name, values in (result.get("multiValueHeaders") or {}).items():
        headers += [(name, str(value)) for value in values]
    return int(result["statusCode"]), headers, str(result.get("body") or "").encode()
