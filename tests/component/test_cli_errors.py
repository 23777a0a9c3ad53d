"""Every way in which AWS or the shell lets an operator down ends in words that say what to do, and the right code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from chalicelib.domain.errors import AwsError, GuardError
from chalicelib.domain.reasons import Problem
from chalicelib.operators.errors import operator_error
from tests.component.operated import CREDENTIALS, HERE, typed

Refusing = Callable[[str, int], None]


@pytest.fixture(autouse=True)
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A shell that knows of nothing: no credentials, no configuration, no metadata service."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "XRAY_GUARD_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusing]:
    """An endpoint on loopback that answers every call with one error: `refusing(code, status)` says which."""
    answer: dict[str, str] = {"code": "InternalError", "status": "500"}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, message = answer["code"], "what AWS says"
            if "json" in (self.headers.get("Content-Type") or ""):
                body = json.dumps({"__type": f"com.amazonaws#{code}", "message": message})
            else:
                error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
                body = f"<ErrorResponse>{error}<RequestId>r</RequestId></ErrorResponse>"
            self.send_response(int(answer["status"]))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    yield lambda code, status: answer.update(code=code, status=str(status))
    server.shutdown()
    thread.join()
    server.server_close()


TOLD = [
    ("ExpiredTokenException", 400, 253, "sign in again"),
    ("ExpiredToken", 403, 253, "sign in again"),
    ("UnrecognizedClientException", 400, 253, "which credentials"),
    ("InvalidClientTokenId", 403, 253, "which credentials"),
    ("InvalidSignatureException", 400, 253, "which credentials"),
    ("ResourceNotFoundException", 400, 253, "--home-region"),
    ("AccessDeniedException", 400, 254, "these credentials need"),
    ("SomethingNew", 400, 254, "SomethingNew"),
]
VERBS = [
    ("check", HERE),
    ("reconcile", HERE, "--yes"),
    ("history",),
    ("incidents",),
    ("status",),
    ("show", f"{HERE}#1"),
    ("audit", "verify"),
    ("audit", "export"),
]


class TestRefused:
    @pytest.mark.parametrize(("code", "status", "exit_code", "remedy"), TOLD, ids=[each[0] for each in TOLD])
    def test_says_what_to_do(self, refusing: Refusing, code: str, status: int, exit_code: int, remedy: str) -> None:
        refusing(code, status)
        answer = typed("history")
        assert (answer.code, answer.out) == (exit_code, "")
        assert remedy in answer.err
        assert answer.err.startswith("xray-guard: ")

    @pytest.mark.parametrize("verb", VERBS, ids=" ".join)
    def test_with_expired_credentials_every_verb_says_so(self, refusing: Refusing, verb: tuple[str, ...]) -> None:
        refusing("ExpiredToken", 403)
        answer = typed(*verb)
        assert (answer.code, answer.out) == (253, "")
        assert "expired" in answer.err
        assert "sign in again" in answer.err

    def test_when_throttled_it_says_to_wait(self, refusing: Refusing) -> None:
        refusing("ThrottlingException", 400)
        answer = typed("status")
        assert answer.code == 254
        assert "wait a minute" in answer.err

    def test_in_json_nothing_is_on_stdout(self, refusing: Refusing) -> None:
        refusing("AccessDeniedException", 400)
        assert typed("history", "--output", "json").out == ""


class TestShell:
    @pytest.mark.parametrize("verb", VERBS, ids=" ".join)
    def test_without_credentials_every_verb_says_how_to_give_them(
        self, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
    ) -> None:
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        answer = typed(*verb)
        assert (answer.code, answer.out) == (253, "")
        assert "--profile" in answer.err

    def test_without_a_region_it_says_how_to_name_one(self) -> None:
        answer = typed("history")
        assert answer.code == 253
        assert "--home-region" in answer.err

    def test_with_a_profile_that_does_not_exist_it_says_where_they_are_listed(self) -> None:
        answer = typed("history", "--profile", "nobody", "--home-region", "us-east-1")
        assert answer.code == 253
        assert "nobody" in answer.err
        assert "list-profiles" in answer.err

    def test_with_a_configuration_that_cannot_be_read_it_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "config").write_text("[profile", "utf-8")
        answer = typed("history", "--home-region", "us-east-1")
        assert answer.code == 253
        assert "configuration" in answer.err

    def test_with_nobody_at_the_endpoint_it_names_the_endpoint(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
            monkeypatch.setenv(name, value)
        answer = typed("history")
        assert answer.code == 254
        assert "http://127.0.0.1:9" in answer.err

    def test_the_region_is_taken_from_option_environment_and_profile_in_that_order(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        from chalicelib.operators.context import Operator

        (tmp_path / "config").write_text(
            "[default]\nregion = eu-west-1\n[profile other]\nregion = eu-west-2\n", "utf-8"
        )
        assert Operator().region == "eu-west-1"
        other = Operator()
        other.set_option("profile", "other")
        assert other.region == "eu-west-2"
        monkeypatch.setenv("AWS_REGION", "us-west-2")
        assert Operator().region == "us-west-2"
        named = Operator()
        named.set_option("home_region", "ap-south-1")
        assert named.region == "ap-south-1"

    def test_the_guards_home_has_a_variable_and_a_setting_of_its_own_and_is_no_target(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        from chalicelib.operators.context import Operator

        def regions(**options: str) -> tuple[str, str]:
            operator = Operator()
            for name, value in options.items():
                operator.set_option(name, value)
            return operator.region, operator.default_region

        (tmp_path / "config").write_text("[default]\nregion = eu-west-1\n", "utf-8")
        assert regions() == ("eu-west-1", "eu-west-1")
        (tmp_path / "config").write_text("[default]\nregion = eu-west-1\nxray_guard_home_region = us-east-1\n", "utf-8")
        assert regions() == ("us-east-1", "eu-west-1")
        monkeypatch.setenv("XRAY_GUARD_HOME_REGION", "us-east-2")
        assert regions() == ("us-east-2", "eu-west-1")
        assert regions(home_region="us-west-2") == ("us-west-2", "eu-west-1")
        assert regions(region_name="us-west-1") == ("us-west-1", "us-west-1"), "its former meaning"

    def test_the_former_option_works_with_a_warning_and_not_beside_the_new_one(self, refusing: Refusing) -> None:
        refusing("ThrottlingException", 400)
        former, new = typed("status", "--region", "us-east-1"), typed("status", "--home-region", "us-east-1")
        assert "write --home-region" in former.err
        assert "--home-region" not in new.err
        both = typed("status", "--region", "us-east-1", "--home-region", "us-east-1")
        assert (both.code, both.out) == (2, "")
        assert "--region" not in typed("status", "--help").out.replace("--home-region", "").replace(
            "--target-region", ""
        )

    def test_when_the_reader_of_a_pipe_goes_away_nothing_is_complained_of(self) -> None:
        program = "from chalicelib.cli import main; main()"
        command = f"{sys.executable} -c '{program}' completion bash | true"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
        assert done.stderr == ""


class TestTrouble:
    def test_an_error_of_our_own_is_told_without_a_traceback(self) -> None:
        trouble = operator_error(KeyError("x"))
        assert trouble.exit_code == 254
        assert "internal error of xray-guard" in trouble.message

    def test_nothing_in_an_error_is_obeyed_by_a_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        operator_error(AwsError("kms:DescribeKey", "Odd\x1b[2J", "text \x1b]0;x\x07")).show()
        assert "\x1b" not in capsys.readouterr().err

    def test_what_another_writer_kept_from_being_stored_is_to_be_tried_again(self) -> None:
        trouble = operator_error(GuardError(Problem("BUSY", "met other writers")))
        assert (trouble.exit_code, trouble.remedy) == (254, "try again in a minute")
