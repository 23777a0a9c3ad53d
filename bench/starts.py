"""How long people wait on the sandbox with a long log: starts of the command line, and pages of the console.

The log is that of `bench.million`, shorter, with the sandbox's clock at its end. The times are wall times; how long a
query takes is the sandbox's.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bench.million import Log, written
from sandbox.server import Sandbox

RECORDS = 10_000
PAGES = ("", "incidents", "records", "policy", "audit")
"""The pages that need no id, as in the console's navigation. Those of one incident, record and target come besides."""
HELP_AIM, HISTORY_AIM, PAGE_AIM = 0.1, 0.6, 0.3
PROGRAM = str(Path(sys.executable).with_name("xray-guard"))


def measure_starts(package: Path, times: int, records: int = RECORDS) -> list[dict[str, Any]]:
    """Return, for each command and page, the median and the best of so many seconds, and the aim."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "XRAY_GUARD"))}
    rows = [row("xray-guard --help", HELP_AIM, times, partial(run, own, "--help"))]
    log = written(records, ":memory:")
    behind = (datetime.now(UTC) - log.now).total_seconds()
    with Sandbox(package=package, schedules=False, warm=False, clock_behind_seconds=behind) as aws:
        copy_items(log, aws)
        surroundings = own | aws.environment()
        rows.append(row("xray-guard history", HISTORY_AIM, times, partial(run, surroundings, "history")))
        newest = json.loads(run(surroundings, "history", "--limit", "1", "-o", "json"))["records"][0]
        pages = {page: page for page in PAGES} | {
            "incidents/…": f"incidents/{newest['incident_id'].replace('#', '/')}",
            "records/…": f"records/{newest['record_id'].replace('#', '/')}",
            "targets/…": f"targets/{newest['target']}",
        }
        with console(surroundings) as url:
            rows += [
                row(f"console /{name}", PAGE_AIM, times, partial(read, url + page)) for name, page in pages.items()
            ]
    return rows


def copy_items(log: Log, aws: Sandbox) -> None:
    """Put the log's items into the sandbox's tables."""
    dynamodb = aws.client("dynamodb")
    for name in ("xray-guard-audit", "xray-guard-targets"):
        page: dict[str, Any] = {"LastEvaluatedKey": None}
        while "LastEvaluatedKey" in page:
            page = log.tables.scan(TableName=name, ExclusiveStartKey=page["LastEvaluatedKey"])
            puts = [{"PutRequest": {"Item": item}} for item in page["Items"]]
            for start in range(0, len(puts), 25):
                dynamodb.batch_write_item(RequestItems={name: puts[start : start + 25]})


def row(name: str, aim: float, times: int, work: Callable[[], object]) -> dict[str, Any]:
    """Measure the work after one run that is not counted."""
    work()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return {"name": name, "seconds": statistics.median(taken), "best": min(taken), "aim": aim}


def run(surroundings: dict[str, str], *words: str) -> str:
    """Run the installed program, and return its stdout. Raises CalledProcessError."""
    return subprocess.run([PROGRAM, *words], env=surroundings, capture_output=True, text=True, check=True).stdout


def read(url: str) -> str:
    """Return a page. Raises HTTPError."""
    with urllib.request.urlopen(url) as response:
        return str(response.read().decode())


@contextmanager
def console(surroundings: dict[str, str]) -> Iterator[str]:
    """The console's address while it runs."""
    command = [PROGRAM, "console", "--no-open", "--port", "0"]
    with subprocess.Popen(
        command, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
