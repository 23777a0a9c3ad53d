"""P16: any edit, deletion, reordering or truncation of the log is found and named at its place; a whole chain is
silent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from chalicelib.auditlog.anchors import Anchored, anchor_digest
from chalicelib.auditlog.chaincheck import Finding, verify_chain
from chalicelib.auditlog.hashchain import (
    StoredRow,
    canonical_bytes,
    digest,
    month_shards,
    seal,
    sort_key,
    time_index,
    unseal,
)
from chalicelib.domain.model import Actor, EncryptionStatus, EncryptionType, Setting, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Problem, Violation
from chalicelib.domain.stored import ZERO_HASH, Action, Record

TARGET = "111122223333/us-east-1"
START = datetime(2026, 9, 30, 10, tzinfo=UTC)
KEY_ARN = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

Chain = list[StoredRow]
Verdict = set[tuple[int, str]]


def record(seq: int, prev_hash: str, target: str = TARGET, note: str = "") -> Record:
    return Record(
        record_id=f"{target}#{seq}",
        target=target,
        seq=seq,
        at=START + timedelta(seconds=seq),
        outcome=Outcome.REMEDIATED,
        trigger=Trigger(
            TriggerKind.CHANGE, event_id=f"event-{seq}", actor=Actor("arn:aws:iam::111122223333:user/Alice")
        ),
        prev_hash=prev_hash,
        violations=(Violation.NOT_KMS,),
        before=Setting(EncryptionType.NONE),
        after=Setting(EncryptionType.KMS, KEY_ARN, EncryptionStatus.ACTIVE),
        actions=(Action("PutEncryptionConfig", START, key_arn=KEY_ARN),),
        exposure_seconds=1.5,
        error=Problem("NOTE", note) if note else None,
    )


def stored(entry: Record) -> StoredRow:
    body, hashed = seal(entry)
    return StoredRow(entry.target, sort_key(entry.seq), body, hashed, time_index(entry.target, entry.seq, entry.at))


def chain(length: int, target: str = TARGET) -> Chain:
    """A whole chain, as the guard writes it."""
    rows: Chain = []
    for seq in range(1, length + 1):
        rows.append(stored(record(seq, rows[-1].hash if rows else ZERO_HASH, target)))
    return rows


def head(rows: Chain) -> tuple[int, str]:
    return (len(rows), rows[-1].hash if rows else ZERO_HASH)


def verdict(
    rows: Chain, known_head: tuple[int, str] | None, *anchors: tuple[int, str], target: str = TARGET
) -> Verdict:
    """(seq, code) of every finding."""
    found = verify_chain(target, iter(rows), known_head, [Anchored(seq, hashed, "sweep") for seq, hashed in anchors])
    assert found == sorted(found, key=lambda finding: finding.seq)
    assert all(finding.target == target and finding.message for finding in found)
    return {(finding.seq, finding.code) for finding in found}


def rewritten(
    rows: Chain, seq: int, change: Callable[[Record], Record] | None = None, *, upto: int | None = None
) -> Chain:
    """The chain after a forger changed a record with its hash and index, and every record after it up to `upto`."""
    forged = list(rows)
    for position in range(seq - 1, upto or seq):
        entry = unseal(forged[position].body)
        if position == seq - 1:
            entry = (change or (lambda old: replace(old, outcome=Outcome.COMPLIANT)))(entry)
        elif position:
            entry = replace(entry, prev_hash=forged[position - 1].hash)
        forged[position] = stored(entry)
    return forged


class TestBytes:
    def test_are_sorted_compact_json_that_reads_back_as_the_record(self) -> None:
        entry = record(1, ZERO_HASH)
        body, hashed = seal(entry)
        assert body == canonical_bytes(entry)
        assert hashed == digest(body) == hashlib.sha256(body).hexdigest()
        parsed = json.loads(body)
        assert list(parsed) == sorted(parsed)
        assert list(parsed["trigger"]) == sorted(parsed["trigger"])
        assert b": " not in body
        assert unseal(body) == entry

    def test_stay_what_they_were_when_first_stored(self) -> None:
        # A stored log outlives its code: if this changes, records written before still verify, but not by re-encoding.
        assert json.loads(canonical_bytes(record(1, ZERO_HASH)))["at"] == "2026-09-30T10:00:01Z"
        assert digest(canonical_bytes(replace(record(1, ZERO_HASH), detail={"b": 1, "a": {"d": 2, "c": 3}}))) == digest(
            canonical_bytes(replace(record(1, ZERO_HASH), detail={"a": {"c": 3, "d": 2}, "b": 1}))
        )

    def test_are_written_even_for_what_utf8_cannot_carry(self) -> None:
        entry = replace(record(1, ZERO_HASH, note="a\ud800b"), detail={"\udfff": ["\ud800", 1]})
        read = unseal(seal(entry)[0])
        assert read.error is not None
        assert read.error.message == "a\ufffdb"
        assert read.detail == {"\ufffd": ["\ufffd", 1]}

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"seq":1}', b"\xff", b'"\xff"'])
    def test_that_are_no_record_are_refused_with_the_reason(self, body: bytes) -> None:
        with pytest.raises(ValueError, match="not a record"):
            unseal(body)

    def test_order_by_time_within_a_month_and_by_shards_of_it(self) -> None:
        early = time_index(TARGET, 2, START.astimezone(timezone(timedelta(hours=14))))
        late = time_index(TARGET, 1, START + timedelta(microseconds=1))
        assert early["at_key"] < late["at_key"]
        assert early["month_shard"] == late["month_shard"]
        assert early["month_shard"] in month_shards(2026, 9)
        spread = {time_index(f"1111222233{n:02d}/us-east-1", 1, START)["month_shard"] for n in range(100)}
        assert spread == set(month_shards(2026, 9))


class TestAWholeChain:
    @pytest.mark.parametrize("length", [0, 1, 2, 7])
    def test_has_no_finding(self, length: int) -> None:
        rows = chain(length)
        anchors = [(seq, rows[seq - 1].hash) for seq in range(1, length + 1)]
        assert verdict(rows, head(rows), *anchors) == set()

    def test_that_nobody_began_has_no_finding(self) -> None:
        assert verdict([], None) == set()

    def test_may_carry_a_copy_of_a_field_beside_the_body(self) -> None:
        rows = [
            replace(row, index={**row.index, "outcome": "REMEDIATED", "seq": seq})
            for seq, row in enumerate(chain(3), 1)
        ]
        assert verdict(rows, head(rows)) == set()

    def test_may_hold_records_of_a_newer_guard(self) -> None:
        rows = chain(2)
        body = (
            rows[1].body.replace(b'"REMEDIATED"', b'"QUARANTINED"').replace(b'{"actions"', b'{"aa_new":[1],"actions"')
        )
        rows[1] = replace(rows[1], body=body, hash=digest(body))
        assert verdict(rows, head(rows)) == set()


class TestAnEdit:
    @given(st.integers(3, 8), st.data())
    @settings(max_examples=60, deadline=None)
    def test_of_any_byte_of_a_body_is_named_at_its_record(self, length: int, data: st.DataObject) -> None:
        rows = chain(length)
        seq = data.draw(st.integers(1, length))
        body = bytearray(rows[seq - 1].body)
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] ^= data.draw(st.integers(1, 255))
        edited = list(rows)
        edited[seq - 1] = replace(rows[seq - 1], body=bytes(body))
        found = verdict(edited, head(rows))
        assert (seq, "EDITED") in found
        assert {where for where, _ in found} == {seq}

    def test_of_the_stored_hash_is_named_at_its_record(self) -> None:
        rows = chain(4)
        for seq in range(1, 5):
            edited = list(rows)
            edited[seq - 1] = replace(rows[seq - 1], hash="f" * 64)
            assert verdict(edited, head(rows)) == {(seq, "EDITED")}

    @given(st.integers(1, 6))
    def test_with_its_hash_made_to_fit_is_given_away_by_what_was_written_after(self, seq: int) -> None:
        rows = chain(6)
        found = verdict(rewritten(rows, seq), head(rows))
        assert found == {(seq, "BROKEN_LINK" if seq < 6 else "HEAD_MISMATCH")}

    def test_of_the_link_itself_with_its_hash_made_to_fit_is_named_at_its_record(self) -> None:
        rows = chain(6)
        forged = rewritten(rows, 3, lambda entry: replace(entry, prev_hash="a" * 64))
        assert verdict(forged, head(rows)) == {(3, "BROKEN_LINK")}

    def test_of_the_first_record_can_not_make_it_look_like_a_later_one(self) -> None:
        rows = chain(3)
        forged = rewritten(rows, 1, lambda entry: replace(entry, prev_hash="a" * 64), upto=3)
        assert verdict(forged, head(forged)) == {(1, "BROKEN_LINK")}

    @given(st.integers(1, 5))
    def test_carried_on_to_the_end_is_given_away_by_the_head(self, seq: int) -> None:
        rows = chain(5)
        assert verdict(rewritten(rows, seq, upto=5), head(rows)) == {(5, "HEAD_MISMATCH")}

    @given(st.integers(1, 7), st.integers(1, 7))
    def test_carried_on_to_the_head_is_given_away_by_any_anchor_after_it_and_by_none_before(
        self, seq: int, anchor: int
    ) -> None:
        rows = chain(7)
        forged = rewritten(rows, seq, upto=7)
        found = verdict(forged, head(forged), (anchor, rows[anchor - 1].hash))
        assert found == ({(anchor, "ANCHOR_MISMATCH")} if anchor >= seq else set())

    def test_between_anchors_is_said_to_lie_between_them(self) -> None:
        rows = chain(9)
        forged = rewritten(rows, 5, upto=9)
        anchors = [Anchored(seq, rows[seq - 1].hash, f"the sweep of {seq} o'clock") for seq in (2, 4, 8)]
        (finding,) = verify_chain(TARGET, forged, head(forged), anchors)
        assert finding.seq == 8
        assert "of the records 5 to 8" in finding.message
        assert "8 o'clock" in finding.message

    @pytest.mark.parametrize("name", ["month_shard", "at_key"])
    def test_of_the_time_index_is_named_at_its_record(self, name: str) -> None:
        rows = chain(3)
        hidden = {key: value for key, value in rows[1].index.items() if key != name}
        for index in ({**rows[1].index, name: "2020-01#0"}, hidden):
            assert verdict([rows[0], replace(rows[1], index=index), rows[2]], head(rows)) == {(2, "INDEX_EDITED")}

    @pytest.mark.parametrize("extra", [{"outcome": "COMPLIANT"}, {"invented": None}, {"invented": "x"}, {"seq": 3}])
    def test_beside_the_body_is_named_at_its_record(self, extra: dict[str, object]) -> None:
        rows = chain(3)
        edited = [rows[0], replace(rows[1], index={**rows[1].index, **extra}), rows[2]]
        assert verdict(edited, head(rows)) == {(2, "INDEX_EDITED")}

    @pytest.mark.parametrize("body", [b"", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"at":"yesterday"}'])
    def test_that_leaves_no_record_is_named_even_with_a_hash_that_fits(self, body: bytes) -> None:
        rows = chain(3)
        edited = [rows[0], replace(rows[1], body=body, hash=digest(body)), rows[2]]
        assert (2, "UNREADABLE") in verdict(edited, head(rows))

    def test_of_a_time_beyond_the_calendar_is_a_finding_and_no_error(self) -> None:
        rows = chain(1)
        body = rows[0].body.replace(b'"at":"2026-09-30T10:00:01Z"', b'"at":"9999-12-31T23:59:59-14:00"', 1)
        assert (1, "INDEX_EDITED") in verdict([replace(rows[0], body=body, hash=digest(body))], (1, digest(body)))


class TestADeletion:
    @given(st.integers(2, 9), st.data())
    def test_of_records_before_the_last_is_named_at_the_first_gone(self, length: int, data: st.DataObject) -> None:
        rows = chain(length)
        first = data.draw(st.integers(1, length - 1))
        last = data.draw(st.integers(first, length - 1))
        assert verdict(rows[: first - 1] + rows[last:], head(rows)) == {(first, "MISSING")}

    def test_says_how_much_is_gone(self) -> None:
        rows = chain(6)
        (finding,) = verify_chain(TARGET, rows[:1] + rows[4:], head(rows))
        assert finding == Finding(TARGET, 2, "MISSING", "records 2 to 4 are missing")

    def test_hidden_by_numbering_the_rest_anew_is_given_away_by_the_head(self) -> None:
        rows = chain(5)
        forged = rows[:1]
        for seq in (2, 3, 4):
            forged.append(stored(replace(unseal(rows[seq].body), seq=seq, prev_hash=forged[-1].hash)))
        assert (5, "TRUNCATED") in verdict(forged, head(rows))
        assert verdict(forged, head(forged), (3, rows[2].hash)) == {(3, "ANCHOR_MISMATCH")}

    @given(st.integers(0, 5))
    def test_of_the_end_is_given_away_by_the_head(self, kept: int) -> None:
        rows = chain(6)
        assert verdict(rows[:kept], head(rows)) == {(kept + 1, "TRUNCATED")}

    @given(st.integers(0, 5), st.integers(1, 6))
    def test_of_the_end_with_the_head_set_back_is_given_away_by_any_anchor_beyond(self, kept: int, anchor: int) -> None:
        rows = chain(6)
        found = verdict(rows[:kept], head(rows[:kept]), (anchor, rows[anchor - 1].hash))
        assert found == ({(kept + 1, "TRUNCATED")} if anchor > kept else set())

    def test_of_everything_with_the_state_is_given_away_by_an_anchor(self) -> None:
        rows = chain(3)
        assert verdict([], None, (3, rows[2].hash)) == {(1, "TRUNCATED")}

    def test_of_the_state_alone_is_named(self) -> None:
        assert verdict(chain(3), None) == {(3, "HEAD_MISSING")}


class TestAReordering:
    @given(st.integers(2, 8), st.data())
    @settings(deadline=None)
    def test_of_two_records_under_each_others_keys_is_named_at_both(self, length: int, data: st.DataObject) -> None:
        rows = chain(length)
        one = data.draw(st.integers(1, length - 1))
        two = data.draw(st.integers(one + 1, length))
        swapped = list(rows)
        swapped[one - 1] = replace(rows[two - 1], sk=sort_key(one))
        swapped[two - 1] = replace(rows[one - 1], sk=sort_key(two))
        found = verdict(swapped, head(rows))
        assert {(one, "MOVED"), (two, "MOVED")} <= found
        assert {seq for seq, _ in found} == {one, two}

    def test_of_two_records_that_were_numbered_anew_is_given_away_by_their_neighbours(self) -> None:
        rows = chain(6)
        second, third = unseal(rows[1].body), unseal(rows[2].body)
        swapped = list(rows)
        swapped[1] = stored(replace(third, seq=2, prev_hash=rows[0].hash))
        swapped[2] = stored(replace(second, seq=3, prev_hash=swapped[1].hash))
        assert verdict(swapped, head(rows)) == {(3, "BROKEN_LINK")}

    def test_of_the_rows_as_they_are_delivered_is_named(self) -> None:
        rows = chain(4)
        assert verdict([rows[0], rows[2], rows[1], rows[3]], head(rows)) == {(2, "OUT_OF_ORDER")}


class TestAForgery:
    def test_of_records_after_the_head_is_named_at_the_first(self) -> None:
        rows = chain(5)
        assert verdict(rows, head(rows[:3])) == {(4, "UNKNOWN_TO_HEAD")}
        assert verdict(rows, (0, ZERO_HASH)) == {(1, "UNKNOWN_TO_HEAD")}

    def test_of_a_copy_of_a_record_at_the_end_is_named(self) -> None:
        rows = chain(3)
        found = verdict([*rows, replace(rows[1], sk=sort_key(4))], head(rows))
        assert {(4, "MOVED"), (4, "UNKNOWN_TO_HEAD")} <= found

    def test_of_a_second_row_for_a_record_is_named(self) -> None:
        rows = chain(3)
        assert verdict([rows[0], rows[1], rows[1], rows[2]], head(rows)) == {(2, "DUPLICATE")}

    @pytest.mark.parametrize(
        "key", ["r#2", "r#0000000000002", "r#00000000000x", "R#000000000002", "", "r#000000000000", "r#00000000000２"]
    )
    def test_of_a_key_that_is_no_records_is_named(self, key: str) -> None:
        rows = chain(3)
        assert verdict([*rows, replace(rows[1], sk=key)], head(rows)) == {(0, "BAD_KEY")}

    def test_of_another_targets_record_is_named_at_its_place(self) -> None:
        rows, others = chain(3), chain(3, "444455556666/us-east-1")
        planted = [rows[0], replace(others[1], target=TARGET), rows[2]]
        assert (2, "FOREIGN") in verdict(planted, head(rows))
        assert {seq for seq, _ in verdict(planted, head(rows))} == {2}

    def test_of_a_row_filed_under_another_target_is_named(self) -> None:
        rows, others = chain(2), chain(3, "444455556666/us-east-1")
        assert verdict([*rows, others[2]], head(rows)) == {(3, "FOREIGN")}

    def test_of_the_heads_hash_is_named(self) -> None:
        rows = chain(3)
        assert verdict(rows, (3, "f" * 64)) == {(3, "HEAD_MISMATCH")}
        assert verdict([], (0, "f" * 64)) == {(0, "HEAD_MISMATCH")}

    @pytest.mark.parametrize("code", ["EDITED", "BROKEN_LINK"])
    def test_hides_no_other(self, code: str) -> None:
        rows = rewritten(chain(9), 3)
        rows[6] = replace(rows[6], body=rows[6].body.replace(b"REMEDIATED", b"COMPLIANT!"))
        assert code in {found for _, found in verdict(rows, head(chain(9)))}
        assert verdict(rows, head(chain(9))) == {(3, "BROKEN_LINK"), (7, "EDITED")}


TAMPERINGS = st.sampled_from(["edit", "rehash", "delete", "swap", "truncate", "copy"])


@given(st.lists(TAMPERINGS, min_size=1, max_size=4), st.data())
@settings(max_examples=150, deadline=None)
def test_no_mix_of_tamperings_passes_for_whole(tamperings: list[str], data: st.DataObject) -> None:
    whole = chain(7)
    rows = list(whole)
    for tampering in tamperings:
        rows = tampered(rows, tampering, data.draw(st.integers(0, max(len(rows) - 1, 0))))
    if rows == whole:
        return  # two swaps that undo each other
    assert verdict(rows, head(whole)) != set()


def tampered(rows: Chain, tampering: str, place: int) -> Chain:
    if not rows:
        return rows
    rows = list(rows)
    row: Any = rows[place]
    if tampering == "edit":
        rows[place] = replace(row, body=row.body + b" ")
    elif tampering == "rehash":
        body = row.body.replace(b"Alice", b"Mallory")
        rows[place] = replace(row, body=body, hash=digest(body))
    elif tampering == "delete":
        del rows[place]
    elif tampering == "swap" and len(rows) > 1:
        other = (place + 1) % len(rows)
        rows[place], rows[other] = replace(rows[other], sk=row.sk), replace(row, sk=rows[other].sk)
    elif tampering == "truncate":
        rows = rows[: max(place, 0)]
    elif tampering == "copy":
        rows.append(replace(row, sk=sort_key(len(rows) + 1)))
    return rows


class TestAnchorDigest:
    @given(st.permutations([("a", 1, "x"), ("b", 2, "y"), ("c", 3, "z")]))
    def test_does_not_depend_on_the_order_of_the_heads(self, heads: list[tuple[str, int, str]]) -> None:
        assert anchor_digest(heads) == anchor_digest(sorted(heads))

    def test_depends_on_every_part_of_every_head(self) -> None:
        heads = [("a", 1, "x"), ("b", 2, "y")]
        others: list[list[tuple[str, int, str]]] = [
            [],
            heads[:1],
            [("a", 1, "x"), ("b", 2, "z")],
            [("a", 1, "x"), ("b", 3, "y")],
            [("a", 1, "x"), ("c", 2, "y")],
        ]
        assert len({anchor_digest(each) for each in [heads, *others]}) == 6
