"""How often a run crosses from one module into another, counted by running each path of `docs/calls.md`.

`python -m tests.simulation.walk` shows the figures.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from tests.simulation import calls
from tests.simulation.walk import Counting, Entry, walked

MOST_FROM_LOOP_INTO_DOMAIN = 20
"""In a drift with a healthy key: a reader can follow so many steps."""


def test_a_drift_with_a_healthy_key_enters_the_domain_from_the_loop_only_so_often() -> None:
    _, walk = walked(calls.drift_with_healthy_key)
    assert 0 < walk.from_loop_into_domain <= MOST_FROM_LOOP_INTO_DOMAIN, sorted(walk.entries.items())


@pytest.mark.parametrize("make", [make for make in calls.PATHS if make is not calls.history_as_before])
def test_a_run_decides_once_and_writes_down_each_end_once(make: Any) -> None:
    path, walk = walked(make)
    assert walk.by_module["chalicelib.loop.reconcile"], path.name
    entered = Counter[str]()
    for entry, count in walk.entries.items():
        entered[entry.function] += count if entry.caller.startswith("chalicelib.loop") else 0
    assert entered["decide"] <= 1, path.name
    assert entered["begin"] <= 1, path.name
    assert entered["settle"] <= 1, path.name


# --- the counting itself, on modules made up here ------------------------------------------------------------------

FIRST = """
def run(guard):
    other.twice()
    assert sum(other.three()) == 6
    assert [number(3) for number in [other.half]] == [1.5]
    other.Made(1)
    call_aws(other.half)
    other.half(2)
"""

OTHER = """
from dataclasses import dataclass

def twice():
    return half(4) + half(4)

def half(number):
    return number / 2

def three():
    yield 1
    yield 2
    yield 3

@dataclass
class Made:
    number: int
"""


@dataclass
class Named:
    worker: str


def call_aws(work: Any) -> None:
    work(2)


def made_up(name: str, text: str, monkeypatch: pytest.MonkeyPatch, **given: object) -> Any:
    module = ModuleType(name)
    vars(module).update(given)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(text, f"{name}.py", "exec", dont_inherit=True), vars(module))
    return module


def test_an_entry_is_a_call_from_another_module_and_generated_code_resumed_generators_and_aws_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = made_up("made.up.other", OTHER, monkeypatch)
    first = made_up("made.up.first", FIRST, monkeypatch, other=other, call_aws=call_aws)

    counting = Counting("made", [first.run.__code__], [call_aws.__code__])
    with counting.on_this_thread():
        other.half(1)  # before the run
        first.run(Named("one"))
        first.run(Named("two"))
        other.half(1)  # after it

    assert [walk.worker for walk in counting.walks] == ["one", "two"]
    assert [dict(walk.entries) for walk in counting.walks] == [
        {
            Entry(__name__, "made.up.first", "run"): 1,
            Entry("made.up.first", "made.up.other", "twice"): 1,
            Entry("made.up.first", "made.up.other", "three"): 1,
            Entry("made.up.first", "made.up.other", "half"): 2,
        }
    ] * 2
