"""CloudWatch Observability Access Manager: sinks of monitoring accounts, and the links of source accounts to them.

moto lacks it. A link copies what its resource types name to the account of its sink. Source: botocore's model, and the
API reference, "CreateLink" and "PutSinkPolicy". The texts of errors are our own.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from moto.utilities.utils import get_partition

from sandbox.calls import Request as Call
from sandbox.calls import service_model
from sandbox.identity import Principal
from sandbox.knobs import denied_by_the_organization
from sandbox.statements import Request, allowed

MOST_LINKS = 5
"""A source account has at most so many links in a Region, and a page of ListLinks so many items."""


class LinkRefused(Exception):
    """The request is refused: the status, `code` and `message` of AWS's response."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def _missing(what: str) -> LinkRefused:
    return LinkRefused(404, "ResourceNotFoundException", f"{what} does not exist")


def _invalid(why: str) -> LinkRefused:
    return LinkRefused(400, "InvalidParameterException", why)


@dataclass
class Sink:
    """A sink. Without a policy, nobody may link to it."""

    arn: str
    name: str
    policy: str = "{}"

    def as_api(self) -> dict[str, Any]:
        """Return the sink as an item of a response."""
        return {"Arn": self.arn, "Id": self.arn.rsplit("/", 1)[-1], "Name": self.name}


@dataclass
class Link:
    """A link of a source account; its resource types say what is copied."""

    arn: str
    sink_arn: str
    label: str
    resource_types: list[str]
    configuration: dict[str, Any] | None = None

    def as_item(self) -> dict[str, Any]:
        """Return the link as an item of ListLinks."""
        return {
            "Arn": self.arn,
            "Id": self.arn.rsplit("/", 1)[-1],
            "Label": self.label,
            "ResourceTypes": self.resource_types,
            "SinkArn": self.sink_arn,
        }

    def as_api(self) -> dict[str, Any]:
        """Return the link as the response of an operation on it."""
        configuration = {"LinkConfiguration": self.configuration} if self.configuration else {}
        return {**self.as_item(), "LabelTemplate": self.label, **configuration, "Tags": {}}


@dataclass
class Links:
    """Sinks and links of all accounts and Regions."""

    sinks: dict[str, Sink] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)

    def forget(self) -> None:
        """Delete all sinks and links."""
        self.sinks.clear()
        self.links.clear()

    def answer(self, call: Call, principal: Principal) -> dict[str, Any]:
        """Carry out an operation. Raises LinkRefused, and NotImplementedError for those that are not simulated."""
        message = denied_by_the_organization(call.region, f"oam:{call.action}", principal.arn)
        if message:
            raise LinkRefused(403, "AccessDeniedException", message)
        operation = _OPERATIONS.get(call.action)
        if operation is None:
            raise NotImplementedError(f"oam {call.action}")
        shape = service_model("oam").operation_model(call.action).input_shape
        missing = [name for name in (shape.required_members if shape else ()) if not call.parameters.get(name)]
        if missing:
            raise LinkRefused(400, "MissingRequiredParameterException", f"{', '.join(missing)} is required")
        return operation(self, call.parameters, principal, call.region)

    def _of(self, found: dict[str, Any], kind: str, account: str, region: str) -> list[Any]:
        prefix = _arn(kind, account, region, "")
        return [each for arn, each in found.items() if arn.startswith(prefix)]

    def _link(self, identifier: str, account: str, region: str) -> Link:
        for link in self._of(self.links, "link", account, region):
            if identifier in (link.arn, link.arn.rsplit("/", 1)[-1]):
                found: Link = link
                return found
        raise _missing(identifier)

    def _sink(self, identifier: str, account: str, region: str) -> Sink:
        for sink in self._of(self.sinks, "sink", account, region):
            if identifier in (sink.arn, sink.arn.rsplit("/", 1)[-1]):
                found: Sink = sink
                return found
        raise _missing(identifier)

    def _permitted(self, action: str, sink_arn: str, types: list[str], principal: Principal) -> None:
        """Raise LinkRefused unless the sink's policy lets the account link these resource types to it."""
        known: list[str] = service_model("oam").shape_for("ResourceType").enum  # type: ignore[attr-defined]
        unknown = [each for each in types if each not in known]
        if unknown:
            raise _invalid(f"{', '.join(unknown)} is no resource type")
        sink = self.sinks.get(sink_arn)
        if sink is None:
            raise _missing(sink_arn)
        if sink_arn.split(":")[4] == principal.account:
            raise _invalid("An account cannot be linked to itself")
        request = Request(
            f"oam:{action}",
            account=principal.account,
            principal_arn=principal.policy_arn,
            session_arn=principal.arn,
            context={"oam:resourcetypes": types, "aws:principalaccount": [principal.account]},
        )
        if not allowed(sink.policy, request):
            raise LinkRefused(403, "AccessDeniedException", f"The policy of {sink_arn} does not allow oam:{action}")

    def create_link(self, given: dict[str, Any], principal: Principal, region: str) -> dict[str, Any]:
        """CreateLink, by the source account, to a sink in the same Region."""
        sink_arn, types = given["SinkIdentifier"], list(given["ResourceTypes"])
        if sink_arn.split(":")[3:4] != [region]:
            raise _invalid("The sink is in another Region")
        self._permitted("CreateLink", sink_arn, types, principal)
        own = self._of(self.links, "link", principal.account, region)
        if any(each.sink_arn == sink_arn for each in own):
            raise LinkRefused(409, "ConflictException", f"A link to {sink_arn} exists already")
        if len(own) >= MOST_LINKS:
            raise LinkRefused(429, "ServiceQuotaExceededException", f"An account has at most {MOST_LINKS} links")
        arn = _arn("link", principal.account, region, str(uuid.uuid4()))
        self.links[arn] = Link(arn, sink_arn, given["LabelTemplate"], types, given.get("LinkConfiguration"))
        return self.links[arn].as_api()

    def update_link(self, given: dict[str, Any], principal: Principal, region: str) -> dict[str, Any]:
        """UpdateLink: replaces the resource types."""
        link = self._link(given["Identifier"], principal.account, region)
        self._permitted("UpdateLink", link.sink_arn, list(given["ResourceTypes"]), principal)
        link.resource_types = list(given["ResourceTypes"])
        link.configuration = given.get("LinkConfiguration")
        return link.as_api()

    def delete_link(self, given: dict[str, Any], principal: Principal, region: str) -> dict[str, Any]:
        """DeleteLink."""
        del self.links[self._link(given["Identifier"], principal.account, region).arn]
        return {}

    def get_link(self, given: dict[str, Any], principal: Principal, region: str) -> dict[str, Any]:
        """GetLink."""
        return self._link(given["Identifier"], principal.account, region).as_api()

    def list_links(self, given: dict[str, Any], principal: Principal, region: str) -> dict[str, Any]:
        """ListLinks, in pages of at most five."""
        own = [each.as_item() for each in self._of(self.links, "link", principal.account, region)]
        return _page(own, given, MOST_LINKS)

    def create_sink(self, given: dict[str, Any], principal: Principal, region: str) -> dict[str, Any]:
        """CreateSink: a monitoring account has one in a Region."""
        if self._of(self.sinks, "sink", principal.account, region):
            raise LinkRefused(409, "ConflictException", "The account has a sink already")
        sink = Sink(_arn("sink", principal.account, region, str(uuid.uuid4())), given["Name"])
        self.sinks[sink.arn] = sink
        return {**sink.as_api(), "Tags": {}}

    def put_sink_policy(self, given: dict[str, Any], principal: Principal, region: str) -> dict[str, Any]:
        """PutSinkPolicy."""
        sink = self._sink(given["SinkIdentifier"], principal.account, region)
        sink.policy = given["Policy"]
        return {"SinkArn": sink.arn, "SinkId": sink.arn.rsplit("/", 1)[-1], "Policy": sink.policy}

    def list_sinks(self, given: dict[str, Any], principal: Principal, region: str) -> dict[str, Any]:
        """ListSinks."""
        return _page([each.as_api() for each in self._of(self.sinks, "sink", principal.account, region)], given, 100)

    def delete_sink(self, given: dict[str, Any], principal: Principal, region: str) -> dict[str, Any]:
        """DeleteSink, refused while links exist."""
        sink = self._sink(given["Identifier"], principal.account, region)
        if any(each.sink_arn == sink.arn for each in self.links.values()):
            raise LinkRefused(409, "ConflictException", f"{sink.arn} has links")
        del self.sinks[sink.arn]
        return {}


def _arn(kind: str, account: str, region: str, name: str) -> str:
    return f"arn:{get_partition(region)}:oam:{region}:{account}:{kind}/{name}"


def _page(found: list[dict[str, Any]], given: dict[str, Any], most: int) -> dict[str, Any]:
    size, first = given.get("MaxResults", most), str(given.get("NextToken", "0"))
    if not 1 <= size <= most or not first.isdigit():
        raise _invalid(f"MaxResults must be from 1 to {most}, and NextToken that of a response")
    end = int(first) + size
    return {"Items": found[int(first) : end], **({"NextToken": str(end)} if end < len(found) else {})}


_OPERATIONS: dict[str, Callable[[Links, dict[str, Any], Principal, str], dict[str, Any]]] = {
    "CreateLink": Links.create_link,
    "CreateSink": Links.create_sink,
    "DeleteLink": Links.delete_link,
    "DeleteSink": Links.delete_sink,
    "GetLink": Links.get_link,
    "ListLinks": Links.list_links,
    "ListSinks": Links.list_sinks,
    "PutSinkPolicy": Links.put_sink_policy,
    "UpdateLink": Links.update_link,
}
OPERATIONS = frozenset(_OPERATIONS)
