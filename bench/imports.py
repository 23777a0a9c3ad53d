"""Assign the import time of a cold start to owners, from the output of `python -X importtime`.

A module's own time counts for its package. A module of the standard library counts for the first package that imported
it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|( *)(\S+)")
OWNERS = {
    "app": "app",
    "bare": "bare",
    "chalicelib": "chalicelib",
    "chalice": "chalice",
    "aws_lambda_powertools": "powertools",
    "typing_extensions": "powertools",
    "msgspec": "msgspec",
    "botocore": "boto3 and botocore",
    "boto3": "boto3 and botocore",
    "s3transfer": "boto3 and botocore",
    "jmespath": "boto3 and botocore",
    "dateutil": "boto3 and botocore",
    "six": "boto3 and botocore",
    "urllib3": "boto3 and botocore",
}
BEFORE = "before"
"""The owner of time that does not count: the interpreter's own start, and what is loaded before the handler."""


def shares(output: str, handler_module: str) -> dict[str, float]:
    """Return milliseconds by owner (each module of `chalicelib` separately) of the imports from the handler on."""
    found: dict[str, float] = defaultdict(float)
    for owner, module, seconds in _owned(output, handler_module):
        if owner == "chalicelib":
            found[module if module.startswith("chalicelib") else "chalicelib, standard library"] += seconds * 1000
        else:
            found[owner] += seconds * 1000
    return dict(found)


def _owned(output: str, handler_module: str) -> Iterator[tuple[str, str, float]]:
    """Yield (owner, module, its own seconds) of every import.

    A module is printed after the modules that it imports, so read backwards each one comes after its parent.
    """
    parents: list[tuple[int, str]] = []
    lines = [match for match in map(LINE.match, output.splitlines()) if match]
    names = [match[4] for match in lines]
    first = names.index(handler_module) if handler_module in names else len(lines)
    for position in range(len(lines) - 1, -1, -1):
        micros, _, indent, module = lines[position].groups()
        depth = len(indent)
        while parents and parents[-1][0] >= depth:
            parents.pop()
        above = parents[-1][1] if parents else (BEFORE if position < first else "handler")
        owner = OWNERS.get(module.partition(".")[0], above)
        parents.append((depth, owner))
        inside = position > first or _within(lines, position, first)
        if inside:
            yield owner, module, int(micros) / 1_000_000


def _within(lines: list[re.Match[str]], position: int, first: int) -> bool:
    """Whether a line before the handler's own line is one of the handler's imports."""
    depth = len(lines[first][3]) if first < len(lines) else 0
    return position == first or all(len(lines[between][3]) > depth for between in range(position, first))
