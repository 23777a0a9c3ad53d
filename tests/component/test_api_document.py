"""What the API says of itself is true: schemathesis asks all that the document allows, and much that it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from sandbox.gateway import Gateway
from tests.component.calling import call
from tests.component.guarded import GUARD_ACCOUNT, guarded

FOLDER = Path(__file__).parent
SEED = "20261120"
"""The same questions every time; for others: st run with the options below and another seed."""

EXAMPLES = 20
"""Of fuzzing, for an operation. Beside these the coverage phase asks about six hundred questions in all."""


def test_no_answer_contradicts_the_document(tmp_path: Path) -> None:
    known = {"id": f"{GUARD_ACCOUNT}.us-east-1.1", "account": GUARD_ACCOUNT, "region": "us-east-1"}
    with guarded() as sandbox, Gateway(sandbox) as gateway:
        for _ in range(2):
            sandbox.client("xray").put_encryption_config(Type="NONE")
            assert sandbox.idle()
        served = tmp_path / "openapi.json"
        served.write_bytes(call(gateway, "/v1/openapi.json").body)
        surroundings = {
            **os.environ,
            "SCHEMATHESIS_HOOKS": "api_hooks",
            "PYTHONPATH": str(FOLDER),
            "XRAY_GUARD_KNOWN": json.dumps(known),
        }
        program = str(Path(sys.executable).with_name("st"))
        options = [
            "--url",
            gateway.url,
            "--phases",
            "coverage,fuzzing",
            "--max-examples",
            str(EXAMPLES),
            "--seed",
            SEED,
        ]
        done = subprocess.run(
            [program, "--config-file", str(FOLDER / "schemathesis.toml"), "run", str(served), *options],
            env=surroundings,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        function = sandbox.functions.find("app")
        assert function is not None
        log = sandbox.log("app")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 selected / 9 total" in done.stdout
    assert function.invocations > 300  # otherwise only the gateway would have answered
    assert "Traceback" not in log
