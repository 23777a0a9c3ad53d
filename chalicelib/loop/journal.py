"""One run's writing: the state as it was last read, and the records and states that are stored in its place."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict, Unpack

from msgspec.structs import replace

from chalicelib.auditlog.draft import Draft, RecordFields
from chalicelib.domain import incidents, waiting
from chalicelib.domain.judge import OF_THE_KEY
from chalicelib.domain.model import Actor, ChangeEvent, EncryptionType, KeyEvent, Target, Trigger, TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Rule
from chalicelib.domain.ports import Loaded
from chalicelib.domain.reasons import Outcome, Problem, Reason, Violation
from chalicelib.domain.stored import Cause, Incident, PastIncident, Phase, Record, TargetState
from chalicelib.domain.times import seconds
from chalicelib.loop.guard import Guard, Result

UNKNOWN_ACTOR = Actor("unknown")


class JoinedFields(TypedDict, total=False):
    """The fields of a record that join its event to a past incident; empty where it caused none."""

    incident_id: str
    cause: Cause | None
    exposure_seconds: float


class Journal:
    """What one run read of the state and of the world, and how it writes: `loaded` and `seen` are the latest."""

    def __init__(
        self,
        guard: Guard,
        target: Target,
        rule: Rule | None,
        trigger: Trigger,
        event: ChangeEvent | KeyEvent | None,
    ) -> None:
        self.guard = guard
        self.target = target
        self.rule = rule
        self.trigger = trigger
        self.event = event
        self.change = event if isinstance(event, ChangeEvent) else None
        self.loaded: Loaded | None = None
        self.seen: Observation | None = None

    def forget_event(self, trigger: Trigger) -> None:
        """Go on as if the event had only been a hint: nothing of it belongs on the record."""
        self.event = self.change = None
        self.trigger = trigger

    def unheard(self) -> bool:
        """Whether this run brings a change event that is not on the record yet."""
        assert self.loaded is not None
        return self.change is not None and not self.loaded.audited

    def load(self) -> Loaded:
        self.loaded = self.guard.store.load(str(self.target), self.event_id)
        return self.loaded

    @property
    def event_id(self) -> str | None:
        return self.change.trigger.event_id if self.change else None

    def save(self, before: TargetState, after: TargetState) -> TargetState:
        """Store a state without a record, and go on from it."""
        after = replace(after, version=before.version + 1)
        self.guard.store.commit(before, after)
        assert self.loaded is not None
        self.loaded = replace(self.loaded, state=after)
        return after

    def state(self) -> TargetState:
        assert self.loaded is not None
        return self.loaded.state

    @property
    def rule_id(self) -> str | None:
        return self.rule.id if self.rule else None

    def cause(self, seen: Observation, violations: tuple[Violation, ...]) -> Cause | None:
        """Who owns the drift: the event's actor, only if what the event did is what stands there now."""
        if self.event is None:
            return None
        owns = self.owns_drift(seen) if self.change else OF_THE_KEY.issuperset(violations)
        return cause_of(self.event.trigger) if owns else None

    def owns_drift(self, seen: Observation) -> bool:
        """Whether this run's change event made what stands there now.

        Not if it left something else behind, was audited before, or is older than the last time all was seen to be
        well: then somebody made the same change again. Events tell whole seconds, so the same second counts as later.
        """
        if self.change is None or self.change.result is None or not self.unheard():
            return False
        at, good_at = self.change.trigger.event_time, self.state().good_at
        is_newer = at is None or good_at is None or at >= good_at.replace(microsecond=0)
        return is_newer and seen.setting.same_choice(self.change.result)

    def incident(
        self, draft: Draft[TargetState], seen: Observation, violations: tuple[Violation, ...], now: datetime
    ) -> tuple[Incident, bool]:
        """The open incident, or a new one that begins with the next record; and whether it is new."""
        state: TargetState = draft.before
        if state.incident is not None:
            incident = state.incident
            if incident.before is None:
                incident = replace(incident, before=seen.setting)
            return incident, False
        incident = Incident(
            draft.next_id(),
            now,
            seen.setting,
            Phase.OPEN,
            violations,
            cause=self.cause(seen, violations),
        )
        return incident, True

    def joined(self, incident: Incident) -> Incident:
        """The open incident with the change event's actor and time lent to it, if they fit and it has no cause yet."""
        if self.change is None:
            return incident
        incident = replace(incident, latest=incidents.latest(incident.latest, cause_of(self.change.trigger)))
        past = self.state().past
        if incidents.caused_by(self.change, incident, past[-1].closed_at if past else None):
            return replace(incident, cause=cause_of(self.change.trigger))
        return incident

    def past_cause(self, state: TargetState) -> PastIncident | None:
        """The past incident that the change event caused, newest first."""
        if not self.change:
            return None
        ends = (None, *(past.closed_at for past in state.past))
        for past, ended in reversed(tuple(zip(state.past, ends, strict=False))):
            if incidents.caused_by(self.change, past, ended):
                return past
        return None

    def join_past(self, draft: Draft[TargetState]) -> JoinedFields:
        """Lend the change event's actor and time to the past incident it caused; the record's fields that say so."""
        past = self.past_cause(draft.before)
        if past is None or self.change is None or self.change.trigger.event_time is None:
            return {}
        cause = cause_of(self.change.trigger)
        draft.set(past=tuple(replace(each, cause=cause) if each.id == past.id else each for each in draft.after.past))
        exposure = seconds(past.closed_at - self.change.trigger.event_time)
        return {"incident_id": past.id, "cause": cause, "exposure_seconds": exposure}

    def close_lost(self, draft: Draft[TargetState], incident: Incident, now: datetime) -> None:
        """The worker of an attempt was lost: its REMEDIATING gets its end here."""
        problem = worker_lost(incident)
        self.add_about(draft, incident, Outcome.FAILED, now, error=problem, reason=problem.code, actions=())

    def note_setting(self, draft: Draft[TargetState], now: datetime) -> None:
        setting = self.seen.setting if self.seen else draft.before.setting
        draft.set(
            setting=setting,
            first_seen=draft.before.first_seen or now,
            ever_used=draft.before.ever_used or bool(setting and setting.type is EncryptionType.KMS),
            rule=self.rule_id,
            policy_digest=self.guard.policy.digest,
        )

    def note_good(self, draft: Draft[TargetState], seen: Observation, now: datetime) -> None:
        self.note_setting(draft, now)
        state: TargetState = draft.before
        self.clear_look(draft, seen)
        draft.set(
            outcome=Outcome.COMPLIANT,
            reason=None,
            violations=(),
            good_at=now,
            checked_at=now if seen.deep else state.checked_at,
        )

    def clear_look(self, draft: Draft[TargetState], seen: Observation) -> None:
        """Only a whole observation made after the look was due clears it: before, KMS may have told of the past."""
        look = draft.after.look
        if look is not None and seen.deep and look <= seen.at:
            draft.set(look=None)

    def add(self, draft: Draft[TargetState], outcome: Outcome, now: datetime, **fields: Unpack[RecordFields]) -> Record:
        """A record of this run; the fields it does not name are taken from what was seen."""
        fields.setdefault("rule", self.rule_id)
        fields.setdefault("before", self.seen.setting if self.seen else None)
        fields.setdefault("policy_digest", self.guard.policy.digest)
        if self.seen is not None and self.seen.use_problem is not None:
            unknown = f"not known, so judged as in use: {self.seen.use_problem.message}"
            fields["detail"] = {**fields.get("detail", {}), "in_use": unknown}
        return draft.add(now, outcome, self.trigger, **fields)

    def add_about(
        self,
        draft: Draft[TargetState],
        incident: Incident,
        outcome: Outcome,
        now: datetime,
        **fields: Unpack[RecordFields],
    ) -> Record:
        """A record of an incident."""
        fields.setdefault("incident_id", incident.id)
        fields.setdefault("attempt", incident.attempt if incident.unended else None)
        fields.setdefault("before", incident.before)
        fields.setdefault("violations", incident.violations)
        fields.setdefault("cause", incident.cause)
        return self.add(draft, outcome, now, **fields)

    def note(self, draft: Draft[TargetState]) -> TargetState:
        """Store records that are not about the event: it stays unheard."""
        draft.set(version=draft.before.version + 1)
        self.guard.store.commit(draft.before, draft.after, draft.records)
        for record, _, _ in draft.records:
            self.guard.emit(record)
        assert self.loaded is not None
        self.loaded = replace(self.loaded, state=draft.after)
        return self.state()

    def commit(
        self, draft: Draft[TargetState], outcome: Outcome, reason: str | None, *, mutated: bool = False
    ) -> Result:
        if self.trigger.kind is TriggerKind.KEY:
            # What an event tells of, KMS may not show for some minutes: whatever was found, it is looked at again.
            draft.set(look=waiting.later(draft.after.look, self.guard.clock.now() + waiting.STALE_READS))
        draft.set(version=draft.before.version + 1)
        event_id = self.event_id if self.loaded and not self.loaded.audited else None
        self.guard.store.commit(draft.before, draft.after, draft.records, event_id if draft.records else None)
        for record, _, _ in draft.records:
            self.guard.emit(record)
        if self.loaded:
            self.loaded = replace(self.loaded, state=draft.after, audited=self.loaded.audited or event_id is not None)
        last = draft.records[-1][0] if draft.records else None
        return Result(self.target, outcome, reason, draft.after.violations, last, mutated)


def cause_of(trigger: Trigger) -> Cause | None:
    if trigger.event_id is None or trigger.event_time is None:
        return None
    return Cause(trigger.event_id, trigger.event_time, trigger.actor or UNKNOWN_ACTOR)


def worker_lost(incident: Incident) -> Problem:
    lease = incident.lease
    owner = lease.owner if lease else "unknown"
    return Problem(Reason.WORKER_LOST, f"worker {owner} did not report back; what it did in this attempt is not known")
