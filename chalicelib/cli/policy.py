"""Verbs about the policy: `policy validate`, `policy show` and `policy explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chalicelib.cli.options import TARGET, common_options, pass_operator
from chalicelib.domain.model import Target
from chalicelib.operators.context import Operator
from chalicelib.operators.layout import Column, Table
from chalicelib.operators.output import emit, print_table, say

if TYPE_CHECKING:
    from chalicelib.domain.policy import Policy, Rule


@click.group("policy")
def policy_group() -> None:
    """Validate the policy, show the policy in force, or show which rule applies."""


@policy_group.command(epilog="Example: xray-guard policy validate policies/policy.json")
@click.argument("path", type=click.Path(exists=True, path_type=Path), required=False)
@common_options
@pass_operator
def validate(operator: Operator, path: Path | None) -> int:
    """Check a policy document by schema and meaning.

    The default PATH is the document of --policy, or the one that comes with this program. Exits with 1 if the
    document is not valid; `make package` refuses such a document.
    """
    from chalicelib.operators import policy_check

    if path is not None:
        operator.set_option("policy_path", str(path))
    file = operator.policy_file
    try:
        checked = policy_check.validate(file)
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}") from error
    document = {
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
            columns = [Column(each, wraps=each != "kind") for each in ("kind", "path", "value", "expected")]
            print_table(operator.output, Table(columns, rows, ""))
        click.echo(f"{file}: " + (f"valid, digest {checked.policy.digest}" if checked.policy else "NOT VALID"))

    emit(operator.output, document, None, table)
    return 0 if checked.policy is not None else 1


@policy_group.command(epilog="Example: xray-guard policy show --digest 4c1d0a")
@click.option("--digest", metavar="HEX", help="The beginning of a digest; the default is the policy in force")
@common_options
@pass_operator
def show(operator: Operator, digest: str | None) -> int:
    """Print the policy that the deployed guard enforces, or enforced.

    The text comes from the audit log, from the record of the guard's first run under the policy, and its digest is
    checked. Exits with 1 if the log does not have it.
    """
    import msgspec

    from chalicelib.auditlog.enforced import enforced_policy
    from chalicelib.operators.errors import NO, OperatorError

    found = enforced_policy(operator.store, digest.lower() if digest else None)
    if found is None:
        what = f"no policy with a digest that begins with {digest}" if digest else "no policy"
        raise OperatorError(f"{what} is on record", "list the records: `xray-guard history --target guard`", NO)
    if found.document is None:
        raise OperatorError(
            f"the record of policy {found.digest} does not have its text",
            "look in version control: a former version of the guard wrote the record, or the policy was too long",
            NO,
        )
    text = found.document
    emit(operator.output, msgspec.to_builtins(found), None, lambda: click.echo(text.rstrip("\n")))
    say(f"Digest {found.digest}, enforced since {found.since:%Y-%m-%dT%H:%M:%SZ}.")
    return 0


@policy_group.command(epilog="Example: xray-guard policy explain 111122223333/us-east-1")
@click.argument("target", type=TARGET)
@common_options
@pass_operator
def explain(operator: Operator, target: Target) -> int:
    """Show which rule governs TARGET, and what it requires.

    Also shows why other rules do not apply. With --policy, says whether the deployed guard enforces that document.
    """
    import msgspec

    policy = operator.policy
    rule = policy.rule_for(target)
    considered = _considered(policy, target)
    deployed, problem = _deployed(operator)
    document = {
        "target": str(target),
        "rule": msgspec.to_builtins(rule) if rule else None,
        "considered": considered,
        "digest": policy.digest,
        "deployed_digest": deployed,
        "same": None if deployed is None else deployed == policy.digest,
    }

    def table() -> None:
        click.echo(f"{target} under {operator.policy_name}")
        for one in considered:
            click.echo(f"  rule {one['id']}: {one['why']}")
        if rule is None:
            click.echo("  No rule matches. The guard reports the target as ungoverned and does not change it.")
        else:
            for sentence in requirements(rule):
                click.echo(f"  - {sentence}")
        click.echo(f"  digest {policy.digest}")

    emit(operator.output, document, None, table)
    if problem:
        say(f"Cannot read which policy the deployed guard enforces: {problem}")
    elif deployed == policy.digest:
        say("The deployed guard enforces this document.")
    elif deployed is None:
        say("The deployed guard has not run with a policy yet.")
    else:
        say(f"The deployed guard enforces a DIFFERENT document, digest {deployed}. To use that one, omit --policy.")
    return 0


def _considered(policy: Policy, target: Target) -> list[dict[str, Any]]:
    from chalicelib.domain.policy import glob_matches

    considered: list[dict[str, Any]] = []
    for rule in policy.rules:
        account = next((glob for glob in rule.accounts if glob_matches(glob, target.account)), None)
        region = next((glob for glob in rule.regions if glob_matches(glob, target.region)), None)
        if account is not None and region is not None:
            why = f"governs this target: account matches {account}, Region matches {region}"
            considered.append({"id": rule.id, "matches": True, "why": why})
            break
        unmatched = "account" if account is None else "Region"
        globs = ", ".join(rule.accounts if account is None else rule.regions)
        considered.append({"id": rule.id, "matches": False, "why": f"does not match: its {unmatched}s are {globs}"})
    return considered


def _deployed(operator: Operator) -> tuple[str | None, str | None]:
    """The digest of the policy that the deployed guard last ran with, or the error of the read."""
    from botocore.exceptions import BotoCoreError

    from chalicelib.domain.errors import AwsError
    from chalicelib.operators.errors import operator_error

    try:
        return operator.guard_state().policy_digest, None
    except (AwsError, BotoCoreError) as error:
        return None, operator_error(error).message


def requirements(rule: Rule) -> list[str]:
    """Describe a rule in sentences."""
    from chalicelib.domain.policy import KeyKind, Mode, SpansRule, When

    modes = {
        Mode.ENFORCE: "Mode enforce: the guard remediates violations.",
        Mode.OBSERVE: "Mode observe: the guard records violations and changes nothing.",
        Mode.OFF: "Mode off: the guard does not judge or change the targets of this rule.",
    }
    sentences = [modes[rule.mode]]
    if rule.mode is Mode.OFF:
        return sentences
    require, managed = rule.require, rule.managed_key
    if rule.when is When.IN_USE:
        sentences.append("A sweep ignores a target that was never encrypted and received no traces for six hours.")
    if require.key is KeyKind.CUSTOMER:
        sentences.append(f"X-Ray must use a customer managed key, one of: {', '.join(require.allowed_keys)}.")
    elif require.allowed_keys:
        allowed = ", ".join(require.allowed_keys)
        sentences.append(f"X-Ray must use the AWS managed key, or one of: {allowed}.")
    else:
        sentences.append("X-Ray must use a KMS key; any key is allowed.")
    if require.same_account:
        sentences.append("The key must belong to the target's account.")
    if require.rotation:
        sentences.append("The key must rotate.")
    sentences.append(
        {
            SpansRule.REPORT: "Spans that X-Ray sends to CloudWatch Logs are only reported.",
            SpansRule.ENCRYPT: "Spans that X-Ray sends to CloudWatch Logs must be encrypted with such a key, too.",
            SpansRule.FORBID: "X-Ray must not send spans to CloudWatch Logs; the guard reports it and changes nothing.",
        }[require.spans]
    )
    if require.copies_to is None:
        sentences.append("Links may copy traces to any account.")
    else:
        only = ", ".join(require.copies_to) or "no account"
        sentences.append(f"Links may copy traces to: {only}; the guard reports others and changes nothing.")
    sentences.append(f"The guard manages the key {managed.alias}, rotated every {managed.rotation_days} days.")
    readers = managed.trace_readers
    who = "Every principal of the account, through X-Ray," if readers == "account" else ", ".join(readers)
    sentences.append(f"{who} may decrypt traces.")
    if rule.break_glass:
        glass = rule.break_glass
        sentences.append(
            f"The break-glass tag {glass.tag} suspends remediation for at most {glass.max_hours} hours. "
            f"Only these principals may set it: {', '.join(glass.principals)}."
        )
    else:
        sentences.append("The rule does not define `break_glass`.")
    return sentences
