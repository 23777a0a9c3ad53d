"""Is this trigger worth a look at the target? Pure, and the same for change events, key events and `explain`.

An event is only a hint to check the target. Triage answers how far a run has to go: without the target's state it may
already say no, or ask for the state; an answer that it gives without the state never contradicts the one with it.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum, auto

from msgspec import Struct

from chalicelib.domain.echo import is_echo
from chalicelib.domain.model import EncryptionStatus, EncryptionType, KeyEvent, Setting, TriggerKind
from chalicelib.domain.policy import Mode, Rule
from chalicelib.domain.reading import rule_aliases
from chalicelib.domain.reasons import Reason
from chalicelib.domain.run import Run
from chalicelib.domain.stored import Phase, TargetState
from chalicelib.domain.waiting import is_due


class Next(Enum):
    """What a run does next."""

    IGNORE = auto()  # the target is not judged; `reason` says why
    READ_TOGETHER = auto()  # read state and setting in one round trip, and ask again
    NEED_STATE = auto()  # read the state alone, and ask again
    NOT_DUE = auto()
    IN_PROGRESS = auto()  # another worker holds the lease
    CONFIRM_ECHO = auto()  # the event is the guard's own: read the setting only
    CLOSE = auto()  # the guard's own change is now in effect, and ends the incident
    OBSERVE = auto()


class Triage(Struct, frozen=True):
    """What a run does next; for IGNORE with the code of why, and a message where the code does not say all.

    For a call that AWS refused, `reason` is AWS's error code.
    """

    next: Next
    reason: str | None = None
    message: str | None = None


ECHO = Triage(Next.IGNORE, Reason.ECHO)
NOT_OURS = Triage(Next.IGNORE, Reason.NOT_OURS)


def triage(run: Run, state: TargetState | None, now: datetime) -> Triage:
    """What to do about the run's trigger. `state` is None as long as it is not read."""
    if isinstance(run.event, KeyEvent):
        return _key_event(run, run.event, state, now)
    if run.target.account != run.setup.account:
        return Triage(Next.IGNORE, Reason.ACCOUNT_NOT_OURS, f"this guard acts in account {run.setup.account}")
    error = run.event.error_code if run.event else None
    if run.is_own and run.event:
        if state is None:
            return Triage(Next.NEED_STATE)
        if is_echo(run.event, run.rule, state):
            # A worker that still acts confirms its change by itself, and a refused call changed nothing.
            return ECHO if error or state.is_held(now) else Triage(Next.CONFIRM_ECHO)
    if run.event and error:
        return Triage(Next.IGNORE, error, run.event.error_message)
    if run.rule is None:
        return Triage(Next.IGNORE, Reason.UNGOVERNED, "no rule of the policy matches this target")
    if run.rule.mode is Mode.OFF:
        return Triage(Next.IGNORE, Reason.RULE_OFF, f"rule {run.rule.id} is off")
    if state is None:
        # A tick is mostly not due, and an operator's look must begin after the state was read.
        alone = run.trigger.kind in (TriggerKind.TICK, TriggerKind.OPERATOR)
        return Triage(Next.NEED_STATE if alone else Next.READ_TOGETHER)
    if run.trigger.kind is TriggerKind.TICK and not is_due(state, now):
        return Triage(Next.NOT_DUE, Reason.NOT_DUE)
    return _unless_held(state, now)


def triage_echo(state: TargetState, setting: Setting) -> Triage:
    """What the guard's own event comes to, once the setting is read.

    A setting other than the managed key is somebody else's later change: whoever made it is not in the event, so the
    target is observed as if the event had been only a hint.
    """
    if setting.type is not EncryptionType.KMS or setting.key_arn != state.managed_key:
        return Triage(Next.OBSERVE)
    applied = state.incident is not None and state.incident.phase is Phase.APPLIED
    return Triage(Next.CLOSE) if applied and setting.status is EncryptionStatus.ACTIVE else ECHO


def _key_event(run: Run, event: KeyEvent, state: TargetState | None, now: datetime) -> Triage:
    """Only a change to the target's own keys, the setting's key or a configured alias matters."""
    if run.rule is None or run.rule.mode is Mode.OFF or event.error_code or run.target.account != run.setup.account:
        return NOT_OURS
    if state is None:
        return Triage(Next.NEED_STATE)
    if run.is_own:
        # What is no echo matters whatever key it is about: the guard's role has no other use.
        return ECHO if is_echo(event, run.rule, state) else _unless_held(state, now)
    return _unless_held(state, now) if concerns(event, run.rule, state) else NOT_OURS


def concerns(event: KeyEvent, rule: Rule, state: TargetState) -> bool:
    """Whether the event is about a key of the target's, the setting's key or an alias that the rule names."""
    if event.alias is not None and event.alias in rule_aliases(rule):
        return True
    keys = {state.managed_key, *state.keys_made, state.setting.key_arn if state.setting else None}
    return not keys.isdisjoint(event.key_arns)


def _unless_held(state: TargetState, now: datetime) -> Triage:
    return Triage(Next.IN_PROGRESS, Reason.IN_PROGRESS) if state.is_held(now) else Triage(Next.OBSERVE)
