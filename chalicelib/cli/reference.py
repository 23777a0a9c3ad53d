"""docs/cli.md, made of the verbs' own help: `python -m chalicelib.cli.reference > docs/cli.md`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from chalicelib.cli import cli

INTRODUCTION = """\
# The command line

`.venv/bin/xray-guard` asks the guard's tables and AWS with your own credentials: those of the environment, of the
configuration, or of `--profile`. Data goes to stdout, words go to stderr, so output can be piped. On a terminal tables
are drawn and coloured; elsewhere, or with `NO_COLOR` set, they are plain columns. `--output json` prints one document,
`--output jsonl` one object a line; times are RFC 3339 in UTC, what is not known is `null`.

| exit code | means |
| --- | --- |
| 0 | good |
| 1 | the answer is no: not compliant, the chain is broken, something is bad |
| 2 | the command line is not right |
| 253 | credentials or configuration are missing or not right, the tables are not there |
| 254 | AWS refused, or could not be reached |

| variable | names |
| --- | --- |
| `XRAY_GUARD_AUDIT_TABLE` | the audit table; `xray-guard-audit` without it |
| `XRAY_GUARD_TARGETS_TABLE` | the targets table; `xray-guard-targets` without it |
| `XRAY_GUARD_ANCHOR_BUCKET` | the bucket with the sweeps' anchors, if there is one |
| `XRAY_GUARD_DLQ_URL` | the dead-letter queue; `xray-guard-dead-letters` of the Region without it |
| `XRAY_GUARD_ROLE_ARN` | the role that the guard runs as; `xray-guard` of the account without it |
| `AWS_PROFILE`, `AWS_REGION`, `AWS_ENDPOINT_URL` and the like | what they name for every AWS client |

Completion: `eval "$(xray-guard completion bash)"`, and `zsh` or `fish` likewise.

This page is made of the verbs' `--help` by `python -m chalicelib.cli.reference`; a test holds it to them.
"""

WIDTH = 100


def verbs(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """(name with its groups', command) of every verb, in the order of their names."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from verbs(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


def help_of(name: str, command: click.Command) -> str:
    """What `--help` prints, at a fixed width."""
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
