"""The verbs `key replace` and `key adopt`: replace a managed key, or hand a key over to the guard."""

from __future__ import annotations

import click

from chalicelib.cli.options import TARGET, common_options, pass_operator
from chalicelib.domain.model import Target
from chalicelib.operators.context import Operator
from chalicelib.operators.output import emit, say


@click.group("key")
def key_group() -> None:
    """Manage the managed keys."""


@key_group.command("replace", epilog="Example: xray-guard key replace 111122223333/us-east-1 --yes")
@click.argument("target", type=TARGET)
@click.option("--yes", is_flag=True, help="Replace the key")
@common_options
@pass_operator
def replace_verb(operator: Operator, target: Target, yes: bool) -> int:
    """Replace TARGET's managed key, if it cannot be repaired.

    At its next check, within a minute, the guard creates a new key, moves the rule's alias to it and points X-Ray at
    it. The old key stays unchanged, because stored traces need it: the guard can neither disable nor delete it.
    Without --yes, only shows the key that would be replaced.
    """
    from chalicelib.loop.managed_key import replace_key

    state = operator.store.load(str(target)).state
    document = {"target": str(target), "retired": state.managed_key, "replaced": False}
    if state.managed_key is not None and not yes:
        emit(operator.output, document, None, lambda: click.echo(f"{target}  {state.managed_key}"))
        say("The guard would create a new key in place of this one (about 1 US dollar a month). To do it, add --yes.")
        return 0
    result = replace_key(operator.acting_guard(lambda record: None), target, operator.trigger)
    document["replaced"] = result.record is not None
    emit(operator.output, document, None, lambda: click.echo(f"{target}  {state.managed_key} retired"))
    say("The guard creates the new key at its next check, within a minute.")
    return 0


@key_group.command("adopt", epilog="Example: xray-guard key adopt 111122223333/us-east-1 1234abcd-… --yes")
@click.argument("target", type=TARGET)
@click.argument("key")
@click.option("--yes", is_flag=True, help="Hand the key over")
@common_options
@pass_operator
def adopt_verb(operator: Operator, target: Target, key: str, yes: bool) -> int:
    """Hand KEY over to the guard as TARGET's managed key.

    KEY is a key ARN or a key id. From then on the guard may change the key: enable it, complete its policy, turn its
    rotation on. Its owner must have tagged it xray-guard=managed, and its policy must let in nobody outside the
    account. The former managed key is retired and stays unchanged. Without --yes, only checks the key.
    """
    from chalicelib.loop.managed_key import adopt_key, key_to_adopt

    guard = operator.acting_guard(lambda record: None) if yes else operator.reading_guard()
    arn = key if key.startswith("arn:") else f"arn:{guard.partition}:kms:{target.region}:{target.account}:key/{key}"
    document: dict[str, object] = {"target": str(target), "adopted": arn, "retired": None, "done": yes}
    if not yes:
        key_to_adopt(guard, target, arn)
        emit(operator.output, document, None, lambda: click.echo(f"{target}  {arn}"))
        say("The key can be handed over. The guard may change it from then on. To do it, add --yes.")
        return 0
    result = adopt_key(guard, target, operator.trigger, arn)
    document["retired"] = result.record.detail["retired"] if result.record else None
    emit(operator.output, document, None, lambda: click.echo(f"{target}  {arn} adopted"))
    say("The guard points X-Ray at the key at its next check, within a minute.")
    return 0
