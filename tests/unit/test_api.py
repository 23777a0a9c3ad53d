"""The API's handlers as functions: what is read of a request, and what an answer may hold."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.api import handlers, queries
from chalicelib.api.moments import Moment
from chalicelib.api.openapi import document
from chalicelib.api.operations import BY_NAME, OPERATIONS
from chalicelib.api.requests import Request
from chalicelib.api.responses import Response
from chalicelib.domain.errors import AwsError
from chalicelib.domain.ports import Loaded
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import Action, GuardState, TargetState
from tests.unit.logbook import Logbook

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HERE = "111122223333/us-east-1"
DOCS = Path(__file__).parents[2] / "docs" / "api.md"


def get(operation: str, log: Any, path: dict[str, str] | None = None, **query: Any) -> Response:
    request = Request(
        operation=BY_NAME[operation],
        path=path or {},
        query={name: value if isinstance(value, list) else [value] for name, value in query.items()},
        headers={},
        body=b"",
        caller="arn:aws:iam::111122223333:user/Ops",
        id="1",
    )
    return handlers.handle(handlers.Service(log, lambda: NOW), request)


class TestMoments:
    @given(st.datetimes(timezones=st.timezones() | st.just(UTC)))
    def test_are_read_as_they_are_written_by_rfc_3339(self, at: datetime) -> None:
        written = at.isoformat()
        if re.search(r"[+-]\d\d:\d\d$", written) and at.utcoffset() is not None:
            try:
                expected = at.astimezone(UTC)
            except OverflowError:
                expected = datetime.min.replace(tzinfo=UTC) if at.year == 1 else datetime.max.replace(tzinfo=UTC)
            assert Moment.parse(written).at(NOW) == expected

    @pytest.mark.parametrize(
        ("text", "at"),
        [
            ("24h", NOW - timedelta(hours=24)),
            ("2w", NOW - timedelta(weeks=2)),
            ("999999w", datetime.min.replace(tzinfo=UTC)),
            ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
            ("2026-11-20t18:00:00z", datetime(2026, 11, 20, 18, tzinfo=UTC)),
            ("2026-11-20T18:00:00.123456789+01:00", datetime(2026, 11, 20, 17, 0, 0, 123456, tzinfo=UTC)),
            ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)),
            ("0001-01-01T00:00:00+23:59", datetime.min.replace(tzinfo=UTC)),
            ("9999-12-31T23:59:59-23:59", datetime.max.replace(tzinfo=UTC)),
        ],
    )
    def test_may_be_spans_dates_and_whatever_the_calendar_ends_with(self, text: str, at: datetime) -> None:
        assert Moment.parse(text).at(NOW) == at

    @pytest.mark.parametrize(
        "text", ["", "24", "h", "-1h", "2026-13-01", "2026-11-20T18:00:00", "2026-11-20 18:00:00Z"]
    )
    def test_that_are_none_are_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"^"):
            Moment.parse(text).at(NOW)


class TestSizes:
    """Lambda hands on six megabytes: what is larger comes in more pages, or is cut and says so."""

    POLICY = "x" * 32_000

    def log(self, records: int) -> Logbook:
        log = Logbook()
        for number in range(records):
            at = NOW - timedelta(hours=2) + timedelta(seconds=number)
            action = Action("PutKeyPolicy", at, before=self.POLICY, after=self.POLICY)
            log.add(HERE, at, Outcome.REMEDIATING, incident_id=f"{HERE}#1", actions=(action,))
        return log

    def test_a_page_of_whole_key_policies_is_shorter_and_leads_on(self) -> None:
        log = self.log(150)
        seen: list[str] = []
        token: dict[str, Any] = {}
        while True:
            answer = get("records", log, limit="200", target=HERE, **token)
            assert len(answer.body) <= handlers.MOST_BODY_BYTES
            found = json.loads(answer.body)
            seen += [record["record_id"] for record in found["records"]]
            if found["next_token"] is None:
                break
            token = {"next_token": found["next_token"]}
        assert seen == [f"{HERE}#{number}" for number in range(150, 0, -1)]

    def test_an_incident_of_whole_key_policies_is_cut_and_says_that_it_is_not_complete(self) -> None:
        answer = get("incident", self.log(150), {"id": "111122223333.us-east-1.1"})
        found = json.loads(answer.body)
        assert found["complete"] is False
        assert 50 < len(found["records"]) < 150


class TestFailures:
    def test_of_any_kind_are_an_answer_that_tells_nothing(self) -> None:
        class Context:
            aws_request_id = "11111111-2222-3333-4444-555555555555"
            invoked_function_arn = None

        answer = handlers.respond("records", object(), Context())
        found = json.loads(answer.body)
        assert (answer.status, found["code"]) == (500, "INTERNAL_ERROR")
        assert found["instance"] == f"urn:uuid:{Context.aws_request_id}"
        assert "AttributeError" not in answer.body

    @pytest.mark.parametrize(
        ("code", "found"), [("ThrottlingException", "THROTTLED"), ("AccessDeniedException", "AWS_REFUSED")]
    )
    def test_of_aws_say_only_that_it_may_be_tried_again(self, code: str, found: str) -> None:
        class Refusing(Logbook):
            def newest(self, *_: Any, **__: Any) -> Any:
                raise AwsError("dynamodb:Query", code, "User: arn:aws:sts::111122223333:assumed-role/secret")

        answer = get("records", Refusing(), target=HERE)
        assert (answer.status, json.loads(answer.body)["code"]) == (503, found)
        assert answer.headers["Retry-After"] == "2"
        assert "secret" not in answer.body


REFUSALS: list[tuple[str, dict[str, Any], str, str]] = [
    ("records", {"limit": "0"}, "BAD_PARAMETER", "limit: expected a whole number from 1 to 200."),
    ("records", {"limit": "ten"}, "BAD_PARAMETER", "limit: expected a whole number from 1 to 200."),
    ("records", {"limit": "1.5"}, "BAD_PARAMETER", "limit: expected a whole number from 1 to 200."),
    ("targets", {"limit": "9" * 5000}, "BAD_PARAMETER", "limit: expected a whole number from 1 to 200."),
    ("records", {"account": "11112222333\u0663"}, "BAD_PARAMETER", "account: expected an account id of twelve digits."),
    ("records", {"account": "111122223333\n"}, "BAD_PARAMETER", "account: expected an account id of twelve digits."),
    ("records", {"account": "null"}, "BAD_PARAMETER", "account: expected an account id of twelve digits."),
    (
        "targets",
        {"region": "us-east-1" + "1" * 40},
        "BAD_PARAMETER",
        "region: expected the name of a Region, such as us-east-1.",
    ),
    (
        "incidents",
        {"target": "here"},
        "BAD_PARAMETER",
        "target: expected a target such as 111122223333/us-east-1, or `guard` for the guard's own chain.",
    ),
    (
        "targets",
        {"outcome": ["FAILED", "good"]},
        "BAD_PARAMETER",
        f"outcome: expected one of {', '.join(Outcome)}; at most {len(Outcome)} values.",
    ),
    (
        "targets",
        {"outcome": ["FAILED"] * 10},
        "BAD_PARAMETER",
        f"outcome: expected one of {', '.join(Outcome)}; at most {len(Outcome)} values.",
    ),
    ("records", {"actor": ""}, "BAD_PARAMETER", "actor: expected 1 to 256 characters."),
    ("records", {"rule": "a/b"}, "BAD_PARAMETER", "rule: expected the id of a rule."),
    (
        "summary",
        {"since": "2026-02-30"},
        "BAD_PARAMETER",
        "since: expected a time, a date (UTC), or an age such as 90s, 30m, 24h, 7d, 2w; selects items at or after it.",
    ),
    (
        "summary",
        {"until": "null"},
        "BAD_PARAMETER",
        "until: expected a time, a date (UTC), or an age, as in `since`; selects items before it.",
    ),
    (
        "targets",
        {"next_token": '"'},
        "BAD_PARAMETER",
        "next_token: expected the `next_token` of the previous page, with the same filters.",
    ),
    ("summary", {"since": ["1h", "2h"]}, "REPEATED_PARAMETER", "This parameter may be given only once."),
    ("summary", {"limit": "5"}, "UNKNOWN_PARAMETER", "Unknown parameters. This route accepts since, until."),
    ("policy", {"limit": "5"}, "UNKNOWN_PARAMETER", "Unknown parameters. This route accepts none."),
]


@pytest.mark.parametrize(("operation", "query", "code", "detail"), REFUSALS)
def test_a_refusal_names_the_parameter_and_says_what_is_expected(
    operation: str, query: dict[str, Any], code: str, detail: str
) -> None:
    response = get(operation, Logbook(), **query)
    problem = json.loads(response.body)
    assert (response.status, problem["code"], problem["detail"]) == (400, code, detail)
    assert problem["parameters"] == list(query)


def test_the_documented_parameters_are_the_fields_of_the_queries_with_their_constraints() -> None:
    described = {
        parameter["name"]: parameter
        for item in document()["paths"].values()
        for operation in item.values()
        for parameter in operation["parameters"]
        if parameter["in"] == "query"
    }
    assert described.keys() == {name for operation in OPERATIONS for name in operation.query.__struct_fields__}
    assert described["account"] == {
        "name": "account",
        "in": "query",
        "required": False,
        "description": "an account id of twelve digits",
        "schema": {"type": "string", "pattern": "^[0-9]{12}$"},
    }
    assert described["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}
    assert described["since"]["schema"] == Moment.schema()
    outcome = described["outcome"]
    assert (outcome["style"], outcome["explode"], outcome["schema"]["maxItems"]) == ("form", True, len(Outcome))
    assert "default" not in outcome["schema"]


def test_the_name_of_an_unknown_parameter_is_told_at_no_great_length() -> None:
    answer = get("records", Logbook(), **{"a" * 5000: "1"})  # type: ignore[arg-type]
    assert json.loads(answer.body)["parameters"] == ["a" * 64]


def test_the_page_in_the_documentation_names_every_route_parameter_and_code() -> None:
    text = DOCS.read_text("utf-8")
    names = {f"{operation.method} {operation.path}" for operation in OPERATIONS}
    names |= {name for operation in OPERATIONS for name in operation.query.__struct_fields__}
    for source in Path(handlers.__file__).parent.glob("*.py"):
        names |= set(re.findall(r'(?:Refused|problem)\(\s*\d{3}, "([A-Z_]+)"', source.read_text("utf-8")))
    names |= {"THROTTLED", "AWS_REFUSED", str(queries.MOST_LIMIT)}
    assert {name for name in names if f"`{name}`" not in text} == set()


class Present(Logbook):
    """Targets in five Regions of two accounts."""

    def states(self) -> list[TargetState]:
        return [
            TargetState(f"{account}/eu-west-{number}", version=1, outcome=Outcome.COMPLIANT)
            for account in ("222222222222", "111111111111")
            for number in range(5)
        ]

    def load(self, target: str, event_id: str | None = None) -> Loaded:
        return Loaded(TargetState(target), GuardState(swept_at=NOW))


def test_pages_of_targets_lead_on_to_each_once_in_order() -> None:
    seen: list[str] = []
    token: dict[str, Any] = {}
    while True:
        found = json.loads(get("targets", Present(), limit="3", **token).body)
        seen += [target["target"] for target in found["targets"]]
        assert found["guard"]["swept_at"] == "2026-11-20T12:00:00Z"
        if found["next_token"] is None:
            break
        token = {"next_token": found["next_token"]}
    assert seen == sorted(state.target for state in Present().states())


def test_targets_are_those_asked_for() -> None:
    found = json.loads(get("targets", Present(), account="111111111111", region="eu-west-3").body)
    assert [target["target"] for target in found["targets"]] == ["111111111111/eu-west-3"]
    assert json.loads(get("targets", Present(), outcome="FAILED").body)["targets"] == []
