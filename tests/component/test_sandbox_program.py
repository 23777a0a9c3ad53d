"""`python -m sandbox` as `make sandbox` runs it: its ports, its past and its end."""

from __future__ import annotations

import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.model import TriggerKind
from sandbox import do
from sandbox.__main__ import main
from sandbox.beside import Beside
from sandbox.server import Sandbox
from tests.component.guarded import PACKAGE, PROJECT, guarded, policy_members, records_of, repackaged
from tests.component.test_demo import children_of


def free_ports(count: int) -> list[int]:
    """Neighbouring ports that nothing listens on, below those that the system gives to whom it likes."""
    while True:
        first = random.randrange(15_000, 30_000)
        with suppress(OSError), ExitStack() as bound:
            ports = list(range(first, first + count))
            for port in ports:
                bound.enter_context(closing(socket.create_server(("127.0.0.1", port))))
            return ports


@dataclass
class Running:
    """The program, and the addresses that it printed."""

    process: subprocess.Popen[str]
    shown: str = ""
    children: list[int] = field(default_factory=list)

    def address(self, of: str) -> str:
        found = re.search(rf"{of}: (http://127\.0\.0\.1:[0-9]+\S*)", self.shown)
        assert found, self.shown
        return found[1]


@contextmanager
def program(*arguments: str) -> Iterator[Running]:
    """Start it. It may live on only within the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "--package", str(PACKAGE), *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    running = Running(process)
    try:
        yield running
    finally:
        process.kill()
        process.wait()


def wait_until_up(running: Running) -> None:
    assert running.process.stdout is not None
    while "press Ctrl-C" not in running.shown:
        line = running.process.stdout.readline()
        assert line, running.shown
        running.shown += line


def has_ended_with_all_its_children(running: Running, within_seconds: float) -> None:
    began = time.monotonic()
    assert running.process.wait(60) == 0
    assert time.monotonic() - began < within_seconds
    assert not [child for child in running.children if Path(f"/proc/{child}").exists()]


def status_of(url: str) -> int:
    with urllib.request.urlopen(url, timeout=30) as response:
        return int(response.status)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_neighbouring_ports_are_those_of_sandbox_and_console_and_a_signal_ends_everything(number: int) -> None:
    port, console, api = free_ports(3)
    with program("--port", str(port), "--console", str(console), "--api-port", str(api)) as running:
        wait_until_up(running)
        assert running.address("Endpoint of AWS") == f"http://127.0.0.1:{port}"
        assert running.address("REST API").startswith(f"http://127.0.0.1:{api}/")
        assert running.address("Console") == f"http://127.0.0.1:{console}/"
        assert [status_of(running.address(of)) for of in ("Control endpoint", "Console")] == [200, 200]
        running.children = children_of(running.process.pid)
        assert len(running.children) >= 3, "the functions, the console and the program of the past"
        running.process.send_signal(number)
        has_ended_with_all_its_children(running, within_seconds=5.0)


def test_a_signal_ends_it_while_it_starts() -> None:
    ports = free_ports(3)
    names = ("--port", "--api-port", "--console")
    with program(*(text for name, port in zip(names, ports, strict=True) for text in (name, str(port)))) as running:
        while not running.children:
            assert running.process.poll() is None
            running.children = children_of(running.process.pid)
        running.process.terminate()
        has_ended_with_all_its_children(running, within_seconds=5.0)
        assert running.process.stdout is not None
        assert "Console" not in running.process.stdout.read()


def test_two_on_one_port_are_refused_with_what_to_type(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--package", str(PACKAGE), "--port", "4811", "--api-port", "4812", "--console", "4812"]) == 2
    assert "make sandbox PORT=… API_PORT=… CONSOLE_PORT=…" in capfd.readouterr().err


def test_a_port_in_use_is_said_and_nothing_starts() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with program("--port", str(port), "--no-functions") as running:
            assert running.process.wait(60) == 2
            assert running.process.stdout is not None
            said = running.process.stdout.read()
    assert said == f"Cannot listen on port {port}: Address already in use. Name another: PORT=…\n"


def test_a_port_of_the_api_that_is_in_use_is_said_and_another_is_printed() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with program("--port", "0", "--api-port", str(port)) as running:
            wait_until_up(running)
            assert f"The REST API cannot listen on port {port}" in running.shown
            with pytest.raises(urllib.error.HTTPError, match="403"):  # an unsigned request
                status_of(running.address("REST API") + "/v1/openapi.json")


def test_the_deployment_itself_sends_no_event_that_could_become_a_dead_letter() -> None:
    with guarded(event_delay_seconds=3600.0) as sandbox:
        assert sandbox.idle(0), "no event is on its way"
        sandbox.client("kms").create_key()
        assert not sandbox.idle(0)


def test_a_schedule_runs_now_and_event_history_finds_a_lost_event() -> None:
    with guarded(regions=("us-east-1",)) as sandbox:

        def done(*words: str) -> int:
            return do.main(["--url", sandbox.url, *words])

        assert [done(name) for name in ("tick", "sweep", "event-history")] == [0, 0, 0]
        ran = {each["name"]: each["invocations"] for each in sandbox.state()["functions"]}
        assert [ran[f"xray-guard-{name}"] for name in ("tick", "sweep", "event_history")] == [1, 1, 1]
        before = len(records_of(sandbox, f"{sandbox.account}/us-east-1"))
        assert done("lose", "1") == 0
        sandbox.client("xray").put_encryption_config(Type="NONE")
        assert sandbox.idle(60)
        assert len(records_of(sandbox, f"{sandbox.account}/us-east-1")) == before, "its event is lost"
        assert [done("clock", "1h"), done("event-history")] == [0, 0]
        found = records_of(sandbox, f"{sandbox.account}/us-east-1")[before]
        assert found.trigger.kind is TriggerKind.HISTORY


# The past, in observe mode


def observe(document: Any) -> None:
    document["rules"][0]["mode"] = "observe"


def test_in_observe_mode_the_past_is_created_and_says_what_it_lacks(tmp_path: Path) -> None:
    said: list[str] = []
    for name in ("made", "package"):
        (tmp_path / name).mkdir()
    members = policy_members(tmp_path / "made", observe)
    with guarded(repackaged(tmp_path / "package", members)) as sandbox, Beside(sandbox, 0, said.append, mishaps=3):
        until = time.monotonic() + 120
        while not said and time.monotonic() < until:
            time.sleep(0.1)
        assert len(said) == 1
        assert said[0].startswith("The console now shows a month of incidents. None has a break-glass: ")
        records = records_of(sandbox, f"{sandbox.account}/us-east-2")
        assert {record.outcome.value for record in records} <= {"OBSERVED", "COMPLIANT"}
        assert "OBSERVED" in {record.outcome.value for record in records}


def test_where_no_guard_is_deployed_there_is_no_past_and_it_is_said() -> None:
    said: list[str] = []
    with Sandbox() as sandbox, Beside(sandbox, 0, said.append):
        assert said == ["There are no past incidents, because no guard is deployed."]
