"""What one run of the loop is about, and what it knows, as values.

A run is one look at one target: it has a trigger, perhaps an event, and the rule that governs the target. None of these
values knows a client, a clock or a table, so everything between reading and writing is a function of them.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain.model import ChangeEvent, KeyEvent, Target, Trigger
from chalicelib.domain.policy import Limits, Rule
from chalicelib.domain.stored import GuardState, TargetState


class Setup(Struct, frozen=True):
    """What a run must know of the guard: who it is, and the limits that its policy sets."""

    account: str
    partition: str
    role_arn: str
    policy_digest: str
    limits: Limits
    worker: str
    lease_seconds: int


class Run(Struct, frozen=True):
    """What one run is about. `rule` is None where no rule matches; `event` is None where no event started the run.

    `budget_left` is false where a sweep has already changed as many targets as the policy allows.
    """

    target: Target
    rule: Rule | None
    trigger: Trigger
    setup: Setup
    event: ChangeEvent | KeyEvent | None = None
    budget_left: bool = True

    @property
    def rule_id(self) -> str | None:
        """The rule's id, as records carry it."""
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
    def is_own(self) -> bool:
        """Whether the guard's role made the change; what an AWS service does with the role is not the guard's own."""
        actor = self.event.trigger.actor if self.event else None
        return actor is not None and actor.arn == self.setup.role_arn and actor.via is None

    def as_hint(self) -> Run:
        """The run without its event: the event says nothing of who made what stands there now."""
        return replace(self, event=None, trigger=Trigger(self.trigger.kind))


class Known(Struct, frozen=True):
    """What a run knows of its target: `stored` as it was read, `state` with what the run learned since.

    `audited` says that the run's event is on the record already.
    """

    stored: TargetState
    state: TargetState
    guard: GuardState
    audited: bool = False


class At(Struct, frozen=True):
    """Time and chance as inputs: AWS's time, and a number in [0, 1) that spreads the pauses of many targets."""

    now: datetime
    jitter: float = 0.0


def must_audit(run: Run, known: Known) -> bool:
    """Whether the run brings an event that is not on the record yet."""
    return run.event is not None and not known.audited
