"""One attempt to remediate, under a lease: mutate step by step, read the results, and store how the attempt ended.

The lease was taken in the transaction that stored REMEDIATING. No mutation is sent after its end (P8); AWS's clock is
read before each one. The responses of KMS and X-Ray determine the next step: a change that can be read is never assumed
to have worked (P4, P13).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TypeVar

from msgspec.structs import replace

from chalicelib.domain import waiting
from chalicelib.domain.attempts import Attempted
from chalicelib.domain.echo import plan_entry
from chalicelib.domain.errors import DENIED, AwsError, Busy, Conflict, GuardError, KeyNotOnRecord, LeaseOver
from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import GUARD_TAG_KEY, GUARD_TAG_VALUE, NONCE_TAG_KEY, EncryptionStatus, Key, Trigger
from chalicelib.domain.observation import Observation
from chalicelib.domain.reasons import Outcome, Problem, Reason
from chalicelib.domain.refusals import may_be_updating, refused_by_kms, refused_by_logs, refused_by_xray
from chalicelib.domain.run import Known, Run
from chalicelib.domain.settle import settle
from chalicelib.domain.settlement import Line, RecordFields, Settlement
from chalicelib.domain.spans import Spans
from chalicelib.domain.steps import MOST_STEPS, Blocked, Step, StepName, next_step
from chalicelib.domain.stored import Action, Incident, Lease, Suppression, TargetState
from chalicelib.loop.commit import commit
from chalicelib.loop.guard import Guard, Result
from chalicelib.loop.observe import read_spans
from chalicelib.loop.readkey import read_key

T = TypeVar("T")

CONFIRM_SECONDS = 10.0
"""How long a run waits for ACTIVE, or for KMS to show a repair, before it leaves the rest to a tick."""

FIRST_POLL_SECONDS = 0.25

LEASE_MARGIN = timedelta(seconds=15)
"""A mutation is sent only if this much of the lease is left: AWS's clock has whole seconds, and calls take time."""

MOST_CONFLICTS_UNDER_LEASE = 30
"""No other worker acts meanwhile, but others may record change events, and there may be many."""


class Attempt:
    """The right to mutate one target while the lease lasts.

    `keys` are those of the plan: each is on record, or was not named by the stored state. The attempt changes no other
    key but one that it creates, whatever the stored state names later. `held` are the lanes in which it takes no step,
    `suppression` the break-glass that holds them, if one does.
    `mutated`: a call that the guard sent in this incident, in this attempt or before, may have taken effect.
    """

    def __init__(
        self,
        guard: Guard,
        run: Run,
        known: Known,
        lease: Lease,
        keys: frozenset[str],
        held: frozenset[Lane],
        suppression: Suppression | None,
        *,
        mutated: bool,
    ) -> None:
        assert run.rule is not None
        self.guard = guard
        self.reach = guard.reach(run.target)
        self.run = run
        self.rule = run.rule
        self.known = known
        self.lease = lease
        self.held = held
        self.suppression = suppression
        self.lane = Lane.SETTING
        """The lane of the step that the attempt stopped at; after the last step, that of the setting."""
        self.keys = keys
        self.mutated = mutated
        self.actions: list[Action] = []

    def act(self, seen: Observation) -> Result:
        """Act on the observation, and end the attempt. Raises LeaseOver if another worker has taken over."""
        problem, seen = self._take_steps(seen)
        if problem is not None and self.lane is Lane.SPANS:
            # Nothing else waits for the key of the spans.
            self.held |= {Lane.SPANS}
            _, seen = self._take_steps(seen)
            self.lane = Lane.SPANS
        return self._finish(problem, seen)

    def _take_steps(self, seen: Observation) -> tuple[Problem | None, Observation]:
        """Perform the steps until none is left. Return why it stopped early, if it did, and the last observation."""
        last: Step | None = None
        step: Step | Blocked | None = None
        try:
            for _ in range(MOST_STEPS):
                step = self._next_step(seen)
                self.lane = step.lane if step else Lane.SETTING
                if isinstance(step, Blocked):
                    return step.problem, seen
                if step is None:
                    return self._confirm(seen)
                if step.key_arn is not None and step.key_arn not in self.keys:
                    raise KeyNotOnRecord(str(self.run.target), step.key_arn)
                if last is not None and plan_entry(step) == plan_entry(last):
                    return Problem(Reason.NOT_YET_TAKEN, f"AWS accepted {step.name} and does not show it yet"), seen
                seen = self._perform(step, seen)
                last = step
        except AwsError as error:
            return self._passes(step, seen, error) or error.problem, seen
        except GuardError as error:
            return error.problem, seen
        return Problem(Reason.TOO_MANY_STEPS, f"the target is not compliant after {MOST_STEPS} mutations"), seen

    def _next_step(self, seen: Observation) -> Step | Blocked | None:
        partition = self.run.setup.partition
        return next_step(self.run.target, self.rule, self.known.state, seen, partition, self.held)

    def _passes(self, step: Step | Blocked | None, seen: Observation, error: AwsError) -> Problem | None:
        """Return why the refusal passes by itself, or None if it does not."""
        if not isinstance(step, Step):
            return None
        if step.name is StepName.ASSOCIATE_KEY:
            return refused_by_logs(step, self.known.state, error, self.guard.clock.now())
        if step.name is not StepName.PUT_SETTING:
            return refused_by_kms(step, self.known.state, error, self.guard.clock.now())
        if not may_be_updating(error):
            return None
        try:
            status = self.reach.xray.get().status
        except AwsError:
            status = seen.setting.status
        return refused_by_xray(step, error, status)

    def _perform(self, step: Step, seen: Observation) -> Observation:
        """Send one mutation and return the observation after it."""
        keys = self.reach.keys
        arn = step.key_arn or ""
        match step.name:
            case StepName.CREATE_KEY:
                return self._create_key(step, seen)
            case StepName.CANCEL_DELETION:
                self._mutate(step, lambda: keys.cancel_deletion(arn))
                return _with_key(seen, arn, self._until(arn, lambda key: key.state != "PendingDeletion"))
            case StepName.ENABLE_KEY:
                self._mutate(step, lambda: keys.enable(arn))
                return _with_key(seen, arn, self._until(arn, lambda key: key.state == "Enabled"))
            case StepName.PUT_KEY_POLICY:
                self._note_planned(step)
                self._mutate(step, lambda: keys.put_policy(arn, step.after or ""))
                return _with_key(seen, arn, replace(_known(seen, arn), policy=step.after))
            case StepName.ENABLE_ROTATION:
                days = self.rule.managed_key.rotation_days
                self._mutate(step, lambda: keys.enable_rotation(arn, days))
                return _with_key(seen, arn, replace(_known(seen, arn), rotation=True, rotation_days=days))
            case StepName.CREATE_ALIAS:
                return self._create_alias(step, seen)
            case StepName.UPDATE_ALIAS:
                self._mutate(step, lambda: keys.update_alias(step.after or "", arn))
                return replace(seen, aliases={**seen.aliases, step.after or "": arn})
            case StepName.PUT_SETTING:
                return self._put_setting(step, seen)
            case StepName.ASSOCIATE_KEY:
                self._note_adopted(arn)
                self._mutate(step, lambda: self.reach.logs.associate(arn))
                return replace(seen, spans=self._until_associated(step))

    def _note_planned(self, step: Step) -> None:
        """A step that was not foreseen is stored before it is taken, so that its event is recognized."""
        incident = self.known.state.incident
        if incident is not None and plan_entry(step) not in incident.planned:
            more = (*incident.planned, plan_entry(step))
            self._update(lambda state: replace(state, incident=replace(_acting(state), planned=more)))

    def _create_key(self, step: Step, seen: Observation) -> Observation:
        intent = self.known.state.intent
        assert intent is not None
        tags = (
            *self.rule.managed_key.tags.items(),
            (GUARD_TAG_KEY, GUARD_TAG_VALUE),
            (NONCE_TAG_KEY, intent.nonce),
        )
        try:
            key, policy = self._send_create_key(step, tags)
        except AwsError as error:
            if not error.effect_unknown:
                self._update(lambda state: replace(state, intent=None))
            raise
        now = self.guard.clock.now()
        self.keys |= {key.arn}
        self._update(
            lambda state: replace(
                state,
                keys_made=(*state.keys_made, key.arn),
                intent=None,
                recheck_at=waiting.recheck_after(state.recheck_at, now),
            ),
            self._note(Reason.KEY_MADE, key.arn),
        )
        if policy is None:
            # The text of the default policy is unknown until KMS returns it; the next step completes it.
            return _with_key(seen, key.arn, self._until(key.arn, lambda shown: True))
        return _with_key(seen, key.arn, replace(key, policy=policy, rotation=False, tags=tags))

    def _send_create_key(self, step: Step, tags: tuple[tuple[str, str], ...]) -> tuple[Key, str | None]:
        """Create the key with the step's policy or, if that is denied, with KMS's default policy, returned as None.

        An organization may deny bypassing KMS's lock-out safety check, which a policy of our own requires.
        """
        description = self.rule.managed_key.description
        for policy in (step.after, None):
            sent = replace(step, after=policy)
            try:
                key, request_id = self._sent(sent, partial(self.reach.keys.create, description, policy, tags))
            except AwsError as error:
                if policy is None or error.code not in DENIED:
                    raise
            else:
                self.actions.append(Action(step.name, self.guard.clock.now(), key.arn, None, policy, request_id))
                return key, policy
        raise AssertionError("the second refusal is raised")

    def _create_alias(self, step: Step, seen: Observation) -> Observation:
        alias, arn = step.after or "", step.key_arn or ""
        try:
            self._mutate(step, lambda: self.reach.keys.create_alias(alias, arn))
        except AwsError as error:
            if error.code != "AlreadyExistsException":
                raise
            # KMS did not show the alias yet, or somebody was faster: then the next step moves it to our key.
            winner = self.reach.keys.describe(alias)
            if winner is None:
                raise GuardError(
                    Problem(Reason.NOT_YET_TAKEN, f"{alias} exists, and KMS does not show it yet")
                ) from error
            return replace(seen, aliases={**seen.aliases, alias: winner.arn})
        return replace(seen, aliases={**seen.aliases, alias: arn})

    def _put_setting(self, step: Step, seen: Observation) -> Observation:
        arn = step.key_arn or ""
        self._note_adopted(arn)
        answer, request_id = self._sent(step, lambda: self.reach.xray.put(arn))
        self.actions.append(Action(step.name, self.guard.clock.now(), arn, step.before, answer.key_arn, request_id))
        return replace(seen, setting=answer)

    def _note_adopted(self, arn: str) -> None:
        """Record the key before it is used: whatever happens to the alias, this is the managed key."""
        if self.known.state.managed_key != arn:
            self._update(lambda state: replace(state, managed_key=arn), self._note(Reason.KEY_ADOPTED, arn))

    def _mutate(self, step: Step, send: Callable[[], str | None]) -> None:
        request_id = self._sent(step, send)
        self.actions.append(
            Action(step.name, self.guard.clock.now(), step.key_arn, step.before, step.after, request_id)
        )

    def _sent(self, step: Step, send: Callable[[], T]) -> T:
        """Send a mutation if the lease still allows it; add it to the list of actions if it fails."""
        now = self.guard.clock.now()
        if now >= self.lease.until - LEASE_MARGIN:
            raise LeaseOver
        try:
            answer = send()
        except AwsError as error:
            self.mutated = self.mutated or error.effect_unknown
            self.actions.append(
                Action(step.name, now, step.key_arn, step.before, step.after, error.request_id, str(error.problem.code))
            )
            raise
        self.mutated = True
        return answer

    def _until(self, arn: str, shown: Callable[[Key], bool]) -> Key | None:
        """Read a key until KMS shows a change that was just made, for ten seconds at most."""
        key: Key | None = None
        for pause in (*_pauses(), None):
            key = read_key(self.guard.gather, self.reach, arn)
            if key is not None and shown(key):
                return key
            if pause is not None:
                self.guard.sleep(pause)
        return key

    def _until_associated(self, step: Step) -> Spans:
        """Read where spans are stored until CloudWatch Logs shows the key, for ten seconds at most."""
        for pause in (*_pauses(), None):
            spans = read_spans(self.reach)
            if spans.group is not None and spans.group.key_arn == step.key_arn:
                return spans
            if pause is not None:
                self.guard.sleep(pause)
        raise GuardError(Problem(Reason.NOT_YET_TAKEN, f"AWS accepted {step.name} and does not show it yet"))

    def _confirm(self, seen: Observation) -> tuple[Problem | None, Observation]:
        """Read X-Ray's setting until it is ACTIVE, for ten seconds at most."""
        for pause in (*_pauses(), None):
            asked_at = self.guard.clock.now()
            seen = replace(seen, setting=self.reach.xray.get(), setting_at=asked_at)
            if self._next_step(seen) is not None:
                was = seen.setting.key_arn or seen.setting.type
                return Problem(Reason.CHANGED_AGAIN, f"X-Ray now reports {was}: somebody changed it meanwhile"), seen
            if seen.setting.status is EncryptionStatus.ACTIVE or pause is None:
                break
            self.guard.sleep(pause)
        return None, seen

    def _finish(self, problem: Problem | None, seen: Observation) -> Result:
        """End the attempt. If the stored state changed meanwhile, read X-Ray again before recording the result (P4)."""
        for _ in range(MOST_CONFLICTS_UNDER_LEASE):
            attempted = Attempted(
                seen, problem, tuple(self.actions), self.mutated, self.lane, self.held, self.suppression
            )
            try:
                return self._commit(settle(self.run, self.known, attempted, self.guard.at()))
            except Conflict:
                self._reload()
                if problem is None:
                    problem, seen = self._confirmed_again(seen)
        raise Busy(Problem(Reason.BUSY, f"{self.run.target}: the attempt's end conflicted with other writers"))

    def _confirmed_again(self, seen: Observation) -> tuple[Problem | None, Observation]:
        """Like `_confirm`, but return an AwsError as a problem, because the actions must be recorded in any case."""
        try:
            return self._confirm(seen)
        except AwsError as error:
            return error.problem, seen

    def _note(self, reason: Reason, key_arn: str) -> Line:
        """Return a record that names a key, as a part of the incident."""
        fields: RecordFields = {
            "incident_id": _acting(self.known.state).id,
            "reason": reason,
            "rule": self.run.rule_id,
            "policy_digest": self.run.setup.policy_digest,
            "detail": {"key": key_arn},
        }
        return Line(self.guard.clock.now(), Outcome.IGNORED, Trigger(self.run.trigger.kind), fields)

    def _update(self, change: Callable[[TargetState], TargetState], *lines: Line) -> None:
        """Store a change to the state during an attempt, with its records, even if others write at the same time."""
        for _ in range(MOST_CONFLICTS_UNDER_LEASE):
            try:
                self._commit(Settlement(lines, change(self.known.state), Outcome.REMEDIATING))
            except Conflict:
                self._reload()
            else:
                return
        raise Busy(Problem(Reason.BUSY, f"{self.run.target}: the attempt's state conflicted with other writers"))

    def _commit(self, settlement: Settlement) -> Result:
        self.known, result = commit(self.guard, self.run, self.known, settlement)
        return result

    def _reload(self) -> None:
        """Read the state again. Raises LeaseOver if the lease is no longer ours."""
        self.known = self.guard.known(self.run)
        incident = self.known.state.incident
        if incident is None or incident.lease is None or not incident.lease.is_same(self.lease):
            raise LeaseOver


def _pauses() -> list[float]:
    """Return the pauses between polls: growing, ten seconds in total."""
    pauses, total, pause = [], 0.0, FIRST_POLL_SECONDS
    while total + pause < CONFIRM_SECONDS:
        pauses.append(pause)
        total += pause
        pause = min(pause * 1.6, 2.0)
    pauses.append(CONFIRM_SECONDS - total)
    return pauses


def _with_key(seen: Observation, arn: str, key: Key | None) -> Observation:
    return replace(seen, keys={**seen.keys, arn: key})


def _acting(state: TargetState) -> Incident:
    assert state.incident is not None
    return state.incident


def _known(seen: Observation, arn: str) -> Key:
    key = seen.keys[arn]
    assert key is not None
    return key
