"""The requests to KMS, IAM and X-Ray: mutations are sent once and end in time, and tags are read to their last page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.aws.clients import Clients
from chalicelib.aws.iam import PrincipalsApi
from chalicelib.aws.kms import KeysApi
from chalicelib.aws.xray import XRayApi
from chalicelib.domain.errors import AwsError
from chalicelib.domain.model import Target
from chalicelib.loop.attempt import LEASE_MARGIN
from tests.unit.endpoint import Endpoint, Refused

REGION = "us-east-1"
KEY = "arn:aws:kms:us-east-1:111122223333:key/11111111-1111-1111-1111-111111111111"
TAGS = tuple((f"name-{number}", str(number)) for number in range(5))
TARGET = Target("111122223333", REGION)


def aws(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """An AWS with prepared answers, which returns tags two at a time."""
    match operation:
        case "CreateKey":
            return {"KeyMetadata": {"KeyId": KEY, "Arn": KEY, "KeyState": "Enabled"}}
        case "PutEncryptionConfig":
            return {"EncryptionConfig": {"Type": "KMS", "KeyId": KEY, "Status": "UPDATING"}}
        case "ListResourceTags":
            first = int(parameters.get("Marker", "0"))
            page = [{"TagKey": key, "TagValue": value} for key, value in TAGS[first : first + 2]]
            more = first + 2 < len(TAGS)
            return {"Tags": page, "Truncated": more, **({"NextMarker": str(first + 2)} if more else {})}
        case "ListRoleTags" | "ListUserTags":
            first = int(parameters.get("Marker", "0"))
            page = [{"Key": key, "Value": value} for key, value in TAGS[first : first + 2]]
            more = first + 2 < len(TAGS)
            return {"Tags": page, "IsTruncated": more, **({"Marker": str(first + 2)} if more else {})}
        case _:
            return {}


def keys(endpoint: Endpoint) -> KeysApi:
    return KeysApi(endpoint.clients, REGION)


MUTATIONS: dict[str, Callable[[Clients], object]] = {
    "CreateKey": lambda clients: KeysApi(clients, REGION).create("for traces", "{}", [("a", "b")]),
    "PutKeyPolicy": lambda clients: KeysApi(clients, REGION).put_policy(KEY, "{}"),
    "EnableKey": lambda clients: KeysApi(clients, REGION).enable(KEY),
    "CancelKeyDeletion": lambda clients: KeysApi(clients, REGION).cancel_deletion(KEY),
    "EnableKeyRotation": lambda clients: KeysApi(clients, REGION).enable_rotation(KEY, 365),
    "CreateAlias": lambda clients: KeysApi(clients, REGION).create_alias("alias/a", KEY),
    "UpdateAlias": lambda clients: KeysApi(clients, REGION).update_alias("alias/a", KEY),
    "PutEncryptionConfig": lambda clients: XRayApi(clients, REGION).put(KEY),
}


@pytest.mark.parametrize("operation", MUTATIONS)
def test_p8_a_mutation_is_sent_once_and_has_ended_before_its_lease_has(operation: str) -> None:
    """Also after a read of the same service, whose client repeats what was not answered."""
    endpoint = Endpoint(aws)
    KeysApi(endpoint.clients, REGION).tags(KEY)
    XRayApi(endpoint.clients, REGION).put(KEY)
    endpoint.requests.clear()
    MUTATIONS[operation](endpoint.clients)
    (request,) = endpoint.requests
    assert request.operation == operation
    assert request.config.retries["total_max_attempts"] == 1
    longest = request.config.connect_timeout + request.config.read_timeout
    assert longest < LEASE_MARGIN.total_seconds()


def test_p10_a_read_is_repeated_within_the_time_of_a_function() -> None:
    endpoint = Endpoint(aws)
    keys(endpoint).tags(KEY)
    config = endpoint.requests[0].config
    assert 1 < config.retries["total_max_attempts"] <= 3
    assert config.retries["total_max_attempts"] * (config.connect_timeout + config.read_timeout) < 30


def test_p13_a_tag_on_the_last_page_counts_as_one_on_the_first() -> None:
    endpoint = Endpoint(aws)
    assert keys(endpoint).tags(KEY) == TAGS
    assert {request.parameters["KeyId"] for request in endpoint.requests} == {KEY}


@pytest.mark.parametrize(
    ("arn", "named"),
    [
        ("arn:aws:iam::111122223333:role/SecurityBreakGlass", {"RoleName": "SecurityBreakGlass"}),
        ("arn:aws:iam::111122223333:role/security/team/SecurityBreakGlass", {"RoleName": "SecurityBreakGlass"}),
        ("arn:aws:iam::111122223333:user/security/Zoe", {"UserName": "Zoe"}),
    ],
)
def test_p14_a_principals_tag_on_the_last_page_counts_as_one_on_the_first(arn: str, named: dict[str, str]) -> None:
    endpoint = Endpoint(aws)
    assert PrincipalsApi(endpoint.clients, TARGET).tags(arn) == TAGS
    assert len(endpoint.requests) == 3
    for request in endpoint.requests:
        assert request.parameters.items() >= named.items()


def refusing(code: str) -> Endpoint:
    def answer(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        raise Refused(code)

    return Endpoint(answer)


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException", "InvalidArnException"])
def test_p13_a_key_that_kms_does_not_describe_is_not_taken_for_one_that_does_not_exist(code: str) -> None:
    with pytest.raises(AwsError) as refused:
        keys(refusing(code)).describe(KEY)
    assert refused.value.code == code
    assert keys(refusing("NotFoundException")).describe(KEY) is None


def test_p13_what_kms_leaves_out_of_a_description_is_taken_for_nothing_good() -> None:
    result = {"KeyMetadata": {"KeyId": KEY, "Arn": KEY, "KeyState": "Enabled"}}
    key = keys(Endpoint(lambda operation, parameters: result)).describe(KEY)
    assert key is not None
    assert (key.account, key.region) == ("111122223333", "us-east-1")
    assert (key.spec, key.usage, key.manager, key.origin) == ("UNKNOWN",) * 4


@pytest.mark.parametrize("policy", ["{}", None], ids=["with a policy of ours", "with KMS's default policy"])
def test_p1_a_new_key_leaves_out_the_check_against_a_lock_out_only_with_a_policy_of_ours(policy: str | None) -> None:
    """The check asks for rights that the guard's role has by tags only, which it may not see."""
    endpoint = Endpoint(aws)
    keys(endpoint).create("for traces", policy, [])
    (request,) = endpoint.requests
    assert request.parameters.get("Policy") == policy
    assert request.parameters.get("BypassPolicyLockoutSafetyCheck", False) is (policy is not None)


def test_a_mutation_answers_with_aws_request_id_for_the_record() -> None:
    endpoint = Endpoint(aws)
    assert keys(endpoint).enable(KEY) == "id-1"
    assert XRayApi(endpoint.clients, REGION).put(KEY)[1] == "id-2"


@pytest.mark.parametrize(("status", "unknown"), [(400, False), (499, False), (500, True), (503, True)])
def test_p2_a_mutation_that_aws_failed_at_may_have_taken_effect(status: int, unknown: bool) -> None:
    def answer(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        raise Refused("KMSInternalException", status=status)

    with pytest.raises(AwsError) as failed:
        keys(Endpoint(answer)).create("for traces", "{}", [])
    assert failed.value.effect_unknown is unknown
