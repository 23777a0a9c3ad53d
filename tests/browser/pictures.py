"""`python -m tests.browser.pictures [FOLDER]`: the documentation's pictures, or every page in four ways in a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.browser.conftest import PROJECT, chromium
from tests.browser.looking import Looker
from tests.browser.test_console_use import KINDS, NARROW, WIDE, pages_of

LONGEST = 4000


class Wanted(NamedTuple):
    """A picture: the page, the screen's width and colours, where it goes, and its greatest height."""

    page: str
    width: int
    scheme: str
    path: Path
    height: int = LONGEST


SHOTS = PROJECT / "docs" / "screenshots"
DOCUMENTED = (
    Wanted("overview", WIDE, "light", SHOTS / "overview.png", 1480),
    Wanted("policy changed", NARROW, "dark", SHOTS / "incident-phone.png", 1000),
)


def everything(folder: Path) -> list[Wanted]:
    """Every kind of page in four ways."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        Wanted(page, width, scheme, folder / f"{page.replace(' ', '-')}-{width}-{scheme}.png")
        for page in KINDS
        for width in (WIDE, NARROW)
        for scheme in ("light", "dark")
    ]


def main(arguments: list[str]) -> int:
    """Tell the story, look at it, keep the pictures."""
    with tempfile.TemporaryDirectory() as temporary:
        facts = Path(temporary) / "facts.json"
        command = [sys.executable, "-m", "tests.browser.stage", str(facts), str(os.getpid())]
        command += [] if arguments else ["plain"]
        with subprocess.Popen(command, cwd=PROJECT) as stage:
            while not facts.exists():
                if stage.poll() is not None:
                    return 1
                time.sleep(0.2)
            story = json.loads(facts.read_text("utf-8"))
            browser = chromium(Path(temporary) / "profile")
            looker = Looker(browser, story["url"])
            for each in everything(Path(arguments[0])) if arguments else DOCUMENTED:
                looker.is_wide(each.width, each.scheme)
                looker.goes_to(pages_of(story)[each.page])
                looker.picture(each.path, each.width, each.height)
                print(each.path)
            browser.quit()
            stage.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
