"""The verbs `break-glass open`, `close` and `list`.

`open` and `close` only set or remove a tag, with the caller's own credentials. The guard reads the tag and decides
whether it is valid.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from chalicelib.cli.options import TARGET, common_options, moment, pass_operator
from chalicelib.domain.model import Target
from chalicelib.domain.stored import TargetState
from chalicelib.domain.times import parse_duration
from chalicelib.operators.context import Operator
from chalicelib.operators.layout import Column, LeaveOut, Shorten, Table, to_the_minute, without_account
from chalicelib.operators.output import emit, print_table, say

if TYPE_CHECKING:
    from chalicelib.domain.policy import BreakGlass

KMS_TAG_VALUE = re.compile(r"[\w .:/=+\-@]{1,256}", re.ASCII)
"""The tag values that every KMS endpoint accepts. https://docs.aws.amazon.com/kms/latest/APIReference/API_Tag.html"""

COLUMNS = (
    Column("target", short=without_account),
    Column("status"),
    Column("why", wraps=True),
    Column("opened by", wraps=True),
    Column("reason", wraps=True),
    Column("since"),
    Column("until", short=to_the_minute),
    Column("allowed"),
)
CONCESSIONS = (Shorten("target"), LeaveOut("since"), LeaveOut("allowed"), Shorten("until"), LeaveOut("why"))


@click.group("break-glass")
def break_glass_group() -> None:
    """Suspend remediation of one target for a limited time."""


@break_glass_group.command(
    "open", epilog="Example: xray-guard break-glass open 111122223333/us-east-1 --for 2h --reason INC-1234"
)
@click.argument("target", type=TARGET)
@click.option("--for", "span", required=True, metavar="DURATION", help="Duration: 30m, 2h, 1d")
@click.option("--reason", required=True, help="Ticket or reason; it becomes part of the tag and of the record")
@common_options
@pass_operator
def open_verb(operator: Operator, target: Target, span: str, reason: str) -> int:
    """Suspend remediation of TARGET by tagging its managed key.

    Uses your own credentials. You must be one of the rule's break-glass principals: the key policy denies the tag to
    everyone else. The break-glass is in force from the moment the guard sees the tag until the end that you set, but at
    most for the rule's `max_hours`. Setting the same value again does not extend it.
    """
    state, glass = _carrier(operator, target)
    now = operator.now()
    end = now + _duration(span)
    value = f"{end:%Y%m%dT%H%M%SZ} {' '.join(reason.split())}"
    if len(value.split()) < 2 or not KMS_TAG_VALUE.fullmatch(value):
        raise click.BadParameter(
            "a tag value may contain letters, digits, spaces and _ . : / = + - @, and at most 256 characters "
            "including the end time",
            param_hint="--reason",
        )
    _kms(operator, target, glass, "TagResource", state.managed_key, Tags=[{"TagKey": glass.tag, "TagValue": value}])
    until = min(end, now + timedelta(hours=glass.max_hours))
    document = {
        "target": str(target),
        "key_arn": state.managed_key,
        "tag": glass.tag,
        "value": value,
        "until": _text(until),
    }
    emit(operator.output, document, None, lambda: click.echo(f"{document['key_arn']}  {glass.tag}={value}"))
    if until < end:
        say(f"The rule limits a break-glass to {glass.max_hours} hours: this one ends at {_text(until)}.")
    say("Tagged. `xray-guard break-glass list` shows it once the guard has seen the tag, usually within a minute.")
    return 0


@break_glass_group.command("close", epilog="Example: xray-guard break-glass close 111122223333/us-east-1")
@click.argument("target", type=TARGET)
@common_options
@pass_operator
def close_verb(operator: Operator, target: Target) -> int:
    """End a break-glass by removing the tag from TARGET's managed key.

    The guard enforces again within five minutes, usually at once.
    """
    state, glass = _carrier(operator, target)
    _kms(operator, target, glass, "UntagResource", state.managed_key, TagKeys=[glass.tag])
    document = {"target": str(target), "key_arn": state.managed_key, "tag": glass.tag}
    emit(operator.output, document, None, lambda: click.echo(f"{state.managed_key}  {glass.tag} removed"))
    say("Untagged. The guard enforces again once it has seen that the tag is gone, within five minutes.")
    return 0


@break_glass_group.command("list", epilog="Example: xray-guard break-glass list --all --since 90d")
@click.option("--all", "everything", is_flag=True, help="Include refused and ended ones")
@click.option("--since", metavar="TIME", default="30d", show_default=True, help="With --all: those recorded since then")
@common_options
@pass_operator
def list_verb(operator: Operator, everything: bool, since: str) -> int:
    """List break-glasses: target, opener, end, and changes allowed.

    Shows what the guard has seen: a tag set a moment ago may be missing, see `open --wait`.
    """
    from chalicelib.auditlog import breakglasses
    from chalicelib.operators.formatting import NOTHING, actor_text, time_text

    operator.find_tables()
    now, states = operator.now(), list(operator.store.states())
    found = (
        breakglasses.every(operator.store, states, now, moment(since, now, "--since"))
        if everything
        else breakglasses.in_force(operator.store, states, now)
    )
    rows = [
        [
            each.target,
            each.status.partition(":")[0],
            each.status.partition(": ")[2] or NOTHING,
            actor_text(each.suppression.opened_by, each.target) if each.suppression.opened_by else "unknown",
            each.suppression.reason or each.suppression.value,
            time_text(each.suppression.first_seen),
            time_text(each.suppression.until),
            str(each.let_through),
        ]
        for each in found
    ]
    table = Table(COLUMNS, rows, "No break-glass to show." if everything else "No break-glass is open.", CONCESSIONS)
    document = {"break_glass": [each.to_json() for each in found]}
    emit(operator.output, document, "break_glass", lambda: print_table(operator.output, table))
    return 0


def _carrier(operator: Operator, target: Target) -> tuple[TargetState, BreakGlass]:
    """The target's state, with the managed key that carries the tag, and its rule's `break_glass`."""
    from chalicelib.operators.errors import CONFIGURATION, OperatorError

    rule = operator.policy.rule_for(target)
    if rule is None:
        raise OperatorError(
            f"no rule governs {target} in {operator.policy_name}",
            "nothing: the guard does not change a target that no rule governs. If you named another document than the "
            "one in force, omit --policy",
            CONFIGURATION,
        )
    if rule.break_glass is None:
        raise OperatorError(
            f"rule {rule.id} governs {target} and does not define `break_glass` in {operator.policy_name}",
            "add `break_glass` to the rule and deploy the policy, or stop all remediation with `xray-guard pause`",
            CONFIGURATION,
        )
    state = operator.store.load(str(target)).state
    if state.managed_key is None:
        raise OperatorError(
            f"{target} has no managed key to tag yet",
            'let the guard create one (set `"ensure": true` in the rule\'s `managed_key`, or run '
            f"`xray-guard reconcile {target} --yes`), or tag the role that will make the change",
            CONFIGURATION,
        )
    return state, rule.break_glass


def _kms(
    operator: Operator, target: Target, glass: BreakGlass, operation: str, key_arn: str | None, **parameters: Any
) -> None:
    """Tag or untag the key. Raises OperatorError that names the permitted principals where AWS denies the call."""
    from chalicelib.aws.clients import call
    from chalicelib.domain.errors import DENIED, AwsError
    from chalicelib.operators.errors import REFUSED, OperatorError

    client = operator.clients.mutating("kms", target.region)
    method = {"TagResource": "tag_resource", "UntagResource": "untag_resource"}[operation]
    try:
        call(f"kms:{operation}", getattr(client, method), KeyId=key_arn, **parameters)
    except AwsError as error:
        if error.code not in DENIED:
            raise
        who = ", ".join(glass.principals)
        raise OperatorError(
            f"{operator.identity.arn} may not set or remove the tag {glass.tag} on {key_arn}",
            f"use the credentials of one of the rule's break-glass principals: {who}",
            REFUSED,
        ) from error


def _duration(text: str) -> timedelta:
    try:
        duration = parse_duration(text)
    except ValueError:
        duration = timedelta(0)
    if not duration:
        raise click.BadParameter(f"{text!r} is not a duration: write 30m, 2h or 1d", param_hint="--for")
    return duration


def _text(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
