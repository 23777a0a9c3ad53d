"""Event history: record the events that CloudTrail knows and that the guard did not receive.

EventBridge delivers at least once, and still events get lost: a rule is disabled, a function has no concurrency, a
dead-letter queue is purged. CloudTrail's Event history has every management event for ninety days, without a trail.
Once an hour this run reads it for each Region and compares it with the records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from datetime import timedelta
from functools import cache

from msgspec import Struct, field
from msgspec.structs import replace

from chalicelib.auditlog.draft import Draft
from chalicelib.domain.echo import is_own
from chalicelib.domain.errors import AwsError, GuardError
from chalicelib.domain.eventhistory import (
    OLDEST,
    OnRecord,
    Unconfirmed,
    believable,
    confirms,
    could_be_received,
    finished,
    is_late,
    judged,
    news_of_delivery,
    next_look,
    read_events,
    records_since,
    unconfirmed,
    was_missed,
    without_trust,
)
from chalicelib.domain.events import CHANGE_EVENT
from chalicelib.domain.lookups import EventHistory, HistoryEvent, HistoryPage, HistoryStore, Look, Progress, Recorded
from chalicelib.domain.model import ChangeEvent, Rejected, Target, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Problem, Reason
from chalicelib.loop.batch import SECONDS_FOR_ONE
from chalicelib.loop.commit import record_in_guard_chain
from chalicelib.loop.guard import Guard
from chalicelib.loop.reconcile import reconcile

SECONDS_BETWEEN_LOOKUPS = 1.0
"""Half of what CloudTrail allows per account and Region: the rest is for the account's own users."""

SECONDS_TO_RECORD = 100.0
"""A run requests no further page if fewer seconds are left: it must still record what it missed."""

MOST_LOOKUPS_BY_ID = 20

BEHIND = timedelta(hours=3)
"""A Region that was not read for so long is behind."""

TRIGGER = Trigger(TriggerKind.HISTORY)


class HistoryReport(Struct):
    """The result of a run. `refused` maps a target to the code of AWS's refusal; `unreached` to why its run failed.

    `unchecked` are records that were not compared: a lookup was refused, or too many were needed. `behind` are targets
    that were not read for three hours; not those whose reading is denied, except in the guard's own Region. `bugs` are
    unexpected exceptions.
    """

    targets: int = 0
    events: int = 0
    missed: int = 0
    unconfirmed: int = 0
    unchecked: int = 0
    lookups: int = 0
    deaf: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    unreached: dict[str, Problem] = field(default_factory=dict)
    bugs: list[Exception] = field(default_factory=list)


def event_history(
    guard: Guard,
    regions: Callable[[], Iterable[str]],
    histories: Callable[[Target], EventHistory],
    store: HistoryStore,
    seconds_left: Callable[[], float],
    *,
    home_region: str,
) -> HistoryReport:
    """Read Event history of every enabled Region, those first on which no run spent time for longest.

    `home_region` is the guard's own, which receives events if it works at all.

    One Region's refusal or failure does not stop the others. The run's record in the chain `guard` names both.
    """
    targets = [Target(guard.account, region) for region in regions()]
    progress = store.progress([str(target) for target in targets])
    run = _Run(guard, histories, store, seconds_left, home_region)
    for target in sorted(targets, key=lambda target: _behind(progress, target)):
        run.read(target, believable(progress.get(str(target), Progress()), guard.clock.now()))
    report = run.report
    detail: dict[str, object] = {
        "targets": report.targets,
        "events": report.events,
        "missed": report.missed,
        "unconfirmed": report.unconfirmed,
        "refused": {**report.refused, **{name: problem.code for name, problem in report.unreached.items()}},
        "unfinished": report.unfinished,
    }
    if report.unchecked:
        detail["unchecked"] = report.unchecked
    record_in_guard_chain(guard, Outcome.IGNORED, TRIGGER, reason=Reason.EVENT_HISTORY, detail=detail)
    return report


def _behind(progress: Mapping[str, Progress], target: Target) -> tuple[float, Target]:
    tried_at = progress.get(str(target), Progress()).tried_at
    return (tried_at.timestamp() if tried_at else 0.0, target)


class _Run:
    """One invocation: what it may still send, and what it found."""

    def __init__(
        self,
        guard: Guard,
        histories: Callable[[Target], EventHistory],
        store: HistoryStore,
        seconds_left: Callable[[], float],
        home_region: str,
    ) -> None:
        self._guard = guard
        self._histories = histories
        self._store = store
        self._seconds_left = seconds_left
        self._home_region = home_region
        self._by_id_left = MOST_LOOKUPS_BY_ID
        self.report = HistoryReport()

    def read(self, target: Target, progress: Progress) -> None:
        """Read one target, and add the result to the report."""
        report, name = self.report, str(target)
        report.targets += 1
        try:
            resumes = progress.look is not None
            progress = self._look(target, progress)
            if resumes and progress.look is None:
                progress = self._look(target, progress)
        except GuardError as error:
            if isinstance(error, AwsError) and error.operation.endswith("LookupEvents"):
                report.refused[name] = error.code
            else:
                report.unreached[name] = error.problem
        except Exception as error:
            report.unreached[name] = Problem(Reason.INTERNAL_ERROR, type(error).__name__)
            report.bugs.append(error)
        if progress.deaf_since is not None:
            report.deaf.append(name)
        is_denied = "AccessDenied" in report.refused.get(name, "") and target.region != self._home_region
        if not is_denied and (progress.until is None or self._guard.clock.now() - progress.until > BEHIND):
            report.behind.append(name)

    # --- one look --------------------------------------------------------------------------------------------------

    def _look(self, target: Target, former: Progress) -> Progress:
        """Read the pages of a look and process their events. Return the progress, which is stored."""
        guard, name = self._guard, str(target)
        if self._seconds_left() < SECONDS_TO_RECORD:
            self.report.unfinished.append(name)
            return former
        look = next_look(former, guard.clock.now())
        found, look, whole = self._pages(target, look)
        events = read_events(target, found)
        self.report.events += len(events)
        records = self._store.recorded(name, records_since(look))
        progress = self._compare(target, former, events, records)
        if progress is None or not whole:
            self.report.unfinished.append(name)
        if progress is None:  # the next run reads these pages again, and finds on the record what this one recorded
            self._store.keep(name, replace(former, tried_at=guard.clock.now()))
            return former
        if reason := news_of_delivery(progress, records, was_deaf=former.deaf_since is not None):
            since = progress.deaf_since
            _note(guard, target, TRIGGER, reason, {"since": f"{since:%Y-%m-%dT%H:%M:%SZ}"} if since else {})
        if whole:
            if not look.resumed:
                self._confirm(target, progress, look, events, records)
            progress = finished(progress, look)
        else:
            progress = replace(progress, look=look)
        progress = replace(progress, tried_at=guard.clock.now())
        self._store.keep(name, progress)
        return progress

    def _pages(self, target: Target, look: Look) -> tuple[list[HistoryEvent], Look, bool]:
        """Read page by page until the last one, or until time is up.

        Returns the events, the look with the next page's token, and whether that was the last page. If AWS refuses a
        stored token, the look starts anew. Raises AwsError if AWS refuses the first request.
        """
        found: list[HistoryEvent] = []
        while self._seconds_left() >= SECONDS_TO_RECORD:
            try:
                page = self._lookup(target, ("EventName", CHANGE_EVENT), look)
            except AwsError as error:
                if found:
                    self.report.refused[str(target)] = error.code
                    break
                if look.token is None or "NextToken" not in error.code:
                    raise
                look = replace(look, token=None, resumed=False)
                continue
            found += page.events
            look = replace(look, token=page.token)
            if page.token is None:
                return found, look, True
        return found, look, False

    def _lookup(self, target: Target, attribute: tuple[str, str], look: Look) -> HistoryPage:
        """Send one request, a second after the one before."""
        if self.report.lookups:
            self._guard.sleep(SECONDS_BETWEEN_LOOKUPS)
        self.report.lookups += 1
        return self._histories(target).lookup(attribute, look.since, look.until, look.token)

    # --- missed events ---------------------------------------------------------------------------------------------

    def _compare(
        self, target: Target, progress: Progress, events: Sequence[ChangeEvent | Rejected], records: Sequence[Recorded]
    ) -> Progress | None:
        """Record each event that was missed. Return the progress; None if there was not enough time."""
        guard, known = self._guard, OnRecord(records)
        expected = target.region == self._home_region
        state = cache(lambda: guard.store.load(str(target)).state)
        audited = self._audited(target, [event for event in events if isinstance(event, ChangeEvent)], known)
        for event in events:
            if isinstance(event, Rejected):
                _reject(guard, event)
                continue
            match = known.match(event, ids_are_equal=progress.matched_by_id > 0)
            if match is not None:
                received = not was_missed(match)
                if not match.own and (received or could_be_received(event, state().first_seen)):
                    progress = judged(progress, event, received=received, by_id=match.by_id, expected=expected)
                continue
            if not is_late(event, guard.clock.now()):
                continue
            if self._seconds_left() < SECONDS_FOR_ONE:
                return None
            if event.trigger.event_id in audited:
                is_known = None if is_own(guard.run(target, event.trigger, event), state()) else True
            else:
                is_known = self._is_counted_or_own(target, event)
            if is_known is None:
                continue
            if not is_known:
                reconcile(guard, target, event.trigger, event)
                self.report.missed += 1
            elif event.addendum_id:  # its original is on the record, which does not show that the addendum was received
                reconcile(guard, target, event.trigger, event)
                continue
            if is_known or could_be_received(event, state().first_seen):
                progress = judged(progress, event, received=is_known, by_id=None, expected=expected)
        return progress

    def _audited(self, target: Target, changes: Sequence[ChangeEvent], known: OnRecord) -> Set[str]:
        """The events that were counted, or whose records are older than those that were read."""
        unknown = [each for each in changes if known.match(each, ids_are_equal=True) is None]
        ids = sorted({each.trigger.event_id for each in unknown if each.trigger.event_id})
        return self._store.audited(str(target), ids) if ids else frozenset()

    def _is_counted_or_own(self, target: Target, event: ChangeEvent) -> bool | None:
        """Whether the event was received and only counted; None if the guard itself made the call."""
        run = self._guard.run(target, event.trigger, event)
        known = self._guard.known(run)
        return None if is_own(run, known.state) else known.audited

    # --- unconfirmed events ----------------------------------------------------------------------------------------

    def _confirm(
        self,
        target: Target,
        progress: Progress,
        look: Look,
        events: Sequence[ChangeEvent | Rejected],
        records: Sequence[Recorded],
    ) -> None:
        """Note each record of an event that Event history does not have."""
        refuted, doubtful = unconfirmed(progress, look, events, records, look.until)
        for each in doubtful:
            if self._by_id_left == 0 or self._seconds_left() < SECONDS_FOR_ONE:
                self.report.unchecked += 1
                continue
            self._by_id_left -= 1
            whole = Look(look.until - OLDEST, look.until)
            try:
                shown = self._lookup(target, ("EventId", each.record.trigger.event_id or ""), whole).events
            except AwsError:
                self.report.unchecked += 1
                continue
            if not any(confirms(target, each.record, event) for event in shown):
                refuted.append(each)
        for each in refuted:
            self.report.unconfirmed += 1
            record = each.record
            detail: dict[str, object] = {"record_id": record.record_id, "event_id": record.trigger.event_id}
            trigger = replace(record.trigger, kind=TriggerKind.HISTORY)
            _note(self._guard, target, trigger, Reason.UNCONFIRMED, detail, each)


def _note(
    guard: Guard,
    target: Target,
    trigger: Trigger,
    reason: Reason,
    detail: dict[str, object],
    found: Unconfirmed | None = None,
) -> None:
    """Append a note to the target's chain. Of an unconfirmed event, also end the suppressions that rest on it."""

    def store() -> None:
        state = guard.store.load(str(target)).state
        now = guard.clock.now()
        after, closed = without_trust(state, found, now) if found else (state, [])
        draft = Draft(state, replace(after, version=state.version + 1))
        policy = guard.policy.digest
        draft.add(now, Outcome.IGNORED, trigger, reason=reason, detail=detail, policy_digest=policy)
        for each in closed:
            ended = Reason.BREAK_GLASS_ENDED
            draft.add(now, Outcome.IGNORED, trigger, reason=ended, suppression=each, policy_digest=policy)
        guard.store.commit(draft.before, draft.after, draft.records)
        for record, _, _ in draft.records:
            guard.emit(record)

    guard.until_stored(store, f"{target}: a note about Event history")


def _reject(guard: Guard, rejected: Rejected) -> None:
    """Record an event that cannot be acted on in the guard's own chain, once."""
    record_in_guard_chain(
        guard,
        Outcome.FAILED,
        Trigger(TriggerKind.HISTORY, event_id=rejected.event_id),
        reason=rejected.reason,
        error=Problem(rejected.reason, rejected.detail, retryable=False),
    )
