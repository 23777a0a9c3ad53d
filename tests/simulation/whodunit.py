"""An oracle of who made each violation, from what really happened in the world and not from what the guard knows.

At each record of a fresh observation it works out which changes were in effect then, and whether their events were on
the record. It does not know how the guard attributes anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor

from chalicelib.domain.keypolicy.judge import judge_policy
from chalicelib.domain.model import Subject, Target
from chalicelib.domain.policy import Rule
from chalicelib.domain.reasons import Outcome, Reason, Violation
from chalicelib.domain.stored import Attribution, Record, TargetState
from tests.simulation.fakes import Tables
from tests.simulation.world import GUARD_ROLE, LONGEST_STALENESS_SECONDS, Deed, Run, World

SUBJECTS = {
    Violation.NOT_KMS: Subject.SETTING,
    Violation.AWS_MANAGED_KEY: Subject.SETTING,
    Violation.KEY_NOT_ALLOWED: Subject.SETTING,
    Violation.KEY_DISABLED: Subject.KEY_STATE,
    Violation.KEY_PENDING_DELETION: Subject.KEY_STATE,
    Violation.KEY_ROTATION_OFF: Subject.KEY_ROTATION,
    Violation.KEY_POLICY_INCOMPLETE: Subject.KEY_POLICY,
    Violation.ALIAS_MOVED: Subject.ALIAS,
}
CLOCK_SECONDS = 2.0
"""The guard's clock is up to a second behind, and events have whole seconds."""


@dataclass(frozen=True)
class Look:
    """What a record was about: its id, when its run began, read and stored, and the changes that it may have seen.

    One change, unless the reads were stale; `nobody`: they may have shown what was there before it. `well_at` are the
    times at which the target was recorded as compliant.
    """

    record_id: str
    began: float
    at: float
    made: list[Deed]
    nobody: bool
    well_at: tuple[float, ...]


@dataclass
class Whodunit:
    """Collects what is wrong with attributions. `rule` is the rule of the only target."""

    world: World
    tables: Tables
    rule: Rule
    wrong: list[str] = field(default_factory=list)
    _well_at: list[float] = field(default_factory=list)
    _looks: dict[tuple[str, Violation], Look] = field(default_factory=dict)

    def committed(self, run: Run, after: TargetState, records: list[Record]) -> None:
        """Check the records of one transaction."""
        if after.incident is None and after.outcome in (Outcome.COMPLIANT, Outcome.REMEDIATED):
            self._well_at.append(self.world.now)
        for record in records:
            if record.reason == Reason.SETTLING or record.outcome is Outcome.FAILED:
                # It repeats what the incident says, or was observed again: the record does not tell which.
                for violation in record.violations:
                    self._looks.pop((record.incident_id or "", violation), None)
            if not _is_of_a_fresh_look(record):
                continue
            for attribution in record.attributions:
                if attribution.violation in SUBJECTS and attribution.violation in record.violations:
                    made, nobody = self._made(attribution.violation, run, after)
                    well = tuple(self._well_at)
                    look = Look(record.record_id, run.begun_at, self.world.now, made, nobody, well)
                    self._check(look, look.record_id, attribution)
                    if record.incident_id:
                        self._looks[record.incident_id, attribution.violation] = look

    def at_the_end(self, records: list[Record]) -> list[str]:
        """What is wrong now that all events have come: the last attribution of each violation of each incident."""
        last: dict[tuple[str, Violation], Attribution] = {}
        for record in records:
            for attribution in record.attributions:
                if record.incident_id:
                    last[record.incident_id, attribution.violation] = attribution
        of = {record.trigger.event_id: record.incident_id for record in records if record.change}
        for name, look in self._looks.items():
            # An event that comes during a later incident, or after eight more, is not joined to the former one.
            if all(of.get(deed.event_id) == name[0] for deed in look.made):
                self._check(look, f"{look.record_id}, and all after it,", last[name], of)
        return self.wrong

    def _check(
        self, look: Look, where: str, found: Attribution, own: dict[str | None, str | None] | None = None
    ) -> None:
        """`own` are the incidents of the events' own records, at the end."""
        made = look.made
        deeds = {deed.event_id: deed for deed in self.world.deeds}
        markers = {event_id for _, event_id in self.tables.markers}
        names = [event.event_id for event in found.events]
        for event in found.events:
            deed = deeds.get(event.event_id)
            if deed is None or deed.actor != event.actor or not self._violates(found.violation, deed):
                self.wrong.append(f"P5: {where} attributes {found.violation} to {event}, who did {deed}")
                return
        known = [deed for deed in made if deed.event_id in markers]
        if not known or len(known) < len(made):
            return  # whose event was lost, or has not come yet, may be unknown, or somebody's who did the same before
        if not names and (look.nobody or any(self._may_be_missed(deed, look) for deed in known)):
            return
        seconds = {floor(deed.at) for deed in known}
        until = look.at + CLOCK_SECONDS  # what is done while the guard reads may have been seen
        if not any(floor(deeds[name].at) in seconds or min(seconds) < deeds[name].at <= until for name in names):
            self.wrong.append(f"P5: {where} attributes {found.violation} to {found.events}, and it was {known}")
            return
        second = floor(deeds[names[0]].at)
        ties = {
            deed.event_id
            for deed in self.world.deeds
            if floor(deed.at) == second
            and deed.event_id in markers
            and self._violates(found.violation, deed)
            and deed.effect.resource == deeds[names[0]].effect.resource
            and deed.effect.after == deeds[names[0]].effect.after
            and deed.actor.arn != GUARD_ROLE
            and (own is None or own.get(deed.event_id) == own.get(names[0]))
        }
        if len(made) == 1 and second in seconds and set(names) != ties:
            self.wrong.append(f"P5: {where} attributes {found.violation} to {names}, and of that second were {ties}")

    def _may_be_missed(self, deed: Deed, look: Look) -> bool:
        """Whether the guard cannot tell a slow or stale read from a change whose event was lost.

        The change was made while the run read, was changed again, or came with a slower report that all is well.
        """
        if deed.at >= look.began or any(deed.at <= at <= look.at for at in look.well_at):
            return True
        what = (deed.target, deed.effect.subject, deed.effect.resource)
        until = look.at
        return any(
            deed.at < other.at <= until and (other.target, other.effect.subject, other.effect.resource) == what
            for other in self.world.deeds
        )

    def _made(self, violation: Violation, run: Run, after: TargetState) -> tuple[list[Deed], bool]:
        """The changes that made the violation and were in effect at some moment of what the run may have seen.

        And whether it may have seen what was there before any change.
        """
        made: list[Deed] = []
        nobody = False
        target = Target.parse(after.target)
        seen = run.of(target)
        since = until = seen.told_setting_at
        if SUBJECTS[violation] is not Subject.SETTING:
            since, until = min(since, run.begun_at) - LONGEST_STALENESS_SECONDS, seen.told_kms_at
        resources = {after.managed_key, after.setting.key_arn if after.setting else None}
        if SUBJECTS[violation] is Subject.SETTING:
            resources = {None}
        elif SUBJECTS[violation] is Subject.ALIAS:
            resources = {self.rule.managed_key.alias}
        for resource in resources:
            of_it = [
                deed
                for deed in self.world.deeds
                if deed.target == target
                and (deed.effect.subject, deed.effect.resource) == (SUBJECTS[violation], resource)
                and deed.at <= until
            ]
            nobody = nobody or not of_it or of_it[0].at >= since
            ends = (*(deed.at for deed in of_it[1:]), float("inf"))
            # Of an alias, any other target violates the rule: which one a stale read showed is not known.
            in_effect = [deed for deed, end in zip(of_it, ends, strict=False) if end >= since]
            nobody = nobody or (violation is Violation.ALIAS_MOVED and len(in_effect) > 1)
            for deed, end in zip(of_it, ends, strict=False):
                if violation is Violation.ALIAS_MOVED and deed.effect.after == after.managed_key:
                    continue
                if end >= since and self._violates(violation, deed):
                    made.append(deed)
        return made, nobody

    def _violates(self, violation: Violation, deed: Deed) -> bool:
        value = deed.effect.after or ""
        match violation:
            case Violation.NOT_KMS:
                fits = value == "NONE"
            case Violation.AWS_MANAGED_KEY | Violation.KEY_NOT_ALLOWED:
                fits = value.startswith("KMS ")
            case Violation.KEY_DISABLED:
                fits = value == "Disabled"
            case Violation.KEY_PENDING_DELETION:
                fits = value == "PendingDeletion"
            case Violation.KEY_ROTATION_OFF:
                fits = value == "off"
            case Violation.KEY_POLICY_INCOMPLETE:
                fits = not judge_policy(value, self.rule, deed.target, "aws").complete
            case _:
                fits = True
        return fits and deed.effect.subject is SUBJECTS[violation]


def _is_of_a_fresh_look(record: Record) -> bool:
    """Whether the record is about what the run has just observed; others repeat what the incident says."""
    if record.outcome is Outcome.DEFERRED:
        return record.reason in (Reason.BACKOFF, Reason.PAUSED)
    return record.outcome in (Outcome.REMEDIATING, Outcome.OBSERVED, Outcome.SUPPRESSED)
