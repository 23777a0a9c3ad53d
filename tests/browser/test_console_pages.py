"""The pages show what the guard recorded: overview, incidents, records, target, policy and audit log."""

from __future__ import annotations

import re
from typing import Any

import pytest

from chalicelib.domain.reasons import Outcome
from tests.browser.looking import Looker
from tests.browser.stage import ACCOUNT, OTHERS

Stage = dict[str, Any]


def test_the_story_has_hundreds_of_incidents_that_the_guard_recorded(stage: Stage) -> None:
    assert len(stage["incidents"]) >= 200
    assert stage["records"] >= 400


def test_the_overview_shows_what_is_open_before_anything_else(look: Looker, stage: Stage) -> None:
    look.goes_to("/")
    headings = look.texts("h2")
    assert headings[:3] == ["Open incidents", "Break-glass in force", "Posture by account and Region"]
    cards = look.texts("section[aria-labelledby=open-title] .card")
    assert [card.split("\n")[0] for card in cards] == ["Failed", "Deferred", "Observed", "Suppressed"]
    links = look.run(
        "return [...document.querySelectorAll('section[aria-labelledby=open-title] .card a')].map(a => a.pathname)"
    )
    wanted = [stage[name] for name in ("failed", "deferred", "observed", "suppressed")]
    assert [link for link in links if link.startswith("/incidents/")] == [
        "/incidents/" + each.replace("#", "/") for each in wanted
    ]
    assert [link for link in links if link.startswith("/targets/")] == [
        "/targets/" + each.partition("#")[0] for each in wanted
    ]


def test_a_card_links_by_what_it_names_and_says_the_remedy_with_its_command(look: Looker, stage: Stage) -> None:
    look.goes_to("/")
    for link in look.all("section[aria-labelledby=open-title] .card a"):
        name = link.text
        where = "/incidents/" + name.replace("#", "/") if "#" in name else f"/targets/{name}"
        assert (link.get_attribute("href") or "").endswith(where)
    commands = look.texts("section[aria-labelledby=open-title] .card .next code")
    failed, deferred, observed, suppressed = (
        stage[name].partition("#")[0] for name in ("failed", "deferred", "observed", "suppressed")
    )
    assert commands == [
        f"xray-guard key adopt {failed} KEY",
        f"xray-guard reconcile {deferred}",
        f"xray-guard show '{stage['observed']}'",
        f"xray-guard break-glass close {suppressed}",
    ]
    assert observed


def test_the_overview_first_answers_what_an_operator_asks(look: Looker, stage: Stage) -> None:
    look.goes_to("/")
    questions = look.texts(".answers dt")
    answers = dict(zip(questions, look.texts(".answers dd"), strict=True))
    assert questions == [
        "Encrypted as required?",
        "What is open?",
        "What is waiting, until when?",
        "Is the guard alive?",
    ]
    assert answers["Encrypted as required?"] == "No. 4 of 11 targets are noncompliant."
    for name in ("failed", "deferred", "observed", "suppressed"):
        assert stage[name] in answers["What is open?"]
    waiting = answers["What is waiting, until when?"]
    assert re.search(stage["suppressed"].partition("#")[0] + r": no attempt before .*\(in [56] h\)", waiting)
    assert stage["observed"].partition("#")[0] not in waiting
    signs = answers["Is the guard alive?"]
    assert signs.startswith("Yes.")
    for sign in (
        r"Last event received: \d+ min ago",
        r"Last sweep: \d+ min ago",
        r"Oldest due check: \d{12}/",
        "Dead letters: none",
    ):
        assert re.search(sign, signs)


def test_the_grid_has_every_target_with_its_state_in_words_and_in_shape(look: Looker, stage: Stage) -> None:
    look.goes_to("/")
    cells = look.texts(".grid .cell")
    assert len(cells) == len(stage["targets"])
    for target in stage["targets"]:
        assert any(target in cell for cell in cells)
    words = {cell.split("\n")[0].split()[0] for cell in cells}
    assert {"Failed", "Deferred", "Observed", "Suppressed", "Ignored"} <= words
    shapes = look.run("return [...document.querySelectorAll('.grid .cell svg')].map(each => each.innerHTML)")
    by_word: dict[str, set[str]] = {}
    for cell, shape in zip(cells, shapes, strict=True):
        by_word.setdefault(cell.split()[0], set()).add(shape)
    assert all(len(found) == 1 for found in by_word.values())
    assert len({next(iter(found)) for found in by_word.values()}) == len(by_word), "two states share a shape"


def test_each_bar_of_the_chart_is_a_row_of_the_table_beside_it(look: Looker, stage: Stage) -> None:
    look.goes_to("/")
    rows = [row.split("\t") for row in look.texts(".figures tbody tr")]
    days = {row[0].strip(): int(row[1]) for row in rows}
    bars = look.run("return [...document.querySelectorAll('rect.bar title')].map(each => each.textContent)")
    assert len(days) == 30
    assert {day: int(count) for day, count in (bar.split(": ") for bar in bars)} == {
        day: count for day, count in days.items() if count
    }
    assert 100 < sum(days.values()) <= len(stage["incidents"])


def test_a_day_of_the_table_leads_to_its_incidents(look: Looker) -> None:
    look.goes_to("/")
    row = next(row for row in look.all(".figures tbody tr") if int(row.text.split()[1]) > 1)
    day, opened = row.text.split()[:2]
    look.leaves_by(row.find_element("css selector", "a"))
    assert len(look.listed()) == min(int(opened), 25)
    assert all(text.startswith(day) for text in look.texts("tbody td:nth-child(2) time"))


def test_paging_through_all_incidents_shows_each_once_and_in_order(look: Looker, stage: Stage) -> None:
    look.goes_to("/incidents")
    seen = look.listed()
    while look.all(".pager a[rel=next]"):
        look.leaves_by(look.one(".pager a[rel=next]"))
        seen += look.listed()
    assert seen == stage["incidents"]
    look.follows("Newest")
    assert look.listed() == stage["incidents"][:25]


def test_filters_narrow_the_list_and_stay_filled_in(look: Looker, stage: Stage) -> None:
    look.goes_to("/incidents")
    look.writes("account", OTHERS[1])
    look.one("#f-outcome").send_keys("Failed")
    look.leaves_by(look.one("form.filters button"))
    assert look.listed() == [stage["failed"]]
    assert look.one("#f-account").get_attribute("value") == OTHERS[1]
    assert look.one("#f-outcome").get_attribute("value") == "FAILED"
    look.follows("Clear")
    assert look.path == "/incidents"
    assert look.listed() == stage["incidents"][:25]


def test_filters_go_along_from_page_to_page(look: Looker, stage: Stage) -> None:
    look.goes_to(f"/incidents?account={ACCOUNT}&since=30d")
    seen = look.listed()
    while look.all(".pager a[rel=next]"):
        look.leaves_by(look.one(".pager a[rel=next]"))
        seen += look.listed()
    assert seen == [each for each in stage["incidents"] if each.startswith(ACCOUNT)]


def test_a_place_in_one_list_is_refused_by_another(look: Looker) -> None:
    look.expected = ["400 (BAD REQUEST)"]
    look.goes_to("/incidents")
    token = str(look.one(".pager a[rel=next]").get_attribute("href")).partition("next_token=")[2]
    look.goes_to(f"/incidents?account={ACCOUNT}&next_token={token}")
    assert "belongs to other filters" in look.text


def test_a_filter_that_cannot_be_read_says_so_at_its_field_and_asks_nothing(look: Looker) -> None:
    look.expected = ["400 (BAD REQUEST)"]
    look.goes_to("/incidents?account=12&since=yesterday")
    for name in ("account", "since"):
        field = look.one(f"#f-{name}")
        assert field.get_attribute("aria-invalid") == "true"
        assert look.one(f"#{field.get_attribute('aria-describedby')}").text
    assert look.one("#f-account").get_attribute("value") == "12"
    assert look.listed() == []


def test_a_filter_that_nothing_fits_says_so(look: Looker) -> None:
    look.goes_to("/incidents?since=2001-01-01&until=2001-01-02")
    assert "No incidents match." in look.text


def test_a_stretch_of_the_log_without_a_fit_says_that_there_is_more_of_it(look: Looker) -> None:
    look.goes_to("/incidents?actor=nobody-of-this-name")
    assert "To search older parts, choose Older." in look.text
    pages = 1
    while look.all(".pager a[rel=next]"):
        look.leaves_by(look.one(".pager a[rel=next]"))
        pages += 1
    assert pages < 20
    assert "No incidents match." in look.text


def test_an_incident_tells_who_from_what_to_what_and_how_long(look: Looker, stage: Stage) -> None:
    look.incident(stage["policy_changed"])
    facts = dict(zip(look.texts(".facts dt"), look.texts(".facts dd"), strict=True))
    assert facts["Who"].split() == [f"arn:aws:iam::{OTHERS[0]}:role/PlatformAdmin", "Copy", "session", "jdoe"]
    assert re.search(r"Key policy of\s+arn:aws:kms:eu-west-1:[0-9]{12}:key/", facts["Changed"])
    assert facts["From"].startswith("sha256:")
    assert facts["To"].startswith("a key policy of ")
    assert re.fullmatch(r"[0-9.]+s", facts["Exposure"])
    assert look.texts(".milestone") == ["changed", "detected", "active"]
    assert [text.split("\n")[0] for text in look.texts(".timeline .badge")] == ["Remediating", "Remediated"]


def test_from_and_to_are_what_the_incident_changed_and_the_result_is_said_beside(look: Looker, stage: Stage) -> None:
    look.incident(stage["hostile"])
    facts = dict(zip(look.texts(".facts dt"), look.texts(".facts dd"), strict=True))
    assert facts["From"].startswith("arn:aws:kms:us-east-1:")
    assert facts["To"] == "NONE, X-Ray's default encryption"
    assert facts["Result"].startswith("KMS arn:aws:kms:us-east-1:")
    look.goes_to("/incidents?actor=Mallory")
    (change,) = look.texts("td.change")
    assert re.fullmatch(r"key [0-9a-f]{8}… →\s+to\s+NONE|key [0-9a-f]{8}… → NONE", change)


def test_an_incident_shows_what_was_added_to_the_key_policy_line_by_line(look: Looker, stage: Stage) -> None:
    look.incident(stage["policy_changed"])
    added = look.texts(".diff .add")
    assert any('"Sid": "XRayEncryptsTraces"' in line for line in added)
    assert all(line.startswith("+") for line in added if line)
    assert not look.texts(".diff .cut") or all(line.startswith("-") for line in look.texts(".diff .cut"))


def test_a_failed_incident_says_what_to_do(look: Looker, stage: Stage) -> None:
    look.incident(stage["failed"])
    assert "or hand the key over with `xray-guard key adopt" in look.text
    assert "so far" in look.text


def test_equal_failures_are_one_line_with_their_number_and_the_first_and_last_time(look: Looker, stage: Stage) -> None:
    look.incident(stage["failed"])
    lines = look.texts(".timeline > li")
    assert len(lines) <= 3
    (line,) = [text for text in lines if re.search(r"\b[0-9]+ times\b", text)]
    assert re.search(r"\b[89] times\b", line)
    first, last = re.findall(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}", line)[:2]
    assert first < last
    assert line.count("hand the key over") == 1


def test_a_suppressed_incident_shows_the_break_glass_that_holds_it(look: Looker, stage: Stage) -> None:
    look.incident(stage["suppressed"])
    section = look.one("section[aria-labelledby=suppression-title]").text
    assert "INC-66" in section
    assert "role/SecurityBreakGlass" in section


def test_records_lead_to_the_very_bytes_that_were_hashed(look: Looker, stage: Stage) -> None:
    look.goes_to("/records?outcome=REMEDIATED")
    look.leaves_by(look.one("tbody td a"))
    assert re.fullmatch(
        "[0-9a-f]{64}", dict(zip(look.texts(".facts dt"), look.texts(".facts dd"), strict=True))["Hash"].split()[0]
    )
    assert '"outcome": "REMEDIATED"' in look.one("pre").text


def test_the_list_of_records_fits_a_screen(look: Looker) -> None:
    look.goes_to("/records")
    assert look.run("const t = document.querySelector('.table'); return t.scrollWidth <= t.clientWidth")


def test_every_outcome_has_one_label_which_is_its_code_in_badge_and_filter(look: Looker) -> None:
    look.goes_to("/records?target=guard")
    assert set(look.texts("tbody .badge")) == {"Ignored"}
    options = look.run("return [...document.querySelectorAll('#f-outcome option')].map(e => [e.value, e.text])")
    assert options[1:] == [[outcome.value, outcome.value.capitalize()] for outcome in Outcome]


def test_a_deferred_incident_says_what_it_means_and_what_to_do(look: Looker, stage: Stage) -> None:
    look.incident(stage["deferred"])
    assert "What remains is still noncompliant." in look.text
    assert "What to do:" in look.text
    look.goes_to("/")
    (card,) = [text for text in look.texts(".card") if text.startswith("Deferred")]
    assert "What to do:" in card


def test_a_target_shows_its_present_and_its_latest_incidents(look: Looker, stage: Stage) -> None:
    target = stage["failed"].partition("#")[0]
    look.goes_to(f"/targets/{target}")
    assert "Failed" in look.texts(".lead-line .badge")
    assert stage["failed"] in look.listed()


def test_the_policy_page_says_that_the_document_is_the_one_in_force(look: Looker) -> None:
    look.goes_to("/policy")
    assert "In force: the deployed guard enforces this document" in look.text
    assert look.texts(".rules h2") == ["1. pilot observe", "2. baseline enforce"]


def test_verifying_reads_the_whole_log_and_finds_it_whole(look: Looker, stage: Stage) -> None:
    look.goes_to("/audit")
    assert "Verified" not in look.text
    look.leaves_by(look.one("form button"))
    assert (
        f"Verified: no tampering found. {stage['records']} records in {len(stage['targets']) + 1} chains" in look.text
    )


def test_one_chain_is_verified_by_itself(look: Looker, stage: Stage) -> None:
    look.goes_to(f"/audit?verify={stage['targets'][0]}")
    assert re.search(r"Verified: no tampering found\. [0-9]+ records in 1 chain,", look.text)


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/incidents/111122223333/us-east-1/999999", "/incidents/1/x/1", "/targets/999999999999/us-east-1"],
)
def test_what_is_not_there_is_said_in_a_page_of_the_console(look: Looker, path: str) -> None:
    look.expected = ["404 (NOT FOUND)"]
    look.goes_to(path)
    assert look.all("[role=alert]")
    assert look.all("nav[aria-label=Console] a")
