"""How the story is told: in colour on a terminal, in plain text elsewhere."""

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
    """Tells the story on stdout. Colour only ever repeats what the words say."""

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            # A terminal that knows no such character shows another one; that must not end the story.
            sys.stdout.reconfigure(errors="replace")
        self.on_terminal = sys.stdout.isatty()
        plain = not self.on_terminal or bool(os.environ.get("NO_COLOR"))
        self._console = Console(highlight=False, markup=False, force_terminal=not plain, no_color=plain)
        self._console.width = min(self._console.width, WIDEST) if self.on_terminal else PLAIN_WIDTH
        self._chapters = 0

    def title(self, text: str, *lines: str) -> None:
        """The beginning."""
        self._console.print()
        self._console.print(Text(text, "bold"))
        self._console.print(Text(" ".join(lines), "dim"))

    def chapter(self, title: str, line: str) -> None:
        """A chapter's number and title, and what there is to know before."""
        self._chapters += 1
        self._console.print()
        self._console.print(Text(f"{self._chapters:>2} {title}", "bold cyan"))
        self._told(Text(line, "italic"))

    def passes(self, text: str) -> None:
        """Time goes by between two chapters, or within one."""
        self._console.print()
        self._told(Text(f"… {text}", "italic dim"))

    def moment(self, seconds: float, who: str, what: str) -> None:
        """Somebody does something, so many seconds after the step began."""
        style = "yellow" if who.startswith(("user/", "role/")) else "magenta" if who == "log" else ""
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_column(justify="right", min_width=8, no_wrap=True)
        line.add_column(min_width=WHO_WIDTH, no_wrap=True)
        line.add_column(overflow="fold")
        line.add_row(Text(f"{seconds:.2f} s", "dim"), Text(who, style), Text(what))
        self._told(line)

    def quiet(self, seconds: float) -> None:
        """How long a step took until nothing was left to do."""
        self._told(Text(f"{seconds:>6.2f} s  all quiet", "dim"))

    def proved(self, text: str) -> None:
        """A claim that was just checked."""
        self._marked("✓", "bold green", text)

    def wrong(self, text: str) -> None:
        """A claim that does not hold."""
        self._marked("✗", "bold red", text)

    def command(self, line: str) -> None:
        """A command that is about to be run."""
        self._told(Text(f"$ {line}", "bold"))

    def printed(self, output: str) -> None:
        """What a command printed, as wide as it is."""
        for each in output.rstrip().splitlines():
            self._console.print(Text(" " * INDENT + each), soft_wrap=True)

    def end(self, line: str) -> None:
        """The end."""
        self._console.print()
        self._console.print(Text(line, "bold"))

    def _marked(self, mark: str, style: str, text: str) -> None:
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_row(Text(mark, style), Text(text))
        self._told(line)

    def _told(self, what: RenderableType) -> None:
        self._console.print(Padding(what, (0, 0, 0, INDENT), expand=False))
