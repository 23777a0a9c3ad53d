"""The search for a key whose CreateKey was never answered: it reads all keys, or says that it could not."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from chalicelib.aws.clients import Clients
from chalicelib.aws.kms import KeysApi
from chalicelib.aws.threads import Threads
from chalicelib.domain.errors import UNANSWERED, AwsError
from chalicelib.domain.ports import Gather

T = TypeVar("T")

NONCE = "xray-guard-nonce"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
YOUNG = NOW - timedelta(minutes=10)
OLD = NOW - timedelta(days=400)
AN_HOUR_AGO = NOW - timedelta(hours=1)
PAGE = 100
ROUND_TRIP_SECONDS = 0.02
AT_ONCE = 8
FUNCTION_SECONDS = 60


def refusal(code: str, status: int = 400) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "any")


class Kms:
    """The three calls of boto3's KMS client that the search makes, over keys that the test names.

    `wait` is called in each DescribeKey. `errors` maps (call, ARN) to what that call raises.
    """

    def __init__(self, wait: Callable[[], object] = lambda: None) -> None:
        self.wait = wait
        self.made: dict[str, datetime] = {}
        self.tags: dict[str, list[dict[str, str]]] = {}
        self.errors: dict[tuple[str, str], Exception] = {}
        self.calls: list[str] = []

    def add(self, *tags: tuple[str, str], made: datetime = YOUNG) -> str:
        """Make a key. Returns its ARN."""
        arn = f"arn:aws:kms:us-east-1:111122223333:key/{len(self.made):06d}"
        self.made[arn] = made
        self.tags[arn] = [{"TagKey": key, "TagValue": value} for key, value in tags]
        return arn

    def list_keys(self, Marker: str = "0") -> dict[str, Any]:
        self._call("list_keys", "")
        first = int(Marker)
        arns = list(self.made)
        page = {"Keys": [{"KeyArn": arn} for arn in arns[first : first + PAGE]]}
        more = first + PAGE < len(arns)
        return {**page, "Truncated": True, "NextMarker": str(first + PAGE)} if more else {**page, "Truncated": False}

    def describe_key(self, KeyId: str) -> dict[str, Any]:
        self._call("describe_key", KeyId)
        self.wait()
        described = {"Arn": KeyId, "KeyState": "Enabled", "KeyManager": "CUSTOMER", "CreationDate": self.made[KeyId]}
        return {"KeyMetadata": described}

    def list_resource_tags(self, KeyId: str, Marker: str = "0") -> dict[str, Any]:
        """Two tags a page."""
        self._call("list_resource_tags", KeyId)
        first, tags = int(Marker), self.tags[KeyId]
        page = {"Tags": tags[first : first + 2]}
        more = first + 2 < len(tags)
        return {**page, "Truncated": True, "NextMarker": str(first + 2)} if more else {**page, "Truncated": False}

    def _call(self, name: str, arn: str) -> None:
        self.calls.append(name)
        if (name, arn) in self.errors:
            raise self.errors[name, arn]


class Session:
    """A botocore session whose only client is the given one."""

    def __init__(self, kms: Kms) -> None:
        self.kms = kms

    def create_client(self, service: str, **_: object) -> Kms:
        assert service == "kms"
        return self.kms


def search(kms: Kms, value: str = "n", gather: Gather | None = None) -> str | None:
    return KeysApi(Clients(Session(kms)), "us-east-1", gather).find_by_tag(NONCE, value, AN_HOUR_AGO)


def test_p2_a_key_on_a_later_page_of_list_keys_is_found() -> None:
    kms = Kms()
    for _ in range(2 * PAGE + 30):
        kms.add(("purpose", "other"))
    lost = kms.add((NONCE, "n"))
    assert search(kms) == lost
    assert search(kms, "another") is None


def test_p2_a_tag_on_a_later_page_of_list_resource_tags_is_found() -> None:
    kms = Kms()
    lost = kms.add(("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), (NONCE, "n"))
    assert search(kms) == lost


@pytest.mark.parametrize("call", ["describe_key", "list_resource_tags"])
@pytest.mark.parametrize("code", ["AccessDeniedException", "NotFoundException"])
def test_a_key_that_the_guard_may_not_read_does_not_stop_the_search(call: str, code: str) -> None:
    kms = Kms()
    closed = kms.add((NONCE, "n"))
    for _ in range(PAGE):
        kms.add()
    lost = kms.add((NONCE, "n"))
    kms.errors[call, closed] = refusal(code)
    assert search(kms) == lost


@pytest.mark.parametrize("call", ["list_keys", "describe_key", "list_resource_tags"])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (refusal("ThrottlingException"), "ThrottlingException"),
        (refusal("KMSInternalException", 500), "KMSInternalException"),
        (ReadTimeoutError(endpoint_url="kms"), UNANSWERED),
    ],
)
def test_p2_a_failed_read_is_raised_and_never_taken_for_a_key_that_is_not_there(
    call: str, error: Exception, code: str
) -> None:
    kms = Kms()
    lost = kms.add((NONCE, "n"))
    kms.errors[call, "" if call == "list_keys" else lost] = error
    with pytest.raises(AwsError) as raised:
        search(kms)
    assert raised.value.code == code
    assert raised.value.problem.retryable


def test_list_keys_that_is_denied_is_raised() -> None:
    kms = Kms()
    kms.errors["list_keys", ""] = refusal("AccessDeniedException")
    with pytest.raises(AwsError):
        search(kms)


def test_the_tags_of_a_key_that_is_too_old_are_not_read() -> None:
    kms = Kms()
    kms.add((NONCE, "n"), made=OLD)
    assert search(kms) is None
    assert "list_resource_tags" not in kms.calls


def test_the_keys_of_a_page_are_read_eight_at_a_time_and_no_more() -> None:
    together = threading.Barrier(AT_ONCE, timeout=20)
    counting, inside, most = threading.Lock(), 0, 0

    def wait() -> None:
        nonlocal inside, most
        with counting:
            inside += 1
            most = max(most, inside)
        together.wait()  # passes only while eight reads are under way
        with counting:
            inside -= 1

    kms = Kms(wait)
    for _ in range(11 * AT_ONCE):
        kms.add(made=OLD)
    assert search(kms, gather=Threads(AT_ONCE)) is None
    assert AT_ONCE <= most <= AT_ONCE + 1  # the caller's own thread reads, too


class EightAtATime:
    """A gather on a virtual clock: eight reads take one round trip. `seconds` is the time that has passed."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, reads: Sequence[Callable[[], T]]) -> list[T]:
        self.seconds += math.ceil(len(reads) / AT_ONCE) * ROUND_TRIP_SECONDS
        return [read() for read in reads]


def test_p1_ten_thousand_keys_are_searched_within_the_life_of_one_function() -> None:
    kms, gather = Kms(), EightAtATime()
    for _ in range(10_000 - 1):
        kms.add(made=OLD)
    lost = kms.add((NONCE, "n"))
    assert search(kms, gather=gather) == lost
    assert kms.calls.count("list_keys") == 100
    assert kms.calls.count("describe_key") == 10_000
    in_turn = kms.calls.count("list_keys") + kms.calls.count("list_resource_tags")
    assert gather.seconds + in_turn * ROUND_TRIP_SECONDS < FUNCTION_SECONDS / 2
