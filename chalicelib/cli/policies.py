"""Verbs about the policy: `policy validate` and `policy explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chalicelib.cli.options import TARGET, common_options
from chalicelib.cli.output import Table, emit, print_table
from chalicelib.cli.session import Operator, pass_operator, say
from chalicelib.domain.model import Target

if TYPE_CHECKING:
    from chalicelib.domain.policy import Policy, Rule


@click.group("policy")
def policy_group() -> None:
    """The policy: is it valid, what does it ask."""


@policy_group.command(epilog="Example: xray-guard policy validate policies/policy.json")
@click.argument("path", type=click.Path(exists=True, path_type=Path), required=False)
@common_options
@pass_operator
def validate(operator: Operator, path: Path | None) -> int:
    """Check a policy document by schema and meaning.

    Exits with 1 if it may not be packaged. Without a PATH it is the document of --policy, or the one that comes
    with this program.
    """
    from chalicelib.operators import policy_check

    if path is not None:
        operator.choose("policy_path", str(path))
    file = operator.policy_file
    try:
        checked = policy_check.validate(file)
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}") from error
    told = {
        "path": str(file),
        "valid": checked.policy is not None,
        "digest": checked.policy.digest if checked.policy else None,
        "findings": [
            {"path": one.path, "value": one.value, "message": one.message, "warning": one.warning}
            for one in checked.findings
        ],
    }

    def table() -> None:
        rows = [
            ["warning" if one.warning else "error", one.path or "(whole document)", one.value, one.message]
            for one in checked.findings
        ]
        if rows:
            print_table(Table(("kind", "path", "value", "what is allowed"), rows, ""))
        click.echo(f"{file}: " + (f"valid, digest {checked.policy.digest}" if checked.policy else "NOT VALID"))

    emit(operator.output, told, None, table)
    return 0 if checked.policy is not None else 1


@policy_group.command(epilog="Example: xray-guard policy explain 111122223333/us-east-1")
@click.argument("target", type=TARGET)
@common_options
@pass_operator
def explain(operator: Operator, target: Target) -> int:
    """Which rule governs TARGET, and what it asks.

    Says why it is that one, and whether the deployed guard enforces this very document.
    """
    import msgspec

    policy = operator.policy
    rule = policy.rule_for(target)
    considered = _considered(policy, target)
    deployed, problem = _deployed(operator)
    told = {
        "target": str(target),
        "rule": msgspec.to_builtins(rule) if rule else None,
        "considered": considered,
        "digest": policy.digest,
        "deployed_digest": deployed,
        "same": None if deployed is None else deployed == policy.digest,
    }

    def table() -> None:
        click.echo(f"{target} under {operator.policy_file}")
        for one in considered:
            click.echo(f"  rule {one['id']}: {one['why']}")
        if rule is None:
            click.echo("  No rule matches: the target is reported as ungoverned, and left alone.")
        else:
            for sentence in asked(rule):
                click.echo(f"  - {sentence}")
        click.echo(f"  digest {policy.digest}")

    emit(operator.output, told, None, table)
    if problem:
        say(f"What the deployed guard enforces is not known: {problem}")
    elif deployed == policy.digest:
        say("The deployed guard enforces this very document.")
    elif deployed is None:
        say("The deployed guard has not run under any policy yet.")
    else:
        say(f"The deployed guard enforces ANOTHER document: {deployed}")
    return 0


def _considered(policy: Policy, target: Target) -> list[dict[str, Any]]:
    from chalicelib.domain.policy import glob_matches

    told: list[dict[str, Any]] = []
    for rule in policy.rules:
        account = next((glob for glob in rule.accounts if glob_matches(glob, target.account)), None)
        region = next((glob for glob in rule.regions if glob_matches(glob, target.region)), None)
        if account is not None and region is not None:
            told.append({"id": rule.id, "matches": True, "why": f"governs, by account {account} and Region {region}"})
            break
        missed = "account" if account is None else "Region"
        globs = ", ".join(rule.accounts if account is None else rule.regions)
        told.append({"id": rule.id, "matches": False, "why": f"passed over: its {missed}s are {globs}"})
    return told


def _deployed(operator: Operator) -> tuple[str | None, str | None]:
    """The digest that the deployed guard last ran under, or why it is not known."""
    from botocore.exceptions import BotoCoreError

    from chalicelib.cli.trouble import trouble_of
    from chalicelib.domain.errors import AwsError

    try:
        return operator.guard_state().policy_digest, None
    except (AwsError, BotoCoreError) as error:
        return None, trouble_of(error).message


def asked(rule: Rule) -> list[str]:
    """What a rule asks, in sentences."""
    from chalicelib.domain.policy import KeyKind, Mode, When

    told = {
        Mode.ENFORCE: "It is enforced: what breaks it is put right.",
        Mode.OBSERVE: "It is only observed: what breaks it is recorded, and nothing is changed.",
        Mode.OFF: "It is off: targets it governs are left alone.",
    }
    sentences = [told[rule.mode]]
    if rule.mode is Mode.OFF:
        return sentences
    require, managed = rule.require, rule.managed_key
    if rule.when is When.IN_USE:
        sentences.append("A sweep leaves a target alone that was never encrypted and shows no traces.")
    if require.key is KeyKind.CUSTOMER:
        sentences.append(f"X-Ray must be on a customer managed key, one of: {', '.join(require.allowed_keys)}.")
    elif require.allowed_keys:
        allowed = ", ".join(require.allowed_keys)
        sentences.append(f"X-Ray must be on the AWS managed key, or on one of: {allowed}.")
    else:
        sentences.append("X-Ray must be on any KMS key.")
    if require.same_account:
        sentences.append("The key must be the target's own account's.")
    if require.rotation:
        sentences.append("The key must rotate.")
    sentences.append(f"The key that is made or kept is {managed.alias}, rotated every {managed.rotation_days} days.")
    readers = managed.trace_readers
    who = "every principal of the account, through X-Ray" if readers == "account" else ", ".join(readers)
    sentences.append(f"Traces may be decrypted by {who}.")
    if rule.break_glass:
        glass = rule.break_glass
        sentences.append(
            f"The tag {glass.tag} suppresses it, for {glass.max_hours} hours at most, "
            f"set by {', '.join(glass.principals)}."
        )
    else:
        sentences.append("Nothing suppresses it.")
    return sentences
