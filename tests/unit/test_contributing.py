"""CONTRIBUTING.md is held to the code: its map is complete, what it names exists, and forgotten steps are noticed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from chalice.app import EventSourceHandler

import app
from chalicelib.console import site
from chalicelib.domain import meanings, outcome_meanings
from chalicelib.domain.attribution import OF_THE_SETTING
from chalicelib.domain.judge import OF_THE_KEY
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Rule
from chalicelib.domain.reasons import Outcome, Reason, Violation
from tests.browser.test_site import PAGES
from tests.unit import test_attribution, test_decide
from tests.unit.test_docs import PROMISES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
QUOTED = sorted(set(re.findall(r"`([^`\n]+)`", TEXT)))
PATHS = [text for text in QUOTED if re.fullmatch(r"\.?[a-z][\w.-]*/[\w./-]*|[\w-]+\.(py|md|toml|in)", text)]


class TestThePage:
    def test_every_link_leads_somewhere(self) -> None:
        links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", TEXT)
        assert links
        assert [link for link in links if not (ROOT / link).exists()] == []

    def test_every_path_exists(self) -> None:
        # In the map, modules of one package stand without their path.
        found = {path.name for path in (ROOT / "tests").rglob("*.py")}
        assert len(PATHS) > 40
        assert [path for path in PATHS if not (ROOT / path).exists() and path not in found] == []

    def test_every_test_exists(self) -> None:
        tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
        named = [text for text in QUOTED if re.fullmatch(r"test_\w+", text)]
        assert named
        assert [name for name in named if f"def {name}(" not in tests] == []

    def test_every_make_command_exists(self) -> None:
        makefile = (ROOT / "Makefile").read_text("utf-8")
        commands = set(re.findall(r"`make ([a-z-]+)", TEXT))
        assert [name for name in commands if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []

    def test_every_package_is_on_the_map(self) -> None:
        tops = [*(ROOT / "chalicelib").glob("*/"), *(ROOT / "tests").glob("*/")]
        files = [*(ROOT / "chalicelib").glob("*.py"), ROOT / "app.py"]
        places = [f"{path.relative_to(ROOT)}/" for path in tops if [*path.glob("*.*")] and path.name != "__pycache__"]
        places += [str(path.relative_to(ROOT)) for path in files if path.name != "__init__.py"]
        assert [place for place in sorted(places) if f"`{place}`" not in TEXT] == []

    def test_every_module_of_the_domain_and_of_the_loop_is_on_the_map(self) -> None:
        modules = [path.stem for part in ("domain", "loop") for path in (ROOT / "chalicelib" / part).glob("*.py")]
        missing = [name for name in modules if name != "__init__" and f"`{name}`" not in TEXT]
        assert missing == [], "say in the map of CONTRIBUTING.md what each is for"


class TestForgottenSteps:
    @pytest.mark.parametrize(
        ("codes", "labelled"),
        [
            (Outcome, outcome_meanings.OUTCOMES),
            (Violation, outcome_meanings.VIOLATIONS),
            (Reason, meanings.REASONS),
        ],
    )
    def test_every_code_that_a_face_shows_has_its_label(
        self, codes: type[StrEnum], labelled: Collection[StrEnum]
    ) -> None:
        assert set(codes) - set(labelled) == set(), "give it its label in meanings.py or outcome_meanings.py"
        assert set(labelled) - set(codes) == set(), (
            "chalicelib/domain/meanings.py or outcome_meanings.py has the label of no code"
        )

    def test_every_violation_has_a_test_of_the_judge(self) -> None:
        tested = {violation for _, _, violations in judged() for violation in violations}
        name = test_decide.test_every_violation_is_named.__name__
        assert set(Violation) - tested == set(), f"add its case to {name}; if a rule turns it on, RULE there must"

    def test_every_violation_is_of_the_setting_or_of_the_key(self) -> None:
        names = "OF_THE_SETTING in domain/attribution.py or OF_THE_KEY in domain/judge.py"
        assert set(Violation) - OF_THE_SETTING - OF_THE_KEY == set(), f"put it into {names}"
        assert OF_THE_SETTING.isdisjoint(OF_THE_KEY), f"each is either in {names}"

    def test_every_violation_of_the_key_has_a_test_of_its_attribution(self) -> None:
        test = test_attribution.test_each_violation_of_the_key_has_the_effect_that_makes_it
        tested = {violation for violation, _ in cases(test)}
        assert OF_THE_KEY - tested == set(), f"add its case to {test.__name__}"

    def test_every_violation_leads_to_a_step_or_a_reason(self) -> None:
        for rule, observation, violations in judged():
            decision = test_decide.decided(observation, rule=rule)
            assert not violations or decision.steps or decision.blocked, violations

    def test_every_event_reaches_the_guard_unread(self) -> None:
        handlers = [each for each in app.app.handler_map.values() if isinstance(each, EventSourceHandler)]
        assert len(handlers) >= 4
        assert {handler.event_class for handler in handlers} == {app.UnreadEvent}

    def test_every_address_of_the_console_has_its_page(self) -> None:
        endpoints = {rule.endpoint for rule in site.ADDRESSES.iter_rules()}
        cases = set(re.findall(r'case "(\w+)"', inspect.getsource(site)))
        assert endpoints == cases | {"audit", "static"}

    def test_every_address_of_the_console_is_asked_in_its_tests(self) -> None:
        assert {rule.rule for rule in site.ADDRESSES.iter_rules() if not rule.arguments} == set(PAGES)

    def test_the_promises_are_those_that_are_checked(self) -> None:
        rows = re.findall(r"^\| (P\d+) \| \*\*", (ROOT / "docs/promises.md").read_text("utf-8"), re.MULTILINE)
        assert rows == PROMISES


def judged() -> list[tuple[Rule, Observation, tuple[Violation, ...]]]:
    """The cases of the judge's tests, each a rule, an observation and its violations."""
    forbidding = test_decide.test_a_rule_that_forbids_spans_in_logs_names_only_that_and_one_that_reports_names_nothing
    named = [(test_decide.RULE, *case) for case in cases(test_decide.test_every_violation_is_named)]
    return named + [(test_decide.FORBIDS, *case) for case in cases(forbidding)]


def cases(test: Callable[..., None]) -> list[Any]:
    """The cases of a parametrized test."""
    (mark,) = vars(test)["pytestmark"]
    listed: list[Any] = mark.args[1]
    return listed
