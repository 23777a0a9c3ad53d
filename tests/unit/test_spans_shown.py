"""People read where traces, spans and copies are, and under which key."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from chalicelib.auditlog.views import target_view
from chalicelib.cli.policy import requirements
from chalicelib.domain.model import Subject, Target
from chalicelib.domain.policy import Rule, SpansRule
from chalicelib.domain.reasons import Problem
from chalicelib.domain.spans import IN_LOGS, TRACES, Link, Links, LogGroup, Spans
from chalicelib.domain.steps import Step, StepName
from chalicelib.domain.stored import Change, GuardState, TargetState
from chalicelib.operators.formatting import copies_text, event_change_text, spans_text, step_text
from tests.unit.test_decide import RULE

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1"
LINK = Link("arn:aws:oam:eu-west-1:111122223333:link/1", "444455556666", (TRACES,))
DENIED = Problem("AccessDeniedException", "logs:DescribeLogGroups: no\x1b[2J")


@pytest.mark.parametrize(
    ("spans", "parts"),
    [
        (None, ["with the traces, as far as known"]),
        (Spans("XRay", "ACTIVE"), ["with the traces"]),
        (Spans(IN_LOGS, "ACTIVE", LogGroup(KEY, 30)), ["aws/spans", f"under {KEY}", "30 days"]),
        (Spans(IN_LOGS, "ACTIVE", LogGroup()), ["without a KMS key", "for ever"]),
        (Spans(IN_LOGS, "PENDING"), ["none are stored yet"]),
        (Spans(IN_LOGS, "ACTIVE", problem=DENIED), ["not known", "DescribeLogGroups"]),
    ],
)
def test_where_spans_are_stored_is_said_with_their_key_and_for_how_long(spans: Spans | None, parts: list[str]) -> None:
    text = spans_text(spans)
    assert [part for part in parts if part not in text] == []
    assert "\x1b" not in text


def test_who_receives_copies_is_said_or_that_it_is_not_known() -> None:
    assert copies_text(None) == "not known yet"
    assert copies_text(Links(NOW)) == "no account"
    assert copies_text(Links(NOW, (LINK, LINK))) == "444455556666"
    assert copies_text(Links(NOW, problem=DENIED)).startswith("not known: ")


def test_a_target_shows_what_was_last_read_of_both() -> None:
    spans, links = Spans(IN_LOGS, "ACTIVE", LogGroup(KEY)), Links(NOW, (LINK,))
    view = target_view(TargetState("111122223333/eu-west-1", spans=spans, links=links), GuardState(), NOW)
    assert (view.spans, view.links) == (spans, links)
    assert view.to_json()["spans"]


def test_what_an_event_changed_about_spans_and_links_is_named() -> None:
    told = [
        event_change_text(Change(Subject.SPANS, None, "XRay", IN_LOGS)),
        event_change_text(Change(Subject.SPANS, "aws/spans", "none", KEY)),
        event_change_text(Change(Subject.LINKS, LINK.arn, None, LINK.account)),
    ]
    assert told == [
        f"the destination of spans: XRay → {IN_LOGS}",
        f"the key of aws/spans: none → {KEY}",
        f"the copies of traces by {LINK.arn}: {LINK.account}",
    ]


def test_the_step_and_the_rule_are_said_in_sentences() -> None:
    step = Step(StepName.ASSOCIATE_KEY, KEY, "none", "aws/spans")
    assert step_text(step, Target("111122223333", "eu-west-1")).startswith(
        "encrypt new spans in the log group aws/spans"
    )
    said = {each: " ".join(requirements(_requiring(each, ()))) for each in SpansRule}
    assert "only reported" in said[SpansRule.REPORT]
    assert "must be encrypted" in said[SpansRule.ENCRYPT]
    assert "must not send spans" in said[SpansRule.FORBID]
    assert "Links may copy traces to: no account" in said[SpansRule.REPORT]
    assert "to: 4444*, 5555*" in " ".join(requirements(_requiring(SpansRule.REPORT, ("4444*", "5555*"))))
    assert "to any account" in " ".join(requirements(_requiring(SpansRule.REPORT, None)))


def _requiring(spans: SpansRule, copies_to: tuple[str, ...] | None) -> Rule:
    return replace(RULE, require=replace(RULE.require, spans=spans, copies_to=copies_to))
