"""Every verb explains itself, and the documentation says what the program says."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from chalicelib.cli import cli
from chalicelib.cli.reference import reference, verbs
from tests.component.operated import typed

VERBS = list(verbs(cli))
DOCS = Path(__file__).parents[2] / "docs"
EXPECTED = {
    "audit export",
    "audit verify",
    "check",
    "completion",
    "doctor",
    "explain",
    "history",
    "policy explain",
    "policy validate",
    "reconcile",
    "redrive",
    "show",
    "status",
}


def test_the_verbs_that_operators_were_promised_are_there() -> None:
    assert {name for name, _ in VERBS} >= EXPECTED


@pytest.mark.parametrize(("name", "command"), VERBS, ids=[name for name, _ in VERBS])
class TestHelp:
    def test_has_an_example_that_begins_as_it_is_typed(self, name: str, command: click.Command) -> None:
        answer = typed(*name.split(), "--help")
        assert answer.code == 0
        assert "Example: " in answer.out
        assert f"xray-guard {name}" in answer.out.partition("Example: ")[2]

    def test_needs_no_credentials_and_prints_to_stdout(self, name: str, command: click.Command) -> None:
        answer = typed(*name.split(), "-h")
        assert answer.out.startswith(f"Usage: xray-guard {name}")
        assert answer.err == ""

    def test_is_one_line_in_the_list_of_verbs(self, name: str, command: click.Command) -> None:
        columns = 80 - len("  break-glass  ") if " " not in name else 80 - len(name.split()[-1]) - 4
        assert not command.get_short_help_str(limit=columns).endswith("...")

    def test_refuses_an_option_that_it_does_not_know(self, name: str, command: click.Command) -> None:
        answer = typed(*name.split(), "--no-such-option")
        assert (answer.code, answer.out) == (2, "")
        assert "--no-such-option" in answer.err


def test_the_documentation_is_what_the_verbs_say() -> None:
    written = (DOCS / "cli.md").read_text("utf-8")
    assert written == reference(), "make it anew: .venv/bin/python -m chalicelib.cli.reference > docs/cli.md"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_offered_for_the_common_shells(shell: str) -> None:
    answer = typed("completion", shell)
    assert answer.code == 0
    assert "_XRAY_GUARD_COMPLETE" in answer.out


def test_completion_names_the_verbs() -> None:
    from click.shell_completion import ShellComplete

    words = [item.value for item in ShellComplete(cli, {}, "xray-guard", "X").get_completions([], "re")]
    assert {"reconcile", "redrive"} <= set(words)
    assert all(word.startswith("re") for word in words)


def test_an_unknown_verb_is_a_usage_error() -> None:
    answer = typed("remediate")
    assert answer.code == 2
    assert "No such command 'remediate'" in answer.err


def test_help_comes_without_loading_what_talks_to_aws() -> None:
    program = (
        "import sys\nfrom chalicelib.cli import cli\n"
        "try: cli(['history', '--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('botocore', 'boto3', 'rich', 'jsonschema', 'chalice') if name in sys.modules])"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.monotonic() - began < 10
