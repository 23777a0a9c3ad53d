"""The verb `key replace`: replace a managed key that cannot be repaired."""

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
    from chalicelib.loop.key_replacement import replace_key

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
