"""Verbs that judge: `check` and `explain`, which only read, and `reconcile`, which can remediate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import click

from chalicelib.cli.options import TARGET, common_options
from chalicelib.cli.output import Progress, Table, emit, print_table
from chalicelib.cli.session import LEASE_SECONDS, Operator, pass_operator, say
from chalicelib.domain.model import Target, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Problem, Reason

if TYPE_CHECKING:
    from chalicelib.domain.model import ChangeEvent, KeyEvent, Setting
    from chalicelib.domain.steps import Step
    from chalicelib.loop.dry_run import Assessment
    from chalicelib.loop.guard import Guard

KEY_DOLLARS_A_MONTH = 1
"""The approximate price of a customer managed key; rotation adds to it. https://aws.amazon.com/kms/pricing/"""

READERS_NOTE = (
    "Where the guard creates a key, readers of traces need kms:Decrypt on it. The key policy allows it to the rule's "
    "trace_readers. Everyone else can no longer read the traces stored from then on."
)
ACCEPTABLE = {Outcome.COMPLIANT: True, Outcome.IGNORED: None}


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judgement of a target. `compliant` is None where no rule applies to it."""

    target: Target
    outcome: Outcome
    compliant: bool | None
    rule: str | None = None
    mode: str | None = None
    reason: str | None = None
    message: str | None = None
    violations: tuple[str, ...] = ()
    setting: Setting | None = None
    managed_key: str | None = None
    plan: tuple[Step, ...] = ()
    blocked: Problem | None = None

    @property
    def new_keys(self) -> int:
        """How many customer managed keys the plan creates."""
        return sum(step.name.value == "CreateKey" for step in self.plan)

    def to_json(self) -> dict[str, Any]:
        """The fields by their names, with the target's account and Region."""
        import msgspec

        document: dict[str, Any] = msgspec.to_builtins(self)
        account, region = self.target.account, self.target.region
        return {**document, "target": str(self.target), "account": account, "region": region, "new_keys": self.new_keys}


def judgement_of(assessment: Assessment, partition: str) -> Judgement:
    """Convert an assessment, with the plan that enforcing would follow even where remediation is suspended."""
    from chalicelib.domain.steps import plan

    decision, rule, seen = assessment.decision, assessment.rule, assessment.seen
    steps, blocked = decision.steps, decision.blocked
    if not steps and decision.violations and rule is not None and seen is not None:
        steps, stopped = plan(assessment.target, rule, assessment.state, seen, partition)
        blocked = blocked or (stopped.problem if stopped else None)
    return Judgement(
        target=assessment.target,
        outcome=decision.outcome,
        compliant=ACCEPTABLE.get(decision.outcome, False),
        rule=rule.id if rule else None,
        mode=rule.mode.value if rule else None,
        reason=decision.reason,
        message=decision.message,
        violations=tuple(violation.value for violation in decision.violations),
        setting=seen.setting if seen else None,
        managed_key=assessment.state.managed_key,
        plan=steps,
        blocked=blocked,
    )


def verdict(judgement: Judgement) -> str:
    """The label of a judgement that changed nothing: a planned remediation is NONCOMPLIANT."""
    match judgement.outcome:
        case Outcome.REMEDIATING:
            return "NONCOMPLIANT"
        case outcome:
            return f"{outcome.value} ({judgement.reason})" if judgement.reason else outcome.value


def print_judgements(judgements: list[Judgement]) -> None:
    """One row a target."""
    from chalicelib.cli.wording import NOTHING, setting_text, step_text

    rows = []
    for judgement in judgements:
        steps = "; ".join(step_text(step, judgement.target) for step in judgement.plan)
        stopped = f"{judgement.blocked.code}: {judgement.blocked.message}" if judgement.blocked else ""
        would = "; ".join(text for text in (steps, stopped or judgement.message or "") if text)
        rows.append(
            [
                str(judgement.target),
                verdict(judgement),
                " ".join(judgement.violations) or NOTHING,
                setting_text(judgement.setting, str(judgement.target)),
                would or NOTHING,
            ]
        )
    print_table(Table(("target", "verdict", "violations", "setting", "planned action"), rows, "No targets."))


@click.command(epilog="Example: xray-guard check --all-regions")
@click.argument("target", type=TARGET, required=False)
@click.option("--all-regions", is_flag=True, help="Every enabled Region of the account")
@common_options
@pass_operator
def check(operator: Operator, target: Target | None, all_regions: bool) -> int:
    """Judge targets against the policy; change nothing.

    The default TARGET is the account of the credentials and the configured Region. Lists the violations, the planned
    actions, and the cost of new keys. Exits with 1 if a target is noncompliant or could not be judged.
    """
    if target is not None and all_regions:
        raise click.UsageError("Give a TARGET or --all-regions, not both.")
    guard = operator.reading_guard()
    targets, kind = _targets(operator, target, all_regions)
    progress = Progress()
    judgements = []
    for each in targets:
        progress(f"Checking {each}")
        judgements.append(_judged(guard, each, kind, fail=len(targets) == 1))
    progress.done()
    new_keys = sum(judgement.new_keys for judgement in judgements)
    notes = _notes(operator, new_keys)
    document = {
        "targets": [judgement.to_json() for judgement in judgements],
        "policy_digest": operator.policy.digest,
        "new_keys": new_keys,
        "usd_per_month": new_keys * KEY_DOLLARS_A_MONTH,
        "notes": notes,
    }
    emit(operator.output, document, "targets", lambda: print_judgements(judgements))
    for note in notes:
        say(note)
    return 1 if any(judgement.compliant is False for judgement in judgements) else 0


def _targets(operator: Operator, target: Target | None, all_regions: bool) -> tuple[list[Target], TriggerKind]:
    account = operator.identity.account
    if not all_regions:
        own = target or Target(account, operator.region)
        _must_be_own(operator, own)
        return [own], TriggerKind.OPERATOR
    from chalicelib.aws.regions import enabled_regions

    # Judge as a sweep does, which ignores Regions that are not in use.
    return [Target(account, region) for region in enabled_regions(operator.clients, operator.region)], TriggerKind.SWEEP


def _must_be_own(operator: Operator, target: Target) -> None:
    from chalicelib.cli.trouble import CONFIGURATION, Trouble

    account = operator.identity.account
    if target.account != account:
        raise Trouble(
            f"{target} is not in account {account}, the account of these credentials",
            f"use credentials of account {target.account} (--profile NAME)",
            CONFIGURATION,
        )


def _judged(guard: Guard, target: Target, kind: TriggerKind, *, fail: bool) -> Judgement:
    from chalicelib.domain.errors import GuardError, denies_region
    from chalicelib.loop.dry_run import assess

    try:
        return judgement_of(assess(guard, target, kind), guard.partition)
    except GuardError as error:
        if fail:
            raise
        # With many Regions, an unreadable one is one FAILED row; one that the organization denies is IGNORED.
        problem = error.problem
        if denies_region(error):
            return Judgement(target, Outcome.IGNORED, None, reason=Reason.REGION_DENIED, message=problem.message)
        return Judgement(target, Outcome.FAILED, False, reason=problem.code, message=problem.message)


def _notes(operator: Operator, new_keys: int) -> list[str]:
    if not new_keys:
        return []
    keys = "1 customer managed key" if new_keys == 1 else f"{new_keys} customer managed keys"
    return [
        f"Enforcing would create {keys}, at about {new_keys * KEY_DOLLARS_A_MONTH} US dollars a month in total.",
        READERS_NOTE,
    ]


@click.command("reconcile", epilog="Example: xray-guard reconcile 111122223333/us-east-1 --dry-run")
@click.argument("target", type=TARGET)
@click.option("--dry-run", is_flag=True, help="Show the planned actions; change nothing")
@click.option("--yes", is_flag=True, help="Remediate, with your own credentials")
@common_options
@pass_operator
def reconcile_verb(operator: Operator, target: Target, dry_run: bool, yes: bool) -> int:
    """Remediate TARGET so that it satisfies its rule.

    Requires --dry-run or --yes. With --yes, the audit log records the run under your name. If the run is interrupted,
    its lease blocks other workers from TARGET for at most seven minutes: requests that you signed stay valid for five.
    """
    if dry_run == yes:
        raise click.UsageError("Give either --dry-run or --yes.")
    _must_be_own(operator, target)
    return _dry_run(operator, target) if dry_run else _for_real(operator, target)


def _dry_run(operator: Operator, target: Target) -> int:
    from chalicelib.loop.dry_run import assess

    guard = operator.reading_guard()
    judgement = judgement_of(assess(guard, target), guard.partition)
    notes = _notes(operator, judgement.new_keys)
    document = {**judgement.to_json(), "policy_digest": operator.policy.digest, "notes": notes}
    emit(operator.output, document, None, lambda: _print_plan(judgement))
    for note in notes:
        say(note)
    goes = judgement.outcome in (Outcome.COMPLIANT, Outcome.REMEDIATING, Outcome.IGNORED)
    return 0 if goes and judgement.blocked is None else 1


def _print_plan(judgement: Judgement) -> None:
    from chalicelib.cli.wording import clean, setting_text, step_text
    from chalicelib.domain.keypolicy.document import difference

    target = str(judgement.target)
    click.echo(f"{target}: {verdict(judgement)} under rule {judgement.rule or '(none)'}")
    click.echo(f"  X-Ray setting: {setting_text(judgement.setting, target)}")
    if judgement.violations:
        click.echo(f"  violations: {' '.join(judgement.violations)}")
    held = judgement.outcome not in (Outcome.REMEDIATING, Outcome.COMPLIANT, Outcome.IGNORED)
    for number, step in enumerate(judgement.plan, 1):
        click.echo(f"  {'(not now) ' if held else ''}{number}. {step.name}: {step_text(step, judgement.target)}")
        if step.name.value == "PutKeyPolicy":
            for line in difference(step.before or "", step.after or "").splitlines():
                click.echo(f"       {clean(line)}")
    if judgement.message:
        click.echo(f"  {clean(judgement.message)}")
    if judgement.blocked and judgement.blocked.message != judgement.message:
        click.echo(f"  then the plan stops: {clean(judgement.blocked.message)}")


def _for_real(operator: Operator, target: Target) -> int:
    import msgspec

    from chalicelib.cli.trouble import CONFIGURATION, Trouble
    from chalicelib.cli.wording import actor_text, change_text, clean
    from chalicelib.loop.reconcile import reconcile

    deployed = operator.guard_state().policy_digest
    if deployed is not None and deployed != operator.policy.digest:
        raise Trouble(
            f"the deployed guard enforces policy {deployed[:12]}…, and {operator.policy_file} is "
            f"{operator.policy.digest[:12]}…: you and the guard would undo each other's changes",
            "name the deployed document with --policy PATH, or deploy this one first",
            CONFIGURATION,
        )
    say(
        f"Remediating {target} as {actor_text(operator.actor)}. The lease lasts at most {LEASE_SECONDS // 60} minutes, "
        "because signed requests stay valid for five."
    )
    guard = operator.acting_guard(
        lambda record: say(f"  {record.outcome.value} {clean(record.reason or ' '.join(record.violations))}".rstrip())
    )
    result = reconcile(guard, target, Trigger(TriggerKind.OPERATOR, actor=operator.actor))
    record = result.record
    document = {
        "target": str(target),
        "outcome": result.outcome.value,
        "reason": result.reason,
        "violations": [violation.value for violation in result.violations],
        "mutated": result.mutated,
        "record_id": record.record_id if record else None,
        "incident_id": record.incident_id if record else None,
        "before": msgspec.to_builtins(record.before) if record else None,
        "after": msgspec.to_builtins(record.after) if record else None,
        "error": msgspec.to_builtins(record.error) if record else None,
    }

    def table() -> None:
        click.echo(f"{target}: {result.outcome.value}{f' ({clean(result.reason)})' if result.reason else ''}")
        if record:
            click.echo(f"  {change_text(record.before, record.after, str(target))}   record {record.record_id}")
            if record.error:
                click.echo(f"  {clean(record.error.message)}")

    emit(operator.output, document, None, table)
    good = (Outcome.COMPLIANT, Outcome.REMEDIATED, Outcome.APPLIED, Outcome.IGNORED)
    return 0 if result.outcome in good else 1


# --- explain ---------------------------------------------------------------------------------------------------------


@click.command(epilog="Example: xray-guard explain event.json")
@click.argument("event", type=click.File("rb"))
@common_options
@pass_operator
def explain(operator: Operator, event: IO[bytes]) -> int:
    """Show what the guard would do with an event, and why.

    Changes nothing. EVENT is a file with the whole event as EventBridge delivers it, or - for stdin.
    """
    from chalicelib.domain.events import read_change, read_key_event
    from chalicelib.domain.model import Rejected

    try:
        read = json.loads(event.read(1 << 21))
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{event.name} is not JSON: {error}") from error
    is_key = isinstance(read, dict) and read.get("source") == "aws.kms"
    parsed: ChangeEvent | KeyEvent | Rejected = read_key_event(read) if is_key else read_change(read)
    if isinstance(parsed, Rejected):
        why = [f"The event names no target: {parsed.detail}.", "The guard records it in its own chain."]
        return _explained(operator, None, parsed.reason, Outcome.FAILED, why, None)
    return _explain(operator, parsed)


def _explain(operator: Operator, event: ChangeEvent | KeyEvent) -> int:
    from chalicelib.cli.wording import actor_text, setting_text
    from chalicelib.domain.model import ChangeEvent
    from chalicelib.loop.dry_run import assess

    target, trigger = event.target, event.trigger
    actor = trigger.actor
    name = trigger.event_name or "The event"
    who = actor_text(actor, str(target)) if actor else "An unknown principal"
    why = [f"{who} called {name} in {target}."]

    def end(reason: str, more: str, outcome: Outcome = Outcome.IGNORED) -> int:
        return _explained(operator, event, reason, outcome, [*why, more], None)

    if target.account != operator.identity.account:
        return end(
            "ACCOUNT_NOT_OURS",
            f"These credentials belong to account {operator.identity.account}, not {target.account}.",
        )
    guard = operator.reading_guard()
    if actor is not None and actor.arn == operator.role_arn and actor.via is None:
        return end(
            "ECHO", "The guard made this change itself. It does nothing, unless the setting differs from its own."
        )
    if event.error_code and isinstance(event, ChangeEvent):
        return end(event.error_code, "The call failed, so it changed nothing. The guard records it.")
    if isinstance(event, ChangeEvent):
        if guard.store.load(str(target), trigger.event_id).audited:
            why.append(
                "The guard already recorded this event and does not record it again. It still checks the target."
            )
        why.append(f"According to the event, the setting became {setting_text(event.result, str(target))}.")
    judgement = judgement_of(assess(guard, target), guard.partition)
    now = setting_text(judgement.setting, str(target))
    if judgement.setting is not None:
        why.append(f"The guard judges the live setting: {now}.")
    why.append(_because(judgement))
    return _explained(operator, event, judgement.reason, judgement.outcome, why, judgement)


def _because(judgement: Judgement) -> str:
    from chalicelib.operators.labels import explanation

    broken = ", ".join(judgement.violations)
    match judgement.outcome:
        case Outcome.COMPLIANT:
            return f"It satisfies rule {judgement.rule}: the guard records the change and does nothing else."
        case Outcome.REMEDIATING:
            return f"It violates rule {judgement.rule}: {broken}. The guard would remediate it."
        case Outcome.IGNORED if judgement.reason == "UNGOVERNED":
            return "No rule of the policy matches this target: the guard records the change and does nothing else."
        case Outcome.IGNORED if judgement.reason == "RULE_OFF":
            return f"Rule {judgement.rule} is off: the guard records the change and does nothing else."
        case outcome:
            why = str(explanation(outcome, judgement.reason) or judgement.message or judgement.reason)
            return f"It violates rule {judgement.rule}: {broken}. {outcome.value}: {why.rstrip('.')}."


def _explained(
    operator: Operator,
    event: ChangeEvent | KeyEvent | None,
    reason: str | None,
    outcome: Outcome,
    why: list[str],
    judgement: Judgement | None,
) -> int:
    import msgspec

    from chalicelib.cli.wording import clean, step_text

    trigger: Any = msgspec.to_builtins(event.trigger) if event else None
    document = {
        "target": str(event.target) if event else None,
        "outcome": outcome.value,
        "reason": reason,
        "trigger": trigger,
        "why": why,
        "judgement": judgement.to_json() if judgement else None,
    }

    def table() -> None:
        target = event.target if event else "no target"
        click.echo(f"{target}: {outcome.value}{f' ({clean(reason)})' if reason else ''}")
        for sentence in why:
            click.echo(f"  {clean(sentence)}")
        for number, step in enumerate(judgement.plan if judgement else (), 1):
            click.echo(f"  {number}. {step.name}: {step_text(step, judgement.target) if judgement else ''}")

    emit(operator.output, document, None, table)
    return 0
