"""P5, P7, P1 and P16 in a storm on the packaged functions. A longer one: `make storm`."""

from __future__ import annotations

import random

import pytest

from tests.component.operated import typed
from tests.component.storm import WRITERS, Storm, deployed

SECONDS = 8.0


def test_p5_p7_after_a_storm_every_call_is_on_the_record_once_and_the_target_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with deployed() as sandbox:
        for name, value in sandbox.environment().items():
            monkeypatch.setenv(name, value)
        storm = Storm(sandbox, random.Random(7))
        storm.rages(SECONDS)
        found = storm.check()
        assert all(found[name] for name in WRITERS), found
        assert storm.killed
        assert storm.lost
        verified = typed("audit", "verify")
        assert verified.code == 0, verified.out + verified.err
