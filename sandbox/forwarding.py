"""Whether an event may get on an event bus: by a rule that forwards it, or by a principal that puts it.

Source: EventBridge user guide, "Permissions for event buses" and "Cross-service confused deputy prevention".
"""

from __future__ import annotations

import json
from typing import Any

from moto.events.models import EventBus, Rule, events_backends

from sandbox.identity import Principal, policies_of, trust_of
from sandbox.statements import Request, allowed, as_list, denied, glob, granted, statements_of

_ACTION = "events:PutEvents"
_SERVICE = "events.amazonaws.com"


def why_not_forwarded(rule: Rule, role_arn: str, bus_arn: str, event: dict[str, Any]) -> str | None:
    """Return why a rule cannot send the event to the bus, or None if it can.

    In one account, the role's own policy or the bus's must allow it; across accounts, both. The bus's Deny refuses it.
    """
    bus = bus_of(bus_arn)
    if bus is None:
        return f"there is no event bus {bus_arn}"
    context = {"aws:sourcearn": [rule.arn], "aws:sourceaccount": [rule.account_id]}
    by_role = False
    principal = f"arn:{rule.arn.split(':')[1]}:iam::{rule.account_id}:root"
    if role_arn:
        assume = Request("sts:AssumeRole", service=_SERVICE, context=context)
        if not allowed(trust_of(role_arn) or "{}", assume):
            return f"EventBridge cannot assume the role {role_arn} for the rule {rule.arn}"
        principal = role_arn
        owner = Principal(rule.account_id, role_arn, "", "", "", role_arn)
        by_role = granted([_about(each, bus_arn) for each in policies_of(owner)], Request(_ACTION))
    sent = Request(
        _ACTION,
        account=rule.account_id,
        principal_arn=principal,
        context={**context, "events:source": [str(event["source"])]},
    )
    policy = bus.policy or "{}"
    by_bus = allowed(policy, sent)
    may = by_role or by_bus if bus.account_id == rule.account_id else by_bus and (by_role or not role_arn)
    return None if may and not denied(policy, sent) else f"the event bus {bus_arn} refuses {principal} for {rule.arn}"


def denies_putting(bus_arn: str, principal: Principal, source: str) -> bool:
    """Whether the bus's policy denies the principal PutEvents of this source."""
    bus = bus_of(bus_arn)
    request = Request(
        _ACTION, account=principal.account, principal_arn=principal.policy_arn, context={"events:source": [source]}
    )
    return bus is not None and denied(bus.policy or "{}", request)


def bus_of(arn: str) -> EventBus | None:
    """Return moto's event bus with this ARN, or None if it does not exist."""
    _, _, _, region, account, resource = arn.split(":", 5)
    buses = events_backends[account][region].event_buses
    return buses.get(resource.rsplit("/", 1)[-1])


def _about(policy: str, resource: str) -> str:
    """Return the policy with only the statements that are about the resource."""
    about = [
        each
        for each in statements_of(policy)
        if any(glob(str(pattern), resource) for pattern in as_list(each.get("Resource", [])))
    ]
    return json.dumps({"Statement": about})
