"""Runs and what they know, as the pure functions of the loop take them."""

from __future__ import annotations

from chalicelib.domain.model import ChangeEvent, KeyEvent, Target, Trigger, TriggerKind
from chalicelib.domain.policy import Limits, Rule
from chalicelib.domain.run import Known, Run, Setup
from chalicelib.domain.settlement import Line, Settlement
from chalicelib.domain.stored import GuardState, Incident, Pause, TargetState

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/xray-guard"
SETUP = Setup(ACCOUNT, "aws", ROLE, "digest", Limits(), "function/request", 120)


def a_run(
    target: Target,
    rule: Rule | None,
    kind: TriggerKind = TriggerKind.SWEEP,
    event: ChangeEvent | KeyEvent | None = None,
    *,
    budget_left: bool = True,
) -> Run:
    """A run of a guard with nothing unusual about it."""
    return Run(target, rule, event.trigger if event else Trigger(kind), SETUP, event, budget_left)


def known_as(state: TargetState, *, paused: Pause | None = None, audited: bool = False) -> Known:
    """What a run knows that has learned nothing yet."""
    return Known(state, state, GuardState(paused=paused), audited)


def open_incident(settlement: Settlement) -> Incident:
    """The incident that the settlement leaves open."""
    assert settlement.state is not None
    assert settlement.state.incident is not None
    return settlement.state.incident


def only_line(settlement: Settlement) -> Line:
    """The one record that the settlement stores."""
    (line,) = settlement.lines
    return line
