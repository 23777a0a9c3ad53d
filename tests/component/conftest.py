"""What several files of component tests begin with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.operated import CREDENTIALS, delivered, event, world


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A shell with credentials and a Region, and no settings of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "XRAY_GUARD_"))]:
        monkeypatch.delenv(name)
    for name in ("NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def guarded(shell: None) -> Iterator[None]:
    """A target that the guard has put on its managed key."""
    with world():
        delivered(event())
        yield
