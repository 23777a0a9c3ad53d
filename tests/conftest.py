"""What several rooms of tests stand on: the sandbox, empty or with the package deployed in it.

One process holds one sandbox at a time, so each fixture lives as long as a module and is put back between tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from sandbox.server import Sandbox

# How long an example takes depends on what else the machine does; what hangs is stopped by pytest's own timeout.
settings.register_profile("guard", deadline=None)
settings.load_profile("guard")

PACKAGE = Path(__file__).parent.parent / "build" / "dev" / "package"


@pytest.fixture(scope="module")
def _empty_sandbox() -> Iterator[Sandbox]:
    with Sandbox(settle_seconds=0.2, event_delay_seconds=0.0, schedules=False) as running:
        yield running


@pytest.fixture
def sandbox(_empty_sandbox: Sandbox) -> Sandbox:
    """An AWS in which nothing is deployed, as new."""
    _empty_sandbox.reset()
    return _empty_sandbox


@pytest.fixture(scope="module")
def _deployed_sandbox() -> Iterator[Sandbox]:
    if not (PACKAGE / "sam.json").is_file():
        pytest.fail(f"there is no package in {PACKAGE}; make it with: make package STAGE=dev")
    with Sandbox(package=PACKAGE, settle_seconds=0.2, event_delay_seconds=0.0, schedules=False) as running:
        yield running


@pytest.fixture
def deployed(_deployed_sandbox: Sandbox) -> Iterator[Sandbox]:
    """An AWS in which the shipped package is deployed, as new. Schedules fire only when a test fires them."""
    yield _deployed_sandbox
    _deployed_sandbox.reset()
