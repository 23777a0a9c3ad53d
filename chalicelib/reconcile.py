"""The loop: observe, decide, act, record. One function for every trigger.

An event is only a hint to look. A run reads the target's state and its live setting, decides, and either writes one
record, or none where all is as before, or remediates: it stores REMEDIATING together with a lease, makes one mutation
after the other, each followed by what KMS or X-Ray answer, and stores how it ended. Nothing is mutated before
REMEDIATING is stored (P3) or after the lease's end (P8); REMEDIATED is written only when X-Ray has answered with the
wanted key in ACTIVE (P4).

A crash leaves a REMEDIATING without its end. The lease tells when it may be taken over, and whoever does closes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from chalicelib import ledger
from chalicelib.decide import (
    MOST_STEPS,
    Blocked,
    Decision,
    Observation,
    Step,
    StepName,
    decide,
    judge,
    managed_key,
    next_step,
)
from chalicelib.errors import UNANSWERED, AwsError, Busy, Conflict, GuardError, LeaseOver
from chalicelib.ledger import Draft
from chalicelib.model import (
    GUARD_CHAIN,
    GUARD_TAG_KEY,
    GUARD_TAG_VALUE,
    NONCE_TAG_KEY,
    Action,
    Actor,
    Cause,
    ChangeEvent,
    EncryptionStatus,
    EncryptionType,
    GuardState,
    Incident,
    Intent,
    Key,
    KeyEvent,
    Lease,
    Outcome,
    Phase,
    Problem,
    Record,
    Setting,
    Target,
    TargetState,
    Trigger,
    TriggerKind,
    Violation,
)
from chalicelib.observe import Glance, glance, glance_reads, observe, read_key
from chalicelib.policy import Mode, Policy, Rule
from chalicelib.ports import Clock, Gather, Loaded, Reach, Store

MOST_CONFLICTS = 6
CONFIRM_SECONDS = 10.0
"""How long a run waits for ACTIVE, or for KMS to show a repair, before it leaves the rest to tick."""

FIRST_POLL_SECONDS = 0.25
SETTLING = timedelta(seconds=20)
"""When to look again for what KMS has accepted and does not show yet."""

STALE_READS = timedelta(seconds=250)
"""KMS may answer as of four minutes ago; only after this does not finding something mean that it is not there."""

LONGEST_UPDATE = timedelta(minutes=30)
DEEP_EVERY = timedelta(hours=24)
LEASE_MARGIN = timedelta(seconds=15)
"""A mutation is sent only while this much is left: AWS's clock is read in whole seconds, and calls take time."""

OWN_REQUESTS = 8
SETTLING_CODES = frozenset({"KEY_NOT_YET_SEEN", "NOT_YET_TAKEN", "KEY_CREATION_UNCERTAIN"})
UNKNOWN_ACTOR = Actor("unknown")

T = TypeVar("T")


@dataclass(frozen=True)
class Guard:
    """What the loop depends on. `lease_seconds` outlives the function's timeout by a minute at least."""

    account: str
    partition: str
    role_arn: str
    policy: Policy
    store: Store
    clock: Clock
    reach: Callable[[Target], Reach]
    gather: Gather
    sleep: Callable[[float], None]
    random: Callable[[], float]
    new_id: Callable[[], str]
    emit: Callable[[Record], None]
    worker: str
    lease_seconds: int = 120


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to. `record` is the last one it wrote, None where it wrote none; `outcome` is what it found."""

    target: Target
    outcome: Outcome
    reason: str | None = None
    violations: tuple[Violation, ...] = ()
    record: Record | None = None
    mutated: bool = False


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a run would do, without doing it."""

    target: Target
    rule: Rule | None
    decision: Decision
    state: TargetState
    seen: Observation | None


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
    for _ in range(MOST_CONFLICTS):
        run = _Run(guard, target, trigger, event, budget_left)
        try:
            result = run.once()
            run.announce_policy()
            return result
        except Conflict:
            guard.sleep(0.05 + 0.2 * guard.random())
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
    raise Busy(Problem("BUSY", f"{target}: {MOST_CONFLICTS} attempts met other writers"))


def assess(guard: Guard, target: Target, trigger: TriggerKind = TriggerKind.OPERATOR) -> Assessment:
    """Observe and judge without writing or mutating anything."""
    return _Run(guard, target, Trigger(trigger), None, True).assess()


class _Run:
    """One attempt at one target. What it reads last is in `loaded` and `seen`."""

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
        self.trigger = trigger
        self.event = event
        self.change = event if isinstance(event, ChangeEvent) else None
        self.budget_left = budget_left
        self.rule = guard.policy.rule_for(target)
        self.reach = guard.reach(target)
        self.loaded: Loaded | None = None
        self.seen: Observation | None = None
        self.actions: list[Action] = []
        self.lease: Lease | None = None

    def announce_policy(self) -> None:
        """The first run under a new policy digest says so in the guard's own chain."""
        digest = self.guard.policy.digest
        if self.loaded is not None and self.loaded.guard.policy_digest != digest:
            record_in_guard_chain(
                self.guard,
                Outcome.IGNORED,
                Trigger(self.trigger.kind),
                reason="POLICY_IN_FORCE",
                unless=lambda state: state.policy_digest == digest,
            )

    # --- what kind of run ------------------------------------------------------------------------------------------

    def once(self) -> Result:
        if self.target.account != self.guard.account:
            return self._ignore("ACCOUNT_NOT_OURS", f"this guard acts in account {self.guard.account}")
        if self._is_echo():
            return self._echo()
        if self.change and self.change.error_code:
            return self._ignore(self.change.error_code, self.change.error_message)
        if self.rule is None:
            return self._ignore("UNGOVERNED", "no rule of the policy matches this target")
        if self.rule.mode is Mode.OFF:
            return self._ignore("RULE_OFF", f"rule {self.rule.id} is off")
        return self._judge(self.rule)

    def _is_echo(self) -> bool:
        if self.event is None:
            return False
        actor = self.event.trigger.actor
        return actor is not None and actor.arn == self.guard.role_arn and actor.via is None

    def _load(self) -> Loaded:
        self.loaded = self.guard.store.load(str(self.target), self._event_id)
        return self.loaded

    @property
    def _event_id(self) -> str | None:
        return self.change.trigger.event_id if self.change else None

    def _ignore(self, reason: str, message: str | None) -> Result:
        """Write down what is not ours to judge: every change event once, a sweep's finding when it is news."""
        loaded = self.loaded or self._load()
        state = loaded.state
        draft = Draft(state)
        judged_rule = reason in ("UNGOVERNED", "RULE_OFF", "IDLE")
        news = judged_rule and (state.outcome, state.reason) != (Outcome.IGNORED, reason)
        held = state.incident is not None and state.incident.lease is not None
        wanted = not loaded.audited if self.change else news and self.trigger.kind is not TriggerKind.KEY
        if not wanted:
            return Result(self.target, Outcome.IGNORED, reason)
        now = self.guard.clock.now()
        if judged_rule and not self._is_held(state, now):
            if state.incident and held:
                self._close_lost(draft, state.incident, now)
            if state.incident:
                draft.set(incident=None, past=ledger.remember(state, state.incident, now))
        if judged_rule:
            draft.set(outcome=Outcome.IGNORED, reason=reason, violations=(), look=None)
            self._note_setting(draft, now)
        self._add(draft, Outcome.IGNORED, now, reason=reason, detail={"message": message} if message else {})
        return self._commit(draft, Outcome.IGNORED, reason)

    def _echo(self) -> Result:
        """Our own change, heard of again: confirm what waits for ACTIVE; look closer only if something else is set."""
        state = self._load().state
        setting = self.reach.xray.get()
        now = self.guard.clock.now()
        if self._is_held(state, now):
            return Result(self.target, Outcome.IGNORED, "ECHO")
        if setting.type is EncryptionType.KMS and setting.key_arn == state.managed_key:
            incident = state.incident
            if incident and incident.phase is Phase.APPLIED and setting.status is EncryptionStatus.ACTIVE:
                self.event = self.change = None
                self.trigger = Trigger(TriggerKind.CHANGE)
                return self._close_good(incident, setting, now)
            return Result(self.target, Outcome.IGNORED, "ECHO")
        # Somebody overtook us. Whoever it was, it was not the guard that the event names.
        self.event = self.change = None
        self.trigger = Trigger(TriggerKind.CHANGE)
        return self.once()

    # --- judging ---------------------------------------------------------------------------------------------------

    def _judge(self, rule: Rule) -> Result:
        loaded, first = self._look(rule)
        state = loaded.state
        now = self.guard.clock.now()
        if self.trigger.kind is TriggerKind.TICK and (state.due is None or state.due > now):
            return Result(self.target, state.outcome or Outcome.IGNORED, "NOT_DUE")
        if self._is_held(state, now):
            return self._step_back(state, now)
        seen = self._observe(rule, state, first)
        state = self.loaded.state if self.loaded else state
        decision = self._decide(rule, state, seen)
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
        state = self._load().state
        if self.rule is None or self.rule.mode is Mode.OFF:
            reason = "RULE_OFF" if self.rule else "UNGOVERNED"
            return Assessment(self.target, self.rule, Decision(Outcome.IGNORED, reason=reason), state, None)
        first = glance(self.rule, self.guard.gather(glance_reads(self.reach, self.rule)))
        seen = self._observe(self.rule, state, first, deep=True)
        return Assessment(self.target, self.rule, self._decide(self.rule, state, seen), state, seen)

    def _look(self, rule: Rule) -> tuple[Loaded, Glance]:
        """The state and the first round of reads, together where nothing will be closed by them."""
        reads = glance_reads(self.reach, rule)
        if self.trigger.kind in (TriggerKind.TICK, TriggerKind.OPERATOR):
            loaded = self._load()
            due = loaded.state.due
            if self.trigger.kind is TriggerKind.TICK and (due is None or due > self.guard.clock.now()):
                return loaded, Glance(loaded.state.setting or Setting(EncryptionType.NONE), {})
            return loaded, glance(rule, self.guard.gather(reads))
        loaded, *answers = self.guard.gather([self._load, *reads])
        if loaded.state.incident:
            # What was read beside the state may be older than it: an incident is closed only on what was read after.
            answers = self.guard.gather(reads)
        return loaded, glance(rule, answers)

    def _observe(self, rule: Rule, state: TargetState, first: Glance, deep: bool | None = None) -> Observation:
        now = self.guard.clock.now()
        if state.intent:
            state = self._search_for_intent(state, now)
        wants_depth = self._wants_depth(state, first, now) if deep is None else deep
        ask_use = self.trigger.kind in (TriggerKind.SWEEP, TriggerKind.TICK) and not state.ever_used
        seen = self._observed(rule, state, first, deep=wants_depth, ask_use=ask_use)
        if not wants_depth and judge(self.target, rule, state, seen):
            seen = self._observed(rule, state, first, deep=True, ask_use=ask_use)
        self.seen = seen
        return seen

    def _observed(self, rule: Rule, state: TargetState, first: Glance, *, deep: bool, ask_use: bool) -> Observation:
        now = self.guard.clock.now()
        return observe(self.guard.gather, self.reach, rule, state, first, now, deep=deep, ask_use=ask_use)

    def _wants_depth(self, state: TargetState, first: Glance, now: datetime) -> bool:
        """A sweep reads a key's policy, tags and rotation once a day, or when something moved; others always."""
        return not (
            self.trigger.kind is TriggerKind.SWEEP
            and state.checked_at is not None
            and now - state.checked_at < DEEP_EVERY
            and state.incident is None
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
        if self.trigger.kind is TriggerKind.OPERATOR and self.lease is None:
            return after
        return self._save(state, after)

    def _save(self, before: TargetState, after: TargetState) -> TargetState:
        """Store a state without a record, and go on from it."""
        after = replace(after, version=before.version + 1)
        self.guard.store.commit(before, after)
        assert self.loaded is not None
        self.loaded = replace(self.loaded, state=after)
        return after

    def _decide(self, rule: Rule, state: TargetState, seen: Observation) -> Decision:
        assert self.loaded is not None
        now = self.guard.clock.now()
        decision = decide(
            self.target,
            rule,
            state,
            seen,
            self.guard.partition,
            trigger=self.trigger.kind,
            now=now,
            paused=self.loaded.guard.paused,
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
        assert self.loaded is not None
        draft = Draft(state)
        if self.change and not self.loaded.audited:
            draft.set(incident=self._joined(incident), look=_later(state.look, now))
            self._add(draft, Outcome.DEFERRED, now, incident_id=incident.id, reason="IN_PROGRESS")
        elif self.trigger.kind is TriggerKind.KEY:
            draft.set(look=_later(state.look, now + STALE_READS))
        else:
            return Result(self.target, Outcome.DEFERRED, "IN_PROGRESS")
        return self._commit(draft, Outcome.DEFERRED, "IN_PROGRESS")

    def _compliant(self, state: TargetState, seen: Observation) -> Result:
        now = self.guard.clock.now()
        incident = state.incident
        if incident is None:
            return self._still_good(state, seen, now)
        if seen.setting.type is EncryptionType.KMS and seen.setting.status is not EncryptionStatus.ACTIVE:
            return self._still_updating(state, incident, now)
        return self._close_good(incident, seen.setting, now)

    def _still_good(self, state: TargetState, seen: Observation, now: datetime) -> Result:
        assert self.loaded is not None
        draft = Draft(state)
        adopted = self._adoption(state, seen)
        as_before = (
            state.outcome in (Outcome.COMPLIANT, Outcome.REMEDIATED)
            and seen.setting.same_choice(state.setting)
            and state.rule == self._rule_id
        )
        self._note_good(draft, seen, now)
        if adopted:
            draft.set(managed_key=adopted, look=_later(state.look, now + STALE_READS))
        elif self.trigger.kind is TriggerKind.KEY:
            draft.set(look=_later(state.look, now + STALE_READS))
        past = self._past_cause(state)
        detail = {"adopted": adopted} if adopted else {}
        if self.change and not self.loaded.audited:
            exposure = None
            if past and self.change.trigger.event_time:
                self._join_past(draft, past.id)
                exposure = _seconds(past.closed_at - self.change.trigger.event_time)
            self._add(
                draft,
                Outcome.COMPLIANT,
                now,
                incident_id=past.id if past else None,
                before=seen.setting,
                after=seen.setting,
                exposure_seconds=exposure,
                detail=detail,
            )
        elif not as_before or adopted:
            self._add(draft, Outcome.COMPLIANT, now, before=state.setting, after=seen.setting, detail=detail)
        elif not self._worth_saving(state, draft.after, seen, now):
            return Result(self.target, Outcome.COMPLIANT)
        return self._commit(draft, Outcome.COMPLIANT, None)

    def _worth_saving(self, state: TargetState, after: TargetState, seen: Observation, now: datetime) -> bool:
        """Whether the state moved in a way that must be kept though there is nothing to record."""
        stale = state.checked_at is None or now - state.checked_at >= DEEP_EVERY
        return after.look != state.look or after.intent != state.intent or (seen.deep and stale)

    def _adoption(self, state: TargetState, seen: Observation) -> str | None:
        """The key to record as managed: X-Ray is on it already, and the rule's alias says that it is meant."""
        assert self.rule is not None
        arn = managed_key(state, seen, self.rule)
        return arn if state.managed_key is None and arn is not None and arn == seen.setting.key_arn else None

    def _still_updating(self, state: TargetState, incident: Incident, now: datetime) -> Result:
        """The wanted key is set and X-Ray still works on it: wait, say so once, and after half an hour loudly."""
        assert self.loaded is not None
        assert self.seen is not None
        draft = Draft(state)
        self._note_setting(draft, now)
        if incident.lease is not None:
            draft.set(incident=replace(incident, phase=Phase.APPLIED, lease=None, due=now, applied_at=now))
            error = _worker_lost(incident)
            self._add_about(draft, incident, Outcome.APPLIED, now, after=self.seen.setting, error=error)
            return self._commit(draft, Outcome.APPLIED, None)
        overdue = incident.applied_at is not None and now - incident.applied_at > LONGEST_UPDATE
        if overdue and incident.due is not None and incident.due <= now:
            minutes = int((now - (incident.applied_at or now)).total_seconds() // 60)
            problem = Problem("UPDATING_TOO_LONG", f"X-Ray has been UPDATING for {minutes} minutes")
            again = now + timedelta(minutes=self.guard.policy.limits.max_backoff_minutes)
            draft.set(incident=replace(incident, due=again), outcome=Outcome.FAILED, reason=problem.code)
            self._add_about(draft, incident, Outcome.FAILED, now, after=self.seen.setting, error=problem)
            return self._commit(draft, Outcome.FAILED, problem.code)
        if self.change and not self.loaded.audited:
            draft.set(incident=self._joined(incident))
            self._add(
                draft, Outcome.COMPLIANT, now, incident_id=incident.id, after=self.seen.setting, reason="UPDATING"
            )
            return self._commit(draft, Outcome.COMPLIANT, "UPDATING")
        return Result(self.target, Outcome.APPLIED, "UPDATING")

    def _close_good(self, incident: Incident, setting: Setting, now: datetime) -> Result:
        """All is as the rule asks, and was not: the incident ends, by our doing or by somebody else's."""
        assert self.loaded is not None
        state = self.loaded.state
        draft = Draft(state)
        if self.change and not self.loaded.audited:
            incident = self._joined(incident)
        outcome = Outcome.REMEDIATED if incident.mutated else Outcome.COMPLIANT
        if self.seen is not None:
            self._note_good(draft, self.seen, now)
        draft.set(
            incident=None,
            past=ledger.remember(state, incident, now),
            setting=setting,
            good_at=now,
            outcome=outcome,
            reason=None,
            violations=(),
        )
        error = _worker_lost(incident) if incident.lease is not None else None
        self._add_about(
            draft, incident, outcome, now, after=setting, error=error, exposure_seconds=_exposure(incident, now)
        )
        return self._commit(draft, outcome, None)

    def _hold(self, state: TargetState, seen: Observation, decision: Decision) -> Result:
        """A violation that is not put right now: observed, suppressed, deferred, or beyond what can be done."""
        assert self.loaded is not None
        now = self.guard.clock.now()
        draft = Draft(state)
        incident, is_new = self._incident(draft, seen, decision, now)
        lost = incident.lease is not None
        if lost:
            self._close_lost(draft, incident, now)
            incident = replace(incident, lease=None, phase=Phase.OPEN)
        same = (
            not is_new
            and not lost
            and (decision.outcome, decision.reason) == (state.outcome, state.reason)
            and decision.violations == state.violations
            and seen.setting.same_choice(state.setting)
        )
        failed = decision.outcome is Outcome.FAILED and decision.reason not in SETTLING_CODES
        tried_again = failed and self._is_due(state, now)
        waiting = decision.reason == "BACKOFF" and not is_new
        heard = self.change is not None and not self.loaded.audited
        if heard:
            incident = self._joined(incident)
        self._clear_look(draft, seen)
        if not (heard or tried_again) and (same or waiting):
            # Nothing new: what waits goes on waiting.
            if draft.after.look == state.look:
                return Result(self.target, decision.outcome, decision.reason, decision.violations)
            return self._commit(draft, decision.outcome, decision.reason)
        due = self._held_due(draft, state, decision, now, tried_again or is_new)
        incident = replace(incident, due=due, violations=decision.violations)
        self._note_setting(draft, now)
        draft.set(incident=incident)
        if not waiting:
            draft.set(outcome=decision.outcome, reason=decision.reason, violations=decision.violations)
        self._add_about(
            draft,
            incident,
            decision.outcome,
            now,
            reason=decision.reason,
            error=decision.blocked,
            suppression=decision.suppression,
            detail={"message": decision.message} if decision.message else {},
            attempt=None,
        )
        return self._commit(draft, decision.outcome, decision.reason)

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
        loaded = self._load()
        state = loaded.state
        now = self.guard.clock.now()
        if self._is_held(state, now) and self.lease is None:
            return self._step_back(state, now)
        draft = Draft(state)
        most = self.guard.policy.limits.max_backoff_minutes
        backoff = ledger.backoff_after_attempt(state.backoff, now, self.guard.random(), most)
        due = ledger.retry_after(backoff, now, self.guard.random(), most)
        incident = state.incident or Incident(draft.next_id(), now, None, Phase.OPEN)
        if incident.lease is not None:
            self._close_lost(draft, incident, now)
        incident = replace(incident, lease=None, phase=Phase.OPEN, due=due)
        draft.set(incident=incident, backoff=backoff, outcome=Outcome.FAILED, reason=problem.code, rule=self._rule_id)
        self._add_about(draft, incident, Outcome.FAILED, now, error=problem, reason=problem.code, attempt=None)
        return self._commit(draft, Outcome.FAILED, problem.code)

    # --- remediating -----------------------------------------------------------------------------------------------

    def _remediate(self, rule: Rule, state: TargetState, seen: Observation, decision: Decision) -> Result:
        assert self.loaded is not None
        now = self.guard.clock.now()
        draft = Draft(state)
        most = self.guard.policy.limits.max_backoff_minutes
        incident, _ = self._incident(draft, seen, decision, now)
        if incident.lease is not None:
            self._close_lost(draft, incident, now)
        if self.change and not self.loaded.audited:
            incident = self._joined(incident)
        lease = Lease(self.guard.worker, state.lease_number + 1, now + timedelta(seconds=self.guard.lease_seconds))
        backoff = state.backoff
        if state.reason not in SETTLING_CODES:
            backoff = ledger.backoff_after_attempt(backoff, now, self.guard.random(), most)
        makes_key = any(step.name is StepName.CREATE_KEY for step in decision.steps)
        intent = Intent(self.guard.new_id(), lease.until + STALE_READS) if makes_key else state.intent
        incident = replace(
            incident,
            phase=Phase.ACTING,
            attempt=incident.attempt + 1,
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
            look=_later(state.look, now + STALE_READS) if self.trigger.kind is TriggerKind.KEY else state.look,
            outcome=Outcome.REMEDIATING,
            reason=None,
            violations=decision.violations,
        )
        self._note_setting(draft, now)
        self._add_about(
            draft,
            incident,
            Outcome.REMEDIATING,
            now,
            detail={"plan": [step.name.value for step in decision.steps]},
            actions=(),
        )
        self._commit(draft, Outcome.REMEDIATING, None)
        self.lease = lease
        problem, seen = self._act(rule, draft.after, seen)
        return self._finish(rule, problem, seen)

    def _act(self, rule: Rule, state: TargetState, seen: Observation) -> tuple[Problem | None, Observation]:
        """Make one step after the other until none is left. Answers why it stopped short, and what was last seen."""
        last: Step | None = None
        try:
            for _ in range(MOST_STEPS):
                state = self._state()
                step = next_step(self.target, rule, state, seen, self.guard.partition)
                if isinstance(step, Blocked):
                    return step.problem, seen
                if step is None:
                    return self._confirm(rule, seen)
                if last is not None and (step.name, step.key_arn) == (last.name, last.key_arn):
                    return Problem("NOT_YET_TAKEN", f"{step.name} was accepted and does not show yet"), seen
                seen = self._perform(rule, step, seen)
                last = step
        except GuardError as error:
            return error.problem, seen
        return Problem("TOO_MANY_STEPS", f"{MOST_STEPS} mutations did not lead to what the rule asks"), seen

    def _perform(self, rule: Rule, step: Step, seen: Observation) -> Observation:
        """Make one mutation and learn what it came to."""
        keys = self.reach.keys
        arn = step.key_arn or ""
        match step.name:
            case StepName.CREATE_KEY:
                return self._create_key(rule, step, seen)
            case StepName.CANCEL_DELETION:
                self._mutate(step, lambda: keys.cancel_deletion(arn))
                return _with_key(seen, arn, self._until(arn, lambda key: key.state != "PendingDeletion"))
            case StepName.ENABLE_KEY:
                self._mutate(step, lambda: keys.enable(arn))
                return _with_key(seen, arn, self._until(arn, lambda key: key.state == "Enabled"))
            case StepName.PUT_KEY_POLICY:
                self._mutate(step, lambda: keys.put_policy(arn, step.after or ""))
                return _with_key(seen, arn, replace(_known(seen, arn), policy=step.after))
            case StepName.ENABLE_ROTATION:
                days = rule.managed_key.rotation_days
                self._mutate(step, lambda: keys.enable_rotation(arn, days))
                return _with_key(seen, arn, replace(_known(seen, arn), rotation=True, rotation_days=days))
            case StepName.CREATE_ALIAS:
                return self._create_alias(step, seen)
            case StepName.UPDATE_ALIAS:
                self._mutate(step, lambda: keys.update_alias(step.after or "", arn))
                return replace(seen, aliases={**seen.aliases, step.after or "": arn})
            case StepName.PUT_SETTING:
                return self._put_setting(step, seen)

    def _create_key(self, rule: Rule, step: Step, seen: Observation) -> Observation:
        intent = self._state().intent
        assert intent is not None
        tags = (
            *rule.managed_key.tags.items(),
            (GUARD_TAG_KEY, GUARD_TAG_VALUE),
            (NONCE_TAG_KEY, intent.nonce),
        )
        policy = step.after or ""
        try:
            key, request_id = self._sent(
                step, lambda: self.reach.keys.create(rule.managed_key.description, policy, tags)
            )
        except AwsError as error:
            if error.code != UNANSWERED:
                self._update(lambda state: replace(state, intent=None))
            raise
        self.actions.append(Action(step.name, self.guard.clock.now(), key.arn, None, policy, request_id))
        made = replace(key, policy=policy, rotation=False, tags=tags)
        look = self.guard.clock.now() + STALE_READS
        self._update(
            lambda state: replace(
                state, keys_made=(*state.keys_made, key.arn), intent=None, look=_later(state.look, look)
            )
        )
        return _with_key(seen, key.arn, made)

    def _create_alias(self, step: Step, seen: Observation) -> Observation:
        alias, arn = step.after or "", step.key_arn or ""
        try:
            self._mutate(step, lambda: self.reach.keys.create_alias(alias, arn))
        except AwsError as error:
            if error.code != "AlreadyExistsException":
                raise
            # Somebody was faster, or KMS did not show what was there: the alias decides, and our key is left unused.
            winner = self.reach.keys.describe(alias)
            if winner is None:
                raise GuardError(Problem("NOT_YET_TAKEN", f"{alias} exists, and KMS does not show it yet")) from error
            complete = read_key(self.guard.gather, self.reach, winner.arn)
            return replace(_with_key(seen, winner.arn, complete), aliases={**seen.aliases, alias: winner.arn})
        return replace(seen, aliases={**seen.aliases, alias: arn})

    def _put_setting(self, step: Step, seen: Observation) -> Observation:
        arn = step.key_arn or ""
        if self._state().managed_key != arn:
            # On the record before it is in use: whatever becomes of the alias, this is the key that is meant.
            self._update(lambda state: replace(state, managed_key=arn))
        answer, request_id = self._sent(step, lambda: self.reach.xray.put(arn))
        self.actions.append(Action(step.name, self.guard.clock.now(), arn, step.before, answer.key_arn, request_id))
        return replace(seen, setting=answer)

    def _mutate(self, step: Step, send: Callable[[], str | None]) -> None:
        request_id = self._sent(step, send)
        self.actions.append(
            Action(step.name, self.guard.clock.now(), step.key_arn, step.before, step.after, request_id)
        )

    def _sent(self, step: Step, send: Callable[[], T]) -> T:
        """Send a mutation, if the lease still allows it, and put it on the list of actions if it fails."""
        now = self.guard.clock.now()
        if self.lease is None or now >= self.lease.until - LEASE_MARGIN:
            raise LeaseOver
        try:
            return send()
        except AwsError as error:
            self.actions.append(
                Action(step.name, now, step.key_arn, step.before, step.after, error.request_id, str(error.problem.code))
            )
            raise

    def _until(self, arn: str, shown: Callable[[Key], bool]) -> Key | None:
        """Read a key until KMS shows a change just made, for some seconds at most."""
        key: Key | None = None
        for pause in (*_pauses(), None):
            key = read_key(self.guard.gather, self.reach, arn)
            if key is not None and shown(key):
                return key
            if pause is not None:
                self.guard.sleep(pause)
        return key

    def _confirm(self, rule: Rule, seen: Observation) -> tuple[Problem | None, Observation]:
        """Ask X-Ray what stands now, for ten seconds at most, until it is ACTIVE."""
        for pause in (*_pauses(), None):
            seen = replace(seen, setting=self.reach.xray.get())
            if judge(self.target, rule, self._state(), seen):
                was = seen.setting.key_arn or seen.setting.type
                return Problem("CHANGED_AGAIN", f"X-Ray now answers {was}: somebody changed it meanwhile"), seen
            if seen.setting.status is EncryptionStatus.ACTIVE or pause is None:
                break
            self.guard.sleep(pause)
        return None, seen

    def _finish(self, rule: Rule, problem: Problem | None, seen: Observation) -> Result:
        """Close the attempt. If the state moved meanwhile, look at X-Ray again before saying anything of it (P4)."""
        for _ in range(MOST_CONFLICTS):
            try:
                return self._close_attempt(problem, seen)
            except Conflict:
                self._reload()
                if problem is None:
                    problem, seen = self._confirm(rule, seen)
        raise Busy(Problem("BUSY", f"{self.target}: the attempt's end met other writers"))

    def _close_attempt(self, problem: Problem | None, seen: Observation) -> Result:
        state = self._state()
        incident = state.incident
        assert incident is not None
        now = self.guard.clock.now()
        self.seen = seen
        draft = Draft(state)
        most = self.guard.policy.limits.max_backoff_minutes
        requests = tuple(action.request_id for action in self.actions if action.request_id)
        draft.set(own_requests=(*state.own_requests, *requests)[-OWN_REQUESTS:])
        if any(action.name != StepName.PUT_SETTING for action in self.actions):
            draft.set(look=_later(state.look, now + STALE_READS))
        actions = tuple(self.actions)
        if problem is not None:
            settling = problem.code in SETTLING_CODES
            due = now + SETTLING if settling else ledger.retry_after(state.backoff, now, self.guard.random(), most)
            draft.set(
                incident=replace(incident, phase=Phase.OPEN, lease=None, due=due),
                outcome=Outcome.FAILED,
                reason=problem.code,
            )
            self._note_setting(draft, now)
            fields = {"after": seen.setting, "error": problem, "reason": problem.code, "actions": actions}
            self._add_about(draft, incident, Outcome.FAILED, now, **fields)
            return self._commit(draft, Outcome.FAILED, problem.code)
        self._note_good(draft, seen, now)
        if seen.setting.status is EncryptionStatus.ACTIVE:
            draft.set(incident=None, past=ledger.remember(state, incident, now), outcome=Outcome.REMEDIATED)
            exposure = _exposure(incident, now)
            self._add_about(
                draft, incident, Outcome.REMEDIATED, now, after=seen.setting, actions=actions, exposure_seconds=exposure
            )
            return self._commit(draft, Outcome.REMEDIATED, None)
        draft.set(
            incident=replace(incident, phase=Phase.APPLIED, lease=None, due=now, applied_at=now),
            outcome=Outcome.APPLIED,
        )
        self._add_about(draft, incident, Outcome.APPLIED, now, after=seen.setting, actions=actions)
        return self._commit(draft, Outcome.APPLIED, None)

    # --- the state while the lease is held -------------------------------------------------------------------------

    def _state(self) -> TargetState:
        assert self.loaded is not None
        return self.loaded.state

    def _reload(self) -> None:
        """Read the state again and make sure that the lease is still ours."""
        state = self._load().state
        lease = state.incident.lease if state.incident else None
        if lease is None or self.lease is None or (lease.owner, lease.number) != (self.lease.owner, self.lease.number):
            raise LeaseOver

    def _update(self, change: Callable[[TargetState], TargetState]) -> None:
        """Store a change to the state in the middle of an attempt, whatever others wrote beside it."""
        for _ in range(MOST_CONFLICTS):
            state = self._state()
            try:
                self._save(state, change(state))
            except Conflict:
                self._reload()
            else:
                return
        raise Busy(Problem("BUSY", f"{self.target}: the attempt's state met other writers"))

    # --- drafting --------------------------------------------------------------------------------------------------

    @property
    def _rule_id(self) -> str | None:
        return self.rule.id if self.rule else None

    def _incident(self, draft: Draft, seen: Observation, decision: Decision, now: datetime) -> tuple[Incident, bool]:
        state: TargetState = draft.before
        if state.incident is not None:
            incident = state.incident
            if incident.before is None:
                incident = replace(incident, before=seen.setting)
            return incident, False
        incident = Incident(
            draft.next_id(), now, seen.setting, Phase.OPEN, decision.violations, cause=self._cause(seen)
        )
        return incident, True

    def _cause(self, seen: Observation) -> Cause | None:
        """Who owns the drift: the event's actor, only if what the event did is what stands there now."""
        if self.event is None:
            return None
        owns = not self.change or (self.change.result is not None and seen.setting.same_choice(self.change.result))
        return _cause_of(self.event.trigger) if owns else None

    def _joined(self, incident: Incident) -> Incident:
        """The open incident with the change event's actor and time lent to it, if they fit and it has no cause yet."""
        past = self._state().past
        if self.change and ledger.caused_by(self.change, incident, past[-1].closed_at if past else None):
            return replace(incident, cause=_cause_of(self.change.trigger))
        return incident

    def _past_cause(self, state: TargetState) -> Any:
        """The past incident that the change event caused, newest first."""
        if not self.change:
            return None
        ends = (None, *(past.closed_at for past in state.past))
        for past, ended in reversed(tuple(zip(state.past, ends, strict=False))):
            if ledger.caused_by(self.change, past, ended):
                return past
        return None

    def _join_past(self, draft: Draft, incident_id: str) -> None:
        assert self.change is not None
        cause = _cause_of(self.change.trigger)
        past = tuple(replace(p, cause=cause) if p.id == incident_id else p for p in draft.after.past)
        draft.set(past=past)

    def _close_lost(self, draft: Draft, incident: Incident, now: datetime) -> None:
        """The worker of an attempt was lost: its REMEDIATING gets its end here."""
        problem = _worker_lost(incident)
        self._add_about(draft, incident, Outcome.FAILED, now, error=problem, reason=problem.code, actions=())

    def _note_setting(self, draft: Draft, now: datetime) -> None:
        setting = self.seen.setting if self.seen else draft.before.setting
        draft.set(
            setting=setting,
            first_seen=draft.before.first_seen or now,
            ever_used=draft.before.ever_used or bool(setting and setting.type is EncryptionType.KMS),
            rule=self._rule_id,
            policy_digest=self.guard.policy.digest,
        )

    def _note_good(self, draft: Draft, seen: Observation, now: datetime) -> None:
        self._note_setting(draft, now)
        state: TargetState = draft.before
        self._clear_look(draft, seen)
        draft.set(
            outcome=Outcome.COMPLIANT,
            reason=None,
            violations=(),
            good_at=now,
            checked_at=now if seen.deep else state.checked_at,
        )

    def _clear_look(self, draft: Draft, seen: Observation) -> None:
        """Only a whole observation made after the look was due clears it: before, KMS may have told of the past."""
        look = draft.after.look
        if look is not None and seen.deep and look <= seen.at:
            draft.set(look=None)

    def _add(self, draft: Draft, outcome: Outcome, now: datetime, **fields: Any) -> Record:
        """A record of this run; the fields it does not name are taken from what was seen."""
        fields.setdefault("rule", self._rule_id)
        fields.setdefault("before", self.seen.setting if self.seen else None)
        fields.setdefault("policy_digest", self.guard.policy.digest)
        return draft.add(now, outcome, self.trigger, **fields)

    def _add_about(self, draft: Draft, incident: Incident, outcome: Outcome, now: datetime, **fields: Any) -> Record:
        """A record of an incident."""
        fields.setdefault("incident_id", incident.id)
        fields.setdefault("attempt", incident.attempt or None)
        fields.setdefault("before", incident.before)
        fields.setdefault("violations", incident.violations)
        fields.setdefault("cause", incident.cause)
        return self._add(draft, outcome, now, **fields)

    def _commit(self, draft: Draft, outcome: Outcome, reason: str | None) -> Result:
        draft.set(version=draft.before.version + 1)
        event_id = self._event_id if self.loaded and not self.loaded.audited else None
        self.guard.store.commit(draft.before, draft.after, draft.records, event_id if draft.records else None)
        for record, _, _ in draft.records:
            self.guard.emit(record)
        if self.loaded:
            self.loaded = replace(self.loaded, state=draft.after, audited=self.loaded.audited or event_id is not None)
        last = draft.records[-1][0] if draft.records else None
        return Result(self.target, outcome, reason, draft.after.violations, last, bool(self.actions))


def record_in_guard_chain(
    guard: Guard,
    outcome: Outcome,
    trigger: Trigger,
    *,
    unless: Callable[[GuardState], bool] = lambda state: False,
    state: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Record | None:
    """Append to the chain `guard` what belongs to no target, with `state`'s fields changed; an event only once.

    Answers None where the event was there already, or `unless` says that there is nothing to say.
    """
    for _ in range(MOST_CONFLICTS):
        loaded = guard.store.load(GUARD_CHAIN, trigger.event_id)
        if loaded.audited or unless(loaded.guard):
            return None
        draft = Draft(loaded.guard)
        fields.setdefault("policy_digest", guard.policy.digest)
        record = draft.add(guard.clock.now(), outcome, trigger, **fields)
        draft.set(version=loaded.guard.version + 1, policy_digest=guard.policy.digest, **(state or {}))
        try:
            guard.store.commit(draft.before, draft.after, draft.records, trigger.event_id)
        except Conflict:
            guard.sleep(0.05 + 0.2 * guard.random())
            continue
        guard.emit(record)
        return record
    raise Busy(Problem("BUSY", "the guard's own chain met other writers"))


def _cause_of(trigger: Trigger) -> Cause | None:
    if trigger.event_id is None or trigger.event_time is None:
        return None
    return Cause(trigger.event_id, trigger.event_time, trigger.actor or UNKNOWN_ACTOR)


def _worker_lost(incident: Incident) -> Problem:
    lease = incident.lease
    owner = lease.owner if lease else "unknown"
    return Problem("WORKER_LOST", f"worker {owner} did not report back; what it did in this attempt is not known")


def _exposure(incident: Incident, now: datetime) -> float:
    return _seconds(now - (incident.cause.at if incident.cause else incident.opened_at))


def _seconds(span: timedelta) -> float:
    return max(0.0, round(span.total_seconds(), 3))


def _later(one: datetime | None, other: datetime) -> datetime:
    return max(one, other) if one else other


def _pauses() -> list[float]:
    """The pauses between polls: growing, ten seconds in all."""
    pauses, total, pause = [], 0.0, FIRST_POLL_SECONDS
    while total + pause < CONFIRM_SECONDS:
        pauses.append(pause)
        total += pause
        pause = min(pause * 1.6, 2.0)
    pauses.append(CONFIRM_SECONDS - total)
    return pauses


def _with_key(seen: Observation, arn: str, key: Key | None) -> Observation:
    return replace(seen, keys={**seen.keys, arn: key})


def _known(seen: Observation, arn: str) -> Key:
    key = seen.keys[arn]
    assert key is not None
    return key
