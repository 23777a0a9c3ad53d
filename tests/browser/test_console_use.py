"""The console can be used: by keyboard, on a phone, in both colour schemes, by those who listen to it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.looking import Looker
from tests.browser.stage import HOSTILE, SCRIPT

Stage = dict[str, Any]
NARROW, WIDE = 390, 1280


def pages_of(stage: Stage) -> dict[str, str]:
    """One address of every kind of page."""
    at = {name: "/incidents/" + stage[name].replace("#", "/") for name in ("failed", "policy_changed", "suppressed")}
    return {
        "overview": "/",
        "incidents": "/incidents",
        "records": "/records",
        "record": at["policy_changed"].replace("incidents", "records"),
        "failed": at["failed"],
        "policy changed": at["policy_changed"],
        "suppressed": at["suppressed"],
        "target": "/targets/" + stage["suppressed"].partition("#")[0],
        "policy": "/policy",
        "audit": "/audit?verify=all",
        "nothing fits": "/incidents?actor=nobody-of-this-name",
    }


KINDS = (
    "overview",
    "incidents",
    "records",
    "record",
    "failed",
    "policy changed",
    "suppressed",
    "target",
    "policy",
    "audit",
    "nothing fits",
)


@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_serious(look: Looker, stage: Stage, axe: str, kind: str) -> None:
    found = []
    for width, scheme in ((WIDE, "light"), (WIDE, "dark"), (NARROW, "light"), (NARROW, "dark")):
        look.is_wide(width, scheme)
        look.goes_to(pages_of(stage)[kind])
        look.run(axe)
        result = look.chrome.execute_async_script("axe.run(document).then(arguments[arguments.length - 1])")
        found += [
            (width, scheme, each["id"], [node["target"] for node in each["nodes"]])
            for each in result["violations"]
            if each["impact"] in ("serious", "critical", "moderate")
        ]
    assert found == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_phone_never_scrolls_sideways(look: Looker, stage: Stage, kind: str) -> None:
    look.is_wide(NARROW, "light")
    look.goes_to(pages_of(stage)[kind])
    assert look.run("return document.documentElement.scrollWidth") == NARROW


def test_the_first_tab_skips_to_the_content(look: Looker) -> None:
    look.goes_to("/")
    first = look.tabs()
    assert first.text == "Skip to the content"
    assert first.rect["y"] >= 0
    look.presses("\ue007")
    assert look.path == "/#main"
    inside = look.tabs()
    assert look.run("return document.querySelector('main').contains(arguments[0])", inside)


def test_the_keyboard_reaches_an_incident_from_the_overview_with_its_focus_in_sight(look: Looker, stage: Stage) -> None:
    look.goes_to("/")
    wanted = "/incidents/" + stage["failed"].replace("#", "/")
    for _ in range(30):
        focused = look.tabs()
        outline = look.run("return getComputedStyle(arguments[0]).outlineStyle", focused)
        assert outline == "solid", f"no focus to be seen on {focused.tag_name} {focused.text!r}"
        if (focused.get_attribute("href") or "").endswith(wanted):
            break
    look.presses("\ue007")
    assert look.path == wanted


def test_filters_are_filled_in_and_sent_by_keyboard_alone(look: Looker, stage: Stage) -> None:
    look.goes_to("/incidents")
    for _ in range(20):
        if look.tabs().get_attribute("id") == "f-actor":
            break
    look.presses("Mallory", "\ue007")
    assert "actor=Mallory" in look.path
    assert look.listed() == [stage["hostile"]]


def test_every_control_can_be_reached_in_the_order_it_is_read(look: Looker) -> None:
    look.goes_to("/incidents")
    wanted = look.run(
        "return [...document.querySelectorAll('a[href],button,input,select,[tabindex=\"0\"]')].map(e => e.outerHTML)"
    )
    assert [look.tabs().get_attribute("outerHTML") for _ in wanted] == wanted


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_follow_what_the_system_prefers(look: Looker, scheme: str) -> None:
    look.is_wide(WIDE, scheme)
    look.goes_to("/")
    ground = look.run("return getComputedStyle(document.body).backgroundColor")
    lightness = sum(int(part) for part in ground.removeprefix("rgb(").rstrip(")").split(",")) / 3
    assert (lightness > 200) == (scheme == "light")


def test_every_time_is_said_in_utc_and_to_machines(look: Looker, stage: Stage) -> None:
    look.incident(stage["policy_changed"])
    for shown, meant in look.run("return [...document.querySelectorAll('time')].map(e => [e.innerText, e.dateTime])"):
        assert meant == shown.replace(" ", "T") + "Z"
    assert "All times are UTC." in look.one("footer").text


HOSTILE_PAGES = ("incident", "record", "list", "records", "overview", "suppressed", "target")


@pytest.mark.parametrize("page", HOSTILE_PAGES)
def test_hostile_strings_are_text_wherever_they_are_shown(look: Looker, stage: Stage, page: str) -> None:
    hostile = stage["hostile"].replace("#", "/")
    path = {
        "incident": f"/incidents/{hostile}",
        "record": f"/records/{hostile}",
        "list": "/incidents?actor=Mallory",
        "records": "/records?actor=Mallory",
        "overview": "/",
        "suppressed": "/incidents/" + stage["suppressed"].replace("#", "/"),
        "target": "/targets/" + stage["suppressed"].partition("#")[0],
    }[page]
    look.goes_to(path)
    assert not look.all("main script, main i, main [onerror], main [onfocus], main img")
    assert "run" not in look.chrome.title.split()
    if page != "list" and page != "records":
        assert SCRIPT in str(look.one("main").get_attribute("textContent")).replace('\\"', '"')
    if page == "incident":
        assert HOSTILE.user_agent in look.text


def test_a_hostile_filter_comes_back_as_text_in_its_field(look: Looker) -> None:
    look.goes_to("/incidents?actor=%22%3E%3Cscript%3Edocument.title%3D1%3C/script%3E")
    assert look.one("#f-actor").get_attribute("value") == '"><script>document.title=1</script>'
    assert not look.all("main script")
    assert look.chrome.title.startswith("Incidents")


def test_no_page_asks_another_host_for_anything(look: Looker, stage: Stage) -> None:
    for path in pages_of(stage).values():
        look.goes_to(path)
        request = look.run("return performance.getEntriesByType('resource').map(each => each.name)")
        assert request
        assert all(each.startswith(look.url) for each in request)
