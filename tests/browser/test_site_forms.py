"""The other forms of a page: JSON, CSV, and the command that says the same; and what it says if AWS does not answer."""

from __future__ import annotations

import csv
import io
import json
import shlex
from typing import Any

import pytest
from click.testing import CliRunner

from chalicelib.cli import cli
from chalicelib.console.site import FOLLOW_SECONDS
from chalicelib.domain.errors import UNANSWERED, AwsError
from chalicelib.domain.stored import GuardState
from chalicelib.operators.context import Operator
from tests.browser.test_site import HOST, PAGES, _environment, fetched, site, watched
from tests.component.operated import ACCOUNT, HERE, REGION, client, typed

__all__ = ["_environment", "watched"]

INCIDENT = f"/incidents/{HERE}/1"
ALL = (*PAGES, INCIDENT, f"/records/{HERE}/1", "/records/guard/1", f"/targets/{HERE}", f"/audit?verify={HERE}")


def form_of(path: str, form: str) -> str:
    address, mark, arguments = path.partition("?")
    return f"{'/overview' if address == '/' else address}.{form}{mark}{arguments.replace('/', '%2F')}"


def document(path: str) -> Any:
    return json.loads(fetched(path).text)


@pytest.mark.parametrize("path", ALL)
def test_every_page_has_its_json_and_links_to_it(watched: None, path: str) -> None:
    page = fetched(path)
    assert f'<a href="{form_of(path, "json")}">JSON</a>' in page.text
    answer = fetched(form_of(path, "json"))
    assert answer.status_code == 200
    assert answer.content_type == "application/json"
    assert answer.json
    assert answer.headers["Cache-Control"] == "no-store"


def test_json_has_the_same_fields_as_the_command_line(watched: None) -> None:
    shown = typed("show", f"{HERE}#1", "-o", "json").json
    assert fetched(f"{INCIDENT}.json").json == shown
    listed = typed("incidents", "-o", "json").json
    assert fetched("/incidents.json").json == listed
    status = typed("status", "-o", "json").json
    assert document("/overview.json")["targets"] == status["targets"]
    verified = typed("audit", "verify", "-o", "json").json
    assert document("/audit.json?verify=all")["verification"] == verified


@pytest.mark.parametrize("path", [*ALL, f"/incidents?actor=it%27s+me&since=7d&account={ACCOUNT}&region={REGION}"])
def test_every_page_names_a_command_that_runs(watched: None, path: str) -> None:
    text = fetched(path).text
    shown = text.rpartition("command line: <code data-copy>")[2].partition("</code>")[0]
    words = shlex.split(shown.replace("&#39;", "'").replace("&#34;", '"'))
    assert words[0] == "xray-guard"
    result = CliRunner().invoke(cli, words[1:], obj=Operator())
    assert result.exit_code == 0, result.output


def test_the_command_has_the_options_of_the_console(watched: None) -> None:
    def operator() -> Operator:
        made = Operator()
        made.set_option("home_region", REGION)
        return made

    assert f"xray-guard status --home-region {REGION}</code>" in site(operator).get("/", headers={"Host": HOST}).text


@pytest.mark.parametrize(
    ("path", "column"),
    [
        ("/overview.csv", HERE),
        ("/overview.csv?table=days", None),
        ("/incidents.csv", f"{HERE}#1"),
        ("/records.csv", f"{HERE}#1"),
        (f"{INCIDENT}.csv", f"{HERE}#1"),
        ("/audit.csv", HERE),
        (f"/targets/{HERE}.csv", f"{HERE}#1"),
    ],
)
def test_tables_are_there_as_csv(watched: None, path: str, column: str | None) -> None:
    answer = fetched(path)
    assert answer.content_type == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["Content-Disposition"]
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert len({len(row) for row in rows}) == 1
    assert column is None or column in [row[0] for row in rows]


@pytest.mark.parametrize(
    "path", ["/policy.csv", "/overview.csv?table=nothing", "/nothing.json", "/incidents/1.2.3.json"]
)
def test_a_form_that_is_not_there_is_404(watched: None, path: str) -> None:
    assert fetched(path).status_code == 404


def test_an_error_has_json_too(watched: None) -> None:
    answer = fetched(f"/incidents/{HERE}/99.json")
    assert answer.status_code == 404
    assert answer.json == {
        "error": {"title": "Not found", "message": f"Incident {HERE}#99 does not exist.", "remedy": ""}
    }
    faulty = fetched("/incidents.json?account=12")
    assert faulty.status_code == 400
    assert "account" in json.loads(faulty.text)["error"]["fields"]


def test_an_incidents_id_with_dots_is_accepted_as_in_the_api(watched: None) -> None:
    dotted = f"/incidents/{ACCOUNT}.{REGION}.1"
    assert f"{HERE}#1" in fetched(dotted).text
    assert fetched(f"{dotted}.json").json == fetched(f"{INCIDENT}.json").json


@pytest.mark.parametrize("code", [UNANSWERED, "EndpointConnectionError"])
def test_where_aws_does_not_answer_nothing_is_said_to_be_refused(code: str) -> None:
    class Alone(Operator):
        def guard_state(self) -> GuardState:
            raise AwsError("dynamodb:BatchGetItem", code, "EndpointConnectionError")

    answer = site(Alone).get("/", headers={"Host": HOST})
    assert answer.status_code == 502
    assert "<h1>AWS cannot be reached</h1>" in answer.text
    for wrong in ("refused", "denied", "AWS error"):
        assert wrong not in answer.text


def test_an_endpoint_where_nobody_listens_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    answer = fetched("/")
    assert answer.status_code == 502
    assert "<h1>AWS cannot be reached</h1>" in answer.text


# --- following without a script ---------------------------------------------------------------------------------------


def test_without_a_script_a_page_that_is_followed_reloads_and_can_be_paused(watched: None) -> None:
    plain, followed = fetched("/incidents?since=7d").text, fetched("/incidents?since=7d&follow=1").text
    reload = f'<noscript><meta http-equiv="refresh" content="{FOLLOW_SECONDS}"></noscript>'
    assert reload not in plain
    assert reload in followed
    assert 'href="/incidents?since=7d&amp;follow=1">Follow</a>' in plain
    assert 'href="/incidents?since=7d">Pause</a>' in followed


def test_a_page_that_is_followed_goes_on_after_an_error(watched: None) -> None:
    class Alone(Operator):
        def guard_state(self) -> GuardState:
            raise AwsError("dynamodb:BatchGetItem", UNANSWERED, "EndpointConnectionError")

    answer = site(Alone).get("/?follow=1", headers={"Host": HOST})
    assert '<meta http-equiv="refresh"' in answer.text
    assert ">Pause</a>" in answer.text


def test_a_verification_is_never_repeated_by_following(watched: None) -> None:
    text = fetched("/audit?verify=all&follow=1").text
    assert "http-equiv" not in text
    assert "follow-link" not in text.partition("<script>")[0]


# --- the audit page ---------------------------------------------------------------------------------------------------


def test_verification_says_what_it_reads_while_it_reads_it(watched: None) -> None:
    answer = site().get("/audit?verify=all", headers={"Host": HOST}, buffered=False)
    parts = [part.decode() if isinstance(part, bytes) else part for part in answer.response]
    first = next(number for number, part in enumerate(parts) if f"Reading chain 1 of 2: {HERE}" in part)
    last = next(number for number, part in enumerate(parts) if "Verified: no tampering found." in part)
    assert first < last, "the page is sent in parts"


def test_a_verification_that_stops_says_why(watched: None) -> None:
    class Halting(Operator):
        @property
        def store(self) -> Any:
            return HaltingStore(super().store)

    class HaltingStore:
        def __init__(self, store: Any) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        def markers(self, target: str) -> Any:
            raise AwsError("dynamodb:Query", "AccessDeniedException", "no")

    text = site(Halting).get("/audit?verify=all", headers={"Host": HOST}).text
    assert "The verification stopped." in text
    assert "dynamodb:Query" in text
    assert "Verified:" not in text
    assert text.rstrip().endswith("</html>")


def test_the_audit_page_says_which_anchors_exist_where_and_since_when(
    watched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no bucket is configured" in fetched("/audit").text
    client("s3").create_bucket(Bucket="anchors-here")
    monkeypatch.setenv("XRAY_GUARD_ANCHOR_BUCKET", "anchors-here")
    assert "no anchor" in fetched("/audit").text
    for name in ("2026/11/20/120000-000000000003.json", "2026/11/20/130000-000000000004.json", "other-name"):
        client("s3").put_object(Bucket="anchors-here", Key=f"anchors/{name}", Body=b"{}")
    text = fetched("/audit").text
    assert "anchors-here" in text
    assert 'anchors since <time datetime="2026-11-20T12:00:00Z">' in text
    found = document("/audit.json")["anchors"]
    assert (found["bucket"], found["in_bucket"]) == ("anchors-here", 2)
    assert found["first_at"]
    monkeypatch.setenv("XRAY_GUARD_ANCHOR_BUCKET", "of-somebody-else")
    assert "not known: " in fetched("/audit").text


# --- the guard's life ------------------------------------------------------------------------------------------------


def test_the_overview_says_whether_the_guard_is_alive(watched: None) -> None:
    guard = document("/overview.json")["guard"]
    assert guard["alive"] is True
    assert guard["event_at"]
    assert guard["swept_at"]
    assert guard["dead_letters"] is None, "there is no queue"
    queue = client("sqs").create_queue(QueueName="xray-guard-dead-letters")["QueueUrl"]
    assert document("/overview.json")["guard"]["dead_letters"] == 0
    client("sqs").send_message(QueueUrl=queue, MessageBody="{}")
    after = document("/overview.json")["guard"]
    assert (after["alive"], after["dead_letters"]) == (False, 1)
    assert "Not all of it works." in fetched("/").text
