"""What several verbs take: the options that may stand before or after any verb, targets, and times."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from chalicelib.cli.session import Operator
from chalicelib.domain.model import Target

F = TypeVar("F", bound=Callable[..., Any])

OUTPUTS = ("table", "json", "jsonl")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
AGO = re.compile(r"([0-9]{1,6})([smhdw])")


def _kept(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Note an option that was given; one that stands after the verb overrules one before it."""
    operator = context.ensure_object(Operator)
    if value is not None and parameter.name is not None:
        operator.choose(parameter.name, value)
    return value


def common_options(command: F) -> F:
    """`--output`, `--profile`, `--region` and `--policy`, which the `Operator` keeps."""
    for option in (
        click.option(
            "--policy",
            "policy_path",
            metavar="PATH",
            help="Policy document, or its folder [the one that comes with this program]",
        ),
        click.option("--region", "region_name", metavar="REGION", help="Region where the guard is deployed"),
        click.option("--profile", metavar="NAME", help="Profile of the AWS configuration"),
        click.option("-o", "--output", type=click.Choice(OUTPUTS), help="Form of what goes to stdout [table]"),
    ):
        command = option(command)
    for parameter in _parameters(command):
        if parameter.name in ("policy_path", "region_name", "profile", "output"):
            parameter.callback, parameter.expose_value = _kept, False
    return command


def _parameters(command: Any) -> list[click.Parameter]:
    found = command.params if isinstance(command, click.Command) else getattr(command, "__click_params__", [])
    return list(found)


class TargetType(click.ParamType[Target]):
    """An account and Region."""

    name = "target"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Target:
        """Read it, or say how it is written."""
        if isinstance(value, Target):
            return value
        try:
            return Target.parse(value)
        except ValueError as error:
            self.fail(str(error), parameter, context)


TARGET = TargetType()


def moment(text: str, now: datetime, option: str) -> datetime:
    """`24h` before now, or an RFC 3339 time or date; without a zone it is UTC. Raises BadParameter."""
    ago = AGO.fullmatch(text)
    try:
        if ago:
            return now - timedelta(seconds=int(ago[1]) * UNITS[ago[2]])
        read = datetime.fromisoformat(text)
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is not a time: write 90s, 30m, 24h, 7d or 2w for that long ago, or 2026-11-20T18:00:00Z",
            param_hint=option,
        ) from None
