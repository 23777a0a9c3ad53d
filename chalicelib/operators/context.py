"""The context of one command: the operator's options, AWS clients, tables and policy, each created on first use."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chalicelib.operators.output import say

if TYPE_CHECKING:
    from chalicelib.aws.clients import Clients
    from chalicelib.aws.clock import AwsClock
    from chalicelib.aws.logreads import LogStore
    from chalicelib.domain.lookups import Progress
    from chalicelib.domain.model import Actor, Trigger
    from chalicelib.domain.policy import Policy
    from chalicelib.domain.ports import Store
    from chalicelib.domain.stored import GuardState, Record
    from chalicelib.loop.guard import Guard

LEASE_SECONDS = 420
"""A signature is valid for five minutes, so no request of a run can take effect after its lease."""

GUARD_ROLE = "xray-guard"
"""The template's name for the guard's role."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller, according to STS."""

    account: str
    partition: str
    arn: str
    user_id: str


class Operator:
    """One run of the command line. Tests pass their own `sleep`."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self.sleep = sleep
        self.output = "table"
        self.profile: str | None = None
        self.home_region: str | None = None
        self.region_name: str | None = None
        self.policy_path: str | None = None

    def set_option(self, option: str, value: str) -> None:
        """Set one of the common options."""
        setattr(self, option, value)

    def with_fresh_credentials(self) -> Operator:
        """A copy with the same options and new clients, which read the credentials again."""
        fresh = Operator(self.sleep)
        for option in ("output", "profile", "home_region", "region_name", "policy_path"):
            fresh.set_option(option, getattr(self, option))
        return fresh

    # --- AWS -------------------------------------------------------------------------------------------------------

    @cached_property
    def session(self) -> Any:
        """botocore's session for the profile."""
        import botocore.session

        return botocore.session.Session(profile=self.profile)

    @cached_property
    def clients(self) -> Clients:
        """AWS clients with the operator's own credentials."""
        from chalicelib.aws.clients import Clients

        return Clients(self.session)

    @cached_property
    def region(self) -> str:
        """The Region where the guard is deployed, its home. Raises botocore's NoRegionError if none is configured.

        From --home-region, XRAY_GUARD_HOME_REGION, or `xray_guard_home_region` of the profile; else the Region of the
        AWS configuration. `--region` names it for one more release.
        """
        found = (
            self.home_region
            or self.region_name
            or os.environ.get("XRAY_GUARD_HOME_REGION")
            or self.session.get_scoped_config().get("xray_guard_home_region")
            or self._configured_region
        )
        if not found:
            from botocore.exceptions import NoRegionError

            raise NoRegionError
        return str(found)

    @property
    def default_region(self) -> str:
        """The Region of a target that is not named: that of the AWS configuration, else the guard's."""
        return self.region_name or self._configured_region or self.region

    @property
    def _configured_region(self) -> str | None:
        found: str | None = os.environ.get("AWS_REGION") or self.session.get_config_variable("region")
        return found

    @cached_property
    def clock(self) -> AwsClock:
        """AWS's time, from DynamoDB's responses."""
        from chalicelib.aws.clock import AwsClock

        return AwsClock()

    def now(self) -> datetime:
        """The time, aware and in UTC: AWS's after the first response, before that the host's."""
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
        """The operator, named as in CloudTrail's records."""
        from chalicelib.domain.actors import read_actor

        arn = self.identity.arn
        assumed = ":assumed-role/" in arn
        return read_actor({"type": "AssumedRole" if assumed else "IAMUser", "arn": arn})

    @property
    def trigger(self) -> Trigger:
        """The trigger of a run that the operator starts."""
        from chalicelib.domain.model import Trigger, TriggerKind

        return Trigger(TriggerKind.OPERATOR, actor=self.actor)

    @cached_property
    def store(self) -> LogStore:
        """The tables."""
        from chalicelib.wiring import make_log_store

        return make_log_store(self.clients, self.region, self.clock)

    def read_histories(self, targets: Sequence[str]) -> Mapping[str, Progress]:
        """How far Event history was read, by target; nothing of a target whose history was never read."""
        from chalicelib.wiring import make_history_store

        return make_history_store(self.clients, self.region, self.clock).progress(targets)

    def guard_state(self) -> GuardState:
        """The guard's own state. Raises FormatTooNew if a newer release stored it."""
        from chalicelib.domain.stored import GUARD_CHAIN

        return self.store.load(GUARD_CHAIN).guard

    def find_tables(self) -> None:
        """One read that shows whether the tables exist, and sets the clock, whatever release stored the states."""
        from chalicelib.domain.stored import GUARD_CHAIN

        self.store.stored_state(GUARD_CHAIN)

    @cached_property
    def role_arn(self) -> str:
        """The role that the deployed guard runs as."""
        configured = os.environ.get("XRAY_GUARD_ROLE_ARN")
        return configured or f"arn:{self.identity.partition}:iam::{self.identity.account}:role/{GUARD_ROLE}"

    # --- the policy ------------------------------------------------------------------------------------------------

    @cached_property
    def policy_file(self) -> Path:
        """The path of --policy's document, or of the one that comes with this program."""
        from chalicelib.operators.policy_check import DOCUMENTS

        path = Path(self.policy_path) if self.policy_path else DOCUMENTS
        return path / "policy.json" if path.is_dir() else path

    @property
    def policy(self) -> Policy:
        """The policy to judge by.

        It is the document of --policy, else the one that the deployed guard enforces, from the audit log. Where no
        guard has run yet, it is the document that comes with this program.
        """
        return self._chosen_policy[0]

    @property
    def policy_name(self) -> str:
        """What `policy` is: the path of a document, or the policy in force."""
        return self._chosen_policy[1]

    @cached_property
    def _chosen_policy(self) -> tuple[Policy, str]:
        """The policy to judge by, and what it is; says both on stderr."""
        in_force = None if self.policy_path else self.policy_in_force()
        policy, name = (in_force, "the policy in force") if in_force else (self.file_policy, str(self.policy_file))
        say(f"Judging by {name}, digest {policy.digest[:12]}.")
        return policy, name

    def policy_in_force(self) -> Policy | None:
        """The policy that the deployed guard enforces; None if there are no tables, or no guard has run.

        Raises OperatorError if the log does not have its text.
        """
        from chalicelib.auditlog.enforced import policy_in_force
        from chalicelib.domain.errors import AwsError
        from chalicelib.domain.policy import parse
        from chalicelib.operators.errors import CONFIGURATION, OperatorError

        try:
            state = self.guard_state()
        except AwsError as error:
            if error.code != "ResourceNotFoundException":
                raise
            return None
        if state.policy_digest is None:
            return None
        name = f"the policy in force, digest {state.policy_digest[:12]}"
        found = policy_in_force(self.store, state)
        if found is None or found.document is None:
            raise OperatorError(
                f"the audit log does not have the text of {name}: a former release recorded it, or it is too long",
                "name the document that the guard was packaged with: --policy PATH",
                CONFIGURATION,
            )
        try:
            policy = parse(found.document.encode())
        except ValueError as error:
            raise OperatorError(
                f"this release of xray-guard cannot read {name}: {error}",
                "use the release of xray-guard that is deployed, or name a document: --policy PATH",
                CONFIGURATION,
            ) from error
        return policy

    @cached_property
    def file_policy(self) -> Policy:
        """The policy of `policy_file`. The command line validates it itself, so it needs no stamp."""
        from chalicelib.operators import policy_check
        from chalicelib.operators.errors import CONFIGURATION, OperatorError

        try:
            checked = policy_check.validate(self.policy_file)
        except OSError as error:
            raise OperatorError(
                f"the policy {self.policy_file} cannot be read: {error.strerror or error}",
                "name the document with --policy PATH",
                CONFIGURATION,
            ) from error
        if checked.policy is None:
            findings = "\n".join(f"  {finding}" for finding in checked.errors)
            raise OperatorError(
                f"{self.policy_file} is not a valid policy:\n{findings}",
                f"correct it until this finds nothing: xray-guard policy validate {self.policy_file}",
                CONFIGURATION,
            )
        return checked.policy

    # --- the loop --------------------------------------------------------------------------------------------------

    def acting_guard(self, emit: Callable[[Record], None], policy: Policy | None = None) -> Guard:
        """The loop with the operator's credentials; it can change AWS and the tables. It judges by `self.policy`."""
        from msgspec.structs import replace

        from chalicelib.wiring import make_guard

        who = self.identity
        guard = make_guard(
            self.clients,
            policy or self.policy,
            account=who.account,
            partition=who.partition,
            region=self.region,
            role_arn=self.role_arn,
            emit=emit,
            lease_seconds=LEASE_SECONDS,
            worker=f"xray-guard/{who.arn}/{os.getpid()}",
        )
        return replace(guard, store=self.store, clock=self.clock)

    def reading_guard(self) -> Guard:
        """The loop, read-only: it can change neither the tables nor anything else in AWS."""
        from msgspec.structs import replace

        from chalicelib.domain.errors import AwsError
        from chalicelib.domain.stored import GUARD_CHAIN
        from chalicelib.operators.read_only import ReadOnlyStore, read_only_reach

        guard = self.acting_guard(lambda record: None)
        try:
            self.store.load(GUARD_CHAIN)
            store: Store = ReadOnlyStore(self.store)
        except AwsError as error:
            if error.code != "ResourceNotFoundException":
                raise
            say(
                f"The guard's tables do not exist in {self.region}. This run judges without stored state, as if the "
                "guard saw every target for the first time."
            )
            store = ReadOnlyStore(None)
        return replace(guard, store=store, reach=read_only_reach(guard.reach))
