"""The console as a WSGI application: it authorizes requests, routes them to pages, and sets headers.

It answers only GET requests to its own host names, from its own pages or from a typed address. It rejects requests from
other sites, and to other names that resolve to 127.0.0.1, before it reads anything. The pages have no script, and their
Content-Security-Policy allows none.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from botocore.exceptions import BotoCoreError
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import Map, MapAdapter, Rule
from werkzeug.wrappers import Request, Response

from chalicelib.auditlog.cursors import BadCursor
from chalicelib.console import pages, words
from chalicelib.console.pages import ItemNotFound, Page
from chalicelib.domain import meanings, outcome_meanings
from chalicelib.domain.errors import GuardError
from chalicelib.domain.policy import PolicyError
from chalicelib.operators import errors, formatting
from chalicelib.operators.context import Operator

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

HERE = Path(__file__).parent
STATIC = {"console.css": "text/css; charset=utf-8", "mark.svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; "
        "base-uri 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
ADDRESSES = Map(
    [
        Rule("/", endpoint="overview"),
        Rule("/incidents", endpoint="incidents"),
        Rule("/incidents/<account>/<region>/<int(max=999999999999):seq>", endpoint="incident"),
        Rule("/records", endpoint="records"),
        Rule("/records/guard/<int(max=999999999999):seq>", endpoint="guard_record"),
        Rule("/records/<account>/<region>/<int(max=999999999999):seq>", endpoint="record"),
        Rule("/targets/<account>/<region>", endpoint="target"),
        Rule("/policy", endpoint="policy"),
        Rule("/audit", endpoint="audit"),
        Rule("/static/<name>", endpoint="static"),
    ]
)


class Site:
    """The application. `open_operator` creates an operator; `hosts` are the accepted host names with their port.

    `report` receives the traceback of an internal error.
    """

    def __init__(
        self, open_operator: Callable[[], Operator], hosts: Iterable[str], report: Callable[[str], None] = print
    ) -> None:
        self._open_operator = open_operator
        self._operator: Operator | None = None
        self._hosts = frozenset(hosts)
        self._report = report
        self._templates = _templates()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle a request, as WSGI defines."""
        request = Request(environ)
        response = self._reject(request) or self._respond(request)
        response.headers.extend(HEADERS)
        return response(environ, start_response)

    def _reject(self, request: Request) -> Response | None:
        if request.headers.get("Host", "") not in self._hosts:
            return _plain(403, f"Host not accepted. Open http://{min(self._hosts)}/.")
        site = request.headers.get("Sec-Fetch-Site", "none")
        origin = request.headers.get("Origin")
        if site not in ("same-origin", "none") or (origin and origin.removeprefix("http://") not in self._hosts):
            return _plain(403, "Request from another site rejected. Type the address of the console in your browser.")
        return None

    def _respond(self, request: Request) -> Response:
        adapter = ADDRESSES.bind_to_environ(request.environ)
        try:
            endpoint, values = adapter.match()
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowed(["GET", "HEAD"])
            if endpoint == "static":
                return _static(request, values["name"])
            return self._page(adapter, endpoint, values, request.args)
        except NotFound:
            return self._error_page(adapter, 404, "Page not found", "Choose a page from the menu above.")
        except HTTPException as error:
            return _plain(error.code or 500, error.name)
        except Exception:
            self._report(traceback.format_exc())
            return self._error_page(
                adapter,
                500,
                "Internal error of the console",
                "The console changed nothing: it only reads.",
                "Read the error in the terminal where you started the console, and report it.",
            )

    def _page(
        self, adapter: MapAdapter, endpoint: str, values: Mapping[str, Any], arguments: Mapping[str, str]
    ) -> Response:
        try:
            operator = self._operator = self._operator or self._open_operator()
            around = pages.frame(operator)
            page = _page_of(operator, around, endpoint, values, arguments)
        except ItemNotFound as error:
            return self._error_page(adapter, 404, "Not found", str(error))
        except BadCursor as error:
            return self._error_page(
                adapter,
                400,
                "Invalid page token",
                str(error),
                "To start with the newest, choose the list in the menu.",
            )
        except (BotoCoreError, GuardError, PolicyError, click.ClickException) as error:
            # The next request reads the credentials again, so that a reload works after signing in.
            self._operator = None
            return self._failure(adapter, error)
        return self._render(adapter, page, frame=around, endpoint=endpoint, arguments=arguments)

    def _failure(self, adapter: MapAdapter, error: Exception) -> Response:
        known = error if isinstance(error, errors.OperatorError) else errors.operator_error(error)
        title = "Configuration error" if known.exit_code == errors.CONFIGURATION else "AWS error"
        remedy = (known.remedy or "").replace("repeat the command", "reload this page")
        return self._error_page(adapter, 502, title, known.message, remedy)

    def _error_page(self, adapter: MapAdapter, status: int, title: str, message: str, remedy: str = "") -> Response:
        page = Page("wrong.html", {"title": title, "message": message, "remedy": remedy}, status)
        return self._render(adapter, page, frame=None, endpoint="", arguments={})

    def _render(self, adapter: MapAdapter, page: Page, **around: Any) -> Response:
        def url(endpoint: str, **values: Any) -> str:
            return adapter.build(endpoint, {name: value for name, value in values.items() if value not in (None, "")})

        def at(name: str, kind: str = "incident") -> str:
            """The address of an incident or record, by its id, or of a target."""
            place, _, seq = name.rpartition("#") if "#" in name else (name, "", "")
            account, _, region = place.partition("/")
            if not region:
                return url("guard_record", seq=seq) if seq else url("records", target=account)
            return url(kind, account=account, region=region, seq=seq)

        text = self._templates.get_template(page.template).render(page.values, url=url, at=at, **around)
        response = Response(text, page.status, mimetype="text/html")
        response.headers["Cache-Control"] = "no-store"
        return response


def _page_of(
    operator: Operator, around: pages.Frame, endpoint: str, values: Mapping[str, Any], arguments: Mapping[str, str]
) -> Page:
    match endpoint:
        case "overview":
            return pages.overview(operator, around, arguments)
        case "incidents":
            return pages.incidents(operator, around, arguments)
        case "incident":
            return pages.incident(operator, around, **values)
        case "records":
            return pages.records(operator, around, arguments)
        case "record":
            return pages.record(operator, f"{values['account']}/{values['region']}", values["seq"])
        case "guard_record":
            return pages.record(operator, "guard", values["seq"])
        case "target":
            return pages.target(operator, around, **values)
        case "policy":
            return pages.policy(operator)
        case _:
            return pages.audit_state(operator, around, arguments)


def _static(request: Request, name: str) -> Response:
    if name not in STATIC:
        raise NotFound
    response = Response((HERE / "static" / name).read_bytes(), content_type=STATIC[name])
    response.headers["Cache-Control"] = "no-cache"
    response.add_etag()
    return response.make_conditional(request)


def _plain(status: int, text: str) -> Response:
    return Response(text + "\n", status, mimetype="text/plain")


def _templates() -> Environment:
    """The templates: every value is escaped, and an undefined name is an error."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=words.plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {
        "outcome_meanings": outcome_meanings.OUTCOMES,
        "explanation": meanings.explanation,
        "sign": words.sign,
        "violation_meanings": outcome_meanings.VIOLATIONS,
        "difference": words.difference,
        "ago": words.ago,
    }
    made.filters |= {
        "time": words.time_tag,
        "event_change": formatting.event_change_text,
        "attribution": words.attribution_word,
        "part": words.part_word,
        "persons_change": formatting.persons_change_text,
        "span": formatting.span_text,
        "code": words.code_word,
        "setting": words.setting_word,
        "spans": formatting.spans_text,
        "copies": formatting.copies_text,
        "actor": words.actor_word,
        "as_json": words.as_json,
        "marked_up": words.marked_up,
        "next_day": words.next_day,
    }
    made.tests |= {"long": words.is_long}
    return made
