"""The functions' entry points: what a run over several targets leaves in the function's log."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from chalicelib import entry
from chalicelib.domain.reasons import Problem
from chalicelib.loop.batch import Report


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the function's logger writes."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(entry.logger.registered_formatter)
    logger = logging.getLogger(entry.logger.name)
    logger.addHandler(handler)
    yield written
    logger.removeHandler(handler)


def test_p11_a_fault_of_the_guards_own_in_one_of_many_targets_leaves_its_traceback_in_the_log(
    log: io.StringIO,
) -> None:
    """The target's record refers to the log, and the caller raises another error than the one that happened."""
    try:
        raise LookupError("what nobody thought of")
    except LookupError as error:
        bug = error
    target = "111122223333/eu-west-1"
    report = Report(unreached={target: Problem("INTERNAL_ERROR", "LookupError")}, bugs=[bug])
    with pytest.raises(entry.Incomplete, match=target):
        entry._reported(report)
    line = json.loads(log.getvalue().splitlines()[0])
    assert "what nobody thought of" in line["exception"]
    assert "Traceback" in line["exception"]
