"""The check of the other Regions: are changes there forwarded to the guard?

In each other Region, the rule `xray-guard-forward` sends events to the bus `xray-guard` in the guard's Region; rules on
that bus invoke the functions. docs/adr/0017 says why. Every failed check names its remedy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from chalicelib.aws.clients import call
from chalicelib.aws.paging import pages
from chalicelib.aws.regions import enabled_regions
from chalicelib.aws.threads import Threads
from chalicelib.domain.errors import AwsError, denied_by_organization
from chalicelib.operators.context import Operator
from chalicelib.operators.dead_letters import FORWARD_QUEUE_NAME, Queue
from chalicelib.operators.errors import OperatorError, operator_error
from chalicelib.operators.findings import BAD, GOOD, UNKNOWN

BUS = "xray-guard"
FORWARD_RULE = "xray-guard-forward"
RECEIVING_RULES = ("xray-guard-on_change", "xray-guard-on_key_change")
"""The rules that invoke the functions: on the default bus and, under the same names, on the guard's bus."""
STACK = "xray-guard-region"
MISSING, DENIED, FORWARDS = "missing", "denied", "forwards"

Result = tuple[str, ...]


def invokes(operator: Operator, name: str, bus: str = "default") -> bool:
    """Whether the guard's rule invokes its function, which has the same name."""
    client = operator.clients.reading("events", operator.region)
    answer = call("events:ListTargetsByRule", client.list_targets_by_rule, Rule=name, EventBusName=bus)
    return any(target["Arn"].endswith(f":function:{name}") for target in answer["Targets"])


class Forwarding:
    """The check, with the operator's rights, for every enabled Region but the guard's."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    def results(self, deploy: str) -> Iterator[Result]:
        """Yield status, message and remedy. `deploy` is the remedy for what the guard's own stack lacks."""
        rules = self._rules()
        patterns = [json.loads(rules[name]["EventPattern"]) for name in RECEIVING_RULES if name in rules]
        try:
            on_bus = self._rules(BUS)
        except AwsError as error:
            if error.code != "ResourceNotFoundException":
                raise
            yield BAD, f"the event bus {BUS} does not exist in {self._operator.region}", deploy
            return
        for name in RECEIVING_RULES:
            if name not in on_bus:
                yield BAD, f"the rule {name} on the event bus {BUS} does not exist", deploy
            elif on_bus[name]["State"] == "DISABLED":
                remedy = f"aws events enable-rule --event-bus-name {BUS} --name {name}"
                yield BAD, f"the rule {name} on the event bus {BUS} is disabled", remedy
            elif name in rules and json.loads(on_bus[name]["EventPattern"]) != json.loads(rules[name]["EventPattern"]):
                remedy = f"aws events delete-rule --event-bus-name {BUS} --name {name} --force, then {deploy}"
                yield (
                    BAD,
                    f"the rule {name} on the event bus {BUS} does not match what the guard's own rule does",
                    remedy,
                )
            elif not invokes(self._operator, name, BUS):
                yield BAD, f"the rule {name} on the event bus {BUS} does not invoke the function {name}", deploy
        yield from self._regions({"$or": patterns} if len(patterns) == len(RECEIVING_RULES) else None)

    def _regions(self, pattern: dict[str, Any] | None) -> Iterator[Result]:
        home = self._operator.region
        regions = [one for one in enabled_regions(self._operator.clients, home) if one != home]
        found = dict(zip(regions, Threads()([partial(self._result, one, pattern) for one in regions]), strict=True))
        for result in found.values():
            if result[0] in (BAD, UNKNOWN):
                yield result
        by_status = {
            status: [region for region, result in found.items() if result[0] == status]
            for status in (MISSING, DENIED, FORWARDS)
        }
        if missing := by_status[MISSING]:
            yield (
                BAD,
                f"{', '.join(missing)}: there is no rule {FORWARD_RULE}, so the guard notices changes there only at "
                "the next sweep",
                f"make forward REGIONS={','.join(missing)}",
            )
        if denied := by_status[DENIED]:
            yield GOOD, f"the organization denies {', '.join(denied)}"
        if forwards := by_status[FORWARDS]:
            yield GOOD, f"{', '.join(forwards)}: changes are forwarded to the guard"

    def _result(self, region: str, pattern: dict[str, Any] | None) -> Result:
        """Return the result for one Region: MISSING, DENIED or FORWARDS, or a status, a message and a remedy."""
        try:
            return self._region(region, pattern)
        except AwsError as error:
            if denied_by_organization(error):
                return (DENIED,)
            converted = operator_error(error)
            return UNKNOWN, f"{region}: {converted.message}", converted.remedy or "try again"
        except OperatorError as failure:
            return BAD, failure.message, failure.remedy or "try again"

    def _region(self, region: str, pattern: dict[str, Any] | None) -> Result:
        client = self._operator.clients.reading("events", region)
        anew = (
            f"aws cloudformation delete-stack --region {region} --stack-name {STACK}, then, when it is deleted, "
            f"make forward REGIONS={region}"
        )
        try:
            rule = call("events:DescribeRule", client.describe_rule, Name=FORWARD_RULE)
        except AwsError as error:
            if error.code != "ResourceNotFoundException":
                raise
            if not self._has_stack(region):
                return (MISSING,)
            return BAD, f"{region}: the rule {FORWARD_RULE} was deleted from the stack {STACK}", anew
        if rule["State"] == "DISABLED":
            return (
                BAD,
                f"{region}: the rule {FORWARD_RULE} is disabled, so the guard notices changes there only at the next "
                "sweep",
                f"aws events enable-rule --region {region} --name {FORWARD_RULE}",
            )
        targets = call("events:ListTargetsByRule", client.list_targets_by_rule, Rule=FORWARD_RULE)["Targets"]
        identity = self._operator.identity
        bus = f"arn:{identity.partition}:events:{self._operator.region}:{identity.account}:event-bus/{BUS}"
        if bus not in [target["Arn"] for target in targets]:
            return BAD, f"{region}: the rule {FORWARD_RULE} does not send to {bus}", anew
        if pattern is not None and json.loads(rule.get("EventPattern") or "{}") != pattern:
            return (
                BAD,
                f"{region}: the rule {FORWARD_RULE} does not match the events that the guard's rules match",
                anew,
            )
        waiting = Queue(self._operator, region).length()
        if waiting:
            return (
                BAD,
                f"{region}: {FORWARD_QUEUE_NAME} contains {waiting} events that could not be forwarded",
                f"list with `xray-guard redrive --from-region {region}`, then redrive with `--yes`",
            )
        return (FORWARDS,)

    def _has_stack(self, region: str) -> bool:
        client = self._operator.clients.reading("cloudformation", region)
        try:
            call("cloudformation:DescribeStacks", client.describe_stacks, StackName=STACK)
        except AwsError as error:
            if error.code == "ValidationError":  # CloudFormation's code for a stack that does not exist
                return False
            raise
        return True

    def _rules(self, bus: str = "default") -> dict[str, dict[str, Any]]:
        """Return the guard's rules on one of its Region's buses, by name."""
        client = self._operator.clients.reading("events", self._operator.region)
        responses = pages(
            "events:ListRules",
            client.list_rules,
            {"NextToken": "NextToken"},
            NamePrefix="xray-guard-",
            EventBusName=bus,
        )
        return {rule["Name"]: rule for response in responses for rule in response["Rules"]}
