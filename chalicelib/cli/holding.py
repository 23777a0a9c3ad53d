"""Verbs that hold the guard back, on the record: `pause`, `resume`, `break-glass` and `key replace`.

`break-glass` only tags, with the caller's own credentials; the guard learns of it as of any tag, and decides for itself
whether it counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from chalicelib.cli.options import AGO, TARGET, UNITS, common_options
from chalicelib.cli.output import Table, emit, print_table
from chalicelib.cli.session import Operator, pass_operator, say
from chalicelib.domain.model import Outcome, Suppression, Target, TargetState, Trigger, TriggerKind

if TYPE_CHECKING:
    from chalicelib.domain.policy import BreakGlass

KMS_TAG_VALUE = re.compile(r"[\w .:/=+\-@]{1,256}", re.ASCII)
"""What every KMS endpoint takes as a tag's value. https://docs.aws.amazon.com/kms/latest/APIReference/API_Tag.html"""


def _trigger(operator: Operator) -> Trigger:
    return Trigger(TriggerKind.OPERATOR, actor=operator.actor)


# --- the brake -------------------------------------------------------------------------------------------------------


@click.command(epilog='Example: xray-guard pause --reason "INC-1234: KMS outage"')
@click.option("--reason", required=True, help="Why; it goes on the record")
@common_options
@pass_operator
def pause(operator: Operator, reason: str) -> int:
    """Pull the emergency brake.

    Everything is judged and recorded as before, and nothing is changed, in any target, until `xray-guard resume`. A
    remediation that is under way is finished. An alarm is raised for as long as it lasts. Exits with 1 if the guard
    was paused already.
    """
    from chalicelib.loop.guard import pause as pull

    if not reason.strip():
        raise click.BadParameter("say why", param_hint="--reason")
    record = pull(operator.acting_guard(lambda record: None), _trigger(operator), str(operator.actor), reason.strip())
    return _brake(
        operator, record is not None, "Paused: nothing is changed until `xray-guard resume`.", "It was paused"
    )


@click.command(epilog="Example: xray-guard resume")
@common_options
@pass_operator
def resume(operator: Operator) -> int:
    """Release the emergency brake.

    What was held back is taken up within a minute. Exits with 1 if the guard was not paused.
    """
    from chalicelib.loop.guard import resume as release

    record = release(operator.acting_guard(lambda record: None), _trigger(operator), str(operator.actor))
    return _brake(
        operator, record is not None, "Resumed: what is due is taken up within a minute.", "It was not paused"
    )


def _brake(operator: Operator, moved: bool, done: str, otherwise: str) -> int:
    import msgspec

    paused = operator.guard_state().paused
    emit(operator.output, {"paused": msgspec.to_builtins(paused)}, None, lambda: None)
    say(done if moved else f"{otherwise} already." if paused else f"{otherwise}.")
    return 0 if moved else 1


# --- break-glass -----------------------------------------------------------------------------------------------------


@click.group("break-glass")
def break_glass_group() -> None:
    """Suspend remediation for a limited time, on the record."""


@break_glass_group.command(
    "open", epilog="Example: xray-guard break-glass open 111122223333/us-east-1 --for 2h --reason INC-1234"
)
@click.argument("target", type=TARGET)
@click.option("--for", "span", required=True, metavar="SPAN", help="How long: 30m, 2h, 1d")
@click.option("--reason", required=True, help="Ticket or reason; it goes into the tag and on the record")
@common_options
@pass_operator
def open_verb(operator: Operator, target: Target, span: str, reason: str) -> int:
    """Tag TARGET's managed key so that the guard holds still.

    Done with your own credentials, which must be those of one of the rule's break-glass principals: the key's policy
    denies it to everybody else. In force from the moment the guard sees the tag until its end or the rule's cap,
    whichever is sooner. Setting the same value again never extends it.
    """
    state, glass = _carrier(operator, target)
    now = operator.now()
    end = now + _span(span)
    value = f"{end:%Y%m%dT%H%M%SZ} {' '.join(reason.split())}"
    if len(value.split()) < 2 or not KMS_TAG_VALUE.fullmatch(value):
        raise click.BadParameter(
            "a tag takes letters, digits, spaces and _ . : / = + - @, and 256 characters with the end",
            param_hint="--reason",
        )
    _kms(operator, target, glass, "TagResource", state.managed_key, Tags=[{"TagKey": glass.tag, "TagValue": value}])
    until = min(end, now + timedelta(hours=glass.max_hours))
    told = {
        "target": str(target),
        "key_arn": state.managed_key,
        "tag": glass.tag,
        "value": value,
        "until": _text(until),
    }
    emit(operator.output, told, None, lambda: click.echo(f"{told['key_arn']}  {glass.tag}={value}"))
    if until < end:
        say(f"The rule caps a break-glass at {glass.max_hours} hours: it ends at {_text(until)}.")
    say("Tagged. `xray-guard break-glass list` shows it once the guard has seen it, within a minute or so.")
    return 0


@break_glass_group.command("close", epilog="Example: xray-guard break-glass close 111122223333/us-east-1")
@click.argument("target", type=TARGET)
@common_options
@pass_operator
def close_verb(operator: Operator, target: Target) -> int:
    """Take the tag off TARGET's managed key.

    The guard enforces again within five minutes, usually at once.
    """
    state, glass = _carrier(operator, target)
    _kms(operator, target, glass, "UntagResource", state.managed_key, TagKeys=[glass.tag])
    told = {"target": str(target), "key_arn": state.managed_key, "tag": glass.tag}
    emit(operator.output, told, None, lambda: click.echo(f"{state.managed_key}  {glass.tag} removed"))
    say("Untagged. The guard enforces again as soon as it has seen it.")
    return 0


@dataclass(frozen=True, slots=True)
class Glass:
    """A break-glass as the guard knows it, and what it let through."""

    target: str
    suppression: Suppression
    status: str
    let_through: int

    def to_json(self) -> dict[str, Any]:
        """The suppression's fields, with the target and what came of it."""
        import msgspec

        told: dict[str, Any] = msgspec.to_builtins(self.suppression)
        return {"target": self.target, "status": self.status, "let_through": self.let_through, **told}


@break_glass_group.command("list", epilog="Example: xray-guard break-glass list --all")
@click.option("--all", "everything", is_flag=True, help="Also those that were refused or have ended")
@common_options
@pass_operator
def list_verb(operator: Operator, everything: bool) -> int:
    """What is open where, by whom, until when, and what it let through.

    As the guard last saw it. Ended and refused values are known until ten minutes after their end; what came of them
    stays in the history.
    """
    from chalicelib.cli.wording import actor_text, time_text

    found = [
        glass
        for state in operator.store.states()
        for suppression in state.suppressions
        if (glass := _glass(operator, state, suppression)).status == "open" or everything
    ]
    rows = [
        [
            each.target,
            each.status,
            actor_text(each.suppression.opened_by, each.target) if each.suppression.opened_by else "unknown",
            each.suppression.reason or each.suppression.value,
            time_text(each.suppression.first_seen),
            time_text(each.suppression.until),
            str(each.let_through),
        ]
        for each in found
    ]
    table = Table(
        ("target", "status", "opened by", "reason", "since", "until", "let through"), rows, "No break-glass is open."
    )
    told = {"break_glass": [each.to_json() for each in found]}
    emit(operator.output, told, "break_glass", lambda: print_table(table))
    return 0


def _glass(operator: Operator, state: TargetState, suppression: Suppression) -> Glass:
    from chalicelib.auditlog.history import Filter, records

    status = (
        f"refused: {suppression.refused}"
        if suppression.refused
        else f"ended: {suppression.closed}"
        if suppression.closed
        else "open"
    )
    wanted = Filter(target=state.target, outcomes=(Outcome.SUPPRESSED,), since=suppression.first_seen)
    page = records(operator.store, wanted, operator.now(), limit=200)
    drifts = {
        entry.record.incident_id
        for entry in page.entries
        if entry.record.incident_id
        and entry.record.suppression is not None
        and (entry.record.suppression.carrier, entry.record.suppression.value)
        == (suppression.carrier, suppression.value)
    }
    return Glass(state.target, suppression, status, len(drifts))


def _carrier(operator: Operator, target: Target) -> tuple[TargetState, BreakGlass]:
    """The target's state, with the managed key that carries the tag, and what its rule says of break-glass."""
    from chalicelib.cli.trouble import CONFIGURATION, Trouble

    rule = operator.policy.rule_for(target)
    if rule is None:
        raise Trouble(
            f"no rule governs {target} in {operator.policy_file}",
            "nothing: the guard does not change a target that no rule governs. If the guard enforces another policy, "
            "name that document with --policy PATH",
            CONFIGURATION,
        )
    if rule.break_glass is None:
        raise Trouble(
            f"rule {rule.id} governs {target} and does not define `break_glass` in {operator.policy_file}",
            "add `break_glass` to the rule and deploy the policy, or stop all remediation with `xray-guard pause`",
            CONFIGURATION,
        )
    state = operator.store.load(str(target)).state
    if state.managed_key is None:
        raise Trouble(
            f"{target} has no managed key yet, so there is nothing to put the tag on",
            'let the guard make one first (`"ensure": true` in the rule, or `xray-guard reconcile`), '
            "or tag the role that makes the change",
            CONFIGURATION,
        )
    return state, rule.break_glass


def _kms(
    operator: Operator, target: Target, glass: BreakGlass, operation: str, key_arn: str | None, **parameters: Any
) -> None:
    """Tag or untag the key. Raises Trouble, naming who may, where AWS refuses it."""
    from chalicelib.aws.clients import call
    from chalicelib.cli.trouble import REFUSED, Trouble
    from chalicelib.domain.errors import DENIED, AwsError

    client = operator.clients.mutating("kms", target.region)
    method = {"TagResource": "tag_resource", "UntagResource": "untag_resource"}[operation]
    try:
        call(f"kms:{operation}", getattr(client, method), KeyId=key_arn, **parameters)
    except AwsError as error:
        if error.code not in DENIED:
            raise
        who = ", ".join(glass.principals)
        raise Trouble(
            f"{operator.identity.arn} may not set {glass.tag} on {key_arn}",
            f"use the credentials of one whom the rule lets open a break-glass: {who}",
            REFUSED,
        ) from error


def _span(text: str) -> timedelta:
    read = AGO.fullmatch(text)
    if not read or int(read[1]) == 0:
        raise click.BadParameter(f"{text!r} is not a span: write 30m, 2h or 1d", param_hint="--for")
    try:
        return timedelta(seconds=int(read[1]) * UNITS[read[2]])
    except OverflowError:
        raise click.BadParameter(f"{text!r} is too long", param_hint="--for") from None


def _text(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


# --- the key ---------------------------------------------------------------------------------------------------------


@click.group("key")
def key_group() -> None:
    """The managed keys."""


@key_group.command("replace", epilog="Example: xray-guard key replace 111122223333/us-east-1 --yes")
@click.argument("target", type=TARGET)
@click.option("--yes", is_flag=True, help="Do it")
@common_options
@pass_operator
def replace_verb(operator: Operator, target: Target, yes: bool) -> int:
    """Give up TARGET's managed key, for one that is beyond repair.

    The guard makes another at its next look, within a minute, puts the rule's alias on it and moves X-Ray to it. The
    old key is left as it is, since traces stored under it need it to be read: the guard can neither disable nor delete
    it. Without --yes this only says what would be given up.
    """
    from chalicelib.loop.replacement import replace_key

    state = operator.store.load(str(target)).state
    told = {"target": str(target), "retired": state.managed_key, "replaced": False}
    if state.managed_key is not None and not yes:
        emit(operator.output, told, None, lambda: click.echo(f"{target}  {state.managed_key}"))
        say("This key would be given up and another one made (about a dollar a month). With --yes it is done.")
        return 0
    result = replace_key(operator.acting_guard(lambda record: None), target, _trigger(operator))
    told["replaced"] = result.record is not None
    emit(operator.output, told, None, lambda: click.echo(f"{target}  {state.managed_key} given up"))
    say("The guard makes another at its next look, within a minute.")
    return 0
