"""One run's look at a target: what it reads, in as few rounds as may be, and what the break-glass tags come to.

What a lost worker may have left in AWS, and a break-glass that was opened, refused or ended, are put down at once, so
that whatever follows the look starts from a state that knows of them.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from chalicelib.auditlog.draft import Draft
from chalicelib.domain.breakglass import Weighed, principals_to_read, weigh
from chalicelib.domain.errors import AwsError
from chalicelib.domain.judge import judge
from chalicelib.domain.keychoice import adoption
from chalicelib.domain.model import NONCE_TAG_KEY, EncryptionType, KeyEvent, Setting, TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Rule
from chalicelib.domain.ports import Loaded, Reach
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.domain.stored import Suppression, TargetState
from chalicelib.loop.journal import Journal
from chalicelib.loop.observe import Glance, glance, glance_reads, observe

DEEP_EVERY = timedelta(hours=24)
INTENT_AGE = timedelta(hours=1)
"""An intent is due long before it is this old, so a key made earlier cannot be its key."""


class Look:
    """The reads of one run. `refusal` is the break-glass that stands there and does not count, once it was weighed."""

    def __init__(self, journal: Journal, reach: Reach, rule: Rule) -> None:
        self.guard = journal.guard
        self.target = journal.target
        self.journal = journal
        self.reach = reach
        self.rule = rule
        self.refusal: Suppression | None = None

    def first(self) -> tuple[Loaded, Glance]:
        """The state and the first round of reads, together where nothing will be closed by them."""
        if self.journal.trigger.kind in (TriggerKind.TICK, TriggerKind.OPERATOR):
            loaded = self.journal.load()
            due = loaded.state.due
            if self.journal.trigger.kind is TriggerKind.TICK and (due is None or due > self.guard.clock.now()):
                return loaded, Glance(loaded.state.setting or Setting(EncryptionType.NONE), {})
            return loaded, self.glance()
        reads = glance_reads(self.reach, self.rule)
        loaded, *answers = self.guard.gather([self.journal.load, *reads])
        if loaded.state.incident:
            # What was read beside the state may be older than it: an incident is closed only on what was read after.
            answers = self.guard.gather(reads)
        return loaded, glance(self.rule, answers)

    def glance(self) -> Glance:
        """The first round of reads."""
        return glance(self.rule, self.guard.gather(glance_reads(self.reach, self.rule)))

    def whole(self, state: TargetState, first: Glance) -> Observation:
        """The observation that a run decides on: as deep as it has to be, and deep wherever anything is found."""
        now = self.guard.clock.now()
        if state.intent:
            state = self._search_for_intent(state, now)
        deep = self._wants_depth(state, first, now)
        seen = self.observed(state, first, deep=deep)
        if not deep and (judge(self.target, self.rule, state, seen) or adoption(state, seen, self.rule)):
            seen = self.observed(state, first, deep=True)
        return seen

    def observed(self, state: TargetState, first: Glance, *, deep: bool) -> Observation:
        """The second round of reads; nothing is written."""
        now = self.guard.clock.now()
        ask_use = self.journal.trigger.kind in (TriggerKind.SWEEP, TriggerKind.TICK) and not state.ever_used
        seen = observe(self.guard.gather, self.reach, self.rule, state, first, now, deep=deep, ask_use=ask_use)
        self.journal.seen = seen
        return seen

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
        found = self.reach.keys.find_by_tag(NONCE_TAG_KEY, intent.nonce, intent.due - INTENT_AGE)
        if found:
            after = replace(state, keys_made=(*state.keys_made, found), intent=None)
        elif now >= intent.due:
            after = replace(state, intent=None)
        else:
            return state
        return self.journal.save(state, after)

    def break_glass(self, seen: Observation) -> Suppression | None:
        """The break-glass in force, if any. What was opened, refused or ended goes on the record at once."""
        state = self.journal.state()
        if not seen.deep:
            return None
        weighed = self.weighed(state, seen)
        self.refusal = weighed.refusal
        if weighed.suppressions != state.suppressions or weighed.notes:
            now = self.guard.clock.now()
            draft = Draft(state)
            for reason, suppression in weighed.notes:
                outcome = Outcome.SUPPRESSED if reason is Reason.BREAK_GLASS_OPENED else Outcome.IGNORED
                self.journal.add(draft, outcome, now, reason=reason, suppression=suppression)
            draft.set(suppressions=weighed.suppressions, watch=now if weighed.is_open else None)
            self.journal.note(draft)
        return weighed.in_force

    def weighed(self, state: TargetState, seen: Observation) -> Weighed:
        """What the tags come to; nothing is written."""
        change = self.journal.change if self.journal.owns_drift(seen) else None
        event = self.journal.event
        return weigh(
            self.target,
            self.rule,
            state,
            seen,
            self.guard.clock.now(),
            principal_tags={arn: self._tags_of(arn) for arn in principals_to_read(self.rule, state, seen, change)},
            change=change,
            tagging=event if isinstance(event, KeyEvent) else None,
            partition=self.guard.partition,
        )

    def _tags_of(self, principal_arn: str) -> tuple[tuple[str, str], ...] | None:
        try:
            return self.reach.principals.tags(principal_arn)
        except AwsError:
            return None
