"""Every page of an AWS operation that returns its result in pages."""

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

    `tokens` maps each parameter that asks for the next page to the field of the response that it is taken from. `more`
    names the field that says whether there is a next page; without it there is one where the response has the tokens.

    Raises AwsError (UnexpectedAnswer) where AWS announces a next page and gives no token for it: what was read until
    then does not show that anything is absent.
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
