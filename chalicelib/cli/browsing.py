"""The verb that shows all this in the browser: `console`."""

from __future__ import annotations

import click

from chalicelib.cli.options import common_options
from chalicelib.cli.session import Operator, pass_operator, say


@click.command("console", epilog="Example: xray-guard console --region eu-west-1")
@click.option("--port", type=click.IntRange(0, 65535), default=8710, show_default=True, help="0 takes a free one")
@click.option("--no-open", is_flag=True, help="Do not open the browser")
@common_options
@pass_operator
def console_verb(operator: Operator, port: int, no_open: bool) -> int:
    """Serve the console in the browser, until Ctrl-C.

    It listens on 127.0.0.1 only, reads with your own credentials, and changes nothing. Whoever is logged in on this
    machine can read it while it runs. The address goes to stdout.
    """
    import webbrowser

    from chalicelib.cli.trouble import USAGE, Trouble
    from chalicelib.console.server import ConsoleServer

    try:
        server = ConsoleServer(operator.again, port, say)
    except OSError as error:
        raise Trouble(
            f"port {port} cannot be listened on: {error.strerror}", "name another: --port PORT, or --port 0", USAGE
        ) from error
    click.echo(server.url)
    say("The console reads with your credentials and changes nothing. Ctrl-C ends it.")
    if not no_open:
        webbrowser.open(server.url)
    try:
        server.serve()
    except KeyboardInterrupt:
        say("The console has ended.")
    return 0
