"""Which events of the guard's role are echoes of calls that the guard made: pure.

A session of the guard's role may be stolen, and the functions' code may be changed: the role's name in an event proves
nothing. An event is an echo if its request id is one that AWS gave the guard, or if it is a step that the guard takes,
on the target's own key, during an attempt whose calls are not all known: one that still runs, one whose worker was
lost, one with a call that AWS did not answer. A key policy must be the very text that the attempt was going to put.

X-Ray makes a grant on the key while it carries out PutEncryptionConfig, with the role of its caller. If the caller is
the guard's role and the key is the target's own, the grant is an echo, too: a person who borrowed the role is named by
the event of their PutEncryptionConfig.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from chalicelib.domain.keypolicy.wanted import XRAY_SERVICE
from chalicelib.domain.model import ChangeEvent, KeyEvent, Subject, arn_part, key_id_of
from chalicelib.domain.policy import Rule, sha256_of
from chalicelib.domain.run import Run
from chalicelib.domain.steps import Step, StepName
from chalicelib.domain.stored import TargetState, Window

MOST_REQUESTS = 64
"""The request ids that a target remembers: of some twenty attempts. CloudTrail delivers within fifteen minutes."""

MOST_WINDOWS = 32
"""The windows that a target remembers, of its latest attempts whose calls are not all known."""

SLACK = timedelta(minutes=1)
"""CloudTrail's times are whole seconds, of another clock than that of the answers by which leases are measured."""

KEY_STEPS = frozenset({StepName.CANCEL_DELETION, StepName.ENABLE_KEY, StepName.ENABLE_ROTATION, StepName.ASSOCIATE_KEY})
ALIAS_STEPS = frozenset({StepName.CREATE_ALIAS, StepName.UPDATE_ALIAS})


def is_own(run: Run, state: TargetState) -> bool:
    """Whether the run's event is an echo: of a call that the guard made, or of X-Ray's grant for such a call."""
    if run.event is None:
        return False
    if run.is_by_own_role:
        return is_echo(run.event, run.rule, state)
    actor = run.event.trigger.actor
    return (
        isinstance(run.event, KeyEvent)
        and is_xrays_grant(run.event)
        and actor is not None
        and actor.arn == run.setup.role_arn
        and _is_on_own_keys(run.event, state)
    )


def is_xrays_grant(event: KeyEvent) -> bool:
    """Whether X-Ray made a grant for a caller of the target's account, who changes the setting to the grant's key."""
    actor = event.trigger.actor
    return (
        event.trigger.event_name == "CreateGrant"
        and actor is not None
        and actor.via == XRAY_SERVICE
        and arn_part(actor.arn, 4) == event.target.account
    )


def is_echo(event: ChangeEvent | KeyEvent, rule: Rule | None, state: TargetState) -> bool:
    """Whether the guard itself made the call. `event` is one of the guard's role."""
    trigger = event.trigger
    if trigger.request_id is not None and trigger.request_id in state.requests:
        return True
    if rule is None or trigger.event_time is None:
        return False
    windows = [window for window in _windows(state) if _is_within(trigger.event_time, window)]
    if isinstance(event, ChangeEvent):
        return bool(windows) and _is_our_setting(event, state)
    return any(_is_our_step(event, rule, state, window) for window in windows)


def plan_entry(step: Step) -> str:
    """How a `Window` names a step: by its call and its key, and a key policy by its digest as well."""
    text = step.after if step.name is StepName.PUT_KEY_POLICY else None
    return _named(step.name, step.key_arn, text)


def _named(name: str | None, key_arn: str | None, policy: str | None) -> str:
    digest = f" {sha256_of(policy.encode('utf-8', 'replace'))}" if policy is not None else ""
    return f"{name} {key_arn}{digest}"


def _windows(state: TargetState) -> list[Window]:
    incident = state.incident
    running = [incident.lease.window(incident.planned)] if incident and incident.lease else []
    return [*state.windows, *running]


def _is_within(at: datetime, window: Window) -> bool:
    return (window.since is None or at >= window.since - SLACK) and at <= window.until + SLACK


def _is_our_setting(event: ChangeEvent, state: TargetState) -> bool:
    """The guard sets X-Ray to the target's managed key only; a call that was refused changed nothing."""
    if event.error_code is not None:
        return True
    key = event.result.key_arn if event.result else None
    return key is not None and key_id_of(key) in {key_id_of(arn) for arn in _own_keys(state)}


def _is_our_step(event: KeyEvent, rule: Rule, state: TargetState, window: Window) -> bool:
    name, keys = event.trigger.event_name, event.key_arns
    policy = event.effect.after if event.effect and event.effect.subject is Subject.KEY_POLICY else None
    if len(keys) == 1 and _named(name, keys[0], policy) in window.planned:
        return True
    if not _is_on_own_keys(event, state):
        return False
    return name in KEY_STEPS or (name in ALIAS_STEPS and event.alias in rule.aliases)


def _is_on_own_keys(event: KeyEvent, state: TargetState) -> bool:
    return bool(event.key_arns) and _own_keys(state).issuperset(event.key_arns)


def _own_keys(state: TargetState) -> set[str]:
    return {arn for arn in (state.managed_key, *state.keys_made) if arn}
