"""Verification with progress: the page says which chain is read while the log is being verified."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from chalicelib.auditlog.anchors import Anchored
from chalicelib.auditlog.chaincheck import Finding
from chalicelib.auditlog.verify import Report, verify
from chalicelib.aws.s3_anchors import read_anchors
from chalicelib.operators.context import Operator
from chalicelib.operators.errors import OperatorError, operator_error


@dataclass(frozen=True, slots=True)
class Progress:
    """One step: what is read now, or at the end the report, or the error that stopped the verification."""

    doing: str = ""
    report: Report | None = None
    seconds: float = 0.0
    error: OperatorError | None = None


def verification(operator: Operator, only: str | None, bucket: str | None, chains: int) -> Iterator[Progress]:
    """Verify all chains, or one, and yield each step when it begins; the last one has the report or the error."""
    steps: queue.SimpleQueue[Progress] = queue.SimpleQueue()
    began, read = time.monotonic(), 0

    def on_chain(name: str) -> None:
        nonlocal read
        read += 1
        steps.put(Progress(f"Reading chain {read} of {1 if only else max(chains, read)}: {name}"))

    def work() -> None:
        try:
            extra: list[tuple[str, Anchored]] = []
            findings: list[Finding] = []
            if bucket:
                steps.put(Progress(f"Reading the anchors in {bucket}"))
                extra, findings = read_anchors(operator.clients, operator.region, bucket)
            steps.put(Progress("Reading which rows exist"))
            report = verify(operator.store, extra, on_chain, only, findings)
            steps.put(Progress(report=report, seconds=time.monotonic() - began))
        except Exception as error:  # the page shows it
            known = error if isinstance(error, OperatorError) else operator_error(error)
            steps.put(Progress(error=known))

    threading.Thread(target=work, name="verification", daemon=True).start()
    while True:
        step = steps.get()
        yield step
        if step.report or step.error:
            return
