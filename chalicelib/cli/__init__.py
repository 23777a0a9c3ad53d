"""The command line, `xray-guard`: operators read the audit log and the state of targets, and control the guard.

Data goes to stdout, messages to stderr. Exit codes: 0 success, 1 negative result, 2 usage, 253 credentials or
configuration, 254 AWS error. A verb imports slow modules itself, so that the other verbs start fast.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from chalicelib.cli import (
    audit,
    break_glass,
    completion,
    console,
    doctor,
    explain,
    history,
    incidents,
    key,
    pause,
    policy,
    reconcile,
    redrive,
    show,
    status,
)
from chalicelib.cli.options import common_options
from chalicelib.operators.context import Operator

INTERRUPTED = 130


class Verbs(click.Group):
    """The verbs. Every error ends with a message and a remedy, never with a traceback."""

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        """Run a command line and exit with its code."""
        extra["standalone_mode"] = False
        try:
            code = super().main(args, prog_name or "xray-guard", **extra)
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            click.echo("\nInterrupted.", err=True)
            code = INTERRUPTED
        except BrokenPipeError:
            _discard_stdout()
            code = 0
        except Exception as error:
            from chalicelib.operators.errors import operator_error

            converted = operator_error(error)
            converted.show()
            code = converted.exit_code
        sys.exit(code if isinstance(code, int) else 0)


@click.group(
    "xray-guard",
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 success, 1 negative result, 2 usage, 253 credentials or configuration, 254 AWS error.",
)
@common_options
@click.version_option(package_name="xray-encryption-guard", message="%(version)s")
def cli() -> None:
    """Keep X-Ray's encryption setting on a customer managed key, and show what the guard did.

    A TARGET is an account and Region, written 111122223333/us-east-1, or us-east-1 in the account of your credentials.
    --home-region is the Region where the guard is deployed, not that of a TARGET.
    The variables XRAY_GUARD_AUDIT_TABLE and
    XRAY_GUARD_TARGETS_TABLE name the tables (default: xray-guard-audit and xray-guard-targets) in the Region where
    the guard is deployed.
    """


for command in (
    status.status_verb,
    reconcile.check,
    reconcile.reconcile_verb,
    explain.explain_verb,
    incidents.incidents_verb,
    history.history_verb,
    show.show_verb,
    audit.audit_group,
    policy.policy_group,
    doctor.doctor_verb,
    redrive.redrive_verb,
    console.console_verb,
    pause.pause_verb,
    pause.resume_verb,
    break_glass.break_glass_group,
    key.key_group,
    completion.completion_verb,
):
    cli.add_command(command)


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    cli(obj=Operator())


def _discard_stdout() -> None:
    """Discard buffered output: the reader of the pipe is gone, and flushing at exit would raise again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
