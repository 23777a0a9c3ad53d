"""A browser, and the console that it looks at. Both are made once a run, however many workers there are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from tests.browser.looking import Looker

PROJECT = Path(__file__).parents[2]
AXE = PROJECT / "node_modules" / "axe-core" / "axe.min.js"
STARTS_WITHIN_SECONDS = 180
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def _missing(what: str, remedy: str) -> None:
    """Without it these tests are skipped; the pipeline must not skip them."""
    message = f"{what} is missing: {remedy}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What is known of the story, and the console's `url`."""
    workers = os.environ.get("PYTEST_XDIST_WORKER") is not None
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if workers else folder
    facts, log = folder / "stage.json", folder / "stage.log"
    try:
        os.close(os.open(folder / "stage.lock", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        pass  # another worker has begun it
    else:
        pid = os.getppid() if workers else os.getpid()
        with log.open("wb") as message:
            command = [sys.executable, "-m", "tests.browser.stage", str(facts), str(pid)]
            subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=message, stderr=message)
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while not facts.exists():
        if time.monotonic() > deadline or (log.exists() and "Traceback" in log.read_text("utf-8")):
            pytest.fail(f"the console did not come up: {log.read_text('utf-8') if log.exists() else 'no log'}")
        time.sleep(0.1)
    read: dict[str, Any] = json.loads(facts.read_text("utf-8"))
    return read


def chromium(profile: Path) -> Chrome:
    """A headless Chromium with a profile of its own. Skips or fails where there is none."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        _missing("Chromium with its driver", "apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = str(browser)
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options=options, service=Service(driver))


@pytest.fixture(scope="session")
def _chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    running = chromium(tmp_path_factory.mktemp("chromium"))
    yield running
    running.quit()


@pytest.fixture
def look(_chromium: Chrome, stage: dict[str, Any]) -> Iterator[Looker]:
    """A browser 1280 pixels wide, in light colours, at no page; its console must have stayed silent at the end."""
    looker = Looker(_chromium, stage["url"])
    looker.is_wide(1280, "light")
    yield looker
    assert looker.complaints() == [], "the browser's console has errors"


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core."""
    if not AXE.is_file():
        _missing("axe-core", "npm ci")
    return AXE.read_text("utf-8")
