"""The verbs `check` and `reconcile`: judge targets, and remediate one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from chalicelib.cli.options import TARGET, common_options, pass_operator
from chalicelib.domain.model import Target, Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome, Reason
from chalicelib.operators.context import LEASE_SECONDS, Operator
from chalicelib.operators.judgement import Judgement, judgement_of, verdict
from chalicelib.operators.layout import Column, LeaveOut, Shorten, Table, without_account
from chalicelib.operators.output import Progress, emit, print_table, say

if TYPE_CHECKING:
    from chalicelib.loop.guard import Guard

KEY_DOLLARS_A_MONTH = 1
"""The approximate price of a customer managed key; rotation adds to it. https://aws.amazon.com/kms/pricing/"""

READERS_NOTE = (
    "Principals that read traces need kms:Decrypt on a new key. Its key policy allows that for the rule's "
    "trace_readers. All other principals cannot read the traces that X-Ray stores from then on."
)


COLUMNS = (
    Column("target", short=without_account),
    Column("verdict", wraps=True),
    Column("violations", wraps=True),
    Column("setting", wraps=True),
    Column("planned action", wraps=True),
)


def print_judgements(output: str, judgements: list[Judgement]) -> None:
    """Print one row per target."""
    from chalicelib.operators.formatting import NOTHING, clean, setting_text, step_text

    rows = []
    for judgement in judgements:
        steps = "; ".join(step_text(step, judgement.target) for step in judgement.plan)
        stopped = judgement.blocked.code if judgement.blocked else ""
        rows.append(
            [
                str(judgement.target),
                verdict(judgement),
                " ".join(judgement.violations) or NOTHING,
                setting_text(judgement.setting, str(judgement.target)),
                "; ".join(text for text in (steps, stopped) if text) or NOTHING,
            ]
        )
    concessions = (Shorten("target"), LeaveOut("setting"), LeaveOut("planned action"))
    print_table(output, Table(COLUMNS, rows, "No targets.", concessions))
    for judgement in judgements:
        # Whole, because it may have a command to copy.
        if message := judgement.blocked.message if judgement.blocked else judgement.message:
            say(clean(f"{judgement.target}: {message}"))


@click.command(epilog="Example: xray-guard check --all-regions")
@click.argument("target", type=TARGET, required=False)
@click.option("--all-regions", is_flag=True, help="Every enabled Region of the account")
@common_options
@pass_operator
def check(operator: Operator, target: Target | None, all_regions: bool) -> int:
    """Judge targets against the policy; change nothing.

    The default TARGET is the account of the credentials and the Region of the AWS configuration. Judges as the hourly
    sweep does, one target or all: a target that nobody uses may be ignored. Lists the violations, the planned actions,
    and the cost of new keys. Exits with 1 if a target is noncompliant or could not be judged.
    """
    if target is not None and all_regions:
        raise click.UsageError("Give a TARGET or --all-regions, not both.")
    guard = operator.reading_guard()
    targets = _targets(operator, target, all_regions)
    progress = Progress()
    judgements = []
    for each in targets:
        progress(f"Checking {each}")
        judgements.append(_judge(guard, each, fail=len(targets) == 1))
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
    emit(operator.output, document, "targets", lambda: print_judgements(operator.output, judgements))
    for note in notes:
        say(note)
    return 1 if any(judgement.compliant is False for judgement in judgements) else 0


def _targets(operator: Operator, target: Target | None, all_regions: bool) -> list[Target]:
    account = operator.identity.account
    if not all_regions:
        own = target or Target(account, operator.default_region)
        _check_account(operator, own)
        return [own]
    from chalicelib.aws.regions import enabled_regions

    return [Target(account, region) for region in enabled_regions(operator.clients, operator.region)]


def _check_account(operator: Operator, target: Target) -> None:
    from chalicelib.operators.errors import CONFIGURATION, OperatorError

    account = operator.identity.account
    if target.account != account:
        raise OperatorError(
            f"{target} is not in account {account}, the account of these credentials",
            f"use credentials of account {target.account} (--profile NAME)",
            CONFIGURATION,
        )


def _judge(guard: Guard, target: Target, *, fail: bool) -> Judgement:
    """Judge a target as a sweep does, which ignores one that is not in use."""
    from chalicelib.domain.errors import GuardError, denies_region
    from chalicelib.loop.dry_run import assess

    try:
        return judgement_of(assess(guard, target, Trigger(TriggerKind.SWEEP)), guard.partition)
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
    its lease blocks other workers from TARGET for at most seven minutes, because signed requests stay valid for five.
    """
    if dry_run == yes:
        raise click.UsageError("Give either --dry-run or --yes.")
    _check_account(operator, target)
    return _dry_run(operator, target) if dry_run else _remediate(operator, target)


def _dry_run(operator: Operator, target: Target) -> int:
    from chalicelib.loop.dry_run import assess

    guard = operator.reading_guard()
    judgement = judgement_of(assess(guard, target), guard.partition)
    notes = _notes(operator, judgement.new_keys)
    document = {**judgement.to_json(), "policy_digest": operator.policy.digest, "notes": notes}
    emit(operator.output, document, None, lambda: _print_plan(judgement))
    for note in notes:
        say(note)
    can_run = judgement.outcome in (Outcome.COMPLIANT, Outcome.REMEDIATING, Outcome.IGNORED)
    return 0 if can_run and judgement.blocked is None else 1


def _print_plan(judgement: Judgement) -> None:
    from chalicelib.domain.keypolicy.document import difference
    from chalicelib.operators.formatting import clean, setting_text, step_text

    target = str(judgement.target)
    click.echo(f"{target}: {verdict(judgement)} under rule {judgement.rule or '(none)'}")
    click.echo(f"  X-Ray setting: {setting_text(judgement.setting, target)}")
    if judgement.violations:
        click.echo(f"  violations: {' '.join(judgement.violations)}")
    suspended = judgement.outcome not in (Outcome.REMEDIATING, Outcome.COMPLIANT, Outcome.IGNORED)
    for number, step in enumerate(judgement.plan, 1):
        click.echo(f"  {'(suspended) ' if suspended else ''}{number}. {step.name}: {step_text(step, judgement.target)}")
        if step.name.value == "PutKeyPolicy":
            for line in difference(step.before or "", step.after or "").splitlines():
                click.echo(f"       {clean(line)}")
    if judgement.message:
        click.echo(f"  {clean(judgement.message)}")
    if judgement.blocked and judgement.blocked.message != judgement.message:
        click.echo(f"  then the plan stops: {clean(judgement.blocked.message)}")


def _remediate(operator: Operator, target: Target) -> int:
    import msgspec

    from chalicelib.loop.reconcile import reconcile
    from chalicelib.operators.errors import CONFIGURATION, OperatorError
    from chalicelib.operators.formatting import actor_text, change_text, clean

    deployed = operator.guard_state().policy_digest
    if deployed is not None and deployed != operator.policy.digest:
        raise OperatorError(
            f"the deployed guard enforces policy {deployed[:12]}…, and {operator.policy_name} is "
            f"{operator.policy.digest[:12]}…: you and the guard would undo each other's changes",
            "omit --policy to use the deployed document, or deploy this one first",
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
