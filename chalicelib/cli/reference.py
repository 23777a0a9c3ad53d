"""Generate docs/cli.md from the verbs' help: `python -m chalicelib.cli.reference > docs/cli.md`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from chalicelib.cli import cli

INTRODUCTION = """\
# The command line

`.venv/bin/xray-guard` reads the guard's tables and calls AWS with your own credentials: from the environment, from the
AWS configuration, or from `--profile`. Data goes to stdout and messages go to stderr, so you can pipe the output.

- A table fits the terminal, or `COLUMNS` if that is set: what does not fit is shortened, or left out and named on
  stderr. `-o wide`, a pipe or a file get every column whole. Colours are for terminals, without `NO_COLOR`.
- `-o json` and `-o yaml` print one document, `-o jsonl` one object per line. Times are RFC 3339 in UTC; unknown values
  are `null`.
- A target is `111122223333/us-east-1`, or `us-east-1` in the account of your credentials; an incident is
  `111122223333/us-east-1#7` or `us-east-1#7`.

| exit code | meaning |
| --- | --- |
| 0 | success |
| 1 | negative result: a target is noncompliant, a check failed, or the thing named does not exist |
| 2 | the command line is not valid |
| 253 | credentials or configuration are missing or not valid, or the tables do not exist |
| 254 | AWS returned an error or could not be reached |

| variable | meaning | default |
| --- | --- | --- |
| `XRAY_GUARD_AUDIT_TABLE` | the audit table | `xray-guard-audit` |
| `XRAY_GUARD_TARGETS_TABLE` | the targets table | `xray-guard-targets` |
| `XRAY_GUARD_HOME_REGION` | the Region where the guard is deployed | that of the AWS configuration |
| `XRAY_GUARD_ANCHOR_BUCKET` | the S3 bucket with the anchors | none |
| `XRAY_GUARD_DLQ_URL` | the dead-letter queue | `xray-guard-dead-letters` in the Region |
| `XRAY_GUARD_ROLE_ARN` | the role that the guard runs as | `xray-guard` in the account |
| `AWS_PROFILE`, `AWS_REGION`, `AWS_ENDPOINT_URL` and others | as for every AWS client | |

A profile of the AWS configuration may name the guard's Region, too: `xray_guard_home_region = us-east-1`.

Completion of verbs, options, codes, targets and incidents: `eval "$(xray-guard completion bash)"`; the same with `zsh`
or `fish`. It reads the guard's tables with your credentials.

`python -m chalicelib.cli.reference` generates this page from the verbs' `--help`; a test compares the two.
"""

WIDTH = 100


def verbs(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every verb, sorted by name, as (name with its groups, command)."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from verbs(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


def help_of(name: str, command: click.Command) -> str:
    """The text of `--help`, at a fixed width."""
    context = click.Context(
        command, info_name=f"xray-guard {name}", terminal_width=WIDTH, help_option_names=["-h", "--help"]
    )
    return command.get_help(context)


def reference() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for name, command in verbs(cli):
        parts.append(f"## {name}\n\n```text\n{help_of(name, command)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    click.echo(reference(), nl=False)
