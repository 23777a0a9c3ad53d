"""The policy as values: who is governed by what, and no action without a stamped document (P12)."""

from __future__ import annotations

import fnmatch
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.model import Target
from chalicelib.domain.policy import (
    BreakGlass,
    KeyKind,
    Limits,
    ManagedKey,
    Mode,
    Policy,
    PolicyError,
    Require,
    Rule,
    SpansRule,
    When,
    arn_covers,
    arn_matches,
    glob_covers,
    glob_matches,
    load_stamped,
    parse,
    sha256_of,
)
from chalicelib.operators.policy_check import stamp

SHIPPED = Path(__file__).resolve().parents[2] / "policies"

PATTERNS = st.text(alphabet="ab*?", max_size=7)
TEXTS = st.text(alphabet="ab", max_size=7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the shipped document, stamped."""
    (tmp_path / "policy.json").write_bytes((SHIPPED / "policy.json").read_bytes())
    stamp(tmp_path)
    return tmp_path


def refusal(folder: Path) -> PolicyError:
    with pytest.raises(PolicyError) as refused:
        load_stamped(folder)
    return refused.value


def rule(name: str, accounts: tuple[str, ...] = ("*",), regions: tuple[str, ...] = ("*",)) -> Rule:
    return Rule(id=name, accounts=accounts, regions=regions, mode=Mode.ENFORCE)


def test_the_shipped_document_reads_as_it_is_written(folder: Path) -> None:
    policy = load_stamped(folder)

    assert policy.limits == Limits(remediations_per_sweep=50, max_backoff_minutes=5)
    assert policy.rules == (
        Rule(
            id="baseline",
            accounts=("*",),
            regions=("*",),
            mode=Mode.ENFORCE,
            when=When.IN_USE,
            require=Require(
                key=KeyKind.CUSTOMER,
                allowed_keys=("alias/xray-encryption",),
                same_account=True,
                rotation=True,
                spans=SpansRule.ENCRYPT,
                copies_to=(),
            ),
            managed_key=ManagedKey(
                alias="alias/xray-encryption",
                description="X-Ray trace encryption",
                rotation_days=365,
                tags={"purpose": "xray-encryption"},
                trace_readers="account",
                ensure=False,
            ),
            break_glass=BreakGlass(
                tag="xray-guard-break-glass",
                max_hours=12,
                principals=("arn:*:iam::*:role/SecurityBreakGlass",),
            ),
        ),
    )


def test_the_digest_names_the_very_bytes_of_the_document(folder: Path) -> None:
    before = load_stamped(folder).digest
    (folder / "policy.json").write_bytes((folder / "policy.json").read_bytes() + b"\n")
    stamp(folder)

    assert load_stamped(folder).digest != before


def test_P12_an_absent_document_is_refused(folder: Path) -> None:
    (folder / "policy.json").unlink()

    assert refusal(folder).code == "POLICY_ABSENT"


def test_P12_a_document_without_a_stamp_is_refused(folder: Path) -> None:
    (folder / "policy.stamp.json").unlink()

    assert refusal(folder).code == "POLICY_UNSTAMPED"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"sha256": 1, "schema_sha256": ""}', b"\xff", b"[" * 100_000]
)
def test_P12_a_stamp_that_cannot_be_read_is_no_stamp(folder: Path, content: bytes) -> None:
    (folder / "policy.stamp.json").write_bytes(content)

    assert refusal(folder).code == "POLICY_UNSTAMPED"


def test_P12_a_document_altered_by_one_byte_after_its_stamp_is_refused(folder: Path) -> None:
    document = (folder / "policy.json").read_bytes()
    (folder / "policy.json").write_bytes(document.replace(b'"enforce"', b'"observe"'))

    assert refusal(folder).code == "POLICY_ALTERED"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"version": 2, "rules": []}', b"\xff", b"[" * 100_000])
def test_P12_a_document_that_was_stamped_for_other_code_is_refused(folder: Path, content: bytes) -> None:
    (folder / "policy.json").write_bytes(content)
    (folder / "policy.stamp.json").write_text(json.dumps({"sha256": sha256_of(content), "schema_sha256": ""}))

    assert refusal(folder).code == "POLICY_UNREADABLE"


def test_P12_a_document_that_is_no_file_is_refused(folder: Path) -> None:
    (folder / "policy.json").unlink()
    (folder / "policy.json").mkdir()

    assert refusal(folder).code == "POLICY_UNREADABLE"


def test_a_refusal_says_which_file_and_what_to_do(folder: Path) -> None:
    (folder / "policy.stamp.json").unlink()

    assert str(folder / "policy.stamp.json") in refusal(folder).message
    assert "package again" in refusal(folder).message


def test_the_first_rule_that_matches_governs() -> None:
    policy = Policy(
        Limits(),
        (
            rule("sandboxes", accounts=("9999*",)),
            rule("europe", regions=("eu-*", "us-east-?")),
            rule("one", accounts=("111122223333",)),
        ),
        digest="",
    )

    def governs(text: str) -> str | None:
        found = policy.rule_for(Target.parse(text))
        return found.id if found else None

    assert governs("999911112222/eu-west-1") == "sandboxes"
    assert governs("111122223333/eu-west-1") == "europe"
    assert governs("111122223333/us-east-1") == "europe"
    assert governs("111122223333/us-west-1") == "one"
    assert governs("222233334444/us-west-1") is None


def test_a_rule_that_is_off_needs_to_say_nothing_else() -> None:
    policy = parse(b'{"version": 1, "rules": [{"id": "a", "accounts": ["*"], "regions": ["*"], "mode": "off"}]}')

    assert policy.rules[0].mode is Mode.OFF
    assert policy.rules[0].break_glass is None


@given(PATTERNS, TEXTS)
def test_a_glob_matches_as_the_shell_does(pattern: str, text: str) -> None:
    assert glob_matches(pattern, text) == fnmatch.fnmatchcase(text, pattern)


def test_a_glob_knows_no_brackets_and_minds_case() -> None:
    assert glob_matches("[ab]", "[ab]")
    assert not glob_matches("[ab]", "a")
    assert not glob_matches("A", "a")


def test_a_glob_of_many_stars_stays_quick_on_a_hostile_text() -> None:
    assert not glob_matches("*a" * 200 + "b", "a" * 4000)


@given(PATTERNS, PATTERNS, TEXTS)
def test_what_a_glob_covers_it_matches(wider: str, narrower: str, text: str) -> None:
    if glob_covers(wider, narrower) and glob_matches(narrower, text):
        assert glob_matches(wider, text)


@given(PATTERNS)
def test_a_glob_covers_itself_and_what_is_literal(pattern: str) -> None:
    assert glob_covers(pattern, pattern)
    assert glob_covers("*", pattern)


@given(PATTERNS, TEXTS)
def test_a_glob_covers_a_text_exactly_when_it_matches_it(pattern: str, text: str) -> None:
    assert glob_covers(pattern, text) == glob_matches(pattern, text)


ARN = "arn:aws:iam::111122223333:role/team/Reader"


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        (ARN, True),
        ("arn:*:iam::*:role/team/Reader", True),
        ("arn:*:iam::*:role/*", True),
        ("arn:*:iam::*:role/*/Reader", True),
        ("arn:aws:iam::11112222????:role/*", True),
        ("arn:*:iam::*:*", True),
        ("arn:*:iam::*:role/Reader", False),
        ("arn:*:iam::*:role/team/reader", False),
        ("arn:*:iam::*:user/*", False),
        ("arn:aws-us-gov:iam::*:role/*", False),
        ("arn:*:role/team/Reader", False),  # a star does not reach over a colon
        ("arn:*", False),
        ("*", False),
        ("", False),
    ],
)
def test_an_arn_pattern_is_read_part_by_part_as_iam_does(pattern: str, fits: bool) -> None:
    assert arn_matches(pattern, ARN) is fits


@pytest.mark.parametrize(
    ("pattern", "arn"),
    [
        ("arn:aws:iam::*:role/Reader", "arn:aws:iam::111122223333:user/x:role/Reader"),
        ("arn:*:iam::111122223333:role/Reader", "arn:aws:kms:iam::111122223333:role/Reader"),
        ("arn:aws:*:*:111122223333:key/*", "arn:aws:kms:us-east-1:444455556666:alias/x:111122223333:key/y"),
        ("arn:aws:iam::1111*:role/Reader", "arn:aws:iam::1111:x:role/Reader"),
    ],
)
def test_p14_a_star_in_an_arn_pattern_never_reaches_over_a_colon(pattern: str, arn: str) -> None:
    """Whoever may choose one part of an ARN must not be able to look like another part of it."""
    assert not arn_matches(pattern, arn)
    assert not arn_covers(pattern, arn)


def test_an_arn_pattern_fits_only_arns() -> None:
    assert not arn_matches("arn:*:iam::*:role/*", "unknown")
    assert not arn_matches("arn:*:*:*:*:*", "config.amazonaws.com")


ARN_PATTERNS = st.lists(st.text(alphabet="a*?", max_size=2), min_size=5, max_size=7).map(":".join)


@given(ARN_PATTERNS, ARN_PATTERNS, ARN_PATTERNS)
def test_what_an_arn_pattern_covers_it_matches(wider: str, narrower: str, arn: str) -> None:
    if arn_covers(wider, narrower) and arn_matches(narrower, arn):
        assert arn_matches(wider, arn)


def test_nobody_keeps_the_judging_of_a_pattern_busy_with_stars_upon_stars() -> None:
    """A process would be ended at its timeout, again and again. Measured in its own time, for machines are busy."""
    began = time.process_time()
    for tail in ("a*", "?*a", "/*:x*"):
        assert not glob_covers("*" * 30_000 + tail + "!", "arn:aws:kms:us-east-1:123456789012:key/*")
    assert time.process_time() - began < 5


def test_rules_that_differ_in_a_tag_only_are_told_apart_wherever_answers_are_kept_by_rule() -> None:
    plain = Rule("baseline", ("*",), ("*",), Mode.ENFORCE)
    tagged = Rule("baseline", ("*",), ("*",), Mode.ENFORCE, managed_key=ManagedKey(tags={"purpose": "tracing"}))

    assert len({plain, tagged}) == 2
    assert hash(tagged) == hash(Rule("baseline", ("*",), ("*",), Mode.ENFORCE, managed_key=tagged.managed_key))
