"""Option and argument types of several verbs: the common options, filters, targets, codes and times."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import click

from chalicelib.cli import completing
from chalicelib.domain.model import Target, is_region
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.stored import GUARD_CHAIN
from chalicelib.operators.context import Operator
from chalicelib.operators.output import say
from chalicelib.operators.times import parse_time

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from chalicelib.auditlog.filters import Filter

F = TypeVar("F", bound=Callable[..., Any])

pass_operator = click.make_pass_decorator(Operator, ensure=True)

OUTPUTS = ("table", "wide", "json", "jsonl", "yaml")


def _store(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Store a given option; one after the verb overrides one before it."""
    operator = context.ensure_object(Operator)
    if value is not None and parameter.name is not None:
        operator.set_option(parameter.name, value)
        if parameter.name == "region_name" and not context.resilient_parsing:
            say(
                "--region names the Region where the guard is deployed, in this release for the last time: write "
                "--home-region. To name a target, write its Region in place of TARGET."
            )
    if operator.home_region and operator.region_name:
        raise click.UsageError("--region is the former name of --home-region: give only --home-region.", context)
    return value


class OutputType(click.Choice[str]):
    """An output format. The name of a file is a frequent mistake."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """Parse the format, or fail with how to write a file."""
        if isinstance(value, str) and ("." in value or "/" in value):
            hint = "--file" if context and context.info_name == "export" else "redirect stdout"
            self.fail(f"{value!r} is not a format ({', '.join(OUTPUTS)}). To write a file: {hint}", parameter, context)
        return super().convert(value, parameter, context)


def common_options(command: F) -> F:
    """Add the options that every verb has. They are stored in the `Operator`."""
    for option in (
        click.option(
            "--policy",
            "policy_path",
            metavar="PATH",
            help="Policy document, or its folder [default: the one in force, or that of this program]",
        ),
        click.option("--region", "region_name", metavar="REGION", hidden=True),
        click.option("--home-region", metavar="REGION", help="Region where the guard is deployed"),
        click.option("--profile", metavar="NAME", help="Profile of your AWS configuration"),
        click.option("-o", "--output", type=OutputType(OUTPUTS), help="Output format [default: table]"),
    ):
        command = option(command)
    for parameter in _parameters(command):
        if parameter.name in ("policy_path", "region_name", "home_region", "profile", "output"):
            parameter.callback, parameter.expose_value = _store, False
    return command


def _parameters(command: Any) -> list[click.Parameter]:
    found = command.params if isinstance(command, click.Command) else getattr(command, "__click_params__", [])
    return list(found)


class TargetType(click.ParamType[Any]):
    """An account and Region, or a Region of the credentials' account, as a `Target`.

    With `or_guard`, the name of a chain: the target's text, or `guard`.
    """

    name = "target"

    def __init__(self, *, or_guard: bool = False) -> None:
        self._or_guard = or_guard

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Parse the text, or fail with the expected format. Reads the account from STS only if the text has none."""
        if isinstance(value, Target) or (self._or_guard and value == GUARD_CHAIN):
            return value
        try:
            target = Target.parse(_with_account(value, context))
        except ValueError as error:
            alternatives = "us-east-1 for the account of your credentials" + (", or guard" if self._or_guard else "")
            self.fail(f"{error}, or {alternatives}", parameter, context)
        return str(target) if self._or_guard else target

    def shell_complete(
        self, context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the targets that the guard knows."""
        chains = [GUARD_CHAIN] if self._or_guard else []
        return completing.items([*completing.targets(context, incomplete), *chains], incomplete)


def _with_account(text: str, context: click.Context | None) -> str:
    """Put the account of the credentials before a Region."""
    operator = context.find_object(Operator) if context else None
    return f"{operator.identity.account}/{text}" if operator is not None and is_region(text) else text


class IncidentType(click.ParamType[str]):
    """The id of an incident or of a record: `111122223333/us-east-1#7`, `us-east-1#7` or `guard#7`."""

    name = "incident"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """Put the account of the credentials before an id without one."""
        chain, number, seq = str(value).partition("#")
        return f"{_with_account(chain, context)}{number}{seq}"

    def shell_complete(
        self, context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the ids of the open incidents and the latest other ones."""
        return completing.items(completing.incidents(context), incomplete)


C = TypeVar("C", bound=StrEnum)


class CodesType(click.ParamType[tuple[C, ...]]):
    """Codes, separated by commas, in any case."""

    name = "codes"

    def __init__(self, codes: type[C]) -> None:
        self._codes = codes

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> tuple[C, ...]:
        """Parse the list, or fail with the codes that exist."""
        if not isinstance(value, str):
            return tuple(value)
        known = {code.value: code for code in self._codes}
        found = []
        for name in value.upper().split(","):
            if name.strip() not in known:
                self.fail(f"{name.strip()!r} is not one of {', '.join(known)}", parameter, context)
            found.append(known[name.strip()])
        return tuple(found)

    def shell_complete(
        self, context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the last code of the list."""
        before, comma, last = incomplete.rpartition(",")
        return completing.items((before + comma + code.value for code in self._codes), before + comma + last.upper())


TARGET = TargetType()
CHAIN = TargetType(or_guard=True)
INCIDENT = IncidentType()


def codes_option(name: str, field: str, codes: type[StrEnum], help_text: str) -> Callable[[F], F]:
    """An option with codes, which may be repeated and may have several, separated by commas."""

    def joined(context: click.Context, parameter: click.Parameter, value: Iterable[tuple[StrEnum, ...]]) -> Any:
        return tuple(code for each in value for code in each)

    kind: click.ParamType[Any] = CodesType(codes)
    return click.option(name, field, type=kind, metavar="CODE,…", multiple=True, callback=joined, help=help_text)


FILTERS: tuple[Callable[[Any], Any], ...] = (
    click.option("--since", metavar="TIME", help="At or after this time: 90s, 30m, 24h, 7d, or 2026-11-20T18:00:00Z"),
    click.option("--until", metavar="TIME", help="Before this time"),
    click.option("--target", type=CHAIN, metavar="TARGET", help="Only this target, or `guard` for the guard's chain"),
    click.option("--account", metavar="ID", help="Only this account"),
    click.option("--target-region", metavar="REGION", help="Only this Region"),
    codes_option("--outcome", "outcomes", Outcome, "Only these outcomes, such as FAILED,DEFERRED"),
    click.option("--actor", metavar="TEXT", help="Part of the actor's ARN or session, or a glob for the whole"),
    click.option("--rule", metavar="ID", help="Only this rule"),
)


def filter_options(command: F) -> F:
    """Add the options that select records or incidents."""
    for option in reversed(FILTERS):
        command = option(command)
    return command


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
    now: datetime | None = None,
    *,
    target: str | None = None,
    account: str | None = None,
    target_region: str | None = None,
    outcomes: tuple[Outcome, ...] = (),
    actor: str | None = None,
    rule: str | None = None,
    since: str | None = None,
    until: str | None = None,
    violations: tuple[Violation, ...] = (),
) -> Filter:
    """Return what the options of `filter_options` select. Ages count back from `now`. Raises BadParameter."""
    from chalicelib.auditlog.filters import Filter

    if account is not None and not (len(account) == 12 and account.isascii() and account.isdigit()):
        raise click.BadParameter(f"{account!r} is not an account id of twelve digits", param_hint="--account")
    if target_region is not None and not is_region(target_region):
        hint = f"{target_region!r} is not the name of a Region, such as us-east-1"
        raise click.BadParameter(hint, param_hint="--target-region")
    start = moment(since, now, "--since") if since and now else None
    end = moment(until, now, "--until") if until and now else None
    if start is not None and end is not None and start >= end:
        raise click.BadParameter("--until must be later than --since", param_hint="--until")
    return Filter(target, account, target_region, outcomes, actor, rule, start, end, violations)
