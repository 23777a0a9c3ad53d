"""The verbs `pause` and `resume`: stop all remediation, and restart it."""

from __future__ import annotations

import click

from chalicelib.cli.options import common_options, pass_operator
from chalicelib.cli.remarks import say_waiting
from chalicelib.operators.context import Operator
from chalicelib.operators.output import emit, say


@click.command("pause", epilog='Example: xray-guard pause --reason "INC-1234: KMS outage"')
@click.option("--reason", required=True, help="Reason; the guard records it")
@common_options
@pass_operator
def pause_verb(operator: Operator, reason: str) -> int:
    """Stop all remediation until `xray-guard resume`.

    The guard continues to judge and record every target, and changes none. A remediation in progress finishes. An
    alarm is active while the guard is paused. Exits with 1 if the guard was already paused.
    """
    from chalicelib.loop.pause import pause as pause_guard

    if not reason.strip():
        raise click.BadParameter("the reason is empty", param_hint="--reason")
    guard = operator.acting_guard(lambda record: None, operator.file_policy)
    record = pause_guard(guard, operator.trigger, str(operator.actor), reason.strip())
    done = "Paused: the guard changes nothing until `xray-guard resume`."
    return _report(operator, record is not None, done, "The guard was already paused.")


@click.command("resume", epilog="Example: xray-guard resume")
@common_options
@pass_operator
def resume_verb(operator: Operator) -> int:
    """End a pause.

    The scheduled check remediates within a minute what was deferred because of the pause, unless a break-glass is in
    force, a sweep must do it, or the guard backs off: then it says until when. Exits with 1 if the guard was not
    paused.
    """
    from chalicelib.auditlog import history
    from chalicelib.loop.pause import resume as resume_guard

    guard = operator.acting_guard(lambda record: None, operator.file_policy)
    record = resume_guard(guard, operator.trigger, str(operator.actor))
    done = "Resumed: the scheduled check takes up within a minute what was deferred because of the pause."
    code = _report(operator, record is not None, done, "The guard was not paused.")
    for view in history.targets(operator.store.states(), operator.guard_state(), operator.now()):
        say_waiting(view.target, view.waiting)
    return code


def _report(operator: Operator, moved: bool, done: str, otherwise: str) -> int:
    import msgspec

    paused = operator.guard_state().paused
    emit(operator.output, {"paused": msgspec.to_builtins(paused)}, None, lambda: None)
    say(done if moved else otherwise)
    return 0 if moved else 1
