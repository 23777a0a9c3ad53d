"""The loop: observe, decide, act, record. One function for every trigger.

An event is only a hint to look. A run reads the target's state and its live setting, decides, and either writes one
record, or none where all is as before, or remediates: it stores REMEDIATING together with a lease, makes one mutation
after the other, each followed by what KMS or X-Ray answer, and stores how it ended. Nothing is mutated before
REMEDIATING is stored (P3) or after the lease's end (P8); REMEDIATED is written only when X-Ray has answered with the
wanted key in ACTIVE (P4).

A crash leaves a REMEDIATING without its end. The lease tells when it may be taken over, and whoever does closes it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from chalicelib import ledger
from chalicelib.attempt import SETTLING, SETTLING_CODES, Attempt, is_settling
from chalicelib.breakglass import NoteReason, Weighed, principals_to_read, weigh
from chalicelib.decide import Decision, Observation, StepName, decide, judge, managed_key
from chalicelib.errors import AwsError, Busy, Conflict, GuardError, LeaseOver, StoreError
from chalicelib.guard import MOST_CONFLICTS, Assessment, Guard, Result, record_in_guard_chain
from chalicelib.journal import Journal, worker_lost
from chalicelib.ledger import Draft
from chalicelib.model import (
    NONCE_TAG_KEY,
    Backoff,
    ChangeEvent,
    EncryptionStatus,
    EncryptionType,
    Incident,
    Intent,
    KeyEvent,
    Lease,
    Outcome,
    Phase,
    Problem,
    Setting,
    Suppression,
    Target,
    TargetState,
    Trigger,
    TriggerKind,
)
from chalicelib.observe import Glance, glance, glance_reads, observe, rule_aliases
from chalicelib.policy import Mode, Rule
from chalicelib.ports import Loaded

LONGEST_UPDATE = timedelta(minutes=30)
MOST_STORE_ERRORS = 1
DEEP_EVERY = timedelta(hours=24)


def reconcile(
    guard: Guard,
    target: Target,
    trigger: Trigger,
    event: ChangeEvent | KeyEvent | None = None,
    *,
    budget_left: bool = True,
) -> Result:
    """Bring one target to what its rule asks, or write down why not.

    Raises `Busy` where every attempt met another writer, and whatever kept the record from being stored; anything else
    that goes wrong is on the record with its due time.
    """
    store_errors = 0
    for _ in range(MOST_CONFLICTS):
        run = _Run(guard, target, trigger, event, budget_left)
        try:
            result = run.once()
        except Conflict:
            guard.step_aside()
        except StoreError:
            # Whether it was stored is not known: look again, and let Lambda try again if it stays so.
            store_errors += 1
            if store_errors > MOST_STORE_ERRORS:
                raise
        except GuardError as error:
            try:
                return run.fail(error.problem)
            except Conflict:
                continue
        except LeaseOver:
            return Result(target, Outcome.DEFERRED, "LEASE_OVER")
        except Exception as error:
            run.fail(Problem("INTERNAL_ERROR", f"{type(error).__name__} in the guard; see the function's log"))
            raise
        else:
            # Whatever goes wrong with this is no failure of the target's: it is raised as it is.
            run.announce_policy()
            return result
    raise Busy(Problem("BUSY", f"{target}: {MOST_CONFLICTS} attempts met other writers"))


def reconcile_key_event(guard: Guard, event: KeyEvent) -> Result:
    """Reconcile the event's target if the key or alias is one that matters there; otherwise one read and no write."""
    rule = guard.policy.rule_for(event.target)
    ours = event.trigger.actor is not None and event.trigger.actor.arn == guard.role_arn
    if rule is None or rule.mode is Mode.OFF or event.error_code or ours:
        return Result(event.target, Outcome.IGNORED, "ECHO" if ours else "NOT_OURS")
    state = guard.store.load(str(event.target)).state
    keys = {state.managed_key, *state.keys_made, state.setting.key_arn if state.setting else None}
    aliased = event.alias is not None and event.alias in rule_aliases(rule)
    if not aliased and keys.isdisjoint(event.key_arns):
        return Result(event.target, Outcome.IGNORED, "NOT_OURS")
    return reconcile(guard, event.target, event.trigger, event)


def replace_key(guard: Guard, target: Target, trigger: Trigger) -> Result:
    """On an operator's word, give up the managed key: the next look makes another. The old key is left as it is.

    Raises GuardError where the target has no managed key, or a worker is at it.
    """
    for _ in range(MOST_CONFLICTS):
        journal = Journal(guard, target, guard.policy.rule_for(target), trigger, None)
        state = journal.load().state
        now = guard.clock.now()
        if state.managed_key is None:
            raise GuardError(Problem("NO_MANAGED_KEY", f"the guard recorded no managed key for {target}", False))
        if state.incident and state.incident.lease and now < state.incident.lease.until:
            raise GuardError(Problem("IN_PROGRESS", f"a worker is at {target}; try again in two minutes"))
        draft = Draft(state)
        incident = replace(state.incident, due=now) if state.incident else None
        draft.set(
            managed_key=None,
            keys_retired=(*state.keys_retired, state.managed_key),
            incident=incident,
            backoff=Backoff(),
            look=now,
        )
        journal.add(draft, Outcome.IGNORED, now, reason="KEY_REPLACED", detail={"retired": state.managed_key})
        try:
            return journal.commit(draft, Outcome.IGNORED, "KEY_REPLACED")
        except Conflict:
            guard.step_aside()
    raise Busy(Problem("BUSY", f"{target}: {MOST_CONFLICTS} attempts met other writers"))


def assess(guard: Guard, target: Target, trigger: TriggerKind = TriggerKind.OPERATOR) -> Assessment:
    """Observe and judge without writing or mutating anything."""
    return _Run(guard, target, Trigger(trigger), None, True).assess()


class _Run:
    """One look at one target, and what follows from it."""

    def __init__(
        self,
        guard: Guard,
        target: Target,
        trigger: Trigger,
        event: ChangeEvent | KeyEvent | None,
        budget_left: bool,
    ) -> None:
        self.guard = guard
        self.target = target
        self.budget_left = budget_left
        self.rule = guard.policy.rule_for(target)
        self.reach = guard.reach(target)
        self.journal = Journal(guard, target, self.rule, trigger, event)
        self.looks_only = False
        self.refusal: Suppression | None = None

    def announce_policy(self) -> None:
        """The first run under a new policy digest says so in the guard's own chain."""
        digest = self.guard.policy.digest
        if self.journal.loaded is not None and self.journal.loaded.guard.policy_digest != digest:
            record_in_guard_chain(
                self.guard,
                Outcome.IGNORED,
                Trigger(self.journal.trigger.kind),
                reason="POLICY_IN_FORCE",
                unless=lambda state: state.policy_digest == digest,
            )

    # --- what kind of run ------------------------------------------------------------------------------------------

    def once(self) -> Result:
        if self.target.account != self.guard.account:
            return self._ignore("ACCOUNT_NOT_OURS", f"this guard acts in account {self.guard.account}")
        if self._is_echo():
            return self._echo()
        if self.journal.change and self.journal.change.error_code:
            return self._ignore(self.journal.change.error_code, self.journal.change.error_message)
        if self.rule is None:
            return self._ignore("UNGOVERNED", "no rule of the policy matches this target")
        if self.rule.mode is Mode.OFF:
            return self._ignore("RULE_OFF", f"rule {self.rule.id} is off")
        return self._judge(self.rule)

    def _is_echo(self) -> bool:
        if self.journal.event is None:
            return False
        actor = self.journal.event.trigger.actor
        return actor is not None and actor.arn == self.guard.role_arn and actor.via is None

    def _ignore(self, reason: str, message: str | None) -> Result:
        """Write down what is not ours to judge: every change event once, a sweep's finding when it is news."""
        loaded = self.journal.loaded or self.journal.load()
        state = loaded.state
        draft = Draft(state)
        now = self.guard.clock.now()
        # While a worker is at it, its attempt must get its end first: it is due when the lease is over.
        judged_rule = reason in ("UNGOVERNED", "RULE_OFF", "IDLE") and not self._is_held(state, now)
        news = judged_rule and (state.incident or (state.outcome, state.reason) != (Outcome.IGNORED, reason))
        wanted = self.journal.unheard() or (news and not self.journal.event)
        if not wanted:
            return Result(self.target, Outcome.IGNORED, reason)
        if judged_rule:
            if state.incident and state.incident.lease:
                self.journal.close_lost(draft, state.incident, now)
            if state.incident:
                draft.set(incident=None, past=ledger.remember(state, state.incident, now))
            draft.set(outcome=Outcome.IGNORED, reason=reason, violations=(), look=None)
            self.journal.note_setting(draft, now)
        self.journal.add(draft, Outcome.IGNORED, now, reason=reason, detail={"message": message} if message else {})
        return self.journal.commit(draft, Outcome.IGNORED, reason)

    def _echo(self) -> Result:
        """Our own change, heard of again: confirm what waits for ACTIVE; look closer only if something else is set."""
        if self.journal.change and self.journal.change.error_code:
            # A call of ours that was refused changed nothing, and the attempt that made it has its due time.
            return Result(self.target, Outcome.IGNORED, "ECHO")
        state = self.journal.load().state
        try:
            setting = self.reach.xray.get()
        except AwsError:
            # What waits for ACTIVE has its due time, and whatever else may be set has an event of its own.
            return Result(self.target, Outcome.IGNORED, "ECHO")
        now = self.guard.clock.now()
        if self._is_held(state, now):
            return Result(self.target, Outcome.IGNORED, "ECHO")
        if setting.type is EncryptionType.KMS and setting.key_arn == state.managed_key:
            incident = state.incident
            if incident and incident.phase is Phase.APPLIED and setting.status is EncryptionStatus.ACTIVE:
                self.journal.forget_event(Trigger(TriggerKind.CHANGE))
                return self._close_good(incident, setting, now)
            return Result(self.target, Outcome.IGNORED, "ECHO")
        # Somebody overtook us. Whoever it was, it was not the guard that the event names.
        self.journal.forget_event(Trigger(TriggerKind.CHANGE))
        return self.once()

    # --- judging ---------------------------------------------------------------------------------------------------

    def _judge(self, rule: Rule) -> Result:
        loaded, first = self._look(rule)
        state = loaded.state
        now = self.guard.clock.now()
        if self.journal.trigger.kind is TriggerKind.TICK and (state.due is None or state.due > now):
            return Result(self.target, state.outcome or Outcome.IGNORED, "NOT_DUE")
        if self._is_held(state, now):
            return self._step_back(state, now)
        seen = self._observe(rule, state, first)
        suppression = self._weigh_break_glass(rule, seen)
        state = self.journal.state()
        decision = self._decide(rule, state, seen, suppression)
        match decision.outcome:
            case Outcome.IGNORED:
                return self._ignore(decision.reason or "", decision.message)
            case Outcome.COMPLIANT:
                return self._compliant(state, seen)
            case Outcome.REMEDIATING:
                return self._remediate(rule, state, seen, decision)
            case _:
                return self._hold(state, seen, decision)

    def assess(self) -> Assessment:
        self.looks_only = True
        state = self.journal.load().state
        if self.rule is None or self.rule.mode is Mode.OFF:
            reason = "RULE_OFF" if self.rule else "UNGOVERNED"
            return Assessment(self.target, self.rule, Decision(Outcome.IGNORED, reason=reason), state, None)
        first = glance(self.rule, self.guard.gather(glance_reads(self.reach, self.rule)))
        seen = self._observe(self.rule, state, first, deep=True)
        weighed = self._weighed(self.rule, state, seen)
        decision = self._decide(self.rule, state, seen, weighed.in_force)
        return Assessment(self.target, self.rule, decision, state, seen)

    def _look(self, rule: Rule) -> tuple[Loaded, Glance]:
        """The state and the first round of reads, together where nothing will be closed by them."""
        reads = glance_reads(self.reach, rule)
        if self.journal.trigger.kind in (TriggerKind.TICK, TriggerKind.OPERATOR):
            loaded = self.journal.load()
            due = loaded.state.due
            if self.journal.trigger.kind is TriggerKind.TICK and (due is None or due > self.guard.clock.now()):
                return loaded, Glance(loaded.state.setting or Setting(EncryptionType.NONE), {})
            return loaded, glance(rule, self.guard.gather(reads))
        loaded, *answers = self.guard.gather([self.journal.load, *reads])
        if loaded.state.incident:
            # What was read beside the state may be older than it: an incident is closed only on what was read after.
            answers = self.guard.gather(reads)
        return loaded, glance(rule, answers)

    def _observe(self, rule: Rule, state: TargetState, first: Glance, deep: bool | None = None) -> Observation:
        now = self.guard.clock.now()
        if state.intent and not self.looks_only:
            state = self._search_for_intent(state, now)
        wants_depth = self._wants_depth(state, first, now) if deep is None else deep
        ask_use = self.journal.trigger.kind in (TriggerKind.SWEEP, TriggerKind.TICK) and not state.ever_used
        seen = self._observed(rule, state, first, deep=wants_depth, ask_use=ask_use)
        if not wants_depth and (judge(self.target, rule, state, seen) or self._adoption(state, seen)):
            seen = self._observed(rule, state, first, deep=True, ask_use=ask_use)
        self.journal.seen = seen
        return seen

    def _observed(self, rule: Rule, state: TargetState, first: Glance, *, deep: bool, ask_use: bool) -> Observation:
        now = self.guard.clock.now()
        return observe(self.guard.gather, self.reach, rule, state, first, now, deep=deep, ask_use=ask_use)

    def _wants_depth(self, state: TargetState, first: Glance, now: datetime) -> bool:
        """A sweep reads a key's policy, tags and rotation once a day, or when something moved; others always."""
        return not (
            self.journal.trigger.kind is TriggerKind.SWEEP
            and state.checked_at is not None
            and now - state.checked_at < DEEP_EVERY
            and state.incident is None
            and state.watch is None
            and first.setting.same_choice(state.setting)
            and state.outcome in (Outcome.COMPLIANT, Outcome.REMEDIATED)
        )

    def _search_for_intent(self, state: TargetState, now: datetime) -> TargetState:
        """Look for the key that a lost worker may have made. Finding it is proof; not finding it is none yet."""
        intent = state.intent
        assert intent is not None
        found = self.reach.keys.find_by_tag(NONCE_TAG_KEY, intent.nonce)
        if found:
            after = replace(state, keys_made=(*state.keys_made, found), intent=None)
        elif now >= intent.due:
            after = replace(state, intent=None)
        else:
            return state
        return self.journal.save(state, after)

    def _weigh_break_glass(self, rule: Rule, seen: Observation) -> Suppression | None:
        """The break-glass in force, if any. What was opened, refused or ended goes on the record at once."""
        state = self.journal.state()
        if not seen.deep:
            return None
        weighed = self._weighed(rule, state, seen)
        self.refusal = weighed.refusal
        if weighed.suppressions != state.suppressions or weighed.notes:
            now = self.guard.clock.now()
            draft = Draft(state)
            for reason, suppression in weighed.notes:
                outcome = Outcome.SUPPRESSED if reason is NoteReason.OPENED else Outcome.IGNORED
                self.journal.add(draft, outcome, now, reason=reason.value, suppression=suppression)
            draft.set(suppressions=weighed.suppressions, watch=now if weighed.is_open else None)
            self.journal.note(draft)
        return weighed.in_force

    def _weighed(self, rule: Rule, state: TargetState, seen: Observation) -> Weighed:
        change = self.journal.change if self.journal.owns_drift(seen) else None
        event = self.journal.event
        return weigh(
            self.target,
            rule,
            state,
            seen,
            self.guard.clock.now(),
            principal_tags={arn: self._tags_of(arn) for arn in principals_to_read(rule, state, seen, change)},
            change=change,
            tagging=event if isinstance(event, KeyEvent) else None,
            partition=self.guard.partition,
        )

    def _tags_of(self, principal_arn: str) -> tuple[tuple[str, str], ...] | None:
        try:
            return self.reach.principals.tags(principal_arn)
        except AwsError:
            return None

    def _decide(self, rule: Rule, state: TargetState, seen: Observation, suppression: Suppression | None) -> Decision:
        assert self.journal.loaded is not None
        now = self.guard.clock.now()
        decision = decide(
            self.target,
            rule,
            # What KMS is only slow to show is no fight, and not held back like one.
            replace(state, backoff=Backoff(state.backoff.count)) if is_settling(state, now) else state,
            seen,
            self.guard.partition,
            trigger=self.journal.trigger.kind,
            now=now,
            suppression=suppression,
            paused=self.journal.loaded.guard.paused,
            budget_left=self.budget_left,
        )
        makes_key = any(step.name is StepName.CREATE_KEY for step in decision.steps)
        if makes_key and state.intent and now < state.intent.due:
            problem = Problem(
                "KEY_CREATION_UNCERTAIN",
                f"a key may have been made whose answer was lost; known for certain at {state.intent.due:%H:%M:%SZ}",
            )
            return replace(
                decision,
                outcome=Outcome.FAILED,
                reason=problem.code,
                message=problem.message,
                blocked=problem,
                steps=(),
            )
        return decision

    # --- outcomes without a mutation -------------------------------------------------------------------------------

    def _is_held(self, state: TargetState, now: datetime) -> bool:
        incident = state.incident
        return incident is not None and incident.lease is not None and now < incident.lease.until

    def _step_back(self, state: TargetState, now: datetime) -> Result:
        """Another worker holds the lease. What was heard meanwhile must be looked at again after it: a look is left."""
        incident = state.incident
        assert incident is not None
        assert self.journal.loaded is not None
        draft = Draft(state)
        if self.journal.unheard():
            draft.set(incident=self.journal.joined(incident), look=ledger.later(state.look, now))
            self.journal.add(draft, Outcome.DEFERRED, now, incident_id=incident.id, reason="IN_PROGRESS")
        elif self.journal.trigger.kind is not TriggerKind.KEY:
            return Result(self.target, Outcome.DEFERRED, "IN_PROGRESS")
        return self.journal.commit(draft, Outcome.DEFERRED, "IN_PROGRESS")

    def _compliant(self, state: TargetState, seen: Observation) -> Result:
        now = self.guard.clock.now()
        incident = state.incident
        if incident is None:
            return self._still_good(state, seen, now)
        if seen.setting.type is EncryptionType.KMS and seen.setting.status is not EncryptionStatus.ACTIVE:
            return self._still_updating(state, incident, now)
        return self._close_good(incident, seen.setting, now)

    def _still_good(self, state: TargetState, seen: Observation, now: datetime) -> Result:
        assert self.journal.loaded is not None
        draft = Draft(state)
        adopted = self._adoption(state, seen)
        as_before = (
            state.outcome in (Outcome.COMPLIANT, Outcome.REMEDIATED)
            and seen.setting.same_choice(state.setting)
            and state.rule == self.journal.rule_id
        )
        self.journal.note_good(draft, seen, now)
        if adopted:
            draft.set(managed_key=adopted, look=ledger.later(state.look, now + ledger.STALE_READS))
        detail = {"adopted": adopted} if adopted else {}
        if self.journal.unheard():
            joined = self.journal.join_past(draft)
            self.journal.add(
                draft, Outcome.COMPLIANT, now, before=seen.setting, after=seen.setting, detail=detail, **joined
            )
        elif not as_before or adopted:
            self.journal.add(draft, Outcome.COMPLIANT, now, before=state.setting, after=seen.setting, detail=detail)
        elif not self._worth_saving(state, draft.after, seen, now):
            return Result(self.target, Outcome.COMPLIANT)
        return self.journal.commit(draft, Outcome.COMPLIANT, None)

    def _worth_saving(self, state: TargetState, after: TargetState, seen: Observation, now: datetime) -> bool:
        """Whether the state moved in a way that must be kept though there is nothing to record."""
        stale = state.checked_at is None or now - state.checked_at >= DEEP_EVERY
        moved = after.look != state.look or self.journal.trigger.kind is TriggerKind.KEY
        return moved or after.intent != state.intent or (seen.deep and stale)

    def _adoption(self, state: TargetState, seen: Observation) -> str | None:
        """The key to record as managed: X-Ray is on it already, and the rule's alias says that it is meant."""
        assert self.rule is not None
        arn = managed_key(state, seen, self.rule)
        meant = arn == seen.setting.key_arn or self.rule.managed_key.ensure
        return arn if state.managed_key is None and arn is not None and meant else None

    def _still_updating(self, state: TargetState, incident: Incident, now: datetime) -> Result:
        """The wanted key is set and X-Ray still works on it: wait, say so once, and after half an hour loudly."""
        assert self.journal.loaded is not None
        assert self.journal.seen is not None
        draft = Draft(state)
        self.journal.note_setting(draft, now)
        if incident.phase is not Phase.APPLIED:
            # The attempt that set it was lost, or could not tell: from here on it is waited for like any other.
            lost = incident.lease is not None
            if self.journal.unheard():
                incident = self.journal.joined(incident)
            draft.set(
                incident=replace(incident, phase=Phase.APPLIED, lease=None, due=now, applied_at=now),
                outcome=Outcome.APPLIED,
                reason=None,
            )
            self.journal.add_about(
                draft,
                incident,
                Outcome.APPLIED,
                now,
                after=self.journal.seen.setting,
                error=worker_lost(incident) if lost else None,
            )
            return self.journal.commit(draft, Outcome.APPLIED, None)
        overdue = incident.applied_at is not None and now - incident.applied_at > LONGEST_UPDATE
        if overdue and incident.due is not None and incident.due <= now:
            minutes = int((now - (incident.applied_at or now)).total_seconds() // 60)
            problem = Problem("UPDATING_TOO_LONG", f"X-Ray has been UPDATING for {minutes} minutes")
            again = now + timedelta(minutes=self.guard.policy.limits.max_backoff_minutes)
            draft.set(incident=replace(incident, due=again), outcome=Outcome.FAILED, reason=problem.code)
            after = self.journal.seen.setting
            self.journal.add_about(
                draft, incident, Outcome.FAILED, now, reason=problem.code, after=after, error=problem
            )
            return self.journal.commit(draft, Outcome.FAILED, problem.code)
        if self.journal.unheard():
            draft.set(incident=self.journal.joined(incident))
            self.journal.add(
                draft,
                Outcome.COMPLIANT,
                now,
                incident_id=incident.id,
                after=self.journal.seen.setting,
                reason="UPDATING",
            )
            return self.journal.commit(draft, Outcome.COMPLIANT, "UPDATING")
        return Result(self.target, Outcome.APPLIED, "UPDATING")

    def _close_good(self, incident: Incident, setting: Setting, now: datetime) -> Result:
        """All is as the rule asks, and was not: the incident ends, by our doing or by somebody else's."""
        assert self.journal.loaded is not None
        state = self.journal.loaded.state
        draft = Draft(state)
        if self.journal.unheard():
            incident = self.journal.joined(incident)
        outcome = Outcome.REMEDIATED if incident.mutated else Outcome.COMPLIANT
        if self.journal.seen is not None:
            self.journal.note_good(draft, self.journal.seen, now)
        draft.set(
            incident=None,
            past=ledger.remember(state, incident, now),
            setting=setting,
            good_at=now,
            outcome=outcome,
            reason=None,
            violations=(),
        )
        error = worker_lost(incident) if incident.lease is not None else None
        self.journal.add_about(
            draft,
            incident,
            outcome,
            now,
            after=setting,
            error=error,
            exposure_seconds=ledger.exposure(incident, now),
        )
        return self.journal.commit(draft, outcome, None)

    def _hold(self, state: TargetState, seen: Observation, decision: Decision) -> Result:
        """A violation that is not put right now: observed, suppressed, deferred, or beyond what can be done."""
        assert self.journal.loaded is not None
        now = self.guard.clock.now()
        draft = Draft(state)
        incident, is_new = self._incident(draft, seen, decision, now)
        lost = incident.lease is not None
        if lost:
            self.journal.close_lost(draft, incident, now)
            incident = replace(incident, lease=None, phase=Phase.OPEN, unended=False)
        same = (
            not is_new
            and not lost
            and (decision.outcome, decision.reason) == (state.outcome, state.reason)
            and decision.violations == state.violations
            and seen.setting.same_choice(state.setting)
        )
        failed = decision.outcome is Outcome.FAILED and decision.reason not in SETTLING_CODES
        tried_again = failed and self._is_due(state, now)
        waiting = decision.reason == "BACKOFF" and not is_new and not lost
        heard = self.journal.unheard()
        if heard:
            incident = self.journal.joined(incident)
        self.journal.clear_look(draft, seen)
        if not (heard or tried_again) and (same or waiting):
            # Nothing new: what waits goes on waiting.
            if draft.after.look == state.look and self.journal.trigger.kind is not TriggerKind.KEY:
                return Result(self.target, decision.outcome, decision.reason, decision.violations)
            return self.journal.commit(draft, decision.outcome, decision.reason)
        due = self._held_due(draft, state, decision, now, tried_again or is_new)
        incident = replace(incident, phase=Phase.OPEN, unended=False, due=due, violations=decision.violations)
        self.journal.note_setting(draft, now)
        draft.set(incident=incident)
        if not waiting:
            draft.set(outcome=decision.outcome, reason=decision.reason, violations=decision.violations)
        self.journal.add_about(
            draft,
            incident,
            decision.outcome,
            now,
            reason=decision.reason,
            error=decision.blocked,
            suppression=decision.suppression or self.refusal,
            detail=self._held_detail(state, decision),
            attempt=None,
        )
        return self.journal.commit(draft, decision.outcome, decision.reason)

    def _held_detail(self, state: TargetState, decision: Decision) -> dict[str, Any]:
        """What the record says of why nothing was done; of a fight, against whom and how often."""
        detail: dict[str, Any] = {"message": decision.message} if decision.message else {}
        if decision.reason == "BACKOFF":
            detail |= {"attempts": state.backoff.count, "against": self._rivals(state)}
        return detail

    def _rivals(self, state: TargetState) -> list[str]:
        """The ARNs of those who made the latest drifts, as far as they are known."""
        event = self.journal.event
        causes = [past.cause for past in state.past] + ([state.incident.cause] if state.incident else [])
        arns = {cause.actor.arn for cause in causes if cause}
        if event is not None and event.trigger.actor is not None:
            arns.add(event.trigger.actor.arn)
        return sorted(arns)

    def _held_due(
        self, draft: Draft, state: TargetState, decision: Decision, now: datetime, attempted: bool
    ) -> datetime | None:
        most = self.guard.policy.limits.max_backoff_minutes
        if decision.outcome is Outcome.FAILED:
            if decision.reason in SETTLING_CODES:
                return now + SETTLING
            if not attempted:
                return self._due_of(state) or now
            backoff = ledger.backoff_after_attempt(state.backoff, now, self.guard.random(), most)
            draft.set(backoff=backoff)
            return ledger.retry_after(backoff, now, self.guard.random(), most)
        if decision.outcome is Outcome.DEFERRED:
            # A pause ends with the operator's word, so the next tick asks again; a budget returns with the next sweep.
            return decision.due or (now if decision.reason == "PAUSED" else None)
        return now if decision.outcome is Outcome.SUPPRESSED else None

    def _due_of(self, state: TargetState) -> datetime | None:
        return state.incident.due if state.incident else None

    def _is_due(self, state: TargetState, now: datetime) -> bool:
        due = self._due_of(state)
        return due is None or due <= now

    def fail(self, problem: Problem) -> Result:
        """What could not be read or done, before anything was mutated: on the record, and due again."""
        loaded = self.journal.load()
        state = loaded.state
        now = self.guard.clock.now()
        incident = state.incident or Incident(f"{self.target}#{state.seq + 1}", now, None, Phase.OPEN)
        lease = incident.lease
        ours = lease is not None and lease.owner == self.guard.worker
        if self._is_held(state, now) and not ours:
            return self._step_back(state, now)
        draft = Draft(state)
        most = self.guard.policy.limits.max_backoff_minutes
        backoff = ledger.backoff_after_attempt(state.backoff, now, self.guard.random(), most)
        due = ledger.retry_after(backoff, now, self.guard.random(), most)
        if lease is not None and not ours:
            self.journal.close_lost(draft, incident, now)
        waiting = incident.phase is Phase.APPLIED
        phase = Phase.APPLIED if waiting else Phase.OPEN
        failed = replace(incident, lease=None, phase=phase, unended=waiting and incident.unended, due=due)
        draft.set(
            incident=failed, backoff=backoff, outcome=Outcome.FAILED, reason=problem.code, rule=self.journal.rule_id
        )
        self.journal.add_about(
            draft,
            incident,
            Outcome.FAILED,
            now,
            error=problem,
            reason=problem.code,
            attempt=incident.attempt if ours else None,
        )
        return self.journal.commit(draft, Outcome.FAILED, problem.code)

    # --- remediating -----------------------------------------------------------------------------------------------

    def _remediate(self, rule: Rule, state: TargetState, seen: Observation, decision: Decision) -> Result:
        lease = self._take_lease(state, seen, decision)
        return Attempt(self.journal, self.reach, rule, lease).run(seen)

    def _take_lease(self, state: TargetState, seen: Observation, decision: Decision) -> Lease:
        """Store REMEDIATING with a lease. Where the chain only grew meanwhile, what was seen still stands.

        Otherwise whoever has calls refused often enough, each of which is audited, could keep the guard observing for
        ever. Raises Conflict where anything else moved.
        """
        assert self.journal.loaded is not None
        for _ in range(MOST_CONFLICTS):
            paused = self.journal.loaded.guard.paused
            try:
                return self._begin(state, seen, decision)
            except Conflict:
                loaded = self.journal.load()
                if loaded.guard.paused != paused or not loaded.state.differs_only_in_chain(state):
                    raise
                state = loaded.state
        raise Conflict(str(self.target))

    def _begin(self, state: TargetState, seen: Observation, decision: Decision) -> Lease:
        now = self.guard.clock.now()
        draft = Draft(state)
        most = self.guard.policy.limits.max_backoff_minutes
        incident, _ = self._incident(draft, seen, decision, now)
        if incident.lease is not None:
            self.journal.close_lost(draft, incident, now)
        if self.journal.unheard():
            incident = self.journal.joined(incident)
        lease = Lease(self.guard.worker, state.lease_number + 1, now + timedelta(seconds=self.guard.lease_seconds))
        backoff = state.backoff
        if not is_settling(state, now):
            backoff = ledger.backoff_after_attempt(backoff, now, self.guard.random(), most)
        makes_key = any(step.name is StepName.CREATE_KEY for step in decision.steps)
        intent = Intent(self.guard.new_id(), lease.until + ledger.STALE_READS) if makes_key else state.intent
        incident = replace(
            incident,
            phase=Phase.ACTING,
            attempt=incident.attempt + 1,
            unended=True,
            lease=lease,
            due=lease.until,
            violations=decision.violations,
            mutated=True,
        )
        draft.set(
            incident=incident,
            lease_number=lease.number,
            intent=intent,
            backoff=backoff,
            outcome=Outcome.REMEDIATING,
            reason=None,
            violations=decision.violations,
        )
        self.journal.note_setting(draft, now)
        self.journal.add_about(
            draft,
            incident,
            Outcome.REMEDIATING,
            now,
            detail={"plan": [step.name.value for step in decision.steps]},
            suppression=self.refusal,
            actions=(),
        )
        self.journal.commit(draft, Outcome.REMEDIATING, None)
        return lease

    def _incident(self, draft: Draft, seen: Observation, decision: Decision, now: datetime) -> tuple[Incident, bool]:
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
            decision.violations,
            cause=self.journal.cause(seen, decision.violations),
        )
        return incident, True
