"""Verbs about the audit log itself: `audit verify` and `audit export`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chalicelib.cli.options import CHAIN, common_options, pass_operator
from chalicelib.operators.context import Operator
from chalicelib.operators.layout import Column, Shorten, Table, without_account
from chalicelib.operators.output import Progress, emit, print_table, say

if TYPE_CHECKING:
    from chalicelib.auditlog.anchors import Anchored
    from chalicelib.auditlog.chaincheck import Finding
    from chalicelib.auditlog.verify import Report


@click.group("audit")
def audit_group() -> None:
    """Verify or export the audit log."""


@audit_group.command(epilog="Example: xray-guard audit verify")
@click.option("--chain", type=CHAIN, metavar="TARGET", help="Only this target's chain, or `guard`")
@click.option(
    "--anchor-bucket",
    metavar="NAME",
    envvar="XRAY_GUARD_ANCHOR_BUCKET",
    help="S3 bucket with the anchors [XRAY_GUARD_ANCHOR_BUCKET]",
)
@common_options
@pass_operator
def verify(operator: Operator, chain: str | None, anchor_bucket: str | None) -> int:
    """Check the integrity of the audit log.

    Finds edited, deleted, reordered and missing records, and edits of the guard's stored state. Compares every chain
    with its state, with the anchors of the sweeps, with the anchors in the bucket if you name one, with the event
    markers and with the key rows. Exits with 1 if there is a finding.
    """
    from chalicelib.auditlog.verify import NoSuchChain, verify
    from chalicelib.operators.errors import NO, OperatorError

    progress = Progress()
    extra: list[tuple[str, Anchored]] = []
    anchor_findings: list[Finding] = []
    if anchor_bucket:
        from chalicelib.aws.s3_anchors import read_anchors

        progress(f"Reading the anchors in {anchor_bucket}")
        extra, anchor_findings = read_anchors(operator.clients, operator.region, anchor_bucket)
    try:
        report = verify(operator.store, extra, lambda name: progress(f"Verifying {name}"), chain, anchor_findings)
    except NoSuchChain as error:
        raise OperatorError(
            f"there is no chain {error}: no record, no state and no anchor names it",
            "list the targets with `xray-guard status`; the guard's own chain is `guard`",
            NO,
        ) from error
    finally:
        progress.done()
    emit(operator.output, report.to_json(), "findings", lambda: _print_report(operator.output, report))
    if not anchor_bucket:
        say(
            "Checked only against anchors stored with the log. Anyone who can rewrite both tables can forge them. "
            "To check against an S3 bucket with Object Lock, use --anchor-bucket or XRAY_GUARD_ANCHOR_BUCKET."
        )
    if report.newer:
        say(
            f"A newer release of the guard stored {report.newer} of the records. Their hashes were checked. To check "
            "against all anchors in them, use that release."
        )
    if report.uncovered:
        say(
            f"Earlier releases of the guard stored {report.uncovered} of the records. These do not cover the stored "
            "state: edits of the state in their time are not found."
        )
    return 0 if report.whole else 1


def _print_report(output: str, report: Report) -> None:
    checked = (
        f"{report.records} records in {report.chains} chains, {report.markers} markers, {report.keys} key rows, "
        f"{report.anchors} anchored heads"
    )
    if report.whole:
        click.echo(f"Verified: no tampering found in {checked}")
        return
    rows = [[finding.target, str(finding.seq), finding.code, finding.message] for finding in report.findings]
    columns = (
        Column("chain", short=without_account),
        Column("record"),
        Column("finding"),
        Column("evidence", wraps=True),
    )
    print_table(output, Table(columns, rows, "", (Shorten("chain"),)))
    findings = "1 finding" if len(report.findings) == 1 else f"{len(report.findings)} findings"
    say(f"Integrity check failed: {findings} in {checked}")


@audit_group.command(epilog="Example: xray-guard audit export --format csv --file log.csv")
@click.option("--chain", type=CHAIN, metavar="TARGET", help="Only this target's chain, or `guard`")
@click.option(
    "--format",
    "form",
    type=click.Choice(("jsonl", "csv")),
    default="jsonl",
    show_default=True,
    help="JSON Lines, or CSV for spreadsheets",
)
@click.option(
    "--file", type=click.Path(dir_okay=False, path_type=Path), help="A new file to write to, in place of stdout"
)
@common_options
@pass_operator
def export(operator: Operator, chain: str | None, form: str, file: Path | None) -> int:
    """Write the audit log to a file or stdout, with its hashes.

    --format says what is written, not --output. An existing file is not replaced.
    The export has the exact bytes of each record that the guard hashed, and each chain's head. docs/verify-export.md
    has a program of twenty lines that verifies the file independently.
    """
    from chalicelib.auditlog import export

    if operator.output != "table":
        raise click.UsageError("--output does not apply to an export: give --format jsonl or csv, and --file FILE.")
    lines = export.lines(operator.store, chain)
    texts = export.as_csv(lines) if form == "csv" else export.as_json_lines(lines)
    if file is not None:
        return _to_file(file, texts)
    if os.isatty(1):
        say("The log is written to stdout. To write a file, add --file FILE.")
    for text in texts:
        click.echo(text, nl=False)
    return 0


def _to_file(file: Path, texts: Iterable[str]) -> int:
    """Write a new file, whole or not at all, and say its digest."""
    import hashlib

    if file.exists():
        raise click.BadParameter(f"{file} exists, and is not replaced: name another file", param_hint="--file")
    part, digest, count = file.with_name(f"{file.name}.part"), hashlib.sha256(), 0
    try:
        with part.open("wb") as written:
            for text in texts:
                count += written.write(text.encode())
                digest.update(text.encode())
        os.link(part, file)  # fails if somebody made the file meanwhile, where a rename would replace it
    except OSError as error:
        raise click.BadParameter(f"cannot write {file}: {error.strerror}", param_hint="--file") from error
    finally:
        part.unlink(missing_ok=True)
    say(f"Wrote {count} bytes to {file}, SHA-256 {digest.hexdigest()}")
    return 0
