"""EventBridge: rules with patterns and states, their targets, and schedules.

moto keeps the rules; this module executes them, because moto cannot send to Lambda, and its schedules match all events.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moto.events.models import Rule, events_backends
from moto.events.utils import EventTemplateParser
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends
from moto.utilities.utils import get_partition

from sandbox.forwarding import denies_putting, why_not_forwarded
from sandbox.identity import Principal
from sandbox.knobs import KNOBS, aws_now
from sandbox.patterns import matches
from sandbox.trail import event as new_event

_RATE = re.compile(r"rate\(\s*(\d+)\s+(minute|hour|day)s?\s*\)")
_UNIT_SECONDS = {"minute": 60, "hour": 3600, "day": 86_400}
_LOOK_SECONDS = 0.2


def send_to_queue(arn: str, body: str, attributes: dict[str, str] | None = None) -> None:
    """Put a message into an SQS queue. Raises moto's error if there is no such queue."""
    _, _, _, region, account, name = arn.split(":", 5)
    message = {name: {"DataType": "String", "StringValue": value} for name, value in (attributes or {}).items()}
    sqs_backends[account][region].send_message(name, body, message_attributes=message)


def send_to_topic(arn: str, body: str) -> None:
    """Publish to an SNS topic. Raises moto's error if there is no such topic."""
    _, _, _, region, account, _ = arn.split(":", 5)
    sns_backends[account][region].publish(message=body, arn=arn)


@dataclass
class Bus:
    """All buses of all accounts and Regions. `invoke` sends an event to a function; False if it does not exist."""

    invoke: Callable[[str, bytes], bool]
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._fired: dict[str, float] = {}
        self._thread = threading.Thread(target=self._keep_schedules, name="sandbox-schedules", daemon=True)

    def start(self) -> None:
        """Start running schedules."""
        self._thread.start()

    def stop(self) -> None:
        """Stop running schedules."""
        self._stop.set()

    def forget(self) -> None:
        """Restart all schedules."""
        self._fired.clear()

    def deliver(
        self,
        event: dict[str, Any],
        account: str = "",
        region: str = "",
        bus: str = "default",
        *,
        forwarded: bool = False,
    ) -> int:
        """Apply the rules of a bus to an event; by default the bus of the event's own account and Region.

        No rule forwards an event that was `forwarded` to this bus. Returns the number of targets that the event was
        sent to.
        """
        backend = events_backends[account or event["account"]][region or event["region"]]
        rules = list(backend.event_buses[bus].rules.values()) if bus in backend.event_buses else []
        sent = 0
        for rule in rules:
            pattern = rule.event_pattern.get_pattern()
            if rule.state == "DISABLED" or not pattern or not matches(pattern, event):
                continue
            for target in list(rule.targets):
                if forwarded and ":event-bus/" in target["Arn"]:
                    self.say(f"EventBridge does not forward an event again: {rule.name}")
                    continue
                self._send(rule, target, event)
                sent += 1
        return sent

    def put_events(self, entries: list[dict[str, Any]], principal: Principal, region: str) -> dict[str, Any]:
        """PutEvents by a customer, who may not use AWS's event sources. Raises PermissionError if a bus denies it."""
        account = principal.account
        for entry in entries:
            bus_arn = _bus_arn(entry, account, region)
            if denies_putting(bus_arn, principal, str(entry.get("Source"))):
                raise PermissionError(
                    f"User: {principal.arn} is not authorized to perform: events:PutEvents on resource: {bus_arn} "
                    "with an explicit deny in a resource-based policy"
                )
        answers: list[dict[str, str]] = []
        for entry in entries:
            problem = _entry_problem(entry)
            if problem:
                answers.append({"ErrorCode": problem[0], "ErrorMessage": problem[1]})
                continue
            message = new_event(
                entry["Source"],
                entry["DetailType"],
                account,
                region,
                json.loads(entry["Detail"]),
                entry.get("Resources", []),
            )
            self.deliver(message, bus=_bus_arn(entry, account, region).rsplit("/", 1)[-1])
            answers.append({"EventId": message["id"]})
        return {"FailedEntryCount": sum("ErrorCode" in each for each in answers), "Entries": answers}

    def run_schedule(self, name: str) -> int:
        """Run the schedule with this rule name, or the schedules with this function as target, now."""
        fired = 0
        for rule in self._schedules():
            functions = [target["Arn"].rsplit(":", 1)[-1] for target in rule.targets]
            if name == rule.name or name in functions:
                self._fire(rule)
                fired += 1
        return fired

    def _schedules(self) -> list[Rule]:
        return [
            rule
            for account in list(events_backends.values())
            for backend in list(account.values())
            for bus in list(backend.event_buses.values())
            for rule in list(bus.rules.values())
            if rule.scheduled_expression
        ]

    def _keep_schedules(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            if not KNOBS.schedules:
                self._fired.clear()
                continue
            now = time.monotonic()
            for rule in self._schedules():
                rate = _RATE.fullmatch(rule.scheduled_expression or "")
                if rate is None:
                    if self._fired.setdefault(rule.arn, now) == now:
                        self.say(f"schedule {rule.name}: {rule.scheduled_expression} is not run here, only rates are")
                    continue
                seconds = int(rate[1]) * _UNIT_SECONDS[rate[2]]
                due = self._fired.setdefault(rule.arn, now) + seconds
                if now >= due:
                    self._fired[rule.arn] = now
                    if rule.state != "DISABLED":
                        self._fire(rule)

    def _fire(self, rule: Rule) -> None:
        message = new_event("aws.events", "Scheduled Event", rule.account_id, rule.region_name, {}, [rule.arn])
        for target in list(rule.targets):
            self._send(rule, target, message)

    def _send(self, rule: Rule, target: dict[str, Any], event: dict[str, Any]) -> None:
        arn = str(target["Arn"])
        service = arn.split(":", 5)[2] if arn.count(":") >= 5 else ""
        body = _input(target, event)
        try:
            if service == "lambda":
                if not self.invoke(arn, body.encode()):
                    raise LookupError(f"no function {arn}")
            elif service == "sqs":
                send_to_queue(arn, body)
            elif service == "sns":
                send_to_topic(arn, body)
            elif service == "events":
                refusal = why_not_forwarded(rule, target.get("RoleArn") or "", arn, event)
                if refusal:
                    raise PermissionError(refusal)
                parts = arn.split(":", 5)
                self.deliver(event, parts[4], parts[3], parts[5].rsplit("/", 1)[-1], forwarded=True)
            else:
                raise LookupError(f"targets such as {arn} are not served here")
        except Exception as error:
            dead_letters = (target.get("DeadLetterConfig") or {}).get("Arn")
            self.say(f"EventBridge could not deliver to {arn}: {error}" + (" (dead letter)" if dead_letters else ""))
            if dead_letters:
                send_to_queue(dead_letters, body, {"ERROR_CODE": "NO_RESOURCE", "TARGET_ARN": arn})


def _input(target: dict[str, Any], event: dict[str, Any]) -> str:
    if target.get("Input"):
        return str(target["Input"])
    if target.get("InputPath"):
        value: Any = event
        for name in str(target["InputPath"]).removeprefix("$").strip(".").split("."):
            value = value.get(name) if name and isinstance(value, dict) else value
        return json.dumps(value)
    transformer = target.get("InputTransformer")
    if transformer:
        filled: Any = EventTemplateParser.parse(
            input_template=transformer.get("InputTemplate"),
            input_paths_map=transformer.get("InputPathsMap", {}),
            event=event,  # type: ignore[arg-type]
        )
        return json.dumps(filled)
    return json.dumps(event)


def _bus_arn(entry: dict[str, Any], account: str, region: str) -> str:
    """Return the ARN of the bus that an entry of PutEvents names, by name or by ARN."""
    named = str(entry.get("EventBusName") or "default")
    return (
        named
        if named.startswith("arn:")
        else f"arn:{get_partition(region)}:events:{region}:{account}:event-bus/{named}"
    )


def _entry_problem(entry: dict[str, Any]) -> tuple[str, str] | None:
    for name in ("Source", "DetailType", "Detail"):
        if not entry.get(name):
            return "InvalidArgument", f"Parameter {name} is not valid. Reason: {name} is a required argument."
    if str(entry["Source"]).startswith("aws."):
        return "NotAuthorizedForSourceException", "Not authorized for the source."
    try:
        if not isinstance(json.loads(entry["Detail"]), dict):
            return "MalformedDetail", "Detail is malformed."
    except ValueError:
        return "MalformedDetail", "Detail is malformed."
    return None


def stamp() -> str:
    """Return the present time in the format of Lambda's and EventBridge's own records."""
    return aws_now().isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_id() -> str:
    """Return a new request id."""
    return str(uuid.uuid4())
