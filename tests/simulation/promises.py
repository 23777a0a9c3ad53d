"""What must hold in every simulated story, checked while it runs and at its end.

A `Witness` sees each mutation and each commit when it takes effect. It collects what is wrong instead of raising it,
because the guard might handle an exception.
"""

from __future__ import annotations

from collections import Counter

from chalicelib.auditlog.chaincheck import verify_chain
from chalicelib.auditlog.keyrows import named, sort_key
from chalicelib.domain.keypolicy.judge import Verdict, judge_for_logs, judge_policy
from chalicelib.domain.model import EncryptionStatus, EncryptionType, Key, Target
from chalicelib.domain.ownership import is_own
from chalicelib.domain.policy import Rule, SpansRule
from chalicelib.domain.protected import changed_fields
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.spans import IN_LOGS
from chalicelib.domain.stored import GUARD_CHAIN, Action, GuardState, Record, TargetState
from tests.simulation.fakes import Tables
from tests.simulation.lambdas import Lambdas
from tests.simulation.simulatedlog import SimulatedLog
from tests.simulation.whodunit import Whodunit
from tests.simulation.world import GUARD_ROLE, HOME, Mutation, Run, World

GOOD = (Outcome.COMPLIANT, Outcome.REMEDIATED)
UPDATING = "X-Ray is still updating"
CHANGES_THE_KEY = ("CancelKeyDeletion", "EnableKey", "EnableKeyRotation", "PutKeyPolicy")
CLOSING = (
    Outcome.FAILED,
    Outcome.DEFERRED,
    Outcome.OBSERVED,
    Outcome.SUPPRESSED,
    Outcome.APPLIED,
    Outcome.REMEDIATED,
    Outcome.COMPLIANT,
)


class Witness:
    """Watches one world. `broken` lists every promise that was seen broken, with where and when.

    `rolled_back`: a release that does not protect the state stored it, which counts as an edit.
    `follows_attributions`: who made each violation is compared with what really happened. `follows_key_rows`: nobody
    edits the stored states, so each key that they name has its row. `former` are the markers that a former version of
    the guard left, whose records do not say whose own they are.
    """

    def __init__(self, world: World, tables: Tables, lambdas: Lambdas, *, rivals: bool = False) -> None:
        self.world, self.tables, self.lambdas = world, tables, lambdas
        self.rivals = rivals
        self.fresh = True
        self.follows_attributions = False
        self.rolled_back = False
        self.follows_key_rows = True
        self.broken: list[str] = []
        self.former: frozenset[tuple[str, str]] = frozenset()
        self.keys_made: Counter[Target] = Counter()
        self.right_since: dict[Target, float | None] = {}
        self._written_by: dict[str, tuple[Run, float]] = {}
        self._whodunit: dict[str, Whodunit] = {}
        world.on_mutation = self._mutation
        tables.on_commit = self._commit

    def _say(self, promise: str, what: str) -> None:
        self.broken.append(f"{promise} at {self.world.now:.1f} s: {what}")

    def rule(self, target: Target) -> Rule:
        rule = self.lambdas.policy.rule_for(target)
        assert rule is not None
        return rule

    # --- while it happens ------------------------------------------------------------------------------------------

    def _mutation(self, mutation: Mutation) -> None:
        self._note_right(mutation.target)
        run = mutation.run
        if run is None:
            return
        state = self.tables.state(mutation.target)
        lease = state.incident.lease if state.incident else None
        who = f"{mutation.name} by {run.name}"
        ours = run.of(mutation.target)
        if ours.lease_number is None or ours.lease_until is None:
            self._say("P3", f"{who} without a stored REMEDIATING")
        elif self.world.clock >= ours.lease_until:
            self._say("P8", f"{who} after the end of its lease")
        elif lease is None or lease.number != ours.lease_number:
            self._say("P8", f"{who} under lease {ours.lease_number} while {lease and lease.number} holds")
        if mutation.name == "CreateKey":
            self.keys_made[mutation.target] += 1
            if self.keys_made[mutation.target] > 1 and not self.rivals:
                self._say("P2", f"{who} made key number {self.keys_made[mutation.target]}")
        elif mutation.key_arn is not None and mutation.name in CHANGES_THE_KEY and not is_own(mutation.key_arn, state):
            self._say("P13", f"{who} changes {mutation.key_arn}, which the guard did not make")
        if mutation.name in ("PutEncryptionConfig", "AssociateKmsKey"):
            self._check_proof(mutation, run, who)

    def _note_right(self, target: Target) -> None:
        """Note since when the target is compliant, apart from X-Ray's UPDATING, which no mutation can speed up."""
        if set(self.wrong(target)) - {UPDATING}:
            self.right_since[target] = None
        elif self.right_since.get(target) is None:
            self.right_since[target] = self.world.now

    def _check_proof(self, mutation: Mutation, run: Run, who: str) -> None:
        """P13: according to KMS's last responses to this run, the key works and its policy lets X-Ray use it."""
        arn = mutation.key_arn or ""
        if run.told_states.get(arn) != "Enabled":
            self._say("P13", f"{who}: KMS last reported {arn} as {run.told_states.get(arn)}")
        if not said(run.told_policies.get(arn, ""), self.rule(mutation.target), mutation.target).proved:
            self._say("P13", f"{who}: the policy that KMS last returned for {arn} does not let X-Ray use it")
        told = run.told_policies.get(arn, "")
        if mutation.name == "AssociateKmsKey" and not judge_for_logs(told, mutation.target, "aws").complete:
            self._say("P13", f"{who}: the policy that KMS last returned for {arn} does not let CloudWatch Logs use it")
        if self.fresh and not self.rivals:
            key = self.world.place(mutation.target).kms.keys[arn]
            verdict = said(key.policy or "", self.rule(mutation.target), mutation.target)
            if key.state != "Enabled" or not verdict.proved:
                self._say("P13", f"{who}: {arn} is {key.state}, or its policy is incomplete")

    def _commit(
        self, run: Run, before: TargetState | GuardState, after: TargetState | GuardState, records: list[Record]
    ) -> None:
        self._check_protected(before, after, records)
        written_by = self._written_by.get(after.target)
        self._written_by[after.target] = (run, self.world.now)
        if not isinstance(after, TargetState):
            return
        seen = run.of(after.target)
        if self.follows_attributions:
            rule = self.rule(Target.parse(after.target))
            oracle = self._whodunit.setdefault(after.target, Whodunit(self.world, self.tables, rule))
            oracle.committed(run, after, records)
        for record in records:
            if record.outcome is Outcome.REMEDIATING:
                lease = after.incident.lease if after.incident else None
                seen.lease_number, seen.lease_until = (lease.number, lease.until) if lease else (None, None)
            if record.outcome is Outcome.REMEDIATED:
                scene = seen.told_setting
                if scene is None or scene.type is not EncryptionType.KMS or scene.status is not EncryptionStatus.ACTIVE:
                    self._say("P4", f"{record.record_id} REMEDIATED, but X-Ray last reported {scene}")
                elif record.after != scene:
                    self._say("P4", f"{record.record_id} says {record.after}, but X-Ray last reported {scene}")
            associated = [each for each in record.actions if each.name == "AssociateKmsKey" and not each.error]
            shown = seen.told_group.key_arn if seen.told_group else None
            if record.outcome is Outcome.REMEDIATED and associated and shown != associated[-1].key_arn:
                self._say("P4", f"{record.record_id} REMEDIATED, but CloudWatch Logs last showed {seen.told_group}")
        closes = isinstance(before, TargetState) and before.incident is not None and after.incident is None
        overtaken = written_by is not None and written_by[0] is not run and written_by[1] > seen.told_setting_at
        if closes and overtaken and records and records[-1].outcome in GOOD:
            self._say("P4", f"{records[-1].record_id} closes on a read older than the stored state")

    def _check_protected(
        self, before: TargetState | GuardState, after: TargetState | GuardState, records: list[Record]
    ) -> None:
        """P16: protected fields change only with a record, and each key that the state names has its row."""
        changed = changed_fields(before, after)
        if changed and not records:
            self._say("P16", f"{after.target}: {', '.join(changed)} changed without a record")
        missing = [name for name in named(after) if (after.target, sort_key(name)) not in self.tables.keys]
        if missing and self.follows_key_rows:
            self._say("P16", f"{after.target}: no key row for {', '.join(missing)}")

    # --- the target's state ----------------------------------------------------------------------------------------

    def right(self, target: Target = HOME) -> bool:
        """Whether the target is actually compliant."""
        return not self.wrong(target)

    def wrong(self, target: Target = HOME) -> list[str]:
        """Return everything that is actually noncompliant about the target, whatever reads show."""
        place, rule = self.world.place(target), self.rule(target)
        setting = self.world.setting(target)
        aliased = place.kms.aliases.get(rule.managed_key.alias)
        key = place.kms.keys.get(setting.key_arn or "")
        found = []
        if setting.type is not EncryptionType.KMS:
            found.append("X-Ray is not on KMS")
        elif setting.status is not EncryptionStatus.ACTIVE:
            found.append(UPDATING)
        if key is None or aliased != key.arn:
            found.append(f"X-Ray is on {setting.key_arn}, the alias points to {aliased}")
        if key is not None:
            found += _faults(key, rule, target)
        return found + self._wrong_spans(target)

    def _wrong_spans(self, target: Target) -> list[str]:
        """What is noncompliant about spans. Under other rules than `encrypt` only people change it."""
        place, rule = self.world.place(target), self.rule(target)
        if rule.require.spans is not SpansRule.ENCRYPT or place.destination != IN_LOGS or place.group is None:
            return []
        key = place.kms.keys.get(place.group.key_arn or "")
        if key is None or key.arn != self.tables.state(target).managed_key:
            return [f"spans are stored under {place.group.key_arn}"]
        usable = key.state == "Enabled" and judge_for_logs(key.policy or "", target, "aws").complete
        return [] if usable else [f"CloudWatch Logs cannot use {key.arn}"]

    def settled(self, target: Target = HOME) -> bool:
        """Whether the guard's stored state is compliant, too, and nothing is due."""
        state = self.tables.state(target)
        return state.incident is None and state.outcome in GOOD and state.due is None

    # --- at the end ------------------------------------------------------------------------------------------------

    def check_whole(self) -> None:
        """Check the promises about what is stored. Raises AssertionError with everything that is broken."""
        broken = [*self.broken, *(f"unexpected {surprise!r}" for surprise in self.lambdas.surprises)]
        for name in (*self.tables.states, GUARD_CHAIN):
            state = self.tables.guard() if name == GUARD_CHAIN else self.tables.state(name)
            findings = verify_chain(name, self.tables.rows.get(name, ()), (state.seq, state.head))
            findings += SimulatedLog(self.tables).state_findings(name)
            broken += [f"P16: {each}" for each in findings if not (self.rolled_back and each.code == "STATE_EDITED")]
            if name != GUARD_CHAIN:
                broken += _unclosed(self.tables.records(name), self.tables.state(name))
                broken += self._audited_once(name)
                if name in self._whodunit:
                    broken += self._whodunit[name].at_the_end(self.tables.records(name))
        for name in self.tables.states:
            if name != GUARD_CHAIN:
                state = self.tables.state(name)
                if state.incident and state.incident.lease and state.due is None:
                    broken.append(f"P1: {name} is held by {state.incident.lease} and never due")
        assert not broken, "\n".join(broken)

    def _audited_once(self, name: str) -> list[str]:
        """P5: each event that was received is recorded once, as itself, or counted; P7: an echo is not."""
        records = [record for record in self.tables.records(name) if record.trigger.event_id]
        own = Counter(
            record.trigger.event_id for record in records if record.change or record.reason == Reason.ADDENDUM
        )
        counted = {event_id for of, event_id in self.tables.counted if of == name}
        marked = {event_id for of, event_id in self.tables.markers - self.former if of == name} - counted
        broken = [f"P5: {event_id} has {count} records of its own" for event_id, count in own.items() if count > 1]
        broken += [f"P5: {event_id} is marked and has no record of its own" for event_id in marked - own.keys()]
        broken += [f"P5: {event_id} is recorded and not marked" for event_id in own.keys() - marked]
        broken += [f"P5: {event_id} is recorded and counted" for event_id in own.keys() & counted]
        broken += self._all_counted(name, len(counted))
        actors = {record.trigger.event_id: record.trigger.actor for record in records if record.change}
        for event in self.world.events:
            event_id, actor = event.trigger.event_id, event.trigger.actor
            if str(event.target) != name or actor is None:
                continue
            if event.trigger.request_id in self.world.guards_requests:
                if any(record.trigger.event_id == event_id for record in records):
                    broken.append(f"P7: the echo {event_id} is on the record")
            elif actors.get(event_id, actor) != actor:
                broken.append(f"P5: {event_id} is recorded as {actors[event_id]}'s and is {actor}'s")
        borrowed = {
            event.trigger.event_id
            for event in self.world.events
            if event.trigger.actor
            and event.trigger.actor.arn == GUARD_ROLE
            and event.trigger.request_id not in self.world.guards_requests
        }
        for record in records:
            if record.reason == Reason.ROLE_BORROWED and record.trigger.event_id not in borrowed:
                broken.append(f"P7: {record.record_id} calls the guard's own call a stranger's")
        if not self.lambdas.pending:
            received = (each for each in self.lambdas.to_record if each not in self.lambdas.dead_letters)
            about = [each for each in received if str(each.target) == name]
            ids = {str(each.trigger.event_id) for each in about}
            ids |= {each.addendum_id for each in about if each.addendum_id}
            missing = [each for each in ids - own.keys() - counted if (name, each) not in self.former]
            broken += [f"P5: {event_id} was received and is not recorded" for event_id in sorted(missing)]
        return broken

    def _all_counted(self, name: str, count: int) -> list[str]:
        """The records of counts, and the tallies that are not closed yet, have every call that was only counted."""
        recorded = sum(
            int(str(record.detail[field]))
            for record in self.tables.records(name)
            if record.reason == Reason.CALLS_COUNTED
            for field in ("refused_calls", "tag_changes")
        )
        waiting = sum(tally.counted for tally in self.tables.tallies.values() if tally.target == name)
        if recorded + waiting == count:
            return []
        return [f"P5: {count} calls were counted; {recorded} are on the record, and {waiting} in tallies"]

    def check_right(self, target: Target = HOME, *, keys: int = 1) -> None:
        """The target ends compliant, at most `keys` keys were created, and X-Ray uses the managed key."""
        assert not self.wrong(target), f"{self.wrong(target)}\n{self.story(target)}"
        assert self.settled(target), f"not settled: {self.tables.state(target)}\n{self.story(target)}"
        assert self.keys_made[target] <= keys, self.story(target)
        assert self.tables.state(target).managed_key == self.world.setting(target).key_arn, self.story(target)

    def story(self, target: Target = HOME) -> str:
        """Return what happened, for the message of a failure."""
        lines = [
            f"{mutation.at:9.2f}  {'user' if mutation.run is None else mutation.run.name:32} {mutation.name} "
            f"{mutation.key_arn}"
            for mutation in self.world.mutations
            if mutation.target == target
        ]
        for record in self.tables.records(target):
            seconds = record.at.timestamp() - self.world.clock.timestamp() + self.world.now
            error = record.error.code if record.error else ""
            lines.append(
                f"{seconds:9.2f}  #{record.seq} {record.outcome} {record.trigger.kind} attempt={record.attempt} "
                f"{record.reason or ''} {error} {_named(record.actions)}"
            )
        return "\n".join(sorted(lines))


_SAID: dict[tuple[str, str, Target], Verdict] = {}


def said(policy: str, rule: Rule, target: Target) -> Verdict:
    """What a key policy says, compared with the rule. Results are cached, because this is called very often."""
    question = (policy, rule.id, target)
    if question not in _SAID:
        _SAID[question] = judge_policy(policy, rule, target, "aws")
    return _SAID[question]


def _faults(key: Key, rule: Rule, target: Target) -> list[str]:
    found = []
    if key.state != "Enabled":
        found.append(f"{key.arn} is {key.state}")
    if rule.require.rotation and not key.rotation:
        found.append(f"{key.arn} does not rotate")
    elif rule.require.rotation and (key.rotation_days or 0) > rule.managed_key.rotation_days:
        found.append(f"{key.arn} rotates every {key.rotation_days} days")
    if not said(key.policy or "", rule, target).complete:
        found.append(f"the policy of {key.arn} is incomplete")
    return found


def _unclosed(records: list[Record], state: TargetState) -> list[str]:
    """P3: each REMEDIATING is closed exactly once, by a record of the same incident and attempt.

    APPLIED closes an attempt; the wait for ACTIVE after it ends with one more record of that attempt, or a new attempt.
    """
    broken = []
    attempts: dict[tuple[str | None, int | None], str] = {}
    for record in records:
        which = (record.incident_id, record.attempt)
        name = f"{record.record_id} ({record.outcome}, attempt {record.attempt} of {record.incident_id})"
        if record.outcome is Outcome.REMEDIATING:
            opened = [key for key, phase in attempts.items() if phase == "open"]
            if opened:
                broken.append(f"P3: {name} begins while {opened} is open")
            if which in attempts:
                broken.append(f"P3: {name} begins a second time")
            attempts[which] = "open"
        elif record.attempt is not None and record.outcome in CLOSING:
            phase = attempts.get(which)
            if phase == "open":
                attempts[which] = "applied" if record.outcome is Outcome.APPLIED else "closed"
            elif phase == "applied" and record.outcome is not Outcome.APPLIED:
                attempts[which] = "applied" if record.outcome is Outcome.FAILED else "closed"
            else:
                broken.append(f"P3: {name} closes what is {phase or 'not begun'}")
    held = state.incident.attempt if state.incident and state.incident.lease else None
    for (incident, attempt), phase in attempts.items():
        if phase == "open" and attempt != held:
            broken.append(f"P3: attempt {attempt} of {incident} is never closed")
    return broken


def _named(actions: tuple[Action, ...]) -> str:
    return ",".join(f"{action.name}{'!' + action.error if action.error else ''}" for action in actions)
