"""The verb `explain`: show what the guard would do with an event."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

import click

from chalicelib.cli.options import common_options, pass_operator
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.operators.context import Operator
from chalicelib.operators.judgement import Judgement, judgement_of
from chalicelib.operators.output import emit

if TYPE_CHECKING:
    from chalicelib.domain.model import ChangeEvent, KeyEvent

_KNOWN = "The guard recorded or counted this event before, and does not do so again."
_ONLY_COUNTED = "The guard recorded ten such calls of this principal within an hour. It only counts further ones."
_OWN_CHANGE = "The guard made this change itself. It does nothing, unless the setting has changed again since."


@click.command("explain", epilog="Example: xray-guard explain event.json")
@click.argument("event", type=click.File("rb"))
@common_options
@pass_operator
def explain_verb(operator: Operator, event: IO[bytes]) -> int:
    """Show what the guard would do with an event, and why.

    Changes nothing. EVENT is a file with the whole event as EventBridge delivers it, or - for stdin.
    """
    from chalicelib.domain.events import read_change, read_key_event
    from chalicelib.domain.model import Rejected
    from chalicelib.operators.dead_letters import ON_KEY_CHANGE, function_of

    try:
        read = json.loads(event.read(1 << 21))
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{event.name} is not JSON: {error}") from error
    is_key = function_of(read) == ON_KEY_CHANGE
    parsed: ChangeEvent | KeyEvent | Rejected = read_key_event(read) if is_key else read_change(read)
    if isinstance(parsed, Rejected):
        why = [f"The event names no target: {parsed.detail}.", "The guard records it in its own chain."]
        return _explained(operator, None, parsed.reason, Outcome.FAILED, why, None)
    return _explain(operator, parsed)


def _explain(operator: Operator, event: ChangeEvent | KeyEvent) -> int:
    from chalicelib.domain.model import ChangeEvent
    from chalicelib.domain.triage import Next
    from chalicelib.loop.dry_run import assess, triage_event
    from chalicelib.operators.formatting import actor_text, setting_text

    target, trigger = event.target, event.trigger
    actor = trigger.actor
    name = trigger.event_name or "The event"
    who = actor_text(actor, str(target)) if actor else "An unknown principal"
    why = [f"{who} called {name} in {target}."]

    def ignored(reason: str, sentence: str) -> int:
        return _explained(operator, event, reason, Outcome.IGNORED, [*why, sentence], None)

    if target.account != operator.identity.account:
        return ignored(
            Reason.ACCOUNT_NOT_OURS,
            f"These credentials belong to account {operator.identity.account}, not {target.account}.",
        )
    guard = operator.reading_guard()
    foreseen = triage_event(guard, event)
    step = foreseen.step
    if step.next is Next.IGNORE:
        text = _KNOWN if foreseen.audited else _ignored(step.reason, event, str(step.message or ""))
        return ignored(step.reason or "", text)
    if step.next is Next.COUNT:
        return ignored(Reason.CALLS_COUNTED, _ONLY_COUNTED)
    if step.next is Next.CONFIRM_ECHO:
        return ignored(Reason.ECHO, _OWN_CHANGE)
    if foreseen.by_own_role:
        why.append(
            "The guard's role made this call and the guard did not: it records ROLE_BORROWED and raises an alarm."
        )
    if event.addendum_id is not None:
        why.append(f"CloudTrail sent it to complete event {trigger.event_id}. The guard records it once, as ADDENDUM.")
    if foreseen.audited:
        why.append("The guard already recorded this event and does not record it again. It still checks the target.")
    if isinstance(event, ChangeEvent):
        why.append(f"According to the event, the setting became {setting_text(event.result, str(target))}.")
    if step.next is Next.IN_PROGRESS:
        more = "Another worker is remediating the target. The guard checks the target again when its lease ends."
        return _explained(operator, event, Reason.IN_PROGRESS, Outcome.DEFERRED, [*why, more], None)
    judgement = judgement_of(assess(guard, target, trigger, event), guard.partition)
    now = setting_text(judgement.setting, str(target))
    if judgement.setting is not None:
        why.append(f"The guard judges the live setting: {now}.")
    why.append(_because(judgement))
    return _explained(operator, event, judgement.reason, judgement.outcome, why, judgement)


def _ignored(reason: str | None, event: ChangeEvent | KeyEvent, message: str) -> str:
    from chalicelib.domain.model import KeyEvent

    match reason:
        case Reason.ECHO:
            return _OWN_CHANGE
        case Reason.NOT_OURS if event.error_code:
            return "The call failed, so it changed nothing. The guard does not record failed calls to KMS."
        case Reason.NOT_OURS:
            return "The event concerns no key or alias that this target uses. The guard records nothing."
        case Reason.UNGOVERNED:
            return "No rule of the policy matches this target: the guard records the change and does nothing else."
        case Reason.RULE_OFF:
            return f"{message[:1].upper()}{message[1:]}: the guard records the change and does nothing else."
        case _ if event.error_code and not isinstance(event, KeyEvent):
            return "The call failed, so it changed nothing. The guard records it."
    return message


def _because(judgement: Judgement) -> str:
    from chalicelib.domain.meanings import explanation

    violations = ", ".join(judgement.violations)
    match judgement.outcome:
        case Outcome.COMPLIANT:
            return f"It satisfies rule {judgement.rule}: the guard records the change and does nothing else."
        case Outcome.REMEDIATING:
            return f"It violates rule {judgement.rule}: {violations}. The guard would remediate it."
        case outcome:
            explained = explanation(outcome, judgement.reason)
            why = f"{explained.text} {explained.remedy}" if explained else judgement.message or judgement.reason or ""
            return f"It violates rule {judgement.rule}: {violations}. {outcome.value}: {why.rstrip('.')}."


def _explained(
    operator: Operator,
    event: ChangeEvent | KeyEvent | None,
    reason: str | None,
    outcome: Outcome,
    why: list[str],
    judgement: Judgement | None,
) -> int:
    import msgspec

    from chalicelib.operators.formatting import clean, step_text

    trigger: Any = msgspec.to_builtins(event.trigger) if event else None
    document = {
        "target": str(event.target) if event else None,
        "outcome": outcome.value,
        "reason": reason,
        "trigger": trigger,
        "why": why,
        "judgement": judgement.to_json() if judgement else None,
    }

    def table() -> None:
        target = event.target if event else "no target"
        click.echo(f"{target}: {outcome.value}{f' ({clean(reason)})' if reason else ''}")
        for sentence in why:
            click.echo(f"  {clean(sentence)}")
        for number, step in enumerate(judgement.plan if judgement else (), 1):
            click.echo(f"  {number}. {step.name}: {step_text(step, judgement.target) if judgement else ''}")

    emit(operator.output, document, None, table)
    return 0
