"""The console's script: pages follow the log without losing the reader's place, ids are copied, times are local.

And without the script everything can be read all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium.webdriver import Keys
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser.looking import Looker

Stage = dict[str, Any]
UPDATED = "return document.getElementById('updated').innerText"


@pytest.fixture
def unscripted(look: Looker) -> Iterator[Looker]:
    """A browser that runs no scripts of the page."""
    look.chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    yield look
    look.chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@contextmanager
def offline(look: Looker) -> Iterator[None]:
    """A time in which the console does not answer."""
    limits = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    look.chrome.execute_cdp_cmd("Network.enable", {})
    look.chrome.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **limits})
    yield
    look.chrome.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **limits})


def until(look: Looker, script: str) -> None:
    WebDriverWait(look.chrome, 20).until(lambda _: look.run(script))


def starts_to_follow(look: Looker) -> None:
    """Follow the log: the page is read again at once."""
    look.run("document.querySelector('main h1').dataset.former = 'yes'")
    look.run("document.getElementById('follow-link').click()")


def was_replaced(look: Looker) -> None:
    until(look, "return !document.querySelector('main h1').dataset.former")


def test_a_page_that_follows_the_log_says_how_old_it_is_and_can_be_paused(look: Looker) -> None:
    look.goes_to("/")
    starts_to_follow(look)
    was_replaced(look)
    until(look, "return /^Updated [0-9]+ s ago$/.test(document.getElementById('updated').innerText)")
    assert look.path == "/?follow=1"
    assert look.one("#follow-link").text == "Pause"
    look.one("#follow-link").click()
    assert look.path == "/"
    assert look.run(UPDATED) == "Paused"
    assert look.one("#follow-link").text == "Follow"


def test_following_keeps_the_place_the_focus_and_what_is_scrolled(look: Looker, stage: Stage) -> None:
    look.is_wide(390, "light")
    look.goes_to("/")
    look.run("document.querySelector('.table .grid').parentElement.scrollLeft = 60")
    link = "document.querySelector('.grid a.cell')"
    look.run(f"{link}.scrollIntoView({{block: 'center'}}); {link}.focus({{preventScroll: true}})")
    before = look.run(f"return [{link}.getBoundingClientRect().top, document.activeElement.href]")
    starts_to_follow(look)
    was_replaced(look)
    top, focus = look.run(f"return [{link}.getBoundingClientRect().top, document.activeElement.href]")
    assert abs(top - before[0]) < 2
    assert focus == before[1]
    assert look.run("return document.querySelector('.table .grid').parentElement.scrollLeft") == 60


def test_following_keeps_open_what_was_opened(look: Looker, stage: Stage) -> None:
    look.incident(stage["failed"])
    look.run("document.querySelector('main details').open = true")
    starts_to_follow(look)
    was_replaced(look)
    assert look.run("return document.querySelector('main details').open")


def test_nothing_is_replaced_under_a_selection_or_a_field_that_is_filled_in(look: Looker) -> None:
    look.goes_to("/incidents")
    look.writes("actor", "Mall")
    starts_to_follow(look)
    look.run("document.getElementById('follow-link').focus()")
    until(look, "return /^Updated [2-9] s ago/.test(document.getElementById('updated').innerText)")
    assert look.run("return document.querySelector('main h1').dataset.former") == "yes"
    assert look.one("#f-actor").get_attribute("value") == "Mall"


def test_if_the_console_does_not_answer_the_page_stays_and_says_since_when(look: Looker) -> None:
    look.expected = ["ERR_INTERNET_DISCONNECTED"]
    look.goes_to("/")
    before = look.texts(".answers dt")
    with offline(look):
        starts_to_follow(look)
        until(look, "return document.getElementById('trouble').innerText")
        assert look.one("#trouble").text == "Not up to date: the console does not answer."
        assert look.texts(".answers dt") == before


def test_a_button_copies_an_id_and_a_command(look: Looker, stage: Stage) -> None:
    look.chrome.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    look.incident(stage["failed"])
    for place, wanted in (("h1", stage["failed"]), (".next", "xray-guard key adopt ")):
        button = look.one(f"{place} button.copy")
        assert wanted.strip() in (button.get_attribute("aria-label") or "")
        button.click()
        until(look, "return document.querySelector('main').innerText.includes('Copied')")
        copied = look.chrome.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
        assert copied.startswith(wanted)


def test_times_switch_between_utc_and_local_time_and_stay_so(look: Looker, stage: Stage) -> None:
    look.chrome.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Kolkata"})
    look.incident(stage["policy_changed"])
    shown = "return [document.querySelector('main time').dateTime, document.querySelector('main time').innerText]"
    meant, utc = look.run(shown)
    assert utc == meant.replace("T", " ").removesuffix("Z")
    look.one("#zone").click()
    local = look.run(shown)[1]
    minutes = look.run("return (new Date(arguments[0] + '+05:30') - new Date(arguments[1])) / 60000", local, meant)
    assert minutes == 0
    assert "All times are local time." in look.one("footer").text
    assert look.run("return [...document.querySelectorAll('main .zone')].some(e => e.innerText === 'UTC')") is False
    look.goes_to("/")
    assert "All times are local time." in look.one("footer").text
    look.one("#zone").send_keys(Keys.ENTER)
    assert "All times are UTC." in look.one("footer").text
    look.chrome.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


def test_without_scripts_there_are_no_dead_buttons_and_pages_follow_by_reloading(unscripted: Looker) -> None:
    look = unscripted
    look.goes_to("/")
    assert look.all(".answers")
    assert not look.all("button.copy")
    assert not look.one("#zone").is_displayed()
    look.follows("Follow")
    assert look.path == "/?follow=1"
    assert look.all("meta[http-equiv=refresh]")
    look.follows("Pause")
    assert look.path == "/"
    assert not look.all("meta[http-equiv=refresh]")


@pytest.mark.parametrize("width", [1280, 390])
def test_clear_stays_inside_the_filter(look: Looker, width: int) -> None:
    look.is_wide(width, "light")
    look.goes_to("/incidents?account=111122223333")
    form, clear = look.one("form.filters").rect, look.one("form.filters a.quiet-button").rect
    assert clear["x"] + clear["width"] <= form["x"] + form["width"]
    assert clear["y"] == look.one("form.filters button").rect["y"]
    assert look.run("return document.documentElement.scrollWidth") == width


def test_on_a_phone_the_posture_says_that_it_scrolls_and_on_a_screen_where_it_does_not_it_does_not(
    look: Looker,
) -> None:
    scrolls = "const t = document.querySelector('.grid').parentElement; return t.scrollWidth > t.clientWidth"
    for width in (390, 1280):
        look.is_wide(width, "light")
        look.goes_to("/")
        assert look.run(scrolls) == look.one(".scrolls").is_displayed()
    assert "sideways" in str(look.one(".scrolls").get_attribute("textContent"))


def test_the_list_of_incidents_fits_a_screen_and_names_each_by_its_id(look: Looker, stage: Stage) -> None:
    look.goes_to("/incidents")
    assert look.texts("tbody td:first-child a") == stage["incidents"][:25]
    assert look.run("const t = document.querySelector('.table'); return t.scrollWidth <= t.clientWidth")


def test_links_lead_to_the_aws_console_of_keys_and_events(look: Looker, stage: Stage) -> None:
    look.incident(stage["policy_changed"])
    links = look.run("return [...document.querySelectorAll('a.aws')].map(each => each.href)")
    assert any(link.startswith("https://console.aws.amazon.com/kms/home?region=eu-west-1#/kms/keys/") for link in links)
    assert any("/cloudtrailv2/home?region=eu-west-1#/events/" in link for link in links)
