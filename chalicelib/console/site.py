"""The console as a WSGI application: who may ask, which page answers, and what stands around it.

It answers GET only, to the names it listens by, and to pages of its own or an address typed in: a page of another site
that reaches into 127.0.0.1, or a name that was made to point there, is turned away before anything is read. The pages
carry no script, and a policy that allows none.
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
from chalicelib.cli import trouble, wording
from chalicelib.cli.session import Operator
from chalicelib.console import pages, words
from chalicelib.console.pages import NotThere, Page
from chalicelib.domain.errors import GuardError
from chalicelib.domain.policy import PolicyError

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
    """The application. `open_operator` gives a new operator; `hosts` are the names, with port, that it answers to.

    `told` hears of an error of our own, as the traceback's text.
    """

    def __init__(
        self, open_operator: Callable[[], Operator], hosts: Iterable[str], told: Callable[[str], None] = print
    ) -> None:
        self._open_operator = open_operator
        self._operator: Operator | None = None
        self._hosts = frozenset(hosts)
        self._told = told
        self._templates = _templates()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """WSGI."""
        request = Request(environ)
        response = self._refusal(request) or self._answer(request)
        response.headers.extend(HEADERS)
        return response(environ, start_response)

    def _refusal(self, request: Request) -> Response | None:
        if request.headers.get("Host", "") not in self._hosts:
            return _plain(403, f"This console answers at http://{min(self._hosts)}/ only.")
        site = request.headers.get("Sec-Fetch-Site", "none")
        origin = request.headers.get("Origin")
        if site not in ("same-origin", "none") or (origin and origin.removeprefix("http://") not in self._hosts):
            return _plain(403, "Another site asked for this. Type the address of the console yourself.")
        return None

    def _answer(self, request: Request) -> Response:
        adapter = ADDRESSES.bind_to_environ(request.environ)
        try:
            endpoint, values = adapter.match()
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowed(["GET", "HEAD"])
            if endpoint == "static":
                return _static(request, values["name"])
            return self._page(adapter, endpoint, values, request.args)
        except NotFound:
            return self._wrong(adapter, 404, "There is no such page", "Begin with one of those above.")
        except HTTPException as error:
            return _plain(error.code or 500, error.name)
        except Exception:
            self._told(traceback.format_exc())
            return self._wrong(
                adapter,
                500,
                "The console itself failed",
                "What happened stands in the terminal that it was started from. Nothing was changed: it only reads.",
            )

    def _page(
        self, adapter: MapAdapter, endpoint: str, values: Mapping[str, Any], arguments: Mapping[str, str]
    ) -> Response:
        try:
            operator = self._operator = self._operator or self._open_operator()
            around = pages.frame(operator)
            page = _found(operator, around, endpoint, values, arguments)
        except NotThere as error:
            return self._wrong(adapter, 404, "Not found", str(error))
        except BadCursor as error:
            return self._wrong(adapter, 400, "This page of the list cannot be found again", str(error))
        except (BotoCoreError, GuardError, PolicyError, click.ClickException) as error:
            # The next request begins with fresh credentials: whoever signed in meanwhile only reloads.
            self._operator = None
            return self._failed(adapter, error)
        return self._rendered(adapter, page, frame=around, endpoint=endpoint, arguments=arguments)

    def _failed(self, adapter: MapAdapter, error: Exception) -> Response:
        known = error if isinstance(error, trouble.Trouble) else trouble.trouble_of(error)
        title = "AWS cannot be asked" if known.exit_code == trouble.CONFIGURATION else "AWS refused"
        remedy = (known.remedy or "").replace("repeat the command", "reload this page")
        return self._wrong(adapter, 502, title, known.message, remedy)

    def _wrong(self, adapter: MapAdapter, status: int, title: str, message: str, remedy: str = "") -> Response:
        page = Page("wrong.html", {"title": title, "message": message, "remedy": remedy}, status)
        return self._rendered(adapter, page, frame=None, endpoint="", arguments={})

    def _rendered(self, adapter: MapAdapter, page: Page, **around: Any) -> Response:
        def url(endpoint: str, **values: Any) -> str:
            return adapter.build(endpoint, {name: value for name, value in values.items() if value not in (None, "")})

        def at(name: str, kind: str = "incident") -> str:
            """The address of an incident or record by its id, or of a target."""
            place, _, seq = name.rpartition("#") if "#" in name else (name, "", "")
            account, _, region = place.partition("/")
            if not region:
                return url("guard_record", seq=seq) if seq else url("records", target=account)
            return url(kind, account=account, region=region, seq=seq)

        text = self._templates.get_template(page.template).render(page.told, url=url, at=at, **around)
        response = Response(text, page.status, mimetype="text/html")
        response.headers["Cache-Control"] = "no-store"
        return response


def _found(
    operator: Operator, around: pages.Frame, endpoint: str, values: Mapping[str, Any], arguments: Mapping[str, str]
) -> Page:
    match endpoint:
        case "overview":
            return pages.overview(operator, around, arguments)
        case "incidents":
            return pages.incidents(operator, around, arguments)
        case "incident":
            return pages.incident(operator, **values)
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
    """Everything is escaped, and a name that a template misspells is an error."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=words.plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {
        "meanings": words.MEANINGS,
        "sign": words.sign,
        "violation_words": words.VIOLATIONS,
        "trigger_words": words.TRIGGERS,
        "difference": words.difference,
        "ago": words.ago,
    }
    made.filters |= {
        "time": words.time_tag,
        "span": wording.span_text,
        "code": words.told_code,
        "setting": words.setting_word,
        "actor": words.actor_word,
        "as_json": words.as_json,
        "next_day": words.next_day,
    }
    made.tests |= {"long": words.is_long}
    return made
