"""What `make sandbox` puts beside the sandbox: the console, and a past for it to show."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request

import pytest

from sandbox.beside import Beside
from sandbox.server import Sandbox


def read(url: str) -> str:
    """A page of the console."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


def test_the_console_shows_a_past_that_leaves_the_first_region_as_it_was_and_both_end_with_it(
    deployed: Sandbox,
) -> None:
    result: list[str] = []
    recorded = threading.Event()

    def say(line: str) -> None:
        result.append(line)
        recorded.set()

    with Beside(deployed, 0, say, mishaps=2) as beside:
        url = beside.url
        assert url is not None
        assert recorded.wait(120)
        assert result == ["The console now shows a month of incidents."]
        overview = read(url)
        assert "Suppressed" in overview
        assert "Failed" in overview
        assert "INC-2231 trace export" in overview
        assert f"{deployed.account}/{deployed.region}" not in overview
        assert "Verified: no tampering found." in read(f"{url}audit?verify=all")
    setting = deployed.client("xray").get_encryption_config()["EncryptionConfig"]
    assert setting["Type"] == "NONE"
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=2)


def test_a_taken_port_is_said_and_another_is_found(deployed: Sandbox) -> None:
    result: list[str] = []
    with Beside(deployed, 0, result.append, mishaps=0) as first:
        assert first.url is not None
        port = int(first.url.rsplit(":", 1)[1].rstrip("/"))
        with Beside(deployed, port, result.append, mishaps=0) as second:
            assert second.url not in (None, first.url)
            assert f"The console cannot listen on port {port}." in result
