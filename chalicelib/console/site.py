"""The console as a WSGI application: it authorizes requests, routes them to pages, and sets headers.

It answers only GET requests to its own host names, from its own pages or from a typed address. It rejects requests from
other sites, and to other names that resolve to 127.0.0.1, before it reads anything. The pages have one script of their
own, which their Content-Security-Policy allows by its hash, and no other. Without it everything can be read, too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import click
from botocore.exceptions import BotoCoreError
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import Map, MapAdapter, Rule
from werkzeug.wrappers import Request, Response

from chalicelib.auditlog.cursors import BadCursor
from chalicelib.console import forms, links, pages, words
from chalicelib.console.pages import ItemNotFound, Page
from chalicelib.domain import meanings, outcome_meanings
from chalicelib.domain.errors import GuardError
from chalicelib.domain.policy import PolicyError
from chalicelib.operators import errors, formatting, remedies
from chalicelib.operators.context import Operator

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

HERE = Path(__file__).parent
STATIC = {"console.css": "text/css; charset=utf-8", "mark.svg": "image/svg+xml"}
SCRIPT = (HERE / "static" / "console.js").read_text("utf-8")
"""Stands in each page, because browsers allow a script by its hash only there."""

SCRIPT_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
FOLLOW_SECONDS = 10
HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'sha256-{SCRIPT_HASH}'; connect-src 'self'; style-src 'self'; "
        "img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
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
        Rule("/incidents/<name>", endpoint="incident"),
        Rule("/records", endpoint="records"),
        Rule("/records/guard/<int(max=999999999999):seq>", endpoint="guard_record"),
        Rule("/records/<account>/<region>/<int(max=999999999999):seq>", endpoint="record"),
        Rule("/targets/<account>/<region>", endpoint="target"),
        Rule("/policy", endpoint="policy"),
        Rule("/audit", endpoint="audit"),
        Rule("/static/<name>", endpoint="static"),
    ]
)


FORMS = {"json": "application/json", "csv": "text/csv"}


class PageRequest(NamedTuple):
    """What a request asks for: the path of the page, the form in which to send it, and the arguments."""

    path: str
    form: str
    arguments: Mapping[str, str]

    @classmethod
    def of(cls, request: Request) -> PageRequest:
        """Read a request. The overview's other forms are at /overview.json and /overview.csv."""
        path, dot, form = request.path.rpartition(".")
        if not dot or form not in FORMS:
            return cls(request.path, "", request.args)
        return cls("/" if path == "/overview" else path, form, request.args)

    def address(self, form: str = "", **changes: str | None) -> str:
        """The address of the same page in a form, with changed arguments; None leaves one out."""
        arguments = {name: value for name, value in {**self.arguments, **changes}.items() if value is not None}
        path = f"{'/overview' if self.path == '/' else self.path}.{form}" if form else self.path
        return f"{path}?{urlencode(arguments)}" if arguments else path

    @property
    def follows(self) -> bool:
        """Whether the page is to be read again and again."""
        return bool(self.arguments.get("follow"))


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
        adapter, wanted = ADDRESSES.bind_to_environ(request.environ), PageRequest.of(request)
        try:
            endpoint, values = adapter.match(wanted.path)
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowed(["GET", "HEAD"])
            if endpoint == "static":
                return _static(request, values["name"])
            return self._page(adapter, wanted, endpoint, values)
        except NotFound:
            return self._error_page(adapter, wanted, 404, "Page not found", "Choose a page from the menu above.")
        except HTTPException as error:
            return _plain(error.code or 500, error.name)
        except Exception:
            self._report(traceback.format_exc())
            return self._error_page(
                adapter,
                wanted,
                500,
                "Internal error of the console",
                "The console changed nothing: it only reads.",
                "Read the error in the terminal where you started the console, and report it.",
            )

    def _page(self, adapter: MapAdapter, wanted: PageRequest, endpoint: str, values: Mapping[str, Any]) -> Response:
        try:
            operator = self._operator = self._operator or self._open_operator()
            around = pages.frame(operator)
            page = _page_of(operator, around, endpoint, values, wanted.arguments)
            line = forms.with_options(page.command, operator)
            if wanted.form:
                return _in_form(wanted, page)
        except ItemNotFound as error:
            return self._error_page(adapter, wanted, 404, "Not found", str(error))
        except BadCursor as error:
            return self._error_page(
                adapter,
                wanted,
                400,
                "Invalid page token",
                str(error),
                "To start with the newest, choose the list in the menu.",
            )
        except (BotoCoreError, GuardError, PolicyError, click.ClickException) as error:
            # The next request reads the credentials again, so that a reload works after signing in.
            self._operator = None
            return self._failure(adapter, wanted, error)
        return self._render(adapter, wanted, page, frame=around, endpoint=endpoint, command=line)

    def _failure(self, adapter: MapAdapter, wanted: PageRequest, error: Exception) -> Response:
        known = error if isinstance(error, errors.OperatorError) else errors.operator_error(error)
        title = "Configuration error" if known.exit_code == errors.CONFIGURATION else "AWS error"
        if isinstance(known, errors.Unreached):
            title = "AWS cannot be reached"
        remedy = (known.remedy or "").replace("repeat the command", "reload this page")
        return self._error_page(adapter, wanted, 502, title, known.message, remedy)

    def _error_page(
        self, adapter: MapAdapter, wanted: PageRequest, status: int, title: str, message: str, remedy: str = ""
    ) -> Response:
        values = {"title": title, "message": message, "remedy": remedy}
        if wanted.form:
            return _json({"error": values}, status)
        return self._render(adapter, wanted, Page("wrong.html", values, status), frame=None, endpoint="", command="")

    def _render(self, adapter: MapAdapter, wanted: PageRequest, page: Page, **around: Any) -> Response:
        def url(endpoint: str, **values: Any) -> str:
            return adapter.build(endpoint, {name: value for name, value in values.items() if value not in (None, "")})

        def at(name: str, kind: str = "incident") -> str:
            """The address of an incident or record, by its id, or of a target."""
            place, _, seq = name.rpartition("#") if "#" in name else (name, "", "")
            account, _, region = place.partition("/")
            if not region:
                return url("guard_record", seq=seq) if seq else url("records", target=account)
            return url(kind, account=account, region=region, seq=seq)

        template = self._templates.get_template(page.template)
        values = {**page.values, **around, "page": page, "wanted": wanted, "url": url, "at": at}
        written = (part.encode() for part in template.generate(values)) if page.runs else template.render(values)
        response = Response(written, page.status, mimetype="text/html")
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
            return pages.incident(operator, around, values.get("name") or "{account}/{region}#{seq}".format(**values))
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
            return pages.audit_state(operator, arguments)


def _in_form(wanted: PageRequest, page: Page) -> Response:
    """The page as JSON, or one of its tables as CSV: the one that the argument `table` names, else the first."""
    if wanted.form == "json":
        return _json(page.document(), page.status)
    name = wanted.arguments.get("table") or next(iter(page.tables), "")
    if name not in page.tables:
        raise ItemNotFound(f"This page has no table {name}." if name else "This page has no table.")
    response = Response(page.tables[name]().text(), page.status, content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="xray-guard-{name}.csv"'
    response.headers["Cache-Control"] = "no-store"
    return response


def _json(document: Mapping[str, Any], status: int) -> Response:
    text = json.dumps(document, indent=2, ensure_ascii=False, default=str)
    response = Response(text + "\n", status, content_type=FORMS["json"])
    response.headers["Cache-Control"] = "no-store"
    return response


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
        "zone": words.ZONE,
        "links": links,
        "remedy_of": remedies.remedy_of,
        "action_change": formatting.action_change_text,
        "script": Markup(SCRIPT),
        "follow_seconds": FOLLOW_SECONDS,
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
        "with_times": words.with_times,
        "changed": words.changed_word,
        "value": words.value_word,
    }
    made.tests |= {"long": words.is_long}
    return made
