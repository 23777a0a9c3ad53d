"""Event history: record the events that CloudTrail knows and that the guard did not receive.

EventBridge delivers at least once, and still events get lost: a rule is disabled, a function has no concurrency, a
dead-letter queue is purged. CloudTrail's Event history has every management event for ninety days, without a trail.
Once an hour this run reads it for each Region and compares it with the records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from datetime import datetime, timedelta
from functools import cache

from msgspec import Struct, field
from msgspec.structs import replace

from chalicelib.domain.echo import is_own
from chalicelib.domain.errors import AwsError, GuardError
from chalicelib.domain.eventhistory import (
    OLDEST,
    OnRecord,
    believable,
    could_be_received,
    finished,
    is_late,
    judged,
    news_of_delivery,
    next_look,
    read_events,
    records_since,
    remaining,
    was_missed,
)
from chalicelib.domain.events import CHANGE_EVENT
from chalicelib.domain.lookups import (
    EventHistory,
    HistoryEvent,
    HistoryPage,
    HistoryStore,
    Look,
    Progress,
    Recorded,
    Unconfirmed,
)
from chalicelib.domain.model import ChangeEvent, KeyEvent, Rejected, Target, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Problem, Reason
from chalicelib.domain.unconfirmed import (
    confirms,
    has_aws_id,
    still_waiting,
    to_look_up,
    unconfirmed,
)
from chalicelib.domain.unexplained import Search, read_found, searches
from chalicelib.loop.batch import SECONDS_FOR_ONE
from chalicelib.loop.commit import record_in_guard_chain
from chalicelib.loop.guard import Guard
from chalicelib.loop.history_notes import add_note, reject
from chalicelib.loop.reconcile import reconcile

SECONDS_BETWEEN_LOOKUPS = 1.0
"""Half of what CloudTrail allows per account and Region: the rest is for the account's own users."""

SECONDS_TO_RECORD = 100.0
"""A run requests no further page if fewer seconds are left: it must still record what it missed."""

MOST_LOOKUPS_BY_ID = 12
"""A run, of all Regions."""

MOST_SEARCHES = 8
"""Requests of a run, of all Regions, for what no event explains."""

BEHIND = timedelta(hours=3)
"""A Region that was not read for so long is behind."""

TRIGGER = Trigger(TriggerKind.HISTORY)


class HistoryReport(Struct):
    """The result of a run. `refused` maps a target to the code of AWS's refusal; `unreached` to why its run failed.

    `unchecked` are records that wait for their lookup by id, because too many were needed or AWS refused one;
    `never_checked` are those that waited for a day; `unsearched`, requests for what no event explains, beyond the most.
    `behind` are targets that were not read for three hours; not those whose reading is denied, except in the guard's
    own Region. `bugs` are unexpected exceptions.
    """

    targets: int = 0
    events: int = 0
    missed: int = 0
    unconfirmed: int = 0
    unchecked: int = 0
    never_checked: int = 0
    unsearched: int = 0
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
    detail |= {name: count for name in ("unchecked", "never_checked", "unsearched") if (count := getattr(report, name))}
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
        self._by_id_left, self._searches_left = MOST_LOOKUPS_BY_ID, MOST_SEARCHES
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
            self._search(target)
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
        found, rest = self._pages(target, look)
        events = read_events(target, found)
        self.report.events += len(events)
        records = self._store.recorded(name, records_since(look))
        progress = self._compare(target, former, events, records)
        if progress is None or rest is not None:
            self.report.unfinished.append(name)
        if progress is None:  # the next run reads these pages again, and finds on the record what this one recorded
            self._store.keep(name, replace(former, tried_at=guard.clock.now()))
            return former
        if reason := news_of_delivery(progress, records, was_deaf=former.deaf_since is not None):
            since = progress.deaf_since
            add_note(guard, target, TRIGGER, reason, {"since": f"{since:%Y-%m-%dT%H:%M:%SZ}"} if since else {})
        refuted, doubtful = unconfirmed(progress, look, rest, events, records)
        progress = self._look_up(target, progress, to_look_up(progress, doubtful, records), refuted, look.until)
        if not self._note_unconfirmed(target, refuted):  # the next run finds again what this one has not noted
            self.report.unfinished.append(name)
            self._store.keep(name, replace(former, tried_at=guard.clock.now()))
            return former
        progress = finished(progress, look) if rest is None else replace(progress, look=rest)
        progress = replace(progress, tried_at=guard.clock.now())
        self._store.keep(name, progress)
        return progress

    def _pages(self, target: Target, look: Look) -> tuple[list[HistoryEvent], Look | None]:
        """Read page by page until the last one, or until time is up or AWS refuses.

        Returns the events, newest first, and what is left of the look: None after the last page. A token is not stored,
        because it may expire: the next run reads what is older than the last event of this one. Raises AwsError if AWS
        refuses the first request.
        """
        found: list[HistoryEvent] = []
        until, token = look.down_to or look.until, None
        while self._seconds_left() >= SECONDS_TO_RECORD:
            try:
                page = self._lookup(target, ("EventName", CHANGE_EVENT), look.since, until, token)
            except AwsError as error:
                if not found:
                    raise
                self.report.refused[str(target)] = error.code
                break
            found += page.events
            token = page.token
            if token is None:
                return found, None
        return found, remaining(look, found[-1]) if found else look

    def _lookup(
        self, target: Target, attribute: tuple[str, str], since: datetime, until: datetime, token: str | None = None
    ) -> HistoryPage:
        """Send one request, a second after the one before."""
        if self.report.lookups:
            self._guard.sleep(SECONDS_BETWEEN_LOOKUPS)
        self.report.lookups += 1
        return self._histories(target).lookup(attribute, since, until, token)

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
                reject(guard, event)
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
                if could_be_received(event, state().first_seen):
                    progress = judged(progress, event, received=False, by_id=None, expected=expected)
            elif event.addendum_id:  # its original is on the record
                reconcile(guard, target, event.trigger, event)
        return progress

    def _audited(self, target: Target, changes: Sequence[ChangeEvent], known: OnRecord) -> Set[str]:
        """The events that were counted, or whose records are older than those that were read."""
        unknown = [each for each in changes if known.match(each, ids_are_equal=True) is None]
        ids = sorted({each.trigger.event_id for each in unknown if each.trigger.event_id})
        return self._store.audited(str(target), ids) if ids else frozenset()

    def _is_counted_or_own(self, target: Target, event: ChangeEvent | KeyEvent) -> bool | None:
        """Whether the event was received and only counted; None if the guard itself made the call."""
        run = self._guard.run(target, event.trigger, event)
        known = self._guard.known(run)
        return None if is_own(run, known.state) else known.audited

    # --- what no event explains ------------------------------------------------------------------------------------

    def _search(self, target: Target) -> None:
        """Record the missed events of the calls that made what no event explains."""
        guard = self._guard
        for search in searches(guard.store.load(str(target)).state, guard.clock.now()):
            events = read_found(target, search, self._found(target, search))
            recorded = self._store.audited(str(target), [each.trigger.event_id or "" for each in events])
            for event in events:
                if event.trigger.event_id in recorded:
                    continue
                if self._seconds_left() < SECONDS_FOR_ONE:
                    return
                if self._is_counted_or_own(target, event) is False:
                    result = reconcile(guard, target, event.trigger, event)
                    self.report.missed += result.reason != Reason.NOT_OURS

    def _found(self, target: Target, search: Search) -> list[HistoryEvent]:
        """The events of a search, newest first, as far as requests are left for them."""
        found: list[HistoryEvent] = []
        token: str | None = None
        while self._searches_left and self._seconds_left() >= SECONDS_FOR_ONE:
            self._searches_left -= 1
            page = self._lookup(target, ("EventName", search.event_name), search.since, search.until, token)
            found += page.events
            token = page.token
            if token is None:
                return found
        self.report.unsearched += 1
        return found

    # --- unconfirmed events ----------------------------------------------------------------------------------------

    def _look_up(
        self,
        target: Target,
        progress: Progress,
        waiting: Sequence[Unconfirmed],
        refuted: list[Unconfirmed],
        until: datetime,
    ) -> Progress:
        """Look records up by id, and add to `refuted` those whose event there is not.

        Before any id was seen to be equal on both ways, that shows nothing. Return the progress with those left.
        """
        unchecked = []
        for each in waiting:
            if not has_aws_id(each) or self._by_id_left == 0 or self._seconds_left() < SECONDS_FOR_ONE:
                unchecked.append(each)
                continue
            self._by_id_left -= 1
            attribute = ("EventId", each.record.trigger.event_id or "")
            try:
                shown = self._lookup(target, attribute, until - OLDEST, until).events
            except AwsError:
                unchecked.append(replace(each, lookups=each.lookups + 1))
                continue
            if any(confirms(target, each.record, event) for event in shown):
                progress = replace(progress, matched_by_id=progress.matched_by_id + 1)
            elif progress.matched_by_id > 0:
                refuted.append(each)
            else:
                unchecked.append(replace(each, lookups=each.lookups + 1))
        left = still_waiting(unchecked, self._guard.clock.now())
        self.report.unchecked += len(left)
        self.report.never_checked += len(unchecked) - len(left)
        return replace(progress, to_look_up=left)

    def _note_unconfirmed(self, target: Target, refuted: Iterable[Unconfirmed]) -> bool:
        """Note each record of an event that Event history does not have. Return whether there was time for all."""
        for each in refuted:
            if self._seconds_left() < SECONDS_FOR_ONE:
                return False
            self.report.unconfirmed += 1
            record = each.record
            detail: dict[str, object] = {"record_id": record.record_id, "event_id": record.trigger.event_id}
            trigger = replace(record.trigger, kind=TriggerKind.HISTORY)
            add_note(self._guard, target, trigger, Reason.UNCONFIRMED, detail, each)
        return True
