"""Print the demo: in colour on a terminal, as plain text elsewhere."""

from __future__ import annotations

import os
import sys

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

WIDEST = 116
PLAIN_WIDTH = 110
WHO_WIDTH = 24
INDENT = 3


class Voice:
    """Print to stdout. Colour only repeats what the words say."""

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            # A terminal without these characters shows others; that must not end the demo.
            sys.stdout.reconfigure(errors="replace")
        self.on_terminal = sys.stdout.isatty()
        plain = not self.on_terminal or bool(os.environ.get("NO_COLOR"))
        self._console = Console(highlight=False, markup=False, force_terminal=not plain, no_color=plain)
        self._console.width = min(self._console.width, WIDEST) if self.on_terminal else PLAIN_WIDTH
        self._chapters = 0

    def title(self, text: str, *lines: str) -> None:
        """The title and the introduction."""
        self._console.print()
        self._console.print(Text(text, "bold"))
        self._console.print(Text(" ".join(lines), "dim"))

    def chapter(self, title: str, line: str) -> None:
        """A chapter's number, title and introduction."""
        self._chapters += 1
        self._console.print()
        self._console.print(Text(f"{self._chapters:>2} {title}", "bold cyan"))
        self._print(Text(line, "italic"))

    def passes(self, text: str) -> None:
        """Time passes."""
        self._console.print()
        self._print(Text(f"… {text}", "italic dim"))

    def moment(self, seconds: float, who: str, what: str) -> None:
        """An action, with the seconds since the step began."""
        style = "yellow" if who.startswith(("user/", "role/")) else "magenta" if who == "log" else ""
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_column(justify="right", min_width=8, no_wrap=True)
        line.add_column(min_width=WHO_WIDTH, no_wrap=True)
        line.add_column(overflow="fold")
        line.add_row(Text(f"{seconds:.2f} s", "dim"), Text(who, style), Text(what))
        self._print(line)

    def quiet(self, seconds: float) -> None:
        """The duration of a step, until all its events were processed."""
        self._print(Text(f"{seconds:>6.2f} s  done", "dim"))

    def proved(self, text: str) -> None:
        """A claim that was verified."""
        self._marked("✓", "bold green", text)

    def wrong(self, text: str) -> None:
        """A claim that is not true."""
        self._marked("✗", "bold red", text)

    def command(self, line: str) -> None:
        """A command, before it runs."""
        self._print(Text(f"$ {line}", "bold"))

    def printed(self, output: str) -> None:
        """The output of a command, without wrapping."""
        for each in output.rstrip().splitlines():
            self._console.print(Text(" " * INDENT + each), soft_wrap=True)

    def end(self, line: str) -> None:
        """The last line."""
        self._console.print()
        self._console.print(Text(line, "bold"))

    def _marked(self, mark: str, style: str, text: str) -> None:
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_row(Text(mark, style), Text(text))
        self._print(line)

    def _print(self, what: RenderableType) -> None:
        self._console.print(Padding(what, (0, 0, 0, INDENT), expand=False))
