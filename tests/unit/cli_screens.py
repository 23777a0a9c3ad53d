"""What `status`, `history`, `incidents`, `check` and `break-glass list` print, for one made-up guard, at three widths.

`python -m tests.unit.cli_screens` writes them to `tests/unit/screens/` again. Look at them before you commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from chalicelib.cli import cli
from chalicelib.cli.reconcile import print_judgements
from chalicelib.domain.model import Actor, EncryptionStatus, EncryptionType, Setting, Target, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Problem, Reason, Violation
from chalicelib.domain.stored import Cause, GuardState, Incident, Pause, Phase, Suppression, TargetState
from chalicelib.operators.context import Identity, Operator
from chalicelib.operators.judgement import Judgement
from tests.unit.logbook import Logbook

FOLDER = Path(__file__).with_name("screens")
WIDTHS = (80, 120, 200)
VERBS: dict[str, tuple[str, ...]] = {
    "status": ("status",),
    "history": ("history",),
    "incidents": ("incidents",),
    "break-glass-list": ("break-glass", "list", "--all"),
}
ACCOUNT = "111122223333"
NOW = datetime(2026, 11, 21, 3, 7, 12, tzinfo=UTC)
NONE = Setting(EncryptionType.NONE)
JDOE = Actor(f"arn:aws:iam::{ACCOUNT}:role/PlatformAdmin", session="jdoe")
ALICE = Actor(f"arn:aws:iam::{ACCOUNT}:user/Alice")
SSO = Actor(
    f"arn:aws:iam::{ACCOUNT}:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Admin_599c9e90e350d2ff",
    session="jane.doe@example.com",
)
NINA = Actor(f"arn:aws:iam::{ACCOUNT}:role/SecurityBreakGlass", session="nina")


def key(region: str, digit: str = "1") -> Setting:
    arn = f"arn:aws:kms:{region}:{ACCOUNT}:key/{digit * 8}-12ab-34cd-56ef-1234567890ab"
    return Setting(EncryptionType.KMS, arn, EncryptionStatus.ACTIVE)


class Log(Logbook):
    """The log with the reads that list the targets."""

    def states(self) -> Iterator[TargetState]:
        yield from self.present.values()


class OnStage(Operator):
    """An operator whose tables are a log in memory, and whose clock stands still."""

    def __init__(self, log: Any) -> None:
        super().__init__()
        self.store = log
        self.identity = Identity(ACCOUNT, "aws", JDOE.arn, "AROA:jdoe")

    def now(self) -> datetime:
        return NOW

    def read_histories(self, targets: Sequence[str]) -> dict[str, Any]:
        return {}


def guard_log() -> Log:
    """Five targets: one failed, one suppressed, one paused for, one compliant, one that nobody uses."""
    log = Log()
    minute = timedelta(minutes=1)

    def remediated(region: str, at: datetime, actor: Actor, violation: Violation, after: Setting) -> None:
        target = f"{ACCOUNT}/{region}"
        cause = Cause(f"event-{at:%d%H%M}", at - timedelta(seconds=4), actor)
        seq = log.ends.get(target, (0, ""))[0] + 1
        about: dict[str, Any] = {
            "incident_id": f"{target}#{seq}",
            "cause": cause,
            "violations": (violation,),
            "rule": "baseline",
            "before": NONE if violation is Violation.NOT_KMS else after,
        }
        trigger = Trigger(TriggerKind.CHANGE, cause.event_id, "PutEncryptionConfig", cause.at, actor=actor)
        log.add(target, at, Outcome.REMEDIATING, trigger, **about)
        log.add(
            target, at + timedelta(seconds=5), Outcome.REMEDIATED, trigger, **about, after=after, exposure_seconds=9.25
        )
        log.present[target] = TargetState(
            target, outcome=Outcome.REMEDIATED, setting=after, good_at=at + timedelta(seconds=5), rule="baseline"
        )

    def opened(
        region: str, at: datetime, outcome: Outcome, reason: str | None, actor: Actor | None, *violations: Violation
    ) -> Incident:
        target = f"{ACCOUNT}/{region}"
        cause = Cause(f"event-{at:%d%H%M}", at - timedelta(seconds=4), actor) if actor else None
        seq = log.ends.get(target, (0, ""))[0] + 1
        trigger = Trigger(TriggerKind.CHANGE, "event-1", "PutEncryptionConfig", at, actor=actor)
        glass = next((one for one in log.present.get(target, TargetState(target)).suppressions), None)
        log.add(
            target,
            at,
            outcome,
            trigger if actor else Trigger(TriggerKind.SWEEP),
            incident_id=f"{target}#{seq}",
            cause=cause,
            violations=violations,
            reason=reason,
            rule="baseline",
            before=NONE,
            suppression=glass if outcome is Outcome.SUPPRESSED else None,
        )
        incident = Incident(f"{target}#{seq}", at, NONE, Phase.OPEN, violations, cause=cause, due=NOW + minute)
        log.present[target] = TargetState(
            target,
            outcome=outcome,
            reason=reason,
            violations=violations,
            setting=NONE,
            incident=incident,
            good_at=at - 9 * minute if actor else None,
            suppressions=log.present.get(target, TargetState(target)).suppressions,
        )
        return incident

    glass = Suppression(
        key("us-west-2").key_arn or "",
        "2026-11-21T06:00:00Z INC-2231 vendor trace export",
        "INC-2231 vendor trace export",
        NOW - 66 * minute,
        NOW + 180 * minute,
        NOW + 180 * minute,
        NINA,
    )
    over = Suppression(
        glass.carrier,
        "2026-11-21T01:00:00Z INC-2230",
        "INC-2230",
        NOW - 300 * minute,
        NOW - 127 * minute,
        NOW - 127 * minute,
        NINA,
    )
    refused = Suppression(
        ALICE.arn, "2026-11-20T01:00:00Z", "", NOW - 400 * minute, None, None, refused="CARRIER_NOT_ALLOWED"
    )
    there = f"{ACCOUNT}/us-west-2"
    remediated("us-west-2", NOW - timedelta(days=2), ALICE, Violation.NOT_KMS, key("us-west-2"))
    sweep = Trigger(TriggerKind.SWEEP)
    noted = {"rule": "baseline"}
    log.add(
        there, refused.first_seen, Outcome.IGNORED, sweep, reason="BREAK_GLASS_REFUSED", suppression=refused, **noted
    )
    log.add(there, glass.first_seen, Outcome.SUPPRESSED, sweep, reason="BREAK_GLASS_OPENED", suppression=glass, **noted)
    log.present[there] = TargetState(there, suppressions=(glass, over))
    remediated("us-east-1", NOW - timedelta(days=1), JDOE, Violation.KEY_POLICY_INCOMPLETE, key("us-east-1", "2"))
    opened("us-west-2", NOW - 62 * minute, Outcome.SUPPRESSED, "BREAK_GLASS", JDOE, Violation.NOT_KMS)
    opened("ap-southeast-2", NOW - 45 * minute, Outcome.FAILED, "KEY_NOT_OURS", SSO, Violation.NOT_KMS)
    opened("eu-central-1", NOW - 7 * minute, Outcome.DEFERRED, "PAUSED", None, Violation.KEY_NOT_ALLOWED)
    log.add(f"{ACCOUNT}/eu-west-1", NOW - 3 * minute, Outcome.COMPLIANT, sweep, rule="baseline", after=key("eu-west-1"))
    idle = f"{ACCOUNT}/eu-north-1"
    log.present[idle] = TargetState(idle, outcome=Outcome.IGNORED, reason="IDLE", setting=NONE)
    log.guard = GuardState(swept_at=NOW - 40 * minute, paused=Pause(NOW - 8 * minute, JDOE.arn, "INC-2232"))
    return log


def judgements() -> list[Judgement]:
    """A target of each kind."""

    def judged(region: str, outcome: Outcome, setting: Setting, **more: Any) -> Judgement:
        return Judgement(Target(ACCOUNT, region), outcome, outcome is Outcome.COMPLIANT, setting=setting, **more)

    blocked = Problem(Reason.KEY_NOT_OURS, f"the guard did not make {key('ap-southeast-2').key_arn}: hand the key over")
    return [
        judged("ap-southeast-2", Outcome.FAILED, NONE, reason="KEY_NOT_OURS", violations=("NOT_KMS",), blocked=blocked),
        judged(
            "eu-north-1", Outcome.IGNORED, NONE, reason="IDLE", message="never encrypted, and no traces in six hours"
        ),
        judged("us-east-1", Outcome.COMPLIANT, key("us-east-1")),
        judged("us-west-2", Outcome.SUPPRESSED, NONE, reason="BREAK_GLASS", violations=("NOT_KMS", "KEY_ROTATION_OFF")),
    ]


@click.command()
def check_verb() -> None:
    """What `check` prints of the judgements above."""
    print_judgements("table", judgements())


def screen(name: str, width: int) -> str:
    """What a terminal of this width shows: stdout and, after it, stderr."""
    command, words = (check_verb, ()) if name == "check" else (cli, VERBS[name])
    environment = {"COLUMNS": str(width), "NO_COLOR": "1"}
    result = CliRunner().invoke(command, words, obj=OnStage(guard_log()), env=environment)
    assert result.exit_code == 0, result.output
    return f"{result.stdout}\n{result.stderr}"


def every() -> Iterator[tuple[Path, str]]:
    """Each file with what belongs into it."""
    for name in (*VERBS, "check"):
        for width in WIDTHS:
            yield FOLDER / f"{name}-{width}.txt", screen(name, width)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in every():
        file.write_text(text, "utf-8")
