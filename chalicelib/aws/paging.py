"""Read every page of a paginated AWS operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from chalicelib.aws.clients import call
from chalicelib.domain.errors import AwsError


def pages(
    operation: str,
    send: Callable[..., Any],
    tokens: Mapping[str, str],
    more: str | None = None,
    **parameters: Any,
) -> Iterator[dict[str, Any]]:
    """Yield the response of each page.

    `tokens` maps each request parameter that selects the next page to the response field with its value. `more` names
    the field that says whether there is a next page; without `more`, there is one if the response has the tokens.

    Raises AwsError (UnexpectedAnswer) if AWS announces a next page but returns no token for it: the pages read so far
    do not show that anything is absent.
    """
    page: dict[str, Any] = {}
    while True:
        response = call(operation, send, **parameters, **page)
        yield response
        page = {parameter: response[field] for parameter, field in tokens.items() if response.get(field)}
        if not (response.get(more) if more else page):
            return
        if len(page) < len(tokens):
            raise AwsError(operation, "UnexpectedAnswer", "AWS announced another page, but gave no token for it")
