"""Verifying the whole log: each tampering is found and placed, honest writing is not, and an export proves itself."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from chalicelib.auditlog import export, hashchain
from chalicelib.auditlog.anchors import Anchored, anchor_digest
from chalicelib.auditlog.chaincheck import Finding
from chalicelib.auditlog.verify import Report, verify
from chalicelib.domain.model import Actor, Trigger, TriggerKind
from chalicelib.domain.protected import Kept
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import Cause
from tests.unit.logbook import Logbook

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
HERE = "111122223333/us-east-1"
THERE = "111122223333/eu-west-1"
DOCUMENT = Path(__file__).parents[2] / "docs" / "verify-export.md"


def changed(event_id: str) -> Trigger:
    return Trigger(TriggerKind.CHANGE, event_id, event_time=T0, actor=Actor("arn:aws:iam::111122223333:user/Zoë"))


@pytest.fixture
def log() -> Logbook:
    """Two targets and the guard's own chain, with one sweep's anchors and a record that the sweep does not know."""
    book = Logbook()
    for number in range(4):
        for target in (HERE, THERE):
            book.add(target, T0 + timedelta(minutes=number), Outcome.COMPLIANT, changed(f"{target[-4:]}-{number}"))
    book.add(HERE, T0 + timedelta(minutes=4), Outcome.REMEDIATED, changed("st-1-3"))
    book.add("guard", T0 + timedelta(minutes=5), reason="POLICY_IN_FORCE")
    sweep(book)
    book.add(THERE, T0 + timedelta(hours=1), Outcome.COMPLIANT)
    return book


def sweep(book: Logbook) -> None:
    heads = sorted(book.heads())
    detail = {"heads": heads, "digest": anchor_digest(heads)}
    book.add("guard", T0 + timedelta(minutes=6), reason="SWEEP", detail=detail)


def codes(report: Report) -> list[tuple[str, int, str]]:
    return [(finding.target, finding.seq, finding.code) for finding in report.findings]


def rewrite_from(log: Logbook, target: str, seq: int) -> None:
    """What somebody does who can write both tables: change a record and make everything after it fit again."""
    body = log.stored[(target, hashchain.sort_key(seq))].body
    prev = json.loads(body)["prev_hash"]
    for each in range(seq, log.ends[target][0] + 1):
        row = log.stored[(target, hashchain.sort_key(each))]
        record = replace(hashchain.unseal(row.body), prev_hash=prev, rule="forged")
        body, prev = hashchain.seal(record)
        log.put(replace(row, body=body, hash=prev))
    log.ends[target] = (log.ends[target][0], prev)


def test_a_log_that_nobody_touched_is_whole(log: Logbook) -> None:
    report = verify(log)
    assert report.whole, codes(report)
    assert (report.chains, report.records, report.markers) == (3, 12, 8)
    assert report.anchors == 3


def test_an_empty_log_is_whole() -> None:
    assert verify(Logbook()).whole


class TestTampering:
    def test_an_edited_record_is_named(self, log: Logbook) -> None:
        row = log.stored[(HERE, hashchain.sort_key(2))]
        log.put(replace(row, body=row.body.replace(b"COMPLIANT", b"IGNORED")))
        assert codes(verify(log)) == [(HERE, 2, "EDITED")]

    def test_a_deleted_record_is_missed_and_so_is_its_event(self, log: Logbook) -> None:
        del log.stored[(HERE, hashchain.sort_key(2))]
        found = codes(verify(log))
        assert (HERE, 2, "MISSING") in found
        assert (HERE, 2, "MARKER_WITHOUT_RECORD") in found

    def test_a_chain_cut_off_at_its_end_is_found_by_its_head(self, log: Logbook) -> None:
        del log.stored[(THERE, hashchain.sort_key(5))]
        assert codes(verify(log)) == [(THERE, 5, "TRUNCATED")]

    def test_a_chain_cut_off_together_with_its_head_is_found_by_the_sweeps_anchor(self, log: Logbook) -> None:
        del log.stored[(HERE, hashchain.sort_key(5))]
        log.ends[HERE] = (4, log.stored[(HERE, hashchain.sort_key(4))].hash)
        assert codes(verify(log)) == [(HERE, 5, "TRUNCATED")]

    def test_a_chain_that_vanished_with_its_state_is_found_by_the_sweeps_anchor(self, log: Logbook) -> None:
        for key in [key for key in log.stored if key[0] == HERE]:
            del log.stored[key]
        for key in [key for key in log.marked if key[0] == HERE]:
            del log.marked[key]
        del log.ends[HERE]
        assert codes(verify(log)) == [(HERE, 1, "TRUNCATED")]

    def test_records_whose_state_vanished_are_found(self, log: Logbook) -> None:
        del log.ends[THERE]
        assert (THERE, 5, "HEAD_MISSING") in codes(verify(log))

    def test_a_chain_that_neither_a_state_nor_an_anchor_knows_is_found(self, log: Logbook) -> None:
        """Records without a state: somebody deleted the state, or wrote records that the guard did not."""
        stray = "111122223333/ap-south-1"
        log.add(stray, T0, Outcome.COMPLIANT)
        del log.ends[stray]
        assert codes(verify(log)) == [(stray, 1, "HEAD_MISSING")]
        assert {line.target for line in export.lines(log)} >= {stray}

    def test_what_was_wrong_with_an_anchor_outside_is_in_the_report(self, log: Logbook) -> None:
        bad = Finding("guard", 0, "BAD_ANCHOR", "s3://anchors/x is no anchor")
        assert codes(verify(log, extra_findings=[bad])) == [("guard", 0, "BAD_ANCHOR")]

    def test_a_second_anchor_with_another_hash_for_the_same_record_is_found(self, log: Logbook) -> None:
        seq, _ = log.ends[HERE]
        forged = Anchored(seq, "ab" * 32, "s3://anchors/x")
        assert codes(verify(log, [(HERE, forged)])) == [(HERE, seq, "ANCHOR_MISMATCH")]

    def test_a_chain_made_anew_is_found_by_the_sweeps_anchor(self, log: Logbook) -> None:
        rewrite_from(log, HERE, 2)
        assert [code for _, _, code in codes(verify(log))] == ["ANCHOR_MISMATCH"]

    def test_both_chains_made_anew_are_found_only_by_an_anchor_outside_the_tables(self, log: Logbook) -> None:
        outside = [(target, Anchored(seq, head, "s3://anchors")) for target, seq, head in log.heads()]
        rewrite_from(log, HERE, 2)
        # Even the sweep's record is made to fit.
        row = log.stored[("guard", hashchain.sort_key(2))]
        record = hashchain.unseal(row.body)
        heads = [head for head in sorted(log.heads()) if head[0] != "guard"]
        body, digest = hashchain.seal(replace(record, detail={"heads": heads}))
        log.put(replace(row, body=body, hash=digest))
        log.ends["guard"] = (2, digest)
        assert verify(log).whole
        found = verify(log, outside)
        assert {(finding.target, finding.code) for finding in found.findings} == {
            (HERE, "ANCHOR_MISMATCH"),
            ("guard", "ANCHOR_MISMATCH"),
        }

    def test_a_deleted_marker_is_missed(self, log: Logbook) -> None:
        del log.marked[(HERE, "e#st-1-1")]
        assert codes(verify(log)) == [(HERE, 2, "MARKER_MISSING")]

    def test_a_marker_turned_to_another_record_is_found(self, log: Logbook) -> None:
        log.marked[(HERE, "e#st-1-1")] = 1
        assert codes(verify(log)) == [(HERE, 1, "MARKER_OF_ANOTHER")]

    def test_a_forged_marker_that_would_keep_an_event_from_the_log_is_found(self, log: Logbook) -> None:
        log.marked[(HERE, "e#yet-to-come")] = 77
        assert codes(verify(log)) == [(HERE, 77, "MARKER_WITHOUT_RECORD")]

    def test_a_row_that_is_nothing_of_ours_is_named(self, log: Logbook) -> None:
        log.put(hashchain.StoredRow(HERE, "x#1", b"", ""))
        assert codes(verify(log)) == [(HERE, 0, "UNKNOWN_ROW"), (HERE, 0, "BAD_KEY")] or codes(verify(log)) == [
            (HERE, 0, "BAD_KEY"),
            (HERE, 0, "UNKNOWN_ROW"),
        ]

    def test_a_record_that_cannot_be_read_does_not_hide_what_else_is_wrong(self, log: Logbook) -> None:
        log.put(replace(log.stored[("guard", hashchain.sort_key(1))], body=b"\xff"))
        log.put(replace(log.stored[(HERE, hashchain.sort_key(1))], body=b"{"))
        found = {(finding.target, finding.seq) for finding in verify(log).findings}
        assert {("guard", 1), (HERE, 1)} <= found

    def test_one_chain_can_be_verified_alone(self, log: Logbook) -> None:
        row = log.stored[(HERE, hashchain.sort_key(2))]
        log.put(replace(row, body=b"{}"))
        assert verify(log, only=THERE).whole
        assert not verify(log, only=HERE).whole


class Growing(Logbook):
    """A log to which the guard appends while it is read: before each reading of rows, and once before the markers'."""

    def __init__(self, appends: int) -> None:
        super().__init__()
        self.left = appends

    def _grow(self) -> None:
        if self.left:
            self.left -= 1
            self.add(HERE, T0, Outcome.COMPLIANT, changed(f"new-{self.left}"))

    def rows(self, target: str) -> Iterator[hashchain.StoredRow]:
        self._grow()
        yield from super().rows(target)

    def markers(self, target: str) -> Iterator[tuple[str, int]]:
        yield from list(super().markers(target))
        self._grow()


@pytest.mark.parametrize("appends", [1, 2, 3])
def test_records_appended_while_the_log_is_read_are_no_findings(appends: int) -> None:
    log = Growing(appends)
    Logbook.add(log, HERE, T0, Outcome.COMPLIANT, changed("first"))
    report = verify(log)
    assert report.whole, codes(report)


def test_a_break_glass_noted_before_its_event_was_audited_is_no_finding(log: Logbook) -> None:
    log.add(HERE, T0 + timedelta(hours=2), Outcome.IGNORED, changed("crashed"), reason="BREAK_GLASS_REFUSED")
    del log.marked[(HERE, "e#crashed")]
    assert verify(log).whole


# --- export ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def verifier(tmp_path: Path) -> Callable[[Path], tuple[int, str]]:
    """The program in the documentation, run by a Python that has nothing but its standard library."""
    (program,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    script = tmp_path / "verify.py"
    script.write_text(program, "utf-8")

    def run(file: Path) -> tuple[int, str]:
        command = [sys.executable, "-I", "-S", str(script), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout.strip()

    return run


def exported(log: Logbook, file: Path) -> Path:
    written = export.as_csv(export.lines(log)) if file.suffix == ".csv" else export.as_json_lines(export.lines(log))
    file.write_text("".join(written), "utf-8")
    return file


def test_the_documented_verifier_has_twenty_lines_at_most_and_only_the_standard_library() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    lines = [line for line in program.splitlines() if line.strip()]
    assert len(lines) <= 20
    assert lines[0] == "import csv, hashlib, json, sys"
    assert sum("import" in line for line in lines) == 1


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
class TestExport:
    def test_of_a_whole_log_is_found_whole_by_the_documented_verifier(
        self, name: str, log: Logbook, tmp_path: Path, verifier: Callable[[Path], tuple[int, str]]
    ) -> None:
        assert verifier(exported(log, tmp_path / name)) == (0, "verified: 3 chains, 12 records")

    @pytest.mark.parametrize("seq", [1, 3, 5])
    def test_with_a_record_left_out_is_not(
        self, seq: int, name: str, log: Logbook, tmp_path: Path, verifier: Callable[[Path], tuple[int, str]]
    ) -> None:
        del log.stored[(HERE, hashchain.sort_key(seq))]
        code, answer = verifier(exported(log, tmp_path / name))
        assert code == 1
        assert HERE in answer

    def test_with_an_edited_record_is_not(
        self, name: str, log: Logbook, tmp_path: Path, verifier: Callable[[Path], tuple[int, str]]
    ) -> None:
        file = exported(log, tmp_path / name)
        file.write_text(file.read_text("utf-8").replace("user/Zoë", "user/Zoe", 1), "utf-8")
        if name.endswith(".csv"):  # the column for people comes first, and proves nothing
            file.write_text(file.read_text("utf-8").replace("user/Zoë", "user/Zoe", 1), "utf-8")
        code, answer = verifier(file)
        assert (code, answer) == (1, f"{THERE}: record 1 does not match")

    @pytest.mark.parametrize("edited", [2, 3, None])
    def test_p16_of_records_around_an_edit_of_the_state_is_not(
        self, edited: int | None, name: str, log: Logbook, tmp_path: Path, verifier: Callable[[Path], tuple[int, str]]
    ) -> None:
        """The first record is the one after the upgrade: it does not say what was before."""
        digests = ["d0", "d1", "d2", "d3"]
        for number in range(1, 4):
            before = None if number == 1 else "forged" if number == edited else digests[number - 1]
            log.add("111122223333/us-west-2", T0, kept=Kept(before, digests[number]))
        code, answer = verifier(exported(log, tmp_path / name))
        found = f"111122223333/us-west-2: record {edited} does not match"
        assert (code, answer) == ((1, found) if edited else (0, "verified: 4 chains, 15 records"))
        codes = [(finding.seq, finding.code) for finding in verify(log).findings]
        assert codes == ([(edited, "STATE_EDITED")] if edited else [])

    def test_p16_with_a_record_of_an_earlier_release_in_between_is_whole(
        self, name: str, log: Logbook, tmp_path: Path, verifier: Callable[[Path], tuple[int, str]]
    ) -> None:
        for kept in (Kept(None, "d1"), None, Kept("d2", "d3")):
            log.add("111122223333/us-west-2", T0, kept=kept)
        assert verifier(exported(log, tmp_path / name)) == (0, "verified: 4 chains, 15 records")
        assert verify(log).findings == ()
        assert verify(log).uncovered == 13

    def test_cut_off_at_its_end_is_not(
        self, name: str, log: Logbook, tmp_path: Path, verifier: Callable[[Path], tuple[int, str]]
    ) -> None:
        file = exported(log, tmp_path / name)
        file.write_text("".join(file.read_text("utf-8").splitlines(keepends=True)[:-1]), "utf-8")
        code, answer = verifier(file)
        assert code == 1
        assert "no head" in answer


def test_an_export_leaves_out_what_was_appended_after_it_began() -> None:
    log = Growing(1)
    Logbook.add(log, HERE, T0)
    kinds = [(line.kind, line.seq) for line in export.lines(log)]
    assert kinds == [("record", 1), ("head", 1)]


@pytest.mark.parametrize("hostile", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_cell_for_people_is_run_by_a_spreadsheet(hostile: str, tmp_path: Path) -> None:
    log = Logbook()
    log.add(HERE, T0, reason=hostile, cause=Cause("e", T0, Actor(hostile)))
    with exported(log, tmp_path / "log.csv").open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    assert row["reason"] == f"'{hostile}"
    assert row["actor"] == f"'{hostile}"
    assert json.loads(row["body"])["reason"] == hostile
