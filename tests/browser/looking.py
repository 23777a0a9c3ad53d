"""What somebody does with a browser, in the words of the tests."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.wait import WebDriverWait


class Looker:
    """A browser at the console."""

    def __init__(self, chrome: Chrome, url: str) -> None:
        self.chrome = chrome
        self.url = url.rstrip("/")
        self.expected: list[str] = []
        _log(chrome)  # what a test before this one left

    def is_wide(self, width: int, scheme: str, height: int = 800) -> None:
        """Emulate a screen's width and a preferred colour scheme."""
        self.chrome.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        self.chrome.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def goes_to(self, path: str) -> None:
        """Type an address."""
        self.chrome.get(self.url + path)

    def incident(self, incident_id: str) -> None:
        """Open an incident's page."""
        target, _, seq = incident_id.partition("#")
        self.goes_to(f"/incidents/{target}/{seq}")

    @property
    def path(self) -> str:
        """Where the browser is, without the host."""
        return self.chrome.current_url.removeprefix(self.url)

    @property
    def text(self) -> str:
        """What the page's main part says."""
        return self.one("main").text

    def one(self, css: str) -> WebElement:
        """The first element that fits."""
        return self.chrome.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list[WebElement]:
        """Every element that fits."""
        return self.chrome.find_elements(By.CSS_SELECTOR, css)

    def texts(self, css: str) -> list[str]:
        """What every element that fits says."""
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map(each => each.innerText.trim())", css
        )
        return found

    def listed(self) -> list[str]:
        """The incidents of a list, by their ids, in its order."""
        links: list[str] = self.run(
            "return [...document.querySelectorAll('tbody tr td:first-child a')].map(each => each.getAttribute('href'))"
        )
        return ["#".join(link.removeprefix("/incidents/").rsplit("/", 1)) for link in links]

    def follows(self, link: str) -> None:
        """Click the link with this text."""
        self.leaves_by(self.chrome.find_element(By.LINK_TEXT, link))

    def leaves_by(self, element: WebElement) -> None:
        """Click what leads to another page, and wait until this one is gone: a click does not wait for that."""
        element.click()
        WebDriverWait(self.chrome, 30).until(staleness_of(element))

    def writes(self, field: str, text: str) -> None:
        """Fill in a field of a form."""
        self.one(f"#f-{field}").clear()
        self.one(f"#f-{field}").send_keys(text)

    def presses(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        for key in keys:
            self.chrome.switch_to.active_element.send_keys(key)

    def tabs(self) -> WebElement:
        """Press Tab, and answer what has the focus then."""
        self.presses(Keys.TAB)
        return self.chrome.switch_to.active_element

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script of the test's own in the page."""
        return self.chrome.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """What the browser's console said, but for what the test expects."""
        said = [str(each["message"]) for each in _log(self.chrome)]
        return [each for each in said if not any(known in each for known in self.expected)]

    def picture(self, path: Path, width: int, longest: int = 4000) -> None:
        """Keep a picture of the whole page."""
        height = min(self.run("return document.documentElement.scrollHeight"), longest)
        taken = self.chrome.execute_cdp_cmd(
            "Page.captureScreenshot",
            {
                "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1},
            },
        )
        path.write_bytes(base64.b64decode(taken["data"]))


def _log(chrome: Chrome) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = chrome.get_log("browser")  # type: ignore[no-untyped-call]
    return said
