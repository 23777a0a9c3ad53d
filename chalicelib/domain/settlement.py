"""A settlement: what a run stores in one transaction, and the draft that builds it. Pure.

A draft lives for one call of a pure function. It starts from what is known, so even a run that only learned something
stores it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict, Unpack

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain import attribution, floods, incidents, lastseen, waiting
from chalicelib.domain.breakglass import Weighed
from chalicelib.domain.echo import MOST_REQUESTS, MOST_WINDOWS
from chalicelib.domain.judge import OF_THE_KEY, judge, lanes_of
from chalicelib.domain.lanes import EXPOSED_ELSEWHERE, HARM
from chalicelib.domain.model import EncryptionStatus, EncryptionType, KeyEvent, Setting, Trigger, TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.reasons import Outcome, Problem, Reason, Violation
from chalicelib.domain.run import At, Known, Run, must_audit
from chalicelib.domain.sizes import fitted
from chalicelib.domain.spans import Spans
from chalicelib.domain.steps import StepName
from chalicelib.domain.stored import (
    Action,
    Attribution,
    Cause,
    Change,
    Incident,
    Phase,
    Suppression,
    Tally,
    TargetState,
)


class RecordFields(TypedDict, total=False):
    """The fields of a record that neither the chain nor the run sets."""

    incident_id: str | None
    attempt: int | None
    reason: str | None
    rule: str | None
    policy_digest: str | None
    violations: tuple[Violation, ...]
    before: Setting | None
    after: Setting | None
    actions: tuple[Action, ...]
    cause: Cause | None
    suppression: Suppression | None
    exposure_seconds: float | None
    error: Problem | None
    detail: dict[str, object]
    change: Change | None
    attributions: tuple[Attribution, ...]


ASSOCIATION = (
    "CloudWatch Logs may take five more minutes to encrypt new spans with the key. Spans that it stored before stay as "
    "they are."
)
"""What a record says of an AssociateKmsKey that succeeded.
https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_AssociateKmsKey.html
"""


class Line(Struct, frozen=True):
    """A record that is not part of its chain yet: it has no sequence number and no hash."""

    at: datetime
    outcome: Outcome
    trigger: Trigger
    fields: RecordFields


class Settlement(Struct, frozen=True):
    """What a run stores in one transaction, and what it returns.

    `state` is None if there is nothing to store. `violations` are those that the run recorded, or found on record.
    `mutated`: this is the end of an attempt, even if AWS refused its calls. `due` is when the target must be checked
    again, None for the next sweep. `tally` is what the run's event adds to its tally; `closes` is the tally whose
    number is recorded here. `used` are the keys and nonces of the state that the run relies on: it stores nothing if
    one of them is not on record.
    """

    lines: tuple[Line, ...]
    state: TargetState | None
    outcome: Outcome
    reason: str | None = None
    violations: tuple[Violation, ...] = ()
    mutated: bool = False
    due: datetime | None = None
    tally: Tally | None = None
    closes: Tally | None = None
    used: tuple[str, ...] = ()


class SettlementDraft:
    """What one run will store. `seen` is what it observed, None if it observed nothing."""

    def __init__(
        self, run: Run, known: Known, at: At, seen: Observation | None = None, glass: Weighed | None = None
    ) -> None:
        self.run = run
        self.known = known
        self.at = at
        self.now = at.now
        self.seen = seen
        self.state: TargetState = known.state
        self.lines: list[Line] = []
        self.must_audit = must_audit(run, known)
        self.news: tuple[Attribution, ...] = ()
        """The attributions that change with the run's event."""
        self._calls_known = False
        self.used: tuple[str, ...] = ()
        """The keys and nonces that the run relies on."""
        if seen is not None:
            spans = seen.spans if seen.spans != Spans() else None  # a Region that offers no destination
            links = seen.links.after(self.state.links) if seen.links else self.state.links
            self.set(spans=spans, links=links)
        self._note_edits()
        self._note_found_key()
        if self.must_audit and run.event is not None:
            cause = incidents.cause_of(run.event.trigger)
            self.set(
                effects=attribution.remember(self.state.effects, attribution.effect_of(run.event, cause)),
                last_seen=lastseen.with_event(self.state, run.rule, run.event),
            )
        if self.must_audit and run.trigger.kind is TriggerKind.HISTORY:
            self.add(Outcome.IGNORED, reason=Reason.MISSED_EVENT)
        if self.must_audit and run.is_by_own_role:
            self._note_borrowed_role()
        if glass is not None:
            self._note_break_glass(glass)

    def set(self, **changes: object) -> None:
        """Change fields of the state that will be stored."""
        self.state = replace(self.state, **changes)

    def add(self, outcome: Outcome, **fields: Unpack[RecordFields]) -> None:
        """Add a record of this run. Fields that are not given are taken from the run and the observation."""
        fields.setdefault("rule", self.run.rule_id)
        fields.setdefault("before", self.seen.setting if self.seen else None)
        fields.setdefault("policy_digest", self.run.setup.policy_digest)
        remarks = self._remarks(fields.get("actions", ()))
        if remarks:
            fields["detail"] = {**fields.get("detail", {}), **remarks}
        self.lines.append(Line(self.now, outcome, self.run.trigger, fields))

    def _remarks(self, actions: tuple[Action, ...]) -> dict[str, object]:
        """Return what a record says about its observation beside the setting, and about what it did."""
        remarks: dict[str, object] = {}
        if self.seen is None:
            return remarks
        if self.seen.use_problem is not None:
            remarks["in_use"] = f"not known, so judged as in use: {self.seen.use_problem.message}"
        if not (self.seen.spans.are_with_traces and self.seen.spans.same_place(self.known.stored.spans)):
            remarks["spans"] = str(self.seen.spans)
        if any(action.name == StepName.ASSOCIATE_KEY and action.error is None for action in actions):
            remarks["association"] = ASSOCIATION
        links = self.seen.links or self.known.stored.links
        if links is not None and links.problem is not None:
            remarks["copies"] = f"not known which accounts receive copies of traces: {links.problem.message}"
        elif links is not None and links.found:
            remarks["copies"] = f"links copy traces to {', '.join(links.accounts)}"
        return remarks

    def add_about(self, incident: Incident, outcome: Outcome, **fields: Unpack[RecordFields]) -> None:
        """Add a record about an incident. Fields that are not given are taken from the incident, then as in `add`."""
        fields.setdefault("incident_id", incident.id)
        fields.setdefault("attempt", incident.attempt if incident.unended else None)
        fields.setdefault("before", incident.before)
        fields.setdefault("violations", incident.violations)
        earlier = tuple(each for each in self.news if each in incident.earlier)
        fields.setdefault("attributions", (*incident.attributions, *earlier))
        fields.setdefault("cause", incident.cause)
        self.add(outcome, **fields)

    def next_id(self) -> str:
        """Return the id of an incident whose first record is the next one."""
        return f"{self.state.target}#{self.state.seq + len(self.lines) + 1}"

    def incident(self, seen: Observation, violations: tuple[Violation, ...]) -> tuple[Incident, bool]:
        """Return the open incident, or a new one that begins with the next record; and whether it is new."""
        incident, is_new = self.state.incident, False
        if incident is None:
            cause = incidents.cause_of_drift(self.run, self.known, seen, violations)
            incident = Incident(self.next_id(), self.now, seen.setting, Phase.OPEN, violations, cause=cause)
            is_new = True
        elif incident.before is None:
            incident = replace(incident, before=seen.setting)
        assert self.run.rule is not None
        makers = attribution.makers_of(self.run.rule, self.known, seen, violations)
        found = attribution.attribute(self.run, self.known, self.state.effects, makers, violations)
        incident = self.with_safety(incident, seen)
        former = {each.violation: each for each in (*incident.earlier, *incident.attributions)}
        earlier = tuple(each for each in former.values() if each.violation not in violations)
        makers = (*(maker for maker in incident.makers if maker.violation not in violations), *makers)
        return replace(incident, attributions=found, earlier=earlier, makers=makers), is_new

    def with_safety(self, incident: Incident, seen: Observation) -> Incident:
        """Return the incident with the time since when nothing is exposed, None if something is."""
        assert self.run.rule is not None
        lanes = lanes_of(self.run.target, self.run.rule, self.state, seen)
        found = judge(self.run.target, self.run.rule, self.state, seen)
        safe = (
            HARM.isdisjoint(lanes.values())
            and EXPOSED_ELSEWHERE.isdisjoint(found)
            and seen.setting.status is EncryptionStatus.ACTIVE
        )
        return replace(incident, safe_at=incident.safe_at or self.now) if safe else replace(incident, safe_at=None)

    def joined(self, incident: Incident) -> Incident:
        """Return the open incident, joined with the run's event if that must be audited."""
        if not self.must_audit:
            return incident
        incident = incidents.join(incident, self.run.change, self.state)
        found = attribution.name_makers(incident.attributions, incident.makers, self.state.effects)
        earlier = attribution.name_makers(incident.earlier, incident.makers, self.state.effects)
        known = (*incident.attributions, *incident.earlier)
        self.news = tuple(each for each in (*found, *earlier) if each not in known)
        cause = incident.cause or self._cause_of_key_violations((*found, *earlier))
        return replace(incident, attributions=found, earlier=earlier, cause=cause)

    def joined_past(self) -> incidents.JoinedFields:
        """Join the run's event to the past incident in which it happened; return the record's fields for it.

        Of the violations, only those that the event is newly known to have made.
        """
        event = self.run.event
        if event is None or not self.must_audit:
            return {}
        self.state, joined = incidents.join_past(self.state, self.run.change)
        known = incidents.past_with(self.state, joined.get("incident_id"), event.trigger.event_time)
        if known is None:
            return {}
        found = attribution.name_makers(known.attributions, known.makers, self.state.effects)
        news = tuple(each for each in found if each not in known.attributions)
        fields: incidents.JoinedFields = {**joined, "incident_id": known.id, "attributions": news}
        cause = known.cause or self._cause_of_key_violations(found)
        if known.cause is None and cause is not None:
            fields |= {"cause": cause, "exposure_seconds": incidents.past_exposure(known, cause.at)}
        past = replace(known, attributions=found, cause=cause)
        self.set(past=tuple(past if each.id == past.id else each for each in self.state.past))
        return fields

    def _cause_of_key_violations(self, found: tuple[Attribution, ...]) -> Cause | None:
        """The run's key event as the cause of an incident whose violations are all of the key, if it made one."""
        event = self.run.event
        cause = incidents.cause_of(event.trigger) if isinstance(event, KeyEvent) else None
        is_maker = cause is not None and any(cause in each.events for each in found)
        return cause if is_maker and OF_THE_KEY.issuperset(each.violation for each in found) else None

    def close_lost(self, incident: Incident) -> None:
        """Record the end of an attempt whose worker was lost, with the violations that it was about."""
        if incident.lease is not None:
            limits = self.run.setup.limits
            self.set(backoffs=waiting.after_lost(self.state.backoffs, incident.lease, self.at, limits))
        problem = incidents.worker_lost(incident)
        former = self.known.stored.incident
        named = former.attributions if former else incident.attributions
        self.add_about(incident, Outcome.FAILED, error=problem, reason=problem.code, actions=(), attributions=named)

    def note_setting(self) -> None:
        """Store what was observed of the setting and its keys, and the rule and policy that applied."""
        setting = self.seen.setting if self.seen else self.state.setting
        self.set(
            setting=setting,
            first_seen=self.state.first_seen or self.now,
            ever_used=self.state.ever_used or bool(setting and setting.type is EncryptionType.KMS),
            rule=self.run.rule_id,
            policy_digest=self.run.setup.policy_digest,
        )
        if self.seen is not None:
            self.set(last_seen=lastseen.with_observation(self.state, self.run.rule, self.seen, self.now))

    def note_compliant(self, seen: Observation) -> None:
        """Store that the target is compliant."""
        self.note_setting()
        self.clear_recheck(seen)
        self.set(
            outcome=Outcome.COMPLIANT,
            reason=None,
            violations=(),
            good_at=self.now,
            good_setting_at=seen.setting_at or seen.at,
            checked_at=self.now if seen.deep else self.state.checked_at,
        )

    def clear_recheck(self, seen: Observation) -> None:
        """Clear the recheck if the observation is deep and was made after it was due: earlier reads may be stale.

        What is not known of spans, for a reason that passes, or changes just now, is read again then.
        """
        recheck_at = self.state.recheck_at
        if recheck_at is not None and seen.deep and recheck_at <= seen.at:
            recheck_at = None
        if seen.spans.will_be_known:
            recheck_at = recheck_at or waiting.recheck_after(None, self.now)
        self.set(recheck_at=recheck_at)

    def settled(
        self,
        outcome: Outcome,
        reason: str | None = None,
        *,
        violations: tuple[Violation, ...] | None = None,
        mutated: bool = False,
    ) -> Settlement:
        """Return the settlement. It stores nothing if nothing changed.

        If the run's event must be audited, a record must have been added: the last one becomes the record of the event.
        """
        if self.run.trigger.kind is TriggerKind.KEY and reason != Reason.GRANTS_CHANGED:
            # KMS may not show the event's change for some minutes: whatever was found, read everything again later.
            self.set(recheck_at=waiting.recheck_after(self.state.recheck_at, self.now))
        if self.must_audit and self.lines:
            self._mark_record_of_event()
        self._keep_window()
        self.state = fitted(self.state)
        tally = self.known.tally if self.must_audit and self.lines else None
        changed = bool(self.lines) or self.state != self.known.stored
        if violations is None:
            # A state that is stored without a record says nothing of what the run judged.
            violations = self.state.violations if self.lines else ()
        return Settlement(
            tuple(self.lines),
            self.state if changed else None,
            outcome,
            reason,
            violations,
            mutated,
            self.state.due,
            floods.in_full(tally, self.now) if tally else None,
            used=self.used,
        )

    def note_calls(self, actions: tuple[Action, ...]) -> None:
        """Keep the request ids of an attempt's calls, by which their events are recognized, and what they set."""
        ids = tuple(action.request_id for action in actions if action.request_id)
        self.set(requests=(*self.state.requests, *ids)[-MOST_REQUESTS:])
        self._calls_known = all(action.request_id for action in actions)
        self.set(last_seen=lastseen.with_actions(self.state, self.run.rule, actions))

    def _keep_window(self) -> None:
        """If an attempt ends here whose calls are not all known, keep its window, to recognize their events."""
        incident = self.known.state.incident
        lease = incident.lease if incident else None
        now_held = self.state.incident.lease if self.state.incident else None
        if incident is None or lease is None or self._calls_known or (now_held and now_held.is_same(lease)):
            return
        self.set(windows=(*self.state.windows, lease.window(incident.planned))[-MOST_WINDOWS:])

    def _note_edits(self) -> None:
        """Record the values that somebody else wrote into the stored state."""
        for edit in self.known.edits:
            self.add(Outcome.IGNORED, reason=Reason.STATE_EDITED, detail={"field": edit.field, "value": edit.value})

    def _note_found_key(self) -> None:
        """Record the key that this run found by the nonce of the stored intent."""
        intent = self.known.stored.intent
        found = [arn for arn in self.known.state.keys_made if arn not in self.known.stored.keys_made]
        if intent is not None and found:
            self.used = (intent.nonce,)
            self.add(Outcome.IGNORED, reason=Reason.KEY_FOUND, detail={"key": found[0]})

    def _note_borrowed_role(self) -> None:
        """Record that somebody else uses the guard's role. A run drops the event of an echo before it settles."""
        self.add(Outcome.IGNORED, reason=Reason.ROLE_BORROWED)
        self.set(recheck_at=waiting.recheck_after(self.state.recheck_at, self.now))

    def _mark_record_of_event(self) -> None:
        """Say on the last record that it is the event's own, and what the event changed."""
        event = self.run.event
        assert event is not None
        line = self.lines[-1]
        effect = event.effect
        change = Change()
        if effect is not None:
            was = lastseen.value_before(self.known.stored, event)
            change = Change(effect.subject, effect.resource, was, effect.after)
        self.lines[-1] = replace(line, fields={**line.fields, "change": change})

    def _note_break_glass(self, glass: Weighed) -> None:
        """Record each break-glass that was opened, refused or ended, together with what else this run stores."""
        if glass.suppressions == self.state.suppressions and not glass.notes:
            return
        for reason, suppression in glass.notes:
            outcome = Outcome.SUPPRESSED if reason is Reason.BREAK_GLASS_OPENED else Outcome.IGNORED
            self.add(outcome, reason=reason, suppression=suppression)
        self.set(suppressions=glass.suppressions, watch=self.now if glass.is_open else None)
