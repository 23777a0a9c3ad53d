"""Who may use the console, and what it says if AWS is unreachable. Only the bytes matter, so no browser is needed."""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from chalicelib.console.server import ConsoleServer
from chalicelib.console.site import SCRIPT_HASH, Site
from chalicelib.domain.errors import AwsError
from chalicelib.domain.lookups import Progress
from chalicelib.domain.stored import GuardState
from chalicelib.operators.context import Operator
from tests.component.operated import CREDENTIALS, HERE, client, delivered, event, histories, swept, world

HOST = "127.0.0.1:8710"
PAGES = ("/", "/incidents", "/records", "/policy", "/audit")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture
def watched() -> Iterator[None]:
    """An account in which the guard put one change right, and swept."""
    with world():
        delivered(event())
        swept()
        yield


def site(open_operator: Callable[[], Operator] = Operator) -> Client:
    """The application, as whoever has its address reaches it."""
    return Client(Site(open_operator, [HOST, "localhost:8710"]))


def fetched(path: str = "/", *, headers: dict[str, str] | None = None, method: str = "GET") -> TestResponse:
    return site().open(path, method=method, headers={"Host": HOST, **(headers or {})})


def never() -> Operator:
    raise AssertionError("AWS must not be called")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8710", "127.0.0.1", "127.0.0.1:80", "", "[::1]:8710"])
def test_a_foreign_host_header_is_refused_before_anything_is_read(host: str) -> None:
    answer = site(never).get("/", headers={"Host": host})
    assert answer.status_code == 403


def test_its_own_names_are_answered(watched: None) -> None:
    for name in (HOST, "localhost:8710"):
        assert site().get("/", headers={"Host": name}).status_code == 200


def test_the_overview_names_the_targets_whose_events_are_not_received(watched: None) -> None:
    assert "No events received" not in fetched("/").text
    histories().keep(HERE, Progress(deaf_since=datetime(2026, 11, 20, 12, tzinfo=UTC)))
    assert f"No events received from {HERE} since" in fetched("/").text


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
    ],
)
def test_a_request_that_another_site_makes_is_refused_before_anything_is_read(headers: dict[str, str]) -> None:
    assert site(never).get("/", headers={"Host": HOST, **headers}).status_code == 403


def test_an_address_typed_in_and_a_link_of_its_own_are_answered(watched: None) -> None:
    for site_of_origin in ("none", "same-origin"):
        assert fetched("/", headers={"Sec-Fetch-Site": site_of_origin}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_reading_is_answered(method: str) -> None:
    assert site(never).open("/", method=method, headers={"Host": HOST}).status_code == 405


def test_every_answer_allows_its_own_script_by_its_hash_and_forbids_others_frames_and_foreign_sources(
    watched: None,
) -> None:
    for path in (*PAGES, "/nothing", "/static/console.css"):
        answer = fetched(path)
        policy = dict(each.split(" ", 1) for each in answer.headers["Content-Security-Policy"].split("; "))
        assert policy == {
            "default-src": "'none'",
            "script-src": f"'sha256-{SCRIPT_HASH}'",
            "connect-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self'",
            "form-action": "'self'",
            "frame-ancestors": "'none'",
            "base-uri": "'none'",
        }
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        if path in PAGES:
            assert answer.headers["Cache-Control"] == "no-store"
            assert "style=" not in answer.text
            (script,) = re.findall("<script>(.*?)</script>", answer.text, re.DOTALL)
            assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == SCRIPT_HASH
            assert answer.text.count("<script") == 1


def test_only_known_files_are_handed_out() -> None:
    for path in ("/static/../site.py", "/static/%2e%2e%2fsite.py", "/static/base.html", "/templates/base.html"):
        assert fetched(path).status_code == 404


def test_a_guard_that_has_seen_nothing_has_pages_too() -> None:
    with world():
        assert {path: fetched(path).status_code for path in PAGES} == dict.fromkeys(PAGES, 200)


def test_without_tables_every_page_says_so_and_what_to_do() -> None:
    with world(tables=False):
        for path in PAGES:
            answer = fetched(path)
            assert answer.status_code == 502
            assert "tables do not exist" in answer.text
            assert "XRAY_GUARD_AUDIT_TABLE" in answer.text


def test_without_credentials_the_page_says_so_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    answer = fetched("/")
    assert answer.status_code == 502
    assert "no usable AWS credentials" in answer.text
    assert "--profile" in answer.text


@pytest.mark.parametrize(
    ("code", "said", "remedy"),
    [
        ("ExpiredTokenException", "credentials have expired", "sign in again.*reload this page"),
        ("UnrecognizedClientException", "does not accept these credentials", "get-caller-identity"),
        ("AccessDeniedException", "AWS denied the request", "need dynamodb:BatchGetItem"),
        ("ThrottlingException", "AWS throttled the request", "wait a minute"),
    ],
)
def test_what_aws_refuses_is_said_with_what_to_do(code: str, said: str, remedy: str) -> None:
    class Refused(Operator):
        def guard_state(self) -> GuardState:
            raise AwsError("dynamodb:BatchGetItem", code, "<b>no</b>")

    answer = site(Refused).get("/", headers={"Host": HOST})
    assert answer.status_code == 502
    assert said in answer.text
    assert re.search(remedy, answer.text)
    assert "<b>" not in answer.text


def test_without_a_region_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    assert "no Region is configured" in fetched("/").text


def test_whoever_signs_in_meanwhile_only_reloads(monkeypatch: pytest.MonkeyPatch, watched: None) -> None:
    browser = site()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert browser.get("/", headers={"Host": HOST}).status_code == 502
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, CREDENTIALS[name])
    assert browser.get("/", headers={"Host": HOST}).status_code == 200


def test_a_cursor_that_is_none_is_said_to_be_none(watched: None) -> None:
    for token in ("x", "a" * 5000, "eyJ2ZXJzaW9uIjo5fQ"):
        answer = fetched(f"/incidents?next_token={token}")
        assert answer.status_code == 400
        assert "page token" in answer.text


def test_a_log_that_was_tampered_with_is_named_where_it_was(watched: None) -> None:
    client("dynamodb").update_item(
        TableName="xray-guard-audit",
        Key={"target": {"S": "123456789012/us-east-1"}, "sk": {"S": "r#000000000002"}},
        UpdateExpression="SET body = :other",
        ExpressionAttributeValues={":other": {"S": "{}"}},
    )
    answer = fetched("/audit?verify=all")
    assert "Integrity check failed." in answer.text
    assert "123456789012/us-east-1" in answer.text


def test_a_policy_that_the_guard_does_not_run_is_said_not_to_be_in_force(watched: None, tmp_path: Any) -> None:
    other = tmp_path / "policy.json"
    shipped = Operator().policy_file.read_text("utf-8")
    other.write_text(shipped.replace("X-Ray trace encryption", "Another"))

    def operator() -> Operator:
        made = Operator()
        made.set_option("policy_path", str(other))
        return made

    answer = Client(Site(operator, [HOST])).get("/policy", headers={"Host": HOST})
    assert "Not in force." in answer.text


def test_an_error_of_its_own_is_told_where_it_was_started_and_not_in_the_page() -> None:
    result: list[str] = []

    def broken() -> Operator:
        raise RuntimeError("a secret")

    answer = Client(Site(broken, [HOST], result.append)).get("/", headers={"Host": HOST})
    assert answer.status_code == 500
    assert "a secret" not in answer.text
    assert any("RuntimeError: a secret" in each for each in result)


def test_it_listens_on_this_machine_only_and_tells_nothing_of_itself(watched: None) -> None:
    with ConsoleServer(Operator, 0) as running:
        assert running.url == f"http://127.0.0.1:{running.port}/"
        with urllib.request.urlopen(running.url, timeout=20) as answer:
            assert answer.status == 200
            assert "Python" not in answer.headers.get("Server", "")
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
        connection.request("GET", "/", headers={"Host": "rebound.example"})
        assert connection.getresponse().status == 403
        connection.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(running.url, timeout=2)


def test_a_taken_port_is_an_error_at_the_start(watched: None) -> None:
    with ConsoleServer(Operator, 0) as running, pytest.raises(OSError, match="in use"):
        ConsoleServer(Operator, running.port)
