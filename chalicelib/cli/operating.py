"""Verbs for whoever runs the guard: `doctor`, `redrive` and `completion`."""

from __future__ import annotations

import click


@click.command(epilog='Example: eval "$(xray-guard completion bash)"')
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> int:
    """Print what makes SHELL complete the verbs and options of xray-guard."""
    from click.shell_completion import get_completion_class

    from chalicelib.cli import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "xray-guard", "_XRAY_GUARD_COMPLETE").source())
    return 0
