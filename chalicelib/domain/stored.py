"""The values in the tables: records, and the states of the targets and of the guard.

`msgspec` encodes these types as they are, so renaming a field changes the stored format. `format` is the number of the
format of a value; `auditlog.states` and `auditlog.hashchain` read values of every format.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from enum import StrEnum

from msgspec import Struct, field
from msgspec.structs import replace

from chalicelib.domain.formats import FIRST_FORMAT, FORMAT
from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import Actor, Setting, Subject, Trigger
from chalicelib.domain.protected import Kept
from chalicelib.domain.reasons import Outcome, Problem, Reason, Violation
from chalicelib.domain.spans import Links, Spans

GUARD_CHAIN = "guard"
"""The chain for records of no target: sweeps, anchors, policy digests, unreadable events, pause and resume."""

ZERO_HASH = "0" * 64


class Cause(Struct, frozen=True):
    """The change that made a drift: its time starts the exposure, its actor owns it."""

    event_id: str
    at: datetime
    actor: Actor


class Change(Struct, frozen=True):
    """What the event changed whose record this is. Only the one record of an event has it.

    `after` is the new value according to the event, None if the event does not have it. `before` is the value that the
    guard last saw before the event, or that an earlier event set; None if there is none. Somebody may have changed it
    in between. Of a key policy `before` is a digest (`sha256:`), of tags those that the event changed.
    """

    subject: Subject | None = None
    resource: str | None = None
    before: str | None = None
    after: str | None = None


class Attribution(Struct, frozen=True):
    """Who made a violation: the latest events whose effect violates the rule, or what else explains it.

    `policy_digest` is set where the rule changed and not the target; `before_guard` where the target was noncompliant
    when the guard first saw it. With neither, and no event, it is unknown.
    """

    violation: Violation
    events: tuple[Cause, ...] = ()
    policy_digest: str | None = None
    before_guard: bool = False


class SeenEffect(Struct, frozen=True):
    """What an event changed, kept to find out which event made a violation. Of a key policy `after` is a digest."""

    cause: Cause
    subject: Subject
    resource: str | None
    after: str | None


class SeenValue(Struct, frozen=True):
    """A value, and the time from which it is known."""

    value: str
    since: datetime


class LastSeen(Struct, frozen=True):
    """The latest values of the setting, or of something of a key or an alias, in the order of their times.

    A key policy is a digest; tags are lines of key, tab and value.
    """

    subject: Subject
    resource: str | None
    values: tuple[SeenValue, ...]


class Maker(Struct, frozen=True):
    """What an event must have changed to have made a violation that was observed at `seen_at`.

    `since` is when the guard last saw that the target did not have it. `resources` are bare key ids or an alias, empty
    for the setting; `values` are those that violate the rule, of a key policy its digest.
    """

    violation: Violation
    seen_at: datetime
    subject: Subject
    resources: tuple[str, ...]
    values: tuple[str, ...]
    since: datetime | None = None


class Action(Struct, frozen=True):
    """One mutation that was sent. For a key policy, `before` and `after` are both texts."""

    name: str
    at: datetime
    key_arn: str | None = None
    before: str | None = None
    after: str | None = None
    request_id: str | None = None
    error: str | None = None


class Suppression(Struct, frozen=True):
    """A break-glass value that was seen; kept until its own end, so that seeing it again does not renew it.

    `carrier` is the ARN of the key or principal with the tag; `value` is normalised. `until` is the sooner of `end` and
    the rule's cap after `first_seen`. `refused` is the code of why it does not count; `closed`, of why it no longer
    counts. `drift` and `drift_at` are set if a principal has the tag: the setting that it made, and when.
    """

    carrier: str
    value: str
    reason: str
    first_seen: datetime
    end: datetime | None
    until: datetime | None
    opened_by: Actor | None = None
    refused: str | None = None
    closed: str | None = None
    drift: Setting | None = None
    drift_at: datetime | None = None


class Record(Struct, frozen=True):
    """One immutable line of the audit log; its hash is stored next to it. Earlier releases stored no `kept`."""

    record_id: str
    target: str
    seq: int
    at: datetime
    outcome: Outcome
    trigger: Trigger
    prev_hash: str
    incident_id: str | None = None
    attempt: int | None = None
    reason: str | None = None
    rule: str | None = None
    policy_digest: str | None = None
    violations: tuple[Violation, ...] = ()
    before: Setting | None = None
    after: Setting | None = None
    actions: tuple[Action, ...] = ()
    cause: Cause | None = None
    suppression: Suppression | None = None
    exposure_seconds: float | None = None
    error: Problem | None = None
    detail: dict[str, object] = field(default_factory=dict)
    change: Change | None = None
    attributions: tuple[Attribution, ...] = ()
    format: int = FIRST_FORMAT
    kept: Kept | None = None


class Window(Struct, frozen=True):
    """A time in which the guard may have made calls that it knows no request id of.

    `planned` are the steps that it meant to take, as `echo.plan_entry` names them.
    """

    since: datetime | None
    until: datetime
    planned: tuple[str, ...] = ()


class Lease(Struct, frozen=True):
    """The right to mutate a target, from `since` until `until` by AWS's clock. `number` grows with every lease."""

    owner: str
    number: int
    until: datetime
    since: datetime | None = None

    def window(self, planned: tuple[str, ...]) -> Window:
        """The lease as a time in which calls were made."""
        return Window(self.since, self.until, planned)

    def is_same(self, other: Lease) -> bool:
        """Whether both are the same lease. The owner is not enough: Lambda retries under the same request id."""
        return (self.owner, self.number) == (other.owner, other.number)


class Phase(StrEnum):
    """The progress of an open incident."""

    OPEN = "open"  # no worker is acting: observed, suppressed, deferred or failed
    ACTING = "acting"  # a worker holds the lease
    APPLIED = "applied"  # the required key is set; waiting for ACTIVE


class Incident(Struct, frozen=True):
    """A drift, from its discovery to its end. `attempt` counts the REMEDIATING records, each closed exactly once.

    `cause` is the first change, from which the exposure counts; `latest` the last one reported while it is open.
    `unended`: the latest attempt has no end on the record yet, or only APPLIED. Until `settles_until`, a failure in the
    lane `settles_in` may only mean that AWS is slow. `planned` are the latest attempt's steps. `mutated`: a call was
    sent that may have taken effect, so the end is REMEDIATED. `attributions` are of the present violations, `earlier`
    of former ones; `makers` say which events made them, also late events. Since `safe_at` nothing was seen exposed.
    """

    id: str
    opened_at: datetime
    before: Setting | None
    phase: Phase
    violations: tuple[Violation, ...] = ()
    attempt: int = 0
    lease: Lease | None = None
    due: datetime | None = None
    applied_at: datetime | None = None
    settles_until: datetime | None = None
    settles_in: Lane | None = None
    unended: bool = False
    cause: Cause | None = None
    latest: Cause | None = None
    mutated: bool = False
    planned: tuple[str, ...] = ()
    attributions: tuple[Attribution, ...] = ()
    makers: tuple[Maker, ...] = ()
    earlier: tuple[Attribution, ...] = ()
    safe_at: datetime | None = None


class PastIncident(Struct, frozen=True):
    """What is kept of a closed incident, so that an event that arrives late can be joined to it.

    `good_at` is when the target was last compliant before it.
    """

    id: str
    opened_at: datetime
    closed_at: datetime
    before: Setting | None
    cause: Cause | None = None
    good_at: datetime | None = None
    attributions: tuple[Attribution, ...] = ()
    makers: tuple[Maker, ...] = ()
    safe_at: datetime | None = None


class Intent(Struct, frozen=True):
    """A key about to be created, by its nonce tag. Not finding the nonce proves nothing before `due`."""

    nonce: str
    due: datetime


COUNTING_TIME = timedelta(hours=1)
"""A tally is closed this long after its first call."""


class Tally(Struct, frozen=True):
    """The calls of one principal on one target since `since`; as an amount to add, one call.

    `seen` are all of them; `refused` and `tag_changes` are those without a record of their own.
    """

    target: str
    principal: str
    since: datetime
    seen: int = 0
    refused: int = 0
    tag_changes: int = 0

    @property
    def name(self) -> str:
        """The name under which it is stored."""
        return f"{self.target}#{hashlib.sha256(self.principal.encode('utf-8', 'replace')).hexdigest()[:32]}"

    @property
    def counted(self) -> int:
        """How many calls have no record of their own."""
        return self.refused + self.tag_changes

    @property
    def closes_at(self) -> datetime:
        """When the number of calls is recorded, and counting starts again."""
        return self.since + COUNTING_TIME


class Backoff(Struct, frozen=True):
    """How many attempts a lane needed lately, and until when the next one must wait."""

    count: int = 0
    last_at: datetime | None = None
    until: datetime | None = None


class TargetState(Struct, frozen=True):
    """The present state of a target, the head of its chain, and what is due. `version` guards every write.

    `good_at` is when the target was last compliant, `checked_at` when a deep observation last found it so. `recheck_at`
    is when everything must be read again; `watch` is set while a break-glass may suppress the target. `keys_handed` are
    keys of others, handed over. `effects` are what the latest events changed, `last_seen` what stood there before.
    `requests` are the ids of the guard's latest calls, `windows` the times of calls whose ids it does not know: by both
    it recognizes the events of its own calls. `good_setting_at` is when it last read a compliant setting. `spans` and
    `links` are what was last read of them.
    """

    target: str
    version: int = 0
    seq: int = 0
    head: str = ZERO_HASH
    first_seen: datetime | None = None
    setting: Setting | None = None
    ever_used: bool = False
    outcome: Outcome | None = None
    reason: str | None = None
    violations: tuple[Violation, ...] = ()
    rule: str | None = None
    policy_digest: str | None = None
    checked_at: datetime | None = None
    good_at: datetime | None = None
    incident: Incident | None = None
    past: tuple[PastIncident, ...] = ()
    lease_number: int = 0
    managed_key: str | None = None
    keys_made: tuple[str, ...] = ()
    keys_retired: tuple[str, ...] = ()
    keys_handed: tuple[str, ...] = ()
    intent: Intent | None = None
    recheck_at: datetime | None = field(default=None, name="look")
    backoffs: dict[Lane, Backoff] = field(default_factory=dict)
    suppressions: tuple[Suppression, ...] = ()
    watch: datetime | None = None
    requests: tuple[str, ...] = ()
    windows: tuple[Window, ...] = ()
    effects: tuple[SeenEffect, ...] = ()
    format: int = FORMAT
    last_seen: tuple[LastSeen, ...] = ()
    good_setting_at: datetime | None = None
    spans: Spans | None = None
    links: Links | None = None

    @property
    def due(self) -> datetime | None:
        """When the target must be checked again: the soonest due time. None in a denied Region: the sweep checks it."""
        if self.reason == Reason.REGION_DENIED:
            return None
        waits = [
            self.recheck_at,
            self.watch,
            self.incident and self.incident.due,
            self.intent and self.intent.due,
        ]
        return min((wait for wait in waits if wait), default=None)

    def is_held(self, now: datetime) -> bool:
        """Whether a worker's lease prevents others from acting."""
        lease = self.incident.lease if self.incident else None
        return lease is not None and now < lease.until

    def differs_only_in_chain(self, other: TargetState) -> bool:
        """Whether only records were added between the two states."""
        return self == replace(other, version=self.version, seq=self.seq, head=self.head)


class Pause(Struct, frozen=True):
    """An operator's stop: while it is set, everything is judged and nothing is mutated."""

    at: datetime
    by: str
    reason: str


class GuardState(Struct, frozen=True):
    """The guard's own state: its chain's head, the policy in force with the number of its record, the pause."""

    target: str = GUARD_CHAIN
    version: int = 0
    seq: int = 0
    head: str = ZERO_HASH
    policy_digest: str | None = None
    paused: Pause | None = None
    swept_at: datetime | None = None
    due: None = None
    policy_seq: int | None = None
    format: int = FORMAT
