"""An operator at the command line, in an AWS that lives in this process: what is typed, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import botocore.loaders
import botocore.session
from click.testing import CliRunner
from moto import mock_aws
from msgspec.structs import replace

import sandbox.additions  # noqa: F401 - puts X-Ray's setting and AWS's KMS in moto's place
from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.historystore import DynamoHistory
from chalicelib.cli import cli
from chalicelib.domain.model import ChangeEvent, Target
from chalicelib.domain.policy import parse
from chalicelib.loop.guard import Guard
from chalicelib.operators.context import Operator
from chalicelib.wiring import make_guard, make_history_store
from sandbox.knobs import KNOBS

PROJECT = Path(__file__).parents[2]
ACCOUNT = "123456789012"
REGION = "us-east-1"
HERE = f"{ACCOUNT}/{REGION}"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/xray-guard"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "none", "AWS_REGION": REGION}


SERVICE_MODELS = botocore.loaders.create_loader()
"""Read once a process: every command has a session of its own, and reading the models again is most of its time."""


def with_models(session: Any) -> Any:
    """The session, knowing the service models already."""
    session.register_component("data_loader", SERVICE_MODELS)
    return session


class Typist(Operator):
    """The operator as the program has it, but for where the service models come from."""

    @cached_property
    def session(self) -> Any:
        """botocore's session for the profile."""
        return with_models(botocore.session.Session(profile=self.profile))


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def typed(*args: str, sleep: Callable[[float], None] | None = None, stdin: str | None = None) -> Answer:
    """Run a command line in this process. A traceback fails the test, as every command must end by itself."""
    operator = Typist(sleep) if sleep else Typist()
    result = CliRunner().invoke(cli, list(args), obj=operator, input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert "Traceback" not in result.output
    return Answer(result.exit_code, result.stdout, result.stderr)


@contextmanager
def world(*, tables: bool = True) -> Iterator[None]:
    """An empty AWS account, with the guard's tables as the template has them."""
    before = KNOBS.settle_seconds
    KNOBS.settle_seconds = 0.0
    with mock_aws():
        if tables:
            make_tables()
        yield
    KNOBS.settle_seconds = before


@contextmanager
def turned(**knobs: Any) -> Iterator[None]:
    """The same AWS, for a while with other knobs."""
    before = {name: getattr(KNOBS, name) for name in knobs}
    KNOBS.turn(knobs)
    yield
    KNOBS.turn(before)


def make_tables() -> None:
    """The tables that ship."""
    resources = json.loads((PROJECT / ".chalice" / "tables.json").read_text("utf-8"))["Resources"]
    for resource in resources.values():
        if resource.get("Type") == "AWS::DynamoDB::Table":
            known = dict(resource["Properties"])
            recovery = known.pop("PointInTimeRecoverySpecification")
            del known["ResourcePolicy"]  # only where the deployment names who may write
            known["SSESpecification"] = {"Enabled": known["SSESpecification"]["SSEEnabled"]}
            client("dynamodb").create_table(**known)
            client("dynamodb").update_continuous_backups(
                TableName=known["TableName"], PointInTimeRecoverySpecification=recovery
            )


def histories() -> DynamoHistory:
    """What the guard keeps of Event history."""
    session = with_models(botocore.session.Session())
    return make_history_store(Clients(session), REGION, AwsClock())


def client(service: str, region: str = REGION) -> Any:
    """A boto3 client of the account's administrator."""
    session = boto3.Session(botocore_session=with_models(botocore.session.Session()))
    return session.client(service, region_name=region)


def guard() -> Guard:
    """The guard as it is deployed, with the policy that ships; one target after the other, as moto knows no threads."""
    policy = parse((PROJECT / "policies" / "policy.json").read_bytes())
    made = make_guard(
        Clients(with_models(botocore.session.Session())),
        policy,
        account=ACCOUNT,
        partition="aws",
        region=REGION,
        role_arn=ROLE,
        emit=lambda record: None,
        lease_seconds=120,
        worker="on_change/1",
    )
    return replace(made, fan_out=lambda jobs: [job() for job in jobs])


def event(name: str = "13_success_none_root_console") -> dict[str, Any]:
    """An event of the folder, in this account."""
    text = (PROJECT / "tests" / "events" / f"{name}.json").read_text("utf-8")
    read: dict[str, Any] = json.loads(text.replace("111122223333", ACCOUNT))
    return read


def delivered(document: dict[str, Any]) -> None:
    """Run the guard with an event."""
    from chalicelib.domain.events import read_change
    from chalicelib.loop.reconcile import reconcile

    change = read_change(document)
    assert isinstance(change, ChangeEvent)
    reconcile(guard(), change.target, change.trigger, change)


def swept(*regions: str) -> None:
    """Let the guard sweep these Regions."""
    from chalicelib.loop.sweep import sweep

    report = sweep(guard(), lambda: regions or (REGION,), None, lambda: 1000.0)
    assert not report.unreached


def setting(region: str = REGION) -> dict[str, Any]:
    """What X-Ray answers."""
    document: dict[str, Any] = client("xray", region).get_encryption_config()["EncryptionConfig"]
    return document


def target(region: str) -> str:
    """The account's target in the Region."""
    return str(Target(ACCOUNT, region))
