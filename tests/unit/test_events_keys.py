"""Every kind of KMS event is read for the keys, alias and tags that it changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib.domain.events import KEY_EVENTS, read_key_event
from chalicelib.domain.model import KeyEvent, Rejected, Target, TriggerKind

KEY_ID = "1234abcd-12ab-34cd-56ef-1234567890ab"
KEY_ARN = f"arn:aws:kms:us-east-1:111122223333:key/{KEY_ID}"
OTHER_ARN = "arn:aws:kms:us-east-1:111122223333:key/mrk-0123456789abcdef0123456789abcdef"
ALIAS_ARN = "arn:aws:kms:us-east-1:111122223333:alias/xray-encryption"


def resource(arn: object) -> dict[str, object]:
    return {"accountId": "111122223333", "type": "AWS::KMS::Key", "ARN": arn}


def kms_event(name: str, request: object, *arns: object, **detail: object) -> Any:
    """A KMS call's event in the shape of the KMS guide's log entries."""
    return {
        "version": "0",
        "id": "11111111-2222-3333-4444-555555555555",
        "detail-type": "AWS API Call via CloudTrail",
        "source": "aws.kms",
        "account": "111122223333",
        "time": "2026-09-30T10:00:00Z",
        "region": "us-east-1",
        "resources": [],
        "detail": {
            "eventVersion": "1.11",
            "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/Alice"},
            "eventTime": "2026-09-30T10:00:00Z",
            "eventSource": "kms.amazonaws.com",
            "eventName": name,
            "awsRegion": "us-east-1",
            "requestParameters": request,
            "responseElements": None,
            "requestID": "d9472f40-63bc-11e4-bc2b-4198b6150d5c",
            "eventID": "f72d3993-864f-48d6-8f16-e26e1ae8dff0",
            "resources": [resource(arn) for arn in arns],
            "eventType": "AwsApiCall",
            "recipientAccountId": "111122223333",
            **detail,
        },
    }


def kms_notice(name: str) -> Any:
    """What KMS itself sends to EventBridge."""
    return {
        "version": "0",
        "id": "e9ce3425-7d22-412a-a699-e7a5fc3fbc9a",
        "detail-type": name,
        "source": "aws.kms",
        "account": "111122223333",
        "time": "2026-09-30T10:00:00Z",
        "region": "us-east-1",
        "resources": [KEY_ARN],
        "detail": {"key-id": KEY_ID},
    }


def read(event: object) -> KeyEvent:
    found = read_key_event(event)
    assert isinstance(found, KeyEvent), found
    return found


@pytest.mark.parametrize("name", sorted(KEY_EVENTS))
def test_every_call_that_is_listened_for_names_the_key_listed_as_its_resource(name: str) -> None:
    found = read(kms_event(name, {"keyId": "another"}, KEY_ARN))
    assert found.target == Target("111122223333", "us-east-1")
    assert found.key_arns == (KEY_ARN,)
    assert found.trigger.kind is TriggerKind.KEY
    assert found.trigger.event_name == name
    assert found.trigger.event_id == "f72d3993-864f-48d6-8f16-e26e1ae8dff0"
    assert found.trigger.event_time == datetime(2026, 9, 30, 10, tzinfo=UTC)
    assert found.trigger.actor is not None
    assert found.trigger.actor.arn == "arn:aws:iam::111122223333:user/Alice"


@pytest.mark.parametrize("name", ["Decrypt", "GenerateDataKey", "ListGrants", "disablekey", "", None])
def test_any_other_call_is_not_ours(name: object) -> None:
    event = kms_event("DisableKey", {}, KEY_ARN)
    event["detail"]["eventName"] = name
    found = read_key_event(event)
    assert isinstance(found, Rejected)
    assert found.reason == "NOT_OUR_EVENT"


def test_a_service_event_without_a_caller_names_its_key() -> None:
    event = kms_event(
        "DeleteKey",
        None,
        KEY_ARN,
        userIdentity={"accountId": "111122223333", "invokedBy": "AWS Internal"},
        eventType="AwsServiceEvent",
        serviceEventDetails={"keyId": KEY_ARN},
    )
    event["detail-type"] = "AWS Service Event via CloudTrail"
    found = read(event)
    assert found.key_arns == (KEY_ARN,)
    assert found.trigger.actor is not None
    assert found.trigger.actor.arn == "AWS Internal"


@pytest.mark.parametrize("name", ["KMS CMK Deletion", "KMS Imported Key Material Expiration"])
def test_a_notice_straight_from_kms_names_its_key_and_nobody(name: str) -> None:
    found = read(kms_notice(name))
    assert found.target == Target("111122223333", "us-east-1")
    assert found.key_arns == (KEY_ARN,)
    assert found.trigger.event_name == name
    assert found.trigger.event_id == "e9ce3425-7d22-412a-a699-e7a5fc3fbc9a"
    assert found.trigger.event_time == datetime(2026, 9, 30, 10, tzinfo=UTC)
    assert found.trigger.actor is None


def test_a_notice_of_another_kind_or_source_is_not_ours() -> None:
    for event in (kms_notice("KMS CMK Rotation"), {**kms_notice("KMS CMK Deletion"), "source": "custom.kms"}):
        found = read_key_event(event)
        assert isinstance(found, Rejected)
        assert found.reason in {"NOT_OUR_EVENT"}


def test_a_notice_without_an_account_is_rejected() -> None:
    found = read_key_event({**kms_notice("KMS CMK Deletion"), "account": "nobody"})
    assert isinstance(found, Rejected)
    assert found.reason == "ACCOUNT_INVALID"


def test_an_alias_listed_among_the_keys_is_no_key() -> None:
    request = {"aliasName": "alias/xray-encryption", "targetKeyId": KEY_ID}
    for arns in ((ALIAS_ARN, KEY_ARN), (KEY_ARN, ALIAS_ARN)):
        found = read(kms_event("UpdateAlias", request, *arns))
        assert found.key_arns == (KEY_ARN,)
        assert found.alias == "alias/xray-encryption"


def test_an_alias_is_read_from_the_resources_where_the_request_was_left_out() -> None:
    found = read(kms_event("DeleteAlias", None, ALIAS_ARN))
    assert found.alias == "alias/xray-encryption"
    assert found.key_arns == ()


@pytest.mark.parametrize("alias", ["xray-encryption", "alias/", "alias/é", "alias/a b", "alias/" + "x" * 300, 5, None])
def test_an_alias_of_another_shape_is_none(alias: object) -> None:
    assert read(kms_event("DeleteAlias", {"aliasName": alias}, KEY_ARN)).alias is None


def test_a_key_is_read_from_the_envelope_where_the_record_lists_none() -> None:
    event = kms_event("DisableKey", None)
    event["resources"] = [OTHER_ARN, ALIAS_ARN, 5]
    assert read(event).key_arns == (OTHER_ARN,)


@pytest.mark.parametrize("field", ["keyId", "targetKeyId"])
@pytest.mark.parametrize("named", [KEY_ARN, KEY_ID])
def test_a_key_is_read_from_the_request_where_nothing_is_listed(field: str, named: str) -> None:
    assert read(kms_event("DisableKey", {field: named})).key_arns == (KEY_ARN,)


def test_a_key_that_the_call_answered_with_goes_before_the_one_asked_for() -> None:
    event = kms_event("UpdateAlias", {"targetKeyId": "mrk-1"}, responseElements={"keyId": KEY_ARN})
    assert read(event).key_arns == (KEY_ARN,)


def test_a_bare_key_id_takes_the_callers_partition_and_the_events_target() -> None:
    event = kms_event(
        "DisableKey",
        {"keyId": KEY_ID},
        userIdentity={"type": "Root", "arn": "arn:aws-cn:iam::444455556666:root"},
        awsRegion="cn-north-1",
    )
    event["region"] = "cn-north-1"
    assert read(event).key_arns == (f"arn:aws-cn:kms:cn-north-1:111122223333:key/{KEY_ID}",)


def test_a_bare_key_id_without_a_known_partition_is_no_key() -> None:
    event = kms_event("DisableKey", {"keyId": KEY_ID}, userIdentity={"invokedBy": "AWS Internal"})
    assert read(event).key_arns == ()


@pytest.mark.parametrize("named", ["alias/xray-encryption", ALIAS_ARN, "two words", "", 5, None, [KEY_ARN], "x" * 5000])
def test_what_names_no_key_by_id_is_no_key(named: object) -> None:
    assert read(kms_event("DisableKey", {"keyId": named})).key_arns == ()


def test_a_key_of_another_account_keeps_its_own_arn() -> None:
    foreign = KEY_ARN.replace("111122223333", "444455556666")
    found = read(kms_event("EnableKey", {"keyId": foreign}, foreign))
    assert found.key_arns == (foreign,)
    assert found.target.account == "111122223333"


def test_keys_are_listed_once_and_not_without_end() -> None:
    many = [f"{KEY_ARN[:-4]}{number:04d}" for number in range(1000)]
    assert read(kms_event("DisableKey", {}, KEY_ARN, KEY_ARN)).key_arns == (KEY_ARN,)
    assert len(read(kms_event("DisableKey", {}, *many)).key_arns) == 16


def test_a_tagging_tells_keys_and_values() -> None:
    tags = [
        {"tagKey": "xray-guard-break-glass", "tagValue": "20261120T180000Z INC-1234"},
        {"tagKey": "empty"},
        {"tagValue": "no key"},
        "garbage",
        {"tagKey": 5, "tagValue": "x"},
    ]
    found = read(kms_event("TagResource", {"keyId": KEY_ID, "tags": tags}, KEY_ARN))
    assert found.tags == (("xray-guard-break-glass", "20261120T180000Z INC-1234"), ("empty", ""))
    assert found.tag_keys == ("xray-guard-break-glass", "empty")


def test_an_untagging_tells_keys_only() -> None:
    found = read(kms_event("UntagResource", {"keyId": KEY_ID, "tagKeys": ["a", "b", "a", 5, "", None]}, KEY_ARN))
    assert found.tag_keys == ("a", "b")
    assert found.tags == ()


def test_a_refused_call_tells_its_error_and_as_much_as_it_has() -> None:
    found = read(kms_event("DisableKey", None, errorCode="AccessDenied", errorMessage="no", resources=None))
    assert found.error_code == "AccessDenied"
    assert found.key_arns == ()
    assert found.alias is None
