"""A settlement: what a run writes in one transaction, and the draft that it grows from. Pure.

A draft lives for one call of a pure function. It begins with what is known, so a run that only learned something still
stores that.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypedDict, Unpack

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain import incidents, waiting
from chalicelib.domain.breakglass import Weighed
from chalicelib.domain.model import EncryptionType, Setting, Trigger, TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.reasons import Outcome, Problem, Reason, Violation
from chalicelib.domain.run import At, Known, Run, must_audit
from chalicelib.domain.stored import Action, Cause, Incident, Phase, Suppression, TargetState


class RecordFields(TypedDict, total=False):
    """The fields of a record that neither the chain nor the run fills in by itself."""

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
    detail: dict[str, Any]


class Line(Struct, frozen=True):
    """A record that is not yet part of its chain: it has no sequence number and no hash."""

    at: datetime
    outcome: Outcome
    trigger: Trigger
    fields: RecordFields


class Settlement(Struct, frozen=True):
    """What a run writes in one transaction, and what it answers.

    `state` is None where there is nothing to write. `violations` are those that the run recorded, or found to be on the
    record already. `due` is when the target must be checked again, None for the next sweep.
    """

    lines: tuple[Line, ...]
    state: TargetState | None
    outcome: Outcome
    reason: str | None = None
    violations: tuple[Violation, ...] = ()
    mutated: bool = False
    due: datetime | None = None


class SettlementDraft:
    """What one run will write. `seen` is what it observed, None where it observed nothing."""

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
        if glass is not None:
            self._note_break_glass(glass)

    def set(self, **changes: object) -> None:
        """Change fields of the state that will be stored."""
        self.state = replace(self.state, **changes)

    def add(self, outcome: Outcome, **fields: Unpack[RecordFields]) -> None:
        """Add a record of this run; the fields it does not name are taken from what was observed."""
        fields.setdefault("rule", self.run.rule_id)
        fields.setdefault("before", self.seen.setting if self.seen else None)
        fields.setdefault("policy_digest", self.run.setup.policy_digest)
        if self.seen is not None and self.seen.use_problem is not None:
            unknown = f"not known, so judged as in use: {self.seen.use_problem.message}"
            fields["detail"] = {**fields.get("detail", {}), "in_use": unknown}
        self.lines.append(Line(self.now, outcome, self.run.trigger, fields))

    def add_about(self, incident: Incident, outcome: Outcome, **fields: Unpack[RecordFields]) -> None:
        """Add a record of an incident."""
        fields.setdefault("incident_id", incident.id)
        fields.setdefault("attempt", incident.attempt if incident.unended else None)
        fields.setdefault("before", incident.before)
        fields.setdefault("violations", incident.violations)
        fields.setdefault("cause", incident.cause)
        self.add(outcome, **fields)

    def next_id(self) -> str:
        """The id of an incident whose first record is the next one."""
        return f"{self.state.target}#{self.state.seq + len(self.lines) + 1}"

    def incident(self, seen: Observation, violations: tuple[Violation, ...]) -> tuple[Incident, bool]:
        """The open incident, or a new one that begins with the next record; and whether it is new."""
        incident = self.state.incident
        if incident is not None:
            return (replace(incident, before=seen.setting) if incident.before is None else incident), False
        cause = incidents.cause_of_drift(self.run, self.known, seen, violations)
        return Incident(self.next_id(), self.now, seen.setting, Phase.OPEN, violations, cause=cause), True

    def joined(self, incident: Incident) -> Incident:
        """The open incident with what a change event that must be audited says of it."""
        return incidents.join(incident, self.run.change, self.state) if self.must_audit else incident

    def close_lost(self, incident: Incident) -> None:
        """Record the end of an attempt whose worker was lost."""
        problem = incidents.worker_lost(incident)
        self.add_about(incident, Outcome.FAILED, error=problem, reason=problem.code, actions=())

    def note_setting(self) -> None:
        """Keep the setting that was observed, and under which rule and policy."""
        setting = self.seen.setting if self.seen else self.state.setting
        self.set(
            setting=setting,
            first_seen=self.state.first_seen or self.now,
            ever_used=self.state.ever_used or bool(setting and setting.type is EncryptionType.KMS),
            rule=self.run.rule_id,
            policy_digest=self.run.setup.policy_digest,
        )

    def note_compliant(self, seen: Observation) -> None:
        """Keep that the target is compliant."""
        self.note_setting()
        self.clear_recheck(seen)
        self.set(
            outcome=Outcome.COMPLIANT,
            reason=None,
            violations=(),
            good_at=self.now,
            checked_at=self.now if seen.deep else self.state.checked_at,
        )

    def clear_recheck(self, seen: Observation) -> None:
        """Only a deep observation made after the recheck was due clears it: KMS may have shown the past before."""
        recheck_at = self.state.recheck_at
        if recheck_at is not None and seen.deep and recheck_at <= seen.at:
            self.set(recheck_at=None)

    def settled(
        self,
        outcome: Outcome,
        reason: str | None = None,
        *,
        violations: tuple[Violation, ...] | None = None,
        mutated: bool = False,
    ) -> Settlement:
        """The settlement; it stores nothing where nothing changed."""
        if self.run.trigger.kind is TriggerKind.KEY:
            # KMS may not show for some minutes what the event reports: whatever was found, all is read again.
            self.set(recheck_at=waiting.recheck_after(self.state.recheck_at, self.now))
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
        )

    def _note_break_glass(self, glass: Weighed) -> None:
        """A break-glass that was opened, refused or ended goes on the record with whatever else this run writes."""
        if glass.suppressions == self.state.suppressions and not glass.notes:
            return
        for reason, suppression in glass.notes:
            outcome = Outcome.SUPPRESSED if reason is Reason.BREAK_GLASS_OPENED else Outcome.IGNORED
            self.add(outcome, reason=reason, suppression=suppression)
        self.set(suppressions=glass.suppressions, watch=self.now if glass.is_open else None)
