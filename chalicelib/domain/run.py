"""The input of one run of the loop, and what it knows, as values.

A run is one reconciliation of one target: it has a trigger, maybe an event, and the rule that governs the target. These
values have no access to a client, a clock or a table, so everything between reading and writing is a function of them.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain.formats import FORMAT
from chalicelib.domain.model import ChangeEvent, KeyEvent, Target, Trigger
from chalicelib.domain.policy import Limits, Rule
from chalicelib.domain.stored import GuardState, Tally, TargetState


class Setup(Struct, frozen=True):
    """What a run needs to know about the guard: its identity, and the limits that its policy sets.

    `observe_only`: the guard was deployed with a role that may change neither X-Ray nor KMS.
    """

    account: str
    partition: str
    role_arn: str
    policy_digest: str
    limits: Limits
    worker: str
    lease_seconds: int
    observe_only: bool = False


class Run(Struct, frozen=True):
    """The input of one run. `rule` is None if no rule matches; `event` is None if no event triggered the run.

    `budget_left` is false if the sweep has already mutated as many targets as the policy allows.
    """

    target: Target
    rule: Rule | None
    trigger: Trigger
    setup: Setup
    event: ChangeEvent | KeyEvent | None = None
    budget_left: bool = True

    @property
    def rule_id(self) -> str | None:
        """The rule's id, as in records."""
        return self.rule.id if self.rule else None

    @property
    def change(self) -> ChangeEvent | None:
        """The event, if it is a PutEncryptionConfig call."""
        return self.event if isinstance(self.event, ChangeEvent) else None

    @property
    def event_id(self) -> str | None:
        """The id under which the event is recorded once."""
        return self.event.trigger.event_id if self.event else None

    @property
    def is_by_own_role(self) -> bool:
        """Whether the guard's role made the call, and not an AWS service that uses the role.

        The role may be borrowed: only `echo.is_echo` tells whether the guard made it.
        """
        actor = self.event.trigger.actor if self.event else None
        return actor is not None and actor.arn == self.setup.role_arn and actor.via is None

    def without_event(self) -> Run:
        """Return the run without its event, which does not say who made the present setting."""
        return replace(self, event=None, trigger=Trigger(self.trigger.kind))


class Edit(Struct, frozen=True):
    """A stored value that the guard never stores, as text: the run does not use it."""

    field: str
    value: str


class Known(Struct, frozen=True):
    """What a run knows about its target: `stored` as it was read, `state` with what the run learned since.

    `audited`: the run's event is on the record already. `tally` counts calls like the run's event; None if the event is
    always recorded in full. `edits` are the stored values that `state` has not, because somebody else edited them.
    """

    stored: TargetState
    state: TargetState
    guard: GuardState
    audited: bool = False
    tally: Tally | None = None
    edits: tuple[Edit, ...] = ()

    def as_of_this_format(self) -> Known:
        """Return the same for a state that only claims an earlier release's format, so that it can be stored."""
        return replace(self, stored=replace(self.stored, format=FORMAT), state=replace(self.state, format=FORMAT))


class At(Struct, frozen=True):
    """Time and randomness as inputs: AWS's time, and a number in [0, 1) that spreads the pauses of many targets."""

    now: datetime
    jitter: float = 0.0


def must_audit(run: Run, known: Known) -> bool:
    """Whether the run brings an event that is not on the record yet."""
    return run.event is not None and not known.audited
