"""The assumptions of docs/aws-assumptions.md that one live account can settle without harm.

A check reads, or uses one throw-away key. The only check that puts X-Ray's setting puts the key that X-Ray uses
already, and only where that key is the one behind the rule's alias.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from botocore.exceptions import ClientError

from chalicelib.aws.clients import Clients
from chalicelib.aws.kms import KeysApi
from chalicelib.aws.xray import LOOK_BACK
from chalicelib.domain.keypolicy.wanted import initial_policy
from chalicelib.domain.model import Target
from chalicelib.domain.policy import Rule
from tests.contract.places import Place

RUN_TAG = "xray-guard-contract"
XRAY = "xray.amazonaws.com"
STALE_SECONDS = 250.0
"""How long the guard waits until not finding a key means that it is not there."""

LONGEST_UPDATE_SECONDS = 900.0
SHORTEST_WINDOW_DAYS = 7
POLL_SECONDS = 2.0
MOST_PAGES = 10
LOOKUP_PAUSE_SECONDS = 0.6
"""LookupEvents takes two requests a second."""


class Verdict(StrEnum):
    """Whether AWS behaves as the guard believes."""

    YES = "yes"
    NO = "NO"
    OPEN = "open"


@dataclass(frozen=True)
class Settled:
    """One line of the table."""

    assumption: str
    verdict: Verdict
    answer: str
    meaning: str


@dataclass
class Live:
    """A live account and Region. `wait` and `seconds` are the clock; `run_id` is the value of the keys' tag.

    `place.keys` are the keys to clean up. `unanswered`: a CreateKey was sent, and whether it made a key is not known.
    """

    place: Place
    clients: Clients
    target: Target
    partition: str
    rule: Rule
    run_id: str
    wait: Callable[[float], None]
    seconds: Callable[[], float]
    unanswered: bool = field(default=False)

    @property
    def keys(self) -> KeysApi:
        """The guard's own adapter."""
        return KeysApi(self.clients, self.target.region)

    def find_key(self) -> str | None:
        """Search for a key of this run by its tag, as the guard does after a lost CreateKey."""
        return self.keys.find_by_tag(RUN_TAG, self.run_id, datetime.now(UTC) - timedelta(hours=1))

    def until(self, holds: Callable[[], bool], most_seconds: float) -> float | None:
        """Poll until it holds. Returns how many seconds it took; None where it does not hold in time."""
        began = self.seconds()
        while not holds():
            if self.seconds() - began >= most_seconds:
                return None
            self.wait(POLL_SECONDS)
        return self.seconds() - began


Check = Callable[[Live], Iterator[Settled]]


def code_of(call: Callable[..., Any], **parameters: Any) -> str | None:
    """The code that the call is refused with; None where it succeeds."""
    try:
        call(**parameters)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return None


def judged(assumption: str, answer: str, *, holds: bool, yes: str, no: str) -> Settled:
    """An assumption that holds or does not."""
    return Settled(assumption, Verdict.YES if holds else Verdict.NO, answer, yes if holds else no)


# --- what is only read -----------------------------------------------------------------------------------------------


def the_setting(live: Live) -> Iterator[Settled]:
    """GetEncryptionConfig."""
    response = live.place.xray.get_encryption_config()
    config = response["EncryptionConfig"]
    key = config.get("KeyId")
    if config["Type"] == "NONE":
        yield judged(
            "With NONE the setting has no KeyId",
            f"KeyId is {key or 'absent'}",
            holds=key is None,
            yes="The guard ignores KeyId under NONE.",
            no="Nothing breaks: the guard ignores KeyId under NONE.",
        )
    else:
        yield judged(
            "With KMS the setting has the key's ARN",
            f"KeyId is {key}",
            holds=str(key).startswith("arn:"),
            yes="The guard compares keys by ARN.",
            no="The guard asks KMS for the ARN: one more read in each run.",
        )
    date = response["ResponseMetadata"]["HTTPHeaders"].get("date")
    yield judged(
        "A response carries AWS's time in its Date header",
        f"Date is {date or 'absent'}",
        holds=date is not None,
        yes="Leases go by AWS's clock.",
        no="Leases go by the host's clock. Do not enforce; report this.",
    )


def the_service_graph(live: Live) -> Iterator[Settled]:
    """GetServiceGraph over six hours."""
    now = datetime.now(UTC)
    code = code_of(live.place.xray.get_service_graph, StartTime=now - LOOK_BACK, EndTime=now)
    yield judged(
        "GetServiceGraph takes six hours and needs no right on the key",
        code or "accepted",
        holds=code is None,
        yes="For your identity; the role is shown by the first sweep.",
        no="If it is AccessDenied for the role, too, the guard judges every target as in use.",
    )


def an_alias_that_is_not_there(live: Live) -> Iterator[Settled]:
    """DescribeKey of a missing alias."""
    code = code_of(live.place.kms.describe_key, KeyId=f"alias/{RUN_TAG}-{live.run_id}")
    yield judged(
        "DescribeKey of a missing alias answers NotFoundException",
        code or "accepted",
        holds=code == "NotFoundException",
        yes="The guard can tell that it has to create the key.",
        no="The guard fails and creates no key. Create the key yourself: docs/first-hour.md.",
    )


def the_records_of_puts(live: Live) -> Iterator[Settled]:
    """CloudTrail's PutEncryptionConfig with a key."""
    assumption = "CloudTrail's PutEncryptionConfig has requestParameters.keyId"
    put = next(
        (
            record["requestParameters"]
            for record in _events(live, "PutEncryptionConfig")
            if (record.get("requestParameters") or {}).get("type") == "KMS"
        ),
        None,
    )
    if put is None:
        yield Settled(
            assumption,
            Verdict.OPEN,
            "no such event in 90 days",
            "See docs/first-hour.md, section 3, then run this again.",
        )
        return
    yield judged(
        assumption,
        f"it has {', '.join(sorted(put))}",
        holds="keyId" in put,
        yes="The guard knows whose change a drift is.",
        no="The guard still looks at the target; the drift's actor stays unknown. Report the name.",
    )


def the_records_of_grants(live: Live) -> Iterator[Settled]:
    """CloudTrail's CreateGrant by X-Ray."""
    assumption = "X-Ray's CreateGrant carries kms:ViaService"
    records = _events(live, "CreateGrant")
    found = next((record for record in records if XRAY in json.dumps(record)), None)
    if found is None:
        yield Settled(
            assumption,
            Verdict.OPEN,
            "no such event in 90 days",
            "See docs/first-hour.md, section 6, then run this again.",
        )
        return
    identity = found.get("userIdentity") or {}
    invoked_by = identity.get("invokedBy")
    yield judged(
        assumption,
        f"by {identity.get('arn') or identity.get('type')}, invokedBy {invoked_by or 'absent'}",
        holds=invoked_by == XRAY and identity.get("type") != "AWSService",
        yes="Statement LetXRayUseTheKey works. GrantIsForAWSResource is settled by the first Put of the role.",
        no="PutEncryptionConfig may be refused: widen LetXRayUseTheKey as docs/first-hour.md, section 4, says.",
    )


def _events(live: Live, name: str) -> Iterator[dict[str, Any]]:
    """The CloudTrail records of this name in Event history, newest first, of some pages at most."""
    client = live.place.client("cloudtrail")
    attribute = [{"AttributeKey": "EventName", "AttributeValue": name}]
    page: dict[str, str] = {}
    for _ in range(MOST_PAGES):
        response = client.lookup_events(LookupAttributes=attribute, MaxResults=50, **page)
        for event in response["Events"]:
            yield json.loads(event["CloudTrailEvent"])
        if not response.get("NextToken"):
            return
        page = {"NextToken": response["NextToken"]}
        live.wait(LOOKUP_PAUSE_SECONDS)


# --- what takes a throw-away key -------------------------------------------------------------------------------------


def a_key_of_its_own(live: Live) -> Iterator[Settled]:
    """CreateKey with the guard's key policy, and what the guard relies on in a key."""
    yield from _is_created(live)
    for key in tuple(live.place.keys):
        yield from _is_found(live)
        yield from _rotates(live, key)
        yield from _is_disabled(live, key)
        yield from _survives_its_deletion(live, key)


def _is_created(live: Live) -> Iterator[Settled]:
    refused = _create(live, bypass=False)
    yield judged(
        "KMS accepts the guard's key policy, lock-out check included",
        refused or "accepted",
        holds=refused is None,
        yes="For your identity; docs/first-hour.md, section 5, shows it for the role.",
        no="The check applies to your identity. The guard skips it; the next line shows whether that works.",
    )
    if refused is None:
        return
    refused = _create(live, bypass=True)
    yield judged(
        "KMS accepts the guard's key policy without the lock-out check",
        refused or "accepted",
        holds=refused is None,
        yes="The guard creates keys this way.",
        no="The guard cannot create a key. Create it yourself: docs/first-hour.md.",
    )


def _create(live: Live, *, bypass: bool) -> str | None:
    """Create the key. Returns KMS's message where it takes the policy for malformed."""
    policy = initial_policy(live.rule, live.target, live.partition)
    tags = [{"TagKey": RUN_TAG, "TagValue": live.run_id}]
    live.unanswered = True
    try:
        live.place.key(Policy=policy, Tags=tags, BypassPolicyLockoutSafetyCheck=bypass)
    except ClientError as error:
        live.unanswered = error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
        if error.response["Error"]["Code"] != "MalformedPolicyDocumentException":
            raise
        return str(error.response["Error"]["Message"])
    live.unanswered = False
    return None


def _is_found(live: Live) -> Iterator[Settled]:
    seconds = live.until(lambda: live.find_key() is not None, STALE_SECONDS)
    yield judged(
        f"A new key shows in ListKeys and ListResourceTags within {STALE_SECONDS:.0f} seconds",
        f"after {seconds:.0f} s" if seconds is not None else f"not within {STALE_SECONDS:.0f} s",
        holds=seconds is not None,
        yes="A key whose CreateKey was never answered is found, and no second one is made.",
        no="A lost CreateKey may lead to a second key, which is reported and never used. Report this.",
    )


def _rotates(live: Live, key: str) -> Iterator[Settled]:
    kms, days = live.place.kms, live.rule.managed_key.rotation_days
    kms.enable_key_rotation(KeyId=key, RotationPeriodInDays=days)

    def shows() -> bool:
        status = kms.get_key_rotation_status(KeyId=key)
        return bool(status["KeyRotationEnabled"]) and status.get("RotationPeriodInDays") == days

    seconds = live.until(shows, STALE_SECONDS)
    yield judged(
        "EnableKeyRotation takes the rule's period, and GetKeyRotationStatus shows it",
        f"{days} days after {seconds:.0f} s" if seconds is not None else f"not within {STALE_SECONDS:.0f} s",
        holds=seconds is not None,
        yes="KEY_ROTATION_OFF is repaired once.",
        no="The guard turns rotation on again at each look, and is FAILED. X-Ray is not touched.",
    )


def _is_disabled(live: Live, key: str) -> Iterator[Settled]:
    kms = live.place.kms
    kms.generate_data_key(KeyId=key, KeySpec="AES_256")
    kms.disable_key(KeyId=key)
    codes: list[str | None] = []

    def refused() -> bool:
        codes.append(code_of(kms.generate_data_key, KeyId=key, KeySpec="AES_256"))
        return codes[-1] is not None

    seconds = live.until(refused, STALE_SECONDS)
    yield judged(
        "A disabled key encrypts nothing",
        f"{codes[-1]} after {seconds:.0f} s" if seconds is not None else f"still used after {STALE_SECONDS:.0f} s",
        holds=codes[-1] == "DisabledException",
        yes="A disabled key is a violation, for X-Ray cannot use it.",
        no="Nothing breaks: the guard goes by the state that DescribeKey shows.",
    )


def _survives_its_deletion(live: Live, key: str) -> Iterator[Settled]:
    kms = live.place.kms
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=SHORTEST_WINDOW_DAYS)
    live.until(lambda: live.place.state(key) == "PendingDeletion", STALE_SECONDS)
    code = code_of(kms.enable_key, KeyId=key)
    yield judged(
        "EnableKey refuses a key pending deletion",
        code or "accepted",
        holds=code == "KMSInvalidStateException",
        yes="The guard cancels the deletion first.",
        no="Nothing breaks: the guard cancels the deletion first.",
    )
    kms.cancel_key_deletion(KeyId=key)
    live.until(lambda: live.place.state(key) != "PendingDeletion", STALE_SECONDS)
    state = live.place.state(key)
    yield judged(
        "CancelKeyDeletion leaves a key Disabled",
        state,
        holds=state == "Disabled",
        yes="The guard enables it as its next step.",
        no="Nothing breaks: the guard reads the state again after each repair.",
    )


# --- what puts the key that X-Ray uses already ------------------------------------------------------------------------


def the_same_setting_again(live: Live) -> Iterator[Settled]:
    """PutEncryptionConfig twice, only where X-Ray uses the enabled key behind the rule's alias."""
    assumption = "A Put while X-Ray is UPDATING is accepted"
    alias = live.rule.managed_key.alias
    xray = live.place.xray
    config = xray.get_encryption_config()["EncryptionConfig"]
    key = live.keys.describe(alias)
    if config["Type"] != "KMS" or key is None or config.get("KeyId") != key.arn or key.state != "Enabled":
        meaning = (
            f"X-Ray is not on an enabled {alias}, so this run does not touch it. See docs/first-hour.md, section 7."
        )
        yield Settled(assumption, Verdict.OPEN, f"X-Ray is on {config.get('KeyId') or config['Type']}", meaning)
        return
    first = xray.put_encryption_config(Type="KMS", KeyId=alias)["EncryptionConfig"]
    yield judged(
        "PutEncryptionConfig's response has the ARN of the key",
        f"KeyId is {first.get('KeyId')}",
        holds=first.get("KeyId") == key.arn,
        yes="An event is compared with the live setting by ARN.",
        no="The drift's actor may stay unknown; the setting is judged by GetEncryptionConfig.",
    )
    if xray.get_encryption_config()["EncryptionConfig"]["Status"] != "UPDATING":
        meaning = "A Put of the same key updates nothing. See docs/first-hour.md, section 8."
        yield Settled(assumption, Verdict.OPEN, "X-Ray is ACTIVE at once", meaning)
        return
    code = code_of(xray.put_encryption_config, Type="KMS", KeyId=alias)
    yield judged(
        assumption,
        code or "accepted",
        holds=code is None,
        yes="A remediation does not wait for the drift's own update.",
        no="Expected, too: the guard is DEFERRED with reason SETTLING, and tries again within a minute.",
    )
    seconds = live.until(
        lambda: xray.get_encryption_config()["EncryptionConfig"]["Status"] == "ACTIVE", LONGEST_UPDATE_SECONDS
    )
    yield judged(
        f"UPDATING lasts less than {LONGEST_UPDATE_SECONDS / 60:.0f} minutes",
        f"{seconds:.0f} s" if seconds is not None else f"still UPDATING after {LONGEST_UPDATE_SECONDS:.0f} s",
        holds=seconds is not None,
        yes="Measured for a Put of the same key.",
        no="The guard records FAILED and keeps looking; it does not put again. Report this.",
    )


CHECKS: tuple[Check, ...] = (
    the_setting,
    the_service_graph,
    an_alias_that_is_not_there,
    the_records_of_puts,
    the_records_of_grants,
    a_key_of_its_own,
    the_same_setting_again,
)
