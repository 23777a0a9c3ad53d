"""Whoever runs a command, and what the command needs of AWS and of the policy, each made when it is first asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from chalicelib.aws.clients import Clients
    from chalicelib.aws.clock import AwsClock
    from chalicelib.aws.logreads import LogStore
    from chalicelib.domain.model import Actor
    from chalicelib.domain.policy import Policy
    from chalicelib.domain.stored import GuardState, Record
    from chalicelib.loop.guard import Guard

LEASE_SECONDS = 420
"""A request's signature lives five minutes: what was sent in time has had its effect, or none, before this is over."""

GUARD_ROLE = "xray-guard"
"""The name that the template gives the guard's role."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, by STS."""

    account: str
    partition: str
    arn: str
    user_id: str


class Operator:
    """One run of the command line. `sleep` is there for those who cannot wait."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self.sleep = sleep
        self.output = "table"
        self.profile: str | None = None
        self.region_name: str | None = None
        self.policy_path: str | None = None

    def choose(self, option: str, value: str) -> None:
        """Keep one of the common options."""
        setattr(self, option, value)

    def again(self) -> Operator:
        """The same options, with nothing made yet: whoever signed in meanwhile is signed in."""
        fresh = Operator(self.sleep)
        for option in ("output", "profile", "region_name", "policy_path"):
            fresh.choose(option, getattr(self, option))
        return fresh

    # --- AWS -------------------------------------------------------------------------------------------------------

    @cached_property
    def session(self) -> Any:
        """botocore's session for the profile."""
        import botocore.session

        return botocore.session.Session(profile=self.profile)

    @cached_property
    def clients(self) -> Clients:
        """The operator's own credentials, and nobody else's."""
        from chalicelib.aws.clients import Clients

        return Clients(self.session)

    @cached_property
    def region(self) -> str:
        """Where the guard is deployed. Raises botocore's NoRegionError where nothing says so."""
        found = self.region_name or os.environ.get("AWS_REGION") or self.session.get_config_variable("region")
        if not found:
            from botocore.exceptions import NoRegionError

            raise NoRegionError
        return str(found)

    @cached_property
    def clock(self) -> AwsClock:
        """AWS's time, by the answers of DynamoDB."""
        from chalicelib.aws.clock import AwsClock

        return AwsClock()

    def now(self) -> datetime:
        """Aware, UTC: AWS's time where AWS was asked anything, else the host's."""
        return self.clock.now()

    @cached_property
    def identity(self) -> Identity:
        """GetCallerIdentity."""
        from chalicelib.aws.clients import call
        from chalicelib.domain.model import arn_part

        answer = call("sts:GetCallerIdentity", self.clients.reading("sts", self.region).get_caller_identity)
        return Identity(answer["Account"], arn_part(answer["Arn"], 1), answer["Arn"], answer.get("UserId", ""))

    @property
    def actor(self) -> Actor:
        """The operator, named as CloudTrail's records would be read."""
        from chalicelib.domain.actors import read_actor

        arn = self.identity.arn
        assumed = ":assumed-role/" in arn
        return read_actor({"type": "AssumedRole" if assumed else "IAMUser", "arn": arn})

    @cached_property
    def store(self) -> LogStore:
        """The tables."""
        from chalicelib.wiring import make_log_store

        return make_log_store(self.clients, self.region, self.clock)

    def guard_state(self) -> GuardState:
        """The guard's own state: one read, which also tells whether there are tables and what time it is."""
        from chalicelib.domain.stored import GUARD_CHAIN

        return self.store.load(GUARD_CHAIN).guard

    @cached_property
    def role_arn(self) -> str:
        """The role that the deployed guard runs as."""
        told = os.environ.get("XRAY_GUARD_ROLE_ARN")
        return told or f"arn:{self.identity.partition}:iam::{self.identity.account}:role/{GUARD_ROLE}"

    # --- the policy ------------------------------------------------------------------------------------------------

    @cached_property
    def policy_file(self) -> Path:
        """The document that is meant."""
        from chalicelib.wiring import POLICIES

        path = Path(self.policy_path) if self.policy_path else POLICIES
        return path / "policy.json" if path.is_dir() else path

    @cached_property
    def policy(self) -> Policy:
        """The document, validated here and now: the command line needs no stamp, for it does what stamping does."""
        from chalicelib.cli.trouble import CONFIGURATION, Trouble
        from chalicelib.operators import policy_check

        try:
            checked = policy_check.validate(self.policy_file)
        except OSError as error:
            raise Trouble(
                f"the policy {self.policy_file} cannot be read: {error.strerror or error}",
                "name the document with --policy PATH",
                CONFIGURATION,
            ) from error
        if checked.policy is None:
            findings = "\n".join(f"  {finding}" for finding in checked.errors)
            raise Trouble(f"{self.policy_file} is not a valid policy:\n{findings}", "mend it first", CONFIGURATION)
        return checked.policy

    # --- the loop --------------------------------------------------------------------------------------------------

    def acting_guard(self, emit: Callable[[Record], None]) -> Guard:
        """The loop with the operator's credentials, for real."""
        from msgspec.structs import replace

        from chalicelib.wiring import make_guard

        who = self.identity
        guard = make_guard(
            self.clients,
            self.policy,
            account=who.account,
            partition=who.partition,
            region=self.region,
            role_arn=self.role_arn,
            emit=emit,
            lease_seconds=LEASE_SECONDS,
            worker=f"xray-guard/{who.arn}/{os.getpid()}",
        )
        return replace(guard, store=self.store, clock=self.clock)

    def looking_guard(self) -> Guard:
        """The loop that only looks: it can neither write to the tables nor change anything in AWS."""
        from msgspec.structs import replace

        from chalicelib.cli.looking import LookingStore, looking_reach
        from chalicelib.domain.errors import AwsError
        from chalicelib.domain.stored import GUARD_CHAIN

        guard = self.acting_guard(lambda record: None)
        try:
            self.store.load(GUARD_CHAIN)
            store = LookingStore(self.store)
        except AwsError as error:
            if error.code != "ResourceNotFoundException":
                raise
            say(
                f"There are no tables of the guard in {self.region}, so this is judged without its memory: "
                "every target as if seen for the first time."
            )
            store = LookingStore(None)
        return replace(guard, store=store, reach=looking_reach(guard.reach))


def say(text: str = "") -> None:
    """Words for people: to stderr, so that stdout holds nothing but data."""
    click.echo(text, err=True)


pass_operator = click.make_pass_decorator(Operator, ensure=True)
