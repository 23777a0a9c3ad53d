"""CloudTrail's Event history in the simulated world, and what the guard stores of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from chalicelib.domain.errors import AwsError
from chalicelib.domain.lookups import HistoryEvent, HistoryPage, Progress, Recorded
from chalicelib.domain.model import Actor, ChangeEvent, KeyEvent, Subject, Target
from tests.simulation.fakes import Tables
from tests.simulation.world import Run, World

LOOKUPS_A_SECOND = 2


@dataclass
class Shown:
    """How Event history shows events. `ids` maps an event's id; `loses` are ids of events that it never shows."""

    page: int = 50
    ids: Callable[[str], str] = lambda event_id: event_id
    requests: Callable[[str | None], str | None] = lambda request_id: request_id
    texts: Callable[[str], str] = lambda text: text
    loses: set[str] = field(default_factory=set)
    refuses: Callable[[Target], str | None] = lambda target: None
    refuses_id: str = ""
    tokens_end: bool = False
    sent_at: list[tuple[Target, float]] = field(default_factory=list)


class FakeHistory:
    """`lookups.EventHistory` of one target: newest first, two requests a second, tokens of the same request only."""

    def __init__(self, world: World, run: Run, target: Target, shown: Shown) -> None:
        self._world, self._run, self._target, self._shown = world, run, target, shown

    def lookup(
        self, attribute: tuple[str, str], since: datetime, until: datetime, token: str | None = None
    ) -> HistoryPage:
        def effect() -> HistoryPage:
            shown, world = self._shown, self._world
            lately = [at for target, at in shown.sent_at if target == self._target and world.now - at < 1.0]
            shown.sent_at.append((self._target, world.now))
            if len(lately) >= LOOKUPS_A_SECOND:
                raise AwsError("cloudtrail:LookupEvents", "ThrottlingException", "Rate exceeded")
            if code := shown.refuses(self._target):
                raise AwsError("cloudtrail:LookupEvents", code, "refused")
            if attribute == ("EventId", shown.refuses_id):
                raise AwsError("cloudtrail:LookupEvents", "InvalidLookupAttributesException", "refused")
            asked = f"{attribute}{since}{until}"
            first = 0
            if token is not None:
                of, _, place = token.rpartition("#")
                if of != asked or shown.tokens_end:
                    raise AwsError("cloudtrail:LookupEvents", "InvalidNextTokenException", "Invalid token")
                first = int(place)
            found = self._found(attribute, since, until)
            page = found[first : first + shown.page]
            more = first + shown.page < len(found)
            return HistoryPage(tuple(page), f"{asked}#{first + shown.page}" if more else None)

        return self._world.call(self._run, "LookupEvents", effect, self._target)

    def _found(self, attribute: tuple[str, str], since: datetime, until: datetime) -> list[HistoryEvent]:
        shown, found = self._shown, []
        for at, event in self._world.history:
            if at > self._world.now or event.target != self._target or event.trigger.event_id in shown.loses:
                continue
            event_id = shown.ids(event.trigger.event_id or "")
            value = {"EventName": event.trigger.event_name, "EventId": event_id}[attribute[0]]
            time = event.trigger.event_time
            if time is not None and since <= time <= until and value == attribute[1]:
                found.append(HistoryEvent(event_id, time, shown.texts(json.dumps(self._record(event, event_id)))))
        return sorted(found, key=lambda each: each.at)[::-1]

    def _record(self, event: ChangeEvent | KeyEvent, event_id: str) -> dict[str, object]:
        """CloudTrail's record of the event."""
        if isinstance(event, KeyEvent):
            return {
                "eventID": event_id,
                "eventName": event.trigger.event_name,
                "eventSource": "kms.amazonaws.com",
                "eventTime": f"{event.trigger.event_time:%Y-%m-%dT%H:%M:%SZ}",
                "awsRegion": event.target.region,
                "recipientAccountId": event.target.account,
                "requestID": self._shown.requests(event.trigger.request_id),
                "userIdentity": identity_of(event.trigger.actor or Actor("unknown")),
                "requestParameters": _request_of(event),
                "resources": [{"ARN": arn, "type": "AWS::KMS::Key"} for arn in event.key_arns],
            }
        trigger, result = event.trigger, event.result
        setting = {"type": result.type.value, "keyId": result.key_arn, "status": "UPDATING"} if result else None
        return {
            "eventID": event_id,
            "eventName": trigger.event_name,
            "eventSource": "xray.amazonaws.com",
            "eventTime": f"{trigger.event_time:%Y-%m-%dT%H:%M:%SZ}",
            "awsRegion": event.target.region,
            "recipientAccountId": event.target.account,
            "requestID": self._shown.requests(trigger.request_id),
            "userIdentity": identity_of(trigger.actor or Actor("unknown")),
            **({"errorCode": event.error_code, "errorMessage": event.error_message} if event.error_code else {}),
            "responseElements": {"encryptionConfig": setting} if setting else None,
        }


def _request_of(event: KeyEvent) -> dict[str, object]:
    effect = event.effect
    key = event.key_arns[0] if event.key_arns else None
    if event.alias is not None:
        return {"aliasName": event.alias, "targetKeyId": key}
    tags = [{"tagKey": tag, "tagValue": value} for tag, value in event.tags]
    policy = {"policy": effect.after} if effect and effect.subject is Subject.KEY_POLICY else {}
    return {"keyId": key, **policy, **({"tags": tags} if tags else {})}


def identity_of(actor: Actor) -> dict[str, object]:
    """The `userIdentity` from which the guard reads the actor."""
    arn, context = actor.arn, {}
    if actor.type == "AssumedRole":
        context = {"sessionContext": {"sessionIssuer": {"arn": actor.arn}}}
        arn = actor.arn.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/") + f"/{actor.session}"
    via = {"invokedBy": actor.via} if actor.via else {}
    return {"type": actor.type, "arn": arn, **context, **via}


@dataclass
class HistoryItems:
    """The items `history#<target>`, encoded."""

    items: dict[str, bytes] = field(default_factory=dict)

    def of(self, target: Target | str) -> Progress:
        return msgspec.json.decode(self.items[str(target)], type=Progress)


class FakeHistoryStore:
    """`lookups.HistoryStore`."""

    def __init__(self, world: World, run: Run, tables: Tables, items: HistoryItems) -> None:
        self._world, self._run, self._tables, self._items = world, run, tables, items

    def progress(self, targets: Sequence[str]) -> Mapping[str, Progress]:
        known = {name: self._items.of(name) for name in targets if name in self._items.items}
        return self._world.call(self._run, "BatchGetItem", lambda: known, "")

    def keep(self, target: str, progress: Progress) -> None:
        encoded = msgspec.json.encode(progress)
        self._world.call(self._run, "PutItem", lambda: self._items.items.update({target: encoded}), target)

    def audited(self, target: str, event_ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for first in range(0, len(event_ids), 100):
            batch = event_ids[first : first + 100]

            def effect(batch: Sequence[str] = batch) -> set[str]:
                return {each for each in batch if (target, each) in self._tables.markers}

            found |= self._world.call(self._run, "BatchGetItem", effect, target)
        return found

    def recorded(self, target: str, since: datetime) -> Sequence[Recorded]:
        def effect() -> list[Recorded]:
            rows = self._tables.rows.get(target, ())
            records = [msgspec.json.decode(row.body, type=Recorded) for row in rows]
            return [record for record in records if record.at >= since]

        return self._world.call(self._run, "Query", effect, target)
