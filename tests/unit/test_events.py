"""Every kind of PutEncryptionConfig event is read for what it says: where, who, when, and what came of it."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib.domain.actors import read_actor
from chalicelib.domain.events import read_change, read_key_event
from chalicelib.domain.model import (
    Actor,
    ChangeEvent,
    EncryptionStatus,
    EncryptionType,
    KeyEvent,
    Rejected,
    Setting,
    Target,
    TriggerKind,
)
from chalicelib.domain.reasons import Outcome
from tests.events.expected import EXPECTED, FOLDER, Expected
from tests.unit.test_events_keys import kms_event

KEY_ARN = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def load(name: str) -> Any:
    """One event of the folder, fresh, to be changed at will."""
    (path,) = FOLDER.glob(f"{name}_*.json")
    return json.loads(path.read_bytes())


def read(event: object) -> ChangeEvent:
    """The event's reading, which must not be a rejection."""
    change = read_change(event)
    assert isinstance(change, ChangeEvent), change
    return change


def rejection(event: object) -> Rejected:
    """The event's rejection, which must be one."""
    rejected = read_change(event)
    assert isinstance(rejected, Rejected), rejected
    return rejected


def none_event(**detail: object) -> Any:
    """Event 13 (root sets NONE), with fields of its record set, or removed where given as `...`."""
    event = load("13")
    for name, value in detail.items():
        if value is ...:
            del event["detail"][name]
        else:
            event["detail"][name] = value
    return event


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda expected: expected.file.split("_")[0])
class TestEveryFileOfTheFolder:
    def test_names_its_own_target(self, expected: Expected) -> None:
        assert read(json.loads(expected.path.read_bytes())).target == expected.target

    def test_names_the_actor_that_did_it(self, expected: Expected) -> None:
        assert read(json.loads(expected.path.read_bytes())).trigger.actor == expected.actor

    def test_keeps_the_ids_time_and_origin_of_the_call(self, expected: Expected) -> None:
        event = json.loads(expected.path.read_bytes())
        trigger = read(event).trigger
        assert trigger.kind is TriggerKind.CHANGE
        assert trigger.event_name == "PutEncryptionConfig"
        assert trigger.event_time == datetime(2026, 9, 30, 10, tzinfo=UTC)
        addendum = event["detail"].get("addendum", {})
        assert trigger.event_id == addendum.get("originalEventID", event["detail"]["eventID"])
        assert trigger.request_id == addendum.get("originalRequestID", event["detail"]["requestID"])
        assert read(event).addendum_id == (event["detail"]["eventID"] if addendum else None)
        assert trigger.source_ip == event["detail"]["sourceIPAddress"]
        assert trigger.user_agent == event["detail"]["userAgent"]

    def test_tells_the_resulting_setting_only_of_a_call_that_succeeded(self, expected: Expected) -> None:
        event = json.loads(expected.path.read_bytes())
        change = read(event)
        assert change.error_code == expected.error_code
        if expected.outcome is Outcome.IGNORED:
            assert change.result is None
            assert change.error_message == event["detail"]["errorMessage"]
        else:
            answer = event["detail"]["responseElements"]["encryptionConfig"]
            assert change.result == Setting(
                EncryptionType(answer["type"]), answer.get("keyId"), EncryptionStatus.UPDATING
            )


def test_no_file_of_the_folder_goes_untested() -> None:
    assert {path.name for path in FOLDER.glob("[0-9]*.json")} == {expected.file for expected in EXPECTED}


@pytest.mark.parametrize("name", ["config_01", "config_03", "config_04"])
def test_a_config_rule_event_is_not_a_change_event(name: str) -> None:
    assert rejection(load(name)).reason == "NOT_OUR_EVENT"


class TestTarget:
    def test_comes_from_the_envelope_where_the_record_lacks_it(self) -> None:
        event = none_event(recipientAccountId=..., awsRegion=...)
        assert read(event).target == Target("111122223333", "us-east-1")

    def test_comes_from_the_record_where_the_envelope_lacks_it(self) -> None:
        event = load("13")
        del event["account"], event["region"]
        assert read(event).target == Target("111122223333", "us-east-1")

    def test_is_where_the_setting_is_and_not_where_the_caller_is_from(self) -> None:
        event = none_event()
        event["detail"]["userIdentity"]["accountId"] = "444455556666"
        assert read(event).target.account == "111122223333"

    @pytest.mark.parametrize(
        ("field", "value"), [("recipientAccountId", "444455556666"), ("awsRegion", "eu-central-1")]
    )
    def test_of_the_record_must_agree_with_the_envelope(self, field: str, value: str) -> None:
        assert rejection(none_event(**{field: value})).reason == "TARGET_MISMATCH"

    @pytest.mark.parametrize(
        "account",
        [
            "",
            "11112222333",
            "1111222233334",
            "11112222333x",
            "١١١١٢٢٢٢٣٣٣٣",
            " 111122223333",
            "111122223333\n",
            111122223333,
            True,
            [],
            {},
            1.5,
            "*",
        ],
    )
    def test_needs_an_account_of_twelve_digits(self, account: object) -> None:
        assert rejection(none_event(recipientAccountId=account)).reason == "ACCOUNT_INVALID"

    @pytest.mark.parametrize(
        "region", ["", "us-east", "US-EAST-1", "us-east-1\n", "us-east-1/../x", "*", "é-east-1", 1, [], {}, False]
    )
    def test_needs_the_shape_of_a_region(self, region: object) -> None:
        assert rejection(none_event(awsRegion=region)).reason == "REGION_INVALID"

    @pytest.mark.parametrize(
        "region", ["us-gov-west-1", "cn-north-1", "ap-southeast-7", "us-iso-east-1", "eusc-de-east-1"]
    )
    def test_may_be_a_region_nobody_listed(self, region: str) -> None:
        event = none_event(awsRegion=region)
        event["region"] = region
        assert read(event).target.region == region

    def test_missing_everywhere_is_a_reason_of_its_own(self) -> None:
        event = none_event(recipientAccountId=None)
        event["account"] = None
        assert rejection(event).reason == "ACCOUNT_MISSING"
        event = none_event(awsRegion=...)
        del event["region"]
        assert rejection(event).reason == "REGION_MISSING"


class TestRejection:
    @pytest.mark.parametrize("event", [None, "", "{}", b"\xff\x00", 0, 1.5, float("nan"), True, [], [{}], ()])
    def test_of_what_is_no_object(self, event: object) -> None:
        assert rejection(event).reason == "NOT_AN_OBJECT"

    @pytest.mark.parametrize("source", [None, "aws.kms", "custom.xray", 5, ["aws.xray"]])
    def test_of_another_source(self, source: object) -> None:
        event = load("13")
        event["source"] = source
        assert rejection(event).reason == "NOT_OUR_EVENT"

    @pytest.mark.parametrize("name", [None, "GetEncryptionConfig", "putencryptionconfig", 5, {}, []])
    def test_of_another_call(self, name: object) -> None:
        assert rejection(none_event(eventName=name)).reason == "NOT_OUR_EVENT"

    @pytest.mark.parametrize("service", ["kms.amazonaws.com", "", 5, {}])
    def test_of_another_service(self, service: object) -> None:
        assert rejection(none_event(eventSource=service)).reason == "NOT_OUR_EVENT"

    @pytest.mark.parametrize("detail", [None, {}, [], "detail", 5])
    def test_of_a_record_that_is_not_there(self, detail: object) -> None:
        event = load("13")
        event["detail"] = detail
        assert rejection(event).reason == "DETAIL_MISSING"

    def test_of_a_record_left_out_for_its_size(self) -> None:
        event = load("13")
        event["detail"] = {"omitted": True, "originalSize": 300_000, "reason": "too large"}
        assert rejection(event).reason == "DETAIL_OMITTED"

    def test_keeps_the_events_own_id(self) -> None:
        event = none_event(recipientAccountId="nonsense")
        assert rejection(event).event_id == event["detail"]["eventID"]

    def test_repeats_nothing_of_the_event(self) -> None:
        assert "nonsense" not in rejection(none_event(recipientAccountId="nonsense")).detail


class TestEventId:
    def test_is_the_envelopes_where_the_record_has_none(self) -> None:
        event = none_event(eventID=...)
        assert read(event).trigger.event_id == event["id"]

    def test_is_made_of_the_event_where_nobody_gave_one_and_is_the_same_next_time(self) -> None:
        event = none_event(eventID=None)
        del event["id"]
        made = read(event).trigger.event_id
        assert made is not None
        assert made.startswith("sha256:")
        reordered = json.loads(json.dumps(event, sort_keys=True))
        assert read(reordered).trigger.event_id == made
        other = deepcopy(event)
        other["detail"]["requestID"] = "another"
        assert read(other).trigger.event_id != made

    @pytest.mark.parametrize("hostile", ["x" * 129, "a#b", "é", "a\x00b", "\ud800", " ", "x" * 262_144])
    def test_of_another_shape_stands_as_its_digest_so_that_it_fits_a_tables_key(self, hostile: str) -> None:
        event_id = read(none_event(eventID=hostile)).trigger.event_id
        assert event_id is not None
        assert event_id.startswith("sha256:")
        assert len(event_id) == len("sha256:") + 64
        assert read(none_event(eventID=hostile, requestID="redelivered")).trigger.event_id == event_id


class TestEventTime:
    @pytest.mark.parametrize(
        ("text", "moment"),
        [
            ("2026-09-30T10:00:00Z", datetime(2026, 9, 30, 10, tzinfo=UTC)),
            ("2026-09-30t10:00:00z", datetime(2026, 9, 30, 10, tzinfo=UTC)),
            ("2026-09-30T10:00:00.123456789Z", datetime(2026, 9, 30, 10, 0, 0, 123456, tzinfo=UTC)),
            ("2026-09-30T12:00:00.5+02:00", datetime(2026, 9, 30, 10, 0, 0, 500000, tzinfo=UTC)),
            ("2026-09-29T23:30:00-1030", datetime(2026, 9, 30, 10, tzinfo=UTC)),
            ("2026-09-30T10:00:00", datetime(2026, 9, 30, 10, tzinfo=UTC)),
            ("2028-02-29T23:59:60Z", datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC)),
            ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ],
    )
    def test_is_read_in_every_form_as_utc(self, text: str, moment: datetime) -> None:
        assert read(none_event(eventTime=text)).trigger.event_time == moment

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "yesterday",
            "2026-02-29T10:00:00Z",
            "2026-09-30",
            "10:00:00Z",
            "9999-12-31T23:59:59-14:00",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+14:00",
            "2026-09-30T10:00:00+99:00",
            "2026-09-30T25:00:00Z",
            "２０２６-09-30T10:00:00Z",
            1790762400,
            None,
            [],
            {},
            True,
        ],
    )
    def test_comes_from_the_envelope_where_the_records_is_unreadable(self, text: object) -> None:
        event = none_event(eventTime=text)
        event["time"] = "2026-09-30T10:00:07Z"
        assert read(event).trigger.event_time == datetime(2026, 9, 30, 10, 0, 7, tzinfo=UTC)
        event["time"] = text
        assert read(event).trigger.event_time is None


class TestResult:
    def test_is_what_was_asked_for_where_the_answer_was_left_out(self) -> None:
        event = load("05")
        for omitted in (None, {"omitted": True, "originalSize": 102_401, "reason": "too large"}):
            event["detail"]["responseElements"] = omitted
            assert read(event).result == Setting(EncryptionType.KMS, KEY_ARN, None)

    def test_is_unknown_where_both_were_left_out(self) -> None:
        omitted = {"omitted": True, "originalSize": 102_401, "reason": "too large"}
        assert read(none_event(responseElements=omitted, requestParameters=omitted)).result is None

    def test_is_the_answers_and_not_the_requests(self) -> None:
        event = none_event(requestParameters={"type": "KMS", "keyId": "alias/other"})
        assert read(event).result == Setting(EncryptionType.NONE, None, EncryptionStatus.UPDATING)

    def test_of_none_has_no_key_even_where_the_record_names_one(self) -> None:
        event = none_event(responseElements={"encryptionConfig": {"type": "NONE", "keyId": "1234", "status": "ACTIVE"}})
        assert read(event).result == Setting(EncryptionType.NONE, None, EncryptionStatus.ACTIVE)

    @pytest.mark.parametrize("answer", [{}, {"type": "SSE"}, {"type": None}, {"type": ["KMS"]}, {"type": "kms"}])
    def test_is_unknown_where_the_answer_is_not_understood(self, answer: object) -> None:
        assert read(none_event(responseElements={"encryptionConfig": answer})).result is None

    @pytest.mark.parametrize("key", [None, 5, {}, "", "x" * 2049, "key\x1b[2J", "two words", "\ud800"])
    def test_never_carries_a_key_that_had_to_be_altered(self, key: object) -> None:
        answer = {"encryptionConfig": {"type": "KMS", "keyId": key, "status": "ODD"}}
        assert read(none_event(responseElements=answer)).result == Setting(EncryptionType.KMS, None, None)

    @pytest.mark.parametrize("error", [5, {}, [], True, ""])
    def test_is_not_guessed_from_the_request_after_an_error_that_cannot_be_read(self, error: object) -> None:
        change = read(none_event(errorCode=error, responseElements=None))
        assert change.error_code is None
        assert change.result is None

    def test_is_none_after_an_error_though_the_record_has_an_answer_as_well(self) -> None:
        """A refused call owns no drift, whatever else its record says."""
        answer = {"encryptionConfig": {"type": "NONE", "status": "UPDATING"}}
        change = read(none_event(errorCode="AccessDenied", responseElements=answer))
        assert (change.error_code, change.result) == ("AccessDenied", None)


class TestActor:
    def test_without_an_identity_is_unknown(self) -> None:
        identities: tuple[object, ...] = (
            None,
            {},
            [],
            "root",
            5,
            {"type": "Unknown"},
            {"arn": None, "sessionContext": None},
        )
        for identity in identities:
            assert read_actor(identity).arn == "unknown"

    def test_of_an_assumed_role_without_its_issuer_is_the_role_in_its_own_partition(self) -> None:
        for partition in ("aws", "aws-cn", "aws-us-gov", "aws-iso-b"):
            arn = f"arn:{partition}:sts::111122223333:assumed-role/Admin/jdoe"
            contexts: tuple[object, ...] = ({}, None, {"sessionIssuer": {}}, {"sessionIssuer": {"arn": 5}})
            for context in contexts:
                actor = read_actor({"type": "AssumedRole", "arn": arn, "sessionContext": context})
                assert actor == Actor(f"arn:{partition}:iam::111122223333:role/Admin", "AssumedRole", session="jdoe")

    @pytest.mark.parametrize(
        "issuer",
        [
            "arn:aws:iam::111122223333:role/SecurityBreakGlass",
            "arn:aws:iam::444455556666:role/Admin",
            "arn:aws-cn:iam::111122223333:role/Admin",
        ],
    )
    def test_whose_issuer_is_another_role_than_its_session_is_unknown(self, issuer: str) -> None:
        actor = read_actor(
            {
                "type": "AssumedRole",
                "arn": "arn:aws:sts::111122223333:assumed-role/Admin/jdoe",
                "sessionContext": {"sessionIssuer": {"type": "Role", "arn": issuer}},
            }
        )
        assert actor.arn == "unknown"

    def test_of_a_session_without_an_arn_is_the_issuing_role(self) -> None:
        actor = read_actor(
            {
                "type": "AssumedRole",
                "principalId": "AROAEXAMPLEROLEID0001:jdoe",
                "sessionContext": {"sessionIssuer": {"type": "Role", "arn": "arn:aws:iam::111122223333:role/a/Admin"}},
            }
        )
        assert actor == Actor("arn:aws:iam::111122223333:role/a/Admin", "AssumedRole", session="jdoe")

    def test_federated_by_root_or_a_role_names_the_issuer(self) -> None:
        for issuer in ("arn:aws:iam::111122223333:root", "arn:aws:iam::111122223333:role/Broker"):
            actor = read_actor(
                {
                    "type": "FederatedUser",
                    "arn": "arn:aws:sts::111122223333:federated-user/guest",
                    "sessionContext": {"sessionIssuer": {"arn": issuer}},
                }
            )
            assert actor == Actor("arn:aws:sts::111122223333:federated-user/guest", "FederatedUser", issued_by=issuer)

    def test_from_the_identity_center_tells_the_user_and_the_directory(self) -> None:
        store = "arn:aws:identitystore::111122223333:identitystore/d-1234567890"
        actor = read_actor(
            {
                "type": "IdentityCenterUser",
                "accountId": "111122223333",
                "onBehalfOf": {"userId": "544894e8-80c1-707f-60e3-3ba6510dfac1", "identityStoreArn": store},
                "credentialId": "90e292de-5eb8-446e-9602-90f7c45044f7",
            }
        )
        assert actor == Actor(
            "unknown", "IdentityCenterUser", session="544894e8-80c1-707f-60e3-3ba6510dfac1", issued_by=store
        )

    @pytest.mark.parametrize(
        ("kind", "provider"),
        [
            ("WebIdentityUser", "accounts.google.com"),
            ("SAMLUser", "arn:aws:iam::111122223333:saml-provider/Corp"),
        ],
    )
    def test_from_a_web_or_saml_identity_tells_the_user_and_the_provider(self, kind: str, provider: str) -> None:
        actor = read_actor({"type": kind, "userName": "jane", "principalId": "x:y:z", "identityProvider": provider})
        assert actor == Actor("unknown", kind, session="jane", issued_by=provider)

    def test_from_another_account_tells_the_account(self) -> None:
        actor = read_actor({"type": "AWSAccount", "principalId": "AROA1:s", "accountId": "444455556666"})
        assert actor == Actor("unknown", "AWSAccount", issued_by="444455556666")

    def test_is_a_cross_account_role_by_its_own_account(self) -> None:
        actor = read_actor(
            {
                "type": "AssumedRole",
                "arn": "arn:aws:sts::444455556666:assumed-role/Remote/ci",
                "accountId": "444455556666",
            }
        )
        assert actor.arn == "arn:aws:iam::444455556666:role/Remote"

    def test_is_read_whatever_form_its_booleans_and_empty_parts_have(self) -> None:
        for attributes in ({"mfaAuthenticated": "true"}, {"mfaAuthenticated": False}, {}, None, "false"):
            identity = load("03")["detail"]["userIdentity"]
            identity["sessionContext"]["attributes"] = attributes
            identity["sessionContext"]["webIdFederationData"] = None
            assert read_actor(identity).arn == "arn:aws:iam::111122223333:role/PlatformAdmin"

    @pytest.mark.parametrize(
        "arn",
        [
            "arn:aws:iam::111122223333:role/SecurityBreakGlass\n",
            "arn:aws:iam::111122223333:role/Security\u202eBreakGlass",
            "arn:aws:iam::111122223333:role/two words",
            "arn:aws:iam::11112222333:user/short",
            "arn:aws:s3:::bucket",
            "arn:aws:iam::111122223333:user/" + "x" * 2000,
            "ARN:AWS:IAM::111122223333:user/Alice",
            "Alice",
        ],
    )
    def test_whose_arn_is_not_one_is_unknown_rather_than_mended(self, arn: str) -> None:
        assert read_actor({"type": "IAMUser", "arn": arn}).arn == "unknown"

    def test_can_not_pass_for_a_principal_by_the_name_of_a_service(self) -> None:
        identity = {"type": "AWSService", "invokedBy": "arn:aws:iam::111122223333:role/SecurityBreakGlass"}
        assert read_actor(identity).arn == "unknown"


class TestText:
    def test_is_cut_at_a_stated_length_with_an_ellipsis(self) -> None:
        change = read(none_event(userAgent="u" * 262_144, errorCode="E" * 5000, errorMessage="m" * 262_144))
        for text, limit in (
            (change.trigger.user_agent, 512),
            (change.error_code, 128),
            (change.error_message, 1024),
        ):
            assert text is not None
            assert len(text) == limit
            assert text.endswith("…")

    def test_of_just_the_limit_is_whole(self) -> None:
        assert read(none_event(userAgent="u" * 512)).trigger.user_agent == "u" * 512

    @pytest.mark.parametrize(
        "character", ["\x00", "\n", "\x1b", "\x7f", "\x9b", "\u202e", "\u200b", "\u2028", "\ud800"]
    )
    def test_has_no_character_that_a_terminal_or_a_log_obeys(self, character: str) -> None:
        change = read(none_event(userAgent=f"a{character}b", sourceIPAddress=character, requestID=character))
        assert change.trigger.user_agent == "a\ufffdb"
        assert change.trigger.source_ip == change.trigger.request_id == "\ufffd"

    def test_of_any_other_script_stands_as_it_was(self) -> None:
        assert read(none_event(userAgent="naïve 日本語 🙂")).trigger.user_agent == "naïve 日本語 🙂"


class TestAddendum:
    def event(self, **addendum: object) -> dict[str, Any]:
        event: dict[str, Any] = load("29")
        event["detail"]["addendum"] |= addendum
        return event

    def ids(self, event: dict[str, Any]) -> tuple[str | None, str | None]:
        change = read(event)
        return change.trigger.event_id, change.addendum_id

    def test_has_the_id_of_its_original_and_its_own(self) -> None:
        event = self.event(originalEventID="original")
        assert self.ids(event) == ("original", event["detail"]["eventID"])

    def test_that_names_itself_or_nothing_as_its_original_is_none(self) -> None:
        own = self.event()["detail"]["eventID"]
        for original in (own, "", None, 7):
            assert self.ids(self.event(originalEventID=original)) == (own, None)

    def test_without_an_id_of_its_own_has_the_id_of_its_envelope(self) -> None:
        event = self.event(originalEventID="original")
        del event["detail"]["eventID"]
        assert self.ids(event) == ("original", event["id"])
        del event["id"]
        assert self.ids(event) == ("original", None)

    def test_with_an_id_that_no_key_may_have_has_its_digest(self) -> None:
        event = self.event(originalEventID="an original")
        event["detail"]["eventID"] = "x" * 200
        original, own = self.ids(event)
        assert str(original).startswith("sha256:")
        assert str(own).startswith("sha256:")
        assert original != own

    def test_to_an_event_of_a_key_is_one_too(self) -> None:
        event = kms_event("DisableKey", {"keyId": KEY_ARN}, KEY_ARN)
        event["detail"]["addendum"] = {"reason": "DELIVERY_DELAY", "originalEventID": "original"}
        change = read_key_event(event)
        assert isinstance(change, KeyEvent)
        assert (change.trigger.event_id, change.addendum_id) == ("original", event["detail"]["eventID"])
