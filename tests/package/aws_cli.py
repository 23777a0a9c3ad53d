"""The AWS CLI in this process: its own parsers, limits and request models, with AWS's side played by a table."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from awscli.clidriver import create_clidriver

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@dataclass(frozen=True)
class Response:
    """What AWS answers. The CLI looks at the status code alone."""

    status_code: int = HTTPStatus.OK


@dataclass
class Aws:
    """AWS without any stack, which accepts every request. `requests` are the operations and bodies it received."""

    requests: list[tuple[str, Any]] = field(default_factory=list)

    def __call__(self, model: Any, params: Mapping[str, Any], **_: Any) -> tuple[Response, dict[str, Any]]:
        """Answer instead of the network; botocore calls this for `before-call`."""
        self.requests.append((model.name, params["body"]))
        found = RESPONSES.get(model.name, {})
        if model.name == "DescribeStacks":
            found = self._stack(params["body"]["StackName"])
        status = HTTPStatus.BAD_REQUEST if "Error" in found else HTTPStatus.OK
        return Response(status), {**found, "ResponseMetadata": {"HTTPStatusCode": status}}

    def _stack(self, name: str) -> dict[str, Any]:
        """The stack as it is once a change set was executed; before that there is none."""
        if "ExecuteChangeSet" in [operation for operation, _ in self.requests]:
            return {"Stacks": [{"StackName": name, "StackStatus": "CREATE_COMPLETE"}]}
        return {"Error": {"Code": "ValidationError", "Message": f"Stack with id {name} does not exist"}}


RESPONSES: dict[str, dict[str, Any]] = {
    "CreateChangeSet": {"Id": "arn:aws:cloudformation:us-east-1:111122223333:changeSet/c/1", "StackId": "s"},
    "DescribeChangeSet": {"Status": "CREATE_COMPLETE", "Changes": []},
    "DescribeTable": {"Table": {"TableStatus": "ACTIVE"}},
    "Invoke": {"StatusCode": 200, "Payload": io.BytesIO(b"{}")},
}


@dataclass(frozen=True)
class Outcome:
    """How the CLI ended: its exit code, and what it wrote to stderr."""

    code: int
    errors: str


def run(arguments: Sequence[str], folder: Path, aws: Aws) -> Outcome:
    """Run `aws` with arguments, in a folder. Exit code 252 means that the CLI could not read them."""
    errors = io.StringIO()
    with _surroundings(folder), contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        driver = create_clidriver()
        driver.session.register("before-call", aws)
        try:
            code = driver.main(list(arguments))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return Outcome(code, errors.getvalue())


@contextlib.contextmanager
def _surroundings(folder: Path) -> Iterator[None]:
    """The CLI's environment and working directory, put back afterwards."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("AWS_") and name != "AWS_DATA_PATH":  # awscli sets this one when it is imported
            del os.environ[name]
    os.environ.update(ENVIRONMENT)
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
