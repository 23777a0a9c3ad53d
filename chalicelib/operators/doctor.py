"""The checks of `xray-guard doctor`: can the guard work? Every failed check names its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any

from chalicelib.auditlog.views import target_view
from chalicelib.aws.clients import call
from chalicelib.aws.paging import pages
from chalicelib.aws.regions import enabled_regions
from chalicelib.aws.tables import AUDIT_TABLE, TARGETS_TABLE
from chalicelib.domain.errors import AwsError, denied_by_organization
from chalicelib.domain.stored import TargetState
from chalicelib.operators import protection
from chalicelib.operators.context import Operator
from chalicelib.operators.dead_letters import Queue
from chalicelib.operators.errors import OperatorError, operator_error
from chalicelib.operators.findings import BAD, DEPLOY, GOOD, LONGEST_WITHOUT_SWEEP, UNKNOWN, WARNING, Finding, logs_of
from chalicelib.operators.formatting import time_text
from chalicelib.operators.forwarding import Forwarding, invokes
from chalicelib.operators.trails import logs_writes_of

RULE_PREFIX = "xray-guard-"
RULES = tuple(f"xray-guard-{name}" for name in ("on_change", "on_key_change", "tick", "sweep", "event_history"))
LONGEST_UNREAD = timedelta(hours=3)
LONGEST_OVERDUE = timedelta(minutes=10)
KMS_SOURCE = "kms.amazonaws.com"
FIRST_SWEEP = "the guard was deployed a short time ago: its first sweep runs within an hour"


class Doctor:
    """The checks, for the account and Region of the operator."""

    def __init__(self, operator: Operator, tables: tuple[str, str]) -> None:
        self._operator = operator
        self._tables = tables

    def findings(self, before_each: Callable[[str], None]) -> list[Finding]:
        """Run every check. A check whose reads AWS denies has status unknown, and the other checks still run."""
        found: list[Finding] = []
        for name, check in self._checks():
            before_each(f"Checking: {name}")
            try:
                found += [Finding(name, *result) for result in check()]
            except AwsError as error:
                converted = operator_error(error)
                found.append(Finding(name, UNKNOWN, converted.message, converted.remedy or "try again"))
            except OperatorError as failure:
                found.append(Finding(name, BAD, failure.message, failure.remedy))
        return found

    def _checks(self) -> list[tuple[str, Callable[[], Iterator[tuple[str, ...]]]]]:
        return [
            ("trail", self._trail),
            ("rules", self._rules),
            ("other Regions", partial(Forwarding(self._operator).results, DEPLOY)),
            ("functions", self._functions),
            ("rights", self._rights),
            ("tables", self._tables_protected),
            ("table policies", self._tables_policies),
            ("anchors", self._anchors),
            ("dead letters", self._queue),
            ("policy", self._policy),
            ("sweep", self._sweep),
            ("targets", self._targets),
            ("event history", self._event_history),
        ]

    def _reading(self, service: str) -> Any:
        return self._operator.clients.reading(service, self._operator.region)

    # --- events ----------------------------------------------------------------------------------------------------

    def _trail(self) -> Iterator[tuple[str, ...]]:
        region = self._operator.region
        writes, with_kms = self._logging(region)
        if not writes:
            yield (
                BAD,
                f"no trail logs management write events in {region}: the guard notices changes only at the next sweep",
                "create a trail that logs management write events in every Region, KMS included, and start it: "
                "aws cloudtrail create-trail --name NAME --s3-bucket-name BUCKET --is-multi-region-trail && "
                "aws cloudtrail start-logging --name NAME",
            )
        elif not with_kms:
            yield (
                BAD,
                f"{', '.join(writes)} excludes KMS events: the guard notices changes to keys only at the next sweep",
                f"remove {KMS_SOURCE} from the trail's excluded event sources: see "
                f"aws cloudtrail get-event-selectors --trail-name {writes[0]}, then put-event-selectors",
            )
        elif not any(with_kms.values()) and (deaf := self._regions_without_trail()):
            yield (
                BAD,
                f"no trail logs management write events, KMS included, in {', '.join(deaf)}: the guard notices changes "
                "there only at the next sweep",
                f"aws cloudtrail update-trail --name {next(iter(with_kms))} --is-multi-region-trail",
            )
        else:
            yield GOOD, f"{', '.join(with_kms)} logs management write events, KMS included"

    def _regions_without_trail(self) -> list[str]:
        """Return the other enabled Regions, without those that the organization denies, in which no trail logs KMS."""
        found = []
        for region in enabled_regions(self._operator.clients, self._operator.region):
            try:
                if region != self._operator.region and not self._logging(region)[1]:
                    found.append(region)
            except AwsError as error:
                if not denied_by_organization(error):
                    raise
        return found

    def _logging(self, region: str) -> tuple[list[str], dict[str, bool]]:
        """Return the trails that log management write events in a Region.

        Returns all of them, and those that include KMS's events, each with whether it covers every Region.
        """
        client = self._operator.clients.reading("cloudtrail", region)
        writes: list[str] = []
        with_kms: dict[str, bool] = {}
        trails = call("cloudtrail:DescribeTrails", client.describe_trails, includeShadowTrails=True)["trailList"]
        local = [one for one in trails if one.get("IsMultiRegionTrail") or one.get("HomeRegion") == region]
        for trail in local:
            arn = trail["TrailARN"]
            if not call("cloudtrail:GetTrailStatus", client.get_trail_status, Name=arn).get("IsLogging"):
                continue
            selectors = call("cloudtrail:GetEventSelectors", client.get_event_selectors, TrailName=arn)
            if logs_writes_of(selectors, "xray.amazonaws.com"):
                writes.append(trail["Name"])
                if logs_writes_of(selectors, KMS_SOURCE):
                    with_kms[trail["Name"]] = bool(trail.get("IsMultiRegionTrail"))
        return writes, with_kms

    def _rules(self) -> Iterator[tuple[str, ...]]:
        client = self._reading("events")
        responses = pages("events:ListRules", client.list_rules, {"NextToken": "NextToken"}, NamePrefix=RULE_PREFIX)
        existing = {rule["Name"]: rule for response in responses for rule in response["Rules"]}
        for name in sorted({*RULES, *existing}):
            if name not in existing:
                yield BAD, f"the rule {name} does not exist in {self._operator.region}", DEPLOY
            elif existing[name]["State"] == "DISABLED":
                yield BAD, f"the rule {name} is disabled", f"aws events enable-rule --name {name}"
            elif not invokes(self._operator, name):
                yield BAD, f"the rule {name} does not invoke the function {name}", DEPLOY
            else:
                yield GOOD, f"the rule {name} is enabled"

    def _functions(self) -> Iterator[tuple[str, ...]]:
        client = self._reading("lambda")
        for name in RULES:
            try:
                answer = call("lambda:GetFunctionConfiguration", client.get_function_configuration, FunctionName=name)
            except AwsError as error:
                if error.code != "ResourceNotFoundException":
                    raise
                yield BAD, f"the function {name} does not exist in {self._operator.region}", DEPLOY
                continue
            state = answer.get("State", "Active")
            concurrency = call("lambda:GetFunctionConcurrency", client.get_function_concurrency, FunctionName=name)
            if concurrency.get("ReservedConcurrentExecutions") == 0:
                yield (
                    BAD,
                    f"the function {name} has a reserved concurrency of 0, so it never runs",
                    f"aws lambda delete-function-concurrency --function-name {name}",
                )
            elif state not in ("Active", "Inactive"):  # Inactive: idle for weeks; the next invocation activates it
                yield BAD, f"the function {name} is {state}: {answer.get('StateReason', 'no reason given')}", DEPLOY
            else:
                yield GOOD, f"the function {name} can run"

    @cached_property
    def _deployed(self) -> dict[str, str]:
        """The environment variables of the deployed function that sweeps."""
        answer = call(
            "lambda:GetFunctionConfiguration",
            self._reading("lambda").get_function_configuration,
            FunctionName="xray-guard-sweep",
        )
        variables: dict[str, str] = answer.get("Environment", {}).get("Variables", {})
        return variables

    def _rights(self) -> Iterator[tuple[str, ...]]:
        if self._deployed.get("XRAY_GUARD_RIGHTS") == "observe":
            yield (
                WARNING,
                "the guard was deployed with Rights=observe: it records drift and remediates nothing",
                "to let it remediate: make deploy RIGHTS=enforce",
            )
        else:
            yield GOOD, "the guard's role may remediate"

    # --- the audit log ---------------------------------------------------------------------------------------------

    def _tables_protected(self) -> Iterator[tuple[str, ...]]:
        for name in self._tables:
            yield from protection.table(self._reading("dynamodb"), name)

    def _tables_policies(self) -> Iterator[tuple[str, ...]]:
        for name in self._tables:
            yield from protection.table_policy(self._reading("dynamodb"), name)

    def _anchors(self) -> Iterator[tuple[str, ...]]:
        return protection.anchors(
            self._reading("s3"), self._deployed.get("XRAY_GUARD_ANCHOR_BUCKET"), self._operator.now
        )

    def _queue(self) -> Iterator[tuple[str, ...]]:
        queue = Queue(self._operator)
        waiting = queue.length()
        if waiting:
            what = "1 dead-letter message" if waiting == 1 else f"{waiting} dead-letter messages"
            yield (
                BAD,
                f"{queue.name} contains {what}",
                "list with `xray-guard redrive`, then redrive with `xray-guard redrive --yes`",
            )
        else:
            yield GOOD, f"{queue.name} is empty"

    # --- the guard's own state -------------------------------------------------------------------------------------

    def _policy(self) -> Iterator[tuple[str, ...]]:
        deployed = self._operator.guard_state().policy_digest
        if deployed is None:
            if self._is_fresh:
                yield GOOD, FIRST_SWEEP
            else:
                yield BAD, "the guard has not run with a policy yet", f"{DEPLOY}, and wait for the first sweep"
            return
        if self._operator.policy_path is None:
            policy = self._operator.policy_in_force()
            assert policy is not None, "a policy is in force"
            yield GOOD, f"the guard enforces a policy that this release reads, digest {policy.digest[:12]}"
            return
        digest = self._operator.file_policy.digest
        if deployed != digest:
            yield (
                BAD,
                f"the guard enforces {deployed[:12]}…, and {self._operator.policy_file} is {digest[:12]}…",
                f"{DEPLOY}, or name the deployed document with --policy PATH",
            )
        else:
            yield GOOD, f"{self._operator.policy_file} is valid, and the guard enforces it"

    @cached_property
    def _is_fresh(self) -> bool:
        """Whether the guard was deployed so short a time ago that its first sweep may be still to come."""
        answer = call(
            "lambda:GetFunctionConfiguration",
            self._reading("lambda").get_function_configuration,
            FunctionName="xray-guard-sweep",
        )
        modified = datetime.fromisoformat(answer["LastModified"])
        return self._operator.now() - modified < LONGEST_WITHOUT_SWEEP

    def _sweep(self) -> Iterator[tuple[str, ...]]:
        state = self._operator.guard_state()
        if pause := state.paused:
            yield (
                BAD,
                f"{pause.by} paused the guard at {time_text(pause.at)}: {pause.reason}",
                "run `xray-guard resume` when the reason for the pause no longer applies",
            )
        if state.swept_at is None:
            if self._is_fresh:
                yield GOOD, FIRST_SWEEP
            else:
                yield BAD, "no sweep has run yet, though the guard was deployed hours ago", logs_of("xray-guard-sweep")
        elif self._operator.now() - state.swept_at > LONGEST_WITHOUT_SWEEP:
            yield (
                BAD,
                f"the last sweep was at {time_text(state.swept_at)}, more than two hours ago",
                logs_of("xray-guard-sweep"),
            )
        else:
            yield GOOD, f"the last sweep was at {time_text(state.swept_at)}"

    def _own_states(self) -> Iterator[TargetState]:
        """The states of the targets that the guard covers: those of its account."""
        account = f"{self._operator.identity.account}/"
        return (state for state in self._operator.store.states() if state.target.startswith(account))

    def _targets(self) -> Iterator[tuple[str, ...]]:
        now, guard = self._operator.now(), self._operator.guard_state()
        seen = 0
        bad = False
        for state in self._own_states():
            seen += 1
            view = target_view(state, guard, now)
            for arn in view.orphan_keys:
                bad = True
                yield (
                    BAD,
                    f"the guard created {arn} and does not use it",
                    "check that nothing else uses it, then schedule its deletion yourself, the guard deletes no keys: "
                    f"aws kms schedule-key-deletion --region {view.region} --key-id {arn}",
                )
            # Under a break-glass a target is due every minute, and no state is stored as long as nothing changes.
            if view.due is not None and now - view.due > LONGEST_OVERDUE and not view.suppressions:
                bad = True
                yield (
                    BAD,
                    f"the check of {view.target} has been overdue since {time_text(view.due)}",
                    logs_of("xray-guard-tick", "1h"),
                )
            if view.outcome is not None and view.outcome.value == "FAILED":
                bad = True
                incident = f"show {view.incident.id}" if view.incident else f"history --target {view.target}"
                yield (
                    BAD,
                    f"the guard could not remediate {view.target}: {view.reason}",
                    f"xray-guard {incident}",
                )
            for glass in view.suppressions:
                until = time_text(glass.until)
                yield GOOD, f"a break-glass suspends remediation of {view.target} until {until}: {glass.reason}"
        if not bad:
            targets = "1 target" if seen == 1 else f"{seen} targets"
            yield GOOD, f"{targets}: none overdue, none failed, no unused key"

    def _event_history(self) -> Iterator[tuple[str, ...]]:
        now = self._operator.now()
        first_seen = {state.target: state.first_seen for state in self._own_states()}
        read = self._operator.read_histories(sorted(first_seen))
        bad = False
        for target, since in sorted(first_seen.items()):
            progress = read.get(target)
            until = (progress.until if progress else None) or since
            if progress and progress.deaf_since:
                bad = True
                yield (
                    BAD,
                    f"the guard has received no event from {target} since {time_text(progress.deaf_since)}",
                    "check the rules and functions above, and the forwarding of events from that Region: "
                    f"make forward REGIONS={target.partition('/')[2]}",
                )
            if until is not None and now - until > LONGEST_UNREAD:
                bad = True
                yield (
                    BAD,
                    f"Event history of {target} was not read since {time_text(until)}",
                    "check that the guard's role may call cloudtrail:LookupEvents there: "
                    + logs_of("xray-guard-event_history", "6h"),
                )
        if any(each.matched_otherwise for each in read.values()) and not any(
            each.matched_by_id for each in read.values()
        ):
            bad = True
            yield (
                BAD,
                "events have other ids in Event history than on EventBridge, so an event that arrives more than 20 "
                "minutes late may be recorded twice",
                "report it to the guard's maintainers with the output of `xray-guard history --target guard -o json`",
            )
        if not bad:
            targets = "1 target" if len(read) == 1 else f"{len(read)} targets"
            yield GOOD, f"Event history was read of {targets}, and no event is being missed"


def table_names(environment: Any) -> tuple[str, str]:
    """The names of the audit table and the targets table."""
    return (
        environment.get("XRAY_GUARD_AUDIT_TABLE", AUDIT_TABLE),
        environment.get("XRAY_GUARD_TARGETS_TABLE", TARGETS_TABLE),
    )
