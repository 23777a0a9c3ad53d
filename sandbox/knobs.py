"""The settings that can change while the sandbox runs: delays, staleness, the enabled Regions.

moto keeps its state in the process, so its additions read their settings from the process, too: `KNOBS` is the only
instance.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

DEFAULT_ACCOUNT = "123456789012"
DEFAULT_REGION = "us-east-1"
DEFAULT_REGIONS = ("us-east-1", "us-east-2", "us-west-2", "eu-central-1", "eu-west-1")


@dataclass
class Knobs:
    """Times are in seconds.

    `settle_seconds`: how long X-Ray's setting stays UPDATING, and its destination PENDING. `spans_group_seconds`: from
    the change of the destination until X-Ray creates the log group `aws/spans`. `key_association_seconds`: from
    AssociateKmsKey until new data gets the key, on AWS's clock (up to five minutes in AWS).

    `stale_seconds`: how old the responses of KMS's reads are. `event_delay_seconds`: from a call to its event on the
    bus; `event_copies`: how often that event is delivered (0: lost, 2: twice). `lose_events`, `double_events` and
    `delay_events` (by `late_seconds`) befall single events: a number below 1 is the share of the events, 1 or more is
    how many of the next. Event history keeps every event, and shows it after `history_delay_seconds`. `retry_seconds`:
    Lambda's waits before an asynchronous invocation's first and second retry (one and two minutes in AWS). `schedules`:
    whether schedules run by themselves. `clock_behind_seconds`: how far AWS's clock (the `Date` of its responses,
    CloudTrail's times) is behind the host's, or ahead of it if negative, so that hours can be skipped; other delays,
    schedules and X-Ray's UPDATING still take real time.

    `regions` are those that the account has enabled; in `denied_regions` the organization denies all calls to X-Ray,
    KMS, CloudWatch Logs and Observability Access Manager. `updates_while_updating`: whether X-Ray accepts a change
    while it is UPDATING, which AWS does not document.
    """

    settle_seconds: float = 1.0
    spans_group_seconds: float = 0.0
    key_association_seconds: float = 300.0
    stale_seconds: float = 0.0
    event_delay_seconds: float = 0.1
    event_copies: int = 1
    lose_events: float = 0.0
    double_events: float = 0.0
    delay_events: float = 0.0
    late_seconds: float = 60.0
    history_delay_seconds: float = 0.0
    retry_seconds: tuple[float, ...] = (1.0, 2.0)
    schedules: bool = True
    clock_behind_seconds: float = 0.0
    regions: tuple[str, ...] = DEFAULT_REGIONS
    denied_regions: tuple[str, ...] = ()
    updates_while_updating: bool = True

    def turn(self, settings: dict[str, Any]) -> None:
        """Set knobs. Raises ValueError, and sets none, if a name or value is not valid."""
        wanted: dict[str, Any] = {}
        known = {each.name: getattr(self, each.name) for each in fields(self)}
        for name, value in settings.items():
            if name not in known:
                raise ValueError(f"unknown knob {name!r}; known: {', '.join(known)}")
            now = known[name]
            if isinstance(now, tuple):
                if not isinstance(value, (list, tuple)):
                    raise ValueError(f"{name} must be a list, not {value!r}")
                wanted[name] = tuple(value)
            elif isinstance(now, bool):
                if not isinstance(value, bool):
                    raise ValueError(f"{name} must be true or false, not {value!r}")
                wanted[name] = value
            elif isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{name} must be a number, not {value!r}")
            elif value < 0 and name != "clock_behind_seconds":
                raise ValueError(f"{name} must be a number and not negative, not {value!r}")
            else:
                wanted[name] = type(now)(value)
        for name, value in wanted.items():
            setattr(self, name, value)

    def happens(self, name: str, drawn: float) -> bool:
        """Whether what a knob says befalls the next event: one of the next so many, or a share of all."""
        value: float = getattr(self, name)
        if value < 1:
            return drawn < value
        setattr(self, name, value - 1)
        return True

    def reset(self) -> None:
        """Reset everything to the defaults."""
        fresh = Knobs()
        for each in fields(self):
            setattr(self, each.name, getattr(fresh, each.name))


KNOBS = Knobs()


def denied_by_the_organization(region: str, action: str, who: str) -> str | None:
    """AWS's message for a call in a Region that the organization denies; None in any other."""
    if region not in KNOBS.denied_regions:
        return None
    return (
        f"User: {who} is not authorized to perform: {action} on resource: * "
        "with an explicit deny in a service control policy"
    )


def aws_now() -> datetime:
    """AWS's time, in UTC."""
    return datetime.now(UTC) - timedelta(seconds=KNOBS.clock_behind_seconds)
