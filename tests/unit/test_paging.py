"""One reader of pages for every adapter: to the last one, and never taking a broken list for a whole one."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.aws.paging import pages
from chalicelib.domain.errors import AwsError

MARKERS = {"Marker": "NextMarker"}


class Listing:
    """An operation whose responses are given."""

    def __init__(self, *responses: dict[str, Any]) -> None:
        self.requests: list[dict[str, Any]] = []
        self._responses = list(responses)

    def __call__(self, **parameters: Any) -> dict[str, Any]:
        self.requests.append(parameters)
        return self._responses.pop(0)


def test_every_page_is_read_with_the_parameters_of_the_first_and_the_token_of_the_one_before() -> None:
    listing = Listing({"NextMarker": "a", "Truncated": True}, {"NextMarker": "b", "Truncated": True}, {})
    assert len(list(pages("kms:ListKeys", listing, MARKERS, "Truncated", Limit=2))) == 3
    assert listing.requests == [{"Limit": 2}, {"Limit": 2, "Marker": "a"}, {"Limit": 2, "Marker": "b"}]


def test_a_token_beside_the_last_page_is_not_followed() -> None:
    listing = Listing({"NextMarker": "a", "Truncated": False})
    assert len(list(pages("kms:ListKeys", listing, MARKERS, "Truncated"))) == 1


def test_where_no_field_says_so_a_token_announces_the_next_page() -> None:
    listing = Listing({"LastEvaluatedKey": {"target": "a"}}, {})
    assert len(list(pages("dynamodb:Scan", listing, {"ExclusiveStartKey": "LastEvaluatedKey"}))) == 2
    assert listing.requests == [{}, {"ExclusiveStartKey": {"target": "a"}}]


@pytest.mark.parametrize("tokens", [{}, {"NextKeyMarker": "a"}, {"NextKeyMarker": "a", "NextVersionIdMarker": ""}])
def test_p2_a_page_announced_without_its_token_is_an_error_and_not_the_end(tokens: dict[str, str]) -> None:
    names = {"KeyMarker": "NextKeyMarker", "VersionIdMarker": "NextVersionIdMarker"}
    listing = Listing({"IsTruncated": True, **tokens})
    with pytest.raises(AwsError, match="another page") as raised:
        list(pages("s3:ListBucketVersions", listing, names, "IsTruncated"))
    assert raised.value.problem.retryable


def test_a_page_is_requested_only_when_it_is_needed() -> None:
    listing = Listing({"NextMarker": "a", "Truncated": True}, {})
    assert next(pages("kms:ListKeys", listing, MARKERS, "Truncated"))
    assert len(listing.requests) == 1
