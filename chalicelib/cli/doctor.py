"""The verb `doctor`: check that the guard can work."""

from __future__ import annotations

import os
import re

import click

from chalicelib.cli.options import common_options, pass_operator
from chalicelib.operators.context import Operator
from chalicelib.operators.layout import Column, Table
from chalicelib.operators.output import Progress, emit, print_table, say, width_of

LOOPBACK = re.compile(r"https?://(127\.0\.0\.1|localhost|\[::1\])(:|/|$)")


@click.command("doctor", epilog="Example: xray-guard doctor")
@common_options
@pass_operator
def doctor_verb(operator: Operator) -> int:
    """Check that the guard can work, and name remedies.

    Checks that a trail logs management write events, KMS included, in every Region; the rules and schedules are
    enabled; every other enabled Region forwards its events to the guard; the functions can run, with a role that may
    remediate; the tables are protected, and their resource policies limit who writes them; anchors are recent, under
    Object Lock; the dead-letter queue is empty; the policy is valid and is the one that the guard enforces; the last
    sweep is recent; and no target is overdue, failed, or has an unused key.
    Changes nothing. Exits with 1 if a check failed or could not run; a warning says what the deployment does without.
    """
    from dataclasses import asdict

    from chalicelib.operators.doctor import Doctor, table_names
    from chalicelib.operators.findings import GOOD, WARNING
    from chalicelib.operators.formatting import NOTHING

    where = f"account {operator.identity.account}, Region {operator.region}"
    progress = Progress()
    findings = Doctor(operator, table_names(os.environ)).findings(progress)
    progress.done()
    wrong = sum(finding.status not in (GOOD, WARNING) for finding in findings)
    warnings = [finding for finding in findings if finding.status == WARNING]
    healthy = not wrong
    document = {"healthy": healthy, "findings": [asdict(finding) for finding in findings]}
    rows = [[finding.check, finding.status, finding.message, finding.remedy or NOTHING] for finding in findings]
    columns = [Column("check"), Column("status"), Column("finding", wraps=True), Column("remedy", wraps=True)]
    if width_of(operator.output) is not None:  # the remedies follow the table, whole, as they have commands to copy
        columns.pop()
        rows = [row[:-1] for row in rows]
    emit(operator.output, document, "findings", lambda: print_table(operator.output, Table(columns, rows, "")))
    for finding in findings:
        if finding.status != GOOD:
            say(f"{finding.status.upper()}: {finding.message}\n  What to do: {finding.remedy}")
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    if wrong and LOOPBACK.match(endpoint):
        say(
            f"{endpoint} is a simulated AWS. If `make sandbox` runs it, a target in eu-central-1 that the guard cannot "
            "remediate is an example of the sandbox's own."
        )
    result = f"{wrong} of {len(findings)} checks failed" if wrong else "all checks passed"
    say(f"{where}: {result}" + (f", {len(warnings)} with a warning." if warnings else "."))
    return 0 if healthy else 1
