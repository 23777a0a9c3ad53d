"""The verb `completion`: print the completion script of a shell."""

from __future__ import annotations

import click


@click.command("completion", epilog='Example: eval "$(xray-guard completion bash)"')
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion_verb(shell: str) -> int:
    """Print the script that completes verbs and options in SHELL."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(
        found(click.get_current_context().find_root().command, {}, "xray-guard", "_XRAY_GUARD_COMPLETE").source()
    )
    return 0
