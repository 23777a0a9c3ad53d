"""ARNs are taken apart in one place, whatever stands where an ARN should."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chalicelib.domain.model import arn_part

CODE = Path(__file__).parents[2] / "chalicelib"
ROLE = "arn:aws-us-gov:iam::111122223333:role/team:a/Ops"


def test_each_part_of_an_arn_is_found_and_a_colon_in_the_resource_belongs_to_it() -> None:
    assert [arn_part(ROLE, part) for part in range(1, 6)] == [
        "aws-us-gov",
        "iam",
        "",
        "111122223333",
        "role/team:a/Ops",
    ]


@pytest.mark.parametrize("text", ["", "unknown", "xray.amazonaws.com", "arn:aws:iam", "a:b:c:d:e:f"])
def test_what_is_no_arn_has_no_parts(text: str) -> None:
    assert [arn_part(text, part) for part in range(1, 6)] == [""] * 5


def test_no_module_takes_an_arn_apart_by_hand() -> None:
    by_hand = re.compile(r"\b(\w*arn|principal|allowed)\.r?(split|partition)\(\":\"")
    found = [
        f"{path.relative_to(CODE)}: {match[0]}"
        for path in sorted(CODE.rglob("*.py"))
        for match in by_hand.finditer(path.read_text("utf-8"))
        if "def arn_" not in path.read_text("utf-8")  # where ARNs and patterns of ARNs are read
    ]
    assert found == []
