"""The page of assumptions says of every belief what happens if it is wrong, and what it claims to be tested is."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/aws-assumptions.md").read_text("utf-8")
HEADINGS = ["assumption", "source", "", "what depends on it", "if it is wrong"]
MARKED_AS_TESTED = {
    "kms:GrantIsForAWSResource": "test_p13_a_grant_that_does_not_come_through_x_ray",
    "GetServiceGraph needs no": "test_p6_a_service_graph_that_may_not_be_read_counts_as_in_use",
    "aws:RequestTag": "test_p3_tags_that_count_for_nothing_at_create_key",
}


def rows() -> list[list[str]]:
    """Every row of every table, its cells without their margins."""
    lines = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_belief_has_a_source_a_confidence_a_use_and_what_happens_if_it_is_wrong() -> None:
    beliefs = [row for row in rows() if row != HEADINGS]
    assert len(beliefs) > 30
    assert [row[0] for row in beliefs if len(row) != len(HEADINGS) or not all(row)] == []
    assert {row[2] for row in beliefs} <= {"H", "M", "L", "UNKNOWN", "H/UNKNOWN"}


def test_every_belief_that_is_marked_as_tested_has_its_test() -> None:
    marked = [row[0] for row in rows() if "**T" in row[0]]
    tests = (ROOT / "tests/simulation/test_wrong_beliefs.py").read_text("utf-8")
    assert len(marked) == len(MARKED_AS_TESTED)
    for words, test in MARKED_AS_TESTED.items():
        assert [belief for belief in marked if words in belief], words
        assert f"def {test}" in tests
