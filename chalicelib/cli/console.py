"""The verb `console`: serve the console in the browser."""

from __future__ import annotations

import click

from chalicelib.cli.options import common_options, pass_operator
from chalicelib.operators.context import Operator
from chalicelib.operators.output import say


@click.command("console", epilog="Example: xray-guard console --home-region eu-west-1")
@click.option("--port", type=click.IntRange(0, 65535), default=8710, show_default=True, help="Port; 0 picks a free one")
@click.option("--no-open", is_flag=True, help="Do not open the browser")
@common_options
@pass_operator
def console_verb(operator: Operator, port: int, no_open: bool) -> int:
    """Serve the console in the browser, until Ctrl-C.

    The console listens on 127.0.0.1 only, reads with your own credentials, and changes nothing. Everyone who is
    logged in on this machine can read it while it runs. Prints the address to stdout.
    """
    import webbrowser

    from chalicelib.console.server import ConsoleServer
    from chalicelib.operators.errors import USAGE, OperatorError

    try:
        server = ConsoleServer(operator.with_fresh_credentials, port, say)
    except OSError as error:
        raise OperatorError(
            f"cannot listen on port {port}: {error.strerror}", "choose another port: --port PORT, or --port 0", USAGE
        ) from error
    click.echo(server.url)
    say("The console reads with your credentials and changes nothing. Press Ctrl-C to stop it.")
    if not no_open:
        webbrowser.open(server.url)
    try:
        server.serve()
    except KeyboardInterrupt:
        say("The console stopped.")
    return 0
