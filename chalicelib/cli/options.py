"""Option and argument types of several verbs: the common options, targets and times."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from chalicelib.domain.model import Target, is_region
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GUARD_CHAIN
from chalicelib.operators.context import Operator
from chalicelib.operators.times import parse_time

if TYPE_CHECKING:
    from chalicelib.auditlog.filters import Filter

F = TypeVar("F", bound=Callable[..., Any])

pass_operator = click.make_pass_decorator(Operator, ensure=True)

OUTPUTS = ("table", "json", "jsonl")


def _store(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Store a given option; one after the verb overrides one before it."""
    operator = context.ensure_object(Operator)
    if value is not None and parameter.name is not None:
        operator.set_option(parameter.name, value)
    return value


def common_options(command: F) -> F:
    """Add `--output`, `--profile`, `--region` and `--policy`, stored in the `Operator`."""
    for option in (
        click.option(
            "--policy",
            "policy_path",
            metavar="PATH",
            help="Policy document, or its folder [default: the policy in force, or this project's if there is none]",
        ),
        click.option("--region", "region_name", metavar="REGION", help="Region where the guard is deployed"),
        click.option("--profile", metavar="NAME", help="Profile of your AWS configuration"),
        click.option("-o", "--output", type=click.Choice(OUTPUTS), help="Output format [default: table]"),
    ):
        command = option(command)
    for parameter in _parameters(command):
        if parameter.name in ("policy_path", "region_name", "profile", "output"):
            parameter.callback, parameter.expose_value = _store, False
    return command


def _parameters(command: Any) -> list[click.Parameter]:
    found = command.params if isinstance(command, click.Command) else getattr(command, "__click_params__", [])
    return list(found)


class TargetType(click.ParamType[Target]):
    """An account and Region."""

    name = "target"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Target:
        """Parse the text, or fail with the expected format."""
        if isinstance(value, Target):
            return value
        try:
            return Target.parse(value)
        except ValueError as error:
            self.fail(str(error), parameter, context)


TARGET = TargetType()


def moment(text: str, now: datetime, option: str) -> datetime:
    """Parse the time of an option. Raises BadParameter."""
    try:
        return parse_time(text, now)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a time: write an age such as 90s, 30m, 24h, 7d or 2w, or a time such as "
            "2026-11-20T18:00:00Z",
            param_hint=option,
        ) from None


def filter_of(
    target: str | None,
    account: str | None,
    region: str | None,
    outcomes: tuple[Outcome, ...] = (),
    actor: str | None = None,
    rule: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Filter:
    """Return the records that the options select. Raises BadParameter."""
    from chalicelib.auditlog.filters import Filter

    if target is not None and target != GUARD_CHAIN:
        try:
            Target.parse(target)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--target") from error
    if account is not None and not (len(account) == 12 and account.isascii() and account.isdigit()):
        raise click.BadParameter(f"{account!r} is not an account id of twelve digits", param_hint="--account")
    if region is not None and not is_region(region):
        hint = f"{region!r} is not the name of a Region, such as us-east-1"
        raise click.BadParameter(hint, param_hint="--target-region")
    if since is not None and until is not None and since >= until:
        raise click.BadParameter("--until must be later than --since", param_hint="--until")
    return Filter(target, account, region, outcomes, actor, rule, since, until)
