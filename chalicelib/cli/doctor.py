"""Whether the guard can do its work, asked of AWS one question at a time; every bad answer comes with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from chalicelib.auditlog.views import target_view
from chalicelib.aws.clients import call
from chalicelib.aws.tables import AUDIT_TABLE, TARGETS_TABLE
from chalicelib.cli.letters import Queue
from chalicelib.cli.session import Operator
from chalicelib.cli.trouble import Trouble, trouble_of
from chalicelib.cli.wording import time_text
from chalicelib.domain.errors import AwsError

GOOD, BAD, UNKNOWN = "good", "bad", "unknown"
RULE_PREFIX = "xray-guard-"
RULES = ("xray-guard-on_change", "xray-guard-on_key_change", "xray-guard-tick", "xray-guard-sweep")
LONGEST_WITHOUT_SWEEP = timedelta(hours=2)
LONGEST_OVERDUE = timedelta(minutes=10)
KMS_SOURCE = "kms.amazonaws.com"
DEPLOY = "deploy the template again (docs/deploy.md)"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one question came to. `remedy` is there unless it is good."""

    check: str
    status: str
    message: str
    remedy: str | None = None


class Doctor:
    """The questions, for the account and Region of the operator."""

    def __init__(self, operator: Operator, tables: tuple[str, str]) -> None:
        self._operator = operator
        self._tables = tables

    def findings(self, before_each: Callable[[str], None]) -> list[Finding]:
        """Every question's answer. One that AWS refuses is unknown, and the others are still asked."""
        found: list[Finding] = []
        for name, ask in self._questions():
            before_each(f"Looking at: {name}")
            try:
                found += [Finding(name, *answer) for answer in ask()]
            except AwsError as error:
                trouble = trouble_of(error)
                found.append(Finding(name, UNKNOWN, trouble.message, trouble.remedy or "try again"))
            except Trouble as trouble:
                found.append(Finding(name, BAD, trouble.message, trouble.remedy))
        return found

    def _questions(self) -> list[tuple[str, Callable[[], Iterator[tuple[str, ...]]]]]:
        return [
            ("trail", self._trail),
            ("rules", self._rules),
            ("functions", self._functions),
            ("tables", self._protected_tables),
            ("dead letters", self._queue),
            ("policy", self._policy),
            ("sweep", self._sweep),
            ("targets", self._targets),
        ]

    def _reading(self, service: str) -> Any:
        return self._operator.clients.reading(service, self._operator.region)

    # --- what brings events ----------------------------------------------------------------------------------------

    def _trail(self) -> Iterator[tuple[str, ...]]:
        client = self._reading("cloudtrail")
        region = self._operator.region
        trails = call("cloudtrail:DescribeTrails", client.describe_trails, includeShadowTrails=True)["trailList"]
        here = [one for one in trails if one.get("IsMultiRegionTrail") or one.get("HomeRegion") == region]
        writes, with_kms = [], []
        for trail in here:
            arn = trail["TrailARN"]
            if not call("cloudtrail:GetTrailStatus", client.get_trail_status, Name=arn).get("IsLogging"):
                continue
            selectors = call("cloudtrail:GetEventSelectors", client.get_event_selectors, TrailName=arn)
            if logs_writes_of(selectors, "xray.amazonaws.com"):
                writes.append(trail["Name"])
                if logs_writes_of(selectors, KMS_SOURCE):
                    with_kms.append(trail["Name"])
        if not writes:
            yield (
                BAD,
                f"no trail logs management write events in {region}, so no change is heard of before the next sweep",
                "make a trail that logs management write events in every Region, KMS included, and start it",
            )
        elif not with_kms:
            yield (
                BAD,
                f"{', '.join(writes)} leaves out KMS events, so changes to the keys are found by the sweep alone",
                f"take {KMS_SOURCE} out of the trail's excluded event sources",
            )
        else:
            yield GOOD, f"{', '.join(with_kms)} logs management write events, those of KMS too"

    def _rules(self) -> Iterator[tuple[str, ...]]:
        client = self._reading("events")
        listed: list[dict[str, Any]] = []
        page: dict[str, Any] = {}
        while True:
            answer = call("events:ListRules", client.list_rules, NamePrefix=RULE_PREFIX, **page)
            listed += answer["Rules"]
            if not answer.get("NextToken"):
                break
            page = {"NextToken": answer["NextToken"]}
        there = {rule["Name"]: rule for rule in listed}
        for name in sorted({*RULES, *there}):
            if name not in there:
                yield BAD, f"the rule {name} is not in {self._operator.region}", DEPLOY
            elif there[name]["State"] == "DISABLED":
                yield BAD, f"the rule {name} is off", f"aws events enable-rule --name {name}"
            elif not call("events:ListTargetsByRule", client.list_targets_by_rule, Rule=name)["Targets"]:
                yield BAD, f"the rule {name} calls nothing", DEPLOY
            else:
                yield GOOD, f"the rule {name} is on"

    def _functions(self) -> Iterator[tuple[str, ...]]:
        client = self._reading("lambda")
        for name in RULES:
            try:
                answer = call("lambda:GetFunctionConfiguration", client.get_function_configuration, FunctionName=name)
            except AwsError as error:
                if error.code != "ResourceNotFoundException":
                    raise
                yield BAD, f"the function {name} is not in {self._operator.region}", DEPLOY
                continue
            state = answer.get("State", "Active")
            concurrency = call("lambda:GetFunctionConcurrency", client.get_function_concurrency, FunctionName=name)
            if concurrency.get("ReservedConcurrentExecutions") == 0:
                yield (
                    BAD,
                    f"the function {name} is throttled to nothing",
                    f"aws lambda delete-function-concurrency --function-name {name}",
                )
            elif state not in ("Active", "Inactive"):  # Inactive: idle for long, and woken by the next call
                yield BAD, f"the function {name} is {state}: {answer.get('StateReason', 'no reason told')}", DEPLOY
            else:
                yield GOOD, f"the function {name} can run"

    # --- what keeps the record -------------------------------------------------------------------------------------

    def _protected_tables(self) -> Iterator[tuple[str, ...]]:
        client = self._reading("dynamodb")
        for name in self._tables:
            table = call("dynamodb:DescribeTable", client.describe_table, TableName=name)["Table"]
            backups = call("dynamodb:DescribeContinuousBackups", client.describe_continuous_backups, TableName=name)[
                "ContinuousBackupsDescription"
            ]
            state = backups.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus")
            faults = []
            if not table.get("DeletionProtectionEnabled"):
                faults.append(
                    ("can be deleted", f"aws dynamodb update-table --table-name {name} --deletion-protection-enabled")
                )
            if state != "ENABLED":
                faults.append(
                    (
                        "has no point-in-time recovery",
                        "aws dynamodb update-continuous-backups --table-name "
                        f"{name} --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true",
                    )
                )
            for fault, remedy in faults:
                yield BAD, f"the table {name} {fault}", remedy
            if not faults:
                yield GOOD, f"the table {name} is protected against deletion and can be restored"

    def _queue(self) -> Iterator[tuple[str, ...]]:
        queue = Queue(self._operator)
        waiting = queue.length()
        if waiting:
            what = "1 dead letter lies" if waiting == 1 else f"{waiting} dead letters lie"
            yield BAD, f"{what} in {queue.name}", "`xray-guard redrive` shows them, and with --yes sends them again"
        else:
            yield GOOD, f"{queue.name} is empty"

    # --- what the guard says of itself -----------------------------------------------------------------------------

    def _policy(self) -> Iterator[tuple[str, ...]]:
        digest = self._operator.policy.digest
        deployed = self._operator.guard_state().policy_digest
        if deployed is None:
            yield BAD, "the guard has not run under any policy yet", f"{DEPLOY}, and wait for its first sweep"
        elif deployed != digest:
            yield (
                BAD,
                f"the guard enforces {deployed[:12]}…, and {self._operator.policy_file} is {digest[:12]}…",
                f"{DEPLOY}, or name the document that was deployed with --policy PATH",
            )
        else:
            yield GOOD, f"{self._operator.policy_file} is valid, and is what the guard enforces"

    def _sweep(self) -> Iterator[tuple[str, ...]]:
        state = self._operator.guard_state()
        if state.paused:
            yield (
                BAD,
                f"paused since {time_text(state.paused.at)} by {state.paused.by}: {state.paused.reason}",
                "`xray-guard resume` as soon as the reason is gone",
            )
        if state.swept_at is None:
            remedy = "the first comes within an hour of deploying; else look at the logs of xray-guard-sweep"
            yield BAD, "there was no sweep yet", remedy
        elif self._operator.now() - state.swept_at > LONGEST_WITHOUT_SWEEP:
            yield (
                BAD,
                f"the last sweep was at {time_text(state.swept_at)}, more than two hours ago",
                "look at the rule and the logs of xray-guard-sweep",
            )
        else:
            yield GOOD, f"the last sweep was at {time_text(state.swept_at)}"

    def _targets(self) -> Iterator[tuple[str, ...]]:
        now = self._operator.now()
        seen = 0
        bad = False
        for state in self._operator.store.states():
            seen += 1
            view = target_view(state)
            for arn in view.orphan_keys:
                bad = True
                yield (
                    BAD,
                    f"the guard made {arn} and does not use it",
                    "make sure that nothing else does, then schedule its deletion yourself: the guard never will",
                )
            if view.due is not None and now - view.due > LONGEST_OVERDUE:
                bad = True
                yield (
                    BAD,
                    f"{view.target} has been due since {time_text(view.due)}",
                    "look at the rule and the logs of xray-guard-tick",
                )
            if view.outcome is not None and view.outcome.value == "FAILED":
                bad = True
                yield (
                    BAD,
                    f"{view.target} could not be put right: {view.reason}",
                    f"`xray-guard history --target {view.target}` says why",
                )
        if not bad:
            yield GOOD, f"nothing is overdue, failed or left over in {seen} target(s)"


def logs_writes_of(selectors: dict[str, Any], source: str) -> bool:
    """Whether a trail's event selectors, basic or advanced, take in management write events of the source.

    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/logging-management-events-with-cloudtrail.html
    """
    return any(
        one.get("IncludeManagementEvents", True)
        and one.get("ReadWriteType", "All") in ("All", "WriteOnly")
        and source not in one.get("ExcludeManagementEventSources", ())
        for one in selectors.get("EventSelectors") or ()
    ) or any(_advanced_takes(one, source) for one in selectors.get("AdvancedEventSelectors") or ())


def _advanced_takes(selector: dict[str, Any], source: str) -> bool:
    """A selector takes what every one of its fields takes."""
    known = {"eventCategory": "Management", "readOnly": "false", "eventSource": source}
    names = {field["Field"] for field in selector.get("FieldSelectors", ())}
    return (
        "eventCategory" in names
        and all(
            _field_takes(field, known[field["Field"]])
            for field in selector.get("FieldSelectors", ())
            if field["Field"] in known
        )
        and not (names - known.keys() - {"eventType", "sessionCredentialFromConsole", "userIdentity.arn"})
    )


def _field_takes(field: dict[str, Any], value: str) -> bool:
    wanted = (
        ("Equals", lambda text: value == text),
        ("StartsWith", value.startswith),
        ("EndsWith", value.endswith),
    )
    unwanted = (
        ("NotEquals", lambda text: value == text),
        ("NotStartsWith", value.startswith),
        ("NotEndsWith", value.endswith),
    )
    given = [any(fits(text) for text in field[name]) for name, fits in wanted if field.get(name)]
    refused = [any(fits(text) for text in field[name]) for name, fits in unwanted if field.get(name)]
    return (not given or any(given)) and not any(refused)


def table_names(environment: Any) -> tuple[str, str]:
    """The audit table and the targets table, as the store finds them."""
    return (
        environment.get("XRAY_GUARD_AUDIT_TABLE", AUDIT_TABLE),
        environment.get("XRAY_GUARD_TARGETS_TABLE", TARGETS_TABLE),
    )
