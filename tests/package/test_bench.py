"""The benchmark measures what it says: its scenes end as they should, and the yardstick makes the same calls."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench.account import LEAST_SECONDS, SWEEP
from bench.imports import shares
from bench.measure import Bench, WrongAnswer
from bench.starts import measure_starts
from bench.world import NOTHING, Scene, scenes

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = PROJECT / "build" / "dev" / "package"
SCENES = scenes(PROJECT / "tests" / "events")


def test_the_packaged_function_ends_each_scene_in_the_calls_that_its_path_may_make(tmp_path: Path) -> None:
    with Bench(PACKAGE, SCENES, tmp_path) as bench:
        echo, compliant, drift = (bench.calls[scene.name] for scene in bench.scenes)

    assert sorted(echo) == ["dynamodb:BatchGetItem", "xray:GetEncryptionConfig"]
    assert compliant.count("dynamodb:TransactWriteItems") == 1
    assert "xray:PutEncryptionConfig" not in compliant
    assert drift.count("dynamodb:TransactWriteItems") == 2
    assert drift.count("xray:PutEncryptionConfig") == 1


def test_the_sweep_makes_four_calls_a_target_and_seven_more(tmp_path: Path) -> None:
    with Bench(PACKAGE, (), tmp_path) as bench, bench.warm(bench.sweep, SWEEP) as warm:
        bench.account.received.clear()
        ((_, seconds),) = warm.timed(1)
        operations = Counter(each.operation for each in bench.account.received)

    assert operations == {
        "DescribeRegions": 1,
        "BatchGetItem": 2 + 17 + 2 + 1,
        "GetEncryptionConfig": 17,
        "GetTraceSegmentDestination": 17,
        "DescribeKey": 17,
        "TransactWriteItems": 1,
    }
    assert seconds >= LEAST_SECONDS


def test_a_function_that_does_not_end_as_its_scene_asks_is_not_measured(tmp_path: Path) -> None:
    left_alone = Scene("left alone", SCENES[1].event, NOTHING, "COMPLIANT")

    with pytest.raises(WrongAnswer, match="REMEDIATED"), Bench(PACKAGE, (left_alone,), tmp_path):
        pass


def test_a_library_imported_by_the_handler_counts_with_what_of_the_standard_library_it_asked_for_first() -> None:
    answer = """
import time: self [us] | cumulative | imported package
import time:       900 |        900 | encodings
import time:       500 |        500 | json
import time:       200 |        200 |       decimal
import time:      1000 |       1200 |     msgspec
import time:       100 |        100 |     enum
import time:      2000 |       3300 |   chalicelib.model
import time:       300 |       3600 | app
import time:       400 |        400 | uuid
"""
    assert shares(answer, "app") == {
        "app": 0.3,
        "chalicelib.model": 2.0,
        "chalicelib, standard library": 0.1,
        "msgspec": 1.2,
        "handler": 0.4,
    }


def test_starts_and_pages_are_measured_on_a_log_that_they_show() -> None:
    rows = measure_starts(PACKAGE, 1, records=200)

    assert [row["name"] for row in rows] == [
        "xray-guard --help",
        "xray-guard history",
        *(f"console /{page}" for page in ("", "incidents", "records", "policy", "audit")),
        *(f"console /{page}/…" for page in ("incidents", "records", "targets")),
    ]
    assert all(0 < row["best"] <= row["seconds"] for row in rows)
