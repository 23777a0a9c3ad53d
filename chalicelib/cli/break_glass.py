"""The verbs `break-glass open`, `close` and `list`.

`open` and `close` only set or remove a tag, with the caller's own credentials. The guard reads the tag and decides
whether it is valid.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from chalicelib.cli.options import TARGET, common_options, moment, pass_operator
from chalicelib.domain.model import Target
from chalicelib.domain.stored import TargetState
from chalicelib.domain.times import parse_duration
from chalicelib.operators.context import Operator
from chalicelib.operators.formatting import duration_text, time_text
from chalicelib.operators.layout import Column, LeaveOut, Shorten, Table, to_the_minute, without_account
from chalicelib.operators.output import Progress, emit, print_table, say

if TYPE_CHECKING:
    from chalicelib.domain.policy import BreakGlass

KMS_TAG_VALUE = re.compile(r"[\w .:/=+\-@]{1,256}", re.ASCII)
"""The tag values that every KMS endpoint accepts. https://docs.aws.amazon.com/kms/latest/APIReference/API_Tag.html"""

POLL_SECONDS = 2
LONGEST_WAIT_SECONDS = 300
"""The guard reads a removed tag within five minutes, even if every event is lost."""

NO_EVENT = "It received no event of the tag. When something drifts, it reads the tag before it acts."
NO_CHECK = "It reads an open break-glass every minute: that check does not run, or KMS still returns the tag."

WHY_NOT = {
    "NO_END": "the value does not begin with a time that exists",
    "NO_ZONE": "the time has no zone",
    "NO_REASON": "nothing follows the end",
    "PAST": "its end had passed when the guard first saw it",
    "TAG_UNREADABLE": "the guard cannot read the key's tags",
    "FOUND_AT_ADOPTION": "the key already had the tag when the guard adopted it; set another reason or end",
    "OPENER_NOT_ALLOWED": "the rule does not name you among its break-glass principals",
    "DENY_MISSING": "the key policy did not deny the tag to others at that time, and who set it is unknown",
    "CARRIER_NOT_ALLOWED": "the rule no longer names the role or user",
    "CARRIER_CANNOT_BE_TAGGED": "root, a federated user or a service made the change",
    "CARRIER_IN_ANOTHER_ACCOUNT": "a principal of another account made the change",
    "TOO_MANY": "the target has more values than the guard can store; wait until some have ended",
    "END": "the same value was in force before, until its end; set another reason or end",
    "CAP": "the same value was in force before, as long as the rule allows; set another reason or end",
    "EDITED": "somebody edited the stored state",
}
"""Why the guard does not accept a tag, by the code; docs/break-glass.md has the same."""

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
    "open", epilog="Example: xray-guard break-glass open 111122223333/us-east-1 --for 2h --reason INC-1234 --wait"
)
@click.argument("target", type=TARGET)
@click.option("--for", "span", required=True, metavar="DURATION", help="Duration: 30m, 2h, 1d, 1w")
@click.option("--reason", required=True, help="Ticket or reason; it becomes part of the tag and of the record")
@click.option("--wait", is_flag=True, help="Return when the guard has seen the tag, or say why it has not")
@common_options
@pass_operator
def open_verb(operator: Operator, target: Target, span: str, reason: str, wait: bool) -> int:
    """Suspend remediation of TARGET by tagging its managed key.

    Uses your own credentials. You must be one of the rule's break-glass principals: the key policy denies the tag to
    everyone else. The break-glass is in force from the moment the guard sees the tag until the end that you set. A
    longer one than the rule's `max_hours` is refused. Setting the same value again does not extend it. With --wait,
    exits with 1 if the guard refuses the tag, or does not see it within five minutes.
    """
    from chalicelib.domain.tagvalue import normal

    state, glass = _carrier(operator, target)
    now = operator.now()
    lasts = _duration(span, timedelta(hours=glass.max_hours))
    value = f"{now + lasts:%Y%m%dT%H%M%SZ} {' '.join(reason.split())}"
    if len(value.split()) < 2 or not KMS_TAG_VALUE.fullmatch(value):
        raise click.BadParameter(
            "a tag value may contain letters, digits, spaces and _ . : / = + - @, and at most 256 characters "
            "including the end time",
            param_hint="--reason",
        )
    _kms(operator, target, glass, "TagResource", state.managed_key, Tags=[{"TagKey": glass.tag, "TagValue": value}])
    document = {
        "target": str(target),
        "key_arn": state.managed_key,
        "tag": glass.tag,
        "value": value,
        "until": f"{now + lasts:%Y-%m-%dT%H:%M:%SZ}",
    }
    announced = f"Tagged. No remediation for {duration_text(lasts)}, until {document['until']}"
    if not wait:
        emit(operator.output, document, None, lambda: click.echo(f"{document['key_arn']}  {glass.tag}={value}"))
        say(
            f"{announced}, once the guard has seen the tag, usually within a minute: see `break-glass list`, or --wait."
        )
        return 0
    say(f"{announced}, once the guard has seen the tag. Waiting for that.")
    status = _awaited(operator, target, NO_EVENT, lambda state: _opened(state, operator.now(), normal(value)))
    emit(operator.output, {**document, "status": status}, None, lambda: click.echo(f"{target}  {status}"))
    if status == "open":
        say("The guard has seen the tag: the break-glass is in force.")
    elif status is None:
        say(f"The tag is set, and counts when the guard sees it. To withdraw it: xray-guard break-glass close {target}")
    else:
        code = status.partition(": ")[2]
        say(f"The guard does not accept the tag: {WHY_NOT.get(code, code)}. It remediates as before.")
    return 0 if status == "open" else 1


@break_glass_group.command("close", epilog="Example: xray-guard break-glass close 111122223333/us-east-1 --wait")
@click.argument("target", type=TARGET)
@click.option("--wait", is_flag=True, help="Return when the guard enforces again, or say why it does not")
@common_options
@pass_operator
def close_verb(operator: Operator, target: Target, wait: bool) -> int:
    """End a break-glass by removing the tag from TARGET's managed key.

    The guard enforces again within five minutes, usually at once. With --wait, exits with 1 if it does not.
    """
    state, glass = _carrier(operator, target)
    _kms(operator, target, glass, "UntagResource", state.managed_key, TagKeys=[glass.tag])
    document = {"target": str(target), "key_arn": state.managed_key, "tag": glass.tag}
    if not wait:
        emit(operator.output, document, None, lambda: click.echo(f"{state.managed_key}  {glass.tag} removed"))
        say("Untagged. The guard enforces again once it has seen that the tag is gone, within five minutes.")
        return 0
    say("Untagged. Waiting for the guard to see that the tag is gone.")
    status = _awaited(operator, target, NO_CHECK, lambda state: _closed(state, operator.now()))
    emit(operator.output, {**document, "status": status}, None, lambda: click.echo(f"{target}  {status}"))
    if status is not None:
        say("The guard enforces again.")
    return 0 if status is not None else 1


def _awaited(
    operator: Operator, target: Target, why_not: str, status_in: Callable[[TargetState], str | None]
) -> str | None:
    """Read the target's state until it has a status. Says `why_not`, and returns None, if it has none in time."""
    progress = Progress()
    for waited in range(0, LONGEST_WAIT_SECONDS, POLL_SECONDS):
        state = operator.store.load(str(target)).state
        if status := status_in(state):
            progress.done()
            return status
        progress(f"Waiting for the guard, {waited} s")
        operator.sleep(POLL_SECONDS)
    progress.done()
    minutes = LONGEST_WAIT_SECONDS // 60
    say(f"The guard has not seen the change within {minutes} minutes. {why_not} To find out more: xray-guard doctor")
    return None


def _opened(state: TargetState, now: datetime, value: str) -> str | None:
    """The status of the value on the managed key, if the guard has seen it set."""
    from chalicelib.auditlog.breakglasses import status_of
    from chalicelib.domain.breakglass import RESUMABLE

    for each in state.suppressions:
        if (each.carrier, each.value) == (state.managed_key, value):
            status = status_of(each, now)
            return None if each.closed in RESUMABLE else status
    return None


def _closed(state: TargetState, now: datetime) -> str | None:
    """`closed`, if no tag of a key suspends anything any more."""
    from chalicelib.auditlog.waits import is_in_force

    is_open = any(is_in_force(each, now) and each.drift is None for each in state.suppressions)
    return None if is_open else "closed"


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
    from chalicelib.operators.formatting import NOTHING, actor_text

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


def _duration(text: str, longest: timedelta) -> timedelta:
    try:
        duration = parse_duration(text)
    except ValueError:
        duration = timedelta(0)
    if not duration:
        raise click.BadParameter(f"{text!r} is not a duration: write 30m, 2h, 1d or 1w", param_hint="--for")
    if duration > longest:
        raise click.BadParameter(
            f"{text} is {duration_text(duration)}, and the rule allows at most {duration_text(longest)} "
            "(`max_hours`). Nothing was tagged",
            param_hint="--for",
        )
    return duration
