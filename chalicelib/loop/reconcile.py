"""The loop: observe, decide, act, record. One function for every trigger.

An event is only a hint to look. A run reads the target's state and its live setting, decides, and either writes one
record, or none where all is as before, or remediates: it stores REMEDIATING together with a lease, makes one mutation
after the other, each followed by what KMS or X-Ray answer, and stores how it ended. Nothing is mutated before
REMEDIATING is stored (P3) or after the lease's end (P8); REMEDIATED is written only when X-Ray has answered with the
wanted key in ACTIVE (P4).

A crash leaves a REMEDIATING without its end. The lease tells when it may be taken over, and whoever does closes it.

What a run reads is in `look`, what it decides in `decide`, how it mutates in `attempt`, and how it ends where nothing
is mutated in `ending`.
"""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from chalicelib.auditlog.draft import Draft
from chalicelib.domain import waiting
from chalicelib.domain.decide import Decision, decide
from chalicelib.domain.errors import AwsError, Busy, Conflict, GuardError, LeaseOver, StoreError, denies_region
from chalicelib.domain.model import (
    ChangeEvent,
    EncryptionStatus,
    EncryptionType,
    KeyEvent,
    Target,
    Trigger,
    TriggerKind,
)
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Mode, Rule
from chalicelib.domain.reasons import Outcome, Problem, Reason
from chalicelib.domain.steps import StepName
from chalicelib.domain.stored import Backoff, Intent, Lease, Phase, Suppression, TargetState
from chalicelib.loop.attempt import Attempt, is_settling
from chalicelib.loop.ending import Ending
from chalicelib.loop.guard import MOST_CONFLICTS, Assessment, Guard, Result, record_in_guard_chain
from chalicelib.loop.journal import Journal
from chalicelib.loop.look import Look
from chalicelib.loop.observe import rule_aliases

MOST_STORE_ERRORS = 1


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
                if denies_region(error):
                    return run.ending.region_denied(error.problem)
                return run.ending.failed(error.problem, run.lease)
            except Conflict:
                continue
        except LeaseOver:
            return Result(target, Outcome.DEFERRED, Reason.LEASE_OVER)
        except Exception as error:
            problem = Problem(Reason.INTERNAL_ERROR, f"{type(error).__name__} in the guard; see the function's log")
            run.ending.failed(problem, run.lease)
            raise
        else:
            # Whatever goes wrong with this is no failure of the target's: it is raised as it is.
            run.announce_policy()
            return result
    raise Busy(Problem(Reason.BUSY, f"{target}: {MOST_CONFLICTS} attempts met other writers"))


def reconcile_key_event(guard: Guard, event: KeyEvent) -> Result:
    """Reconcile the event's target if the key or alias is one that matters there; otherwise one read and no write."""
    rule = guard.policy.rule_for(event.target)
    ours = _is_our_own(guard, event)
    if rule is None or rule.mode is Mode.OFF or event.error_code or ours:
        return Result(event.target, Outcome.IGNORED, Reason.ECHO if ours else Reason.NOT_OURS)
    state = guard.store.load(str(event.target)).state
    keys = {state.managed_key, *state.keys_made, state.setting.key_arn if state.setting else None}
    aliased = event.alias is not None and event.alias in rule_aliases(rule)
    if not aliased and keys.isdisjoint(event.key_arns):
        return Result(event.target, Outcome.IGNORED, Reason.NOT_OURS)
    return reconcile(guard, event.target, event.trigger, event)


def _is_our_own(guard: Guard, event: ChangeEvent | KeyEvent) -> bool:
    """Whether the guard itself made the change; what an AWS service does with the guard's role is not the guard's."""
    actor = event.trigger.actor
    return actor is not None and actor.arn == guard.role_arn and actor.via is None


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
        self.ending = Ending(self.journal)
        self.lease: Lease | None = None

    def announce_policy(self) -> None:
        """The first run under a new policy digest says so in the guard's own chain."""
        digest = self.guard.policy.digest
        if self.journal.loaded is not None and self.journal.loaded.guard.policy_digest != digest:
            record_in_guard_chain(
                self.guard,
                Outcome.IGNORED,
                Trigger(self.journal.trigger.kind),
                reason=Reason.POLICY_IN_FORCE,
                unless=lambda state: state.policy_digest == digest,
                state={"policy_digest": digest},
            )

    # --- what kind of run ------------------------------------------------------------------------------------------

    def once(self) -> Result:
        if self.target.account != self.guard.account:
            return self.ending.ignored(Reason.ACCOUNT_NOT_OURS, f"this guard acts in account {self.guard.account}")
        if self._is_echo():
            return self._echo()
        if self.journal.change and self.journal.change.error_code:
            return self.ending.ignored(self.journal.change.error_code, self.journal.change.error_message)
        if self.rule is None:
            return self.ending.ignored(Reason.UNGOVERNED, "no rule of the policy matches this target")
        if self.rule.mode is Mode.OFF:
            return self.ending.ignored(Reason.RULE_OFF, f"rule {self.rule.id} is off")
        return self._judge(self.rule)

    def _is_echo(self) -> bool:
        return self.journal.event is not None and _is_our_own(self.guard, self.journal.event)

    def _echo(self) -> Result:
        """Our own change, heard of again: confirm what waits for ACTIVE; look closer only if something else is set."""
        if self.journal.change and self.journal.change.error_code:
            # A call of ours that was refused changed nothing, and the attempt that made it has its due time.
            return Result(self.target, Outcome.IGNORED, Reason.ECHO)
        state = self.journal.load().state
        try:
            setting = self.reach.xray.get()
        except AwsError:
            # What waits for ACTIVE has its due time, and whatever else may be set has an event of its own.
            return Result(self.target, Outcome.IGNORED, Reason.ECHO)
        now = self.guard.clock.now()
        if state.is_held(now):
            return Result(self.target, Outcome.IGNORED, Reason.ECHO)
        if setting.type is EncryptionType.KMS and setting.key_arn == state.managed_key:
            incident = state.incident
            if incident and incident.phase is Phase.APPLIED and setting.status is EncryptionStatus.ACTIVE:
                self.journal.forget_event(Trigger(TriggerKind.CHANGE))
                return self.ending.close_good(incident, setting, now)
            return Result(self.target, Outcome.IGNORED, Reason.ECHO)
        # Somebody overtook us. Whoever it was, it was not the guard that the event names.
        self.journal.forget_event(Trigger(TriggerKind.CHANGE))
        return self.once()

    # --- judging ---------------------------------------------------------------------------------------------------

    def _judge(self, rule: Rule) -> Result:
        look = Look(self.journal, self.reach, rule)
        loaded, first = look.first()
        state = loaded.state
        now = self.guard.clock.now()
        if self.journal.trigger.kind is TriggerKind.TICK and (state.due is None or state.due > now):
            return Result(self.target, state.outcome or Outcome.IGNORED, Reason.NOT_DUE)
        if state.is_held(now):
            return self.ending.step_back(state, now)
        seen = look.whole(state, first)
        suppression = look.break_glass(seen)
        state = self.journal.state()
        decision = self._decide(rule, state, seen, suppression)
        match decision.outcome:
            case Outcome.IGNORED:
                return self.ending.ignored(decision.reason or "", decision.message)
            case Outcome.COMPLIANT:
                return self.ending.compliant(rule, state, seen)
            case Outcome.REMEDIATING:
                return self._remediate(rule, state, seen, decision, look.refusal)
            case _:
                return self.ending.held(state, seen, decision, look.refusal)

    def assess(self) -> Assessment:
        """Observe and judge without writing or mutating anything."""
        state = self.journal.load().state
        if self.rule is None or self.rule.mode is Mode.OFF:
            reason = Reason.RULE_OFF if self.rule else Reason.UNGOVERNED
            return Assessment(self.target, self.rule, Decision(Outcome.IGNORED, reason=reason), state, None)
        look = Look(self.journal, self.reach, self.rule)
        seen = look.observed(state, look.glance(), deep=True)
        decision = self._decide(self.rule, state, seen, look.weighed(state, seen).in_force)
        return Assessment(self.target, self.rule, decision, state, seen)

    def _decide(self, rule: Rule, state: TargetState, seen: Observation, suppression: Suppression | None) -> Decision:
        assert self.journal.loaded is not None
        now = self.guard.clock.now()
        return decide(
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

    # --- remediating -----------------------------------------------------------------------------------------------

    def _remediate(
        self, rule: Rule, state: TargetState, seen: Observation, decision: Decision, refusal: Suppression | None
    ) -> Result:
        self.lease = self._take_lease(state, seen, decision, refusal)
        mutated = state.incident is not None and state.incident.mutated
        return Attempt(self.journal, self.reach, rule, self.lease, mutated=mutated).run(seen)

    def _take_lease(
        self, state: TargetState, seen: Observation, decision: Decision, refusal: Suppression | None
    ) -> Lease:
        """Store REMEDIATING with a lease. Where the chain only grew meanwhile, what was seen still stands.

        Otherwise whoever has calls refused often enough, each of which is audited, could keep the guard observing for
        ever. Raises Conflict where anything else moved.
        """
        assert self.journal.loaded is not None
        for _ in range(MOST_CONFLICTS):
            paused = self.journal.loaded.guard.paused
            try:
                return self._begin(state, seen, decision, refusal)
            except Conflict:
                loaded = self.journal.load()
                if loaded.guard.paused != paused or not loaded.state.differs_only_in_chain(state):
                    raise
                state = loaded.state
        raise Conflict(str(self.target))

    def _begin(self, state: TargetState, seen: Observation, decision: Decision, refusal: Suppression | None) -> Lease:
        now = self.guard.clock.now()
        draft = Draft(state)
        most = self.guard.policy.limits.max_backoff_minutes
        incident, _ = self.journal.incident(draft, seen, decision.violations, now)
        if incident.lease is not None:
            self.journal.close_lost(draft, incident, now)
        if self.journal.unheard():
            incident = self.journal.joined(incident)
        lease = Lease(self.guard.worker, state.lease_number + 1, now + timedelta(seconds=self.guard.lease_seconds))
        backoff = state.backoff
        if not is_settling(state, now):
            backoff = waiting.backoff_after_attempt(backoff, now, self.guard.random(), most)
        makes_key = any(step.name is StepName.CREATE_KEY for step in decision.steps)
        intent = Intent(self.guard.new_id(), lease.until + waiting.STALE_READS) if makes_key else state.intent
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
            suppression=refusal,
            actions=(),
        )
        self.journal.commit(draft, Outcome.REMEDIATING, None)
        return lease
