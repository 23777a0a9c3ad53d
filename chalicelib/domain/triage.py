"""Decide whether a trigger requires a check of the target. Pure; the same for change events, key events and `explain`.

An event is only a hint to check the target. Triage returns what the run does next. Without the target's state it may
already stop the run, or require the state; its result without the state never contradicts the one with it.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum, auto

from msgspec import Struct

from chalicelib.domain.echo import is_own, is_xrays_grant
from chalicelib.domain.floods import is_flood
from chalicelib.domain.model import EncryptionStatus, EncryptionType, KeyEvent, Setting, Subject, TriggerKind
from chalicelib.domain.policy import Mode, Rule
from chalicelib.domain.reasons import Reason
from chalicelib.domain.run import Known, Run
from chalicelib.domain.stored import Phase, TargetState
from chalicelib.domain.waiting import is_due


class Next(Enum):
    """What a run does next. Only `triage` without the state returns the two that read it, only `triage_echo` CLOSE."""

    IGNORE = auto()  # nothing is observed; `reason` says why
    READ_TOGETHER = auto()  # read the state and the glance in one round trip, then triage again
    NEED_STATE = auto()  # read only the state, then triage again
    COUNT = auto()  # the event is one of a flood: it is only counted
    NOT_DUE = auto()  # a tick found the target not due
    IN_PROGRESS = auto()  # another worker holds the lease
    CONFIRM_ECHO = auto()  # the event is an echo: read only the setting, then `triage_echo`
    CLOSE = auto()  # the guard's own change is in effect now and ends the incident
    OBSERVE = auto()  # read the target and decide


class Triage(Struct, frozen=True):
    """What a run does next. For IGNORE, `reason` is the code of why, with a `message` if the code is not enough.

    For a call that AWS refused, `reason` is AWS's error code.
    """

    next: Next
    reason: str | None = None
    message: str | None = None


ECHO = Triage(Next.IGNORE, Reason.ECHO)
NOT_OURS = Triage(Next.IGNORE, Reason.NOT_OURS)
GRANTS = Triage(Next.IGNORE, Reason.GRANTS_CHANGED)
NEED_STATE = Triage(Next.NEED_STATE)
COUNT = Triage(Next.COUNT, Reason.CALLS_COUNTED)


def triage(run: Run, known: Known | None, now: datetime) -> Triage:
    """Return what to do about the run's trigger. `known` is None if the state is not read yet."""
    if isinstance(run.event, KeyEvent):
        return _key_event(run, run.event, known, now)
    if run.target.account != run.setup.account:
        return Triage(Next.IGNORE, Reason.ACCOUNT_NOT_OURS, f"this guard acts in account {run.setup.account}")
    error = run.event.error_code if run.event else None
    if run.is_by_own_role and run.event:
        if known is None:
            return NEED_STATE
        if is_own(run, known.state):
            # A worker that still acts confirms its change by itself, and a refused call changed nothing.
            return ECHO if error or known.state.is_held(now) else Triage(Next.CONFIRM_ECHO)
    if run.event and error:
        if known is None:
            return NEED_STATE
        return COUNT if is_flood(run, known) else Triage(Next.IGNORE, error, run.event.error_message)
    if run.rule is None:
        return Triage(Next.IGNORE, Reason.UNGOVERNED, "no rule of the policy matches this target")
    if run.rule.mode is Mode.OFF:
        return Triage(Next.IGNORE, Reason.RULE_OFF, f"rule {run.rule.id} is off")
    if known is None:
        # A tick's target is mostly not due, and an operator's check must begin after the state was read.
        alone = run.trigger.kind in (TriggerKind.TICK, TriggerKind.OPERATOR)
        return NEED_STATE if alone else Triage(Next.READ_TOGETHER)
    if run.trigger.kind is TriggerKind.TICK and not is_due(known.state, now):
        return Triage(Next.NOT_DUE, Reason.NOT_DUE)
    return _unless_held(known.state, now)


def triage_echo(state: TargetState, setting: Setting) -> Triage:
    """Return what to do about the guard's own event after the setting was read.

    A setting other than the managed key is somebody else's later change. The event does not name who made it, so
    OBSERVE means here: without the event.
    """
    if setting.type is not EncryptionType.KMS or setting.key_arn != state.managed_key:
        return Triage(Next.OBSERVE)
    applied = state.incident is not None and state.incident.phase is Phase.APPLIED
    return Triage(Next.CLOSE) if applied and setting.status is EncryptionStatus.ACTIVE else ECHO


def _key_event(run: Run, event: KeyEvent, known: Known | None, now: datetime) -> Triage:
    """Only a change to the target's own keys, the setting's key, a configured alias, spans or links matters."""
    if run.rule is None or run.rule.mode is Mode.OFF or event.error_code or run.target.account != run.setup.account:
        return NOT_OURS
    if known is None:
        return NEED_STATE
    if is_own(run, known.state):
        return ECHO
    if run.is_by_own_role:
        # What is no echo matters whatever key it is about: the guard's role has no other use.
        return _unless_held(known.state, now)
    if not concerns(event, run.rule, known.state):
        return NOT_OURS
    if event.is_about_grants:
        return GRANTS
    return COUNT if is_flood(run, known) else _unless_held(known.state, now)


def concerns(event: KeyEvent, rule: Rule, state: TargetState) -> bool:
    """Whether the event is about a key of the target's, the setting's key, an alias of the rule, spans or links.

    X-Ray makes its grant before the event of the new setting arrives, so the state may not name that key yet.
    """
    if is_xrays_grant(event):
        return True
    if event.alias is not None and event.alias in rule.aliases:
        return True
    if event.effect is not None and event.effect.subject in (Subject.SPANS, Subject.LINKS):
        return True
    keys = {state.managed_key, *state.keys_made, state.setting.key_arn if state.setting else None}
    return not keys.isdisjoint(event.key_arns)


def _unless_held(state: TargetState, now: datetime) -> Triage:
    return Triage(Next.IN_PROGRESS, Reason.IN_PROGRESS) if state.is_held(now) else Triage(Next.OBSERVE)
